"""What `archiver show` prints of one asset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from archiver.ledger.models import Row
from worker.views.rows import in_words, row_json, state_style
from worker.views.text import shown

MAX_OBJECTS = 50
"""Objects printed of one manifest."""
MAX_DOUBTS = 50
"""Doubts printed of one manifest."""


def asset_view(row: Row, manifests: Mapping[str, Mapping[str, Any] | str | None]) -> RenderableType:
    """`manifests`: by destination the manifest, or why it cannot be read, or None if there is none."""
    parts: list[RenderableType] = [_row_table(row)]
    for destination, manifest in manifests.items():
        if isinstance(manifest, Mapping):
            parts += _manifest_view(destination, manifest)
        else:
            parts += [Text(), shown(f"{destination}: {manifest or 'no manifest'}", "yellow")]
    return Group(*parts)


def _row_table(row: Row) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    fields = row_json(row)
    if row.acknowledged is not None:
        fields["acknowledged"] = in_words(row.acknowledged)
    for name, value in fields.items():
        if value not in (None, [], "", 0, 0.0):
            style = state_style(row.state) if name == "state" else ""
            table.add_row(name, shown(value, style))
    return table


def _manifest_view(destination: str, manifest: Mapping[str, Any]) -> Iterator[RenderableType]:
    objects: Sequence[Mapping[str, Any]] = manifest["objects"]
    table = Table(title=shown(f"{destination}/{manifest['folder']}"), title_justify="left")
    for column in ("object", "bytes", "crc32c", "content type"):
        table.add_column(column, overflow="fold", justify="right" if column == "bytes" else "left")
    for item in objects[:MAX_OBJECTS]:
        table.add_row(
            shown(item["path"]), f"{item['size']:,}", shown(item["crc32c"]), shown(item["content_type"])
        )
    yield table
    if len(objects) > MAX_OBJECTS:
        yield Text(f"... and {len(objects) - MAX_OBJECTS:,} more; --json prints all.")
    for problem in manifest.get("damage", []):
        yield shown(f"marked as damaged: {problem}", "bold red")
    if doubts := manifest.get("doubts", []):
        yield Text("Stored with doubts; not archived:", style="bold red")
        yield from (shown(f"  {doubt}", "red") for doubt in doubts[:MAX_DOUBTS])
        if len(doubts) > MAX_DOUBTS:
            yield Text(f"  ... and {len(doubts) - MAX_DOUBTS:,} more; --json prints all.")
        yield Text(
            "`archiver accept ID --why ...` if it is all there is, `archiver reject ID` if it is worthless."
        )
    if accepted := manifest.get("accepted"):
        yield shown(f"accepted by {accepted['by']} at {accepted['at']}: {accepted['why']}", "yellow")
        yield from (
            shown(f"  despite: {doubt}", "yellow") for doubt in accepted.get("doubts", [])[:MAX_DOUBTS]
        )
    for warning in manifest.get("warnings", []):
        yield shown(f"warning: {warning}", "yellow")

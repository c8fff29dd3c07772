"""Print one asset for `archiver show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from archiver.core.upkeep.history import history_of
from archiver.ledger.models import Decision, Row
from worker.views.rows import row_json, rows_view, state_style, time_left_in_words
from worker.views.text import shown

MAX_OBJECTS = 50
"""Objects printed of one manifest."""
MAX_DOUBTS = 50
"""Doubts printed of one manifest."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An asset at one destination. `manifest`: its manifest, or why it cannot be read, or None if there is none.
    `location`: where that is, or would be; `folder`: where its files are."""

    destination: str
    manifest: Mapping[str, Any] | str | None
    location: str
    folder: str | None


def asset_json(row: Row, copies: Sequence[Copy]) -> dict[str, Any]:
    """`locations`: of the manifest and of the files, by destination."""
    return {
        "row": row_json(row),
        "manifests": {copy.destination: copy.manifest for copy in copies},
        "locations": {
            copy.destination: {"manifest": copy.location, "folder": copy.folder}
            for copy in copies
            if isinstance(copy.manifest, Mapping)
        },
        "history": [{**asdict(each), "at": each.at.isoformat()} for each in _history(row, copies)],
    }


def asset_view(row: Row, copies: Sequence[Copy], now: datetime) -> RenderableType:
    parts: list[RenderableType] = [_row_table(row, now)]
    for copy in copies:
        parts += [Text(), *_location_view(copy)]
        if isinstance(copy.manifest, Mapping):
            parts += _manifest_view(copy.manifest)
    return Group(*parts, *_history_view(row, copies))


def session_view(row: Row, copies: Sequence[Copy], now: datetime) -> RenderableType:
    """One of several assets, without its objects."""
    locations = (line for copy in copies for line in _location_view(copy))
    return Group(rows_view("", (row,), now), *locations, *_history_view(row, copies), Text())


def _location_view(copy: Copy) -> Iterator[RenderableType]:
    if isinstance(copy.manifest, Mapping):
        yield shown(f"manifest  {copy.location}")
        yield shown(f"files     {copy.folder}/")
    else:
        yield shown(f"{copy.destination}: {copy.manifest or 'no manifest'}", "yellow")


def _history(row: Row, copies: Sequence[Copy]) -> list[Decision]:
    return history_of(row, [copy.manifest for copy in copies if isinstance(copy.manifest, Mapping)])


def _history_view(row: Row, copies: Sequence[Copy]) -> Iterator[RenderableType]:
    for each in _history(row, copies):
        yield shown(f"{each.at:%Y-%m-%d %H:%M} UTC  {each.what} by {each.by}: {each.why}", "yellow")


def _row_table(row: Row, now: datetime) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    fields = row_json(row)
    del fields["history"], fields["acknowledged"], fields["leased_until"]  # the former are told below
    fields["copies"] = ", ".join(f"{state} at {name}" for name, state in row.copies.items())
    fields["expires_at"] = f"{fields['expires_at']} ({time_left_in_words(row.expires_at, now)})"
    for name, value in fields.items():
        if value not in (None, [], "", 0, 0.0):
            style = state_style(row.state) if name == "state" else ""
            table.add_row(name, shown(value, style))
    return table


def _manifest_view(manifest: Mapping[str, Any]) -> Iterator[RenderableType]:
    objects: Sequence[Mapping[str, Any]] = manifest["objects"]
    table = Table()
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
        yield from (
            shown(f"accepted despite: {doubt}", "yellow") for doubt in accepted.get("doubts", [])[:MAX_DOUBTS]
        )
    for warning in manifest.get("warnings", []):
        yield shown(f"warning: {warning}", "yellow")

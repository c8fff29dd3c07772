"""Print what `archiver restore` did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from archiver.core.restore.restorer import Restored
from archiver.core.restore.thawing import DAYS, Thawing
from worker.views.text import shown, size, span

PROBLEMS_SHOWN = 5
THAW_HINT = (
    "Cold objects cannot be read before the store has restored them. Run the same command with --thaw bulk (cheapest, "
    "within 12 to 48 hours) or --thaw standard (within 5 to 12 hours): it asks the store, says what that costs, and "
    "when to come back."
)


def result_view(result: Restored, folder: Path) -> RenderableType:
    """One asset: where it is, or what is missing."""
    if result.ok:
        there = f", {result.kept:,} already there" if result.kept else ""
        where = f" from {', '.join(sorted(result.sources))}" if result.sources else ""
        objects = "1 object" if result.objects == 1 else f"{result.objects:,} objects"
        head = f"{result.asset_id}: {objects}, {size(result.size_bytes)}{where}{there}"
        lines = [shown(head), shown(f"  {folder / (result.opens or result.folder)}")]
    else:
        lines = [shown(f"{result.asset_id} is not restored:", "bold red")]
        lines += [shown(f"  {problem}", "red") for problem in result.problems[:PROBLEMS_SHOWN]]
        if len(result.problems) > PROBLEMS_SHOWN:
            lines.append(shown(f"  and {len(result.problems) - PROBLEMS_SHOWN:,} more objects", "red"))
    lines += [shown(f"  {note}", "yellow") for note in result.notes]
    return Group(*lines)


def summary_view(
    results: Sequence[Restored], folder: Path, *, bag: bool, thawing: Thawing | None, now: datetime
) -> RenderableType:
    failed = sum(not result.ok for result in results)
    read = size(sum(result.read_bytes for result in results))
    number = len(results) - failed
    assets = "1 asset is" if number == 1 else f"{number:,} assets are"
    style = "bold red" if failed or not results else "bold green"
    lines: list[Text] = [shown(f"{assets} whole in {folder}, {read} read.", style)]
    if not results:
        lines.append(shown("No destination has a manifest of such an asset.", "red"))
    if failed:
        lines.append(
            shown(
                f"{failed:,} could not be restored; the reason is above. Another run tries again and keeps the rest.",
                "red",
            )
        )
    if bag:
        made = "is a complete BagIt bag" if results and not failed else "is no complete bag yet"
        lines.append(shown(f"{folder} {made}.", style))
    if thawing is not None:
        lines += _thawing_lines(thawing, now)
    elif any(result.cold for result in results):
        lines.append(shown(THAW_HINT, "yellow"))
    return Group(*lines)


def _thawing_lines(thawing: Thawing, now: datetime) -> list[Text]:
    lines = []
    if thawing.asked:
        objects = "1 cold object" if thawing.asked == 1 else f"{thawing.asked:,} cold objects"
        lines.append(
            shown(
                f"Asked for {objects}: about ${thawing.cost:,.2f} at the list price of us-east-1, "
                f"with the readable copies for {DAYS} days. To read them is billed as any download."
            )
        )
    if thawing.under_way:
        lines.append(shown(f"{thawing.under_way:,} had been asked for before: not asked again."))
    if thawing.readable:
        lines.append(shown(f"{thawing.readable:,} can be read by now: run the same command again."))
    if thawing.wait is not None:
        lines.append(
            shown(
                f"They can be read within {span(thawing.wait)}: run the same command again after "
                f"{now + thawing.wait:%Y-%m-%d %H:%M} UTC.",
                "bold",
            )
        )
    lines += [
        shown(f"Could not be asked for: {problem}", "red") for problem in thawing.problems[:PROBLEMS_SHOWN]
    ]
    return lines


def result_json(result: Restored, folder: Path) -> dict[str, Any]:
    return {
        "asset_id": result.asset_id,
        "ok": result.ok,
        "folder": str(folder / result.folder) if result.folder else None,
        "opens": str(folder / result.opens) if result.opens else None,
        "objects": result.objects,
        "size_bytes": result.size_bytes,
        "read_bytes": result.read_bytes,
        "kept": result.kept,
        "sources": result.sources,
        "problems": result.problems,
        "notes": result.notes,
        "cold": len(result.cold),
    }

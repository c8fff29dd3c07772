"""Rows of the ledger: one line per asset, counts per state, and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from archiver.core.deadlines import UNDATED
from archiver.core.health import ATTENTION_STATES
from archiver.ledger.models import SAFE_STATES, Acknowledgement, AssetState, CopyState, Row
from worker.logs.escaping import escaped
from worker.views.text import shown, time_left

LONGEST_WORD = 60
"""Of a warning in a list of assets."""


def state_style(state: str) -> str:
    if state in SAFE_STATES:
        return "green"
    if state in ATTENTION_STATES:
        return "bold red"
    return "yellow" if state in (AssetState.WAITING, AssetState.SOURCE_FAILED) else "cyan"


def states_table(counts: Mapping[AssetState, int], seen: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for state in AssetState:
        if number := counts.get(state, 0):
            table.add_row(Text(state, style=state_style(state)), f"{number:,}")
    table.add_row(Text("seen", style="bold"), Text(f"{seen:,}", style="bold"))
    return table


def rows_view(title: str, rows: tuple[Row, ...], now: datetime) -> RenderableType:
    """One line per asset, and the reason below it. The lines of every type fit 80 columns."""
    if not rows:
        return Text(title, style="bold")
    widths = [max((len(text) for text in texts), default=0) for texts in zip(*map(_cells, rows), strict=True)]
    heading = Text(title.ljust(sum(widths) + 2 * (len(widths) - 1)), style="bold")
    parts: list[RenderableType] = [heading + Text("  100ms deletes", style="not bold dim")]
    for row in rows:
        line = Text("  ").join(
            Text(text.ljust(width), style=state_style(text) if number == 2 else "")
            for number, (text, width) in enumerate(zip(_cells(row), widths, strict=True))
        )
        parts.append(line + Text(f"  {time_left(row.expires_at, now)}", style="dim"))
        if why := row.reason or warnings_in_short(row):
            parts.append(_indented(Text(escaped(why), overflow="fold")))
        if elsewhere := copies_in_words(row):
            parts.append(_indented(shown(elsewhere, "yellow")))
        if ack := row.acknowledged:
            parts.append(_indented(shown(in_words(ack), "dim")))
    return Group(*parts)


def warnings_in_short(row: Row) -> str:
    """The first warning, without the folders of what it names, and how many more there are; `show` has them all."""
    if not row.warnings:
        return ""
    words = (
        f"…/{word.rsplit('/', 1)[1]}" if len(word) > LONGEST_WORD and "/" in word.rstrip("/") else word
        for word in row.warnings[0].split(" ")
    )
    more = len(row.warnings) - 1
    return " ".join(words) + (f" (and {more:,} more: `archiver show {row.asset_id}`)" if more else "")


def copies_in_words(row: Row) -> str:
    """Name the destinations that are known to lack it or to hold it damaged; empty when there are none."""
    words = {CopyState.LACKING: "not at", CopyState.DAMAGED: "damaged at"}
    return "; ".join(
        f"{text} {', '.join(names)}"
        for state, text in words.items()
        if (names := [name for name, copy in row.copies.items() if copy is state])
    )


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 2), expand=False)


def _cells(row: Row) -> tuple[str, str, str]:
    return escaped(row.asset_id), escaped(row.type), str(row.state)


def in_words(ack: Acknowledgement) -> str:
    return f"acknowledged by {ack.by} at {ack.at:%Y-%m-%d %H:%M} UTC: {ack.why}"


def time_left_in_words(expires_at: datetime, now: datetime) -> str:
    if expires_at == UNDATED:
        return "expires at an unknown time"
    return f"{'expires' if expires_at > now else 'expired'} {time_left(expires_at, now)}"


def row_json(row: Row) -> dict[str, Any]:
    return {key: _plain(value) for key, value in asdict(row).items()}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

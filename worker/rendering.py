"""The ledger for people (rich) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from archiver.core.deadlines import UNDATED
from archiver.core.health import ATTENTION_STATES, UNSAVED_STATES, Summary, assess
from archiver.hms.models import parse_time
from archiver.ledger.models import SAFE_STATES, Acknowledgement, AssetState, Progress, Row
from worker.escaping import escaped
from worker.findings import Finding, Verdict

ATTENTION_HINT = (
    "`archiver show ID` says why. What is stored with doubts: `archiver accept ID` or `archiver reject ID`. What "
    "nothing can be done about: `archiver ack ID --why ...`, and it is no longer a problem."
)
WAITING_SHOWN = 5  # they mostly wait for one and the same reason; the states above say how many
FINDING_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}


def shown(value: object, style: str = "") -> Text:
    """Text that others may have written: it is shown, and does nothing to the terminal."""
    return Text(escaped(str(value)), style=style)


def size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def span(duration: timedelta) -> str:
    """`3 d 4 h`, `12 min`, `5 s`: two units at most."""
    seconds = int(abs(duration.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"


def time_left(expires_at: datetime, now: datetime) -> str:
    if expires_at == UNDATED:
        return "unknown (no creation date)"
    return f"in {span(expires_at - now)}" if expires_at > now else f"{span(now - expires_at)} ago"


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
    """A line for each asset, and under it why: at its full width, for a reason is a sentence."""
    parts: list[RenderableType] = [Text(title, style="bold")] if title else []
    widths = [max((len(text) for text in texts), default=0) for texts in zip(*map(_cells, rows), strict=True)]
    for row in rows:
        line = Text("  ").join(
            Text(text.ljust(width), style=state_style(text) if number == 2 else "")
            for number, (text, width) in enumerate(zip(_cells(row), widths, strict=True))
        )
        parts.append(line + Text(f"  {_left(row.expires_at, now)}", style="dim"))
        if why := row.reason or "; ".join(row.warnings):
            parts.append(_indented(Text(escaped(why), overflow="fold")))
        if ack := row.acknowledged:
            parts.append(_indented(shown(in_words(ack), "dim")))
    return Group(*parts)


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 2), expand=False)


def _cells(row: Row) -> tuple[str, str, str]:
    return escaped(row.asset_id), escaped(row.type), str(row.state)


def in_words(ack: Acknowledgement) -> str:
    return f"acknowledged by {ack.by} at {ack.at:%Y-%m-%d %H:%M} UTC: {ack.why}"


def _left(expires_at: datetime, now: datetime) -> str:
    return f"gone {time_left(expires_at, now)}" if expires_at != UNDATED else "gone at an unknown time"


def progress_table(running: tuple[Progress, ...]) -> Table:
    table = Table(
        title="Being copied",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in ("asset", "type", "copied", "objects"):
        table.add_column(column, no_wrap=True, justify="right" if column == "objects" else "left")
    table.add_column("now")  # the one that may shrink: asset ids are never cut
    for item in running:
        total = f" of {size(item.bytes_total)}" if item.bytes_total else ""
        name = item.current.rsplit("/", 1)[-1]
        copied = size(item.bytes_done) + total
        now = shown(name)
        now.no_wrap, now.overflow = True, "ellipsis"
        table.add_row(shown(item.asset_id), shown(item.type), copied, f"{item.objects_done:,}", now)
    return table


def summary_view(summary: Summary) -> RenderableType:
    """The headline first, then the facts behind it."""
    health = assess(summary)
    unsaved = any(summary.counts.states.get(state) for state in UNSAVED_STATES)
    style = "bold red" if not health.healthy else "yellow" if unsaved else "bold green"
    parts: list[RenderableType] = [shown(health.headline, style)]
    parts += [_bullet(problem.text, "red") for problem in health.problems]
    parts += [_bullet(note, "dim") for note in health.notes]
    parts += [states_table(summary.counts.states, summary.counts.seen)]
    if summary.last_sweep is not None:
        parts.append(_sweep_line(summary.last_sweep, summary.at))
    if summary.running:
        parts.append(progress_table(summary.running))
    urgent = {row.asset_id for row in summary.at_risk}
    waiting = tuple(row for row in summary.waiting if row.asset_id not in urgent)[:WAITING_SHOWN]
    for title, rows in (
        ("At risk", summary.at_risk),
        ("Will be tried again", waiting),
        ("Need a person", summary.needs_attention),
        ("Archived, with warnings", summary.with_warnings),
    ):
        if rows:
            parts.append(rows_view(title, rows, summary.at))
    if summary.needs_attention:
        parts.append(Text(ATTENTION_HINT, style="dim"))
    if summary.next_due_at is not None:
        due, now = summary.next_due_at, summary.at
        when = f"is due {time_left(due, now)}" if due > now else f"has been due for {span(now - due)}"
        parts.append(Text(f"The next retry {when}.", style="dim"))
    return Group(*parts)


def _sweep_line(sweep: Mapping[str, object], now: datetime) -> Text:
    kind = "all pages" if sweep.get("full") else "the newest pages"
    return shown(
        f"Last sweep: {_ago(sweep.get('started_at'), now)}, {sweep.get('assets')} assets, {sweep.get('new')} new, "
        f"{kind}."
    )


def _bullet(text: str, style: str) -> RenderableType:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    table.add_row(Text("•", style=style), shown(text, style))
    return table


def finding_view(finding: Finding) -> RenderableType:
    """One line of `doctor`, and under it what to do."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=7)
    table.add_column(overflow="fold")
    table.add_row(
        Text(finding.verdict, style=FINDING_STYLES[finding.verdict]),
        shown(f"{finding.subject}: {_without(finding.subject, finding.detail)}"),
    )
    if finding.remedy:
        table.add_row("", shown(f"→ {finding.remedy}", "dim"))
    return table


def _without(subject: str, detail: str) -> str:
    return detail.removeprefix(f"{subject}: ")


def _ago(moment: object, now: datetime) -> str:
    began = parse_time(moment)
    return f"{span(now - began)} ago" if began else "at an unknown time"


def row_json(row: Row) -> dict[str, Any]:
    return {key: _plain(value) for key, value in asdict(row).items()}


def summary_json(summary: Summary) -> dict[str, Any]:
    health = assess(summary)
    return {
        "at": summary.at.isoformat(),
        "healthy": health.healthy,
        "headline": health.headline,
        "problems": [{"code": problem.id, "text": problem.text} for problem in health.problems],
        "notes": list(health.notes),
        "seen": summary.counts.seen,
        "balanced": summary.counts.balanced,
        "states": {str(state): number for state, number in summary.counts.states.items()},
        "acknowledged": {str(state): number for state, number in summary.counts.acknowledged.items()},
        "at_risk": [row_json(row) for row in summary.at_risk],
        "waiting": [row_json(row) for row in summary.waiting],
        "needs_attention": [row_json(row) for row in summary.needs_attention],
        "with_warnings": [row_json(row) for row in summary.with_warnings],
        "running": [asdict(item) for item in summary.running],
        "on_hold": {
            name: {"reason": breaker.reason, "until": breaker.until.isoformat()}
            for name, breaker in summary.open_breakers.items()
        },
        "last_sweep": dict(summary.last_sweep) if summary.last_sweep else None,
        "sweep_is_late": summary.sweep_is_late,
        "next_due_at": summary.next_due_at.isoformat() if summary.next_due_at else None,
    }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value

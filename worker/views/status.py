"""Print the report of `archiver status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from archiver.core.forecast import Forecast
from archiver.core.health import UNSAVED_STATES, Summary, assess
from archiver.hms.models import parse_time
from archiver.ledger.models import Progress
from worker.views.rows import row_json, rows_view, states_table
from worker.views.text import shown, size, span, time_left

ATTENTION_HINT = (
    "`archiver show ID` prints why. If it is stored with doubts: `archiver accept ID` or `archiver reject ID`. If "
    "nothing can be done: `archiver ack ID --why ...`; it is then no longer reported as a problem."
)
WAITING_SHOWN = 5  # most wait for the same reason; the table of states has the total


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
        ("Will be retried", waiting),
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


def _ago(moment: object, now: datetime) -> str:
    began = parse_time(moment)
    return f"{span(now - began)} ago" if began else "at an unknown time"


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
        "forecast": forecast_json(summary.forecast) if summary.forecast else None,
    }


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """Bands as `low`, `likely` and `high`; times as RFC 3339."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(forecast).items()
    }

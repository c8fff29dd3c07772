"""What `archiver plan` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rich.table import Table

from archiver.core.forecast import Forecast
from archiver.core.upkeep.costs import PRICES, dollars_a_month
from archiver.core.upkeep.planning import Plan
from worker.views.status import forecast_json
from worker.views.text import shown, size, span


def plan_view(plan: Plan, *, buckets: int) -> Table:
    """`buckets`: destinations that bill requests and storage."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _lines(plan, buckets):
        table.add_row(name, shown(value))
    return table


def plan_json(plan: Plan, *, buckets: int) -> dict[str, Any]:
    return {
        "listed": plan.listed,
        "to_archive": asdict(plan.to_archive),
        "new": plan.new,
        "archived": plan.archived,
        "left_out": {why: asdict(amount) for why, amount in plan.left_out.items()},
        "left_alone": {str(state): number for state, number in plan.left_alone.items()},
        "average_bytes": plan.average_bytes,
        "forecast": forecast_json(plan.forecast) if plan.forecast else None,
        "requests": asdict(plan.requests),
        "estimate": {
            "prices": PRICES,
            "buckets": buckets,
            "requests_dollars": round(plan.requests.dollars * buckets, 4),
            "storage_dollars_a_month": round(dollars_a_month(plan.bytes_with_unsized) * buckets, 4),
        },
    }


def _lines(plan: Plan, buckets: int) -> Iterator[tuple[str, str]]:
    amount = plan.to_archive
    unsized = ""
    if amount.unsized:
        unsized = f"; {amount.unsized:,} of unknown size, each counted as {size(plan.average_bytes)} below"
    yield "to archive", f"{amount.assets:,} assets, {size(amount.size_bytes)} ({plan.new:,} new{unsized})"
    yield "archived", f"{plan.archived:,}"
    for why, left in sorted(plan.left_out.items()):
        yield "left out", f"{left.assets:,}, {size(left.size_bytes)}: {why}"
    for state, number in sorted(plan.left_alone.items()):
        yield "left alone", f"{number:,} {state}"
    if not amount.assets:
        return
    yield "time", _time(plan.forecast)
    requests = plan.requests
    yield (
        "requests",
        f"{requests.put:,} PUT and LIST, {requests.get:,} GET and HEAD at each S3 or GCS destination",
    )
    if buckets:
        once, monthly = requests.dollars * buckets, dollars_a_month(plan.bytes_with_unsized) * buckets
        places = f" for {buckets} destinations" if buckets > 1 else ""
        yield "cost", f"${once:,.2f} once for requests, ${monthly:,.2f} a month for storage{places}"
        yield "", f"Example prices: {PRICES}. Look up yours (docs/costs.md)."


def _time(found: Forecast | None) -> str:
    if found is None:
        return "no forecast: fewer than 3 hours of copying were measured"
    likely, low, high = (
        span(timedelta(seconds=seconds))
        for seconds in (found.done_in_seconds.likely, found.done_in_seconds.low, found.done_in_seconds.high)
    )
    missed = round(found.missed_assets.likely)
    late = f"; {missed:,} assets would miss their deadline" if missed else ""
    return f"{likely} at the measured rate ({low} to {high} in nine cases of ten){late}"

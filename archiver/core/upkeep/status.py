"""Read the facts behind `status` from the ledger; `core.health` says what they amount to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from archiver.core import events, machine, workspaces
from archiver.core.alerts import BOOK_FACT, AlertBook
from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.destinations import breaker, registry
from archiver.core.health import (
    ATTENTION_STATES,
    MISSED_SWEEPS,
    REPEATED,
    UNSAVED_STATES,
    Failing,
    Summary,
)
from archiver.core.health_rules import Finding, finding
from archiver.core.upkeep import (
    cataloguing,
    drill_report,
    expiring,
    not_listed,
    reports,
    store_clocks,
    throughput,
)
from archiver.core.upkeep.erasing import locked_until
from archiver.core.upkeep.failed_later import failed_later
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.sweep import NOTHING_LISTED_UNTIL, RECORDED_TIMES, sweep_progress
from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState, OutboxSize, Row

WATCH_FACT = "watch"
RAN_ONCE_FACT = "run_once"
IDLE_FACT = "idle"
CROSSINGS_FACT = "at_risk_crossings"  # by days left: how many assets ever came under that level

EVENTS_LATE = timedelta(hours=1)
LISTS_LITTLE = timedelta(days=1)
"""Left of the last asset's retention, when its absence from the list means nothing."""
SHOWN = 20  # rows of each kind in a summary
NAMED = 5  # of them in one line
MOST_COMPARED = 200  # waiting assets whose reasons are compared, the most urgent ones
MOST_LOOKED_AT = 1000  # rows of one state that are searched for unacknowledged ones


def summarize(ledger: Ledger, now: datetime, *, at_risk_within: timedelta, sweep_every: timedelta) -> Summary:
    """`now`: by the ledger's clock. Raises LedgerError."""
    facts = ledger.recall_all("")
    at_risk = sorted(most_urgent(ledger, now + at_risk_within, SHOWN + 1), key=lambda row: row.expires_at)
    waiting = tuple(ledger.rows([AssetState.WAITING], limit=MOST_COMPARED))
    outbox = ledger.outbox_size()
    known = summarize_facts(ledger, facts, now, at_risk_within=at_risk_within, sweep_every=sweep_every)
    return replace(
        known,
        at_risk=tuple(at_risk[:SHOWN]),
        at_risk_or_more=len(at_risk) > SHOWN,
        waiting=waiting[:SHOWN],
        needs_attention=tuple(_unacknowledged(ledger)),
        with_warnings=tuple(ledger.warned(SHOWN)),
        running=tuple(ledger.progress()),
        open_breakers=breaker.not_closed(ledger, now),
        failing=tuple(_failing(waiting)),
        reported=tuple(_reported(ledger, facts, outbox, now)),
        events_waiting=outbox.waiting,
        next_due_at=ledger.next_due_at(),
    )


def summarize_facts(
    ledger: Ledger,
    facts: Mapping[str, Mapping[str, object]],
    now: datetime,
    *,
    at_risk_within: timedelta,
    sweep_every: timedelta,
) -> Summary:
    """Summarize the ledger's counts and all its `facts`, without a look at any row: in a few milliseconds, however many
    assets there are. Raises LedgerError."""
    recorded = {name: at for name, fact in facts.items() if (at := _latest(fact)) is not None}
    sweeping = sweep_progress(ledger)
    if sweeping is not None and sweeping.begun > MISSED_SWEEPS:
        sweeping = None  # one after the other is killed: that is no sweep
    return Summary(
        at=now,
        counts=ledger.counts(),
        at_risk_within=at_risk_within,
        sweep_every=sweep_every,
        last_sweep=facts.get(SWEEP_FACT),
        sweeping_since=sweeping.started_at if sweeping else None,
        watched_at=recorded.get(WATCH_FACT),
        ran_once_at=recorded.get(RAN_ONCE_FACT),
        idle_since=parse_time(facts.get(IDLE_FACT, {}).get("since")),
        recorded=recorded,
        looked={name: at for name, fact in facts.items() if (at := _began(fact)) is not None},
        removed_destinations=registry.removed(facts),
        replicated=facts.get(reports.REPLICATE_FACT),
        crossings=_crossings(facts.get(CROSSINGS_FACT, {})),
        forecast=throughput.last_forecast(facts),
    )


def most_urgent(ledger: Ledger, before: datetime, limit: int) -> Iterator[Row]:
    """Yield unsaved assets that expire before `before`, up to `limit` of each state: a thousand in one state must not
    hide one in another. Raises LedgerError."""
    for state in UNSAVED_STATES:
        rows = ledger.rows([state], expiring_before=before)
        # stored with doubts and being retried: not at risk, its source may end
        yield from islice((row for row in rows if row.stored_objects == 0), limit)


def _unacknowledged(ledger: Ledger) -> Iterator[Row]:
    found = (
        row
        for state in ATTENTION_STATES
        for row in ledger.rows([state], limit=MOST_LOOKED_AT)
        if not row.acknowledged
    )
    return islice(found, SHOWN)


def _crossings(fact: Mapping[str, object]) -> dict[int, int]:
    return {
        int(days): number for days, number in fact.items() if days.isdecimal() and isinstance(number, int)
    }


def _began(fact: Mapping[str, object]) -> datetime | None:
    """An earlier version's reconcile, and a watch, tell only when they ended."""
    times = (parse_time(fact.get(name)) for name in ("started_at", reports.BEGAN, "at"))
    return next((time for time in times if time is not None), None)


def _latest(fact: Mapping[str, object]) -> datetime | None:
    times = (parse_time(fact.get(name)) for name in RECORDED_TIMES)
    return max((time for time in times if time is not None), default=None)


# -- findings that a task or a machine has recorded ----------------------------------------------------------
def _reported(
    ledger: Ledger, facts: Mapping[str, Mapping[str, object]], outbox: OutboxSize, now: datetime
) -> Iterator[Finding]:
    if workspaces.REFUSED_FACT in facts:
        yield finding(
            "ledger_of_another_workspace",
            "An installation with credentials of another 100ms workspace uses this ledger, and is refused: its assets "
            "are not archived.",
        )
    yield from _of_sweep(facts.get(SWEEP_FACT, {}), now)
    yield from store_clocks.findings(facts.get(store_clocks.FACT), facts.get(SWEEP_FACT, {}))
    yield from not_listed.findings(facts.get(not_listed.FACT), facts.get(not_listed.ACKNOWLEDGED_FACT), now)
    compared = facts.get(reports.RECONCILE_FACT)
    yield from reports.reconcile_findings(compared)
    yield from reports.late_reconcile_findings(compared, facts.get(reports.RECONCILE_EXPECTED_FACT), now)
    for name, fact in sorted(facts.items()):
        if name.startswith(machine.FACTS):
            worker = name.removeprefix(machine.FACTS)
            yield finding(
                "machine_fault", f"The machine of {worker} fails: {fact.get('reason')}", cause=worker
            )
    yield from reports.scrub_findings(facts.get(reports.SCRUB_FACT), now)
    yield from drill_report.drill_findings(facts.get(drill_report.DRILL_FACT), now)
    yield from cataloguing.catalogue_findings(facts.get(cataloguing.FACT), now)
    yield from _of_failed_later(ledger)
    yield from _of_erasures(ledger, now)
    yield from expiring.findings(facts.get(expiring.FACT))
    yield from _of_events(outbox, facts.get(events.FACT, {}), now)
    for name, delivery in AlertBook.from_fact(facts.get(BOOK_FACT)).failing_channels.items():
        yield finding(
            "alert_channel_fails",
            f"Alerts do not reach {name}: {delivery.reason}, {delivery.failures} times in a row.",
            cause=name,
        )
    yield from reports.verify_findings(ledger)


def _of_sweep(sweep: Mapping[str, object], now: datetime) -> Iterator[Finding]:
    until = parse_time(sweep.get(NOTHING_LISTED_UNTIL))
    if until is not None and until - now > LISTS_LITTLE:
        yield finding(
            "list_is_empty",
            f"100ms lists no asset, although it keeps some that are known until {until:%Y-%m-%d}: what is new there is "
            "not seen.",
        )
    if number := sweep.get("garbled"):
        yield finding(
            "assets_without_id", f"{number} of the API's rows have no usable id: they cannot be saved."
        )
    ahead = sweep.get("clock_ahead_seconds")
    if isinstance(ahead, int | float) and abs(ahead) > CLOCK_TOLERANCE.total_seconds():
        where = "ahead of" if ahead > 0 else "behind"
        yield finding(
            "clock_is_wrong",
            f"The clock of the ledger's server is {abs(ahead):.0f} s {where} 100ms's: deadlines cannot be relied on, "
            "and nothing is given up as lost.",
        )


def _of_events(size: OutboxSize, fact: Mapping[str, object], now: datetime) -> Iterator[Finding]:
    since = parse_time(fact.get("failing_since"))
    if since is not None and now - since >= EVENTS_LATE:
        text = f"{size.waiting:,} events wait since {since:%Y-%m-%d %H:%M} UTC: {fact.get('reason')}"
        yield finding("events_not_delivered", text)
    if size.dropped:
        yield finding("events_dropped", f"{size.dropped:,} events were not kept.", level=size.dropped)


def _of_erasures(ledger: Ledger, now: datetime) -> Iterator[Finding]:
    rows = list(ledger.rows([AssetState.ERASING], limit=MOST_LOOKED_AT))
    or_more = " or more" if len(rows) == MOST_LOOKED_AT else ""
    locks = [until for row in rows if (until := locked_until(row)) is not None and until > now]
    if left := [row for row in rows if (until := locked_until(row)) is None or until <= now]:
        yield finding(
            "erasure_unfinished",
            f"{len(left):,}{or_more} not erased yet. {left[0].asset_id}: {left[0].reason}",
            level=len(left),
        )
    if locks:
        yield finding(
            "erasure_waits",
            f"To be erased once a lock ends: {len(locks):,}{or_more}, the first on {min(locks):%Y-%m-%d}, the last "
            f"on {max(locks):%Y-%m-%d}.",
        )


def _of_failed_later(ledger: Ledger) -> Iterator[Finding]:
    ids = [row.asset_id for row in islice(failed_later(ledger), SHOWN + 1)]
    if ids:
        number = f"{SHOWN} or more" if len(ids) > SHOWN else str(len(ids))
        named = ", ".join([*ids[:NAMED], *(["..."] if len(ids) > NAMED else [])])
        yield finding(
            "failed_later",
            f"Listed as failed by 100ms, after being completed or retried, and not saved: {number}, tried until the "
            f"deadline: {named}",
        )


def _failing(waiting: tuple[Row, ...]) -> Iterator[Failing]:
    """Group waiting assets that keep failing by reason, the most frequent first."""
    reasons = [(_kind(row), row.reason or "") for row in waiting if row.attempts >= REPEATED and row.reason]
    examples = dict(reversed(reasons))
    for kind, number in Counter(kind for kind, _ in reasons).most_common():
        yield Failing(examples[kind], number, or_more=len(waiting) >= MOST_COMPARED)


def _kind(row: Row) -> str:
    """The reason without what differs between assets: keys, ids, numbers. Of URLs the host stays."""
    words = (
        "/".join(word.split("/")[:3]) if "://" in word else word
        for word in (row.reason or "").split()
        if "://" in word or not (set(word) & set("/0123456789") or row.asset_id in word)
    )
    return " ".join(words)

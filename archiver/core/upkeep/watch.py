"""The watch, each minute: alarms for deadlines and problems, and retries for what ended without being archived."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt.copied import TRIED_AGAIN
from archiver.core.deadlines import ALARM_LEVELS, UNDATED, alarm_level, source_ends_at
from archiver.core.health import ATTENTION_STATES, Health, Summary, assess
from archiver.core.health_rules import Finding
from archiver.core.upkeep import reports, status, throughput
from archiver.ledger.base import Facts, Ledger
from archiver.ledger.models import AssetState, Row

log = structlog.get_logger(__name__)

MOST_ALARMS = 1000  # assets of one state with an alarm of their own; more are one outage
ALARMS_FACT = "alarms"
PROBLEMS_FACT = "problems"
RETRIES_FACT = "second_chances"

GIVEN_UP = (AssetState.QUARANTINED, AssetState.NEEDS_SOURCE_ACCESS)
RETRY_LOOK_EVERY = timedelta(hours=1)  # a look reads every row of these states
LONGEST_PAUSE = timedelta(days=1)
RETRY_LOST_FOR = timedelta(days=30)  # after the deadline, or after it was first seen
MOST_LOST = 100  # reopened in one look: their deadlines are past, so they go before all others
MOST_WARNED = 1000  # archived assets with warnings that are looked at, the latest first

_ENDS = frozenset(state.value for state in ATTENTION_STATES)


class Watcher:
    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Callable[[], datetime],
        at_risk_within: timedelta,
        sweep_every: timedelta,
        local: Callable[[], Iterable[Finding]] = tuple,
        host: str = "",
    ) -> None:
        """`clock`: the ledger's. `local`: what this process finds of its machine, `host`, and the ledger's server; may
        raise LedgerError."""
        self._local = local
        self._host = host
        self._ledger = ledger
        self._clock = clock
        self._at_risk_within = at_risk_within
        self._sweep_every = sweep_every

    def summary(self) -> Summary:
        """Read the facts behind `status`. Raises LedgerError."""
        summary = status.summarize(
            self._ledger,
            self._clock(),
            at_risk_within=self._at_risk_within,
            sweep_every=self._sweep_every,
        )
        return replace(summary, reported=(*summary.reported, *self._local()), host=self._host)

    def watch(self) -> Summary:
        """Log an alarm for each problem, and for each asset whose deadline has come under a level of ALARM_LEVELS since
        the last look; reopen what can be retried. Idempotent. Raises LedgerError."""
        note(self._ledger, status.WATCH_FACT, self._clock())
        reports.expect_scrub(self._ledger, self._clock())
        reports.expect_reconcile(self._ledger, self._clock())
        reopen_ended(self._ledger, self._clock())
        self._note_idleness()
        throughput.observe(self._ledger, self._clock())
        throughput.remember_forecast(self._ledger, self._clock())
        throughput.remember_copy_bytes(self._ledger, self._clock())
        summary = self.summary()
        self._alarm(summary.at)
        _log(self._ledger, assess(summary), summary.counts.seen)
        return summary

    def _note_idleness(self) -> None:
        """An idle worker takes what is queued within seconds."""
        states = self._ledger.counts().states
        if not states.get(AssetState.QUEUED) or states.get(AssetState.RUNNING):
            self._ledger.forget(status.IDLE_FACT)
        elif self._ledger.recall(status.IDLE_FACT) is None:
            self._ledger.remember(status.IDLE_FACT, {"since": self._clock().isoformat()})

    def _alarm(self, now: datetime) -> None:
        logged = self._ledger.recall(ALARMS_FACT) or {}
        levels: dict[str, object] = {}
        crossed: Counter[str] = Counter()
        for row in status.most_urgent(self._ledger, now + ALARM_LEVELS[-1], MOST_ALARMS):
            level = alarm_level(row.expires_at, now)
            if level is None:
                continue
            levels[row.asset_id] = level.days
            if logged.get(row.asset_id) == level.days:
                continue
            crossed[str(level.days)] += 1
            log.error(
                "asset_at_risk",
                asset_id=row.asset_id,
                type=row.type,
                state=row.state,
                expires_at="unknown" if row.expires_at == UNDATED else row.expires_at.isoformat(),
                within_days=level.days,
                attempts=row.attempts,
                reason=row.reason,
            )
        if crossed:
            before = self._ledger.recall(status.CROSSINGS_FACT) or {}
            numbers = {days: number for days, number in before.items() if isinstance(number, int)}
            self._ledger.remember(status.CROSSINGS_FACT, dict(crossed + Counter(numbers)))
        self._ledger.remember(ALARMS_FACT, levels)


def note(ledger: Facts, fact: str, now: datetime) -> None:
    """Record that something was done at `now`, by the ledger's clock: WATCH_FACT or RAN_ONCE_FACT."""
    ledger.remember(fact, {"at": now.isoformat()})


def _log(ledger: Facts, health: Health, seen: int) -> None:
    """Log faults at each look; ends once, and again when there are more or fewer."""
    logged = ledger.recall(PROBLEMS_FACT) or {}
    for problem in health.problems:
        if problem.id == "at_risk" or (problem.id in _ENDS and logged.get(problem.id) == problem.text):
            continue  # at risk: each asset has an event of its own
        log.error(problem.id, problem=problem.text)
    ledger.remember(PROBLEMS_FACT, {problem.id: problem.text for problem in health.problems})
    log.info("watched", healthy=health.healthy, headline=health.headline, seen=seen)


# -- retries of what ended -----------------------------------------------------------------------------------
def reopen_ended(ledger: Ledger, now: datetime) -> int:
    """Reopen assets that ended without being archived whole, and may be by now; how many. What is stored stays.

    - QUARANTINED, NEEDS_SOURCE_ACCESS: while the source has them, a day after they ended or after half of the time
      left, whichever is sooner. With nothing stored (an earlier version's): at once.
    - Archived without something optional that was busy: after 1 hour, doubling to a day.
    - LOST and not acknowledged: once a day for RETRY_LOST_FOR, at most MOST_LOST at once, longest waiting first.

    Idempotent; does nothing more often than every RETRY_LOOK_EVERY. Raises LedgerError."""
    if ledger.recall(RETRIES_FACT) is not None:
        return 0
    ledger.remember(RETRIES_FACT, {"at": now.isoformat()}, lifetime=RETRY_LOOK_EVERY)
    reopened = 0
    for row in ledger.warned(MOST_WARNED):
        was_busy = any(TRIED_AGAIN in warning for warning in row.warnings)
        pause = min(max(RETRY_LOOK_EVERY, row.changed_at - row.first_seen_at), LONGEST_PAUSE)
        if was_busy and row.changed_at + pause <= now < source_ends_at(row):
            ledger.reopen(row.asset_id, keep_stored=True)
            reopened += 1
    given_up = (row for row in ledger.rows(GIVEN_UP) if _is_due(row, now))
    lost = (row for row in ledger.rows([AssetState.LOST]) if _lost_is_due(row, now))
    for row in (*given_up, *heapq.nsmallest(MOST_LOST, lost, key=lambda row: row.changed_at)):
        log.warning("second_chance", asset_id=row.asset_id, state=row.state, reason=row.reason)
        ledger.reopen(row.asset_id, keep_stored=True)
        reopened += 1
    return reopened


def _is_due(row: Row, now: datetime) -> bool:
    if row.state is AssetState.QUARANTINED and row.stored_objects == 0:
        return True
    ends_at = source_ends_at(row)
    pause = min(LONGEST_PAUSE, (ends_at - row.changed_at) / 2)
    return row.changed_at + pause <= now < ends_at


def _lost_is_due(row: Row, now: datetime) -> bool:
    until = max(source_ends_at(row), row.first_seen_at) + RETRY_LOST_FOR
    return row.acknowledged is None and row.changed_at + LONGEST_PAUSE <= now < until

"""Is everything saved, what is at risk and by when? One look at the ledger, for `status` and for alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

import structlog

from archiving import holds
from archiving.deadlines import ALARM_LEVELS, UNDATED, alarm_level
from archiving.discovery import FACT as SWEEP_FACT
from archiving.second_chances import give_second_chances
from hms.models import parse_time
from ledger.base import OPEN_STATES, AssetState, Counts, Ledger, Progress, Row

log = structlog.get_logger(__name__)

UNSAVED_STATES = OPEN_STATES | {AssetState.NEEDS_SOURCE_ACCESS}
"""States of an asset of which nothing may be stored, and that may still be saved."""

ATTENTION_STATES = (
    AssetState.LOST,
    AssetState.DAMAGED,
    AssetState.QUARANTINED,
    AssetState.NEEDS_SOURCE_ACCESS,
)
"""Ends that a person must do something about."""

SHOWN = 20  # rows of each kind in a summary
MOST_ALARMS = (
    1000  # assets of one state that are alarmed for one by one; more are one outage, and told by the first
)
ALARMS_FACT = "alarms"


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole account at one moment. `at_risk`: unsaved with less time left than asked, most urgent first.
    `waiting`: to be tried again, with the reason. `needs_attention`: lost, damaged, quarantined, needing access.
    `with_warnings`: archived, but something optional (a thumbnail) could not be had. Lists are cut at SHOWN; `counts`
    is not."""

    at: datetime
    counts: Counts
    at_risk: tuple[Row, ...]
    waiting: tuple[Row, ...]
    needs_attention: tuple[Row, ...]
    with_warnings: tuple[Row, ...]
    running: tuple[Progress, ...]
    holds: Mapping[str, holds.Hold]
    last_sweep: Mapping[str, object] | None
    sweep_is_late: bool
    next_due_at: datetime | None

    @property
    def healthy(self) -> bool:
        """Nothing that a person must look at. Without a sweep nobody knows."""
        return not (
            self.last_sweep is None
            or self.at_risk
            or self.needs_attention
            or self.holds
            or self.sweep_is_late
            or not self.counts.balanced
        )


class Watcher:
    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Callable[[], datetime],
        at_risk_within: timedelta,
        sweep_every: timedelta,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._at_risk_within = at_risk_within
        self._sweep_every = sweep_every

    def summary(self) -> Summary:
        """Raises LedgerError."""
        now = self._clock()
        rows = self._ledger.rows
        sweep = self._ledger.recall(SWEEP_FACT)
        swept_at = parse_time(sweep.get("started_at")) if sweep else None
        at_risk = self._most_urgent(now + self._at_risk_within, SHOWN)
        return Summary(
            at=now,
            counts=self._ledger.counts(),
            at_risk=tuple(sorted(at_risk, key=lambda row: row.expires_at)[:SHOWN]),
            waiting=tuple(rows([AssetState.WAITING], limit=SHOWN)),
            needs_attention=tuple(rows(ATTENTION_STATES, limit=SHOWN)),
            with_warnings=tuple(self._ledger.warned(SHOWN)),
            running=tuple(self._ledger.progress()),
            holds=holds.current(self._ledger, now),
            last_sweep=sweep,
            # a missed sweep is nothing; three in a row are an outage
            sweep_is_late=swept_at is not None and now - swept_at > 3 * self._sweep_every,
            next_due_at=self._ledger.next_due_at(),
        )

    def watch(self) -> Summary:
        """Look, and log an alarm for each deadline that came under a level of ALARM_LEVELS since the last
        look: once per asset and level. What was given up gets its second chances. Repeatable."""
        give_second_chances(self._ledger, self._clock())
        summary = self.summary()
        self._alarm(summary.at)
        if summary.sweep_is_late:
            log.error("sweep_is_late", last=summary.last_sweep and summary.last_sweep.get("started_at"))
        for name, hold in summary.holds.items():
            log.error("on_hold", name=name, reason=hold.reason, until=hold.until.isoformat())
        if not summary.counts.balanced:
            log.error("ledger_out_of_balance", seen=summary.counts.seen, states=dict(summary.counts.states))
        return summary

    def _most_urgent(self, before: datetime, limit: int) -> Iterator[Row]:
        """Up to `limit` of each state: a thousand that were quarantined for good must not hide one that waits."""
        for state in UNSAVED_STATES:
            rows = self._ledger.rows([state], expiring_before=before)
            # what is kept with doubts and being looked at again is stored: its source may end
            yield from islice((row for row in rows if row.stored_objects == 0), limit)

    def _alarm(self, now: datetime) -> None:
        told = self._ledger.recall(ALARMS_FACT) or {}
        levels: dict[str, object] = {}
        for row in self._most_urgent(now + ALARM_LEVELS[-1], MOST_ALARMS):
            level = alarm_level(row.expires_at, now)
            if level is None:
                continue
            levels[row.asset_id] = level.days
            if told.get(row.asset_id) == level.days:
                continue
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
        self._ledger.remember(ALARMS_FACT, levels)

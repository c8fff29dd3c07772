"""What `status` and the alarms look at: one look at the ledger; `core.health` says what it amounts to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice

import structlog

from archiver.core import machine
from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.deadlines import ALARM_LEVELS, UNDATED, alarm_level
from archiver.core.destinations import holds
from archiver.core.health import (
    ATTENTION_STATES,
    MISSED_SWEEPS,
    REPEATED,
    UNSAVED_STATES,
    Failing,
    Health,
    Summary,
    assess,
)
from archiver.core.health_rules import Finding, finding
from archiver.core.upkeep import reconcile_report, scrub_promise, verify_report
from archiver.core.upkeep.failed_later import failed_later
from archiver.core.upkeep.second_chances import give_second_chances
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.sweep import RECORDED_TIMES, sweep_progress
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts, Ledger
from archiver.ledger.models import AssetState, Row

__all__ = ["ATTENTION_STATES", "RAN_ONCE_FACT", "WATCH_FACT", "Summary", "Watcher", "note"]

ENDS = frozenset(state.value for state in ATTENTION_STATES)

log = structlog.get_logger(__name__)

SHOWN = 20  # rows of each kind in a summary
NAMED = 5  # of them in one line
MOST_ALARMS = (
    1000  # assets of one state that are alarmed for one by one; more are one outage, and told by the first
)
ALARMS_FACT = "alarms"
WATCH_FACT = "watch"
RAN_ONCE_FACT = "run_once"
IDLE_FACT = "idle"
PROBLEMS_FACT = "problems"
MOST_COMPARED = 200  # waiting assets whose reasons are compared, the most urgent ones
MOST_LOOKED_AT = 1000  # assets of one state among which those that nobody acknowledged are looked for


class Watcher:
    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Callable[[], datetime],
        at_risk_within: timedelta,
        sweep_every: timedelta,
    ) -> None:
        """`clock`: the ledger's."""
        self._ledger = ledger
        self._clock = clock
        self._at_risk_within = at_risk_within
        self._sweep_every = sweep_every

    def summary(self) -> Summary:
        """Raises LedgerError."""
        now = self._clock()
        rows = self._ledger.rows
        at_risk = sorted(
            self._most_urgent(now + self._at_risk_within, SHOWN + 1), key=lambda row: row.expires_at
        )
        waiting = tuple(rows([AssetState.WAITING], limit=MOST_COMPARED))
        facts = self._ledger.recall_all("")
        recorded = {name: at for name, fact in facts.items() if (at := _latest(fact)) is not None}
        sweeping = sweep_progress(self._ledger)
        if sweeping is not None and sweeping.begun > MISSED_SWEEPS:
            sweeping = None  # one after the other is killed: that is no sweep
        return Summary(
            at=now,
            counts=self._ledger.counts(),
            at_risk_within=self._at_risk_within,
            sweep_every=self._sweep_every,
            last_sweep=facts.get(SWEEP_FACT),
            sweeping_since=sweeping.started_at if sweeping else None,
            watched_at=recorded.get(WATCH_FACT),
            ran_once_at=recorded.get(RAN_ONCE_FACT),
            at_risk=tuple(at_risk[:SHOWN]),
            at_risk_or_more=len(at_risk) > SHOWN,
            waiting=waiting[:SHOWN],
            needs_attention=tuple(self._unacknowledged()),
            with_warnings=tuple(self._ledger.warned(SHOWN)),
            running=tuple(self._ledger.progress()),
            holds=holds.current(self._ledger, now),
            failing=tuple(_failing(waiting)),
            reported=(*_reported(facts, now), *self._failed_later(), *self._found_damaged()),
            idle_since=parse_time(facts.get(IDLE_FACT, {}).get("since")),
            recorded=recorded,
            next_due_at=self._ledger.next_due_at(),
        )

    def watch(self) -> Summary:
        """Look, and log an alarm for each problem, and for each deadline that came under a level of ALARM_LEVELS since
        the last look: once per asset and level. What was given up gets its second chances. Repeatable."""
        note(self._ledger, WATCH_FACT, self._clock())
        scrub_promise.expect(self._ledger, self._clock())
        give_second_chances(self._ledger, self._clock())
        self._note_idleness()
        summary = self.summary()
        self._alarm(summary.at)
        _log(self._ledger, assess(summary), summary.counts.seen)
        return summary

    def _note_idleness(self) -> None:
        """An idle worker takes what is queued within seconds."""
        states = self._ledger.counts().states
        if not states.get(AssetState.QUEUED) or states.get(AssetState.RUNNING):
            self._ledger.forget(IDLE_FACT)
        elif self._ledger.recall(IDLE_FACT) is None:
            self._ledger.remember(IDLE_FACT, {"since": self._clock().isoformat()})

    def _found_damaged(self) -> Iterator[Finding]:
        if bad := list(verify_report.still_bad(self._ledger)):
            were = "1 asset was" if len(bad) == 1 else f"{len(bad):,} assets were"
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            yield finding(
                "found_damaged",
                f"{were} found damaged by `archiver verify`: {', '.join(bad[:3])}{more}. While 100ms has the "
                "recording: `archiver archive --again ID`; else bring the objects back, and verify it again.",
            )

    def _failed_later(self) -> Iterator[Finding]:
        ids = [row.asset_id for row in islice(failed_later(self._ledger), SHOWN + 1)]
        if ids:
            number = f"{SHOWN} or more" if len(ids) > SHOWN else str(len(ids))
            named = ", ".join([*ids[:NAMED], *(["..."] if len(ids) > NAMED else [])])
            yield finding(
                "failed_later",
                f"Failed at 100ms after being completed, and not saved: {number}, tried until the deadline: {named}",
            )

    def _unacknowledged(self) -> Iterator[Row]:
        """Up to SHOWN in all: those that were reviewed must not hide one that was not."""
        found = (
            row
            for state in ATTENTION_STATES
            for row in self._ledger.rows([state], limit=MOST_LOOKED_AT)
            if not row.acknowledged
        )
        return islice(found, SHOWN)

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


def note(ledger: Facts, fact: str, now: datetime) -> None:
    """Record that something was done at `now`, by the ledger's clock: WATCH_FACT or RAN_ONCE_FACT."""
    ledger.remember(fact, {"at": now.isoformat()})


def _latest(fact: Mapping[str, object]) -> datetime | None:
    times = (parse_time(fact.get(name)) for name in RECORDED_TIMES)
    return max((time for time in times if time is not None), default=None)


def _reported(facts: Mapping[str, Mapping[str, object]], now: datetime) -> Iterator[Finding]:
    """What the parts of the archiver have noted of their own troubles."""
    sweep = facts.get(SWEEP_FACT, {})
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
    for said in reconcile_report.said(facts.get(reconcile_report.FACT)):
        yield finding(said.code, said.text)
    for name, fact in sorted(facts.items()):
        if name.startswith(machine.FACTS):
            worker = name.removeprefix(machine.FACTS)
            yield finding("machine_fault", f"The machine of {worker} fails: {fact.get('reason')}")
    for problem in scrub_promise.problems(facts.get(scrub_promise.FACT), now):
        yield finding("scrub_promise_slips", problem)
    for words in scrub_promise.in_words(facts.get(scrub_promise.FACT), now):
        yield finding("scrubbed", words)


def _failing(waiting: tuple[Row, ...]) -> Iterator[Failing]:
    """The reasons for which the waiting assets failed again and again, the most frequent first."""
    reasons = [(_kind(row), row.reason or "") for row in waiting if row.attempts >= REPEATED and row.reason]
    examples = dict(reversed(reasons))
    for kind, number in Counter(kind for kind, _ in reasons).most_common():
        yield Failing(examples[kind], number, or_more=len(waiting) >= MOST_COMPARED)


def _kind(row: Row) -> str:
    """The reason without what differs from asset to asset: keys, ids, numbers; of URLs the host stays."""
    words = (
        "/".join(word.split("/")[:3]) if "://" in word else word
        for word in (row.reason or "").split()
        if "://" in word or not (set(word) & set("/0123456789") or row.asset_id in word)
    )
    return " ".join(words)


def _log(ledger: Facts, health: Health, seen: int) -> None:
    """Faults are told at each look, for as long as they last; ends once, and again when there are more or fewer."""
    told = ledger.recall(PROBLEMS_FACT) or {}
    for problem in health.problems:
        if problem.id == "at_risk" or (problem.id in ENDS and told.get(problem.id) == problem.text):
            continue  # at risk: each asset has an event of its own
        log.error(problem.id, problem=problem.text)
    ledger.remember(PROBLEMS_FACT, {problem.id: problem.text for problem in health.problems})
    log.info("watched", healthy=health.healthy, headline=health.headline, seen=seen)

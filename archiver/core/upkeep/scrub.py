"""The scrub: check every copy again and again, the longest unchecked first, while damage can still be repaired."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from archiver.core.attempt import urgency
from archiver.core.locks import Lock, acquire
from archiver.core.records import keys
from archiver.core.records.check_records import Checks, Mark, Records, read_records, write_records
from archiver.core.upkeep import reports
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.reports import ScrubReport
from archiver.core.upkeep.scrub_copy import CopyChecker, Tally
from archiver.core.upkeep.scrub_plan import (
    ScrubRules,
    due_at,
    is_new,
    is_overdue,
    plan,
    round_days,
    take_stock,
)
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import AssetState, Row
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

T = TypeVar("T")

STALE_UPLOAD = timedelta(days=7)  # a GCS session lives as long; no copy of ours takes a day
LOCK_NAME = "scrub"
LOCK_TTL = timedelta(minutes=30)  # extended while a run goes on, by EXTEND_EVERY
EXTEND_EVERY = timedelta(seconds=30)
LONGEST_RUN = timedelta(hours=6)
"""No check begins later, so that the largest copy is done within the task's time limit."""
SAVE_EVERY = timedelta(minutes=30)
LONGEST_WAIT = timedelta(hours=1)
"""For urgent copies, in one run: one that takes days must not keep everything from being checked."""
AWAY_AFTER = 5
"""Copies in a row that cannot be read, after which the destination itself is asked."""


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """One run over all destinations. `stopped`: by destination that could not be used, why."""

    manifests: int
    read_bytes: int
    damaged: int
    stale_uploads: int
    unreadable: int = 0
    overdue: int = 0
    stopped: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Part(Tally):
    """One destination in a run."""

    recorded: bool = True
    record_lost: bool = False
    report: ScrubReport | None = None


class _LockLost(Exception):
    """Another scrub has acquired the lock."""


class Scrubber:
    """Memory: about 300 bytes for each copy of one destination, and one READ_BYTES. Requests: one LIST for every 1,000
    manifests and destination in each run, and what the copies that are due take."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        rules: ScrubRules | None = None,
        pause: Callable[[float], None] = time.sleep,
        term_is_over: Callable[[Row], bool] = lambda _: False,
    ) -> None:
        """`clock`: the ledger's. `pause`: sleeps for so many seconds while urgent copies are in flight. `term_is_over`:
        what is missing of an asset then was deleted by a rule of the bucket, and is no damage."""
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._rules = rules or ScrubRules()
        self._pause = pause
        self._copies = CopyChecker(ledger, self._destinations, clock, self._rules, term_is_over)

    def scrub(self, on_progress: OnProgress = ignore_progress) -> ScrubResult | None:
        """Check the copies that are due at each destination, record the checks there, and abort stale uploads.

        Damaged copies are reopened, or settled as DAMAGED once their source has ended (`CopyChecker`). A copy or a
        destination that cannot be read does not stop the others. The result is reported to `status`. `on_progress`: how
        far it is. Returns None when another scrub is running. Idempotent. Raises LedgerError."""
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:
            return self._scrub(lock, on_progress) if lock else None

    def _scrub(self, lock: Lock, on_progress: OnProgress) -> ScrubResult:
        throttle = _Throttle(lock, self._ledger, self._clock, self._rules, self._pause)
        ends_at = self._clock() + LONGEST_RUN
        parts: dict[str, _Part] = {}
        for number, store in enumerate(self._destinations):
            part = parts[store.name] = _Part()
            now = self._clock()
            try:
                until = now + (ends_at - now) / (len(self._destinations) - number)
                self._scrub_at(store, part, throttle, until, on_progress)
            except StorageError as error:
                log.error("scrub_stopped", store=store.name, reason=str(error))
                part.report = ScrubReport(self._clock(), error=str(error))
            except _LockLost:
                log.warning("scrub_left_to_another_run", store=store.name)
                break
        return self._conclude(parts)

    def _conclude(self, parts: dict[str, _Part]) -> ScrubResult:
        now = self._clock()
        scrub_reports = {name: part.report for name, part in parts.items() if part.report is not None}
        reports.record_scrub(self._ledger, scrub_reports, self._rules.every, now)
        for problem in reports.scrub_problems(self._ledger.recall(reports.SCRUB_FACT), now):
            log.error("scrub_promise_slips", problem=problem)
        each = parts.values()
        result = ScrubResult(
            manifests=sum(part.manifests for part in each),
            read_bytes=sum(part.read_bytes for part in each),
            damaged=sum(part.damaged for part in each),
            stale_uploads=sum(part.stale_uploads for part in each),
            unreadable=sum(part.unreadable for part in each),
            overdue=sum(report.overdue for report in scrub_reports.values()),
            stopped={
                name: report.error for name, report in scrub_reports.items() if report.error is not None
            },
        )
        log.info("scrub_ended", **asdict(result))
        return result

    # -- one destination -------------------------------------------------------------------------------------
    def _scrub_at(
        self,
        store: StorageBackend,
        part: _Part,
        throttle: _Throttle,
        until: datetime,
        on_progress: OnProgress,
    ) -> None:
        """Raises StorageError when the destination is unavailable, after recording what was checked."""
        on_progress(f"listing {store.name}")
        self._abort_stale_uploads(store, part)
        records = self._records(store, part)
        listed_at, last = self._clock(), records.listed_at
        listed = throttle.among(store.list(keys.MANIFESTS))
        since = int(last.timestamp()) if last else None
        stock = take_stock(records.checks, listed, self._rules, int(listed_at.timestamp()), since)
        records = Records(stock, listed_at, self._allowance(records))
        try:
            self._check_due(store, records, part, throttle, until, on_progress)
        finally:
            self._save(store, records, part)
            part.report = self._scrub_report(stock, part)

    def _check_due(
        self,
        store: StorageBackend,
        records: Records,
        part: _Part,
        throttle: _Throttle,
        until: datetime,
        on_progress: OnProgress,
    ) -> None:
        stock, failed_in_a_row, saved_at = records.checks, 0, self._clock()
        tasks = plan(stock, self._rules, self._now())
        for number, task in enumerate(tasks):
            on_progress(f"reading back {store.name}", number, len(tasks), size_bytes=part.read_bytes)
            check = stock.get(task.key)
            assert check is not None
            if self._clock() >= until:
                break
            if records.allowance_bytes is not None and records.allowance_bytes <= 0 and task.reads(check):
                continue  # what costs no bytes may still follow
            part.manifests += 1
            try:
                read_bytes, checked = self._copies.check(store, task, check, part, throttle)
                failed_in_a_row = 0
            except StorageError as error:
                log.error("copy_unreadable", store=store.name, key=task.key, reason=str(error))
                read_bytes, checked = 0, replace(check, marks=check.marks | Mark.UNREADABLE)
                part.unreadable += 1
                failed_in_a_row += 1
                if failed_in_a_row % AWAY_AFTER == 0:
                    stock.put(task.key, checked)
                    next(iter(store.list(keys.MANIFESTS)), None)  # raises when it is unavailable
            stock.put(task.key, checked)
            part.read_bytes += read_bytes
            if records.allowance_bytes is not None:
                records.allowance_bytes -= read_bytes
            if self._clock() - saved_at >= SAVE_EVERY:
                self._save(store, records, part)
                saved_at = self._clock()

    def _abort_stale_uploads(self, store: StorageBackend, part: _Part) -> None:
        try:
            abort: Callable[..., int] | None = getattr(
                store, "abort_stale_uploads", None
            )  # storage_backends/optional
            if abort is not None:
                part.stale_uploads = abort(STALE_UPLOAD)
            abort_ours: Callable[..., int] | None = getattr(store, "abort_uploads", None)
            if abort_ours is not None:
                part.stale_uploads += abort_ours(STALE_UPLOAD, self._is_ours)
        except StorageError as error:
            log.warning("stale_uploads_left", store=store.name, reason=str(error))

    def _is_ours(self, key: str) -> bool:
        """Whether an upload to `key`, in a bucket that other programs use too, is one of ours. Raises LedgerError."""
        folders = key.split("/")[:-1]
        return key.startswith(keys.PROBES) or any(self._ledger.get(name) is not None for name in folders)

    def _records(self, store: StorageBackend, part: _Part) -> Records:
        reason = "there is none any more"
        try:
            records = read_records(store, self._clock())
        except StorageError as error:
            records, reason = Records(), str(error)
        if records.listed_at is None and reports.scrub_recorded_checks(self._ledger, store.name):
            log.error("scrub_record_lost", store=store.name, reason=reason)
            part.record_lost = True
        return records

    def _save(self, store: StorageBackend, records: Records, part: _Part) -> None:
        if not len(records.checks):
            return
        try:
            write_records(store, records, self._clock())
            part.recorded = True
        except StorageError as error:
            log.error("scrub_not_recorded", store=store.name, reason=str(error))
            part.recorded = False

    def _allowance(self, records: Records) -> int | None:
        """Bytes that this run may read: the daily budget, less what an earlier run read beyond its own."""
        budget = self._rules.bytes_a_day
        if budget is None:
            return None
        if records.allowance_bytes is None or records.listed_at is None:
            return budget
        earned = int(budget * ((self._clock() - records.listed_at) / timedelta(days=1)))
        return min(budget, records.allowance_bytes + max(earned, 0))

    def _scrub_report(self, stock: Checks, part: _Part) -> ScrubReport:
        now = self._now()
        due_by = oldest = coldest = None
        overdue = never_read = cold = 0
        for check in stock.values():
            overdue += is_overdue(check, self._rules, now)
            never_read += check.read_at == 0
            due = due_at(check, self._rules)
            due_by = due if due_by is None else min(due_by, due)
            if not is_new(check):
                oldest = check.checked_at if oldest is None else min(oldest, check.checked_at)
            if check.marks & Mark.COLD:
                cold += 1
                coldest = check.read_at if coldest is None else min(coldest, check.read_at)
        return ScrubReport(
            at=self._clock(),
            copies=len(stock),
            overdue=overdue,
            due_by=_moment(due_by),
            oldest_check=_moment(oldest),
            never_read=never_read,
            cold=cold,
            coldest_read=_moment(coldest),
            damaged=part.damaged,
            unreadable=part.unreadable,
            round_days=round_days(stock, self._rules),
            recorded=part.recorded and not part.record_lost,
        )

    def _now(self) -> int:
        return int(self._clock().timestamp())


@dataclass(slots=True)
class _Throttle:
    """Called between reads: extends the lock, and pauses while urgent copies are in flight, up to LONGEST_WAIT. Raises
    _LockLost."""

    lock: Lock
    ledger: Ledger
    clock: Callable[[], datetime]
    rules: ScrubRules
    pause: Callable[[float], None]
    waited: timedelta = timedelta(0)
    looked_at: datetime | None = field(default=None)

    def __call__(self) -> None:
        now = self.clock()
        if self.looked_at is not None and timedelta(0) <= now - self.looked_at < EXTEND_EVERY:
            return
        try:
            self._keep_lock()
            while self.waited < LONGEST_WAIT and self._is_urgent():
                self.pause(EXTEND_EVERY.total_seconds())
                self.waited += EXTEND_EVERY
                self._keep_lock()
        except LedgerUnavailable as error:  # nobody else can acquire the lock meanwhile either
            log.warning("scrub_turn_not_extended", reason=str(error))
        self.looked_at = self.clock()

    def among(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self()
            yield item

    def _keep_lock(self) -> None:
        if not self.lock.extend():
            raise _LockLost

    def _is_urgent(self) -> bool:
        if urgency.waiting(self.ledger) is not None:
            return True
        before = self.clock() + self.rules.urgent_within
        return any(self.ledger.rows([AssetState.RUNNING], expiring_before=before, limit=1))


def _moment(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None

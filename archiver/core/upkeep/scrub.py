"""Check what is archived again and again, the longest unchecked first, so that rot is found while someone can act."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from archiver.core.attempt import urgency
from archiver.core.deadlines import is_over
from archiver.core.errors import ManifestError
from archiver.core.judging import as_known
from archiver.core.locks import Lock, acquire
from archiver.core.records import keys
from archiver.core.records.check_records import (
    Check,
    Checks,
    Mark,
    Records,
    read_records,
    tag_of,
    write_records,
)
from archiver.core.records.commit import DAMAGE_NAMED, clear_damage, damaged_settlement, mark_damaged
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import Verified, verify_contents, verify_listed, verify_objects
from archiver.core.upkeep import reports
from archiver.core.upkeep.reports import ScrubReport
from archiver.core.upkeep.scrub_plan import (
    ScrubRules,
    Task,
    after,
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
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import ObjectCold, StorageError

log = structlog.get_logger(__name__)

T = TypeVar("T")

STALE_UPLOAD = timedelta(days=7)  # a GCS session lives as long; no copy of ours takes a day
LOCK_NAME = "scrub"
LOCK_TTL = timedelta(minutes=30)  # extended while a run goes on, by EXTEND_EVERY
EXTEND_EVERY = timedelta(seconds=30)
LONGEST_RUN = timedelta(hours=6)
"""No copy is begun later, so that the largest one still ends within a task's time limit."""
SAVE_EVERY = timedelta(minutes=30)
LONGEST_WAIT = timedelta(hours=1)
"""For urgent copies, in one run: an asset that is copied for days must not keep everything from being checked."""
AWAY_AFTER = 5
"""So many copies in a row that cannot be checked are a reason to ask whether the destination answers at all."""


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """One run over all destinations."""

    manifests: int
    read_bytes: int
    damaged: int
    stale_uploads: int
    unreadable: int = 0
    overdue: int = 0


@dataclass(slots=True)
class _Part:
    """A run's part at one destination."""

    stale_uploads: int = 0
    manifests: int = 0
    read_bytes: int = 0
    damaged: int = 0
    unreadable: int = 0
    recorded: bool = True
    record_lost: bool = False
    report: ScrubReport | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What one look at a copy gave. `read`: every byte was read, and is right."""

    read_bytes: int
    problems: tuple[str, ...] = ()
    size_bytes: int = 0
    marks: int = 0
    read: bool = False
    manifest: Manifest | None = None


class _LockLost(Exception):
    """Another run goes on in this one's place."""


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
    ) -> None:
        """`clock`: the ledger's. `pause` waits for so many seconds, while an urgent copy goes first."""
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._rules = rules or ScrubRules()
        self._pause = pause

    def scrub(self) -> ScrubResult | None:
        """Check the copies that are due at each destination, record it there, and abort uploads that nobody goes on
        with. What is damaged is logged, and made due again or, when its source is gone, DAMAGED. What the promise has
        come to is a fact in the ledger and, when it is not kept, an error in the log. A copy, or a destination, that
        cannot be read stops no other. None when another run is at it. Repeatable. Raises LedgerError."""
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:
            return self._scrub(lock) if lock else None

    def _scrub(self, lock: Lock) -> ScrubResult:
        pace = _Pace(lock, self._ledger, self._clock, self._rules, self._pause)
        ends_at = self._clock() + LONGEST_RUN
        parts: dict[str, _Part] = {}
        for number, store in enumerate(self._destinations):
            part = parts[store.name] = _Part()
            now = self._clock()
            try:
                self._scrub_at(store, part, pace, now + (ends_at - now) / (len(self._destinations) - number))
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
        )
        log.info("scrub_ended", **asdict(result))
        return result

    # -- one destination -------------------------------------------------------------------------------------
    def _scrub_at(self, store: StorageBackend, part: _Part, pace: _Pace, until: datetime) -> None:
        """Raises StorageError when the destination is away; what was checked until then is recorded if it can be."""
        self._abort_stale_uploads(store, part)
        records = self._records(store, part)
        listed_at, last = self._clock(), records.listed_at
        listed = pace.among(store.list(keys.MANIFESTS))
        since = int(last.timestamp()) if last else None
        stock = take_stock(records.checks, listed, self._rules, int(listed_at.timestamp()), since)
        records = Records(stock, listed_at, self._allowance(records))
        try:
            self._check_due(store, records, part, pace, until)
        finally:
            self._save(store, records, part)
            part.report = self._scrub_report(stock, part)

    def _check_due(
        self, store: StorageBackend, records: Records, part: _Part, pace: _Pace, until: datetime
    ) -> None:
        stock, failed_in_a_row, saved_at = records.checks, 0, self._clock()
        for task in plan(stock, self._rules, self._now()):
            check = stock.get(task.key)
            assert check is not None
            if self._clock() >= until:
                break
            if records.allowance_bytes is not None and records.allowance_bytes <= 0 and task.reads(check):
                continue  # what costs no bytes may still follow
            part.manifests += 1
            try:
                read_bytes, checked = self._check(store, task, check, part, pace)
                failed_in_a_row = 0
            except StorageError as error:
                log.error("copy_unreadable", store=store.name, key=task.key, reason=str(error))
                read_bytes, checked = 0, replace(check, marks=check.marks | Mark.UNREADABLE)
                part.unreadable += 1
                failed_in_a_row += 1
                if failed_in_a_row % AWAY_AFTER == 0:
                    stock.put(task.key, checked)
                    next(iter(store.list(keys.MANIFESTS)), None)  # raises when it is away
            stock.put(task.key, checked)
            part.read_bytes += read_bytes
            if records.allowance_bytes is not None:
                records.allowance_bytes -= read_bytes
            if self._clock() - saved_at >= SAVE_EVERY:
                self._save(store, records, part)
                saved_at = self._clock()

    def _abort_stale_uploads(self, store: StorageBackend, part: _Part) -> None:
        try:
            part.stale_uploads = store.abort_stale_uploads(STALE_UPLOAD)
            abort: Callable[..., int] | None = getattr(store, "abort_uploads", None)  # see `AbortsUploads`
            if abort is not None:
                part.stale_uploads += abort(STALE_UPLOAD, self._is_ours)
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
        """Of bytes to be read in this run: what one that read more than a day's budget has left for today."""
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

    # -- one copy --------------------------------------------------------------------------------------------
    def _check(
        self, store: StorageBackend, task: Task, check: Check, part: _Part, pace: _Pace
    ) -> tuple[int, Check]:
        """Bytes read, and what is known of the copy now. Raises StorageError when that is no more than before."""
        pace()
        before, ledger_away = None, None
        try:
            before = self._row(task.key)
        except LedgerUnavailable as error:  # it matters only if the copy is damaged
            ledger_away = error
        found = self._look(store, task.key, check.marks, pace, in_full=task.in_full)
        read_bytes = found.read_bytes
        if found.problems and not check.marks & Mark.DAMAGED:
            # one bad answer is no damage: no manifest is marked for it
            found = self._look(store, task.key, check.marks, pace, in_full=task.in_full)
            read_bytes += found.read_bytes
        if found.problems:
            if ledger_away is not None:
                raise ledger_away
            part.damaged += 1
            self._report(store, task.key, found, before)
            tags = [tag_of(info) for info in store.list(task.key) if info.key == task.key]
            check = replace(check, tag=tags[0]) if tags else check
        marks = found.marks | (Mark.DAMAGED if found.problems else 0)
        return read_bytes, after(
            check,
            self._rules,
            self._now(),
            size_bytes=found.size_bytes or check.size_bytes,
            marks=marks,
            read=found.read,
            in_full=task.in_full,
        )

    def _look(
        self, store: StorageBackend, key: ObjectKey, known: int, pace: _Pace, *, in_full: bool
    ) -> _Found:
        try:
            manifest = read_manifest(store, key)
        except ManifestError as error:
            return _Found(0, (str(error),))
        except ObjectCold:
            return _Found(0, marks=Mark.COLD)  # it is there; what it names can be known once it is restored
        if manifest is None:
            return _Found(0, ("the manifest is gone",))
        in_full = in_full or bool(manifest.damage)
        try:
            verified, marks = self._verified(store, manifest, known, pace, in_full=in_full)
        except ObjectCold as error:
            log.info("copy_is_cold", store=store.name, key=key, reason=str(error))
            verified, marks = verify_listed(store, manifest), Mark.COLD
        read = verified.ok and verified.read_bytes == manifest.total_size and not marks & Mark.COLD
        if read and in_full and manifest.damage:
            clear_damage(store, key, manifest)
        read = read and (in_full or verified.read_bytes > 0)
        return _Found(verified.read_bytes, verified.problems, manifest.total_size, marks, read, manifest)

    def _verified(
        self, store: StorageBackend, manifest: Manifest, known: int, pace: _Pace, *, in_full: bool
    ) -> tuple[Verified, int]:
        if in_full:
            return verify_contents(store, manifest, between=pace), known & Mark.SUMMED
        if known & Mark.COLD:
            return verify_listed(store, manifest), Mark.COLD
        verified = verify_objects(store, manifest, between=pace)
        return verified, 0 if verified.read_bytes else Mark.SUMMED

    def _row(self, key: ObjectKey) -> Row | None:
        asset_id = keys.asset_id_of(key)
        return self._ledger.get(asset_id) if asset_id else None

    def _report(self, store: StorageBackend, key: ObjectKey, found: _Found, before: Row | None) -> None:
        """Take the damaged commit back, so that the asset is copied again while the source may still have it;
        afterwards a person is asked to restore it. Either way the rest of the copy stays: it may be all there is. What
        a worker has or had in hand meanwhile, and a manifest that was replaced since, is left alone: it may be whole by
        now."""
        problems = found.problems
        log.error("archive_damaged", store=store.name, key=key, problems=problems[:5])
        row = self._row(key)
        if row is None or before is None or (row.state, row.changed_at) != (before.state, before.changed_at):
            return
        if row.state not in (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.DAMAGED):
            return
        note = ""
        try:
            marked = found.manifest is not None and found.manifest.damage == problems[:DAMAGE_NAMED]
            if not marked and not mark_damaged(store, key, problems, of=found.manifest) and found.manifest:
                return
        except StorageError as error:  # and so by its sizes it would be taken for archived, not copied again
            note = f"the manifest could not be marked ({error})"
        if note or is_over(row, self._clock()):
            copies = {
                each.name: problems if each is store else self._problems_at(each, key)
                for each in self._destinations
            }
            how = damaged_settlement(
                row.asset_id,
                copies,
                stored_bytes=row.stored_bytes,
                stored_objects=row.stored_objects,
                note=note,
            )
            self._ledger.record_archived(as_known(row), how)
        else:
            self._ledger.reopen(row.asset_id)

    def _problems_at(self, store: StorageBackend, key: ObjectKey) -> tuple[str, ...]:
        """Of another copy: read back, for it is what the damaged one would be restored from."""
        try:
            manifest = read_manifest(store, key)
            if manifest is None:
                return ("the manifest is gone",)
            return verify_contents(store, manifest).problems
        except ManifestError as error:
            return (str(error),)
        except StorageError as error:
            return (f"it could not be read: {error}",)


@dataclass(slots=True)
class _Pace:
    """Called between two pieces of work: keeps the lock, and lets urgent copies go first for a while. Raises
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

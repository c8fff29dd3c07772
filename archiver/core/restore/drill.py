"""The drill: restore a few copies of each destination to a scratch folder, compare and decode them, and remove them.

A copy that does not come back whole is verified again, and reported as damaged as the scrub does it: its manifest is
marked, and the asset is copied again or replicated. One that only does not play has the bytes that its manifest lists:
people are told, and nothing is marked.

The scratch folder is the one place where recordings touch the disk of a worker. It holds one asset at a time, within
a limit, and is emptied when a drill begins and when it ends; the next one empties what a killed one left.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from archiver.core.attempt import urgency
from archiver.core.errors import RestoreError
from archiver.core.locks import Lock, acquire
from archiver.core.records import keys
from archiver.core.records.drill_records import Drilled, DrillRecord, read_drills, write_drills
from archiver.core.restore.decoding import Decode, Decoder, Played
from archiver.core.restore.folder import RestoreFolder
from archiver.core.restore.reading import BlockReader
from archiver.core.restore.restorer import Restorer
from archiver.core.upkeep import drill_report
from archiver.core.upkeep.copies import Copies
from archiver.core.upkeep.drill_report import DrillReport
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.scrub_copy import CopyChecker
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerError, LedgerUnavailable
from archiver.ledger.models import Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError, TransientStorageError

log = structlog.get_logger(__name__)

LOCK_NAME = "drill"
LOCK_TTL = timedelta(minutes=30)
LONGEST_RUN = timedelta(hours=1)
"""No copy is begun later."""
MOST_PASSED_OVER = 100
"""Copies at one destination that are cold or too large, in one run."""
WHOLE, FAILED, COLD, TOO_LARGE, ERASED = "whole", "failed", "cold", "too large", "erased"


@dataclass(frozen=True, slots=True)
class DrillRules:
    """`assets`: of each destination in a run; 0: no drill by itself. `scratch_bytes`: of the largest asset."""

    assets: int = 3
    every: timedelta = timedelta(days=7)
    scratch: Path = Path("drill")
    scratch_bytes: int = 2**31

    @property
    def interval(self) -> timedelta | None:
        return self.every if self.assets else None


@dataclass(slots=True)
class _Run:
    """What one run has found so far."""

    copies: int = 0
    size_bytes: int = 0
    decoded: int = 0
    not_decoded: int = 0
    undecoded_for: str = ""
    passed_over: int = 0
    failed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Driller:
    """Memory: the drilled copies of one destination, and the blocks of one asset."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        rules: DrillRules,
        decode: Decode | None = None,
        elapsed: Callable[[], float] = time.monotonic,
        term_is_over: Callable[[Row], bool] = lambda _: False,
    ) -> None:
        """`clock`: the ledger's. `elapsed`: seconds of a clock that is never set. `term_is_over`: an asset that a
        rule of the bucket may delete; it is never called damaged."""
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._rules = rules
        self._decode = decode or Decoder()
        self._elapsed = elapsed
        self._copies = CopyChecker(ledger, self._destinations, clock, ScrubRules(), term_is_over)

    def drill_if_due(self) -> DrillReport | None:
        """Drill if that is on and the last one ended long enough ago; else only empty the scratch folder. Returns None
        when nothing was due, or another drill is running. Raises LedgerError."""
        now, every = self._clock(), self._rules.interval
        drill_report.expect_drill(self._ledger, now, every)
        last = drill_report.drilled_at(self._ledger.recall(drill_report.DRILL_FACT))
        if every is None or (last is not None and last <= now and now - last < every - timedelta(hours=12)):
            self._clear()
            return None
        if urgency.waiting(self._ledger) is not None:
            return None  # tomorrow
        return self.drill(self._rules.assets)

    def drill(self, assets: int, on_progress: OnProgress = ignore_progress) -> DrillReport | None:
        """Drill the `assets` longest undrilled copies of each destination, after as many of those that failed:
        what stays damaged never takes the place of the others.

        The result is recorded at the destination and reported to `status`; a copy that is damaged is marked. No object
        is changed. Returns None when another drill is running. Raises LedgerError."""
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:
            if lock is None:
                return None
            began, run = self._elapsed(), _Run()
            try:
                with _scratch(self._rules.scratch) as scratch:
                    for store in self._destinations:
                        self._drill_at(store, assets, scratch, run, lock, began, on_progress)
            except RestoreError as error:
                log.error("drill_stopped", reason=str(error))
                run.errors.append(str(error))
            return self._conclude(run, self._elapsed() - began)

    def _clear(self) -> None:
        if self._rules.scratch.exists():
            with suppress(RestoreError), _scratch(self._rules.scratch):
                pass

    def _conclude(self, run: _Run, seconds: float) -> DrillReport:
        report = DrillReport(
            run.copies,
            run.size_bytes,
            round(seconds, 3),
            run.decoded,
            run.not_decoded,
            run.undecoded_for,
            run.passed_over,
            tuple(run.failed),
            tuple(run.errors),
        )
        drill_report.record_drill(self._ledger, report, self._rules.interval, self._clock())
        log.info("drill_ended", copies=report.copies, failed=len(report.failed), seconds=report.seconds)
        return report

    # -- one destination -------------------------------------------------------------------------------------
    def _drill_at(
        self,
        store: StorageBackend,
        assets: int,
        scratch: RestoreFolder,
        run: _Run,
        lock: Lock,
        began: float,
        on_progress: OnProgress,
    ) -> None:
        try:
            on_progress(f"listing {store.name}")
            record = read_drills(store, self._clock())
            again, others = self._chosen(store, record, assets)
            number, left = len(again) + assets, assets
            try:
                for done, key in enumerate((*again, *others)):
                    if not left or self._elapsed() - began > LONGEST_RUN.total_seconds():
                        break
                    on_progress(
                        f"drilling {store.name}", min(done, number), number, size_bytes=run.size_bytes
                    )
                    drilled = self._drill_one(store, key, scratch, run)
                    record.drilled[key] = drilled
                    left -= key not in again and drilled.result in (WHOLE, FAILED)
                    with suppress(LedgerUnavailable):  # nobody else can acquire the lock meanwhile either
                        lock.extend()
            finally:
                if record.drilled:
                    write_drills(store, record, self._clock())
        except StorageError as error:
            log.error("drill_stopped", store=store.name, reason=str(error))
            run.errors.append(str(error))

    def _chosen(
        self, store: StorageBackend, record: DrillRecord, assets: int
    ) -> tuple[Sequence[ObjectKey], Sequence[ObjectKey]]:
        """Return those that failed last time, and the others: those that were never drilled, oldest first, then by the
        time of their last drill. Forgets what is no longer there. Raises StorageError."""
        failed: list[ObjectKey] = []
        listed: set[str] = set()

        def others() -> Iterator[ObjectKey]:
            for info in store.list(keys.MANIFESTS):
                if not info.key.endswith(".json"):
                    continue
                last = record.drilled.get(info.key)
                if last is not None:
                    listed.add(info.key)
                if last is not None and last.result == FAILED:
                    failed.append(info.key)
                else:
                    yield info.key

        def order(key: ObjectKey) -> tuple[int, str]:
            last = record.drilled.get(key)
            return (last.at if last else 0, key)

        chosen = heapq.nsmallest(assets + MOST_PASSED_OVER, others(), key=order)
        for gone in set(record.drilled) - listed:
            del record.drilled[gone]
        return heapq.nsmallest(assets, failed, key=order), chosen

    def _drill_one(self, store: StorageBackend, key: ObjectKey, scratch: RestoreFolder, run: _Run) -> Drilled:
        """Raises RestoreError when the scratch folder cannot be used, StorageError when the destination does not
        answer."""
        now = int(self._clock().timestamp())
        copies = Copies(keys.asset_id_of(key) or key, (key,), (store,), (store,))
        copy = copies.best()
        if copies.erased:
            return Drilled(now, ERASED)
        room = min(self._rules.scratch_bytes, scratch.free_bytes())
        if copy is not None and copy.manifest.total_size > room:
            run.passed_over += 1
            return Drilled(now, TOO_LARGE)
        try:
            with BlockReader() as reader:
                result = Restorer(scratch, reader).restore(copies)
            if result.unreachable:
                raise TransientStorageError(
                    f"{copies.asset_id}: {result.problems[0]}", store=store.name, key=key
                )
            if result.cold:
                run.passed_over += 1
                return Drilled(now, COLD)
            played, reason = Played.NOT_MEDIA, "; ".join(result.problems[:3])
            if result.ok and copy is not None and result.opens is not None and copy.manifest.trusted:
                played, reason = self._decode(scratch.root / result.opens)
        finally:
            scratch.clear()
        run.copies += 1
        run.size_bytes += result.size_bytes
        run.decoded += played is Played.YES
        if played in (Played.NO_FFMPEG, Played.TOO_SLOW):
            run.not_decoded += 1
            run.undecoded_for = played.value
        if not result.ok or played is Played.NO:
            reason = f"{played.value}: {reason}" if result.ok else f"{reason}{self._marked(store, key)}"
            log.error("drill_failed", asset_id=copies.asset_id, store=store.name, reason=reason)
            run.failed.append(f"{copies.asset_id} from {store.name}: {reason}")
            return Drilled(now, FAILED, played.value, reason[:500])
        return Drilled(now, WHOLE, played.value)

    def _marked(self, store: StorageBackend, key: ObjectKey) -> str:
        """Mark a copy that did not come back whole, if it is damaged, and say how that ended."""
        try:
            if self._copies.mark(store, key, in_full=True):
                return "; it is marked as damaged"
        except (StorageError, LedgerError) as error:
            log.error("damage_not_marked", store=store.name, key=key, reason=str(error))
            return f"; it could not be marked as damaged ({error})"
        return "; verified again right away, it was whole, or its manifest is gone"


@contextmanager
def _scratch(path: Path) -> Iterator[RestoreFolder]:
    """Yield the scratch folder, empty; it is removed afterwards. Raises RestoreError."""
    try:
        with RestoreFolder(path, private=True) as scratch:
            try:
                scratch.clear()
                yield scratch
            finally:
                scratch.clear()
    finally:
        with suppress(OSError):
            path.rmdir()

"""Replicate many assets: which, in which order, how many at once, and when to stop."""

from __future__ import annotations

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt import urgency as urgent_copies
from archiver.core.attempt.decisions import describe
from archiver.core.destinations import breaker
from archiver.core.locks import Lock, acquire
from archiver.core.replication.backoff import Backoff
from archiver.core.replication.record_copies import copy_records
from archiver.core.replication.repairer import Repaired, Repairer, Result
from archiver.core.replication.selection import Wanted, most_urgent, wanted_rows
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.reports import REPLICATE_FACT
from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import OPEN_STATES, AssetState, CopyState, Row
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

LOCK_NAME = "replicate"
LOCK_TTL = timedelta(minutes=10)
LONGEST_RUN = timedelta(minutes=45)
"""Of an automatic run, which follows each hourly reconcile: no copy begins later."""
LONGEST_WAIT = timedelta(hours=1)
"""For urgent copies, in one run."""
WAIT = timedelta(seconds=30)
AWAY_AFTER = 5
"""Copies in a row that fail at one destination, after which the run leaves it alone."""
MOST_FAILURES = 1000
"""Assets that fail in one run, after which it ends."""
POLL_SECONDS = 0.5
NAMED = 20  # failures that a result names


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would copy. `size_bytes`: to one destination each; what the ledger knows."""

    assets: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ReplicateResult:
    """Counts of assets. `away`: why destinations were left alone, by name; `failures`: the first NAMED, by asset;
    `left`: chosen, and not begun; `open`: due to be copied from 100ms, which attempts do; `nowhere`: damaged, and known
    to be whole at no destination."""

    copied: int = 0
    copied_bytes: int = 0
    nothing_to_do: int = 0
    busy: int = 0
    failed: int = 0
    left: int = 0
    open: int = 0
    nowhere: int = 0
    away: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not (self.failed or self.left or self.busy or self.open or self.nowhere)


class Replicator:
    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        repairer: Repairer,
        clock: Callable[[], datetime],
        concurrency: int = 4,
        bytes_a_day: int | None = None,
        before_read: Callable[[int], None] = lambda _bytes: None,
        pause: Callable[[float], None] = time.sleep,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        """`clock`: the ledger's. `bytes_a_day`: of automatic runs; None: no limit. `before_read`: called with the bytes
        of each read, and may wait. `pause`: sleeps for so many seconds
        while urgent copies wait for a slot."""
        self._ledger = ledger
        self._destinations = list(destinations)
        self._names = [store.name for store in destinations]
        self._repairer = repairer
        self._clock = clock
        self._concurrency = concurrency
        self._bytes_a_day = bytes_a_day
        self._before_read = before_read
        self._pause = pause
        self._stop_requested = stop_requested

    def replicate_due(self) -> ReplicateResult | None:
        """Replicate what the ledger knows as lacking or damaged, for at most LONGEST_RUN and within `bytes_a_day`. For
        after each reconcile. None when another such run goes on, or nothing is lacking. Idempotent. Raises
        LedgerError."""
        if len(self._names) < 2 or not self._is_anything_due():
            return None
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:
            if lock is None:
                return None
            allowance = self._allowance()
            backoff = Backoff(self._ledger, self._names, self._clock())
            run = _Run(
                until=self._clock() + LONGEST_RUN,
                bytes_left=allowance,
                lock=lock,
                before_read=self._before_read,
                backoff=backoff,
            )
            waiting = backoff.waiting()
            wanted = Wanted(chooses=lambda row: not backoff.waits(row))
            result = self._with_records(self._run(wanted, run, ignore_progress), Wanted())
            self._report(result, None if allowance is None else allowance - result.copied_bytes, waiting)
            return result

    def replicate(
        self,
        wanted: Wanted,
        *,
        records: bool = False,
        on_progress: OnProgress = ignore_progress,
        before_read: Callable[[int], None] | None = None,
    ) -> ReplicateResult:
        """Replicate all that is `wanted`, until it is done or `stop_requested`. `records`: what belongs to no asset as
        well (record_copies.py). `before_read`: instead of the usual one. Two runs at once share the work. Idempotent.
        Raises LedgerError."""
        result = self._run(wanted, _Run(before_read=before_read or self._before_read), on_progress)
        # whatever the ledger knows of its copies: `archive --again` marks manifests, and its attempt replaces them
        known = (row for row in self._ledger.rows(tuple(OPEN_STATES)) if row.copies and wanted.chooses(row))
        nowhere = (row for row in self._ledger.rows((AssetState.DAMAGED,)) if self._is_nowhere(row, wanted))
        result = replace(result, open=sum(1 for _ in known), nowhere=sum(1 for _ in nowhere))
        if records:
            on_progress("copying records")
            result = self._with_records(result, wanted)
        log.info("replicate_ended", copied=result.copied, bytes=result.copied_bytes, failed=result.failed)
        return result

    def _is_nowhere(self, row: Row, wanted: Wanted) -> bool:
        """Whether nothing can be replicated of a damaged asset that was asked for; one that was tried has failed."""
        is_asked_for = row.state in wanted.states and wanted.chooses(row) and row.acknowledged is None
        is_whole = any(row.copies.get(name) is CopyState.WHOLE for name in self._names)
        return is_asked_for and not is_whole and not wanted.lacking(row, self._names)

    def _with_records(self, result: ReplicateResult, wanted: Wanted) -> ReplicateResult:
        """Copy the records, and add what failed of that to `result`."""
        failures = dict(result.failures)
        for target in self._destinations:
            for source in self._destinations:
                fits = wanted.target in (None, target.name) and wanted.source in (None, source.name)
                if source is target or not fits or self._stop_requested() or target.name in result.away:
                    continue
                try:
                    copy_records(source, target)
                except StorageError as error:
                    log.warning(
                        "records_not_copied", source=source.name, store=target.name, reason=str(error)
                    )
                    failures["records"] = f"{type(error).__name__}: {error}"
        failed = result.failed + int("records" in failures)
        return replace(result, failures=failures, failed=failed)

    def plan(self, wanted: Wanted) -> Planned:
        """Return what `replicate` would copy, by what the ledger knows: a destination that it was not compared with
        lacks everything. Raises LedgerError."""
        assets = size_bytes = 0
        known = self._ledger.counts().copies
        added = next((name for name in self._names if known and name not in known), None)
        wanted = wanted if wanted.target or added is None else replace(wanted, target=added)
        for row in wanted_rows(self._ledger, wanted, self._names):
            assets += 1
            size_bytes += row.stored_bytes or row.size_bytes or 0
        return Planned(assets, size_bytes)

    # -- a run -----------------------------------------------------------------------------------------------
    def _run(self, wanted: Wanted, run: _Run, on_progress: OnProgress) -> ReplicateResult:
        on_progress("choosing")
        run.total = sum(1 for _ in wanted_rows(self._ledger, wanted, self._names))
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="replicate-asset") as pool:
            while not self._is_over(run):
                chosen = most_urgent(self._ledger, wanted, self._names, self._clock(), run.tried)
                if not chosen:
                    break
                ids = [row.asset_id for row in chosen]
                if run.backoff is not None:
                    ids.sort(key=run.backoff.failed_often)
                self._copy_all(deque(ids), wanted, run, pool, on_progress)
        return run.result(run.total - run.ended)

    def _copy_all(
        self,
        waiting: deque[str],
        wanted: Wanted,
        run: _Run,
        pool: ThreadPoolExecutor,
        on_progress: OnProgress,
    ) -> None:
        running: set[Future[Repaired]] = set()
        try:
            while running or (waiting and not self._is_over(run)):
                while waiting and len(running) < self._concurrency and not self._is_over(run):
                    self._yield_to_urgent(run)
                    asset_id = waiting.popleft()
                    run.tried.add(asset_id)
                    running.add(pool.submit(self._repair, asset_id, wanted, run))
                done, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    run.add(future.result(), self._clock())
                if run.lock is not None:
                    run.lock.extend()
                if done and run.backoff is not None:
                    run.backoff.save()
                on_progress("replicating", run.ended, max(run.total, run.ended), size_bytes=run.copied_bytes)
        except BaseException:
            run.ends = True  # those that run end within a second
            raise

    def _repair(self, asset_id: str, wanted: Wanted, run: _Run) -> Repaired:
        left_alone = {**self._open_breakers(), **run.away}
        row = self._ledger.get(asset_id)
        lacked = [
            name
            for name in self._names
            if wanted.target in (None, name) and row and row.copies.get(name) is not CopyState.WHOLE
        ]
        targets = [name for name in lacked if name not in left_alone]
        if (lacked and not targets) or breaker.EVERYTHING in left_alone:
            return Repaired(asset_id, Result.STOPPED)
        holder = f"replicate@{socket.gethostname()}"
        try:
            return self._repairer.repair(
                asset_id,
                holder,
                targets=targets,
                preferred=wanted.source,
                stop_requested=lambda: self._stop_requested() or run.ends,
                before_read=run.before_read,
            )
        except LedgerError:
            raise
        except Exception as error:
            log.exception("replicate_failed", asset_id=asset_id)
            return Repaired(asset_id, Result.FAILED, reason=describe(error))

    def _open_breakers(self) -> Mapping[str, breaker.OpenBreaker]:
        """The circuit breakers that are open here, and what a person paused."""
        found = breaker.parse(self._ledger.recall_all(breaker.PREFIX), self._clock())
        return breaker.opened_on(found, socket.gethostname())

    def _is_over(self, run: _Run) -> bool:
        if self._stop_requested() or run.failed >= MOST_FAILURES or len(run.away) >= len(self._names) - 1:
            return True
        if run.until is not None and self._clock() >= run.until:
            return True
        return run.bytes_left is not None and run.bytes_left <= run.copied_bytes

    def _yield_to_urgent(self, run: _Run) -> None:
        """Begin nothing while urgent assets wait for a slot."""
        while run.waited < LONGEST_WAIT and not self._stop_requested():
            if urgent_copies.waiting(self._ledger) is None:
                return
            self._pause(WAIT.total_seconds())
            run.waited += WAIT

    # -- the budget of automatic runs ------------------------------------------------------------------------
    def _is_anything_due(self) -> bool:
        counts = self._ledger.counts()
        return counts.states.get(AssetState.DAMAGED, 0) > 0 or any(
            counts.copies.get(name, {}).get(state, 0)
            for name in self._names
            for state in (CopyState.LACKING, CopyState.DAMAGED)
        )

    def _allowance(self) -> int | None:
        """Bytes that this run may copy: the budget of a day, less what earlier runs copied of it."""
        budget = self._bytes_a_day
        if budget is None:
            return None
        fact = self._ledger.recall(REPLICATE_FACT) or {}
        at, left = parse_time(fact.get("at")), fact.get("allowance_bytes")
        if at is None or not isinstance(left, int):
            return budget
        earned = int(budget * ((self._clock() - at) / timedelta(days=1)))
        return min(budget, left + max(earned, 0))

    def _report(self, result: ReplicateResult, allowance_bytes: int | None, waiting: Sequence[str]) -> None:
        """`waiting`: why each asset failed that was not tried."""
        fact = {
            "at": self._clock().isoformat(),
            "copied": result.copied,
            "bytes": result.copied_bytes,
            "failed": result.failed,
            "left": result.left,
            "reason": next(iter([*result.failures.values(), *waiting]), ""),
            "waiting": len(waiting),
            "allowance_bytes": allowance_bytes,
        }
        self._ledger.remember(REPLICATE_FACT, fact)
        event = log.error if result.failed else log.info
        event("replicate_ended", **{name: value for name, value in fact.items() if name != "at"})


@dataclass(slots=True)
class _Run:
    """A run so far. `bytes_left`: None: no limit. `backoff`: None: a person asked, all is tried."""

    until: datetime | None = None
    bytes_left: int | None = None
    lock: Lock | None = None
    before_read: Callable[[int], None] = lambda _bytes: None
    backoff: Backoff | None = None
    total: int = 0
    tried: set[str] = field(default_factory=set)
    counts: Counter[Result] = field(default_factory=Counter)
    copied_bytes: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    away: dict[str, str] = field(default_factory=dict)
    failed_in_a_row: Counter[str] = field(default_factory=Counter)
    waited: timedelta = timedelta(0)
    ends: bool = False

    @property
    def ended(self) -> int:
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        return self.counts[Result.FAILED]

    def add(self, repaired: Repaired, now: datetime) -> None:
        if self.backoff is not None:
            self.backoff.note(repaired, now)
        self.counts[repaired.result] += 1
        if repaired.result is Result.COPIED:  # the ledger knows it
            self.tried.discard(repaired.asset_id)
        self.copied_bytes += repaired.copied_bytes
        if repaired.result is Result.FAILED and len(self.failures) < NAMED:
            self.failures[repaired.asset_id] = repaired.reason
        if repaired.result is Result.COPIED:
            self.failed_in_a_row.clear()
        for name, error in repaired.failed.items():
            self.failed_in_a_row[name] += 1
            if self.failed_in_a_row[name] >= AWAY_AFTER:
                if name not in self.away:
                    log.error("replicate_without_destination", store=name, reason=str(error))
                self.away[name] = f"{type(error).__name__}: {error}"

    def result(self, left: int) -> ReplicateResult:
        return ReplicateResult(
            copied=self.counts[Result.COPIED],
            copied_bytes=self.copied_bytes,
            nothing_to_do=self.counts[Result.NOTHING_TO_DO] + self.counts[Result.NOT_STORED],
            busy=self.counts[Result.BUSY],
            failed=self.failed,
            left=max(left, 0) + self.counts[Result.STOPPED],
            away=dict(self.away),
            failures=dict(self.failures),
        )

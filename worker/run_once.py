"""`archiver run --once`: sweep, archive what is due, exit. One process, without Celery, for cron."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.decisions import describe
from archiver.core.attempt.outcomes import AlreadyArchived, Archived, NotOurs, Outcome, WillRetry
from archiver.core.destinations import breaker, failures, registry
from archiver.core.destinations.breaker import OPEN_FOR
from archiver.core.health import lacking, unacknowledged
from archiver.core.machine import MOST_FAULTS, MachineFaults, is_machine_fault
from archiver.core.replication.replicator import Replicator
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.sweep import LOCK_TTL as SWEEP_LOCK_TTL
from archiver.core.upkeep.sweep import Sweeper, SweepResult
from archiver.core.upkeep.watch import reopen_ended
from archiver.core.workspaces import is_of_another, require_ours
from archiver.ledger.base import Ledger
from archiver.ledger.models import SETTLED_STATES, AssetState, Counts
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

POLL = timedelta(seconds=1)
SWEEP_WAIT = 2 * SWEEP_LOCK_TTL
"""How long to wait for another sweep. The lock of a killed one expires after one TTL."""
WINDOW = 1_000_000_000  # no limit: what is taken is archived by this run
AT_ONCE = 1000
"""Retries that are not due yet and that a run starts with; the others wait until they are due."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The state of every asset after the run. `stored_bytes`: copied by this run. `all_listed`: whether every row of
    the API's list was read and had an id."""

    counts: Counts
    stored_bytes: int
    all_listed: bool = True
    removed_destinations: frozenset[str] = frozenset()

    @property
    def all_safe(self) -> bool:
        """Every asset ever seen ended archived, skipped or external, or a person rejected or acknowledged it; and every
        destination holds what is archived."""
        return (
            self.all_listed
            and self.counts.balanced
            and not lacking(self.counts, self.removed_destinations)
            and not any(
                unacknowledged(self.counts, state)
                for state in self.counts.states
                if state not in SETTLED_STATES
            )
        )


class OneRun:
    """Retries that fall due soon are attempted at once. At the end the run waits for those that fall due within
    `retry_wait` of the last attempt, and leaves the others to the next run. `cancelled` ends the run early and releases
    the assets in flight; MOST_FAULTS faults of this machine in a row end it after the attempts in flight."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        replicator: Replicator,
        sweeper: Sweeper,
        archiver: Archiver,
        ledger: Ledger,
        concurrency: int,
        retry_wait: timedelta,
        clock: Callable[[], datetime],
        cancelled: threading.Event,
        workspace: str | None = None,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        """`workspace`: that of our credentials (`hms.workspace`), when it is known.
        `pause`: sleeps so many seconds after a fault of this machine; default: until `cancelled` at most."""
        self._reconciler = reconciler
        self._replicator = replicator
        self._sweeper = sweeper
        self._archiver = archiver
        self._ledger = ledger
        self._concurrency = concurrency
        self._retry_wait = retry_wait
        self._clock = clock
        self._cancelled = cancelled
        self._workspace = workspace
        self._holder = f"run-once@{socket.gethostname()}"
        self._faults = MachineFaults(pause or self._pause)

    def run(self, asset_ids: list[str] | None = None) -> RunResult:
        """Sweep and archive what is due; with `asset_ids` only those, without a sweep. Raises HmsError when the
        sweep fails (what earlier sweeps found is archived first), LedgerOfAnotherWorkspace, LedgerError."""
        sweep_error: Exception | None = None
        all_listed = True
        if asset_ids is None and is_of_another(self._ledger, self._workspace):
            self._sweep()  # adopts the ledger if the access key was replaced
            require_ours(self._ledger, self._workspace)
        self._close_breakers()
        if asset_ids is None:
            compared = self._reconcile()
            reopen_ended(self._ledger, self._clock())
            self._ledger.take_due(AT_ONCE, timedelta(0), ahead=OPEN_FOR)
            try:
                swept = self._sweep()
                all_listed = compared and swept is not None and not swept.invalid_rows
            except Exception as error:  # noqa: BLE001 - raised at the end; what is known is archived first
                log.error("sweep_failed", reason=str(error))
                sweep_error = error
        stored = self._archive_all(asset_ids)
        if asset_ids is None and not self._cancelled.is_set():
            self._replicator.replicate_due()
        if sweep_error is not None:
            raise sweep_error
        gone = registry.removed(self._ledger.recall_all(registry.PREFIX))
        return RunResult(self._ledger.counts(), stored, all_listed, gone)

    def _sweep(self) -> SweepResult | None:
        """Sweep, after another sweep if one is running or was killed: it may have missed what is new. None when that
        does not end within SWEEP_WAIT."""
        until = self._clock() + SWEEP_WAIT
        while (swept := self._sweeper.sweep()) is None:
            if self._cancelled.is_set() or self._clock() >= until:
                log.error("not_swept", reason="another sweep is running and does not end")
                return None
            time.sleep(
                POLL.total_seconds()
            )  # not wait(): a signal handler that sets the event would deadlock in it
        return swept

    def _close_breakers(self) -> None:
        """Close every circuit breaker that no person opened: whoever starts a run may have just fixed its cause."""
        failures.clear_refusals(self._ledger)
        for name, each in breaker.not_closed(self._ledger, self._clock()).items():
            if each.code != breaker.PAUSED:
                breaker.close(self._ledger, name)

    def _reconcile(self) -> bool:
        """Compare the ledger with the buckets, which nothing else does without beat. False when a bucket could not be
        listed, or so much is missing that a person must decide."""
        try:
            result = self._reconciler.reconcile()
        except StorageError as error:
            log.error("reconcile_failed", reason=str(error))
            return False
        return result is None or not result.stopped

    def _archive_all(self, asset_ids: list[str] | None) -> int:
        stored = 0
        running: dict[Future[Outcome], str] = {}
        named = deque(asset_ids) if asset_ids is not None else None
        idle_seconds = 0.0
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="asset") as pool:
            while not self._cancelled.is_set() and not self._faults.should_end:
                free = self._concurrency - len(running)
                for asset_id in self._next(named, free, set(running.values())):
                    if (future := self._start(pool, asset_id)) is not None:
                        running[future] = asset_id
                    elif named is not None:
                        named.append(asset_id)
                if running:
                    done, _ = wait(running, POLL.total_seconds(), FIRST_COMPLETED)
                    stored += sum(self._stored_bytes(future) for future in done)
                    running = {future: asset_id for future, asset_id in running.items() if future not in done}
                elif named is None and self._worth_waiting(self._retry_wait.total_seconds() - idle_seconds):
                    began = time.monotonic()
                    time.sleep(
                        POLL.total_seconds()
                    )  # not wait(): a signal handler that sets the event would deadlock in it
                    idle_seconds += time.monotonic() - began
                else:
                    break
        return stored

    def _start(self, pool: ThreadPoolExecutor, asset_id: str) -> Future[Outcome] | None:
        try:
            return pool.submit(self._archiver.archive, asset_id, self._holder)
        except (RuntimeError, MemoryError) as error:  # no thread; the asset stays queued
            self._machine_failed(describe(error))
            return None

    def _stored_bytes(self, ended: Future[Outcome]) -> int:
        """Bytes stored by an attempt that has ended. Pauses after a fault of this machine."""
        try:
            outcome = ended.result()
        except Exception as error:
            if not is_machine_fault(error):
                raise
            self._machine_failed(describe(error))
            return 0
        if isinstance(outcome, WillRetry) and outcome.machine_fault:
            self._machine_failed(outcome.reason)
        elif not isinstance(outcome, NotOurs):
            self._faults.passed(self._holder, self._ledger)
        if isinstance(outcome, AlreadyArchived):  # at the quorum, say
            return outcome.copied_bytes
        return outcome.stored_bytes if isinstance(outcome, Archived) else 0

    def _machine_failed(self, reason: str) -> None:
        self._faults.failed(reason, self._holder, self._ledger)
        if self._faults.should_end:
            log.error("run_ended", reason=f"this machine failed {MOST_FAULTS} times in a row: {reason}")

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._cancelled.is_set():
            time.sleep(min(POLL.total_seconds(), max(until - time.monotonic(), 0)))

    def _next(self, named: deque[str] | None, free: int, running: set[str]) -> list[str]:
        if free <= 0:
            return []
        if named is not None:
            return [named.popleft() for _ in range(min(free, len(named)))]
        # Queued assets are taken too: their messages will find them leased or settled.
        due = self._ledger.take_due(WINDOW, timedelta(0), at_most=free)
        return [row.asset_id for row in due if row.asset_id not in running]

    def _worth_waiting(self, seconds_left: float) -> bool:
        states = self._ledger.counts().states
        if states.get(AssetState.RUNNING, 0):  # another worker's, or the lease of one that died
            return seconds_left > 0
        next_due = self._ledger.next_due_at()
        return next_due is not None and (next_due - self._clock()).total_seconds() <= seconds_left


def result_json(result: RunResult) -> dict[str, object]:
    return {
        "seen": result.counts.seen,
        "states": {str(state): number for state, number in result.counts.states.items() if number},
        "bytes": result.stored_bytes,
    }

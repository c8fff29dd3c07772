"""Renew a lease and report progress while an asset is copied."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import structlog

from archiver.core.attempt import urgency
from archiver.core.attempt.heartbeat_starter import heartbeat_starter
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LeaseLost, LedgerUnavailable
from archiver.ledger.models import Lease, Progress
from archiver.transfer.errors import Preempted, Stopped
from storage_backends.base import ObjectKey

log = structlog.get_logger(__name__)

TICK = timedelta(seconds=1)
LOOK_EVERY = timedelta(seconds=5)  # whether an urgent asset waits for a slot


class Heartbeat:
    """Renew the lease in a thread for the duration of one attempt; none is started for one shorter than TICK.

    While the ledger is down the copy goes on: nobody else can take the lease from it either. The attempt ends with
    LeaseLost once the ledger says that another worker has the asset.
    """

    def __init__(
        self,
        ledger: Ledger,
        lease: Lease,
        duration: timedelta,
        *,
        renew_every: timedelta,
        asset_type: str,
        bytes_total: int | None,
        expires_at: datetime | None = None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._duration = duration
        self._renew_every = renew_every
        self._type = asset_type
        self.bytes_total = bytes_total
        self.expires_at = expires_at
        self._stop_requested = stop_requested
        self._lost: LeaseLost | None = None
        self._leased_at = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._bytes_done = 0
        self._objects_done = 0
        self._objects_copied = 0
        self._current = ""
        self._thread: threading.Thread | None = None
        self._unable: Exception | None = None
        self._yields_to: str | None = None  # the urgent asset that this copy ends for
        self._yields = threading.Event()

    def __enter__(self) -> Self:
        try:
            heartbeat_starter().add(self._begin, TICK.total_seconds())
        except (RuntimeError, MemoryError) as error:  # no thread: said by `check`, within the attempt
            self._unable = error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        heartbeat_starter().remove(self._begin)
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def check(self) -> None:
        """Raise LeaseLost when another worker has the asset, Stopped when this worker is to end, RuntimeError or
        MemoryError when no thread could be started to renew the lease. Cheap; safe from any thread."""
        if self._lost is not None:
            raise LeaseLost(str(self._lost))
        if self._thread is None and self._unable is None and self._is_half_over():
            self._unable = RuntimeError(self._why_not_renewed())
        if self._unable is not None:
            raise self._unable
        if self._stop_requested():
            raise Stopped("this worker is shutting down")

    def should_yield(self) -> bool:
        """Return whether to end for an urgent asset, once what is in flight is stored. Cheap; safe from any thread."""
        return self._yields.is_set()

    def preempted(self) -> Preempted:
        """The error to raise then."""
        return Preempted(f"preempted: {self._yields_to} is urgent, and no slot was free for it")

    def confirm(self) -> None:
        """Renew now, before something becomes visible. Raises LeaseLost, Stopped, LedgerUnavailable."""
        self.check()
        self._renew()

    def confirm_if_possible(self) -> None:
        """Like `confirm`, but go on when the ledger is down: the store's compare-and-swap and the fencing token in the
        manifest decide then."""
        try:
            self.confirm()
        except LedgerUnavailable as error:
            log.warning("commit_without_ledger", asset_id=self._lease.asset_id, error=str(error))

    def moved(self, key: ObjectKey, size_bytes: int) -> None:
        with self._lock:
            self._bytes_done += size_bytes
            self._current = key

    def object_done(self, *, copied: bool = True) -> None:
        """Count an object that is stored. `copied`: by this attempt. Only the thread that copies calls it."""
        self._objects_done += 1
        self._objects_copied += copied

    @property
    def lease(self) -> Lease:
        return self._lease

    def outrank(self, fence: int) -> Lease:
        """Take a fencing token above `fence` for the rest of the attempt. Raises LeaseLost, LedgerUnavailable."""
        with self._renewing:  # a renewal with the old token would find the lease lost
            self._lease = self._ledger.outrank(self._lease, fence)
            return self._lease

    @property
    def bytes_done(self) -> int:
        return self._bytes_done

    @property
    def objects_copied(self) -> int:
        return self._objects_copied

    def _yield_to(self, urgent: str) -> None:
        self._yields_to = urgent
        self._yields.set()

    def _is_half_over(self) -> bool:
        return time.monotonic() - self._leased_at > self._duration.total_seconds() / 2

    def _why_not_renewed(self) -> str:
        """A pause or a lack of threads, nobody knows which: `is_machine_fault` for both."""
        seconds = time.monotonic() - self._leased_at
        state = "is over" if seconds >= self._duration.total_seconds() else "is about to end"
        return (
            f"the lease {state}: nothing renewed it for {seconds:.0f} s, since this worker was paused, or can't start "
            "new thread"
        )

    def _begin(self) -> None:
        thread = threading.Thread(
            target=self._run, name=f"heartbeat-{self._lease.asset_id[:16]}", daemon=True
        )
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        renewed_at = self._leased_at
        looks_at = self._leased_at + urgency.URGENT_AFTER.total_seconds()
        while True:
            try:
                self._ledger.report(self._snapshot())
                if time.monotonic() - renewed_at >= self._renew_every.total_seconds():
                    self._renew()
                    renewed_at = time.monotonic()
                if time.monotonic() >= looks_at:
                    looks_at = time.monotonic() + LOOK_EVERY.total_seconds()
                    if (urgent := urgency.preempted_by(self._ledger, self._lease.asset_id)) is not None:
                        self._yield_to(urgent)
                        looks_at = math.inf
            except LeaseLost as error:
                self._lost = error
                return
            except (LedgerUnavailable, MemoryError, OSError, RuntimeError) as error:  # tried again at once
                log.warning("lease_not_renewed", asset_id=self._lease.asset_id, error=repr(error))
            if self._ended.wait(TICK.total_seconds()):
                return

    def _renew(self) -> None:
        with self._renewing:
            self._ledger.renew(self._lease, self._duration)

    def _snapshot(self) -> Progress:
        with self._lock:
            return Progress(
                asset_id=self._lease.asset_id,
                type=self._type,
                bytes_done=self._bytes_done,
                bytes_total=self.bytes_total,
                objects_done=self._objects_done,
                current=self._current,
            )

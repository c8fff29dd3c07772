"""The ledger's time in a worker, the same for all workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerUnavailable

MEASURE_EVERY = timedelta(minutes=1)
_MEASURE_SECONDS = MEASURE_EVERY.total_seconds()


def since_boot() -> float:
    """Return seconds of a monotonic clock that also runs while the machine sleeps, if the system has one; a plain
    monotonic clock would be behind afterwards."""
    if _BOOT is None:
        return time.monotonic()
    return time.clock_gettime(_BOOT)


_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # Linux


class LedgerClock:
    """Returns the ledger's time, aware UTC, independent of this machine's wall clock: read every MEASURE_EVERY and
    advanced by a monotonic clock, also while the ledger is unavailable. Raises LedgerUnavailable if it was never read.
    Thread-safe."""

    def __init__(self, ledger: Facts, elapsed: Callable[[], float] = since_boot) -> None:
        """`elapsed`: seconds of a monotonic clock."""
        self._ledger = ledger
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._measured: tuple[datetime, float] | None = None
        self._asked_at = 0.0

    def __call__(self) -> datetime:
        now, measured = self._elapsed(), self._measured
        if measured is not None and now - self._asked_at < _MEASURE_SECONDS:
            return measured[0] + timedelta(seconds=now - measured[1])
        with self._lock:
            now, measured = self._elapsed(), self._measured
            if measured is None or now - self._asked_at >= _MEASURE_SECONDS:
                self._asked_at = now
                try:
                    measured = (self._ledger.now(), self._elapsed())
                except LedgerUnavailable:
                    if measured is None:
                        raise
                self._measured = measured
                now = self._elapsed()
            return measured[0] + timedelta(seconds=now - measured[1])

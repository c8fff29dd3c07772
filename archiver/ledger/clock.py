"""The ledger's clock in a worker: one time for the whole fleet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerUnavailable

MEASURE_EVERY = timedelta(minutes=1)


def since_boot() -> float:
    """Seconds of a clock that is never set and, where the system has one, goes on while the machine sleeps: a
    monotonic one stands still then, and would be that far behind after it."""
    if _BOOT is None:
        return time.monotonic()
    return time.clock_gettime(_BOOT)


_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # Linux


class LedgerClock:
    """Gives the ledger's time, aware UTC, whatever the clock of this machine says: asked for once in MEASURE_EVERY and
    carried on by a clock that is never set. While the ledger is away, the last answer is carried on. Raises
    LedgerUnavailable when there was none yet. Safe to use from several threads."""

    def __init__(self, ledger: Facts, elapsed: Callable[[], float] = since_boot) -> None:
        """`elapsed`: seconds of a clock that is never set."""
        self._ledger = ledger
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._measured: tuple[datetime, float] | None = None
        self._asked_at = 0.0

    def __call__(self) -> datetime:
        with self._lock:
            now, measured = self._elapsed(), self._measured
            if measured is None or now - self._asked_at >= MEASURE_EVERY.total_seconds():
                self._asked_at = now
                try:
                    measured = (self._ledger.now(), self._elapsed())
                except LedgerUnavailable:
                    if measured is None:
                        raise
                self._measured = measured
                now = self._elapsed()
            return measured[0] + timedelta(seconds=now - measured[1])

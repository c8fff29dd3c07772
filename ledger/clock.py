"""The ledger's clock in a worker: one time for the whole fleet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic

from ledger.base import Ledger
from ledger.errors import LedgerUnavailable

MEASURE_EVERY = timedelta(minutes=1)


class LedgerClock:
    """Gives the ledger's time, aware UTC, whatever the clock of this machine says: asked for once in MEASURE_EVERY and
    carried on by a monotonic clock. While the ledger is away, the last answer is carried on. Raises LedgerUnavailable
    when there was none yet. Safe to use from several threads."""

    def __init__(self, ledger: Ledger, elapsed: Callable[[], float] = monotonic) -> None:
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

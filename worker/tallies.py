"""Add the counts of this process to the ledger's totals, so that they survive it."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta

from archiver.http.tally import TALLY, Tally
from archiver.ledger.base import Totals
from archiver.ledger.errors import LedgerError

EVERY = timedelta(seconds=10)
"""What a killed process counted since is lost."""


class TallyFlusher:
    """Flushes each EVERY between `start` and `close`. While the ledger is down the counts are dropped: metrics must not
    grow in memory, nor be counted twice."""

    def __init__(self, ledger: Totals, tally: Tally = TALLY, every: timedelta = EVERY) -> None:
        self._ledger = ledger
        self._tally = tally
        self._every = every
        self._closed = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="tallies", daemon=True).start()

    def flush(self) -> None:
        counts = self._tally.take()
        if counts:
            with suppress(LedgerError):
                self._ledger.add_totals(counts)

    def close(self) -> None:
        """Flush for the last time. Idempotent."""
        self._closed.set()
        self.flush()

    def _run(self) -> None:
        while not self._closed.wait(self._every.total_seconds()):
            self.flush()

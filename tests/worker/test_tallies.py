"""Counts of a process reach the ledger's totals, and never twice."""

from __future__ import annotations

from datetime import timedelta

from archiver.http.tally import Tally
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock
from tests.walkthrough.user import until
from worker.tallies import TallyFlusher


def test_counts_are_added_to_the_totals_once() -> None:
    ledger, tally = MemoryLedger(Clock(NOW)), Tally()
    flusher = TallyFlusher(ledger, tally)
    tally.add("x", 2)
    flusher.flush()
    flusher.flush()
    tally.add("x")
    flusher.close()
    flusher.close()

    assert ledger.totals() == {"x": 3}


def test_they_are_added_while_the_process_works() -> None:
    ledger, tally = MemoryLedger(Clock(NOW)), Tally()
    flusher = TallyFlusher(ledger, tally, timedelta(milliseconds=1))
    flusher.start()
    tally.add("x")
    try:
        until(lambda: ledger.totals() == {"x": 1}, seconds=20, what="the count to reach the ledger")
    finally:
        flusher.close()

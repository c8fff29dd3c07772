"""The ledger in the memory of one process, for tests and single runs: the simplest that keeps the contract."""

from __future__ import annotations

from archiver.ledger.memory.copy_journal import MemoryCopyJournal
from archiver.ledger.memory.facts import MemoryFacts
from archiver.ledger.memory.leases import MemoryLeases
from archiver.ledger.memory.outbox import MemoryOutbox
from archiver.ledger.memory.rate_limits import MemoryRateLimits
from archiver.ledger.memory.schedule import MemorySchedule
from archiver.ledger.memory.totals import MemoryTotals


class MemoryLedger(
    MemorySchedule, MemoryLeases, MemoryCopyJournal, MemoryFacts, MemoryRateLimits, MemoryTotals, MemoryOutbox
):
    """`ledger.base.Ledger`, for the threads of one process."""

    def ping(self) -> None:
        """Do nothing: it is always available."""

    def close(self) -> None:
        """Do nothing: what it holds goes with the object."""

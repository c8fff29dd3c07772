"""What can go wrong with the ledger.

LedgerError
├── LedgerUnavailable     the store behind it cannot be reached or refuses to write; worth trying again
└── LeaseLost             another worker holds the asset now, or it is settled: stop, write nothing more
"""

from __future__ import annotations


class LedgerError(Exception):
    """Anything the ledger raises."""


class LedgerUnavailable(LedgerError):
    """The ledger did not answer, or cannot write now (out of memory, loading, read-only)."""


class LeaseLost(LedgerError):
    """This worker's right to the asset has ended."""

"""Errors of the ledger.

LedgerError
├── LedgerUnavailable     the store behind it cannot be reached, or refuses to write; retry
└── LeaseLost             another worker holds the asset, or it is settled; stop and write nothing more
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archiver.ledger.models import Lease


class LedgerError(Exception):
    """Base of everything the ledger raises."""


class LedgerUnavailable(LedgerError):
    """The ledger did not answer, or cannot write now (out of memory, loading, read-only)."""


class LeaseLost(LedgerError):
    """This worker's right to the asset has ended."""

    @classmethod
    def of(cls, lease: Lease) -> LeaseLost:
        return cls(f"asset {lease.asset_id}: lease {lease.fence} of {lease.holder} has ended")

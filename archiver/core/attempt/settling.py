"""Recording the outcome of an attempt whose copy is in the bucket, although the ledger is away."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from archiver.ledger.base import Lease, Ledger, Seen, Settlement
from archiver.ledger.errors import LedgerUnavailable

log = structlog.get_logger(__name__)

PAUSES_SECONDS = (1, 2, *(5,) * 23)
"""Two minutes, as long as a lease: afterwards another attempt finds the manifest, which costs a few requests."""

LONGEST_SECONDS = 3 * 60
"""However long each call takes to fail."""


def settle(
    ledger: Ledger,
    lease: Lease,
    seen: Seen,
    how: Settlement,
    *,
    pause: Callable[[float], None],
    give_up: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """`Ledger.settle`, tried again after each of PAUSES_SECONDS while the ledger is away, for LONGEST_SECONDS at the
    most and until `give_up` says so. Raises LedgerUnavailable; LeaseLost, also after an answer that was lost."""
    began = clock()
    for seconds in PAUSES_SECONDS:
        try:
            ledger.settle(lease, seen, how)
        except LedgerUnavailable as error:
            if give_up() or clock() - began >= LONGEST_SECONDS:
                raise
            log.warning(
                "outcome_not_recorded_yet", asset_id=lease.asset_id, state=how.state, error=str(error)
            )
            pause(seconds)
        else:
            return
    ledger.settle(lease, seen, how)

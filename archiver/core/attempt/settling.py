"""Recording the outcome of an attempt whose copy is in the bucket, although the ledger is away."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from archiver.ledger.base import Leases
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import Lease, Seen, Settlement
from archiver.retry_policy import SETTLING

log = structlog.get_logger(__name__)

LONGEST_SECONDS = 3 * 60
"""However long each call takes to fail. Afterwards another attempt finds the manifest, which costs a few requests."""


def settle(
    ledger: Leases,
    lease: Lease,
    seen: Seen,
    how: Settlement,
    *,
    pause: Callable[[float], None],
    give_up: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Settle the asset in the ledger; retry by SETTLING while the ledger is away, until `give_up` says to stop.

    Raises LedgerUnavailable; LeaseLost, also when the answer to an earlier try was lost.
    """
    began = clock()
    failures = 0
    while True:
        try:
            ledger.settle(lease, seen, how)
            return
        except LedgerUnavailable as error:
            failures += 1
            if failures == SETTLING.attempts or give_up() or clock() - began >= LONGEST_SECONDS:
                raise
            log.warning(
                "outcome_not_recorded_yet", asset_id=lease.asset_id, state=how.state, error=str(error)
            )
        pause(SETTLING.pause(failures).total_seconds())

"""Record the outcome of an attempt, also when its copy is in the bucket and the ledger is unreachable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from archiver.core.attempt.context import Dependencies
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.outcomes import AlreadyArchived, Archived, Kept, Settled, settlement
from archiver.core.records import end_records
from archiver.ledger.base import Leases
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import CopyState, Lease, Row, Seen, Settlement
from archiver.retry_policy import SETTLING

log = structlog.get_logger(__name__)

LONGEST_SECONDS = 3 * 60
"""However long each call takes to fail. Afterwards another attempt finds the manifest, which costs a few requests."""


def settle_outcome(
    deps: Dependencies,
    heartbeat: Heartbeat,
    seen: Seen,
    outcome: Settled,
    *,
    copies: Mapping[str, CopyState] | None = None,
    pause: Callable[[float], None],
    give_up: Callable[[], bool],
) -> None:
    """Settle the asset in the ledger and, if it ended unsaved, write its end record to the destinations.

    Waits for the ledger only when the bucket has the asset. Raises LedgerUnavailable, LeaseLost.
    """
    how = replace(
        settlement(outcome),
        copies=copies,
        copied_bytes=heartbeat.bytes_done,
        copied_objects=heartbeat.objects_copied,
    )
    lease = heartbeat.lease
    if isinstance(outcome, Archived | AlreadyArchived | Kept):
        row = settle(deps.ledger, lease, seen, how, pause=pause, give_up=give_up)
    else:
        row = deps.ledger.settle(lease, seen, how)
    if how.state in end_records.RECORDED_STATES:
        log.error("asset_not_archived", asset_id=seen.asset_id, state=how.state, reason=how.reason)
        end_records.write(
            deps.destinations, seen, how.state, how.reason or "", deps.clock(), history=row.history
        )


def settle(
    ledger: Leases,
    lease: Lease,
    seen: Seen,
    how: Settlement,
    *,
    pause: Callable[[float], None],
    give_up: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> Row:
    """Settle the asset in the ledger and return its row; retry by SETTLING while the ledger is down, until `give_up`
    says to stop.

    Raises LedgerUnavailable; LeaseLost, also when the answer to an earlier try was lost.
    """
    began = clock()
    failures = 0
    while True:
        try:
            return ledger.settle(lease, seen, how)
        except LedgerUnavailable as error:
            failures += 1
            if failures == SETTLING.attempts or give_up() or clock() - began >= LONGEST_SECONDS:
                raise
            log.warning(
                "outcome_not_recorded_yet", asset_id=lease.asset_id, state=how.state, error=str(error)
            )
        pause(SETTLING.pause(failures).total_seconds())

"""A person has looked at an end that cannot be helped, and takes it out of the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog

from archiver.core.errors import VerdictRefused
from archiver.core.judging import as_known
from archiver.core.records import end_records
from archiver.core.records.manifest import without_queries
from archiver.core.upkeep.verdicts import NO_REASON
from archiver.ledger.base import Schedule
from archiver.ledger.models import ACKNOWLEDGED_STATES, Row
from storage_backends.base import StorageBackend

log = structlog.get_logger(__name__)


def acknowledge(
    ledger: Schedule,
    destinations: Sequence[StorageBackend],
    asset_id: str,
    *,
    by: str,
    why: str,
    now: datetime,
) -> Row:
    """Record in the ledger, and beside the end in the buckets, that this end was seen. Holds until the state changes;
    it is still shown. Idempotent. Raises VerdictRefused for an asset that is in no such end; LedgerError."""
    by, why = without_queries(by), without_queries(why) or NO_REASON
    row = ledger.acknowledge(asset_id, by, why)
    if row is None:
        raise VerdictRefused(f"{asset_id} is not in the ledger. Run `archiver sweep` first.")
    if row.acknowledged is None:
        ends = ", ".join(sorted(ACKNOWLEDGED_STATES))
        raise VerdictRefused(f"{asset_id} is {row.state}: only what is {ends} can be acknowledged.")
    end_records.write(
        destinations, as_known(row), row.state, row.reason or "", now, acknowledged=row.acknowledged
    )
    log.warning("end_acknowledged", asset_id=asset_id, state=row.state, by=by, why=why)
    return row


def restore(ledger: Schedule, record: end_records.EndRecord) -> bool:
    """Give a ledger that was lost the acknowledgement that a record keeps, when the asset is in that end again; whether
    it did. Idempotent. Raises LedgerError."""
    said, row = record.acknowledged, ledger.get(record.seen.asset_id)
    if said is None or row is None or row.state != record.state or row.acknowledged is not None:
        return False
    ledger.acknowledge(row.asset_id, said.by, said.why)
    return True

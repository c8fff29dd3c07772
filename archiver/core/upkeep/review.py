"""A person's decision on an asset that ended: accept it, reject it, or acknowledge that nothing more can be done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog

from archiver.core.errors import ReviewRefused
from archiver.core.judging import as_known
from archiver.core.records import commit, end_records, keys
from archiver.core.records.manifest import Manifest, without_queries
from archiver.ledger.base import Assets, Schedule
from archiver.ledger.models import ACKNOWLEDGED_STATES, SAFE_STATES, AssetState, Row, Settlement
from storage_backends.base import StorageBackend

log = structlog.get_logger(__name__)

NO_REASON = "no reason given"


def accept(
    ledger: Schedule,
    destinations: Sequence[StorageBackend],
    asset_id: str,
    *,
    by: str,
    why: str,
    now: datetime,
) -> Row:
    """Make an asset that is stored with doubts archived; its manifests keep who accepted which doubts, when and why.
    Idempotent. Raises ReviewRefused when it is not whole at every destination or a worker has it, StorageError,
    LedgerError."""
    row = _row_at_rest(ledger, asset_id)
    by, why = without_queries(by), without_queries(why) or NO_REASON
    key = keys.manifest_key(asset_id, row.created_at)
    for store in destinations:
        if commit.committed(store, key) is None and commit.kept(store, key) is None:
            raise ReviewRefused(
                f"{asset_id}: nothing is stored whole at {store.name}, so there is nothing to accept "
                f"(`archiver show {asset_id}` says why)."
            )
    manifests = [commit.accept(store, key, by=by, why=why, at=now) for store in destinations]
    found = [manifest for manifest in manifests if manifest is not None]
    if len(found) < len(destinations):
        raise ReviewRefused(f"{asset_id}: what is stored changed in the meantime. Look at it again.")
    ledger.record_archived(as_known(row), _accepted(found[0], by, why))
    log.warning("asset_accepted", asset_id=asset_id, by=by, why=why)
    return _row(ledger, asset_id)


def reject(
    ledger: Schedule,
    destinations: Sequence[StorageBackend],
    asset_id: str,
    *,
    by: str,
    why: str,
    now: datetime,
) -> Row:
    """Record that the asset is worthless: it is not retried, and no problem any more. What is stored stays. Idempotent.
    Raises ReviewRefused when it is archived or a worker has it, LedgerError."""
    row = _row_at_rest(ledger, asset_id)
    by, why = without_queries(by), without_queries(why) or NO_REASON
    if row.state in SAFE_STATES:
        raise ReviewRefused(f"{asset_id} is {row.state}: there is nothing to reject.")
    reason = f"rejected by {by}: {why}"
    if row.reason and row.state is not AssetState.REJECTED:
        reason += f" (it was {row.state}: {row.reason})"
    seen = as_known(row)
    how = Settlement(
        AssetState.REJECTED,
        reason=reason,
        stored_bytes=row.stored_bytes,
        stored_objects=row.stored_objects,
    )
    ledger.record_archived(seen, how)
    rejected = _row_at_rest(ledger, asset_id)  # nothing was recorded if a worker took it in between
    end_records.write(destinations, seen, AssetState.REJECTED, reason, now)
    log.warning("asset_rejected", asset_id=asset_id, by=by, why=why)
    return rejected


def acknowledge(
    ledger: Schedule,
    destinations: Sequence[StorageBackend],
    asset_id: str,
    *,
    by: str,
    why: str,
    now: datetime,
) -> Row:
    """Record that a person has seen this end: it is shown and no problem, until the state changes. Kept in the end
    record too. Idempotent. Raises ReviewRefused when the asset is in no end that can be acknowledged, LedgerError."""
    by, why = without_queries(by), without_queries(why) or NO_REASON
    row = ledger.acknowledge(asset_id, by, why)
    if row is None:
        raise _unknown(asset_id)
    if row.acknowledged is None:
        ends = ", ".join(sorted(ACKNOWLEDGED_STATES))
        raise ReviewRefused(f"{asset_id} is {row.state}: only what is {ends} can be acknowledged.")
    end_records.write(
        destinations, as_known(row), row.state, row.reason or "", now, acknowledged=row.acknowledged
    )
    log.warning("end_acknowledged", asset_id=asset_id, state=row.state, by=by, why=why)
    return row


def restore_acknowledgement(ledger: Schedule, record: end_records.EndRecord) -> bool:
    """Copy the acknowledgement from an end record to a ledger that was lost, if the asset is in that end again; whether
    it was copied. Idempotent. Raises LedgerError."""
    said, row = record.acknowledged, ledger.get(record.seen.asset_id)
    if said is None or row is None or row.state != record.state or row.acknowledged is not None:
        return False
    ledger.acknowledge(row.asset_id, said.by, said.why)
    return True


def _row_at_rest(ledger: Assets, asset_id: str) -> Row:
    """Raises ReviewRefused while a worker has the asset."""
    row = _row(ledger, asset_id)
    if row.state is AssetState.RUNNING:
        raise ReviewRefused(f"{asset_id}: a worker is copying it now. Try again when that has ended.")
    return row


def _row(ledger: Assets, asset_id: str) -> Row:
    row = ledger.get(asset_id)
    if row is None:
        raise _unknown(asset_id)
    return row


def _unknown(asset_id: str) -> ReviewRefused:
    return ReviewRefused(f"{asset_id} is not in the ledger. Run `archiver sweep` first.")


def _accepted(manifest: Manifest, by: str, why: str) -> Settlement:
    return Settlement(
        AssetState.ARCHIVED,
        stored_bytes=manifest.total_size,
        stored_objects=len(manifest.objects),
        warnings=(f"accepted by {by}: {why}", *manifest.warnings),
    )

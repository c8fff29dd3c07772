"""A person's word on an asset that is stored with doubts, or that never arrived whole: accepted, or rejected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog

from archiver.core.errors import VerdictRefused
from archiver.core.judging import as_known
from archiver.core.records import commit, end_records, keys
from archiver.core.records.manifest import Manifest, without_queries
from archiver.ledger.base import Assets, Schedule
from archiver.ledger.models import SAFE_STATES, AssetState, Row, Settlement
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
    """Make what is kept with doubts archived: the manifest at every destination says who accepted it, when and why, and
    which doubts there were. Idempotent. Raises VerdictRefused when it is not kept whole everywhere, or a worker is
    looking at it; StorageError; LedgerError."""
    row = _row_at_rest(ledger, asset_id)
    by, why = without_queries(by), without_queries(why) or NO_REASON
    key = keys.manifest_key(asset_id, row.created_at)
    for store in destinations:
        if commit.committed(store, key) is None and commit.kept(store, key) is None:
            raise VerdictRefused(
                f"{asset_id}: nothing is stored whole at {store.name}, so there is nothing to accept "
                f"(`archiver show {asset_id}` says why)."
            )
    manifests = [commit.accept(store, key, by=by, why=why, at=now) for store in destinations]
    found = [manifest for manifest in manifests if manifest is not None]
    if len(found) < len(destinations):
        raise VerdictRefused(f"{asset_id}: what is stored changed in the meantime. Look at it again.")
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
    """Record that the asset is worthless: it is not tried again, nor shown as needing a person. What is stored stays.
    Idempotent. Raises VerdictRefused for one that is archived or that a worker is copying; LedgerError."""
    row = _row_at_rest(ledger, asset_id)
    by, why = without_queries(by), without_queries(why) or NO_REASON
    if row.state in SAFE_STATES:
        raise VerdictRefused(f"{asset_id} is {row.state}: there is nothing to reject.")
    reason = f"rejected by {by}: {why}"
    if row.reason and row.state is not AssetState.REJECTED:
        reason += f" (it was {row.state}: {row.reason})"
    seen = as_known(row)
    ledger.record_archived(
        seen,
        Settlement(
            AssetState.REJECTED,
            reason=reason,
            stored_bytes=row.stored_bytes,
            stored_objects=row.stored_objects,
        ),
    )
    rejected = _row_at_rest(
        ledger, asset_id
    )  # a worker may have taken it in between, and then nothing was recorded
    end_records.write(destinations, seen, AssetState.REJECTED, reason, now)
    log.warning("asset_rejected", asset_id=asset_id, by=by, why=why)
    return rejected


def _row_at_rest(ledger: Assets, asset_id: str) -> Row:
    """Raises VerdictRefused while a worker has the asset."""
    row = _row(ledger, asset_id)
    if row.state is AssetState.RUNNING:
        raise VerdictRefused(f"{asset_id}: a worker is copying it now. Try again when that has ended.")
    return row


def _row(ledger: Assets, asset_id: str) -> Row:
    row = ledger.get(asset_id)
    if row is None:
        raise VerdictRefused(f"{asset_id} is not in the ledger. Run `archiver sweep` first.")
    return row


def _accepted(manifest: Manifest, by: str, why: str) -> Settlement:
    return Settlement(
        AssetState.ARCHIVED,
        stored_bytes=manifest.total_size,
        stored_objects=len(manifest.objects),
        warnings=(f"accepted by {by}: {why}", *manifest.warnings),
    )

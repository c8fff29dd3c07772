"""A person wants an asset tried again now: one that waits, or one that ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog

from archiver.core.deadlines import is_over
from archiver.core.errors import ReviewRefused
from archiver.core.records import end_records, keys
from archiver.core.records.commit import committed, mark_damaged
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.review import cleaned, known_row, row_at_rest
from archiver.ledger.base import Schedule
from archiver.ledger.models import OPEN_STATES, AssetState, Decision, Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

RETRIED = "retried"
RETRIED_STATES = frozenset(
    {
        AssetState.WAITING,
        AssetState.SOURCE_FAILED,
        AssetState.NEEDS_SOURCE_ACCESS,
        AssetState.QUARANTINED,
        AssetState.REJECTED,
        AssetState.LOST,
        AssetState.DAMAGED,
    }
)
"""States that a retry changes. What is open otherwise is due already, or being copied."""


def retry(
    ledger: Schedule,
    destinations: Sequence[StorageBackend],
    asset_id: str,
    *,
    by: str,
    why: str,
    now: datetime,
    again: bool = False,
) -> Row:
    """Make the asset due now, with no attempts; its history keeps who asked, when and why. One that is due or being
    copied stays as it is. `again`: an archived one is copied again, see `copy_again`.

    What is stored of a quarantined asset stays, as does a damaged copy until a new one is whole. Idempotent. Raises
    ReviewRefused when it is archived (without `again`) or a filter skips it, StorageError, LedgerError."""
    row = known_row(ledger, asset_id)
    if row.state not in OPEN_STATES:
        row = row_at_rest(ledger, asset_id, now)
    if row.state in OPEN_STATES and row.state is not AssetState.WAITING:
        return row
    if row.state is AssetState.ARCHIVED:
        if not again:
            raise ReviewRefused(f"{asset_id} is archived. To copy it again: --again.")
        copy_again(destinations, row, now)
    elif row.state not in RETRIED_STATES:
        raise ReviewRefused(
            f"{asset_id} is {row.state}: {row.reason or 'by the settings'}. It would be {row.state} again; change the "
            "setting, and the next full sweep enters it."
        )
    else:
        mark_what_is_damaged(destinations, row)
    decision = Decision(RETRIED, *cleaned(by, why), now)
    ledger.note_decision(asset_id, decision)  # first: `is_outdated` goes by it
    is_kept = row.stored_objects > 0 and row.state not in (AssetState.ARCHIVED, AssetState.DAMAGED)
    reopened = ledger.reopen(asset_id, keep_stored=is_kept)
    if row.state is AssetState.REJECTED:
        _forget_rejection(destinations, row)
    log.warning("asset_retried", asset_id=asset_id, state=row.state, by=decision.by, why=decision.why)
    return reopened or row


def copy_again(destinations: Sequence[StorageBackend], row: Row, now: datetime) -> None:
    """Mark the asset's manifests as damaged, so that it is copied again when it is due. Idempotent. Raises
    ReviewRefused when 100ms has deleted it (a damaged copy is better than none), StorageError."""
    if is_over(row, now):
        raise ReviewRefused(
            f"{row.asset_id}: its retention at 100ms has ended; what is archived stays as it is."
        )
    for store in destinations:
        mark_damaged(
            store, keys.manifest_key(row.asset_id, row.created_at), ["a person asked for a new copy"]
        )


def mark_what_is_damaged(destinations: Sequence[StorageBackend], row: Row) -> None:
    """Read back what is whole by its sizes: it may have been found damaged where its manifest could not be marked, and
    would be archived again as it is. Does nothing for an asset that has not ended, or is archived. Idempotent. Raises
    StorageError, also when the manifest still cannot be marked."""
    if row.state in OPEN_STATES or row.state is AssetState.ARCHIVED:
        return
    key = keys.manifest_key(row.asset_id, row.created_at)
    for store in destinations:
        manifest = committed(store, key)
        if manifest is not None and (problems := verify_contents(store, manifest).problems):
            mark_damaged(store, key, problems, of=manifest)


def is_outdated(store: StorageBackend, record: ObjectKey, row: Row) -> bool:
    """Whether the end record calls an asset rejected that a person wants archived since: a rebuilt ledger would reject
    it again. Raises StorageError."""
    is_retried = row.state in OPEN_STATES and bool(row.history) and row.history[-1].what == RETRIED
    return is_retried and end_records.read_state(store, record) == AssetState.REJECTED


def _forget_rejection(destinations: Sequence[StorageBackend], row: Row) -> None:
    """Delete the end records. A destination that cannot be reached is left to `reconcile`."""
    for store in destinations:
        try:
            store.delete(keys.end_record_key(row.asset_id, row.created_at))
        except StorageError as error:
            log.warning("end_record_left", asset_id=row.asset_id, store=store.name, reason=str(error))

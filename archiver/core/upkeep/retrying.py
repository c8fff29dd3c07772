"""A person wants an asset tried again now: one that waits, or one that ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from archiver.core.deadlines import is_over
from archiver.core.errors import ReviewRefused
from archiver.core.judging import as_known
from archiver.core.records import end_records, keys
from archiver.core.records.commit import committed, mark_damaged, read_back
from archiver.core.records.manifest import find_manifest
from archiver.core.upkeep.review import cleaned, known_row, row_at_rest
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import OPEN_STATES, REMOVED_STATES, AssetState, Decision, Lease, Row, Settlement
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import AccessDenied, StorageError

log = structlog.get_logger(__name__)

RETRIED = "retried"
ASKED_AGAIN = "a person asked for a new copy"
MARKING = timedelta(minutes=5)  # the lease while manifests are marked: some requests to each destination
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
    ledger: Ledger,
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
    if again and row.state is AssetState.RUNNING:
        row = ledger.reopen(asset_id) or row  # if nobody has it any more: such as a call that was killed
    if row.state not in OPEN_STATES:
        row = row_at_rest(ledger, asset_id, now)
    asked_at = _asked_at(row) if again else None
    if row.state in OPEN_STATES and row.state is not AssetState.WAITING and asked_at is None:
        return row
    decision = Decision(RETRIED, *cleaned(by, why), now)
    if row.state is AssetState.ARCHIVED or asked_at is not None:
        if not again:
            raise ReviewRefused(f"{asset_id} is archived. To copy it again: --again.")
        _refuse_if_over(row, now)
        if asked_at is None:
            ledger.note_decision(asset_id, decision)  # first: a second call goes on where this one stops
        reopened = copy_again(ledger, destinations, row, now, made_before=asked_at)
    elif row.state in REMOVED_STATES:
        raise ReviewRefused(
            f"{asset_id} is {row.state} ({row.reason}), and its tombstone forbids to archive it. If it is wanted after "
            f"all: `archiver archive --un-erase {asset_id}`."
        )
    elif row.state not in RETRIED_STATES:
        raise ReviewRefused(
            f"{asset_id} is {row.state}: {row.reason or 'by the settings'}. It would be {row.state} again; change the "
            "setting, and the next full sweep enters it."
        )
    else:
        mark_what_is_damaged(destinations, row)
        ledger.note_decision(asset_id, decision)  # first: `is_outdated` goes by it
        is_kept = row.stored_objects > 0 and row.state is not AssetState.DAMAGED
        reopened = ledger.reopen(asset_id, keep_stored=is_kept) or row
    if row.state is AssetState.REJECTED:
        _forget_rejection(destinations, row)
    log.warning("asset_retried", asset_id=asset_id, state=row.state, by=decision.by, why=decision.why)
    return reopened


def copy_again(
    ledger: Ledger,
    destinations: Sequence[StorageBackend],
    row: Row,
    now: datetime,
    *,
    made_before: datetime | None = None,
) -> Row:
    """Reopen the asset and mark its manifests as damaged, so that it is copied again; return its row. `made_before`:
    only manifests of copies that ended before that.

    The ledger comes first, and nobody else has the asset until all are marked: it is never called archived beside a
    manifest that says otherwise. When that stops half-way it is due again, and copied to the destinations whose
    manifests are marked. Those that do not allow it keep their copy, and the others get a new one.

    Idempotent. Raises ReviewRefused when 100ms has deleted it (a damaged copy is better than none), a worker has it, or
    a destination does not let its manifest be replaced; StorageError, LedgerError."""
    _refuse_if_over(row, now)
    ledger.reopen(row.asset_id)
    lease = ledger.lease(row.asset_id, "retry --again", MARKING)
    if lease is None:
        raise _busy(row)
    try:
        try:
            refused = _mark_all(ledger, lease, destinations, row, made_before)
        except StorageError:
            _release(ledger, lease, row)
            raise
        reopened = _release(ledger, lease, row)
    except LeaseLost as error:  # after a long pause: another worker may have called it archived before a mark
        ledger.reopen(row.asset_id)
        raise _busy(row) from error
    if refused:
        others = ", ".join(store.name for store in destinations if store.name not in refused)
        rest = f"It is copied again to {others} alone." if others else "It stays archived as it is."
        raise ReviewRefused(
            f"{row.asset_id}: its manifest cannot be replaced at {'; '.join(refused.values())}. {rest}"
        )
    return reopened


def _asked_at(row: Row) -> datetime | None:
    """Return when an asset that waits, and of which nothing is stored with doubts, was last retried."""
    waits = row.state in OPEN_STATES and row.state is not AssetState.RUNNING and row.stored_objects == 0
    last = row.history[-1] if row.history else None
    return last.at if waits and last is not None and last.what == RETRIED else None


def _refuse_if_over(row: Row, now: datetime) -> None:
    if is_over(row, now):
        raise ReviewRefused(
            f"{row.asset_id}: its retention at 100ms has ended; what is archived stays as it is."
        )


def _mark_all(
    ledger: Ledger,
    lease: Lease,
    destinations: Sequence[StorageBackend],
    row: Row,
    made_before: datetime | None,
) -> dict[str, str]:
    """Return the reason for each destination that does not let its manifest be replaced."""
    key = keys.manifest_key(row.asset_id, row.created_at)
    refused: dict[str, str] = {}
    for store in _asked(destinations, key):
        try:
            ledger.renew(lease, MARKING)
            found = find_manifest(store, key)
            manifest = found.manifest if found else None
            if manifest is None or (made_before is not None and manifest.archived_at >= made_before):
                continue
            mark_damaged(store, key, [ASKED_AGAIN], of=manifest)
        except AccessDenied as error:
            refused[store.name] = f"{store.name} ({error})"
    return refused


def _asked(destinations: Sequence[StorageBackend], key: ObjectKey) -> Sequence[StorageBackend]:
    """Return the destinations whose copies are asked for again: all, or none when another one is known to be damaged or
    missing: that one is replaced, and no whole copy is called damaged for it. Raises StorageError."""
    found = [find_manifest(store, key) for store in destinations]
    manifests = [each.manifest if each else None for each in found]
    known = any(each is None or (each.damage and each.damage != (ASKED_AGAIN,)) for each in manifests)
    return () if known else destinations


def _release(ledger: Ledger, lease: Lease, row: Row) -> Row:
    """End our lease; the asset is due with no attempts."""
    settled = ledger.settle(lease, as_known(row), Settlement(AssetState.WAITING, counts_as_attempt=False))
    return ledger.reopen(row.asset_id) or settled


def _busy(row: Row) -> ReviewRefused:
    return ReviewRefused(f"{row.asset_id}: a worker is copying it now. Try again when that has ended.")


def mark_what_is_damaged(destinations: Sequence[StorageBackend], row: Row) -> None:
    """Read back what is whole by its sizes: it may have been found damaged where its manifest could not be marked, and
    would be archived again as it is. Does nothing for an asset that has not ended, or is archived. Idempotent. Raises
    StorageError, also when the manifest still cannot be marked."""
    if row.state in OPEN_STATES or row.state is AssetState.ARCHIVED:
        return
    key = keys.manifest_key(row.asset_id, row.created_at)
    for store in destinations:
        manifest = committed(store, key)
        if manifest is not None:
            read_back(store, key, manifest)


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

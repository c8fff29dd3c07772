"""A person's decision on an asset: accept, reject or skip it, or acknowledge that nothing more can be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from archiver.core.errors import ReviewRefused
from archiver.core.judging import as_known
from archiver.core.records import commit, end_records, keys
from archiver.core.records.manifest import Manifest, without_queries
from archiver.core.records.verify import verify_contents
from archiver.ledger.base import Assets, Schedule
from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    REMOVED_STATES,
    SAFE_STATES,
    AssetState,
    Decision,
    Row,
    Settlement,
)
from storage_backends.base import ObjectKey, StorageBackend

log = structlog.get_logger(__name__)

NO_REASON = "no reason given"
REJECTED, SKIPPED = "rejected", "skipped"
_EVENTS = {REJECTED: "asset_rejected", SKIPPED: "asset_skipped"}


def accept(
    ledger: Schedule,
    destinations: Sequence[StorageBackend],
    asset_id: str,
    *,
    by: str,
    why: str,
    now: datetime,
) -> Row:
    """Make an asset that is stored with doubts archived; its manifests keep who accepted which doubts, when and why. A
    damaged one is read back in full before. Idempotent. Raises ReviewRefused when it is not whole at every destination
    or a worker has it, StorageError, LedgerError."""
    row = row_at_rest(ledger, asset_id, now)
    by, why = cleaned(by, why)
    key = keys.manifest_key(asset_id, row.created_at)
    for store in destinations:
        if commit.committed(store, key) is None and commit.kept(store, key) is None:
            raise ReviewRefused(
                f"{asset_id}: nothing is stored whole at {store.name}, so there is nothing to accept "
                f"(`archiver show {asset_id}` says why)."
            )
    if (
        row.state is AssetState.DAMAGED
    ):  # a store may not have let us mark its manifest, and sizes prove little
        _require_every_byte(destinations, key, asset_id)
    manifests = [commit.accept(store, key, by=by, why=why, at=now) for store in destinations]
    found = [manifest for manifest in manifests if manifest is not None]
    if len(found) < len(destinations):
        raise ReviewRefused(f"{asset_id}: what is stored changed in the meantime. Look at it again.")
    ledger.record_archived(as_known(row), _accepted(found[0], by, why))
    log.warning("asset_accepted", asset_id=asset_id, by=by, why=why)
    accepted = known_row(ledger, asset_id)
    if row.state is AssetState.ARCHIVED:
        return accepted
    return note_once(ledger, accepted, Decision("accepted", by, why, now))


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
    return _end(ledger, destinations, asset_id, Decision(REJECTED, *cleaned(by, why), now))


def skip(
    ledger: Schedule,
    destinations: Sequence[StorageBackend],
    asset_id: str,
    *,
    by: str,
    why: str,
    now: datetime,
) -> Row:
    """Record that the asset is not to be archived; no sweep brings it back, `retry` does. As `reject` otherwise."""
    return _end(ledger, destinations, asset_id, Decision(SKIPPED, *cleaned(by, why), now))


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
    by, why = cleaned(by, why)
    row = ledger.acknowledge(asset_id, by, why)
    if row is None:
        raise _unknown(asset_id)
    if row.acknowledged is None:
        ends = ", ".join(sorted(ACKNOWLEDGED_STATES))
        raise ReviewRefused(f"{asset_id} is {row.state}: only what is {ends} can be acknowledged.")
    row = note_once(ledger, row, Decision("acknowledged", by, why, row.acknowledged.at))
    end_records.write(
        destinations,
        as_known(row),
        row.state,
        row.reason or "",
        now,
        acknowledged=row.acknowledged,
        history=row.history,
    )
    log.warning("end_acknowledged", asset_id=asset_id, state=row.state, by=by, why=why)
    return row


def restore_decisions(ledger: Schedule, record: end_records.EndRecord) -> bool:
    """Copy history and acknowledgement from an end record to a ledger that was lost, if the asset is in that end again;
    whether it was acknowledged by that. Idempotent. Raises LedgerError."""
    recorded, row = record.acknowledged, ledger.get(record.seen.asset_id)
    if row is None or row.state != record.state:
        return False
    for decision in record.history:
        if decision not in row.history:
            ledger.note_decision(row.asset_id, decision)
    if recorded is None or row.acknowledged is not None:
        return False
    ledger.acknowledge(row.asset_id, recorded.by, recorded.why)
    return True


def _require_every_byte(destinations: Sequence[StorageBackend], key: ObjectKey, asset_id: str) -> None:
    for store in destinations:
        manifest = commit.committed(store, key) or commit.kept(store, key)
        problems = verify_contents(store, manifest).problems if manifest else ("it changed in the meantime",)
        if problems:
            raise ReviewRefused(
                f"{asset_id}: the copy at {store.name} is damaged: {problems[0]}. Restore it, then "
                f"`archiver verify {asset_id}`."
            )


def cleaned(by: str, why: str) -> tuple[str, str]:
    """Return who and why as they may be recorded: without secrets."""
    return without_queries(by), without_queries(why) or NO_REASON


def note_once(ledger: Schedule, row: Row, decision: Decision) -> Row:
    """Add a decision to the asset's history unless its last one is the same, but for the time."""
    last = row.history[-1] if row.history else None
    if last is not None and replace(last, at=decision.at) == decision:
        return row
    return ledger.note_decision(row.asset_id, decision) or row


def _end(ledger: Schedule, destinations: Sequence[StorageBackend], asset_id: str, decision: Decision) -> Row:
    row = row_at_rest(ledger, asset_id, decision.at)
    if row.state in SAFE_STATES | REMOVED_STATES:
        raise ReviewRefused(f"{asset_id} is {row.state}: there is nothing to reject or skip.")
    reason = f"{decision.what} by {decision.by}: {decision.why}"
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
    # nothing was recorded if a worker took it in between
    ended = note_once(ledger, row_at_rest(ledger, asset_id, decision.at), decision)
    end_records.write(destinations, seen, AssetState.REJECTED, reason, decision.at, history=ended.history)
    log.warning(_EVENTS[decision.what], asset_id=asset_id, by=decision.by, why=decision.why)
    return ended


def row_at_rest(ledger: Assets, asset_id: str, now: datetime) -> Row:
    """Return the asset's row. Raises ReviewRefused while a worker has the asset. `now`: the ledger's time."""
    row = known_row(ledger, asset_id)
    is_leased = row.leased_until is not None and row.leased_until > now
    if row.state is AssetState.RUNNING or is_leased:
        raise ReviewRefused(f"{asset_id}: a worker is copying it now. Try again when that has ended.")
    return row


def known_row(ledger: Assets, asset_id: str) -> Row:
    """Return the asset's row. Raises ReviewRefused when the ledger does not know it."""
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

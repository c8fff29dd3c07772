"""Find the recordings of a user, by the sessions that the destinations hold (`core.records.session_records`).

The ledger is asked first; what it does not know is found by the manifests, so that a lost ledger hides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from archiver.core.errors import ManifestError
from archiver.core.records import keys, session_records
from archiver.core.records.manifest import read_manifest
from archiver.core.records.session_records import SessionRecord
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.stored_rows import Stored, find_stored, ids_in_session
from archiver.hms.models import Asset, AssetType
from archiver.ledger.base import Assets
from archiver.ledger.models import REMOVED_STATES, Row
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

_OF_ONE_PEER = (AssetType.TRACK, AssetType.STREAM)


@dataclass(frozen=True, slots=True)
class UserRecordings:
    """`own`: assets of the user alone: tracks and streams of the user, and all of sessions without another user.
    `shared`: others are, or may be, in them."""

    own: tuple[Row, ...]
    shared: tuple[Row, ...]
    sessions: Mapping[str, SessionRecord]


def recordings_of(
    ledger: Assets,
    destinations: Sequence[StorageBackend],
    user_id: str,
    on_progress: OnProgress = ignore_progress,
    *,
    retention: timedelta,
    key_template: str = keys.DEFAULT_TEMPLATE,
) -> UserRecordings:
    """Raises StorageError when a destination cannot be listed, LedgerError."""
    sessions = session_records.of_user(
        destinations, user_id, lambda number: on_progress("reading sessions", number, None)
    )
    own: list[Row] = []
    shared: list[Row] = []
    known: set[str] = set()
    if not sessions:
        return UserRecordings((), (), sessions)
    for row in ledger.rows():
        if row.session_id is not None and (record := sessions.get(row.session_id)) is not None:
            known.add(row.asset_id)
            if row.state in REMOVED_STATES:
                continue
            is_own = not record.others_than(user_id) or _is_of(row, record, user_id, destinations)
            (own if is_own else shared).append(row)
    for stored in stored_of_sessions(
        ledger, destinations, sessions, known, on_progress, retention=retention, key_template=key_template
    ):
        record = sessions[stored.row.session_id or ""]
        is_own = not record.others_than(user_id) or _names(stored.asset, record, user_id)
        (own if is_own else shared).append(stored.row)
    return UserRecordings(tuple(own), tuple(shared), sessions)


def stored_of_sessions(
    ledger: Assets | None,
    destinations: Sequence[StorageBackend],
    sessions: Mapping[str, SessionRecord],
    known: set[str],
    on_progress: OnProgress = ignore_progress,
    *,
    retention: timedelta,
    key_template: str = keys.DEFAULT_TEMPLATE,
) -> list[Stored]:
    """Return the assets of `sessions` that have a manifest, are not among `known`, and that the ledger does not know.
    Raises StorageError when a destination cannot be listed, LedgerError."""
    sessions_of: dict[str, str] = {}
    for session_id, record in sorted(sessions.items()):
        on_progress(f"listing session {session_id}")
        below = ids_in_session(destinations, key_template, session_id, record.room_id)
        sessions_of |= dict.fromkeys((*record.assets, *below), session_id)
    missing = [
        each
        for each in sorted(sessions_of)
        if each not in known and (ledger is None or ledger.get(each) is None)
    ]
    found = (
        replace(each, row=replace(each.row, session_id=sessions_of[each.row.asset_id]))
        if each.problem
        else each
        for each in find_stored(destinations, missing, retention, on_progress)
    )
    return [stored for stored in found if stored.row.session_id in sessions]


def _is_of(row: Row, record: SessionRecord, user_id: str, destinations: Sequence[StorageBackend]) -> bool:
    """Whether a track or stream is the user's, as its manifest says. False when that cannot be read."""
    if row.type not in _OF_ONE_PEER:
        return False
    key = keys.manifest_key(row.asset_id, row.created_at)
    for store in destinations:
        try:
            manifest = read_manifest(store, key)
        except (ManifestError, StorageError) as error:
            log.warning("manifest_not_readable", key=key, reason=str(error))
            continue
        if manifest is not None:
            return _names(Asset.parse({**manifest.asset, "id": manifest.asset_id}), record, user_id)
    return False


def _names(asset: Asset, record: SessionRecord, user_id: str) -> bool:
    """Whether a track or stream is the user's."""
    metadata = asset.metadata
    return asset.type in _OF_ONE_PEER and (
        metadata.get("peer_id") in record.peer_ids(user_id) or metadata.get("user_id") == user_id
    )

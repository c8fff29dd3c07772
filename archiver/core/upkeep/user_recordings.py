"""Find the recordings of a user, by the sessions that the destinations hold (`core.records.session_records`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from archiver.core.errors import ManifestError
from archiver.core.records import keys, session_records
from archiver.core.records.manifest import read_manifest
from archiver.core.records.session_records import SessionRecord
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.hms.models import Asset, AssetType
from archiver.ledger.base import Assets
from archiver.ledger.models import REMOVED_STATES, AssetState, Row
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

_OF_ONE_PEER = (AssetType.TRACK, AssetType.STREAM)


@dataclass(frozen=True, slots=True)
class UserRecordings:
    """Asset ids. `own`: of the user alone: tracks and streams of the user, and all of sessions without another user.
    `shared`: others are, or may be, in them."""

    own: tuple[str, ...]
    shared: tuple[str, ...]
    sessions: Mapping[str, SessionRecord]


def recordings_of(
    ledger: Assets,
    destinations: Sequence[StorageBackend],
    user_id: str,
    on_progress: OnProgress = ignore_progress,
) -> UserRecordings:
    """Raises StorageError when the sessions cannot be listed, LedgerError."""
    sessions = session_records.of_user(
        destinations, user_id, lambda number: on_progress("reading sessions", number, None)
    )
    own: list[str] = []
    shared: list[str] = []
    if sessions:
        for row in ledger.rows([state for state in AssetState if state not in REMOVED_STATES]):
            if row.session_id is not None and (record := sessions.get(row.session_id)) is not None:
                is_own = not record.others_than(user_id) or _is_of(row, record, user_id, destinations)
                (own if is_own else shared).append(row.asset_id)
    return UserRecordings(tuple(own), tuple(shared), sessions)


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
            metadata = Asset.parse({**manifest.asset, "id": manifest.asset_id}).metadata
            return metadata.get("peer_id") in record.peer_ids(user_id) or metadata.get("user_id") == user_id
    return False

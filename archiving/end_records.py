"""An end other than archived, written to the bucket too: the account balances from the bucket alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import structlog

from archiving import keys
from ledger.base import AssetState, Seen
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import StorageError
from transfer.checksums import crc32c

log = structlog.get_logger(__name__)

_MAX_BYTES = 64 * 1024  # a record has a few hundred

RECORDED_STATES = frozenset(
    {
        AssetState.SOURCE_FAILED,
        AssetState.NEEDS_SOURCE_ACCESS,
        AssetState.QUARANTINED,
        AssetState.REJECTED,
        AssetState.LOST,
        AssetState.DAMAGED,
    }
)
"""Not skipped and external: those follow from the settings, and an account may have a million of them."""


def read_state(store: StorageBackend, key: ObjectKey) -> str | None:
    """The state in the record at `key`; None when there is none that can be understood. Raises StorageError."""
    info = store.stat(key)
    if info is None or info.size_bytes > _MAX_BYTES:
        return None
    try:
        record = json.loads(store.read(key, 0, info.size_bytes))
    except ValueError:
        return None
    state = record.get("state") if isinstance(record, dict) else None
    return state if isinstance(state, str) else None


def write(
    stores: Sequence[StorageBackend], seen: Seen, state: AssetState, reason: str, now: datetime
) -> None:
    """Best effort, repeatable: a destination that cannot take it is logged, and `reconcile` tries again."""
    record = {
        "schema": "archiver.end/1",
        "asset_id": seen.asset_id,
        "type": seen.type,
        "room_id": seen.room_id,
        "session_id": seen.session_id,
        "created_at": seen.created_at.isoformat() if seen.created_at else None,
        "state": state,
        "reason": reason,
        "recorded_at": now.isoformat(),
    }
    data = json.dumps(record).encode()
    key = keys.end_record_key(seen.asset_id, seen.created_at)
    for store in stores:
        try:
            store.put(ObjectSpec(key, "application/json", len(data)), data, crc32c(data))
        except StorageError as error:
            log.warning("end_not_recorded", asset_id=seen.asset_id, store=store.name, reason=str(error))

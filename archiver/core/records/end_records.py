"""End records: each end other than archived, kept in the bucket, so that a lost ledger can be rebuilt from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from archiver.core.deadlines import UNDATED
from archiver.core.errors import AssetErased
from archiver.core.records import keys, removal, tombstones
from archiver.hms.models import parse_time
from archiver.ledger.models import UNKNOWN_TYPE, Acknowledgement, AssetState, Decision, Seen
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import StorageError

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
"""Not skipped and external: they follow from the settings, and an account may have a million of them."""

MAY_BE_DAMAGED = frozenset({AssetState.DAMAGED, AssetState.REJECTED})
"""Ends of what was found damaged. A person may have rejected it since."""


@dataclass(frozen=True, slots=True)
class EndRecord:
    """`state` is any text: a newer version may know more states. `recorded_at`: by the ledger's clock."""

    seen: Seen
    state: str
    reason: str
    acknowledged: Acknowledgement | None = None
    history: tuple[Decision, ...] = ()
    recorded_at: datetime | None = None


def read(store: StorageBackend, key: ObjectKey) -> EndRecord | None:
    """Read the record at `key`; None when there is none that can be understood. Raises StorageError."""
    info = store.stat(key)
    if info is None or info.size_bytes > _MAX_BYTES:
        return None
    try:
        record = json.loads(store.read(key, 0, info.size_bytes))
    except (ValueError, RecursionError):
        return None
    return _parse(record) if isinstance(record, dict) else None


def read_state(store: StorageBackend, key: ObjectKey) -> str | None:
    """Read the state in the record at `key`; None when there is none that can be understood. Raises StorageError."""
    record = read(store, key)
    return record.state if record else None


def write(
    stores: Sequence[StorageBackend],
    seen: Seen,
    state: AssetState,
    reason: str,
    now: datetime,
    acknowledged: Acknowledgement | None = None,
    history: Sequence[Decision] = (),
) -> None:
    """Write the record to every store, unless the asset was erased. A store that fails is logged, and `reconcile`
    retries it. Idempotent."""
    record: dict[str, object] = {
        "schema": "archiver.end/1",
        "asset_id": seen.asset_id,
        "type": seen.type,
        "room_id": seen.room_id,
        "session_id": seen.session_id,
        "created_at": seen.created_at.isoformat() if seen.created_at else None,
        "expires_at": seen.expires_at.isoformat(),
        "state": state,
        "reason": reason,
        "recorded_at": now.isoformat(),
    }
    if acknowledged is not None:
        record["acknowledged"] = {
            "by": acknowledged.by,
            "why": acknowledged.why,
            "at": acknowledged.at.isoformat(),
        }
    if history:
        record["history"] = [
            {"what": each.what, "by": each.by, "why": each.why, "at": each.at.isoformat()} for each in history
        ]
    data = json.dumps(record).encode()
    key = keys.end_record_key(seen.asset_id, seen.created_at)
    for store in stores:
        try:
            store.put(ObjectSpec(key, "application/json", len(data)), data, crc32c(data))
            tombstones.check(store, seen.asset_id)  # afterwards: whoever erases lists what is there then
        except AssetErased as error:
            log.warning("erased_while_ended", asset_id=seen.asset_id, store=store.name, reason=str(error))
            with suppress(StorageError):  # reconcile deletes what is left
                removal.remove(store, removal.Targets((), (key,)))
        except StorageError as error:
            log.warning("end_not_recorded", asset_id=seen.asset_id, store=store.name, reason=str(error))


def _parse(record: Mapping[str, object]) -> EndRecord | None:
    state, asset_id = record.get("state"), record.get("asset_id")
    if not isinstance(state, str) or not isinstance(asset_id, str):
        return None
    saved, acknowledged = record.get("acknowledged"), None
    if isinstance(saved, dict) and (at := parse_time(saved.get("at"))):
        acknowledged = Acknowledgement(str(saved.get("by", "")), str(saved.get("why", "")), at)
    seen = Seen(
        asset_id=asset_id,
        type=_text(record.get("type")) or UNKNOWN_TYPE,
        expires_at=parse_time(record.get("expires_at")) or UNDATED,
        verdict=AssetState.DISCOVERED,
        created_at=parse_time(record.get("created_at")),
        room_id=_text(record.get("room_id")),
        session_id=_text(record.get("session_id")),
    )
    return EndRecord(
        seen,
        state,
        _text(record.get("reason")) or "",
        acknowledged,
        tuple(_history(record.get("history"))),
        parse_time(record.get("recorded_at")),
    )


def _history(saved: object) -> Iterator[Decision]:
    for each in saved if isinstance(saved, list) else ():
        if isinstance(each, dict) and (at := parse_time(each.get("at"))):
            yield Decision(str(each.get("what", "")), str(each.get("by", "")), str(each.get("why", "")), at)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

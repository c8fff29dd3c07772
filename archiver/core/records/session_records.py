"""Who was in a session: `sessions/<session>/session.json`, beside the recordings at each destination.

It holds personal data: names and user ids of peers. Written once, when an asset of the session is archived; later only
its list of assets grows, and what is erased is taken out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

import structlog

from archiver.core.records import keys, removal
from archiver.hms.models import parse_time
from archiver.hms.sessions import Peer, Session
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, StorageBackend
from storage_backends.conditional import replace_if
from storage_backends.errors import ObjectChanged, ObjectMissing

log = structlog.get_logger(__name__)

SCHEMA = "archiver.session/1"
MAX_BYTES = 64 * 2**20
READERS = 8
TRIES = 5
"""To change a record that others change at the same time."""
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """`peers`: None when 100ms did not name them. `assets`: ids of the archived ones that were known when it was
    written."""

    session_id: str
    room_id: str | None
    room_name: str | None
    created_at: datetime | None
    peers: tuple[Peer, ...] | None
    assets: tuple[str, ...]
    recorded_at: datetime

    def was_there(self, user_id: str) -> bool:
        return any(peer.user_id == user_id for peer in self.peers or ())

    def others_than(self, user_id: str) -> tuple[Peer, ...]:
        """Peers of other users, and those of whom 100ms gave no user id."""
        return tuple(peer for peer in self.peers or () if peer.user_id != user_id)

    def without(self, user_id: str) -> SessionRecord:
        return replace(self, peers=None if self.peers is None else self.others_than(user_id))

    def peer_ids(self, user_id: str) -> frozenset[str]:
        """As tracks and streams name them in their metadata."""
        return frozenset(peer.id for peer in self.peers or () if peer.user_id == user_id and peer.id)


def new_record(
    session: Session, room_name: str | None, assets: Sequence[str], now: datetime, room_id: str | None
) -> SessionRecord:
    return SessionRecord(
        session.id,
        session.room_id or room_id,
        room_name,
        session.created_at,
        session.peers,
        tuple(sorted(assets)),
        now,
    )


def read(store: StorageBackend, session_id: str) -> SessionRecord | None:
    """None when there is none that can be understood. Raises StorageError."""
    return _read(store, keys.session_key(session_id))


def write(store: StorageBackend, record: SessionRecord) -> None:
    """Idempotent. Raises StorageError."""
    data = _data(record)
    key = keys.session_key(record.session_id)
    store.put(ObjectSpec(key, "application/json", len(data)), data, crc32c(data))


def add(store: StorageBackend, record: SessionRecord) -> None:
    """Write the record, or add its assets to those of the one that is there; nothing of erased assets. Idempotent.
    Raises StorageError.

    Tombstones are looked at before and afterwards: whoever erases writes them first, and changes the record then, so
    one of the two sees the other. Stopped before the second look, `forget_erased` must follow."""

    def add_once() -> None:
        key = keys.session_key(record.session_id)
        info = store.stat(key)
        there = None if info is None else _described(store, info)
        known = {*record.assets, *(there.assets if there else ())}
        assets = tuple(sorted(known - _erased(store, known)))
        if assets and (there is None or there.assets != assets):
            _replace(store, replace(record, assets=assets), info)

    _while_others_change_it(add_once)
    forget_erased(store, record.session_id)


def forget_erased(store: StorageBackend, session_id: str) -> None:
    """Take the assets that have a tombstone at `store` out of the record there; remove it with the last of them.
    Idempotent. Requests: one for each asset. Raises StorageError."""
    record = read(store, session_id)
    erased = set() if record is None else _erased(store, record.assets)
    if erased:
        log.info("session_forgotten", store=store.name, session_id=session_id, assets=len(erased))
        SessionRecords().forget(store, session_id, sorted(erased))


def remove(store: StorageBackend, session_id: str) -> None:
    """Remove the record with all its versions, as far as the store allows. Idempotent. Raises StorageError."""
    targets = removal.Targets((), [keys.session_key(session_id)])
    left = removal.what_is_left(store, targets, removal.remove(store, targets))
    if left:
        log.warning("session_record_left", store=store.name, session_id=session_id, reason=left.say(store))


def each(
    store: StorageBackend, count: Callable[[int], None] = lambda _number: None
) -> Iterator[SessionRecord]:
    """Yield every record at a destination. Requests: a LIST for each 1,000 records, and a HEAD and a GET for each.
    `count`: told how many were read. Raises StorageError."""
    listed = (info.key for info in store.list(keys.SESSIONS) if keys.is_session(info.key))
    number = 0
    with ThreadPoolExecutor(READERS, thread_name_prefix="sessions") as pool:
        while batch := list(islice(listed, _AT_ONCE)):
            for record in pool.map(partial(_read, store), batch):
                number += 1
                count(number)
                if record is not None:
                    yield record


def of_user(
    stores: Iterable[StorageBackend], user_id: str, count: Callable[[int], None] = lambda _number: None
) -> dict[str, SessionRecord]:
    """Return the sessions that a user was in, by id, from the destinations alone. A record that one destination lacks
    is found at another. Raises StorageError."""
    found: dict[str, SessionRecord] = {}
    for store in stores:
        for record in each(store, count):
            if record.was_there(user_id):
                found.setdefault(record.session_id, record)
    return found


class SessionRecords:
    """What `archiver.core.upkeep.erasing` asks of the data of sessions."""

    def forget(self, store: StorageBackend, session_id: str, erased: Sequence[str]) -> None:
        """Remove the record, unless it names assets other than `erased`: then take those out. Idempotent. Raises
        StorageError."""
        _while_others_change_it(partial(self._forget, store, session_id, erased))

    def _forget(self, store: StorageBackend, session_id: str, erased: Sequence[str]) -> None:
        info = store.stat(keys.session_key(session_id))
        if info is None:
            return
        record = _described(store, info)
        left = () if record is None else tuple(sorted(set(record.assets) - set(erased)))
        if record is None or not left:
            remove(store, session_id)  # or nobody can read it
        elif left != record.assets:
            _replace(store, replace(record, assets=left), info)


def _while_others_change_it(change: Callable[[], None]) -> None:
    """Change a record as it is read then. Raises what `change` does, ObjectChanged after TRIES."""
    for tries_left in reversed(range(TRIES)):
        try:
            change()
            return
        except ObjectChanged:
            if not tries_left:
                raise


def _replace(store: StorageBackend, record: SessionRecord, expected: ObjectInfo | None) -> None:
    data = _data(record)
    spec = ObjectSpec(keys.session_key(record.session_id), "application/json", len(data))
    replace_if(store, spec, data, crc32c(data), expected)


def _erased(store: StorageBackend, assets: Iterable[str]) -> set[str]:
    """Return those of which `store` holds a tombstone. Raises StorageError."""
    asked = sorted(assets)
    with ThreadPoolExecutor(READERS, thread_name_prefix="tombstones") as pool:
        found = pool.map(lambda asset_id: store.stat(keys.tombstone_key(asset_id)), asked)
        return {asset_id for asset_id, info in zip(asked, found, strict=True) if info is not None}


def _read(store: StorageBackend, key: ObjectKey) -> SessionRecord | None:
    info = store.stat(key)
    return None if info is None else _described(store, info)


def _described(store: StorageBackend, info: ObjectInfo) -> SessionRecord | None:
    """None, too, when it is gone by now."""
    key = info.key
    if info.size_bytes > MAX_BYTES:
        return None
    try:
        return _parse(json.loads(store.read(key, 0, info.size_bytes)))
    except ObjectMissing:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("session_record_unreadable", store=store.name, key=key, reason=type(error).__name__)
        return None


def _data(record: SessionRecord) -> bytes:
    return json.dumps(_saved(record), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _saved(record: SessionRecord) -> dict[str, Any]:
    peers = None if record.peers is None else [peer.model_dump(mode="json") for peer in record.peers]
    return {
        "schema": SCHEMA,
        "session_id": record.session_id,
        "room_id": record.room_id,
        "room_name": record.room_name,
        "created_at": record.created_at.isoformat() if record.created_at else None,
        "peers": peers,
        "assets": list(record.assets),
        "recorded_at": record.recorded_at.isoformat(),
    }


def _parse(saved: Any) -> SessionRecord:
    """Raise ValueError, KeyError or TypeError when it cannot be understood."""
    recorded_at = parse_time(saved["recorded_at"])
    if saved["schema"] != SCHEMA or recorded_at is None:
        raise ValueError("of another schema")
    peers = saved["peers"]
    return SessionRecord(
        str(saved["session_id"]),
        saved["room_id"],
        saved["room_name"],
        parse_time(saved["created_at"]),
        None if peers is None else tuple(Peer.model_validate(peer) for peer in peers),
        tuple(str(asset_id) for asset_id in saved["assets"]),
        recorded_at,
    )

"""Tombstones: what stays of an asset that was erased or has expired, so that it never comes back.

One small object for each asset and destination, written before anything is removed. It holds no personal data: the
asset's id, when, and a ticket code. While the removal is unfinished it also names the folders and manifests that are
being removed, so that any process can finish it without the ledger. Any tombstone beats any manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from archiver.core.errors import AssetErased
from archiver.core.records import keys
from archiver.hms.models import parse_time
from archiver.ledger.models import AssetState
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.errors import InvalidKey

SCHEMA = "archiver.tombstone/1"
_MAX_BYTES = 256 * 1024

TICKET = re.compile(
    r"(?=.{1,40}\Z)(?:(?:[A-Z][A-Z0-9]{0,15}|[a-z][a-z0-9]{0,15})[-_/#:]?)?#?[0-9]+(?:[-_/.][0-9]+)*"
)
"""A ticket code: an optional prefix of one case, then digits: GDPR-123, REQ20260117, #4711, privacy/2026-17."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """`state`: ERASED or EXPIRED, what the asset is to be. `ticket`: why. `at`: when it was asked for. `done_at`: when
    every destination was found empty; until then `folders` and `manifests` are to be removed. `locked_until`: a lock is
    known to last until then."""

    asset_id: str
    state: AssetState
    ticket: str
    at: datetime
    done_at: datetime | None = None
    folders: tuple[ObjectKey, ...] = ()
    manifests: tuple[ObjectKey, ...] = ()
    session_id: str | None = None
    locked_until: datetime | None = None

    @property
    def is_done(self) -> bool:
        return self.done_at is not None

    def done(self, now: datetime) -> Tombstone:
        """The same, with nothing that could tell of the recording."""
        return Tombstone(self.asset_id, self.state, self.ticket, self.at, now)

    def joined(self, other: Tombstone) -> Tombstone:
        """The same asset's, of two destinations: all that is to be removed. An erasure beats an expiry."""
        first, second = sorted((self, other), key=lambda each: (each.state is not AssetState.ERASED, each.at))
        locks = [each.locked_until for each in (self, other) if each.locked_until is not None]
        return replace(
            first,
            done_at=None if None in (self.done_at, other.done_at) else first.done_at,
            folders=_union(self.folders, other.folders),
            manifests=_union(self.manifests, other.manifests),
            session_id=first.session_id or second.session_id,
            locked_until=max(locks, default=None),
        )


def is_ticket(text: str) -> bool:
    """Whether `text` is a ticket code (TICKET), and not a name or an address."""
    return TICKET.fullmatch(text) is not None


def read(store: StorageBackend, asset_id: str) -> Tombstone | None:
    """Read the asset's tombstone; None when there is none. Raises StorageError."""
    return read_at(store, keys.tombstone_key(asset_id), asset_id)


def read_at(store: StorageBackend, key: ObjectKey, asset_id: str | None = None) -> Tombstone | None:
    """One that cannot be understood is a tombstone all the same, if its asset is known. Raises StorageError."""
    info = store.stat(key)
    if info is None:
        return None
    try:
        record = json.loads(store.read(key, 0, min(info.size_bytes, _MAX_BYTES)))
    except (ValueError, RecursionError):
        record = {}
    return _parsed(record if isinstance(record, dict) else {}, asset_id, info.updated_at)


def find(stores: Iterable[StorageBackend], asset_id: str) -> Tombstone | None:
    """Read the asset's tombstone at every store, as one. Raises StorageError."""
    found: Tombstone | None = None
    for store in stores:
        each = read(store, asset_id)
        if each is not None:
            found = each if found is None else found.joined(each)
    return found


def check(store: StorageBackend, asset_id: str) -> None:
    """Raise AssetErased when `store` holds the asset's tombstone. One request. Raises StorageError.

    Ask before anything of an asset is published, and once more afterwards: whoever erases writes the tombstone first
    and lists what is there then, so one of the two sees the other."""
    if store.stat(keys.tombstone_key(asset_id)) is not None:
        raise AssetErased(f"{asset_id} was erased: {store.name} holds its tombstone", store=store.name)


def write(store: StorageBackend, tombstone: Tombstone) -> None:
    """Idempotent. Raises StorageError."""
    record: dict[str, object] = {
        "schema": SCHEMA,
        "asset": tombstone.asset_id,
        "state": tombstone.state,
        "ticket": tombstone.ticket,
        "at": tombstone.at.isoformat(),
        "done_at": tombstone.done_at.isoformat() if tombstone.done_at else None,
    }
    if not tombstone.is_done:
        record["to_remove"] = [*tombstone.folders, *tombstone.manifests]
        record["session"] = tombstone.session_id
        record["locked_until"] = tombstone.locked_until.isoformat() if tombstone.locked_until else None
    data = json.dumps(record).encode()
    key = keys.tombstone_key(tombstone.asset_id)
    store.put(ObjectSpec(key, "application/json", len(data)), data, crc32c(data))


def delete(stores: Sequence[StorageBackend], asset_id: str) -> None:
    """Delete the asset's tombstones: a person un-erases it. Idempotent. Raises StorageError."""
    for store in stores:
        store.delete(keys.tombstone_key(asset_id))


def _parsed(record: Mapping[str, object], known: str | None, written: datetime | None) -> Tombstone | None:
    asset_id = known or record.get("asset")
    if not isinstance(asset_id, str):
        return None
    at = parse_time(record.get("at")) or written
    if at is None:
        return None
    named = record.get("to_remove")
    found = [key for each in named if (key := _key(each))] if isinstance(named, list) else []
    name = keys.record_name(keys.tombstone_key(asset_id))
    session_id, ticket = record.get("session"), record.get("ticket")
    return Tombstone(
        asset_id=asset_id,
        state=AssetState.EXPIRED if record.get("state") == AssetState.EXPIRED else AssetState.ERASED,
        ticket=ticket if isinstance(ticket, str) else "",
        at=at,
        done_at=parse_time(record.get("done_at")),
        folders=tuple(key for key in found if keys.folder_of(asset_id, key) == key),
        manifests=tuple(
            key for key in found if key.startswith(keys.MANIFESTS) and keys.record_name(key) == name
        ),
        session_id=session_id if isinstance(session_id, str) else None,
        locked_until=parse_time(record.get("locked_until")),
    )


def _key(value: object) -> ObjectKey | None:
    try:
        return object_key(value) if isinstance(value, str) else None
    except InvalidKey:
        return None


def _union(one: Sequence[ObjectKey], other: Sequence[ObjectKey]) -> tuple[ObjectKey, ...]:
    return tuple(dict.fromkeys([*one, *other]))

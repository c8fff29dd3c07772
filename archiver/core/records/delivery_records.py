"""Record up to when events were delivered: `events/<yyyy>/<mm>/<dd>.json.gz`, one small object a day, which each
reconcile replaces.

The outbox of events is in the ledger. When the ledger is lost, this says which events may not have been delivered.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from archiver.core.records import keys
from archiver.hms.models import parse_time
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

SCHEMA = "archiver.events/1"
KEPT = 3
MAX_BYTES = 16 * 2**20  # MAX_WAITING ids are some 400 KB
MAX_WAITING = 10_000
_NOT_WHOLE = (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error)


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """Each event between `since` and `until` was delivered, but for those `waiting`: asset ids with their states.
    `since`: when events were first wanted. Times by the ledger's clock."""

    at: datetime
    since: datetime
    until: datetime
    waiting: tuple[tuple[str, str], ...] = ()


def read_newest(stores: Sequence[StorageBackend]) -> DeliveryRecord | None:
    """Return the record that covers most, of all stores. Raises StorageError when one cannot be listed."""
    found = (_newest(store) for store in stores)
    return max((record for record in found if record is not None), key=lambda each: each.until, default=None)


def write(stores: Sequence[StorageBackend], record: DeliveryRecord) -> None:
    """Write the day's record to every store, and delete all but the newest KEPT where deletes are allowed. A store that
    fails is logged: its older record stays valid. Idempotent."""
    data = gzip.compress(json.dumps(_saved(record)).encode(), mtime=0)
    key = keys.delivery_record_key(record.at)
    for store in stores:
        try:
            store.put(ObjectSpec(key, "application/gzip", len(data)), data, crc32c(data))
            for old in _keys(store)[:-KEPT]:
                store.delete(old)
        except StorageError as error:
            log.info("delivery_record_not_written", store=store.name, key=key, reason=str(error))


def _newest(store: StorageBackend) -> DeliveryRecord | None:
    for key in reversed(_keys(store)[-KEPT:]):
        try:
            return _parse(json.loads(gzip.decompress(store.read(key, 0, MAX_BYTES))))
        except (StorageError, *_NOT_WHOLE) as error:
            log.warning("delivery_record_unreadable", store=store.name, key=key, reason=type(error).__name__)
    return None


def _keys(store: StorageBackend) -> list[ObjectKey]:
    return sorted(info.key for info in store.list(keys.EVENTS) if keys.is_delivery_record(info.key))


def _saved(record: DeliveryRecord) -> Mapping[str, object]:
    return {
        "schema": SCHEMA,
        "at": record.at.isoformat(),
        "since": record.since.isoformat(),
        "until": record.until.isoformat(),
        "waiting": [list(each) for each in record.waiting],
    }


def _parse(saved: Any) -> DeliveryRecord:
    """Raise ValueError, KeyError or TypeError when it cannot be understood."""
    if saved["schema"] != SCHEMA:
        raise ValueError("of another schema")
    at, since, until = _times(saved, "at", "since", "until")
    return DeliveryRecord(at, since, until, tuple((str(one), str(state)) for one, state in saved["waiting"]))


def _times(saved: Mapping[str, object], *names: str) -> Iterator[datetime]:
    for name in names:
        time = parse_time(saved[name])
        if time is None:
            raise ValueError(f"without {name}")
        yield time

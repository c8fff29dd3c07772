"""Record which terms a person accepted, and how much expired today: `expiry/record.json` at each destination.

A ledger that was lost, or restored from an older snapshot, must accept no terms by itself, and allow no second share in
one day.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import structlog

from archiver.core.records import keys
from archiver.hms.models import parse_time
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectSpec, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

SCHEMA = "archiver.expiry/1"
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ExpiryRecord:
    """`at`: when it was written, by the ledger's clock. `terms`: accepted, as `Terms.as_fact`. `day` (UTC): of the last
    share; `archive`: assets then; `begun`: of its share."""

    at: datetime
    terms: Mapping[str, object]
    day: date | None = None
    archive: int = 0
    begun: int = 0


def read_newest(stores: Sequence[StorageBackend]) -> ExpiryRecord | None:
    """Return the latest record of all stores; None when there is none that can be understood. One run writes several
    of the same time: the one that has begun more is the later. Raises StorageError when one cannot be read."""
    found = (_read(store) for store in stores)
    known = (each for each in found if each is not None)
    return max(known, key=lambda each: (each.at, each.begun), default=None)


def write(stores: Sequence[StorageBackend], record: ExpiryRecord) -> int:
    """Replace the record at every store; return at how many. A store that fails is logged. Idempotent."""
    saved = {
        "schema": SCHEMA,
        "at": record.at.isoformat(),
        "terms": dict(record.terms),
        "day": record.day.isoformat() if record.day else None,
        "archive": record.archive,
        "begun": record.begun,
    }
    data, written = json.dumps(saved).encode(), 0
    for store in stores:
        try:
            store.put(ObjectSpec(keys.EXPIRY_RECORD, "application/json", len(data)), data, crc32c(data))
            written += 1
        except StorageError as error:
            log.warning("expiry_not_recorded", store=store.name, reason=str(error))
    return written


def _read(store: StorageBackend) -> ExpiryRecord | None:
    if store.stat(keys.EXPIRY_RECORD) is None:
        return None
    try:
        return _parse(json.loads(store.read(keys.EXPIRY_RECORD, 0, _MAX_BYTES)))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("expiry_record_unreadable", store=store.name, reason=type(error).__name__)
        return None


def _parse(saved: Any) -> ExpiryRecord:
    """Raise ValueError, KeyError or TypeError when it cannot be understood."""
    at, terms, day = parse_time(saved["at"]), saved["terms"], saved["day"]
    if saved["schema"] != SCHEMA or at is None or not isinstance(terms, dict):
        raise ValueError("not understood")
    return ExpiryRecord(
        at, terms, date.fromisoformat(day) if day else None, int(saved["archive"]), int(saved["begun"])
    )

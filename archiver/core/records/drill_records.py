"""Record when each copy at a destination was last restored in a drill: one object under `drills/` for each run.

Gzipped JSON lines, each object the whole record, as those of `check_records`: all but the newest KEPT are deleted. A
record that is lost, cut or of another schema is ignored: its copies count as never drilled.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from archiver.core.records import keys
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

SCHEMA = "archiver.drills/1"
KEPT = 3
TOLERANCE = timedelta(hours=1)
"""A record dated further in the future was made by a wrong clock."""
MAX_BYTES = 256 * 1024 * 1024
_NOT_WHOLE = (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error)


@dataclass(frozen=True, slots=True)
class Drilled:
    """The last drill of one copy. `at`: seconds since 1970. `result`: `whole`, `failed`, `cold`, `too large` or
    `erased`; `played`: what decoding it showed; `reason`: why it failed."""

    at: int
    result: str
    played: str = ""
    reason: str = ""


@dataclass(slots=True)
class DrillRecord:
    """The drills at one destination, by the key of the manifest. Memory: about 400 bytes each."""

    drilled: dict[str, Drilled] = field(default_factory=dict)
    at: datetime | None = None  # of the last run; None: there is no record


def read_drills(store: StorageBackend, now: datetime) -> DrillRecord:
    """Return the newest whole record, or an empty one. Raises StorageError when none can be listed."""
    for key in reversed(_believable(store, now)[-KEPT:]):
        try:
            return _parsed(store.read(key, 0, MAX_BYTES), now)
        except (StorageError, *_NOT_WHOLE) as error:
            reason = str(error) if isinstance(error, StorageError) else type(error).__name__
            log.warning("drill_record_unreadable", store=store.name, key=key, reason=reason)
    return DrillRecord()


def write_drills(store: StorageBackend, record: DrillRecord, now: datetime) -> ObjectKey:
    """Write a new record, and delete all but the newest KEPT where deletes are allowed. Raises StorageError when it
    cannot be written."""
    lines: list[object] = [{"schema": SCHEMA, "at": int(now.timestamp())}]
    lines += [
        [key.removeprefix(keys.MANIFESTS), *asdict(each).values()] for key, each in record.drilled.items()
    ]
    lines.append({"copies": len(record.drilled)})
    text = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    data = gzip.compress(text, compresslevel=6, mtime=0)
    key = keys.drill_record_key(now, hashlib.sha256(data).hexdigest()[:16])
    store.put(ObjectSpec(key, "application/gzip", len(data)), data, crc32c(data))
    try:
        kept = {*_believable(store, now)[-KEPT:], key}
        for info in list(store.list(keys.DRILLS)):
            if keys.is_drill_record(info.key) and info.key not in kept:
                store.delete(info.key)
    except StorageError as error:
        log.info("drill_records_kept", store=store.name, reason=str(error))
    return key


def _believable(store: StorageBackend, now: datetime) -> list[ObjectKey]:
    """Keys of records, oldest first, without those of a clock that was ahead."""
    newest = keys.drill_record_key(now + TOLERANCE, "f" * 16)
    found = (info.key for info in store.list(keys.DRILLS) if keys.is_drill_record(info.key))
    return sorted(key for key in found if key <= newest)


def _parsed(data: bytes, now: datetime) -> DrillRecord:
    """Raises what _NOT_WHOLE lists."""
    latest = int((now + TOLERANCE).timestamp())
    head, *lines, end = (json.loads(line) for line in gzip.decompress(data).splitlines())
    if head["schema"] != SCHEMA or end["copies"] != len(lines):
        raise ValueError("cut, or of another schema")
    record = DrillRecord(at=datetime.fromtimestamp(min(head["at"], latest), UTC))
    for name, at, result, played, reason in lines:
        if int(at) <= latest:
            record.drilled[keys.MANIFESTS + name] = Drilled(int(at), str(result), str(played), str(reason))
    return record

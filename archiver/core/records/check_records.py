"""Record when each copy was last checked: one object under `checks/` for each run of the scrub.

Gzipped JSON lines: a head, a line for each copy, a count. Each object is the whole record, so all but the newest KEPT
are deleted; where nothing may be deleted they stay. A record that is lost, cut or of another schema is ignored: its
copies are checked again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import IO, Final, cast

import structlog

from archiver.core.records import keys
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

SCHEMA = "archiver.checks/1"
KEPT = 3  # objects: behind one that rots there are two that know nearly as much
TOLERANCE = timedelta(hours=1)
"""A record dated further in the future was made by a wrong clock."""
MAX_BYTES = 1024 * 1024 * 1024  # compressed; a million copies take about 40 MB
_READ_BYTES = 4 * 1024 * 1024


class Mark:
    """What the last check found, as bits (no enum: there are a million of them)."""

    SUMMED: Final = 1  # the store keeps a checksum of every object: no byte need be read
    COLD: Final = 2  # in a storage class that must be restored before it can be read
    DAMAGED: Final = 4
    UNREADABLE: Final = 8  # the check itself failed, after `Check.checked_at`


@dataclass(frozen=True, slots=True)
class Check:
    """One copy. Times are seconds since 1970 by the ledger's clock."""

    tag: int  # of the manifest that was checked (`tag_of`)
    checked_at: int  # the last check with a result; when it was first seen, if there was none
    read_at: int = 0  # when every byte was last read and was right; 0: never
    read_by: int = 0  # when every byte must be read again
    size_bytes: int = 0
    marks: int = 0


LATEST = 2**32 - 1
_PACKED = struct.Struct("<IIIIQB")
_NOT_WHOLE = (ValueError, KeyError, TypeError, struct.error, OSError, EOFError, zlib.error)
"""What gzip, JSON and a record with other fields raise."""


class Checks:
    """Checks by the key of the manifest. Memory: about 250 bytes each."""

    def __init__(self) -> None:
        self._packed: dict[ObjectKey, bytes] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, key: ObjectKey) -> Check | None:
        packed = self._packed.get(key)
        return _unpacked(packed) if packed else None

    def put(self, key: ObjectKey, check: Check) -> None:
        self._packed[key] = _PACKED.pack(
            check.tag, check.checked_at, check.read_at, check.read_by, check.size_bytes, check.marks
        )

    def pop(self, key: ObjectKey) -> Check | None:
        packed = self._packed.pop(key, None)
        return _unpacked(packed) if packed else None

    def items(self) -> Iterator[tuple[ObjectKey, Check]]:
        for key, packed in self._packed.items():
            yield key, _unpacked(packed)

    def values(self) -> Iterator[Check]:
        return map(_unpacked, self._packed.values())


@dataclass(slots=True)
class Records:
    """The checks at one destination, and the run that recorded them."""

    checks: Checks = field(default_factory=Checks)
    listed_at: datetime | None = None  # when the manifests were listed; None: there is no record
    allowance_bytes: int | None = None  # left of the budget; None: there is none


def tag_of(info: ObjectInfo) -> int:
    """Identify a version of a manifest, as it is listed. By its time: a network drive may give each file another inode,
    and so another ETag, each time it is mounted."""
    version = info.updated_at.timestamp() if info.updated_at else info.etag
    return zlib.crc32(f"{version} {info.size_bytes}".encode("utf-8", "surrogatepass"))


def read_records(store: StorageBackend, now: datetime) -> Records:
    """Read the newest record that is whole, or return an empty one. Raises StorageError when none can be listed."""
    for key in reversed(_believable(store, now)[-KEPT:]):
        try:
            return _read(store, key, now)
        except (StorageError, *_NOT_WHOLE) as error:
            log.warning("check_record_unreadable", store=store.name, key=key, reason=_in_short(error))
    return Records()


def write_records(store: StorageBackend, records: Records, now: datetime) -> ObjectKey:
    """Write a new record, and delete all but the newest KEPT where deletes are allowed. Raises StorageError when it
    cannot be written."""
    data = _written(records, now)
    key = keys.check_record_key(now, hashlib.sha256(data).hexdigest()[:16])
    store.put(ObjectSpec(key, "application/gzip", len(data)), data, crc32c(data))
    try:
        believable = _believable(store, now)
        kept = {*believable[-KEPT:], key}
        for info in list(store.list(keys.CHECKS)):
            if keys.is_check_record(info.key) and info.key not in kept:
                store.delete(info.key)
    except StorageError as error:
        log.info("check_records_kept", store=store.name, reason=str(error))
    return key


def without(data: bytes, manifests: Collection[str]) -> bytes | None:
    """Return a record without the checks of `manifests`; None when it has none of them. Raises ValueError, and whatever
    gzip raises, when it is not whole."""
    names = {key.removeprefix(keys.MANIFESTS) for key in manifests}
    out, copies, dropped = io.BytesIO(), 0, False
    with (
        gzip.GzipFile(fileobj=io.BytesIO(data), mode="rb") as lines,
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        packed.write(lines.readline())
        for line in lines:
            value = json.loads(line)
            if isinstance(value, dict):
                packed.write(_line({**value, "copies": copies}))
            elif isinstance(value, list) and value and value[0] in names:
                dropped = True
            else:
                copies += 1
                packed.write(line)
    return out.getvalue() if dropped else None


def _believable(store: StorageBackend, now: datetime) -> list[ObjectKey]:
    """Keys of records, oldest first, without those of a clock that was ahead."""
    newest = keys.check_record_key(now + TOLERANCE, "f" * 16)
    found = (info.key for info in store.list(keys.CHECKS) if keys.is_check_record(info.key))
    return sorted(key for key in found if key <= newest)


def _written(records: Records, now: datetime) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed:
        listed_at = records.listed_at or now
        head = {
            "schema": SCHEMA,
            "listed_at": int(listed_at.timestamp()),
            "allowance": records.allowance_bytes,
        }
        packed.write(_line(head))
        for key, check in records.checks.items():
            times = (check.checked_at, check.read_at, check.read_by)
            packed.write(
                _line([key.removeprefix(keys.MANIFESTS), check.tag, *times, check.size_bytes, check.marks])
            )
        packed.write(_line({"copies": len(records.checks)}))
    return out.getvalue()


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _read(store: StorageBackend, key: ObjectKey, now: datetime) -> Records:
    """Raises ValueError and whatever gzip raises when it is not whole; StorageError."""
    latest = int((now + TOLERANCE).timestamp())
    packed = cast(IO[bytes], io.BufferedReader(_StoredBytes(store, key)))
    records = Records()
    with gzip.GzipFile(fileobj=packed, mode="rb") as lines:
        head = json.loads(lines.readline())
        if head["schema"] != SCHEMA:
            raise ValueError(f"of schema {str(head['schema'])[:40]!r}")
        records.listed_at = datetime.fromtimestamp(min(head["listed_at"], latest), UTC)
        records.allowance_bytes = head["allowance"]
        for line in lines:
            value = json.loads(line)
            if isinstance(value, dict):
                if value["copies"] != len(records.checks):
                    raise ValueError("cut")
                return _without_future(records, latest)
            name, tag, checked_at, read_at, read_by, size_bytes, marks = value
            check = Check(tag, checked_at, read_at, read_by, size_bytes, marks)
            records.checks.put(object_key(keys.MANIFESTS + name), check)
    raise ValueError("cut")


def _without_future(records: Records, latest: int) -> Records:
    for key in [
        key for key, check in records.checks.items() if max(check.checked_at, check.read_at) > latest
    ]:
        records.checks.pop(key)
    return records


def _unpacked(packed: bytes) -> Check:
    return Check(*_PACKED.unpack(packed))


def _in_short(error: Exception) -> str:
    return str(error) if isinstance(error, StorageError) else f"not whole ({type(error).__name__})"


class _StoredBytes(io.RawIOBase):
    """An object as a sequential file, read in pieces of _READ_BYTES."""

    def __init__(self, store: StorageBackend, key: ObjectKey) -> None:
        self._store = store
        self._key = key
        self._at = 0
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        if not self._piece:
            self._piece = memoryview(self._store.read(self._key, self._at, _READ_BYTES))
            self._at += len(self._piece)
            if self._at > MAX_BYTES:
                raise ValueError("larger than any record of ours")
        taken = self._piece[: len(buffer)]
        buffer[: len(taken)] = taken
        self._piece = self._piece[len(taken) :]
        return len(taken)

"""Probe a destination: write an object, read it back, delete it.

By an attempt whose asset was refused, because a destination may refuse one key only, or have no space for one large
object; and by `archiver doctor`.
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from archiver.core.records import keys
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerError
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import (
    BucketMissing,
    DestinationFull,
    DestinationRefuses,
    ObjectExists,
    StorageError,
)

SMALL_BYTES = 4 * 2**10
ROOM_BYTES = 8 * 2**20  # a destination is full for all assets when it does not take so much
LEFT_EVERY = timedelta(days=1)
"""How often a probe may be left where nothing can be deleted."""

_FACT = "probe-left:"
_LISTED = 1000
_left: dict[str, float] = {}  # by store, this process's monotonic clock: for when there is no ledger to ask
_left_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of a probe; what stays None was not tried.

    `stored`: the answer to the write. `reads_back`: the same bytes were read. `creates_only`: a conditional write over
    it was refused. `error`: the first of a write or a read. `left`: the object that could not be deleted, for
    `left_because`. `only_begun`: an object was left within LEFT_EVERY, so an upload was begun and aborted instead,
    which leaves nothing.
    """

    stored: ObjectInfo | None = None
    reads_back: bool | None = None
    creates_only: bool | None = None
    error: StorageError | None = None
    left: ObjectKey | None = None
    left_because: StorageError | None = None
    only_begun: bool = False


def probe(store: StorageBackend, ledger: Facts | None = None, size_bytes: int = SMALL_BYTES) -> Probe:
    """Write an object of `size_bytes` under `doctor/`, read it back and delete it. Its key is random.

    Never raises; safe to run many times at once. What could not be deleted is remembered in `ledger` for all processes;
    without one, in this process.
    """
    key = keys.probe_key(secrets.token_hex(16))
    if _left_lately(store, ledger):
        return Probe(error=begin_and_abort(store, size_bytes), only_begun=True)
    data = secrets.token_bytes(size_bytes)  # no file system makes it smaller
    crc = crc32c(data)
    spec = ObjectSpec(key, "application/octet-stream", len(data))
    stored, reads_back, creates_only, error = None, None, None, None
    try:
        stored = store.put(spec, data, crc)
        reads_back = store.read(key, 0, len(data) + 1) == data
        creates_only = _creates_only(store, key)
    except StorageError as met:
        error = met
    try:
        store.delete(key)
    except StorageError as refusal:
        if stored is not None:
            _remember_left(store, ledger)
            return Probe(stored, reads_back, creates_only, error, key, refusal)
    return Probe(stored, reads_back, creates_only, error)


def tell_time(store: StorageBackend, ledger: Facts | None = None) -> datetime | None:
    """Return the store's time, by the date that it gives to a probe; None when it does not tell one, or takes no probe
    now. Never raises."""
    if _left_lately(store, ledger):
        return None
    key, data = keys.probe_key(secrets.token_hex(16)), b"Written by the recording archiver to compare clocks."
    stored, is_there = None, False
    with suppress(StorageError):
        store.put(ObjectSpec(key, "text/plain", len(data)), data, crc32c(data))
        is_there = True
        stored = store.stat(key)
    try:
        store.delete(key)
    except StorageError:
        if is_there:
            _remember_left(store, ledger)
    return stored.updated_at if stored is not None else None


def refuses_everything(
    store: StorageBackend, refusal: DestinationRefuses, ledger: Facts | None = None
) -> bool | None:
    """Return whether the destination that answered `refusal` also refuses a probe; None when that is not known now.

    One that reported to be full must take ROOM_BYTES.
    """
    if isinstance(refusal, BucketMissing):  # never about one key
        return True
    size_bytes = ROOM_BYTES if isinstance(refusal, DestinationFull) else SMALL_BYTES
    error = probe(store, ledger, size_bytes).error
    if isinstance(error, DestinationRefuses):
        return True
    return None if error is not None else False


def _creates_only(store: StorageBackend, key: ObjectKey) -> bool:
    other = b"Written by the recording archiver to test its permissions. Safe to delete.\n"
    try:
        store.put(ObjectSpec(key, "text/plain", len(other), if_absent=True), other, crc32c(other))
    except ObjectExists:
        return True
    return False


def begin_and_abort(store: StorageBackend, size_bytes: int = SMALL_BYTES) -> StorageError | None:
    """Begin an upload under `doctor/` and abort it, which needs the right to write and leaves nothing. Return what was
    raised."""
    limits = store.limits
    multiple = max(limits.part_multiple_bytes, 1)
    part_bytes = -(-max(size_bytes, limits.min_part_bytes) // multiple) * multiple
    key = keys.probe_key(secrets.token_hex(16))
    try:
        upload = store.begin(ObjectSpec(key, "application/octet-stream", size_bytes, part_bytes))
    except StorageError as error:
        return error
    with suppress(StorageError):  # the scrub aborts stale uploads
        upload.abort()
    return None


def _left_lately(store: StorageBackend, ledger: Facts | None) -> bool:
    with suppress(LedgerError):
        if ledger is not None and ledger.recall(_FACT + store.name) is not None:
            return True
    with _left_lock:
        left_at = _left.get(store.name)
    if left_at is not None and time.monotonic() - left_at < LEFT_EVERY.total_seconds():
        return True
    if ledger is None:
        return False
    with suppress(
        LedgerError, StorageError
    ):  # where no ledger lasts, as with `run --once` by cron, the bucket tells
        now = ledger.now()
        probes = islice(store.list(keys.PROBES), _LISTED)
        return any(one.updated_at is not None and abs(now - one.updated_at) < LEFT_EVERY for one in probes)
    return False


def _remember_left(store: StorageBackend, ledger: Facts | None) -> None:
    with _left_lock:
        _left[store.name] = time.monotonic()
    if ledger is not None:
        with suppress(LedgerError):
            ledger.remember(_FACT + store.name, {}, LEFT_EVERY)

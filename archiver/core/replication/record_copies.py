"""Copy the small records that belong to no asset: who was in a session, and the statements of each month.

What is not copied: end records and tombstones, which each reconcile writes at every destination; check records, since a
new copy is checked as a new one; the catalogue, which is made again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog

from archiver.core.records import keys
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectInfo, ObjectSpec, StorageBackend
from storage_backends.errors import ObjectExists, ObjectMissing

log = structlog.get_logger(__name__)

PREFIXES = (keys.SESSIONS, keys.STATEMENTS)
MAX_BYTES = 16 * 2**20


def copy_records(
    source: StorageBackend, target: StorageBackend, between: Callable[[], None] = lambda: None
) -> int:
    """Copy what `target` lacks, and return how many. What is there stays. `between`: called before each. Idempotent.
    Raises StorageError, and what `between` raises."""
    copied = 0
    for prefix in PREFIXES:
        there = {info.key for info in target.list(prefix)}
        for info in source.list(prefix):
            if info.key not in there:
                between()
                copied += _copy(source, target, info)
    return copied


def _copy(source: StorageBackend, target: StorageBackend, listed: ObjectInfo) -> bool:
    if listed.size_bytes > MAX_BYTES:
        log.warning("record_not_copied", store=source.name, key=listed.key, bytes=listed.size_bytes)
        return False
    info = source.stat(listed.key)
    if info is None:
        return False
    try:
        data = source.read(listed.key, 0, info.size_bytes)
    except ObjectMissing:
        return False
    if info.crc32c not in (None, crc32c(data)) or len(data) != info.size_bytes:
        log.warning("record_not_copied", store=source.name, key=listed.key, reason="it is damaged")
        return False
    spec = ObjectSpec(listed.key, info.content_type or "application/json", len(data), if_absent=True)
    with suppress(ObjectExists):
        target.put(spec, data, crc32c(data))
    if source.stat(listed.key) is None:  # erased meanwhile, when it was not here yet
        target.delete(listed.key)
        return False
    return True

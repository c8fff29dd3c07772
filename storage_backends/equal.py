"""Whether what we would write is there already: success where overwriting is refused (retention, WORM, no right to
delete)."""

from __future__ import annotations

from storage_backends import crc32c as crc
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend
from storage_backends.errors import ObjectMissing

_PIECE_BYTES = 4 * 2**20


def found_equal(store: StorageBackend, key: ObjectKey, size_bytes: int, crc32c: int) -> ObjectInfo | None:
    """The object at `key` if it has this size and CRC32C, by the store's word or, where it keeps none, read back whole.
    Else None. Raises StorageError."""
    info = store.stat(key)
    if info is None or info.size_bytes != size_bytes:
        return None
    if info.crc32c is not None:
        return info if info.crc32c == crc32c else None
    actual, at = 0, 0
    try:
        while at < size_bytes:
            piece = store.read(key, at, min(_PIECE_BYTES, size_bytes - at))
            if not piece:
                return None  # replaced by a shorter one meanwhile
            actual, at = crc.crc32c_of(piece, actual), at + len(piece)
    except ObjectMissing:
        return None
    return info if actual == crc32c else None

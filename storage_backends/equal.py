"""Count a write as successful where overwriting is refused (retention, WORM) and the same content is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage_backends import crc32c as crc
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend
from storage_backends.errors import AccessDenied, ChecksumRejected, ObjectMissing, StorageError
from storage_backends.operation import Operation

_PIECE_BYTES = 2**20


def found_equal(store: StorageBackend, key: ObjectKey, size_bytes: int, crc32c: int) -> ObjectInfo | None:
    """Return the object at `key` if it has this size and CRC32C, else None. Reads the object back where the store keeps
    no CRC32C. Raises StorageError."""
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


def equal_or_raise(
    refusal: AccessDenied, store: StorageBackend, key: ObjectKey, size_bytes: int, crc32c: int
) -> ObjectInfo:
    """Return the object at `key` if it equals the one whose write was refused; else raise `refusal`."""
    try:
        there = found_equal(store, key, size_bytes, crc32c)
    except StorageError:
        there = None
    if there is None:
        raise refusal
    return there


class UploadOfEqual:
    """An upload that the store refuses to begin because its key may not be overwritten. Sends nothing; `complete`
    compares what would have been sent with the object there."""

    def __init__(self, store: StorageBackend, spec: ObjectSpec, refusal: AccessDenied) -> None:
        self._store = store
        self._spec = spec
        self._refusal = refusal

    @classmethod
    def instead(cls, store: StorageBackend, spec: ObjectSpec, refusal: AccessDenied) -> UploadOfEqual:
        """Return an upload, or raise `refusal` when the key holds no object of the right size."""
        try:
            there = store.stat(spec.key)
        except StorageError:
            there = None
        if there is None or spec.size_bytes not in (None, there.size_bytes):
            raise refusal
        return cls(store, spec, refusal)

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return "-"  # nothing to resume

    def parts(self) -> Mapping[int, Part] | None:
        return {}

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        with self._doing("put_part", f"comparing part {number} of") as doing:
            crc.check(data, crc32c, doing)
        return Part(number, len(data), crc32c, "-")

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        with self._doing("complete", "comparing") as doing:
            if (made := crc.of_parts(parts)) != crc32c:
                raise ChecksumRejected(f"{doing}: the parts make CRC32C {made:08x}, not {crc32c:08x}")
        size = sum(part.size_bytes for part in parts)
        there = found_equal(self._store, self._spec.key, size, crc32c)
        if there is None:
            raise self._refusal
        return there

    def abort(self) -> None:
        """Do nothing: no upload was begun."""

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._store.name, self._spec.key, verb)

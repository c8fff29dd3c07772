"""Whether what we would write is there already: success where overwriting is refused (retention, WORM, no right to
delete)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage_backends import crc32c as crc
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend
from storage_backends.errors import AccessDenied, ChecksumRejected, ObjectMissing, StorageError
from storage_backends.operation import Operation

_PIECE_BYTES = 2**20


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


def equal_or_raise(
    refusal: AccessDenied, store: StorageBackend, key: ObjectKey, size_bytes: int, crc32c: int
) -> ObjectInfo:
    """The object that is there, if it is the one whose write met `refusal`; else `refusal` is raised."""
    try:
        there = found_equal(store, key, size_bytes, crc32c)
    except StorageError:
        there = None
    if there is None:
        raise refusal
    return there


class UploadOfEqual:
    """Stands in for an upload that the store refuses to begin because its key is taken for good. It sends nothing:
    `complete` compares what would have been sent with what is there."""

    def __init__(self, store: StorageBackend, spec: ObjectSpec, refusal: AccessDenied) -> None:
        self._store = store
        self._spec = spec
        self._refusal = refusal

    @classmethod
    def instead(cls, store: StorageBackend, spec: ObjectSpec, refusal: AccessDenied) -> UploadOfEqual:
        """Raises `refusal` when no object of the right size is there to be compared with."""
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
        """Nothing was begun."""

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._store.name, self._spec.key, verb)

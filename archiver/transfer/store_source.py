"""One object of a store, as a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from archiver.transfer.base import Reader, SourceInfo
from archiver.transfer.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceNotAllowed,
    SourceUnavailable,
)
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    InvalidKey,
    ObjectChanged,
    ObjectMissing,
    StorageError,
)

READ_BYTES = 1024 * 1024


class StoreSource:
    """`transfer.base.Source` of one object of a store. What it raises has the store's error as its cause."""

    def __init__(
        self,
        store: StorageBackend,
        key: ObjectKey,
        *,
        size_bytes: int | None = None,
        resumable: bool = False,
        read_bytes: int = READ_BYTES,
        before_read: Callable[[int], None] = lambda _size_bytes: None,
    ) -> None:
        """`size_bytes`: of the object, for a caller that knows its checksum as well: then the store is not asked first,
        nor whether it is still the same object, unless `resumable`: then it is asked once for the object's ETag, and
        every read is of the object with it. `read_bytes`: of one request; `read` returns bytes, a second copy
        beside the buffer. `before_read`: called with the bytes of each request, and may wait."""
        self._store = store
        self._key = key
        self._size_bytes = size_bytes
        self._resumable = resumable
        self._read_bytes = read_bytes
        self._before_read = before_read

    @property
    def name(self) -> str:
        return f"{self._store.name}: {self._key}"

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        if self._size_bytes is not None:
            etag = self._etag_of(self._size_bytes) if self._resumable else None
            known = SourceInfo(size_bytes=self._size_bytes, ranges=self._size_bytes > 0, etag=etag)
            return known, _FirstBytes(self, known, min(first_bytes, self._size_bytes))
        found = self._stat()
        info = SourceInfo(
            size_bytes=found.size_bytes,
            ranges=found.size_bytes > 0,
            etag=found.etag,
            last_modified=found.updated_at.isoformat() if found.updated_at else None,
            content_type=found.content_type,
            crc32c=found.crc32c,
        )
        return info, _FirstBytes(self, info, min(first_bytes, found.size_bytes))

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        filled = 0
        while filled < len(into):
            filled += self.read_some(start + filled, into[filled:], info)

    def read_some(self, start: int, into: memoryview, info: SourceInfo) -> int:
        """Fill `into` as far as one request goes. Raises SourceChanged when the object is not the one that `info`
        describes, or ends early."""
        wanted = min(len(into), self._read_bytes)
        self._before_read(wanted)
        with _as_source(self.name):
            data = self._store.read(self._key, start, wanted, if_match=info.etag)
        if len(data) != wanted:
            raise SourceChanged(
                f"{self.name} ended at byte {start + len(data)}: it is shorter than at the start"
            )
        is_asked = info.etag is None and self._size_bytes is None
        if is_asked and self._stat().size_bytes != info.size_bytes:  # a store that keeps no versions
            raise SourceChanged(f"{self.name} has another length than at the start")
        into[:wanted] = data
        return wanted

    def _etag_of(self, size_bytes: int) -> str | None:
        found = self._stat()
        if found.size_bytes != size_bytes:
            raise SourceChanged(f"{self.name} has {found.size_bytes} bytes, not {size_bytes}")
        return found.etag

    def _stat(self) -> ObjectInfo:
        with _as_source(self.name):
            found = self._store.stat(self._key)
        if found is None:
            raise SourceGone(f"{self.name} is not there")
        return found


class _FirstBytes:
    def __init__(self, source: StoreSource, info: SourceInfo, size_bytes: int) -> None:
        self._source = source
        self._info = info
        self._size_bytes = size_bytes
        self._position = 0

    def readinto(self, buffer: memoryview, /) -> int:
        left = self._size_bytes - self._position
        if not left or not len(buffer):
            return 0
        count = self._source.read_some(self._position, buffer[:left], self._info)
        self._position += count
        return count

    def close(self) -> None:
        """Do nothing: nothing is open between reads."""


@contextmanager
def _as_source(name: str) -> Iterator[None]:
    """Translate the errors of a store that is a source, so that they are not taken for a destination's."""
    try:
        yield
    except StorageError as error:
        raise _translated(name, error) from error


def _translated(name: str, error: StorageError) -> SourceError:
    if isinstance(error, ObjectChanged):
        return SourceChanged(f"{name} is not the object that it was at the start")
    if isinstance(error, ObjectMissing):
        return SourceGone(f"{name} is not there: {error}")
    if isinstance(error, AccessDenied | BucketMissing):
        return SourceForbidden(f"{name} may not be read with our own credentials: {error}")
    if isinstance(error, InvalidKey):
        return SourceNotAllowed(f"{name}: {error}")
    return SourceUnavailable(f"{name}: {error}")

"""Read an HLS tree whose URL signs only its master with our own credentials, from the bucket that the asset's `path`
names. Nothing is written there.

What the playlists name below the master's root is read from the store. References that lead elsewhere or carry a
signature of their own are fetched over HTTP, without those credentials.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes, urlsplit

from archiver.core.contents.hls.access import TreeAccess, signs_one_object
from archiver.core.contents.sniff import SNIFF_BYTES, Kind, sniff
from archiver.http.head import Headers
from archiver.retry_policy import REQUEST
from archiver.transfer.base import Reader, Source, SourceInfo
from archiver.transfer.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
)
from archiver.transfer.http import HttpClient
from archiver.transfer.source import Fetched, SecretUrl, SourceAddress
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend, object_key
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    InvalidKey,
    ObjectChanged,
    ObjectMissing,
    StorageError,
)

_READ_BYTES = 1024 * 1024  # `read` returns bytes: a second copy beside the buffer
_GZIP = b"\x1f\x8b"  # a playlist stored with Content-Encoding, which HTTP would decode

SourceStore = Callable[[str], tuple[StorageBackend, ObjectKey] | None]
"""Map a storage path of the API to the store that our own credentials may read it from, and its key; None if there is
none. Makes no request and raises nothing."""


def no_source_store(_: str) -> None:
    return None


class StoreSource:
    """`transfer.base.Source` of one object of a store."""

    def __init__(self, store: StorageBackend, key: ObjectKey) -> None:
        self._store = store
        self._key = key

    @property
    def name(self) -> str:
        return f"{self._store.name}: {self._key}"

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
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
        wanted = min(len(into), _READ_BYTES)
        with _as_source(self.name):
            data = self._store.read(self._key, start, wanted, if_match=info.etag)
        if len(data) != wanted:
            raise SourceChanged(
                f"{self.name} ended at byte {start + len(data)}: it is shorter than at the start"
            )
        if info.etag is None and self._stat().size_bytes != info.size_bytes:  # a store that keeps no versions
            raise SourceChanged(f"{self.name} has another length than at the start")
        into[:wanted] = data
        return wanted

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


class StoreTreeAccess(TreeAccess):
    """Reads the master over HTTP with its signature, its children from `store`. `root`: the start of the master's URL
    path (decoded, with a trailing slash) that corresponds to the root of the store's keys."""

    children_may_be_signed = False

    def __init__(
        self,
        client: HttpClient,
        master: SourceAddress,
        max_playlist_bytes: int,
        store: StorageBackend,
        root: str,
    ) -> None:
        self._signed_master = master
        self._store = store
        self._root = root
        super().__init__(client, master, max_playlist_bytes)

    def source(self, address: SourceAddress) -> Source:
        return self._in_store(address.current().url) or super().source(address)

    def fetch(self, address: SourceAddress) -> Fetched:
        if address is self._signed_master:
            return super().fetch(address)
        url = address.current().url
        source = self._in_store(url)
        if source is None:
            return super().fetch(address)
        body = REQUEST.call(
            lambda: _whole(source, self._max_playlist_bytes),
            lambda error: isinstance(error, SourceUnavailable),
        )
        return Fetched(url, Headers(()), (), body)

    def _in_store(self, url: SecretUrl) -> StoreSource | None:
        """Return the object at `url`; None if it is not in the store. Raises SourceNotAllowed."""
        path = _decoded_path(url)
        if (
            path is None
            or url.origin != self.master.url.origin
            or not path.startswith(self._root)
            or signs_one_object(url)
        ):
            return None
        try:
            return StoreSource(self._store, object_key(path.removeprefix(self._root)))
        except InvalidKey as error:
            raise SourceNotAllowed(f"{url.name} is not read from {self._store.name}: {error}") from None


def tree_access(
    path: str | None, source_store: SourceStore
) -> Callable[[HttpClient, SourceAddress, int], TreeAccess]:
    """Choose how `HlsContents` reads the tree of the asset at `path`: with our own credentials if its URL signs one
    object and they can read that object, a playlist, at `path`; else as usual. Decided before the walk."""

    def open_access(client: HttpClient, master: SourceAddress, max_playlist_bytes: int) -> TreeAccess:
        access = TreeAccess(client, master, max_playlist_bytes)
        url = access.master.url
        found = source_store(path) if path and signs_one_object(url) else None
        if found is None:
            return access
        store, key = found
        url_path = _decoded_path(url)
        if url_path is None or not url_path.endswith(f"/{key}") or not _is_readable_playlist(store, key):
            return access
        return StoreTreeAccess(client, master, max_playlist_bytes, store, url_path.removesuffix(key))

    return open_access


def _is_readable_playlist(store: StorageBackend, key: ObjectKey) -> bool:
    """Try to read it. False on any StorageError: the asset then needs source access and is retried later."""
    try:
        start = store.read(key, 0, SNIFF_BYTES)
    except StorageError:
        return False
    return sniff(start) is Kind.PLAYLIST or start.startswith(_GZIP)


def _whole(source: StoreSource, max_bytes: int) -> bytes:
    info, reader = source.open(max_bytes + 1)
    size = info.size_bytes or 0
    if size > max_bytes:
        raise SourceMismatch(f"{source.name} is larger than the {max_bytes} bytes allowed for it")
    body, filled = memoryview(bytearray(size)), 0
    while filled < size:
        filled += reader.readinto(body[filled:])
    data = bytes(body)
    return _unpacked(data, source.name, max_bytes) if data.startswith(_GZIP) else data


def _unpacked(data: bytes, name: str, max_bytes: int) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise SourceMismatch(f"{name} begins like gzip and is not: {error}") from None
    if len(plain) > max_bytes or not inflate.eof or inflate.unused_data:
        raise SourceMismatch(
            f"{name}, unpacked, is larger than {max_bytes} bytes or not one whole gzip stream"
        )
    return plain


def _decoded_path(url: SecretUrl) -> str | None:
    try:
        return unquote_to_bytes(urlsplit(url.reveal()).path).decode()
    except UnicodeDecodeError:
        return None


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

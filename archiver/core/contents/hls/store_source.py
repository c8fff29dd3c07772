"""Read an HLS tree whose URL signs only its master with our own credentials, from the bucket that the asset's `path`
names. Nothing is written there.

What the playlists name below the master's root is read from the store. References that lead elsewhere or carry a
signature of their own are fetched over HTTP, without those credentials.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from urllib.parse import unquote_to_bytes, urlsplit

from archiver.core.contents.hls.access import TreeAccess, signs_one_object
from archiver.core.contents.sniff import SNIFF_BYTES, Kind, sniff
from archiver.http.head import Headers
from archiver.retry_policy import REQUEST
from archiver.transfer.addresses import SourceAddress
from archiver.transfer.base import Source
from archiver.transfer.documents import Fetched
from archiver.transfer.errors import SourceMismatch, SourceNotAllowed, SourceUnavailable
from archiver.transfer.http import HttpClient
from archiver.transfer.store_source import StoreSource
from archiver.transfer.urls import SecretUrl
from storage_backends.base import ObjectKey, StorageBackend, object_key
from storage_backends.errors import InvalidKey, StorageError

_GZIP = b"\x1f\x8b"  # a playlist stored with Content-Encoding, which HTTP would decode

SourceStore = Callable[[str], tuple[StorageBackend, ObjectKey] | None]
"""Map a storage path of the API to the store that our own credentials may read it from, and its key; None if there is
none. Makes no request and raises nothing."""


def no_source_store(_: str) -> None:
    return None


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

"""Open the buckets that assets may be read from with our own credentials: those of ARCHIVER_SOURCE_ACCESS, or, if none
are given, the bucket in an asset's path, with the credentials that the SDKs find."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from urllib.parse import quote

from storage_backends.base import ObjectKey, StorageBackend, object_key
from storage_backends.destination_url import parse_destination
from storage_backends.errors import BadDestinationUrl, InvalidKey
from storage_backends.registry import open_destination

_FROM_THE_API = ("s3", "gs")
"""Schemes that a path from the API may use: it must never open a directory or a third-party backend."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_MAX_UNCONFIGURED_BUCKETS = 16  # each keeps a client open; a workspace uses a few


class SourceAccess:
    """Implements `core.contents.hls.store_source.SourceStore`. Opens stores at first use and keeps them; only reads.
    Thread-safe. One per process; close it."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """`allowed`: URLs as of destinations. Raises BadDestinationUrl."""
        places = [(parse_destination(text), text) for text in allowed]
        self._allowed = sorted(
            ((url.scheme, url.bucket, url.prefix.strip("/"), text) for url, text in places),
            key=lambda place: len(place[2]),
            reverse=True,  # the longest prefix wins
        )
        self._lock = threading.Lock()
        self._stores: dict[str, StorageBackend] = {}

    def __call__(self, path: str) -> tuple[StorageBackend, ObjectKey] | None:
        scheme, _, rest = path.partition("://")
        bucket, _, key = rest.partition("/")  # not parsed as a URL: a key may hold anything
        try:
            object_key(key)
            for allowed_scheme, allowed_bucket, prefix, text in self._allowed:
                folder = f"{prefix}/" if prefix else ""
                if (allowed_scheme, allowed_bucket) == (scheme, bucket) and key.startswith(folder):
                    return self._store(text), object_key(key.removeprefix(folder))
            if self._allowed or scheme not in _FROM_THE_API or not _BUCKET.fullmatch(bucket):
                return None
            url = f"{scheme}://{quote(bucket)}"
            if url not in self._stores and len(self._stores) >= _MAX_UNCONFIGURED_BUCKETS:
                return None
            return self._store(url), ObjectKey(key)
        except (InvalidKey, BadDestinationUrl):
            return None

    def close(self) -> None:
        with self._lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()

    def _store(self, url: str) -> StorageBackend:
        with self._lock:
            if url not in self._stores:
                self._stores[url] = open_destination(url)
            return self._stores[url]

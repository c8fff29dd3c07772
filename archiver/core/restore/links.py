"""Link to the objects of an asset for a while, without their bytes passing here: signed URLs, or paths of files.

An HLS tree in a private bucket plays from playlists in a local folder, whose segments are signed URLs. Nothing is
written to the destination.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast
from urllib.parse import unquote, urlsplit

from archiver.core.contents.hls.playlist import Playlist
from archiver.core.contents.hls.references import rewrite
from archiver.core.errors import BadContents, RestoreError
from archiver.core.records.manifest import Manifest, ManifestObject
from archiver.core.records.verify import verify_listed
from archiver.core.restore.restorer import opens
from archiver.core.upkeep.copies import Copies, Copy
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError

MAX_PLAYLIST_BYTES = 64 * 1024 * 1024
_PLAYLISTS = (".m3u8", ".m3u")

Sign = Callable[[ObjectKey, timedelta], str]


@dataclass(frozen=True, slots=True)
class Links:
    """How to reach one asset. `urls`: by path, signed or not; SECRET. `playlists`: files to write to a local folder, by
    path, SECRET too; `opens`: the path to begin with, in either. `outside`: references that the asset does not hold."""

    asset_id: str
    destination: str
    signed: bool
    urls: Mapping[str, str] = field(repr=False)
    playlists: Mapping[str, bytes] = field(repr=False)
    opens: str
    outside: int = 0


def link(copies: Copies, lifetime: timedelta) -> Links:
    """Link to the nearest whole copy that can be signed, else to files of this machine. Raises RestoreError when none
    can be linked to, with the reason for each."""
    reasons: list[str] = []
    for kind in (_signing, _path_giving):
        for copy in copies:
            sign = kind(copy.store, lifetime)
            if sign is None:
                continue
            try:
                return _link(copy, sign, lifetime, signed=kind is _signing)
            except (StorageError, RestoreError) as error:
                reasons.append(str(error))
    if not reasons:
        reasons = list(copies.problems)
        reasons += [
            f"{copy.store.name} gives no signed URLs: `archiver restore {copies.asset_id} DIR` brings the files here"
            for copy in copies
        ]
    raise RestoreError("; ".join(reasons) or "no destination has a manifest of it")


def longest(store: StorageBackend) -> timedelta | None:
    """Return the longest lifetime of a signed URL there; None where URLs are not signed."""
    found: timedelta | None = getattr(store, "longest_signature", None)  # storage_backends/optional
    return found


def _signing(store: StorageBackend, _lifetime: timedelta) -> Sign | None:
    sign: Sign | None = getattr(store, "signed_url", None)
    return sign


def _path_giving(store: StorageBackend, _lifetime: timedelta) -> Sign | None:
    path_of: Callable[[ObjectKey], str] | None = getattr(store, "path_of", None)
    return None if path_of is None else lambda key, _lifetime: path_of(key)


def _link(copy: Copy, sign: Sign, lifetime: timedelta, *, signed: bool) -> Links:
    """Raises RestoreError when the copy is not whole, StorageError."""
    manifest, store = copy.manifest, copy.store
    problems = verify_listed(store, manifest).problems
    if problems:
        raise RestoreError(f"{store.name}: {problems[0]}")
    first = opens(manifest)
    if first is None:
        raise RestoreError(f"{store.name}: the asset has no object")
    by_path = {item.path: item for item in manifest.objects}
    store.read(manifest.key_of(by_path[first]), 0, 1)  # raises ObjectCold
    urls = _Urls(manifest, sign, lifetime)
    if not (signed and first.lower().endswith(_PLAYLISTS)):
        return Links(manifest.asset_id, store.name, signed, {path: urls[path] for path in by_path}, {}, first)
    playlists, outside = _playlists(store, manifest, by_path, first, urls)
    return Links(manifest.asset_id, store.name, signed, {}, playlists, first, outside)


class _Urls:
    """Signed URLs by path, each signed once."""

    def __init__(self, manifest: Manifest, sign: Sign, lifetime: timedelta) -> None:
        self._manifest = manifest
        self._sign = sign
        self._lifetime = lifetime
        self._signed: dict[str, str] = {}

    def __getitem__(self, path: str) -> str:
        if path not in self._signed:
            key = cast("ObjectKey", f"{self._manifest.folder}/{path}")  # every key of a manifest was checked
            self._signed[path] = self._sign(key, self._lifetime)
        return self._signed[path]


def _playlists(
    store: StorageBackend,
    manifest: Manifest,
    by_path: Mapping[str, ManifestObject],
    first: str,
    urls: _Urls,
) -> tuple[dict[str, bytes], int]:
    """Return every playlist with its other files signed, and how many references lead nowhere."""
    found: dict[str, bytes] = {}
    variables: Mapping[bytes, bytes] = {}
    outside = 0
    for path in _in_order(by_path, first):
        item = by_path[path]
        if item.size > MAX_PLAYLIST_BYTES:
            raise RestoreError(f"{path} has {item.size:,} bytes, more than any playlist")
        data = store.read(manifest.key_of(item), 0, item.size + 1)
        if (len(data), crc32c(data)) != (item.size, item.crc):
            raise RestoreError(f"{store.name}: {path} is not what the manifest lists")
        replaced = {}
        try:
            playlist = Playlist(data, variables)
            for reference in playlist.references():
                target = _target(path, reference.uri)
                if target in by_path and not target.lower().endswith(_PLAYLISTS):
                    replaced[reference.span] = urls[target].encode()
                elif target not in by_path and not reference.gap:
                    outside += 1
        except BadContents:  # stored as it is, such as an error page with a playlist's name
            found[path] = data
            continue
        variables = variables or playlist.variables
        found[path] = rewrite(data, replaced)
    return found, outside


def _in_order(by_path: Mapping[str, ManifestObject], first: str) -> Iterator[str]:
    yield first
    yield from (path for path in by_path if path != first and path.lower().endswith(_PLAYLISTS))


def _target(playlist: str, uri: str) -> str:
    """Return the path that a reference of a playlist leads to; no path of an object when it leads out."""
    split = urlsplit(uri)
    if split.scheme or split.netloc:
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(playlist), unquote(split.path)))

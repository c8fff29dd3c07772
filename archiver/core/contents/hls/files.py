"""The files that the playlists of a tree name: one item each, however often a file is named.

A file that is optional where it is first named (a partial segment, a chapter image) may be a segment later, so optional
files are yielded at the end of the walk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial

from archiver.core.contents import sniff
from archiver.core.contents.base import Item
from archiver.core.contents.hls.access import ChildAddress, TreeAccess
from archiver.core.contents.hls.facts import Stream
from archiver.core.contents.hls.layout import TreeFile
from archiver.core.contents.hls.references import Reference, Role
from archiver.core.contents.sniff import Kind
from archiver.transfer.base import Check, SourceInfo
from archiver.transfer.errors import UnexpectedContent

_MEDIA = (Kind.SEGMENT, Kind.MP4)


@dataclass(frozen=True, slots=True)
class _Optional:
    address: ChildAddress
    path: str
    check: Check


class TreeFiles:
    """The files of one tree seen so far."""

    def __init__(self, access: TreeAccess, max_optional: int) -> None:
        self._access = access
        self._max_optional = max_optional
        self._mandatory: set[bytes] = set()  # digests of 16 bytes, not the URLs of 86,400 segments
        self._optional: dict[bytes, _Optional] = {}
        self.left_out = 0  # optional files beyond the limit

    def __len__(self) -> int:
        return len(self._mandatory) + len(self._optional)

    def __contains__(self, file: TreeFile) -> bool:
        return _digest(file) in self._mandatory

    def is_new(self, file: TreeFile) -> bool:
        """Record a mandatory file; tell whether it was new."""
        digest = _digest(file)
        if digest in self._mandatory:
            return False
        self._mandatory.add(digest)
        if self._optional:
            self._optional.pop(digest, None)
        return True

    def forget(self, file: TreeFile) -> None:
        """Drop an optional file that turned out to be a playlist."""
        self._optional.pop(_digest(file), None)

    def item(self, address: ChildAddress, file: TreeFile, check: Check, *, optional: bool = False) -> Item:
        return Item(
            path=file.path,
            content_type=sniff.content_type(file.path),
            source=self._access.source(address),
            check=check,
            optional=optional,
        )

    def offer(self, address: ChildAddress, file: TreeFile, check: Check) -> None:
        """Remember an optional file, unless it is known already."""
        digest = _digest(file)
        if digest in self._mandatory or digest in self._optional:
            return
        if len(self._optional) >= self._max_optional:
            self.left_out += 1
            return
        self._optional[digest] = _Optional(address, file.path, check)

    def optional_items(self) -> Iterator[Item]:
        """Yield the files that are only optional, once all playlists were walked."""
        for each in self._optional.values():
            yield self.item(each.address, TreeFile("", each.path), each.check, optional=True)


def check_of(reference: Reference, path: str, streams: Collection[Stream]) -> Check:
    """Return the check for what a media playlist names. `streams`: what that playlist is."""
    if reference.role is Role.KEY:
        return partial(_check_key, reference.key_bytes, path)
    if reference.encrypted:
        return sniff.check_for(Kind.ANY, path)
    if Stream.SUBTITLES in streams and sniff.kind_of(path) not in _MEDIA:
        return sniff.check_for(Kind.CAPTIONS, path)
    if Stream.TRICK_PLAY in streams and (by_name := sniff.kind_of(path)) not in _MEDIA:
        return sniff.check_for(by_name or Kind.ANY, path)
    return sniff.check_for(Kind.SEGMENT, path)  # or captions, by the name


def _check_key(size_bytes: int | None, path: str, start: bytes, info: SourceInfo | None = None) -> None:
    """Check a key. `size_bytes`: None for the key of another DRM system, in any format."""
    if len(start) != size_bytes:
        sniff.check_for(Kind.ANY, path)(start, info)
        if size_bytes is not None:
            raise UnexpectedContent(
                f"{path}: expected a key of {size_bytes} bytes, got {sniff.describe(start)}"
            )


def _digest(file: TreeFile) -> bytes:
    return hashlib.sha256(file.identity.encode()).digest()[:16]

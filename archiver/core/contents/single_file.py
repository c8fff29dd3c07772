"""An asset that is one file: every type except HLS trees and zips."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from archiver.core.contents import sniff
from archiver.core.contents.base import Doubt, Item, Notes
from archiver.core.contents.containers import has_structure, structure_of
from archiver.core.contents.sniff import MEDIA, Kind
from archiver.core.records.keys import safe_path
from archiver.hms.models import Asset, AssetType
from archiver.transfer.base import Check, Source, SourceInfo
from archiver.transfer.errors import ErrorPage, UnexpectedContent

# Extension and kind of a file whose path does not tell them.
_BY_TYPE: dict[str, tuple[str, Kind]] = {
    AssetType.ROOM_COMPOSITE: ("mp4", Kind.MP4),
    AssetType.ROOM_COMPOSITE_LEGACY: ("mp4", Kind.MP4),
    AssetType.STREAM: ("mp4", Kind.MP4),
    AssetType.TRACK: ("webm", Kind.WEBM),
    AssetType.CHAT: ("csv", Kind.TEXT),
    AssetType.TRANSCRIPT: ("txt", Kind.TEXT),
    AssetType.SUMMARY: ("json", Kind.JSON),
}
_MD5_OF_NOTHING = hashlib.md5(b"", usedforsecurity=False)
_QUERY = re.compile(r"\?[^?=]*=.*\Z", re.DOTALL)


def file_name(asset: Asset, start: bytes) -> str:
    """Return the last segment of the asset's path, made safe, always with an extension. `start`: the file's first
    bytes, for an asset whose path and type do not tell."""
    last = _name_in_path(asset)
    if sniff.kind_of(last):
        return safe_path(last)
    return safe_path(f"{last or asset.type or 'recording'}.{_extension(asset, start)}")


class SingleFile:
    """`core.contents.base.Contents` of one file. The API's `size` is this file's, except for a room-vod; 0 means
    unknown.

    Media of another kind than its name is a warning if its container shows that it is whole, else a doubt.
    """

    form = "file"

    def __init__(
        self,
        asset: Asset,
        source: Source,
        *,
        start: bytes,
        version: str,
        info: SourceInfo | None = None,
        warnings: Sequence[str] = (),
        doubts: Sequence[Doubt] = (),
    ) -> None:
        """`start`: the first sniff.SNIFF_BYTES. `doubts`: what is known to be wrong; anything but an error page is then
        accepted. Raises ErrorPage when `start` is one."""
        self._asset = asset
        self._source = source
        self._name = file_name(asset, start)
        self._version = version
        self._info = info
        self._notes = Notes(warnings=list(warnings), doubts=list(doubts))
        self._content_type = sniff.content_type_of(self._name, start)
        self._kind, self._found = self._judge(start)
        self._check = self._make_check()
        with suppress(UnexpectedContent):  # the bytes that are copied count
            self._check(start, info)

    @property
    def version(self) -> str:
        return self._version

    @property
    def version_is_exact(self) -> bool:
        return self._info is not None and self._info.strong_etag is not None

    @property
    def source_bytes(self) -> int | None:
        return self._info.size_bytes if self._info else None

    @property
    def notes(self) -> Notes:
        return self._notes

    def items(self) -> Iterator[Item]:
        means_this_file = self._asset.type != AssetType.ROOM_VOD
        yield Item(
            path=self._name,
            content_type=self._content_type,
            source=self._source,
            check=self._check,
            structure=structure_of(self._found, self._name),
            api_size_bytes=(self._asset.size_bytes or None) if means_this_file else None,
        )

    def _judge(self, start: bytes) -> tuple[Kind, Kind | None]:
        """Return the kind its first bytes are checked against, and the kind whose structure is checked."""
        expected = _kind(self._asset, self._name)
        found = sniff.sniff(start)
        if not has_structure(found, start):
            found = None
        if self._notes.doubts:
            return Kind.ANY, None
        if self._asset.type == AssetType.ROOM_VOD or expected is Kind.ANY:
            return found or Kind.ANY, found
        if expected is Kind.JSON and sniff.agrees(Kind.JSON, self._name, start):
            return Kind.JSON, Kind.JSON if has_structure(Kind.JSON, start) else None
        if expected not in MEDIA or found is None:
            return expected, None
        if found is not expected and expected is not Kind.SEGMENT:
            self._notes.warnings.append(f"{self._what_it_is_called()}, but it is {found.value}")
        return found, found

    def _what_it_is_called(self) -> str:
        end = sniff.extension(_name_in_path(self._asset))
        return f"named .{end}" if sniff.kind_of(f"a.{end}") else f"a {self._asset.type} by its type"

    def _make_check(self) -> Check:
        check = sniff.check_for(self._kind, self._name, self._asset.size_bytes)
        if self._kind is not Kind.TEXT and self._kind is not Kind.CAPTIONS:
            return _never_empty(check, self._name)
        if self._info and is_empty(self._info) and not self._asset.size_bytes:
            # a chat or transcript in which nobody said a word
            self._notes.warnings.append(f"{self._name} is empty at the source, by the source's own checksum")
            return _empty_or(check)
        return _empty_is_doubtful(check, self._name)


def is_empty(info: SourceInfo) -> bool:
    """Tell whether the source's own checksum says that the file is empty. Without one, an empty body counts as the
    answer of a broken server or cache, however often it is repeated."""
    by_etag = (info.etag or "").removeprefix("W/").strip('"').lower() == _MD5_OF_NOTHING.hexdigest()
    return info.size_bytes == 0 and (by_etag or info.crc32c == 0 or info.md5 == _MD5_OF_NOTHING.digest())


def _empty_or(check: Check) -> Check:
    def empty_or_as_expected(start: bytes, info: SourceInfo | None = None) -> None:
        if start:
            check(start, info)

    return empty_or_as_expected


def _empty_is_doubtful(check: Check, name: str) -> Check:
    def something_as_expected(start: bytes, info: SourceInfo | None = None) -> None:
        if not start:
            raise UnexpectedContent(f"{name}: expected text, got an empty body")
        check(start, info)

    return something_as_expected


def _never_empty(check: Check, name: str) -> Check:
    """Refuse an empty body: of empty media or JSON there is nothing to store, even with a doubt."""

    def something_as_expected(start: bytes, info: SourceInfo | None = None) -> None:
        if not start:
            raise ErrorPage(f"{name}: the source answered with an empty body")
        check(start, info)

    return something_as_expected


def _name_in_path(asset: Asset) -> str:
    """Return the last segment of the API's path, without the query of a signed URL."""
    return _QUERY.sub("", asset.path or "").rsplit("/", 1)[-1]


def _extension(asset: Asset, start: bytes) -> str:
    """Return an extension for a path without one: by the bytes if they are media, else by the type."""
    found = sniff.sniff(start)
    by_type = _BY_TYPE.get(asset.type)
    if by_type and not (by_type[1] in MEDIA and has_structure(found, start)):
        is_json = asset.type == AssetType.TRANSCRIPT and start.lstrip()[:1] in (b"{", b"[")
        return "json" if is_json else by_type[0]
    return sniff.extension_of(found) or "bin"


def _kind(asset: Asset, name: str) -> Kind:
    by_type = _BY_TYPE.get(asset.type)
    return sniff.kind_of(name) or (by_type[1] if by_type else Kind.ANY)

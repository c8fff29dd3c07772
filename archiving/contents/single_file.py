"""An asset that is one file: every type but an HLS tree and its zip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from archiving.contents import sniff
from archiving.contents.base import Item, Notes
from archiving.contents.sniff import Kind
from archiving.keys import safe_path
from hms.models import Asset, AssetType
from transfer.base import Check, Source, SourceInfo

# What a file of this type is called and must look like where its path does not say so itself.
_BY_TYPE: dict[str, tuple[str, Kind]] = {
    AssetType.ROOM_COMPOSITE: ("mp4", Kind.MP4),
    AssetType.ROOM_COMPOSITE_LEGACY: ("mp4", Kind.MP4),
    AssetType.STREAM: ("mp4", Kind.MP4),
    AssetType.TRACK: ("webm", Kind.WEBM),
    AssetType.CHAT: ("csv", Kind.TEXT),
    AssetType.TRANSCRIPT: ("txt", Kind.TEXT),
    AssetType.SUMMARY: ("json", Kind.JSON),
}
_BY_KIND = {
    Kind.ZIP: "zip",
    Kind.PLAYLIST: "m3u8",
    Kind.MP4: "mp4",
    Kind.WEBM: "webm",
}
_MD5_OF_NOTHING = hashlib.md5(b"", usedforsecurity=False)
_MARKUP = frozenset({"html", "htm", "xml", "svg"})  # an error page cannot be told from such a file


def file_name(asset: Asset, start: bytes) -> str:
    """The name of the asset's file: the last segment of its path, made safe, with an extension in any case.
    `start` are the first bytes of the file, for an asset whose path and type say nothing."""
    last = (asset.path or "").rsplit("/", 1)[-1]
    if sniff.kind_of(last) or sniff.extension(last) in _MARKUP:
        return safe_path(last)
    return safe_path(f"{last or asset.type or 'recording'}.{_extension(asset, start)}")


class SingleFile:
    """`archiving.contents.base.Contents` of one file. The API's `size` means this file, so another length is a
    mismatch; 0 is what the API says when it says nothing."""

    form = "file"

    def __init__(
        self,
        asset: Asset,
        source: Source,
        *,
        start: bytes,
        version: str,
        info: SourceInfo | None = None,
        warnings: list[str] | None = None,
    ) -> None:
        self._asset = asset
        self._source = source
        self._name = file_name(asset, start)
        self._check = _check(asset, self._name)
        self._version = version
        self._notes = Notes(warnings=list(warnings or []))
        if self._check and info and is_empty(info) and _may_be_empty(asset, self._name):
            self._check = _empty_or(self._check)
            self._notes.warnings.append(f"{self._name} is empty at the source, by the source's own checksum")

    @property
    def version(self) -> str:
        return self._version

    @property
    def notes(self) -> Notes:
        return self._notes

    def items(self) -> Iterator[Item]:
        means_this_file = self._asset.type != AssetType.ROOM_VOD
        yield Item(
            path=self._name,
            content_type=sniff.content_type(self._name),
            source=self._source,
            check=self._check,
            size_bytes=(self._asset.size_bytes or None) if means_this_file else None,
        )


def _extension(asset: Asset, start: bytes) -> str:
    if asset.type == AssetType.TRANSCRIPT and start.lstrip()[:1] in (b"{", b"["):
        return "json"
    if asset.type in _BY_TYPE:
        return _BY_TYPE[asset.type][0]
    found = sniff.sniff(start)
    return _BY_KIND.get(found, "bin") if found else "bin"


def is_empty(info: SourceInfo) -> bool:
    """Whether the source's own checksum says that the file itself has no bytes. Without it an empty body is taken for
    what a broken server or cache says with a 200, however often it says so."""
    by_etag = (info.etag or "").removeprefix("W/").strip('"').lower() == _MD5_OF_NOTHING.hexdigest()
    return info.size_bytes == 0 and (by_etag or info.crc32c == 0 or info.md5 == _MD5_OF_NOTHING.digest())


def _may_be_empty(asset: Asset, name: str) -> bool:
    """A chat or transcript of which nobody said a word; there is no film, and no JSON, of no bytes. Where the API
    gives a size, that is what it must be."""
    return _kind(asset, name) is Kind.TEXT and not asset.size_bytes


def _empty_or(check: Check) -> Check:
    def empty_or_as_expected(start: bytes, info: SourceInfo | None = None) -> None:
        if start:
            check(start, info)

    return empty_or_as_expected


def _check(asset: Asset, name: str) -> Check | None:
    return None if sniff.extension(name) in _MARKUP else sniff.check_for(_kind(asset, name), name)


def _kind(asset: Asset, name: str) -> Kind:
    by_type = _BY_TYPE.get(asset.type)
    return sniff.kind_of(name) or (by_type[1] if by_type else Kind.ANY)

"""A zipped VOD, streamed into the bucket unpacked: the directory first, then the members in the order in which they
lie in the zip, from one pass over it (hls.md, "The zip form"). Nothing touches the local disk. Members that are stored
already are not fetched again.
"""

from __future__ import annotations

import posixpath
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import unquote

from archiving.contents import sniff
from archiving.contents.base import Item, Notes, Phase
from archiving.contents.layout import new_text, what_changed
from archiving.contents.playlist import Playlist, Reference, Role, Span, is_unfinished, rewrite
from archiving.contents.read_ahead import WINDOW_BYTES, WINDOWS, ReadAhead
from archiving.contents.sniff import Kind
from archiving.contents.tree_facts import Expected, TreeFacts
from archiving.contents.zip_directory import (
    STORED,
    Member,
    ZipLimits,
    data_offset,
    local_header_bytes,
    read_directory,
)
from archiving.errors import BadContents, IncompleteContents
from archiving.keys import ZIP_FOLDER, safe_path
from transfer.base import Source, SourceInfo
from transfer.errors import SourceMismatch

_MIB = 1024 * 1024
MAX_PLAYLIST_BYTES = 64 * _MIB  # as of a tree (hls.md, trap 10)
MAX_PLAYLISTS_BYTES = 256 * _MIB  # all together: held in memory until the media is whole
_SHOWN = 5
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class ZipMode(StrEnum):
    """`ARCHIVER_VOD_ZIP`."""

    UNPACK = "unpack"
    KEEP = "keep"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class _HeldPlaylist:
    member: Member
    path: str
    data: bytes


class ZipContents:
    """`archiving.contents.base.Contents` of a zip. `name` is that of the zip as a file, for KEEP and BOTH."""

    form = "zip"

    def __init__(
        self,
        source: Source,
        info: SourceInfo,
        *,
        name: str,
        version: str,
        mode: ZipMode = ZipMode.UNPACK,
        expected: Expected = Expected(),  # noqa: B008 - frozen
        limits: ZipLimits = ZipLimits(),  # noqa: B008 - frozen
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        """Reads the directory and judges it before anything is written. Raises BadContents, SourceError.

        A source that cannot be read by range is kept as the zip it is, with a warning, whatever `mode` says: a
        zip can be unpacked safely only by its directory, which lies at its end.
        """
        self._source = source
        self._info = info
        self._name = name
        self._expected = expected
        self._window_bytes = window_bytes
        self._notes = Notes(facts={"zip_size": info.size_bytes} if info.size_bytes is not None else {})
        if not info.ranges or info.size_bytes is None:
            if mode is not ZipMode.KEEP:
                self._notes.warnings.append(
                    f"{source.name} cannot be read by range: the zip is kept as it is, not unpacked"
                )
            mode = ZipMode.KEEP
            self._members: list[Member] = []
        else:
            self._members = read_directory(source, info, limits)
        self._mode = mode
        self._version = f"{version}-{mode}"

    @property
    def version(self) -> str:
        return self._version

    @property
    def notes(self) -> Notes:
        return self._notes

    def items(self) -> Iterator[Item]:
        """See `Contents.items`. Raises IncompleteContents when a playlist names what is no member, and
        BadContents; a member whose bytes do not have its size or CRC-32 raises SourceMismatch from its chunks."""
        if self._mode is not ZipMode.UNPACK:
            yield self._whole()
        if self._mode is not ZipMode.KEEP:
            yield from self._unpacked()

    def _whole(self) -> Item:
        return Item(
            path=self._name if self._mode is ZipMode.KEEP else f"{ZIP_FOLDER}/{self._name}",
            content_type="application/zip",
            source=self._source,
            check=sniff.check_for(Kind.ZIP, self._name),
            size_bytes=self._info.size_bytes,
        )

    def _unpacked(self) -> Iterator[Item]:
        held: list[_HeldPlaylist] = []
        held_bytes = 0
        with self._pass() as zip_pass:
            for member in self._members:
                path = safe_path(member.name)
                if sniff.kind_of(member.name) is Kind.PLAYLIST:
                    held_bytes += member.size_bytes
                    if member.size_bytes > MAX_PLAYLIST_BYTES or held_bytes > MAX_PLAYLISTS_BYTES:
                        raise BadContents(f"zip member {member.name!r} is no playlist of a sane size")
                    held.append(_HeldPlaylist(member, path, zip_pass.whole(member)))
                    continue
                chunks = _MemberChunks(zip_pass, member)
                yield Item(
                    path=path,
                    content_type=sniff.content_type(path),
                    chunks=chunks,
                    check=_check(member),
                    size_bytes=member.size_bytes,
                )
                chunks.finish()
        yield from self._playlists(held)

    def _pass(self) -> _Pass:
        stop = self._members[-1].room_ends if self._members else 0
        return _Pass(self._source, self._info, stop, self._window_bytes)

    def _playlists(self, held: list[_HeldPlaylist]) -> Iterator[Item]:
        """The playlists, judged together and then given in their phases."""
        members = {member.name for member in self._members}
        facts = TreeFacts()
        missing: list[str] = []
        changed: dict[str, bytes] = {}
        rewritten: dict[str, Mapping[str, object] | None] = {}
        masters: list[_HeldPlaylist] = []
        defined: dict[bytes, bytes] = {}
        for each in sorted(
            held, key=lambda playlist: b"#EXT-X-STREAM-INF" not in playlist.data
        ):  # masters first
            try:
                playlist = Playlist(each.data, defined)
            except BadContents as error:
                raise BadContents(f"zip member {each.member.name!r}: {error}") from None
            if is_unfinished(each.data):
                self._notes.warnings.append(f"{each.path} has no EXT-X-ENDLIST: archived as it is")
            replacements: dict[Span, bytes] = {}
            for reference in playlist.references():
                if (target := _target(reference, each.member.name, members)) is None:
                    if _must_be_there(reference):
                        missing.append(f"{reference.uri.partition('?')[0]} (named in {each.member.name})")
                    continue
                if (text := new_text(reference, each.path, safe_path(target))) is not None:
                    replacements[reference.span] = text
                if reference.role is Role.VARIANT:
                    facts.variants.add(target)
            replacements.update(playlist.neutralised)
            facts.add(each.path, playlist)
            if playlist.is_master:
                masters.append(each)
                defined.update(playlist.variables)
            changed[each.path] = rewrite(each.data, replacements)
            rewritten[each.path] = what_changed(each.data, replacements)
        if missing:
            raise IncompleteContents(
                f"{self._source.name}: {len(missing)} files that its playlists name are not in the zip:"
                f" {', '.join(missing[:_SHOWN])}"
            )
        if not held:
            self._notes.warnings.append("the zip holds no playlist: its files were stored as they are")
        facts.tell(self._notes, len(self._members) - len(held), self._expected)
        # nothing names the top master: with several, the one that lies highest is it
        top = min(masters or held, key=lambda playlist: playlist.path.count("/"), default=None)
        for each in sorted(held, key=lambda playlist: (playlist is top, playlist in masters)):
            yield Item(
                path=each.path,
                content_type=sniff.content_type(each.path),
                phase=Phase.MASTER if each is top else Phase.PLAYLIST,
                data=changed[each.path],
                rewritten=rewritten[each.path],
            )


class _Pass:
    """One pass over the zip, in order, that leaves out what is skipped: behind it the reading goes on afresh. Use as a
    context manager."""

    def __init__(self, source: Source, info: SourceInfo, stop: int, window_bytes: int) -> None:
        self._source = source
        self._info = info
        self._stop = stop
        self._window_bytes = window_bytes
        self._open = ExitStack()
        self._ahead: ReadAhead | None = None
        self._skipping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def skip(self) -> None:
        self._skipping = True

    def chunks(self, member: Member) -> Iterator[bytes | memoryview]:
        """The inflated bytes of `member`."""
        self._skipping = False
        # as far as it was read ahead, what lies between has come already or is on its way
        if self._ahead is None or member.offset - self._ahead.position > WINDOWS * self._window_bytes:
            self._open.close()
            self._ahead = self._open.enter_context(self._read_ahead(member.offset, self._stop))
        yield from _inflated_member(self._ahead, member)

    def whole(self, member: Member) -> bytes:
        """All of a small one; by itself unless the bytes around it are read too."""
        if self._ahead is not None and not self._skipping:
            return b"".join(self.chunks(member))
        with self._read_ahead(member.offset, member.room_ends) as alone:
            return b"".join(_inflated_member(alone, member))

    def _read_ahead(self, start: int, stop: int) -> ReadAhead:
        return ReadAhead(self._source, self._info, start, stop, window_bytes=self._window_bytes)


class _MemberChunks:
    """The inflated bytes of one member: an iterable to be read once, or skipped. Raises SourceMismatch when they have
    not its size or CRC-32, BadContents when the zip contradicts itself."""

    def __init__(self, zip_pass: _Pass, member: Member) -> None:
        self._pass = zip_pass
        self._member = member
        self._finished = False
        self._chunks = self._read()

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return self._chunks

    def skip(self) -> None:
        """Instead of reading: nothing of it is fetched."""
        self._pass.skip()
        self._finished = True

    def finish(self) -> None:
        """Hold the caller to the promise that it read or skipped everything before it asked for the next item."""
        if not self._finished:
            raise RuntimeError(
                f"zip member {self._member.name!r} was not read to its end before the next one"
            )

    def _read(self) -> Iterator[bytes | memoryview]:
        yield from self._pass.chunks(self._member)
        self._finished = True


def _inflated_member(stream: ReadAhead, member: Member) -> Iterator[bytes | memoryview]:
    stream.skip_to(member.offset)
    header = stream.read(local_header_bytes(member))
    stream.skip_to(data_offset(member, header))
    packed = stream.pieces(member.packed_bytes)
    crc = size = 0
    for chunk in packed if member.method == STORED else _inflated(packed, member.name):
        size += len(chunk)
        if size > member.size_bytes:
            raise BadContents(
                f"zip member {member.name!r} is larger than the {member.size_bytes} bytes it says"
            )
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size != member.size_bytes or crc != member.crc32:
        raise SourceMismatch(
            f"zip member {member.name!r} does not check out: {size} bytes with CRC-32 {crc:08x}, the zip says"
            f" {member.size_bytes} with {member.crc32:08x}"
        )


def _inflated(packed: Iterator[memoryview], name: str) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in packed:
            chunk = inflate.decompress(piece, _MIB)
            while chunk:
                yield chunk
                chunk = inflate.decompress(inflate.unconsumed_tail, _MIB)
    except zlib.error as error:
        raise SourceMismatch(f"zip member {name!r} cannot be inflated: {error}") from None
    if not inflate.eof or inflate.unused_data:
        raise SourceMismatch(f"zip member {name!r} does not end where the zip says")


def _check(member: Member) -> sniff.Check | None:
    """Media must not be an error page. More cannot be asked of it: it may be encrypted, and which is, only the
    playlists tell. Its CRC-32 says that it is what was packed."""
    if sniff.kind_of(member.name) in (Kind.SEGMENT, Kind.MP4, Kind.WEBM, Kind.IMAGE) and member.size_bytes:
        return sniff.check_for(Kind.ANY, member.name)
    return None


def _target(reference: Reference, from_member: str, members: set[str]) -> str | None:
    """The member that a reference names; None when it names none."""
    path = re.split("[?#]", reference.uri)[0]
    if _SCHEME.match(path) or path.startswith("//"):
        return None
    folder = "" if path.startswith("/") else posixpath.dirname(from_member)
    for name in (path, unquote(path)):
        member = posixpath.normpath(posixpath.join(folder, name.lstrip("/")))
        if member in members:
            return member
    return None


def _must_be_there(reference: Reference) -> bool:
    if reference.gap or reference.role in (Role.LINK, Role.PART):
        return False
    scheme = _SCHEME.match(reference.uri)
    if scheme is None:
        return True
    name = scheme.group().lower()
    return name != "data:" and not (reference.role is Role.KEY and name not in ("http:", "https:"))

"""Judge the playlists of a zip together: which members they need, which are missing, and how to store them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from archiver.core.contents import sniff
from archiver.core.contents.base import Doubt, Item, Notes, Phase
from archiver.core.contents.hls.facts import Expected, Stream, TreeFacts
from archiver.core.contents.hls.files import check_of
from archiver.core.contents.hls.layout import new_text, text_outside, what_changed
from archiver.core.contents.hls.playlist import Playlist
from archiver.core.contents.hls.references import Reference, Role, Span, rewrite
from archiver.core.contents.sniff import Kind
from archiver.core.contents.zip.directory import Member
from archiver.core.contents.zip.playlists import depth, is_junk, is_master, is_playlist
from archiver.core.contents.zip.references import MemberNames, candidates, is_required, shown
from archiver.core.errors import BadContents
from archiver.core.records.keys import safe_path
from archiver.transfer.base import Check, SourceInfo
from archiver.transfer.errors import ErrorPage, UnexpectedContent

MAX_REFERENCES = 1_000_000  # of all playlists; 12 h in four layers are 86,400
MAX_LISTED = 100_000  # missing files with a doubt of their own
_STREAMS = {"AUDIO": Stream.RENDITION, "VIDEO": Stream.RENDITION, "SUBTITLES": Stream.SUBTITLES}


_BESIDE_THE_RECORDING = frozenset({Stream.SUBTITLES, Stream.TRICK_PLAY})


@dataclass(frozen=True, slots=True)
class _Need:
    """Why a playlist needs a member."""

    role: Role
    encrypted: bool = False
    key_bytes: int | None = None
    streams: frozenset[Stream] = frozenset()

    @property
    def is_media(self) -> bool:
        is_beside_it = bool(self.streams) and self.streams <= _BESIDE_THE_RECORDING
        return self.role in (Role.SEGMENT, Role.PART) and not is_beside_it

    def check(self, path: str) -> Check:
        if self.role is Role.DATA:
            return sniff.check_for_path(path)
        like_it = Reference(
            (0, 0), "", self.role, verbatim=False, encrypted=self.encrypted, key_bytes=self.key_bytes
        )
        return check_of(like_it, path, self.streams)


_SESSION_DATA = _Need(Role.DATA)


class ZipTree:
    """The playlists of one zip. `session_data`: members named by EXT-X-SESSION-DATA."""

    def __init__(self, held: Mapping[str, bytes], members: Mapping[str, Member], names: MemberNames) -> None:
        self.session_data: set[str] = set()
        self._held = held
        self._members = members
        self._names = names
        self._facts = TreeFacts()
        self._doubts: list[Doubt] = []
        self._missing: set[str] = set()
        self._empty: set[str] = set()
        self._references = 0
        self._needs: dict[str, _Need] = {}
        self._kinds_of_need: dict[_Need, _Need] = {}  # equal ones share one object
        self._streams: dict[str, set[Stream]] = {}
        self._variables: dict[str, Mapping[bytes, bytes]] = {}  # by the playlist that inherits them
        self._all_variables: dict[bytes, bytes] = {}
        self._playlists: list[Item] = []
        self._read: list[tuple[str, Playlist, Mapping[Span, bytes]]] = []
        self._used_in_queries: frozenset[bytes] = frozenset()
        self._masters: set[str] = set()

    def judge(self, notes: Notes, expected: Expected, others: int) -> None:
        """Read every playlist, masters first. `others`: the number of other members."""
        for name in sorted(self._held, key=lambda name: (not is_master(self._held[name]), depth(name))):
            self._playlist(name)
        self._playlists += [self._stored(*each) for each in self._read]
        summary = Notes()
        self._facts.summarize(summary, others, expected)
        notes.facts.update(summary.facts)
        notes.warnings += summary.warnings
        # the source cannot complete a zip
        notes.doubts += [*self._doubts, *(replace(doubt, unready=False) for doubt in summary.doubts)]
        if not self._held:
            notes.doubts.append(Doubt("the zip holds no playlist: its files were stored as they are"))
        elif not any(need.is_media for need in self._needs.values()):
            notes.doubts.append(
                Doubt("the zip holds no recording: its playlists name no media that is in it")
            )
        if len(self._missing) > MAX_LISTED:
            more = len(self._missing) - MAX_LISTED
            notes.doubts.append(Doubt(f"{more} more files are named and not in the zip", missing=True))

    def check(self, name: str) -> Check | None:
        """Return the check of a member's first bytes, by what the playlists need it for; None if nothing is expected or
        it is empty."""
        if not self._members[name].size_bytes or is_junk(name):
            return None  # there is a doubt already where it must not be empty
        path = safe_path(name)
        if need := self._needs.get(name):
            return as_packed(need.check(path))
        by_name = sniff.kind_of(name)
        if by_name in (Kind.IMAGE, Kind.PLAYLIST):
            return as_packed(sniff.check_for(by_name, path))
        if by_name in sniff.MEDIA:  # it may be encrypted; only a playlist could tell
            return as_packed(sniff.check_for(Kind.ANY, path))
        return partial(_check_unnamed, path)

    def items(self) -> Iterator[Item]:
        """Yield the playlists, the top master last."""
        # the top master is the least nested one
        ranked = sorted(
            self._playlists, key=lambda item: (item.path not in self._masters, item.path.count("/"))
        )
        for item in reversed(ranked):
            item.phase = Phase.MASTER if item is ranked[0] else Phase.PLAYLIST
            yield item

    # -- one playlist --------------------------------------------------------------------------------------
    def _playlist(self, name: str) -> None:
        data, path = self._held[name], safe_path(name)
        replacements: dict[Span, bytes] = {}
        streams = self._streams.get(name) or self._streams_of_unnamed(data)
        try:
            playlist = Playlist(data, self._variables.get(name, self._all_variables))
            for reference in playlist.references():
                self._references += 1
                if self._references > MAX_REFERENCES:
                    raise BadContents(f"the playlists name more than {MAX_REFERENCES} files")
                if (text := self._reference(reference, name, path, playlist, streams)) is not None:
                    replacements[reference.span] = text
        except BadContents as error:
            self._doubts.append(Doubt(f"is stored as it is, for it cannot be read: {error}", path))
            self._playlists.append(Item(path, _type_of_unread(data, path), Phase.PLAYLIST, data=data))
            return
        if playlist.is_master:
            self._masters.add(path)
            self._all_variables.update(playlist.variables)
        self._used_in_queries |= playlist.used_in_queries
        self._facts.add(path, playlist, streams)
        self._read.append((path, playlist, replacements))

    def _stored(self, path: str, playlist: Playlist, replacements: Mapping[Span, bytes]) -> Item:
        """Make the item of a playlist, last: a variable a master defines may be used in a query of any playlist that
        imports it."""
        if playlist.is_master:
            playlist.blank(self._used_in_queries)
        changes = {**replacements, **playlist.neutralised}
        return Item(
            path,
            sniff.content_type(path) if sniff.kind_of(path) is Kind.PLAYLIST else _PLAYLIST_TYPE,
            Phase.PLAYLIST,
            data=rewrite(playlist.data, changes),
            rewritten=what_changed(playlist.data, changes),
        )

    def _streams_of_unnamed(self, data: bytes) -> set[Stream]:
        """Return the role of a playlist that no master names: without a master, every playlist is a variant."""
        return set() if self._masters and not is_master(data) else {Stream.VARIANT}

    # -- one reference -------------------------------------------------------------------------------------
    def _reference(
        self, reference: Reference, name: str, path: str, playlist: Playlist, streams: set[Stream]
    ) -> bytes | None:
        """Return the text to replace it with; None if it stays."""
        target = self._names.target(reference, name)
        if target is None:
            return self._unmet(reference, name, path)
        if reference.role in (Role.VARIANT, Role.RENDITION):
            self._child(reference, target, playlist)
        elif reference.role is Role.DATA:
            self.session_data.add(target)
            self._needs.setdefault(target, _SESSION_DATA)
        elif reference.role is not Role.LINK:
            self._file(reference, target, streams)
        return _text(reference, path, safe_path(target))

    def _child(self, reference: Reference, target: str, playlist: Playlist) -> None:
        self._variables.setdefault(target, playlist.variables)
        streams = self._streams.setdefault(target, set())
        if reference.role is Role.VARIANT:
            streams.add(Stream.VARIANT)
            self._facts.variants.add(target)
        else:
            streams.add(_STREAMS.get(reference.media_type or "", Stream.TRICK_PLAY))

    def _file(self, reference: Reference, target: str, streams: set[Stream]) -> None:
        need = _Need(reference.role, reference.encrypted, reference.key_bytes, frozenset(streams))
        if reference.role is not Role.PART or target not in self._needs:
            self._needs[target] = self._kinds_of_need.setdefault(need, need)
        is_captions = Stream.SUBTITLES in streams or sniff.kind_of(target) is Kind.CAPTIONS
        may_be_empty = is_captions and reference.role in (Role.SEGMENT, Role.PART)
        if self._members[target].size_bytes or may_be_empty or not is_required(reference):
            return
        if target not in self._empty:
            self._empty.add(target)
            self._doubts.append(Doubt(f"is empty, and needed as a {reference.role.value}", safe_path(target)))

    def _unmet(self, reference: Reference, name: str, path: str) -> bytes | None:
        """Handle a reference to no member: a doubt if it is required. Its query is removed."""
        inside = next(candidates(reference, name), None)
        needed = is_required(reference)
        if needed and (key := inside or shown(reference)) not in self._missing:
            self._missing.add(key)
            if len(self._missing) > MAX_LISTED:
                pass
            elif inside is None:
                words = f"{path} names {shown(reference)}, which lies outside of the zip"
                self._doubts.append(Doubt(words, missing=True))
            else:
                words = f"is named in {path}, and is not in the zip"
                self._doubts.append(Doubt(words, safe_path(inside), missing=True))
        if inside is not None:
            return _text(reference, path, safe_path(inside))
        return text_outside(reference)


_PLAYLIST_TYPE = sniff.content_type("a.m3u8")


def _text(reference: Reference, from_path: str, to_path: str) -> bytes | None:
    if (text := new_text(reference, from_path, to_path)) is None and "//" in reference.uri:
        return posixpath.relpath(to_path, posixpath.dirname(from_path) or ".").encode()
    return text


def _type_of_unread(data: bytes, path: str) -> str:
    is_text = data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"#")
    return sniff.content_type(path) if is_text else "application/octet-stream"


def _check_unnamed(path: str, start: bytes, info: SourceInfo | None = None) -> None:  # noqa: ARG001
    """Check a file that no playlist names: anything but a playlist, whose files would be missed."""
    if is_playlist(start):
        raise UnexpectedContent(
            f"{path} is a playlist, which was not expected there, and was not looked into"
        )


def as_packed(strict: Check) -> Check:
    """Adapt `strict` to a member: what looks like an error page is no response, but was packed so, and may be stored
    with a doubt."""
    return partial(_as_packed, strict)


def _as_packed(strict: Check, start: bytes, info: SourceInfo | None = None) -> None:
    try:
        strict(start, info)
    except ErrorPage as error:
        raise UnexpectedContent(str(error)) from None

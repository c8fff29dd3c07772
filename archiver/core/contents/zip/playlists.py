"""Find and read the playlists of a zip, before its media.

Playlists are files named so, files that a master names as such, and among the few files nothing else names those that
begin with #EXTM3U (RFC 8216, section 4.3.1.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from archiver.core.contents import sniff
from archiver.core.contents.base import Doubt, Notes
from archiver.core.contents.hls.playlist import BOM, Playlist
from archiver.core.contents.hls.references import Reference, Role
from archiver.core.contents.sniff import Kind
from archiver.core.contents.zip.directory import Member
from archiver.core.contents.zip.references import MemberNames
from archiver.core.contents.zip.stream import MemberBroken, ZipPass
from archiver.core.errors import BadContents
from archiver.core.records.keys import safe_path

_MIB = 1024 * 1024
MAX_PLAYLIST_BYTES = 64 * _MIB  # as for HlsLimits
MAX_PLAYLISTS_BYTES = 256 * _MIB  # of all, held in memory until the media is stored
MAX_PLAYLISTS = 500
MAX_PEEKS = 200  # files whose first bytes are read; each costs a request
_FOLLOWED = (Role.VARIANT, Role.RENDITION)
_MASTER_TAGS = (b"#EXT-X-STREAM-INF", b"#EXT-X-MEDIA:", b"#EXT-X-I-FRAME-STREAM-INF")


class ZipPlaylists:
    """`held`: the playlists by member name; `broken`: those damaged in the zip, with the reason."""

    def __init__(self, members: Mapping[str, Member], names: MemberNames, zip_pass: ZipPass) -> None:
        self.held: dict[str, bytes] = {}
        self.broken: dict[str, str] = {}
        self._members = members
        self._names = names
        self._pass = zip_pass
        self._held_bytes = 0
        self._too_many: list[str] = []
        self._too_large: list[str] = []
        self._explained: set[str] = set()  # named by a playlist

    def find(self, notes: Notes) -> None:
        """Read all playlists. Damaged, too large or too many ones become doubts. Raises what the source raises."""
        named = [name for name in self._members if sniff.kind_of(name) is Kind.PLAYLIST and not is_junk(name)]
        self._hold(sorted(named, key=depth))
        unknown = [name for name in self._members if sniff.kind_of(name) in (None, Kind.TEXT)]
        self._look_at(unknown)
        if not self.held:
            self._look_at(self._members)
        for name, error in self.broken.items():
            notes.doubts.append(Doubt(error, safe_path(name), missing=True))
        for name in self._too_large:
            notes.doubts.append(
                Doubt("is too large for a playlist, so it was not looked into", safe_path(name))
            )
        if self._too_many:
            notes.doubts.append(
                Doubt(
                    f"the zip has more than {MAX_PLAYLISTS} playlists; {len(self._too_many)} of them were stored and"
                    " not looked into"
                )
            )

    def _hold(self, names: Iterable[str]) -> None:
        """Read these, and the playlists that masters among them name."""
        queue = list(dict.fromkeys(names))
        for name in queue:  # grows while it is walked
            if name in self.held or name in self.broken:
                continue
            member = self._members[name]
            held_bytes = self._held_bytes + member.size_bytes
            if (
                max(member.size_bytes, member.packed_bytes) > MAX_PLAYLIST_BYTES
                or held_bytes > MAX_PLAYLISTS_BYTES
            ):
                self._too_large.append(name)
                continue
            if len(self.held) >= MAX_PLAYLISTS:
                self._too_many.append(name)
                continue
            try:
                self.held[name] = self._pass.whole(member)
            except MemberBroken as error:
                self.broken[name] = str(error)
                continue
            self._held_bytes = held_bytes
            if is_master(self.held[name]):
                queue += self._children(name)

    def _children(self, name: str) -> list[str]:
        found = self._targets(name, _FOLLOWED)
        return [child for child in found if child not in self.held]

    def _targets(self, name: str, roles: Iterable[Role]) -> list[str]:
        found: dict[str, None] = {}
        for reference in references(self.held[name]):
            if reference.role in roles and (target := self._names.target(reference, name)):
                found[target] = None
        return list(found)

    def _look_at(self, names: Iterable[str]) -> None:
        """Hold files that begin like a playlist and that no playlist names, the least nested first."""
        looked_into = peeks = 0
        for name in sorted(names, key=lambda name: (depth(name), self._members[name].size_bytes)):
            if looked_into < len(self.held):
                for playlist in list(self.held)[looked_into:]:
                    self._explained.update(self._targets(playlist, Role))
                looked_into = len(self.held)
            member = self._members[name]
            is_candidate = member.size_bytes and member.size_bytes <= MAX_PLAYLIST_BYTES and not is_junk(name)
            if not is_candidate or name in self.held or name in self._explained or name in self.broken:
                continue
            peeks += 1
            if peeks > MAX_PEEKS:
                return
            try:
                start = self._pass.start(member)
            except MemberBroken:
                continue  # reported when it is read
            if is_playlist(start):
                self._hold([name])


def references(data: bytes) -> Iterator[Reference]:
    """Yield the references that can be parsed."""
    with suppress(BadContents):
        yield from Playlist(data).references()


def is_playlist(start: bytes) -> bool:
    return start.removeprefix(BOM).startswith(b"#EXTM3U")


def is_master(data: bytes) -> bool:
    return any(tag in data for tag in _MASTER_TAGS)


def is_junk(name: str) -> bool:
    """Tell a file that macOS adds to a zip beside each file (AppleDouble), under the same name."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")


def depth(name: str) -> int:
    return name.count("/")

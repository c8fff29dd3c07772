"""An HLS tree, walked from its master: every file it names becomes an item, every playlist is kept byte for byte
but for the references that would lead out of the copy (hls.md).

Media is found and handed on while a playlist is read, so only playlists are held in memory, never a list of
segments.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from archiving.contents import sniff
from archiving.contents.access import ChildAddress, Node, TreeAccess, last_segment, signs_one_object
from archiving.contents.base import Item, Notes, Phase
from archiving.contents.layout import Place, TreeLayout, new_text, what_changed
from archiving.contents.playlist import Playlist, Reference, Role, Span, is_unfinished, rewrite
from archiving.contents.session_data import json_urls
from archiving.contents.sniff import Kind
from archiving.contents.tree_facts import Expected, TreeFacts
from archiving.errors import BadContents, NeedsSourceAccess
from transfer import stopping
from transfer.errors import SourceForbidden, SourceUnavailable
from transfer.http import HttpClient
from transfer.source import Fetched, SecretUrl, SourceAddress

_MIB = 1024 * 1024
_PLAYLISTS = (Role.VARIANT, Role.RENDITION)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

OpenAccess = Callable[[HttpClient, SourceAddress, int], TreeAccess]
"""How the files of one tree are read: client, address of the master, the most bytes of a playlist."""


@dataclass(frozen=True, slots=True)
class HlsLimits:
    """What a tree may cost; a real one stays far below (hls.md, traps 10 and 12: 12 h are 86,400 references)."""

    depth: int = 4
    playlists: int = 500
    references: int = 1_000_000
    playlist_bytes: int = 64 * _MIB
    all_playlists_bytes: int = 256 * _MIB  # held in memory until the media is whole
    polls: int = 20  # of a playlist without ENDLIST
    poll_every: timedelta = timedelta(seconds=4)  # two segments of 2 s


@dataclass(frozen=True, slots=True)
class _Found:
    node: Node
    place: Place
    address: ChildAddress | None  # None: the master


class HlsContents:
    """`archiving.contents.base.Contents` of a tree."""

    form = "hls"

    def __init__(
        self,
        client: HttpClient,
        master: SourceAddress,
        *,
        expected: Expected = Expected(),  # noqa: B008 - frozen
        limits: HlsLimits = HlsLimits(),
        sleep: Callable[[float], None] = stopping.pause,
        open_access: OpenAccess = TreeAccess,
    ) -> None:
        """Reads the master. Raises SourceError, BadContents."""
        self._limits = limits
        self._expected = expected
        self._sleep = sleep
        self._notes = Notes()
        self._access = open_access(client, master, limits.playlist_bytes)
        self._layout = TreeLayout(self._access.master.url)
        self._root = Node(None, 0, last_segment(self._access.master.url))
        self._playlists = {self._layout.master.identity}
        self._files: set[bytes] = (
            set()
        )  # digests of identities: 16 bytes each, not the URLs of 86,400 segments
        self._facts = TreeFacts()
        self._references = self._held_bytes = 0
        self._read_a_child = False
        self._forbidden: SourceForbidden | None = None
        self._master_signed_alone = signs_one_object(self._access.master.url)
        self._version = self._digest_of_master()

    @property
    def version(self) -> str:
        """Hex SHA-256 of the master with each reference replaced by its place: another signature in it does not
        make another version. (That of the whole tree is not known before it is walked.)"""
        return self._version

    @property
    def notes(self) -> Notes:
        return self._notes

    def items(self) -> Iterator[Item]:
        """See `Contents.items`. Raises NeedsSourceAccess when the signature covers the master alone."""
        kept: list[Item] = []
        queue = [_Found(self._root, self._layout.master, None)]
        for found in queue:  # grows while it is walked
            try:
                fetched = self._read_to_the_end(found)
            except SourceForbidden as error:
                self._forbidden = error
                continue
            self._read_a_child |= found.address is not None
            playlist = found.node.parse(fetched)
            replacements: dict[Span, bytes] = {}
            yield from self._walk(found, fetched, playlist, replacements, queue)
            kept.append(self._playlist_item(found, playlist, replacements))
        if self._forbidden is not None:
            if self._read_a_child or not self._master_signed_alone:
                raise self._forbidden
            raise self._needs_access()
        if not self._files and len(queue) == 1:
            raise BadContents(f"{self._access.master.url.name} is a playlist that names no files")
        self._facts.tell(self._notes, len(self._files), self._expected)
        yield from kept[1:]
        yield kept[0]

    # -- reading playlists ---------------------------------------------------------------------------------
    def _read_to_the_end(self, found: _Found) -> Fetched:
        """The playlist, asked for again until it has an ENDLIST or is the same three times."""
        fetched = self._read(found)
        same = 1
        for _ in range(self._limits.polls):
            if not is_unfinished(fetched.body):
                return fetched
            if same == 3:
                self._notes.warnings.append(
                    f"{found.place.path} has no EXT-X-ENDLIST and did not change any more: archived as it is; "
                    "some players take it for a live stream"
                )
                return fetched
            self._sleep(self._limits.poll_every.total_seconds())
            again = self._read(found)
            same = same + 1 if again.body == fetched.body else 1
            fetched = again
        raise SourceUnavailable(f"{fetched.url.name} is still growing after {self._limits.polls} looks at it")

    def _read(self, found: _Found) -> Fetched:
        fetched = self._access.read(found.node, found.address)
        _check_is_playlist(fetched)
        return fetched

    def _walk(
        self,
        found: _Found,
        fetched: Fetched,
        playlist: Playlist,
        replacements: dict[Span, bytes],
        queue: list[_Found],
    ) -> Iterator[Item]:
        """The media of one playlist; what it names otherwise goes to `queue`, what must change in it to
        `replacements`."""
        folder = self._layout.plain_folder(fetched.url, found.place.path)
        children: list[tuple[int, Reference, SecretUrl, Place]] = []
        for ordinal, reference in enumerate(playlist.references()):
            self._references += 1
            if self._references > self._limits.references:
                raise BadContents(f"the playlists hold more than {self._limits.references} references")
            if folder and (plain := folder.place(reference)):
                url, place = plain
            elif not _is_fetchable(reference):
                continue
            else:
                url = fetched.url.join(reference.uri)
                place = self._layout.place(url)
                if (text := new_text(reference, found.place.path, place.path)) is not None:
                    replacements[reference.span] = text
            if reference.role in _PLAYLISTS:
                children.append((ordinal, reference, url, place))
            elif reference.role is not Role.LINK and not reference.gap and self._is_new_file(place):
                address = self._access.child(found.node, ordinal, url)
                if self._master_signed_alone and not self._read_a_child:
                    self._probe(address)
                if reference.role is Role.DATA:
                    yield from self._session_data(address, place)
                else:
                    yield self._file(reference, address, place)
        replacements.update(playlist.neutralised)
        found.node.variables = playlist.variables
        for ordinal, reference, url, place in children:
            if reference.role is Role.VARIANT:
                self._facts.variants.add(place.identity)
            if place.identity not in self._playlists:
                queue.append(self._follow(found, ordinal, url, place))
        self._facts.add(found.place.path, playlist)

    def _follow(self, found: _Found, ordinal: int, url: SecretUrl, place: Place) -> _Found:
        node = Node(found.node, ordinal, last_segment(url))
        if node.depth > self._limits.depth:
            raise BadContents(f"{url.name} is a playlist more than {self._limits.depth} levels deep")
        self._playlists.add(place.identity)
        if len(self._playlists) > self._limits.playlists:
            raise BadContents(f"the tree has more than {self._limits.playlists} playlists")
        if _digest(place) in self._files:
            raise BadContents(f"{url.name} is named as a playlist here and as media elsewhere")
        return _Found(node, place, self._access.child(found.node, ordinal, url))

    # -- items ---------------------------------------------------------------------------------------------
    def _is_new_file(self, place: Place) -> bool:
        if place.identity in self._playlists or (digest := _digest(place)) in self._files:
            return False
        self._files.add(digest)
        return True

    def _file(self, reference: Reference, address: ChildAddress, place: Place) -> Item:
        content_type, by_name = sniff.type_and_kind(place.path)
        return Item(
            path=place.path,
            content_type=content_type,
            source=self._access.source(address),
            check=sniff.check_for(_expected_kind(reference, by_name), place.path),
            optional=reference.role is Role.PART,
        )

    def _session_data(self, address: ChildAddress, place: Place) -> Iterator[Item]:
        """A JSON of session data, and the images it names."""
        fetched = self._access.fetch(address)
        replacements: dict[Span, bytes] = {}
        for found in json_urls(fetched.body):
            if urlsplit(found.uri).scheme not in ("", "http", "https"):
                continue
            url = fetched.url.join(found.uri)
            image = self._layout.place(url)
            as_reference = Reference(found.span, found.uri, Role.LINK, verbatim=True)
            if (text := new_text(as_reference, place.path, image.path)) is not None:
                replacements[found.span] = json.dumps(text.decode()).encode()
            if self._is_new_file(image):
                yield Item(
                    path=image.path,
                    content_type=sniff.content_type(image.path),
                    source=self._access.source(self._access.fixed(url)),
                    check=sniff.check_for_path(image.path),
                    optional=True,
                )
        data = rewrite(fetched.body, replacements)
        yield Item(
            path=place.path,
            content_type=sniff.content_type(place.path),
            data=data,
            rewritten=what_changed(fetched.body, replacements),
        )

    def _playlist_item(self, found: _Found, playlist: Playlist, replacements: dict[Span, bytes]) -> Item:
        data = rewrite(playlist.data, replacements)
        self._held_bytes += len(data)
        if self._held_bytes > self._limits.all_playlists_bytes:
            raise BadContents(
                f"the playlists hold more than {self._limits.all_playlists_bytes} bytes together"
            )
        return Item(
            path=found.place.path,
            content_type="application/vnd.apple.mpegurl",
            phase=Phase.MASTER if found.address is None else Phase.PLAYLIST,
            data=data,
            rewritten=what_changed(playlist.data, replacements),
        )

    # -- the master ----------------------------------------------------------------------------------------
    def _digest_of_master(self) -> str:
        fetched = self._access.master
        _check_is_playlist(fetched)
        layout, playlist = TreeLayout(fetched.url), self._root.parse(fetched)
        placed = {
            reference.span: layout.place(fetched.url.join(reference.uri)).path.encode()
            for reference in playlist.references()
            if _is_fetchable(reference)
        }
        return hashlib.sha256(rewrite(fetched.body, {**placed, **playlist.neutralised})).hexdigest()

    def _probe(self, address: ChildAddress) -> None:
        """Whether anything but the master can be read at all."""
        try:
            _, reader = self._access.source(address).open(1)
        except SourceForbidden:
            raise self._needs_access() from None
        reader.close()
        self._read_a_child = True

    def _needs_access(self) -> NeedsSourceAccess:
        return NeedsSourceAccess(
            f"only {self._access.master.url.name} is signed; what it names answers 403. Credentials for the bucket "
            "that the asset's path names are needed (ARCHIVER_SOURCE_ACCESS), or a VOD upload format of 'zipped' in "
            "the 100ms template"
        )


def _check_is_playlist(fetched: Fetched) -> None:
    sniff.check_for(Kind.PLAYLIST, fetched.url.name)(fetched.body[: sniff.SNIFF_BYTES])


def _is_fetchable(reference: Reference) -> bool:
    """False for what stays as it is (`data:`, and the `skd:` and `urn:` of keys). Raises BadContents for any other
    scheme than http and https."""
    match = _SCHEME.match(reference.uri)
    scheme = match.group(1).lower() if match else ""
    if scheme in ("", "http", "https"):
        return True
    if scheme == "data" or reference.role is Role.KEY:
        return False
    raise BadContents(f"the playlist names a {reference.role.value} by {scheme}:, which is never followed")


def _expected_kind(reference: Reference, by_name: Kind | None) -> Kind:
    if reference.role is Role.KEY:
        return Kind.KEY if reference.plain_key else Kind.ANY
    return Kind.ANY if reference.encrypted or by_name in (None, Kind.ANY) else Kind.SEGMENT


def _digest(place: Place) -> bytes:
    return hashlib.sha256(place.identity.encode()).digest()[:16]

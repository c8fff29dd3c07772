"""Walk an HLS tree from its master playlist (RFC 8216): every file it names becomes an item. Playlists are kept byte
for byte, except for references that would lead out of the copy.

Media is yielded while a playlist is read, so only playlists are held in memory, never a list of segments. A file or
playlist that cannot be read becomes a doubt, and the walk continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from archiver.core.contents import sniff
from archiver.core.contents.base import Item, Notes, Phase
from archiver.core.contents.hls.access import (
    ChildAddress,
    Node,
    TreeAccess,
    check_fetched,
    last_segment,
    signs_one_object,
)
from archiver.core.contents.hls.changing_parameters import ChangingParameters, LearningLayout
from archiver.core.contents.hls.doubts import TreeDoubts, is_fetchable, may_stay, scheme_of
from archiver.core.contents.hls.facts import Expected, Stream, TreeFacts
from archiver.core.contents.hls.files import TreeFiles, check_of
from archiver.core.contents.hls.layout import TreeFile, TreeLayout, new_text, text_outside, what_changed
from archiver.core.contents.hls.limits import HlsLimits
from archiver.core.contents.hls.playlist import Playlist
from archiver.core.contents.hls.playlist_reader import PlaylistReader
from archiver.core.contents.hls.reachability import Reachability
from archiver.core.contents.hls.references import Reference, Role, Span, rewrite
from archiver.core.contents.hls.session_data import check_of_session_data, with_local_images
from archiver.core.contents.sniff import Kind
from archiver.core.contents.source_failures import BUSY
from archiver.core.errors import BadContents
from archiver.http.waiting import pause
from archiver.transfer.addresses import SourceAddress
from archiver.transfer.base import Source
from archiver.transfer.documents import Fetched
from archiver.transfer.errors import SourceError, UnexpectedContent
from archiver.transfer.http import HttpClient
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl

__all__ = ["HlsContents", "HlsLimits", "OpenAccess"]

_STREAMS = {"AUDIO": Stream.RENDITION, "VIDEO": Stream.RENDITION, "SUBTITLES": Stream.SUBTITLES}

OpenAccess = Callable[[HttpClient, SourceAddress, int], TreeAccess]
"""Open the access to a tree: client, address of the master, most bytes of a playlist."""


@dataclass(slots=True)
class _Found:
    """A playlist to walk."""

    node: Node
    file: TreeFile
    address: ChildAddress | None  # None: the master
    streams: set[Stream] = field(default_factory=set)


class HlsContents:
    """`core.contents.base.Contents` of a tree."""

    form = "hls"
    version_is_exact = False  # `version` covers only the master

    def __init__(
        self,
        client: HttpClient,
        master: SourceAddress,
        *,
        expected: Expected = Expected(),  # noqa: B008 - frozen
        limits: HlsLimits = HlsLimits(),  # noqa: B008 - frozen
        sleep: Callable[[float], None] = pause,
        open_access: OpenAccess = TreeAccess,
    ) -> None:
        """Read the master. Raises SourceError, BadContents."""
        self._limits = limits
        self._expected = expected
        self._notes = Notes()
        self._doubts = TreeDoubts(self._notes, limits.doubts)
        self._access = open_access(client, master, limits.playlist_bytes)
        self._changing = ChangingParameters(self._access, limits.references)
        self._reader = PlaylistReader(self._access, self._changing, limits, sleep)
        root = Node(None, 0, last_segment(self._access.master.url))
        self._master = self._reader.read(root, None)
        self._layout = LearningLayout(self._master.url, self._changing.names)
        self._root = _Found(root, self._layout.master, None, {Stream.VARIANT})
        self._playlists = {self._layout.master.identity: self._root}
        self._files = TreeFiles(self._access, limits.optional_files)
        self._reachability = Reachability(self._access)
        self._facts = TreeFacts()
        self._references = self._held_bytes = 0
        self._used_in_queries: frozenset[bytes] = frozenset()  # variables, by any playlist
        self._version = self._digest_of_master()

    @property
    def version(self) -> str:
        """Hex SHA-256 of the master with each reference replaced by its path in the copy: a new signature is no new
        version. (That of the whole tree is known after the walk: the fact `playlists_sha256`.)"""
        return self._version

    @property
    def notes(self) -> Notes:
        return self._notes

    @property
    def url(self) -> SecretUrl:
        """URL of the master, after redirects."""
        return self._access.master.url

    def source_beside(self, url: SecretUrl) -> Source | None:
        """Return a file no playlist names, such as a thumbnail, read with the tree's credentials. None when those are
        the master's own signature, which covers nothing else. Raises SourceNotAllowed."""
        source = self._access.source(self._access.standalone(url))
        return None if isinstance(source, HttpSource) and signs_one_object(self.url) else source

    def items(self) -> Iterator[Item]:
        """See `Contents.items`. Raises NeedsSourceAccess when the signature covers only the master; the worst
        SourceError, or BadContents, when there is no media."""
        kept: list[Item] = []
        queue = [self._root]
        for found in queue:  # grows while it is walked
            yield from self._playlist(found, queue, kept)
        yield from self._reachability.at_the_end()
        yield from self._files.optional_items()
        if self._files.left_out:
            self._notes.warnings.append(f"{self._files.left_out} optional files were too many to copy")
        kept[0] = self._master_item()
        self._facts.summarize(self._notes, len(self._files), self._expected)
        self._notes.facts["playlists_sha256"] = _digest_of(kept)
        yield from kept[1:]
        yield kept[0]

    # -- reading playlists ---------------------------------------------------------------------------------
    def _playlist(self, found: _Found, queue: list[_Found], kept: list[Item]) -> Iterator[Item]:
        """Yield what one playlist names; add the playlist to `kept` and its children to `queue`."""
        fetched = yield from self._fetched(found)
        if fetched is None:
            return
        replacements: dict[Span, bytes] = {}
        try:
            self._hold(len(fetched.body))
            playlist = found.node.parse(fetched)
            yield from self._walk(found, fetched, playlist, replacements, queue)
            self._hold(sum(map(len, replacements.values())) if replacements else 0)
        except BadContents as error:
            if found is self._root:
                raise
            self._doubts.add(f"was not followed to its end: {error}", found.file.path, missing=True)
            return
        if found is self._root:
            self._master_playlist, self._master_replacements = playlist, replacements
        self._used_in_queries |= playlist.used_in_queries
        kept.append(_playlist_item(found.file, Phase.PLAYLIST, playlist, replacements))

    def _master_item(self) -> Item:
        """Make the master's item, last: a variable it defines may be used in a query of any playlist that imports
        it."""
        playlist = self._master_playlist
        playlist.blank(self._used_in_queries)
        replacements = {**self._master_replacements, **playlist.neutralised}
        return _playlist_item(self._root.file, Phase.MASTER, playlist, replacements)

    def _fetched(self, found: _Found) -> Generator[Item, None, Fetched | None]:
        """Return a playlist, or None with a doubt. Another file in its place, unless it is an error page, becomes an
        item that the check for playlists refuses."""
        node, address, file = found.node, found.address, found.file
        if address is None:
            return self._reader.to_the_end(node, None, self._master)
        if self._reader.has_given_up:
            self._doubts.add(BUSY, file.path, missing=True, unready=True)
            return None
        try:
            fetched = self._reader.to_the_end(node, address, self._reader.read(node, address))
        except SourceError as error:
            self._reachability.failed(error)
            if start := self._reader.first_bytes_instead(address, error):
                yield self._files.item(address, file, sniff.check_for(Kind.PLAYLIST, file.path))
                self._reachability.has_media |= sniff.sniff(start) in sniff.MEDIA - {Kind.IMAGE}
            else:
                self._doubts.missing(file.path, error)
            return None
        self._reachability.read_a_child = True
        return fetched

    def _hold(self, more_bytes: int) -> None:
        if self._held_bytes + more_bytes > self._limits.all_playlists_bytes:
            raise BadContents(
                f"the playlists hold more than {self._limits.all_playlists_bytes} bytes together"
            )
        self._held_bytes += more_bytes

    # -- walking one ---------------------------------------------------------------------------------------
    def _walk(
        self,
        found: _Found,
        fetched: Fetched,
        playlist: Playlist,
        replacements: dict[Span, bytes],
        queue: list[_Found],
    ) -> Iterator[Item]:
        """Yield the media of one playlist; add child playlists to `queue`, changes of the playlist to
        `replacements`."""
        self._layout.learn(self._changing.names)
        folder = self._layout.plain_folder(fetched.url, found.file.path)
        children: list[tuple[int, Reference, SecretUrl, TreeFile]] = []
        for ordinal, reference in enumerate(playlist.references()):
            follow = self._count_reference(found)
            if folder and (plain := folder.place(reference)):
                url, file = plain
            elif (there := self._placed(found, fetched, reference)) is not None:
                url, file = there
                if (text := new_text(reference, found.file.path, file.path)) is not None:
                    replacements[reference.span] = text
            else:
                if (text := text_outside(reference)) is not None:
                    replacements[reference.span] = text
                continue
            if not follow:
                continue
            if reference.role is Role.VARIANT or reference.role is Role.RENDITION:
                children.append((ordinal, reference, url, file))
            elif reference.role is Role.LINK or reference.gap or file.identity in self._playlists:
                continue
            elif reference.role is Role.DATA:
                if self._files.is_new(file):
                    address = self._access.child(found.node, ordinal, url)
                    yield from self._session_data(address, file)
            elif (item := self._file(found, ordinal, reference, url, file)) is not None:
                if self._reachability.decided:
                    yield item
                else:
                    yield from self._reachability.probed(item)
        replacements.update(playlist.neutralised)
        found.node.variables = playlist.variables
        for ordinal, reference, url, file in children:
            self._follow(found, ordinal, reference, url, file, queue)
        self._facts.add(found.file.path, playlist, found.streams)

    def _count_reference(self, found: _Found) -> bool:
        """Count a reference. False beyond the limit: it is then not fetched, but still rewritten to stay in the
        copy."""
        self._references += 1
        limit = self._limits.references
        if self._references <= limit:
            return True
        if self._references > 2 * limit:
            raise BadContents(f"the playlists hold more than {2 * limit} references")
        self._doubts.add(
            f"holds what is beyond the tree's first {limit} references, which was not followed",
            found.file.path,
        )
        return False

    def _placed(
        self, found: _Found, fetched: Fetched, reference: Reference
    ) -> tuple[SecretUrl, TreeFile] | None:
        """Resolve a reference. None if it stays as it is, with a doubt unless it may."""
        what, path = reference.role.value, found.file.path
        if not is_fetchable(reference):
            if not may_stay(reference):
                self._doubts.add(f"names a {what} by {scheme_of(reference)}:, which is never followed", path)
            elif reference.role is Role.SEGMENT:
                self._reachability.has_media = True
            return None
        try:
            url = fetched.url.join(reference.uri)
            return url, self._layout.place(url, reference, path)
        except SourceError:
            if not may_stay(reference):
                self._doubts.add(f"names a {what} at an address that is never read", path)
        except BadContents as error:
            self._doubts.add(f"names a {what} that was not followed: {error}", path)
        return None

    def _follow(
        self,
        found: _Found,
        ordinal: int,
        reference: Reference,
        url: SecretUrl,
        file: TreeFile,
        queue: list[_Found],
    ) -> None:
        stream = (
            Stream.VARIANT
            if reference.role is Role.VARIANT
            else _STREAMS.get(reference.media_type, Stream.TRICK_PLAY)
        )
        known = self._playlists.get(file.identity)
        if known is self._root:
            return
        if stream is Stream.VARIANT:
            self._facts.variants.add(file.identity)
        if known is not None:
            known.streams.add(stream)
            return
        node = Node(found.node, ordinal, last_segment(url))
        if file in self._files:
            self._doubts.add("is named as media and as a playlist, and was not followed", file.path)
        elif node.depth > self._limits.depth:
            self._doubts.add(
                f"is a playlist more than {self._limits.depth} levels deep, and was not followed",
                file.path,
                missing=True,
            )
        elif len(self._playlists) >= self._limits.playlists:
            self._doubts.add(
                f"was not followed: the tree has more than {self._limits.playlists} playlists",
                file.path,
                missing=True,
            )
        else:
            address = self._access.child(found.node, ordinal, url)
            self._playlists[file.identity] = child = _Found(node, file, address, {stream})
            self._files.forget(file)
            queue.append(child)

    # -- items ---------------------------------------------------------------------------------------------
    def _file(
        self, found: _Found, ordinal: int, reference: Reference, url: SecretUrl, file: TreeFile
    ) -> Item | None:
        """Make the item of a file; None if there is one already, or the file is optional so far."""
        if reference.role is Role.SEGMENT or reference.role is Role.PART:
            self._reachability.has_media = True
        if reference.role is Role.PART:
            check = check_of(reference, file.path, found.streams)
            self._files.offer(self._access.child(found.node, ordinal, url), file, check)
            return None
        if not self._files.is_new(file):
            return None
        address = self._access.child(found.node, ordinal, url)
        return self._files.item(address, file, check_of(reference, file.path, found.streams))

    def _session_data(self, address: ChildAddress, file: TreeFile) -> Iterator[Item]:
        try:
            fetched = self._access.fetch(address)
        except SourceError as error:
            self._doubts.missing(file.path, error)
            return
        check = check_of_session_data(file.path, fetched.body)
        try:
            check_fetched(fetched, check)
        except UnexpectedContent:
            pass  # the copy runs the same check, and keeps it with a doubt in the end
        except SourceError as error:
            self._doubts.missing(file.path, error)
            return
        local = with_local_images(fetched, file, self._layout)
        for url, image in local.images:
            if image.identity not in self._playlists:
                self._files.offer(self._access.standalone(url), image, sniff.check_for_path(image.path))
        yield Item(
            path=file.path,
            content_type=sniff.content_type(file.path),
            data=local.data,
            check=check,
            rewritten=local.rewritten,
        )

    # -- the master ----------------------------------------------------------------------------------------
    def _digest_of_master(self) -> str:
        fetched = self._master
        layout = TreeLayout(fetched.url, self._changing.names)
        playlist = self._root.node.parse(fetched)
        placed: dict[Span, bytes] = {}
        for reference in islice(playlist.references(), self._limits.references):
            if is_fetchable(reference):
                try:
                    file = layout.place(fetched.url.join(reference.uri), reference, layout.master.path)
                except (SourceError, BadContents):
                    continue  # the walk reports it
                placed[reference.span] = file.path.encode()
        return hashlib.sha256(rewrite(fetched.body, {**placed, **playlist.neutralised})).hexdigest()


def _playlist_item(
    file: TreeFile, phase: Phase, playlist: Playlist, replacements: Mapping[Span, bytes]
) -> Item:
    return Item(
        path=file.path,
        content_type="application/vnd.apple.mpegurl",
        phase=phase,
        data=rewrite(playlist.data, replacements),
        rewritten=what_changed(playlist.data, replacements),
    )


def _digest_of(playlists: Iterable[Item]) -> str:
    """Digest all playlists as stored, without any signature."""
    digest = hashlib.sha256()
    for path, data in sorted((item.path, item.data or b"") for item in playlists):
        digest.update(f"{path}\n{hashlib.sha256(data).hexdigest()}\n".encode())
    return digest.hexdigest()

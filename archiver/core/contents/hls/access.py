"""How the files of one tree are read when only its master has a URL of ours (hls.md, trap 7).

Three ways, on the master's own scheme, host and port alone, the first that is not refused: as resolved; with the
cookies that the master's answer set; with the master's query as well, where that looks like a token for a folder. A
signature for one object (`X-Amz-*`, `X-Goog-*`) is never carried over. When a file is refused in the middle, the
playlists that lead to it are read again, and then once more under a fresh URL from the API.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from time import monotonic
from typing import ClassVar
from urllib.parse import urlsplit

from archiver.core.contents.hls.playlist import Playlist
from archiver.core.errors import BadContents
from archiver.transfer.base import CHECKED_BYTES, Check, Source, SourceInfo
from archiver.transfer.errors import (
    SourceChanged,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
)
from archiver.transfer.http import HttpClient
from archiver.transfer.source import (
    Address,
    Fetched,
    FixedAddress,
    HttpSource,
    SecretUrl,
    SourceAddress,
    fetch_bytes,
)

MIN_RENEWAL_AGE = timedelta(seconds=1)
"""A tree is renewed at most this often: a file that is refused for good must not cost a signature each time."""

_ONE_OBJECT = re.compile(r"x-(?:amz|goog|oss)-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid", re.IGNORECASE)
_AZURE_ONE_BLOB = frozenset({"sig", "sr", "sv"})
_FOLDER_TOKEN = re.compile(
    r"policy|urlprefix|keyname|hdnts|hdnea|hdntl|__?token__?|token|auth_key|verify", re.IGNORECASE
)
_COOKIE = re.compile(r"\s*([^=;,\s]+=[^;\r\n]*)")


def signs_one_object(url: SecretUrl) -> bool:
    """Whether the query is a signature that covers this one path and no other."""
    names = _query_names(url)
    return any(map(_ONE_OBJECT.fullmatch, names)) or {name.lower() for name in names} >= _AZURE_ONE_BLOB


def folder_token(url: SecretUrl) -> str:
    """The query of `url` where it looks like a token for a whole folder, else an empty string."""
    is_token = not signs_one_object(url) and any(map(_FOLDER_TOKEN.fullmatch, _query_names(url)))
    return urlsplit(url.reveal()).query if is_token else ""


class Way(IntEnum):
    AS_RESOLVED = 0
    WITH_COOKIES = 1
    WITH_TOKEN = 2


@dataclass(frozen=True, slots=True)
class Generation:
    """The master as one fetch found it, and what its children may be read with."""

    number: int
    made_at: float
    asked: Address
    master: Fetched
    cookies: str = field(repr=False)
    token: str = field(repr=False)

    def address(self, url: SecretUrl, way: Way) -> Address:
        headers: Mapping[str, str] = {}
        if url.origin == self.master.url.origin:
            if way >= Way.WITH_COOKIES and self.cookies:
                headers = {"Cookie": self.cookies}
            if way is Way.WITH_TOKEN:
                url = _with_query(url, self.token)
        return Address(url, headers, self.asked.handed_out)

    def ways_after(self, way: Way) -> list[Way]:
        offered = {Way.WITH_COOKIES: self.cookies, Way.WITH_TOKEN: self.token}
        return [other for other, credential in offered.items() if credential and other > way]


class Node:
    """One playlist of the tree: the master (no `parent`), or what its parent's `ordinal`-th reference names."""

    def __init__(self, parent: Node | None, ordinal: int, file_name: str) -> None:
        self.parent = parent
        self.ordinal = ordinal
        self.file_name = file_name
        self.depth: int = 1 if parent is None else parent.depth + 1
        self.variables: Mapping[bytes, bytes] = {}  # what it defined when it was last read
        self.born = 0  # the generation in which its references, as the walk knows them, were read
        self._renewed: tuple[int, tuple[Fetched, list[str]] | None] | None = None

    def parse(self, fetched: Fetched) -> Playlist:
        """Raises BadContents."""
        inherited = self.parent.variables if self.parent else {}
        return Playlist(fetched.body, inherited, urlsplit(fetched.url.reveal()).query)

    def child_url(
        self, generation: Generation, read: Callable[[SecretUrl], Fetched], ordinal: int, file_name: str
    ) -> SecretUrl | None:
        """What the `ordinal`-th reference is in `generation`; the playlists on the way are read again for it,
        once a generation. None when one of them cannot be had any more. Raises SourceUnavailable; SourceChanged when
        the reference names another file than it did."""
        if self._renewed is None or self._renewed[0] != generation.number:
            self._renewed = (generation.number, self._as_renewed(generation, read))
        if self._renewed[1] is None:
            return None
        fetched, uris = self._renewed[1]
        url = fetched.url.join(uris[ordinal]) if ordinal < len(uris) else None
        if url is None or last_segment(url) != file_name:
            raise SourceChanged(f"{fetched.url.name} names other files than when it was first read")
        return url

    def _as_renewed(
        self, generation: Generation, read: Callable[[SecretUrl], Fetched]
    ) -> tuple[Fetched, list[str]] | None:
        try:
            fetched = generation.master if self.parent is None else self._read_again(generation, read)
            if fetched is None:
                return None
            playlist = self.parse(fetched)
            uris = [reference.uri for reference in playlist.references()]
        except (SourceGone, SourceForbidden, SourceMismatch, SourceNotAllowed, BadContents):
            return None
        self.variables = playlist.variables
        return fetched, uris

    def _read_again(self, generation: Generation, read: Callable[[SecretUrl], Fetched]) -> Fetched | None:
        assert self.parent is not None
        url = self.parent.child_url(generation, read, self.ordinal, self.file_name)
        return read(url) if url else None


class TreeAccess:
    """Shared by all files of one tree; safe from several threads. `max_playlist_bytes` bounds what is fetched."""

    children_may_be_signed: ClassVar[bool] = True
    """Whether another signature of the master may make other references of the same files."""

    def __init__(
        self,
        client: HttpClient,
        master: SourceAddress,
        max_playlist_bytes: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Reads the master. Raises SourceError."""
        self._client = client
        self._master = master
        self._max_playlist_bytes = max_playlist_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._way = Way.AS_RESOLVED
        self._generation = self._load(1)

    @property
    def master(self) -> Fetched:
        """As it was last read."""
        with self._lock:
            return self._generation.master

    def child(self, node: Node, ordinal: int, url: SecretUrl) -> ChildAddress:
        return ChildAddress(self, node, ordinal, url)

    def standalone(self, url: SecretUrl) -> ChildAddress:
        """Of what no playlist names, such as an image of the chapters: read with whatever opens the tree."""
        return ChildAddress(self, None, 0, url)

    def source(self, address: SourceAddress) -> Source:
        return HttpSource(self._client, address)

    def read(self, node: Node, address: ChildAddress | None) -> Fetched:
        """The playlist of `node`, once more if it was read before; None is the address of the master. Raises
        SourceError."""
        with self._lock:
            if address is None and node.born:
                self._generation = self._load(self._generation.number + 1)
            node.born = self._generation.number
        # a renewal while this is read makes it newer than `born` says, and costs one more reading of it later
        return self.master if address is None else self.fetch(address)

    def read_signed_anew(self, node: Node, address: ChildAddress | None) -> Fetched:
        """The playlist of `node`, read before, under a fresh signature of the master. Raises SourceError; what was read
        before then stays in use."""
        with self._lock:
            self._master.renew(self._generation.asked)
            self._generation = self._load(self._generation.number + 1)
            number = self._generation.number
        fetched = self.master if address is None else self.fetch(address)
        node.born = number
        return fetched

    def fetch(self, address: SourceAddress) -> Fetched:
        """A small file, gzip undone. Raises SourceError."""
        return fetch_bytes(self._client, address, self._max_playlist_bytes)

    # -- what ChildAddress asks -----------------------------------------------------------------------------
    def current(self, child: ChildAddress) -> Address:
        with self._lock:
            generation, way, made = self._generation, self._way, child.made
            if made is None or made[0] is not generation or made[1] is not way:
                child.made = made = (generation, way, generation.address(self._bare(child), way))
            return made[2]

    def peek(self, child: ChildAddress) -> Address | None:
        """`current`, unless somebody renews the tree just now or playlists would have to be read for it."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            is_near = child.node is None or child.born == self._generation.number
            return self.current(child) if is_near else None
        finally:
            self._lock.release()

    def renew(self, child: ChildAddress, failed: Address) -> Address:
        with self._lock:
            newest = self.current(child)
            if newest is not failed:
                return newest
            for way in self._generation.ways_after(self._way):
                if failed.url.origin == self.master.url.origin and self._answers(self._bare(child), way):
                    self._way = way
                    return self.current(child)
            if self._clock() - self._generation.made_at < MIN_RENEWAL_AGE.total_seconds():
                return failed
            for freshly_signed in (False, True):
                if freshly_signed:
                    self._master.renew(self._generation.asked)
                self._generation = self._load(self._generation.number + 1)
                newest = self.current(child)
                if (newest.url, newest.headers) != (failed.url, failed.headers):
                    return newest
            return failed

    def _bare(self, child: ChildAddress) -> SecretUrl:
        if child.node is None or child.born == self._generation.number:
            return child.first_url
        name = last_segment(child.first_url)
        url = child.node.child_url(self._generation, self._read, child.ordinal, name)
        return url or child.first_url

    def _answers(self, url: SecretUrl, way: Way) -> bool:
        address = FixedAddress(self._generation.address(url, way))
        try:
            _, reader = self.source(address).open(1)
        except (SourceForbidden, SourceGone, SourceMismatch):
            return False
        reader.close()
        return True

    def _read(self, url: SecretUrl) -> Fetched:
        return self.fetch(FixedAddress(self._generation.address(url, self._way)))

    def _load(self, number: int) -> Generation:
        fetched = self.fetch(self._master)
        asked = self._master.current()
        pairs = [match.group(1).strip() for value in fetched.cookies if (match := _COOKIE.match(value))]
        return Generation(number, self._clock(), asked, fetched, "; ".join(pairs), folder_token(fetched.url))


class ChildAddress:
    """`transfer.source.SourceAddress` of what one reference of a playlist names (without `node`: of its own URL)."""

    __slots__ = ("_access", "born", "first_url", "made", "node", "ordinal")

    def __init__(self, access: TreeAccess, node: Node | None, ordinal: int, url: SecretUrl) -> None:
        self._access = access
        self.node = node
        self.ordinal = ordinal
        self.first_url = url
        self.born = node.born if node else 0
        self.made: tuple[Generation, Way, Address] | None = None  # and what it was made of

    def current(self) -> Address:
        return self._access.current(self)

    def peek(self) -> Address | None:
        return self._access.peek(self)

    def renew(self, failed: Address) -> Address:
        return self._access.renew(self, failed)


def start_of(source: Source) -> tuple[bytes, SourceInfo]:
    """The first CHECKED_BYTES. Raises SourceError."""
    info, reader = source.open(CHECKED_BYTES)
    try:
        start, filled = memoryview(bytearray(CHECKED_BYTES)), 0
        while filled < len(start) and (count := reader.readinto(start[filled:])):
            filled += count
        return bytes(start[:filled]), info
    finally:
        reader.close()


def check_fetched(fetched: Fetched, check: Check) -> None:
    """Raises ErrorPage, UnexpectedContent."""
    headers = fetched.headers
    info = SourceInfo(
        size_bytes=len(fetched.body),
        ranges=False,
        etag=headers.get("etag"),
        last_modified=headers.get("last-modified"),
        content_type=headers.get("content-type"),
    )
    check(fetched.body[:CHECKED_BYTES], info)


def last_segment(url: SecretUrl) -> str:
    return urlsplit(url.reveal()).path.rpartition("/")[2]


def _with_query(url: SecretUrl, query: str) -> SecretUrl:
    """`url` with those parameters of `query` that it does not have itself."""
    if "?" in url.reveal():
        own = set(_query_names(url))
        query = "&".join(part for part in query.split("&") if part.partition("=")[0] not in own)
    return url.with_query(query) if query else url


def _query_names(url: SecretUrl) -> list[str]:
    query = url.reveal().partition("#")[0].partition("?")[2]
    return [part.partition("=")[0] for part in query.split("&") if part]

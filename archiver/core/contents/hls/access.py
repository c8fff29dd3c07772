"""Read the files of a tree when only its master playlist has a signed URL.

A child is requested without credentials, then with the cookies the master's response set, then also with the master's
query where that looks like a token for a folder: the first that is not refused is used for all. Cookies and tokens go
to the master's own origin only. A signature for one object (`X-Amz-*`, `X-Goog-*`) is never passed on. When a file is
refused later, the playlists that lead to it are read again, and then once more under a new URL from the API.
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
from archiver.transfer.addresses import FixedAddress, SourceAddress
from archiver.transfer.base import CHECKED_BYTES, Check, Source, SourceInfo
from archiver.transfer.documents import Fetched, fetch_bytes
from archiver.transfer.errors import (
    SourceChanged,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
)
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl

MIN_RENEWAL_AGE = timedelta(seconds=1)
"""Shortest time between two renewals of a tree: a file that is always refused must not cost a signature each time."""

_ONE_OBJECT = re.compile(r"x-(?:amz|goog|oss)-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid", re.IGNORECASE)
_AZURE_ONE_BLOB = frozenset({"sig", "sr", "sv"})
_FOLDER_TOKEN = re.compile(
    r"policy|urlprefix|keyname|hdnts|hdnea|hdntl|__?token__?|token|auth_key|verify", re.IGNORECASE
)
_COOKIE = re.compile(r"\s*([^=;,\s]+=[^;\r\n]*)")


def signs_one_object(url: SecretUrl) -> bool:
    """Tell whether the query is a signature that covers this path only."""
    names = _query_names(url)
    return any(map(_ONE_OBJECT.fullmatch, names)) or {name.lower() for name in names} >= _AZURE_ONE_BLOB


def folder_token(url: SecretUrl) -> str:
    """Return the query of `url` if it looks like a token for a whole folder, else an empty string."""
    is_token = not signs_one_object(url) and any(map(_FOLDER_TOKEN.fullmatch, _query_names(url)))
    return urlsplit(url.reveal()).query if is_token else ""


class Credential(IntEnum):
    """What a request for a child carries besides its URL."""

    NONE = 0
    COOKIES = 1  # as the master's response set them
    TOKEN = 2  # the cookies, and the folder token of the master's query


@dataclass(frozen=True, slots=True)
class Generation:
    """One fetch of the master, and the credentials that its children may be read with."""

    number: int
    made_at: float
    asked: Address
    master: Fetched
    cookies: str = field(repr=False)
    token: str = field(repr=False)

    def address(self, url: SecretUrl, credential: Credential) -> Address:
        headers: Mapping[str, str] = {}
        if url.origin == self.master.url.origin:
            if credential >= Credential.COOKIES and self.cookies:
                headers = {"Cookie": self.cookies}
            if credential is Credential.TOKEN:
                url = _with_query(url, self.token)
        return Address(url, headers, self.asked.handed_out)

    def credentials_after(self, weaker: Credential) -> list[Credential]:
        offered = {Credential.COOKIES: self.cookies, Credential.TOKEN: self.token}
        return [other for other, credential in offered.items() if credential and other > weaker]


class Node:
    """One playlist of the tree: the master (no `parent`), or the target of its parent's `ordinal`-th reference."""

    def __init__(self, parent: Node | None, ordinal: int, file_name: str) -> None:
        self.parent = parent
        self.ordinal = ordinal
        self.file_name = file_name
        self.depth: int = 1 if parent is None else parent.depth + 1
        self.variables: Mapping[bytes, bytes] = {}  # EXT-X-DEFINE, as last read
        self.generation = 0  # of the master, when its references were read for the walk
        self._renewed: tuple[int, tuple[Fetched, list[str]] | None] | None = None

    def parse(self, fetched: Fetched) -> Playlist:
        """Raises BadContents."""
        inherited = self.parent.variables if self.parent else {}
        return Playlist(fetched.body, inherited, urlsplit(fetched.url.reveal()).query)

    def child_url(
        self, generation: Generation, read: Callable[[SecretUrl], Fetched], ordinal: int, file_name: str
    ) -> SecretUrl | None:
        """Return the URL of the `ordinal`-th reference in `generation`, reading this playlist and its parents again
        once per generation; None when one of them is gone. Raises SourceUnavailable; SourceChanged when the reference
        now names another file."""
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
    """Reads the files of one tree, which share it. Thread-safe. `max_playlist_bytes` bounds what is fetched."""

    children_may_be_signed: ClassVar[bool] = True
    """Whether a new signature of the master may change the references to the same files."""

    def __init__(
        self,
        client: HttpClient,
        master: SourceAddress,
        max_playlist_bytes: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Read the master. Raises SourceError."""
        self._client = client
        self._master = master
        self._max_playlist_bytes = max_playlist_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._credential = Credential.NONE
        self._generation = self._load(1)

    @property
    def master(self) -> Fetched:
        """The master as last read."""
        with self._lock:
            return self._generation.master

    def child(self, node: Node, ordinal: int, url: SecretUrl) -> ChildAddress:
        return ChildAddress(self, node, ordinal, url)

    def standalone(self, url: SecretUrl) -> ChildAddress:
        """Return the address of a file no playlist names, such as a chapter image; it is read with the same
        credentials."""
        return ChildAddress(self, None, 0, url)

    def source(self, address: SourceAddress) -> Source:
        return HttpSource(self._client, address)

    def read(self, node: Node, address: ChildAddress | None) -> Fetched:
        """Read the playlist of `node`, again if it was read before. `address`: None for the master. Raises
        SourceError."""
        with self._lock:
            if address is None and node.generation:
                self._generation = self._load(self._generation.number + 1)
            node.generation = self._generation.number
        # a renewal during this read makes it newer than `generation` says; that costs one more read later
        return self.master if address is None else self.fetch(address)

    def read_resigned(self, node: Node, address: ChildAddress | None) -> Fetched:
        """Read the playlist of `node` again under a new signature of the master. Raises SourceError; the previous read
        then stays in use."""
        with self._lock:
            self._master.renew(self._generation.asked)
            self._generation = self._load(self._generation.number + 1)
            number = self._generation.number
        fetched = self.master if address is None else self.fetch(address)
        node.generation = number
        return fetched

    def fetch(self, address: SourceAddress) -> Fetched:
        """Fetch a small file, decoding gzip. Raises SourceError."""
        return fetch_bytes(self._client, address, self._max_playlist_bytes)

    # -- for ChildAddress -----------------------------------------------------------------------------------
    def current(self, child: ChildAddress) -> Address:
        with self._lock:
            generation, credential, made = self._generation, self._credential, child.cached
            if made is None or made[0] is not generation or made[1] is not credential:
                child.cached = made = (
                    generation,
                    credential,
                    generation.address(self._bare(child), credential),
                )
            return made[2]

    def peek(self, child: ChildAddress) -> Address | None:
        """Return `current`, or None while another thread renews the tree or when playlists would have to be read."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            is_near = child.node is None or child.generation == self._generation.number
            return self.current(child) if is_near else None
        finally:
            self._lock.release()

    def renew(self, child: ChildAddress, failed: Address) -> Address:
        with self._lock:
            newest = self.current(child)
            if newest is not failed:
                return newest
            for credential in self._generation.credentials_after(self._credential):
                if failed.url.origin == self.master.url.origin and self._answers(
                    self._bare(child), credential
                ):
                    self._credential = credential
                    return self.current(child)
            if self._clock() - self._generation.made_at < MIN_RENEWAL_AGE.total_seconds():
                return failed
            for resigned in (False, True):
                if resigned:
                    self._master.renew(self._generation.asked)
                self._generation = self._load(self._generation.number + 1)
                newest = self.current(child)
                if (newest.url, newest.headers) != (failed.url, failed.headers):
                    return newest
            return failed

    def _bare(self, child: ChildAddress) -> SecretUrl:
        if child.node is None or child.generation == self._generation.number:
            return child.first_url
        name = last_segment(child.first_url)
        url = child.node.child_url(self._generation, self._read, child.ordinal, name)
        return url or child.first_url

    def _answers(self, url: SecretUrl, credential: Credential) -> bool:
        address = FixedAddress(self._generation.address(url, credential))
        try:
            _, reader = self.source(address).open(1)
        except (SourceForbidden, SourceGone, SourceMismatch):
            return False
        reader.close()
        return True

    def _read(self, url: SecretUrl) -> Fetched:
        return self.fetch(FixedAddress(self._generation.address(url, self._credential)))

    def _load(self, number: int) -> Generation:
        fetched = self.fetch(self._master)
        asked = self._master.current()
        pairs = [match.group(1).strip() for value in fetched.cookies if (match := _COOKIE.match(value))]
        return Generation(number, self._clock(), asked, fetched, "; ".join(pairs), folder_token(fetched.url))


class ChildAddress:
    """`transfer.addresses.SourceAddress` of the target of one reference; without `node`, of `url` itself."""

    __slots__ = ("_access", "cached", "first_url", "generation", "node", "ordinal")

    def __init__(self, access: TreeAccess, node: Node | None, ordinal: int, url: SecretUrl) -> None:
        self._access = access
        self.node = node
        self.ordinal = ordinal
        self.first_url = url
        self.generation = node.generation if node else 0
        self.cached: tuple[Generation, Credential, Address] | None = None  # address, and what it was made of

    def current(self) -> Address:
        return self._access.current(self)

    def peek(self) -> Address | None:
        return self._access.peek(self)

    def renew(self, failed: Address) -> Address:
        return self._access.renew(self, failed)


def first_bytes(source: Source) -> tuple[bytes, SourceInfo]:
    """Return the first CHECKED_BYTES. Raises SourceError."""
    info, reader = source.open(CHECKED_BYTES)
    try:
        start, filled = memoryview(bytearray(CHECKED_BYTES)), 0
        while filled < len(start) and (count := reader.readinto(start[filled:])):
            filled += count
        return bytes(start[:filled]), info
    finally:
        reader.close()


def check_fetched(fetched: Fetched, check: Check) -> None:
    """Run `check` on a fetched file. Raises ErrorPage, UnexpectedContent."""
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
    """Add to `url` the parameters of `query` that it does not have."""
    if "?" in url.reveal():
        own = set(_query_names(url))
        query = "&".join(part for part in query.split("&") if part.partition("=")[0] not in own)
    return url.with_query(query) if query else url


def _query_names(url: SecretUrl) -> list[str]:
    query = url.reveal().partition("#")[0].partition("?")[2]
    return [part.partition("=")[0] for part in query.split("&") if part]

"""Map the files of an HLS tree to paths in the copy, and write references between them. No I/O."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes, urlsplit

from archiver.core.contents import sniff
from archiver.core.contents.hls import signatures
from archiver.core.contents.hls.references import Reference, Span
from archiver.core.errors import BadContents
from archiver.core.records.keys import MAX_PATH_BYTES, external_path, file_name, safe_path
from archiver.transfer.urls import SecretUrl, without_dots

# Names that `keys.safe_path` leaves unchanged anywhere below a plain folder.
_PLAIN_FOLDER = re.compile(r"(?:[A-Za-z0-9_=-]{1,100}/)+")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_=-]{1,100}\.[0-9]?[A-Za-z][A-Za-z0-9]{1,4}")

_NO_QUERY = hash("")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_OPAQUE = frozenset({"skd", "data", "urn"})  # schemes in which `?` is part of the name or content
_USER_INFO = re.compile(r"(//)[^/?#@]*@")

MAX_FOREIGN_FOLDERS = 10_000  # each is remembered; a recording has a handful


@dataclass(slots=True)  # not frozen, as `Reference`
class TreeFile:
    """A file of the tree. `identity` is unique at the source; `path` is relative to the asset's folder in the copy."""

    identity: str = field(repr=False)
    path: str


class TreeLayout:
    """Paths of the files of one tree, whose root is the directory of the master's final URL.

    Files below the root with plain names keep their paths, so playlists need no change. All others go to
    `_ext/<8 hex digits of the hash of host and directory>/<name>`. Two files never share a path.

    A file is identified by origin, path (normalised as in RFC 3986, section 6.2.2; empty segments count) and query,
    without the fragment and without parameters that certainly only sign (`core.contents.hls.signatures`). Parameters
    that may sign or select (`token`, `md5`, `sig` alone, and the names in `changing`) are not part of it either, so a
    new signature is no new file. But where one tree names the same path with different values of them, each value is a
    file: they are numbered in the order `place` first sees them, which a new signature does not change."""

    def __init__(self, master: SecretUrl, changing: frozenset[str] = frozenset()) -> None:
        """`changing`: see `changing_parameters`. Raises SourceNotAllowed for a URL that cannot be read."""
        self._changing = changing
        self._first_query: dict[
            int, int
        ] = {}  # hashes, not the URLs of 86,400 segments: file -> `may_select`
        self._numbers: dict[tuple[int, int], int] = {}  # of the others: (file, `may_select`) -> number
        self._counts: dict[int, int] = {}  # how many of them a file has
        self._ranged: dict[tuple[str, int], int] = {}  # (playlist, file) -> number
        self._origin = str(master.origin)
        path = _normal_path(master)
        self._root = path.rpartition("/")[0] + "/"
        self._folders: dict[str, str] = {}
        name = path.rpartition("/")[2]
        # ffmpeg requires this extension of a playlist
        stored_as = file_name(name) if sniff.extension(name) in ("m3u8", "m3u") else "master.m3u8"
        identity, may_select = self._identity(master)
        self._number(identity, may_select, "")
        self.master = TreeFile(identity, safe_path(stored_as) if stored_as == name else stored_as)

    def place(self, url: SecretUrl, reference: Reference | None = None, playlist: str = "") -> TreeFile:
        """Return the file at `url`. `reference` names it, in the playlist with the path or identity `playlist`: byte
        ranges of one path in one playlist are one file, and what a reference took from the playlist's own query is not
        part of the identity. Raises SourceNotAllowed for a URL that cannot be read."""
        identity, may_select = self._identity(url, reference.from_query if reference else ())
        ranged_in = playlist if reference is not None and reference.ranged else ""
        number = self._number(identity, may_select, ranged_in)
        if number == 1 and identity == self.master.identity:
            return self.master
        origin, path, query = identity.split("\n")
        if number > 1:
            query = f"{query}\n{number}"
            identity = f"{identity}\n{number}"
        inside = path.removeprefix(self._root)
        below_root = origin == self._origin and inside != path and not query
        if below_root and safe_path(inside) == inside != self.master.path:
            return TreeFile(identity, inside)
        directory, _, name = path.rpartition("/")
        folder = self._folder(f"{origin}{directory}")
        return TreeFile(
            identity, external_path(folder, unquote_to_bytes(name).decode("utf-8", "surrogateescape"), query)
        )

    def plain_folder(self, playlist: SecretUrl, stored_at: str) -> PlainFolder | None:
        """Return a fast path for the references of a playlist with the same folder in the copy as at the source, below
        the root; None for any other. Without it, a tree of 86,400 segments spends most of its time in URLs."""
        path = _normal_path(playlist)
        folder = path.rpartition("/")[0] + "/"
        inside = folder.removeprefix(self._root)
        below_root = str(playlist.origin) == self._origin and folder != inside != ""
        if (
            not below_root
            or inside != posixpath.dirname(stored_at) + "/"
            or not _PLAIN_FOLDER.fullmatch(inside)
        ):
            return None
        return PlainFolder(playlist, f"{self._origin}\n{folder}", inside, self._first_query)

    def _identity(self, url: SecretUrl, from_query: Collection[str] = ()) -> tuple[str, str]:
        """Return the identity, and what of the query may distinguish files of the same identity."""
        changing = self._changing.union(from_query) if from_query else self._changing
        query = signatures.part(urlsplit(url.reveal()).query, changing)
        return f"{url.origin}\n{_normal_path(url)}\n{query.selects}", query.may_select

    def _number(self, identity: str, may_select: str, ranged_in: str) -> int:
        """Number the values of `may_select` of a file: 1, 2, 3..."""
        file, value = hash(identity), hash(may_select)
        if ranged_in and (known := self._ranged.get((ranged_in, file))):
            return known
        first = self._first_query.get(file)
        if first is None:
            self._first_query[file] = first = value
        number = 1
        if first != value:
            number = self._numbers.get((file, value), 0)
            if not number:
                self._counts[file] = number = self._counts.get(file, 1) + 1
                self._numbers[file, value] = number
        if ranged_in:
            self._ranged[ranged_in, file] = number
        return number

    def _folder(self, where: str) -> str:
        """Return the first 8 hex digits of the hash of `where`; more if they are taken."""
        if len(self._folders) >= MAX_FOREIGN_FOLDERS:
            raise BadContents(f"the playlists name files in more than {MAX_FOREIGN_FOLDERS} foreign folders")
        digest = hashlib.sha256(where.encode()).hexdigest()
        for length in range(8, 65, 8):
            if self._folders.setdefault(digest[:length], where) == where:
                return digest[:length]
        raise AssertionError("two directories of the same SHA-256")


@dataclass(frozen=True, slots=True)
class PlainFolder:
    """See `TreeLayout.plain_folder`. `place` returns what the layout would."""

    playlist: SecretUrl
    identity: str = field(repr=False)
    path: str
    first_query: dict[int, int] = field(repr=False)  # of the layout

    def place(self, reference: Reference) -> tuple[SecretUrl, TreeFile] | None:
        """Resolve a reference that is a plain relative file name and needs no change; None for any other."""
        uri = reference.uri
        if (
            not reference.verbatim
            or not _PLAIN_FILE.fullmatch(uri)
            or len(self.path) + len(uri) > MAX_PATH_BYTES
        ):
            return None
        identity = f"{self.identity}{uri}\n"
        if self.first_query.setdefault(hash(identity), _NO_QUERY) != _NO_QUERY:
            return None  # the same path was seen with a query that may select
        return self.playlist.beside(uri), TreeFile(identity, self.path + uri)


def new_text(reference: Reference, from_path: str, to_path: str) -> bytes | None:
    """Return the text that names `to_path` in the playlist at `from_path`; None if the reference does already. Paths of
    `core.records.keys` need no percent-encoding."""
    folder = posixpath.dirname(from_path)
    if (
        reference.verbatim
        and _plain_relative(reference.uri)
        and _resolved(folder, reference.uri) == to_path.split("/")
    ):
        return None
    return posixpath.relpath(to_path, folder or ".").encode("ascii")


def text_outside(reference: Reference) -> bytes | None:
    """Return the text of a reference for which nothing is stored: the same URI without query, user name and password.
    None if it is that already."""
    uri = reference.uri
    scheme = _SCHEME.match(uri)
    if scheme is None or ("://" in uri and scheme.group(1).lower() not in _OPAQUE):
        uri = _USER_INFO.sub(r"\1", re.split("[?#]", uri, maxsplit=1)[0]) or "."
    return None if reference.verbatim and uri == reference.uri else uri.encode("ascii")


def what_changed(source: bytes, replacements: Mapping[Span, bytes]) -> Mapping[str, object] | None:
    """Return `Item.rewritten`; None without replacements."""
    if not replacements:
        return None
    return {
        "references": len(replacements),
        "source_size": len(source),
        "source_sha256": hashlib.sha256(source).hexdigest(),
    }


def _plain_relative(uri: str) -> bool:
    return bool(uri) and not uri.startswith("/") and re.search(r"[?#:%\\]", uri) is None


def _resolved(folder: str, uri: str) -> list[str] | None:
    """Resolve a plain relative `uri` in `folder` (RFC 3986, section 5.2) to segments; None above the root."""
    segments = folder.split("/") if folder else []
    parts = uri.split("/")
    for segment in parts:
        if segment == "..":
            if not segments:
                return None
            segments.pop()
        elif segment != ".":
            segments.append(segment)
    return None if parts[-1] in (".", "..") else segments


def _normal_path(url: SecretUrl) -> str:
    """Normalise a path (RFC 3986, section 6.2.2): dot segments removed, `%41` is `A`, `%2f` differs from `/`."""
    path = without_dots(urlsplit(url.reveal()).path or "/")
    return "/".join(quote(unquote_to_bytes(segment), safe="=!,+@'()$&;:") for segment in path.split("/"))

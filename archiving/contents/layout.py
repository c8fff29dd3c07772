"""Where the files of an HLS tree go in the copy, and how one is named from another. Pure but for its memory."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes, urlsplit

from archiving.contents import sniff
from archiving.contents.playlist import Reference, Span
from archiving.errors import BadContents
from archiving.keys import MAX_PATH_BYTES, external_path, file_name, safe_path
from transfer.urls import SecretUrl

_SIGNATURE = re.compile(
    r"x-(?:amz|goog|oss)-.*|response-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|security-token|signature|sig"
    r"|expires?|policy|key-pair-id|keyname|urlprefix|hdnts|hdnea|hdntl|__?token__?|token|auth_key|verify|md5",
    re.IGNORECASE,
)
"""Query parameters that only say who may read, not what: a new signature must not make a new object."""

_AZURE_SAS = frozenset(
    {"sv", "ss", "srt", "sp", "se", "st", "spr", "sip", "sr", "skoid", "sktid", "skt", "ske", "sks"}
)

# Names that `keys.safe_path` leaves as they are, wherever below a plain folder they stand.
_PLAIN_FOLDER = re.compile(r"(?:[A-Za-z0-9_=-]{1,100}/)+")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_=-]{1,100}\.[0-9]?[A-Za-z][A-Za-z0-9]{1,4}")

MAX_FOREIGN_FOLDERS = 10_000  # each is remembered; a recording has a handful


@dataclass(slots=True)  # not frozen, as `Reference`
class Place:
    """`identity` tells two files apart, at the source; `path` is where the file lies below the asset's folder."""

    identity: str = field(repr=False)
    path: str


class TreeLayout:
    """Places of one tree, whose root is the directory of the master's final URL.

    What lies below the root under a plain name keeps its path, so that playlists need no change; all else goes
    to `_ext/<8 hex digits of its host and directory>/<name>`. Two files never share a place.
    """

    def __init__(self, master: SecretUrl) -> None:
        """Raises SourceNotAllowed for a URL that cannot be read."""
        self._origin = str(master.origin)
        path = _normal_path(master)
        self._root = path.rpartition("/")[0] + "/"
        self._folders: dict[str, str] = {}
        name = path.rpartition("/")[2]
        # ffmpeg asks for this extension before it believes that a file is a playlist
        stored_as = file_name(name) if sniff.extension(name) in ("m3u8", "m3u") else "master.m3u8"
        self.master = Place(self._identity(master), safe_path(stored_as) if stored_as == name else stored_as)

    def place(self, url: SecretUrl) -> Place:
        """Raises SourceNotAllowed for a URL that cannot be read."""
        identity = self._identity(url)
        if identity == self.master.identity:
            return self.master
        origin, path, query = identity.split("\n")
        inside = path.removeprefix(self._root)
        below_root = origin == self._origin and inside != path and not query
        if below_root and safe_path(inside) == inside != self.master.path:
            return Place(identity, inside)
        directory, _, name = path.rpartition("/")
        folder = self._folder(f"{origin}{directory}")
        return Place(
            identity, external_path(folder, unquote_to_bytes(name).decode("utf-8", "surrogateescape"), query)
        )

    def plain_folder(self, playlist: SecretUrl, stored_at: str) -> PlainFolder | None:
        """A short cut for the references of a playlist that lies in the copy where it lies at the source, in a
        folder below the root; None for any other. A tree of 86,400 segments spends most of its time in URLs."""
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
        return PlainFolder(playlist, f"{self._origin}\n{folder}", inside)

    def _identity(self, url: SecretUrl) -> str:
        query = urlsplit(url.reveal()).query
        return f"{url.origin}\n{_normal_path(url)}\n{meaningful_query(query)}"

    def _folder(self, where: str) -> str:
        """The first 8 hex digits of its hash; more of them in the unlikely case that they are taken."""
        if len(self._folders) >= MAX_FOREIGN_FOLDERS:
            raise BadContents(f"the playlists name files in more than {MAX_FOREIGN_FOLDERS} foreign folders")
        digest = hashlib.sha256(where.encode()).hexdigest()
        for length in range(8, 65, 8):
            if self._folders.setdefault(digest[:length], where) == where:
                return digest[:length]
        raise AssertionError("two directories of the same SHA-256")


@dataclass(frozen=True, slots=True)
class PlainFolder:
    """Made by `TreeLayout.plain_folder`. `place` is what the layout itself would say."""

    playlist: SecretUrl
    identity: str = field(repr=False)
    path: str

    def place(self, reference: Reference) -> tuple[SecretUrl, Place] | None:
        """Where a reference that is a plain relative file name leads; it needs no change. None for any other."""
        uri = reference.uri
        if (
            not reference.verbatim
            or not _PLAIN_FILE.fullmatch(uri)
            or len(self.path) + len(uri) > MAX_PATH_BYTES
        ):
            return None
        return self.playlist.beside(uri), Place(f"{self.identity}{uri}\n", self.path + uri)


def meaningful_query(query: str) -> str:
    """`query` without the parameters that only sign; a cache of the same file under another signature has the
    same one."""
    parts = [part for part in query.split("&") if part]
    names = {part.partition("=")[0].lower() for part in parts}
    also = _AZURE_SAS if {"sig", "sv"} <= names else frozenset()
    return "&".join(
        part
        for part in parts
        if not _SIGNATURE.fullmatch(name := part.partition("=")[0]) and name.lower() not in also
    )


def new_text(reference: Reference, from_path: str, to_path: str) -> bytes | None:
    """What must stand in the playlist stored at `from_path` to name the file at `to_path`; None when what
    stands there does so already. Paths of `archiving.keys` need no percent-encoding."""
    folder = posixpath.dirname(from_path)
    if (
        reference.verbatim
        and _plain_relative(reference.uri)
        and posixpath.normpath(posixpath.join(folder, reference.uri)) == to_path
    ):
        return None
    return posixpath.relpath(to_path, folder or ".").encode("ascii")


def what_changed(source: bytes, replacements: Mapping[Span, bytes]) -> Mapping[str, object] | None:
    """`Item.rewritten` of a file that was."""
    if not replacements:
        return None
    return {
        "references": len(replacements),
        "source_size": len(source),
        "source_sha256": hashlib.sha256(source).hexdigest(),
    }


def _plain_relative(uri: str) -> bool:
    return bool(uri) and not uri.startswith("/") and re.search(r"[?#:%\\]", uri) is None


def _normal_path(url: SecretUrl) -> str:
    """Percent-encoding made uniform: `%41` is `A`, `%2f` stays apart from `/`."""
    path = urlsplit(url.reveal()).path or "/"
    return "/".join(quote(unquote_to_bytes(segment), safe="=!,+@'()$&;:") for segment in path.split("/"))

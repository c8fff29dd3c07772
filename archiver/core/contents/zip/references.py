"""Resolve references of a zip's playlists to its members."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from archiver.core.contents.hls.references import Reference, Role

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class MemberNames:
    """The names of all members. macOS writes decomposed names (NFD) where playlists have composed ones (NFC): without
    an exact match, a name that is equal in NFC is used."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._composed = {
            unicodedata.normalize("NFC", name): name for name in self._names if not name.isascii()
        }

    def target(self, reference: Reference, from_member: str) -> str | None:
        """Return the member that `reference` names; None if there is none."""
        for name in candidates(reference, from_member):
            if name in self._names:
                return name
            if found := self._composed.get(unicodedata.normalize("NFC", name)):
                return found
        return None


def candidates(reference: Reference, from_member: str) -> Iterator[str]:
    """Yield the names it may mean, as written and percent-decoded; none outside of the zip."""
    path = re.split("[?#]", reference.uri)[0]
    if _SCHEME.match(path) or path.startswith("//"):
        return
    folder = "" if path.startswith("/") else posixpath.dirname(from_member)
    for text in dict.fromkeys((path, unquote(path))):
        name = posixpath.normpath(posixpath.join(folder, text.lstrip("/")))
        if not name.startswith(("../", "/")) and name not in ("..", "."):
            yield name


def is_fetchable(reference: Reference) -> bool:
    """Tell whether a player requests it from a server."""
    scheme = _SCHEME.match(reference.uri)
    return scheme is None or scheme.group().lower() in ("http:", "https:")


def is_required(reference: Reference) -> bool:
    """Tell whether the copy is incomplete without it."""
    if reference.gap or reference.role in (Role.LINK, Role.PART):
        return False
    # keys have the schemes of their DRM systems
    is_elsewhere = reference.role is not Role.KEY and not reference.uri.lower().startswith("data:")
    return is_fetchable(reference) or is_elsewhere


def shown(reference: Reference) -> str:
    """Return it for messages, without query and user information, which may be credentials."""
    return re.sub(r"//[^/@]*@", "//", re.split("[?#]", reference.uri)[0])

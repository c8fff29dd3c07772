"""Which member of a zip a reference of one of its playlists names."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from archiver.core.contents.hls.playlist import Reference, Role

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class MemberNames:
    """The names of all members. macOS packs names decomposed that playlists write composed: where the exact name is no
    member, one that differs in nothing else is taken."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._composed = {
            unicodedata.normalize("NFC", name): name for name in self._names if not name.isascii()
        }

    def target(self, reference: Reference, from_member: str) -> str | None:
        """The member that `reference` names; None when it names none."""
        for name in candidates(reference, from_member):
            if name in self._names:
                return name
            if found := self._composed.get(unicodedata.normalize("NFC", name)):
                return found
        return None


def candidates(reference: Reference, from_member: str) -> Iterator[str]:
    """The names it may mean, as written and percent-decoded; none for what lies outside of the zip."""
    path = re.split("[?#]", reference.uri)[0]
    if _SCHEME.match(path) or path.startswith("//"):
        return
    folder = "" if path.startswith("/") else posixpath.dirname(from_member)
    for text in dict.fromkeys((path, unquote(path))):
        name = posixpath.normpath(posixpath.join(folder, text.lstrip("/")))
        if not name.startswith(("../", "/")) and name not in ("..", "."):
            yield name


def is_fetchable(reference: Reference) -> bool:
    """Whether a player asks a server for it."""
    scheme = _SCHEME.match(reference.uri)
    return scheme is None or scheme.group().lower() in ("http:", "https:")


def is_required(reference: Reference) -> bool:
    """Whether the copy is not whole without it."""
    if reference.gap or reference.role in (Role.LINK, Role.PART):
        return False
    # keys are named by schemes of their systems
    is_elsewhere = reference.role is not Role.KEY and not reference.uri.lower().startswith("data:")
    return is_fetchable(reference) or is_elsewhere


def shown(reference: Reference) -> str:
    """For people: without its query, which may be a credential, and without what stands before a host."""
    return re.sub(r"//[^/@]*@", "//", re.split("[?#]", reference.uri)[0])

"""The doubts about one tree, each once, in the same words at every attempt that finds the same."""

from __future__ import annotations

import re

from archiver.core.contents.base import Doubt, Notes
from archiver.core.contents.hls.references import Reference, Role
from archiver.core.contents.source_failures import in_words
from archiver.transfer.errors import SourceError, SourceUnavailable

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LEFT = (Role.KEY, Role.LINK)  # a key of another DRM system; what is never fetched


class TreeDoubts:
    """Adds doubts to `notes`: at most `limit`, and then that there are more."""

    def __init__(self, notes: Notes, limit: int) -> None:
        self._notes = notes
        self._limit = limit
        self._told: set[Doubt] = set()

    def add(
        self, what: str, path: str | None = None, *, missing: bool = False, unready: bool = False
    ) -> None:
        doubt = Doubt(what, path, missing, unready)
        if doubt in self._told or len(self._told) > self._limit:
            return
        if len(self._told) == self._limit:
            doubt = Doubt(f"more than {self._limit} doubts: the others are not told")
        self._told.add(doubt)
        self._notes.doubts.append(doubt)

    def missing(self, path: str, error: SourceError) -> None:
        """Record that `path` could not be read."""
        self.add(in_words(error), path, missing=True, unready=isinstance(error, SourceUnavailable))


def scheme_of(reference: Reference) -> str:
    """Return the scheme in lower case (RFC 3986, section 3.1); empty for a relative reference."""
    match = _SCHEME.match(reference.uri)
    return match.group(1).lower() if match else ""


def is_fetchable(reference: Reference) -> bool:
    return scheme_of(reference) in ("", "http", "https")


def may_stay(reference: Reference) -> bool:
    """Tell whether a reference that is not fetchable needs no doubt: it holds its content (`data:`, RFC 2397), is a key
    of another DRM system (`skd:`, `urn:`), or is never fetched."""
    return scheme_of(reference) == "data" or reference.role in _LEFT

"""The result of one copy as it grows: the objects that are whole, the doubts, and what could not be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archiver.core.contents.base import Doubt, Item
from archiver.core.contents.source_failures import in_words
from archiver.core.records.manifest import ManifestObject
from archiver.ledger.models import StoredObject
from archiver.transfer.base import CopyResult
from archiver.transfer.errors import (
    ErrorPage,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    UnexpectedContent,
)
from storage_backends.errors import StorageError

ROUNDED_BYTES = 1024

TRIED_AGAIN = " yet and is tried again"
"""In the warning of an optional object that was busy: it is asked for again, apart from the rest of the asset."""

NO_LENGTH = "its server does not say how long it is, so nobody knows whether it is whole"

_FINAL = (SourceGone, ErrorPage, UnexpectedContent, SourceForbidden, SourceNotAllowed)
"""What the source says of an object for good, if it says so again and again."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What is whole at every store that is not in `failed` (stores that could not take it all).

    `doubts`: what could not be fetched or is not what it should be. `worst`: the error to report when no media of the
    asset is among `objects`.
    """

    objects: tuple[ManifestObject, ...]
    failed: Mapping[str, StorageError]
    warnings: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    has_media: bool
    worst: SourceError | None


class CopiedSoFar:
    """`Copied` while the copy runs. `doubted`: by path, the doubts that a manifest of this folder lists."""

    def __init__(self, doubted: Mapping[str, str]) -> None:
        self._doubted = doubted
        self._objects: dict[str, ManifestObject] = {}
        self._media = 0  # objects that are not made by us
        self._worst: SourceError | None = None
        self._doubts: list[Doubt] = []
        self._warnings: list[str] = []

    def result(self, failed: Mapping[str, StorageError]) -> Copied:
        return Copied(
            objects=tuple(self._objects.values()),
            failed=failed,
            warnings=tuple(self._warnings),
            doubts=tuple(self._doubts),
            has_media=self._media > 0,
            worst=self._worst,
        )

    @property
    def has_media(self) -> bool:
        return self._media > 0

    @property
    def is_small(self) -> bool:
        """Whether it is one or two objects, and nothing is in doubt."""
        return not self._doubts and len(self._objects) <= 2

    # -- what is there -------------------------------------------------------------------------------------
    def add(self, item: Item, stored: StoredObject, found: str | None) -> None:
        """Add what was copied; `found` is the doubt about it."""
        self._objects[item.path] = _manifest_object(item, stored, found)
        if item.data is not None:
            return
        self._media += 0 if item.optional else 1
        if found:
            self.doubt(item, found)

    def keep_known(self, item: Item, known: StoredObject, doubt: str | None = None) -> bool:
        """Add what was there before. Return whether there is a doubt about it: what the manifest says of it stays true
        while the source is unchanged."""
        doubt = self._doubted.get(item.path) or doubt
        self._objects[item.path] = _manifest_object(item, known, doubt)
        self._media += 0 if item.optional or item.data is not None else 1
        if doubt:
            self.doubt(item, doubt)
        return doubt is not None

    def judge_length(self, item: Item, result: CopyResult) -> None:
        """Compare with the length that the API reports. It is only the API's word: if the container is complete, a
        difference is a warning. If nobody says a length, a clean cut looks like the end, which is a doubt."""
        reported, source = item.api_size_bytes, result.source
        if reported and reported not in (result.size_bytes, source.encoded_bytes if source else None):
            words = _differs(result, reported)
            if item.structure is not None:
                self._warnings.append(f"{item.path}: {words}")
            else:
                self.doubt(item, words)
        length_known = (
            reported == result.size_bytes or item.structure is not None or item.size_bytes is not None
        )
        if source and not length_known and not source.framed and source.crc32c is None and source.md5 is None:
            self.doubt(item, NO_LENGTH)

    # -- what is not ---------------------------------------------------------------------------------------
    def give_up(self, item: Item, error: SourceError, known: StoredObject | None) -> None:
        """Note that `item` could not be fetched. What an earlier attempt stored of it (`known`) is kept."""
        if known is not None:
            self.keep_known(item, known)
        if item.optional:
            if known is None:
                self._warnings.append(_missing_optional(item, error))
            return
        self._worst = _worse(self._worst, error)
        if known is not None:
            self.doubt(item, f"what an earlier attempt stored is kept, for now {in_words(error)}")
        else:
            self.doubt(item, in_words(error), missing=True, unready=not isinstance(error, _FINAL))

    def doubt(self, item: Item, words: str, *, missing: bool = False, unready: bool = False) -> None:
        self._doubts.append(Doubt(words, item.path, missing=missing, unready=unready))


def perhaps_cut(item: Item, result: CopyResult) -> str | None:
    """Return why an object whose container does not say where it ends may have been cut; None if nothing suggests it.
    An API that rounds is no reason."""
    reported, source = item.api_size_bytes or 0, result.source
    if item.structure is None or item.structure.verifies_end or reported == result.size_bytes:
        return None
    if reported - result.size_bytes > max(ROUNDED_BYTES, reported // 100):
        return _differs(result, reported)
    if source and not source.framed and source.crc32c is None and source.md5 is None:
        return NO_LENGTH
    return None


def _differs(result: CopyResult, reported: int) -> str:
    return f"it has {result.size_bytes} bytes, the API says {reported}"


def _missing_optional(item: Item, error: SourceError) -> str:
    if not isinstance(error, _FINAL) or isinstance(error, SourceForbidden | ErrorPage):
        return f"{item.path} could not be fetched{TRIED_AGAIN}: {error}"
    return f"{item.path} could not be fetched: {error}"


def _worse(one: SourceError | None, other: SourceError) -> SourceError:
    """Return the error to report: one that is worth waiting for comes first."""
    for kind in (SourceUnavailable, SourceForbidden, SourceMismatch):
        for error in (one, other):
            if isinstance(error, kind):
                return error
    return one or other


def _manifest_object(item: Item, stored: StoredObject, doubt: str | None = None) -> ManifestObject:
    return ManifestObject(
        path=item.path,
        size=stored.size_bytes,
        crc32c=f"{stored.crc32c:08x}",
        content_type=item.content_type,
        source_etag=stored.source_etag,
        rewritten=item.rewritten,
        doubt=doubt,
    )

"""What an asset consists of: items, found as they are walked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from archiver.transfer.base import Check, Source, Structure


class Phase(IntEnum):
    """Items of a later phase are stored only when all of the earlier ones are whole (hls.md, trap 11)."""

    MEDIA = 0
    PLAYLIST = 1
    MASTER = 2


class SkippableChunks(Protocol):
    """`transfer.base.Chunks` out of a stream that leads to others: to be read once, or skipped."""

    def __iter__(self) -> Iterator[bytes | memoryview]: ...

    def skip(self) -> None:
        """Instead of reading: nothing of it is fetched."""
        ...


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an asset that arrived is perhaps not what it should be. It is kept with its doubts, and not called archived.

    `what` is for people, the same at every attempt that finds the same, and never holds a query. `path` names the
    object concerned. `missing`: nothing is stored at `path`. `unready`: the source may still complete it, so that it
    is final only near the deadline.
    """

    what: str
    path: str | None = None
    missing: bool = False
    unready: bool = False

    def __str__(self) -> str:
        if self.path is None:
            return self.what
        name, colon, rest = self.what.partition(": ")
        is_named = colon and f"/{self.path}".endswith(f"/{name}")
        return f"{self.path}: {rest if is_named else self.what}"


@dataclass(slots=True)  # not frozen: to freeze one costs more than to find the segment it stands for
class Item:
    """One object to be stored. Exactly one of `source`, `chunks` and `data` is set.

    `path` is relative to the asset's folder, made by `core.records.keys.safe_path`. `chunks` must be read to its
    end, or skipped, before the next item is asked for. `check` raises transfer.errors.UnexpectedContent or ErrorPage
    for wrong first bytes, `structure` UnexpectedContent for a broken container. `size_bytes` is what it must turn out
    to be by its own container (a zip's directory); `api_size_bytes` is what the API says, which may be wrong.
    `optional` items that are gone become a warning in the manifest and in `status`; without the others the asset is
    not archived.
    """

    path: str
    content_type: str
    phase: Phase = Phase.MEDIA
    source: Source | None = None
    chunks: SkippableChunks | None = None
    data: bytes | None = None
    check: Check | None = None
    structure: Structure | None = None
    size_bytes: int | None = None
    api_size_bytes: int | None = None
    crc32c: int | None = None
    optional: bool = False
    rewritten: Mapping[str, object] | None = (
        None  # for the manifest: what differs from the source, and its size
    )


@dataclass(slots=True)
class Notes:
    """What a walk found that the manifest must tell. No URL with a query."""

    warnings: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)  # such as {"layers": 4, "segments": 5400}


class Contents(Protocol):
    """The items of one asset. `version` names the source's content: objects stored of the same version need not
    be copied again by a later attempt."""

    @property
    def form(self) -> str:
        """`file`, `hls` or `zip`: what the bytes turned out to be."""
        ...

    @property
    def version(self) -> str: ...

    @property
    def version_is_exact(self) -> bool:
        """Whether an equal `version` means equal bytes: a strong ETag of the one file that it is. What is stored of
        such a version is not read again."""
        ...

    @property
    def notes(self) -> Notes: ...

    def items(self) -> Iterator[Item]:
        """Media first, playlists after it, the master last. May be walked once. What is missing or odd in it becomes
        a doubt in `notes`, and the rest is given all the same. Raises SourceError, `core.errors.ContentsError`
        only when nothing of it can be had."""
        ...

"""What an asset consists of: items, found as they are walked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from transfer.base import Source


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


@dataclass(slots=True)  # not frozen: to freeze one costs more than to find the segment it stands for
class Item:
    """One object to be stored. Exactly one of `source`, `chunks` and `data` is set.

    `path` is relative to the asset's folder, made by `archiving.keys.safe_path`. `chunks` must be read to its
    end, or skipped, before the next item is asked for. `check` raises transfer.errors.SourceMismatch for wrong first
    bytes. `optional` items that cannot be had become a warning in the manifest and in `status`; without the others the
    asset is not archived.
    """

    path: str
    content_type: str
    phase: Phase = Phase.MEDIA
    source: Source | None = None
    chunks: SkippableChunks | None = None
    data: bytes | None = None
    check: Callable[[bytes], None] | None = None
    size_bytes: int | None = None  # what it must turn out to be, where that is known before
    crc32c: int | None = None
    optional: bool = False
    rewritten: Mapping[str, object] | None = (
        None  # for the manifest: what differs from the source, and its size
    )


@dataclass(slots=True)
class Notes:
    """What a walk found that the manifest must tell. No URL with a query."""

    warnings: list[str] = field(default_factory=list)
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
    def notes(self) -> Notes: ...

    def items(self) -> Iterator[Item]:
        """Media first, playlists after it, the master last. May be walked once. Raises SourceError,
        `archiving.errors.ContentsError`."""
        ...

"""What an asset consists of: items, found as they are walked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from archiver.transfer.base import Check, Source, Structure


class Phase(IntEnum):
    """Order of storing: items of a later phase only after all earlier ones, so that no playlist names what is
    missing."""

    MEDIA = 0
    PLAYLIST = 1
    MASTER = 2


class SkippableChunks(Protocol):
    """`transfer.base.Chunks` from a stream shared with other items: to be read once, or skipped."""

    def __iter__(self) -> Iterator[bytes | memoryview]: ...

    def skip(self) -> None:
        """Skip the chunks instead of reading them; nothing is fetched."""
        ...


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an asset that arrived may not be what it should be. It is stored with its doubts, and not called archived.

    `what`: for people, the same at every attempt that finds the same, without queries. `path`: the object concerned.
    `missing`: nothing is stored at `path`. `unready`: the source may still complete it, so it is final only near the
    deadline.
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


@dataclass(slots=True)  # not frozen: freezing costs more than finding the segment
class Item:
    """One object to be stored. Exactly one of `source`, `chunks` and `data` is set.

    `path`: relative to the asset's folder, from `core.records.keys.safe_path`. `chunks` must be read to the end or
    skipped before the next item is requested. `check` raises transfer.errors.UnexpectedContent or ErrorPage for wrong
    first bytes, `structure` UnexpectedContent for a broken container. `size_bytes`: required by a container (a zip's
    directory); `api_size_bytes`: claimed by the API, and possibly wrong. A missing `optional` item becomes a warning in
    the manifest and in `status`; without the others the asset is not archived.
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
    rewritten: Mapping[str, object] | None = None  # for the manifest: what differs from the source, its size


@dataclass(slots=True)
class Notes:
    """What a walk found that belongs in the manifest. No URL with a query."""

    warnings: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)  # such as {"layers": 4, "segments": 5400}


class Contents(Protocol):
    """The items of one asset. `version` names the source's content: a later attempt need not copy objects of the same
    version again."""

    @property
    def form(self) -> str:
        """`file`, `hls` or `zip`, by the bytes."""
        ...

    @property
    def version(self) -> str: ...

    @property
    def version_is_exact(self) -> bool:
        """Whether an equal `version` means equal bytes: the strong ETag (RFC 9110, section 8.8.1) of a single file.
        What is stored of such a version is not read again."""
        ...

    @property
    def notes(self) -> Notes: ...

    def items(self) -> Iterator[Item]:
        """Yield the items once: media, then playlists, the master last. What is missing or odd becomes a doubt in
        `notes`, and the rest is yielded all the same. Raises SourceError or `core.errors.ContentsError` only when
        nothing can be read."""
        ...

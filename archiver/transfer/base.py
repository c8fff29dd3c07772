"""The vocabulary of copying: sources, requests, results, the engine's Protocol.

A `Source` can be read by range and knows how to renew its own URL; `transfer.source` makes sources of URLs.
The engine (`transfer.engine`) copies one source to one key at every store given, in bounded memory, and
returns only what it has verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend
from storage_backends.errors import StorageError


@dataclass(slots=True, unsafe_hash=True)  # frozen, it would take three times as long to make
class SourceInfo:
    """What the source says of itself in its first answer."""

    size_bytes: int | None  # None: it does not say (chunked, no Content-Length)
    ranges: bool  # whether it answers 206 to a range
    etag: str | None = None  # strong or weak, as sent; the validator of later ranges
    last_modified: str | None = None
    content_type: str | None = None
    crc32c: int | None = None  # of the whole, from x-goog-hash or x-amz-checksum-crc32c
    md5: bytes | None = None  # of the whole, from x-goog-hash or an S3 ETag that is a plain MD5
    # Content-Length of a content-encoded (gzip) answer; `size_bytes` is then None
    encoded_bytes: int | None = None
    framed: bool = True  # False: the body ends when the connection closes, so that a cut looks like its end
    coding: str | None = None  # of the answer: undone, unless it was opened by `source.as_sent`

    @property
    def strong_etag(self) -> str | None:
        """The ETag, unless it is weak: equal strong ETags mean equal bytes (RFC 9110, section 8.8.1)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else None


class Reader(Protocol):
    """The body of one answer."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some or all of `buffer`; 0 at the proper end. Raises SourceUnavailable when the body is cut
        short of its Content-Length, or stalls."""
        ...

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it. Idempotent."""
        ...


class Source(Protocol):
    """One file to be read. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """Scheme, host and path for messages; never a query."""
        ...

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        """Ask for bytes 0 to first_bytes - 1. A source without ranges answers with its whole body; see
        `info.ranges`. Renews the URL once on 401, 403 (and 404: an early expiry looks like it on some CDNs).
        Raises SourceError."""
        ...

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        """Fill `into` with the bytes from `start`, exactly, of the very file that `info` describes (If-Match,
        and the ETag and Content-Range of the answer are compared). Raises SourceChanged, SourceError."""
        ...


Chunks = Iterable[bytes | memoryview]
"""A body that can be read once, in order, in pieces of at most 1 MiB (a zip member being inflated)."""


CHECKED_BYTES = 4096
"""How many of the first bytes of an object `CopyRequest.check` sees; all, when there are fewer."""

Check = Callable[[bytes, SourceInfo | None], None]
"""Looks at the first CHECKED_BYTES of an object, and at what its source said of itself (None for chunks). Raises
UnexpectedContent or ErrorPage."""


class Structure(Protocol):
    """Checks the container (mp4, webm) of one object while it is copied. One per copy; safe from several threads."""

    @property
    def verifies_end(self) -> bool:
        """Once `finish` found nothing wrong: whether the container itself says where it ends. One that is open-ended,
        as live recorders write them, may have been cut. True before."""
        ...

    def saw(self, start: int, data: memoryview) -> None:
        """Bytes from offset `start` arrived. Called once for each part, in any order. Must not keep `data`."""
        ...

    def finish(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        """All `size_bytes` have arrived. `read(start, into)` reads bytes that `saw` never showed (parts that an
        earlier attempt stored) or showed out of order; None when the source has no ranges, and then everything was
        shown in order. Raises UnexpectedContent when the container is cut or empty; SourceError of `read`."""
        ...


@dataclass(frozen=True, slots=True)
class KnownCopy:
    """What every store of a request holds at its key already, from an earlier attempt."""

    size_bytes: int
    crc32c: int
    source_etag: str | None
    weak_counts: bool = False  # whether an equal weak ETag says as well that the source has not changed


@dataclass(slots=True, unsafe_hash=True)  # frozen, it would take three times as long to make
class CopyRequest:
    """What to store. `size_bytes`, `crc32c`: what the bytes must turn out to be, where it is known before.

    `check` and `structure` are asked before anything becomes visible. `known`: when the source still has the same
    length and ETag (strong, unless a weak one counts), nothing is read or written, and the result says `unchanged`.
    `fresh`: over connections of its own, so that no response can be another request's.
    """

    key: ObjectKey
    content_type: str
    check: Check | None = None
    size_bytes: int | None = None
    crc32c: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)  # as of ObjectSpec
    structure: Structure | None = None
    known: KnownCopy | None = None
    # what somebody says it has: believed for nothing but what to ask for first
    likely_bytes: int | None = None
    fresh: bool = False


def media_spec(request: CopyRequest, size_bytes: int | None, part_bytes: int) -> ObjectSpec:
    """Return what a store is asked for. All that the engine copies is media of a recording."""
    return ObjectSpec(
        request.key,
        request.content_type,
        size_bytes,
        part_bytes,
        request.metadata,
        media=True,
        labels=request.labels,
    )


@dataclass(slots=True, unsafe_hash=True)  # frozen, it would take three times as long to make
class CopyResult:
    """One object, copied. Every store of the request is in `stored` or in `failed`, by its name.

    `stored` means verified: the store holds `size_bytes` bytes whose CRC32C is `crc32c`, by the store's own word
    or by reading them back. Where every store failed early, reading stopped: `size_bytes` and `crc32c` are then
    what was known of them, else 0. `unchanged`: the stores hold it as `CopyRequest.known` says, and nothing was sent;
    `stored` is then empty.
    """

    key: ObjectKey
    size_bytes: int
    crc32c: int
    source: SourceInfo | None
    stored: Mapping[str, ObjectInfo]
    failed: Mapping[str, StorageError]
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class SavedUpload:
    """What another process needs to go on with an upload. `token` is a secret."""

    token: str = field(repr=False)
    size_bytes: int
    part_bytes: int
    source_etag: str | None
    parts: Mapping[int, Part]


class UploadJournal(Protocol):
    """Remembers unfinished uploads of one asset, for a later worker. Best effort: the engine goes on when it
    fails or forgets. Implemented over the ledger."""

    def load(self, store: str, key: ObjectKey) -> SavedUpload | None: ...

    def begun(self, store: str, key: ObjectKey, upload: SavedUpload) -> None: ...

    def part_done(self, store: str, key: ObjectKey, part: Part) -> None: ...

    def forget(self, store: str, key: ObjectKey) -> None: ...


class Engine(Protocol):
    """Copies objects in the background, several at once, in bounded memory. One engine serves one asset.

    Use it as a context manager: leaving it waits for nothing that was not asked for; on an exception all
    threads stop within seconds. A future raises SourceError (nothing visible), or Stopped; the failure of a
    store is in the result instead, or in the SourceError, so that one store does not cost the others their copy.
    """

    def submit(
        self, source: Source, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        """Copy `source`. Blocks while too much is in flight already."""
        ...

    def submit_chunks(
        self, chunks: Chunks, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        """Store a body read from `chunks`. Reads them all before it returns, in this thread (they may come
        from one shared stream); sending goes on behind. An exception of `chunks` is raised here and nothing
        becomes visible."""
        ...

    def confirm_soon(self) -> Future[Mapping[ObjectKey, str]]:
        """`confirm`, of what has arrived by now, while other copies go on."""
        ...

    def confirm(self) -> Mapping[ObjectKey, str]:
        """Confirm that no response was taken for another request's (`transfer.confirmations`). Call it before the asset
        is committed, when all copies have ended. Return, by key, why an object copied since the last call is not
        confirmed: copy it again (`fresh`), and doubt it when it is named once more. Of copies in flight, what has
        arrived so far may be named. Raises what `should_stop` raises."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

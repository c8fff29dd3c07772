"""What the bytes of one object must be, checked before any of it becomes visible."""

from __future__ import annotations

import hashlib

from archiver.transfer.base import CHECKED_BYTES, CopyRequest, SourceInfo, Structure
from archiver.transfer.errors import SourceMismatch, SourceUnavailable
from storage_backends.base import Buffer


class Checks:
    """Of one copy. `info` is what its source says of itself, once that is known."""

    def __init__(self, request: CopyRequest) -> None:
        self._request = request
        self.info: SourceInfo | None = None

    def size(self, size_bytes: int | None) -> None:
        wanted = self._request.size_bytes
        if size_bytes is not None and wanted is not None and size_bytes != wanted:
            raise SourceMismatch(
                f"the source of {self._request.key} has {size_bytes} bytes, not the {wanted} expected"
            )

    def part(self, start: int, data: bytes) -> None:
        """Look at the bytes from `start`, which are a whole part."""
        if start == 0:
            self.first(data[:CHECKED_BYTES])
        if self._request.structure is not None:
            self._request.structure.saw(start, memoryview(data))

    def first(self, first: bytes) -> None:
        if self._request.check is not None:
            self._request.check(first, self.info)

    def whole(self, size_bytes: int, crc: int) -> None:
        self.size(size_bytes)
        told_bytes = self.info.size_bytes if self.info else None
        if told_bytes is not None and size_bytes != told_bytes:
            raise SourceUnavailable(
                f"{size_bytes} bytes arrived for {self._request.key}, of the {told_bytes} that its source announced"
            )
        announced = self.info.crc32c if self.info else None
        for expected, whose in ((announced, "the source announced"), (self._request.crc32c, "was expected")):
            if expected is not None and expected != crc:
                raise SourceMismatch(
                    f"what arrived for {self._request.key} has CRC32C {crc:08x}, not the {expected:08x} that {whose}"
                )

    def md5(self, data: Buffer) -> None:
        """Of objects of one part only: MD5 costs thirty times what CRC32C does (storage.md), and a large object
        cannot be put together from its parts' MD5s."""
        expected = self.info.md5 if self.info and self.info.crc32c is None else None
        if expected is None:
            return
        arrived = hashlib.md5(data, usedforsecurity=False).digest()
        if arrived != expected:
            raise SourceMismatch(
                f"what arrived for {self._request.key} has MD5 {arrived.hex()}, not the announced {expected.hex()}"
            )

    @property
    def structure(self) -> Structure | None:
        """Finish it after everything else, once all of the object has arrived."""
        return self._request.structure

    def verifies_whole(self, info: SourceInfo, *, one_part: bool) -> bool:
        """Whether a body that passes has arrived whole. One that ends with its connection needs more than its end."""
        request = self._request
        if info.framed or request.size_bytes is not None or request.crc32c is not None:
            return True
        return info.crc32c is not None or (one_part and info.md5 is not None)

    def unchanged(self, info: SourceInfo) -> bool:
        """Whether the source still has what all stores hold already: the same length and ETag (RFC 9110, 8.8.3.2)."""
        known = self._request.known
        if known is None:
            return False
        etag = info.etag if known.weak_counts else info.strong_etag
        if not etag or etag != known.source_etag:
            return False
        # the length of the packed form says nothing
        unknown = info.size_bytes is None and info.coding is not None
        return unknown or info.size_bytes == known.size_bytes

"""Check that a zip is whole while it is copied, if its end could not be read before."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable

from archiver.core.contents.zip.end import LONGEST_END_BYTES, check_whole
from archiver.core.errors import BadContents
from archiver.transfer.errors import UnexpectedContent


class ZipStructure:
    """`transfer.base.Structure` of a zip that is stored as it is. Holds only its last bytes, some 64 KiB."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._ends: dict[int, bytes] = {}  # by offset: last bytes of parts that may belong to the zip's end
        self._stops: list[tuple[int, int]] = []  # heap of their ends and offsets
        self._seen_to = 0

    @property
    def verifies_end(self) -> bool:
        return True

    def saw(self, start: int, data: memoryview) -> None:
        stop = start + len(data)
        first = max(0, len(data) - LONGEST_END_BYTES)
        with self._lock:
            self._seen_to = max(self._seen_to, stop)
            if stop > self._seen_to - LONGEST_END_BYTES:
                self._ends[start + first] = bytes(data[first:])
                heapq.heappush(self._stops, (stop, start + first))
            while self._stops[0][0] <= self._seen_to - LONGEST_END_BYTES:
                self._ends.pop(heapq.heappop(self._stops)[1], None)

    def finish(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        """Raise UnexpectedContent for a zip that is cut, split, empty, or has other bytes around it."""

        def read_or_recall(start: int, length: int) -> bytes:
            if (known := self._recall(start, length)) is not None:
                return known
            if read is None:
                raise _NotSeen
            data = bytearray(length)
            read(start, memoryview(data))
            return bytes(data)

        try:
            check_whole(read_or_recall, size_bytes)
        except _NotSeen:
            return  # the end record is whole; the directory was not held and cannot be read again
        except BadContents as error:
            raise UnexpectedContent(f"{self._name}: it is kept packed, and doubtful: {error}") from None

    def _recall(self, start: int, length: int) -> bytes | None:
        """Return the bytes if all of them are still held."""
        found = bytearray()
        for offset, end in sorted(self._ends.items()):
            at = start + len(found)
            if offset <= at < offset + len(end):
                found += end[at - offset :][: length - len(found)]
        return bytes(found) if len(found) == length else None


class _NotSeen(Exception):
    pass

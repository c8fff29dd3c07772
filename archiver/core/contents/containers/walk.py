"""Walk a container from element to element while its bytes arrive in parts, in any order.

A container that is a chain of elements with sizes (MP4 boxes, EBML elements, Ogg pages, RIFF chunks) is whole when the
chain leads from byte 0 exactly to the last byte. Only element headers are read, and no part is kept.

Of a part that arrives early only a summary is kept: its first bytes, and an `_Island`, a chain that begins at an
element recognised by its bytes. When the walk reaches an element of that chain, it continues where the chain leaves the
part. Bytes that neither covered are read again in `finish`."""

from __future__ import annotations

import bisect
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, Self, TypeVar

from archiver.transfer.errors import UnexpectedContent

TO_END = 1 << 62  # the element reaches to the end of the file

_READ_BYTES = 4 * 1024  # of the first read in `finish`; doubled while the next one is near
_MAX_READ_BYTES = 1024 * 1024
_MAX_TRIED = 16  # possible entries in one part


class Broken(Exception):
    """The container is cut, empty or not of this format. The message says what is wrong."""


class Format(Protocol):
    """Walks one container format, and holds what is known of one file so far."""

    header_bytes: int
    """The longest header of an element."""

    @property
    def is_open_ended(self) -> bool:
        """Return whether the walk is in an element of unknown size."""
        ...

    @property
    def scan_bytes(self) -> int:
        """Return how many bytes of an early part to search for an element."""
        ...

    def walk(self, data: memoryview, base: int, at: int) -> int:
        """Walk from the element at file offset `at` through `data`, the bytes from `base`. Return the offset of the
        first element whose header is not completely in `data`, or TO_END. Raises Broken."""
        ...

    def finish(self, at: int, size_bytes: int, rest: bytes) -> None:
        """Judge a walk that ended at `at`. `rest`: the last bytes of the file, too few for a header. Raises Broken."""
        ...

    def island(self) -> Self:
        """Return the state of a chain that begins in the middle of the file."""
        ...

    def join(self, island: Self) -> None:
        """Add what the chain of `island` showed, which the walk passed through."""
        ...

    def entries(self, data: memoryview) -> Iterator[Sequence[int]]:
        """Yield offsets in `data` where an element can be recognised by its bytes, last in each sequence, after the
        offsets of elements that lead to it."""
        ...


F = TypeVar("F", bound=Format)


@dataclass(slots=True)
class _Island(Generic[F]):
    entries: array[int]  # where it can be entered, ascending
    leaves_at: int
    tail: bytes  # a header cut by the end of the part
    state: F


@dataclass(slots=True)
class _Part(Generic[F]):
    start: int
    end: int
    head: bytes
    island: _Island[F] | None


class Walk(Generic[F]):
    """`transfer.base.Structure` of a container of format `F`. Reusable after `finish`; restarts when byte 0 arrives a
    second time."""

    def __init__(self, name: str, begin: Callable[[], F]) -> None:
        """`name`: the file, for messages."""
        self._name = name
        self._begin = begin
        self._lock = threading.Lock()
        self._began = False
        self._broken: Broken | None = None
        self._format = begin()
        self._at = 0  # of the next element
        self._held = b""  # its first bytes, if a part ended within its header
        self._parts: list[_Part[F]] = []  # early ones, by `start`
        self._proves_end = True

    @property
    def verifies_end(self) -> bool:
        return self._proves_end

    def saw(self, start: int, data: memoryview) -> None:
        with self._lock:
            if start == 0:
                if self._began:
                    self._reset()
                self._began = True
            if self._broken is None:
                try:
                    self._take(start, data)
                except Broken as error:
                    self._broken = error
                    self._parts.clear()

    def finish(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        with self._lock:
            try:
                if self._broken is not None:
                    raise self._broken
                self._catch_up(size_bytes, read)
                self._format.finish(self._at, size_bytes, self._held)
                self._proves_end = self._at < TO_END and not self._format.is_open_ended
            except Broken as error:
                raise UnexpectedContent(f"{self._name}: {error}") from None
            finally:
                self._reset()

    def _reset(self) -> None:
        self._began = False
        self._broken = None
        self._format = self._begin()
        self._at, self._held = 0, b""
        self._parts.clear()

    # -- parts -----------------------------------------------------------------------------------------------
    def _take(self, start: int, data: memoryview) -> None:
        if start + len(data) <= self._at:
            return  # within an element
        if start > self._at + len(self._held):
            bisect.insort(self._parts, self._summary(start, data), key=lambda part: part.start)
            return
        if self._at < start:
            self._walk_over_boundary(start, data)
        if start <= self._at < start + len(data):
            self._walk(data, start)
        self._join_parts()

    def _walk(self, data: memoryview, base: int) -> None:
        self._at = self._format.walk(data, base, self._at)
        self._held = bytes(data[self._at - base :]) if self._at < base + len(data) else b""

    def _walk_over_boundary(self, start: int, head: bytes | memoryview) -> None:
        """Walk over the header whose first bytes are held and whose rest is in `head`, from `start`."""
        known = self._held[: start - self._at] + bytes(head[: self._format.header_bytes])
        self._walk(memoryview(known), self._at)

    def _summary(self, start: int, data: memoryview) -> _Part[F]:
        head = bytes(data[: self._format.header_bytes])
        return _Part(start, start + len(data), head, self._find_island(start, data))

    def _find_island(self, start: int, data: memoryview) -> _Island[F] | None:
        searched = data[: self._format.scan_bytes]
        for entries in islice(self._format.entries(searched), _MAX_TRIED) if searched else ():
            state = self._format.island()
            try:
                leaves_at = state.walk(data, start, start + entries[-1])
            except Broken:
                continue
            absolute = array("Q", [start + entry for entry in entries])
            return _Island(absolute, leaves_at, bytes(data[leaves_at - start :]), state)
        return None

    def _join_parts(self) -> None:
        """Continue through the early parts, as far as their summaries lead."""
        while (part := self._part_at(self._at + len(self._held))) is not None:
            before = self._at, len(self._held)
            if self._at < part.start:
                self._walk_over_boundary(part.start, part.head)
            elif not self._enter(part) and self._at < part.start + len(part.head):
                self._walk(memoryview(part.head), part.start)
            if (self._at, len(self._held)) == before:
                return

    def _enter(self, part: _Part[F]) -> bool:
        island = part.island
        if island is None:
            return False
        found = bisect.bisect_left(island.entries, self._at)
        if found == len(island.entries) or island.entries[found] != self._at:
            return False
        self._format.join(island.state)
        self._at, self._held = island.leaves_at, island.tail
        return True

    def _next_entry(self) -> int:
        """Return where an early part can be entered next, with room for a header before it."""
        nearest = self._at + self._format.header_bytes
        entries = (part.island.entries[-1] for part in self._parts if part.island)
        return next((entry for entry in entries if entry >= nearest), TO_END)

    def _part_at(self, offset: int) -> _Part[F] | None:
        """Return the part that holds `offset`; drop those before it."""
        passed = bisect.bisect_right(self._parts, offset, key=lambda part: part.end)
        del self._parts[:passed]
        return self._parts[0] if self._parts and self._parts[0].start <= offset else None

    # -- what was not shown ----------------------------------------------------------------------------------
    def _catch_up(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        self._join_parts()
        window, last_end = _READ_BYTES, -_READ_BYTES
        while self._at + len(self._held) < size_bytes:
            if read is None:
                raise Broken(f"what begins at byte {self._at} was not shown")
            is_near = self._at < last_end + window
            window = min(2 * window, _MAX_READ_BYTES) if is_near else _READ_BYTES
            data = memoryview(bytearray(min(window, self._next_entry() - self._at, size_bytes - self._at)))
            read(self._at, data)
            last_end = self._at + len(data)
            self._walk(data, self._at)
            if last_end < size_bytes:
                self._held = b""  # read again with what follows it
            self._join_parts()

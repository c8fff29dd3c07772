"""Bodies of answers and chunks, read piece by piece and held to the length that they are expected to have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from transfer.base import CHECKED_BYTES, Chunks, Reader
from transfer.checksums import Crc32c
from transfer.errors import SourceError, SourceMismatch
from transfer.memory import Block

_SCRAP_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Filled:
    block: Block | None  # None: nothing was read
    size_bytes: int
    more: bool

    @property
    def view(self) -> memoryview:
        return self.block.first(self.size_bytes) if self.block else memoryview(b"")

    def release(self) -> None:
        if self.block:
            self.block.release()


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Body:
    """A body read piece by piece, held to the length it is expected to have. `short` is what it means when it ends
    too early: a cut, where the source itself announced the length; where we expected it, the wrong file."""

    def __init__(
        self, reader: Reader, expected_bytes: int | None, origin: Named, short: type[SourceError]
    ) -> None:
        self.reader = reader
        self.expected_bytes = expected_bytes
        self._origin = origin
        self._short = short
        self._read_bytes = 0
        self._ahead = b""  # one byte, read to see whether there is more

    def fill(self, into: memoryview) -> int:
        """Fill `into`, less at the end. Raises `short` when that comes before the expected length."""
        into[: len(self._ahead)] = self._ahead
        filled, self._ahead = len(self._ahead), b""
        while filled < len(into) and (count := self.reader.readinto(into[filled:])):
            filled += count
        self._read_bytes += filled
        if filled < len(into) and self.expected_bytes is not None and self._read_bytes < self.expected_bytes:
            raise self._short(
                f"{self._origin.name} ended after {self._read_bytes} bytes of the {self.expected_bytes} expected"
            )
        return filled

    def more(self) -> bool:
        """Whether there is anything left. Raises SourceMismatch when there is, beyond the expected length."""
        if not self._ahead:
            one = bytearray(1)
            self._ahead = bytes(one[: self.reader.readinto(memoryview(one))])
        if self._ahead and self.expected_bytes is not None and self._read_bytes >= self.expected_bytes:
            raise SourceMismatch(
                f"{self._origin.name} is longer than the {self.expected_bytes} bytes expected"
            )
        return bool(self._ahead)

    def drain(self) -> None:
        scrap = memoryview(bytearray(_SCRAP_BYTES))
        while self.reader.readinto(scrap):
            pass


class ChunksFailed(Exception):
    """Carries what `chunks` raised past our own handling of errors."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class ChunkReader:
    """Chunks as a Reader."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks: Iterator[bytes | memoryview] = iter(chunks)
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._rest:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                return 0
            except Exception as error:
                raise ChunksFailed(error) from error
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        return


def read_first(reader: Reader, size_bytes: int) -> bytes:
    first = bytearray(min(CHECKED_BYTES, size_bytes))
    view, filled = memoryview(first), 0
    while filled < len(first) and (count := reader.readinto(view[filled:])):
        filled += count
    return bytes(first[:filled])


def measure(reader: Reader) -> tuple[int, int]:
    """Read to the end: length and CRC32C. Closes `reader`."""
    scrap = memoryview(bytearray(_SCRAP_BYTES))
    size_bytes, crc = 0, Crc32c()
    try:
        while count := reader.readinto(scrap):
            size_bytes += count
            crc.update(scrap[:count])
    finally:
        reader.close()
    return size_bytes, crc.value

"""Bodies of responses and chunks, read piece by piece and held to the length that they are expected to have."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from archiver.transfer.base import Chunks, Reader
from archiver.transfer.checksums import Crc32c
from archiver.transfer.errors import SourceError, SourceMismatch, StillEncoded
from archiver.transfer.memory import MemoryBudget, Reservation

_SCRAP_BYTES = 64 * 1024


@dataclass(slots=True)
class Filled:
    """Bytes of a body, in memory that is reserved for them."""

    data: bytes
    reservation: Reservation | None
    more: bool = False  # whether the body has more
    crc32c: int | None = None  # where it was computed already

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def release(self) -> None:
        self.data = b""
        if self.reservation is not None:
            self.reservation.release()


def filled_bytes(
    size_bytes: int, fill: Callable[[memoryview], int], reservation: Reservation | None = None
) -> bytes:
    """Return what `fill` puts into a buffer of `size_bytes`, as many as it says; without a copy when that is all of it.
    `reservation`: the memory for it."""
    fits = reservation is not None and reservation.size_bytes == size_bytes
    reused = reservation.file() if reservation is not None and fits else None
    file = BytesIO(bytes(size_bytes)) if reused is None else reused
    with file.getbuffer() as view:
        try:
            count = fill(view)
        except BaseException as error:
            _release_frames(error)
            raise
    file.truncate(count)
    if reservation is not None:
        reservation.reuse(reused)
    return file.getvalue()


def _release_frames(error: BaseException | None) -> None:
    """Drop the slices of a buffer that the frames of a traceback hold. The garbage collector of Python 3.12 crashes on
    a view of a BytesIO in a cycle, and 3.13 reports it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Body:
    """A body read piece by piece, held to the length it is expected to have. `short` is what it means when it ends
    too early: a cut, where the source itself announced the length; where we expected it, the wrong file. Its methods
    block."""

    def __init__(
        self, reader: Reader, expected_bytes: int | None, origin: Named, short: type[SourceError]
    ) -> None:
        self.reader = reader
        self.expected_bytes = expected_bytes
        self._origin = origin
        self._short = short
        self._read_bytes = 0
        self._ahead = b""  # one byte, read to see whether there is more

    def take(self, size_bytes: int, reservation: Reservation | None) -> Filled:
        """The next `size_bytes`, less at the end. Raises `short` when that comes before the expected length."""
        return Filled(filled_bytes(size_bytes, self.fill, reservation), reservation, self.more())

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
        """Return whether there is anything left. Raises SourceMismatch when there is, beyond the expected length."""
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


async def fill(
    body: Body,
    size_bytes: int,
    memory: MemoryBudget,
    in_reader: Callable[[Callable[[], Filled]], Awaitable[Filled]],
) -> Filled:
    """The next `size_bytes` of `body`, read where it may block, once there is memory for them."""
    reservation = await memory.reserve(size_bytes) if size_bytes else None
    try:
        return await in_reader(lambda: body.take(size_bytes, reservation))
    except BaseException:
        if reservation is not None:
            reservation.release()
        raise


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


class Bounded:
    """A body of unknown length, unpacked or not, that must end some time."""

    def __init__(self, reader: Reader, max_bytes: int, name: str, *, unpacked: bool) -> None:
        self._reader = reader
        self._max_bytes = self._left_bytes = max_bytes
        self._name = name
        self._unpacked = unpacked

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._reader.readinto(buffer)
        self._left_bytes -= count
        if self._left_bytes < 0:
            longer = (
                f"longer than the {self._max_bytes} bytes allowed without a length (ARCHIVER_MAX_UNSIZED)"
            )
            if self._unpacked:
                raise StillEncoded(self._name, f"is, unpacked, {longer}")
            raise SourceMismatch(f"{self._name} is {longer}")
        return count

    def close(self) -> None:
        self._reader.close()

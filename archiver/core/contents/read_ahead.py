"""Read a source by range: one range with retries, or a long stretch in order with several windows in flight.

One connection is the bottleneck in production, so a sequential stream uses several, each window with the source's own
renewal and validation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Self

from archiver.retry_policy import REQUEST, RetryPolicy
from archiver.transfer.base import Source, SourceInfo
from archiver.transfer.errors import RangesUnreliable, SourceUnavailable
from archiver.transfer.memory import MemoryBudget, Reservation

_MIB = 1024 * 1024
WINDOW_BYTES = 4 * _MIB
WINDOWS = 8  # in flight or waiting: at most 32 MiB; one more is being consumed
SMALL_RANGE_BYTES = 512 * 1024
"""Servers that cap the length of a range allow at least this much; seen: 1 MB."""


class RangeReader:
    """Reads ranges of one source with retries. Thread-safe.

    A server whose answers to a long range stay wrong may cap their length: from then on, `SMALL_RANGE_BYTES` are
    requested at a time."""

    def __init__(
        self,
        source: Source,
        info: SourceInfo,
        policy: RetryPolicy = REQUEST,
    ) -> None:
        self.source = source
        self.info = info
        self._policy = policy
        self._longest_bytes: int | None = None

    def read(self, start: int, length: int) -> memoryview:
        """Return `length` bytes from `start`. Raises RangesUnreliable, SourceChanged, SourceError."""
        data = memoryview(bytearray(length))
        if self._longest_bytes is None or length <= self._longest_bytes:
            try:
                self._fill(start, data)
            except RangesUnreliable:
                if length <= SMALL_RANGE_BYTES:
                    raise
                self._longest_bytes = SMALL_RANGE_BYTES
            else:
                return data
        for at in range(0, length, SMALL_RANGE_BYTES):
            self._fill(start + at, data[at : at + SMALL_RANGE_BYTES])
        return data

    def _fill(self, start: int, into: memoryview) -> None:
        if into:
            self._policy.call(
                lambda: self.source.read_range(start, into, self.info),
                lambda error: isinstance(error, SourceUnavailable | RangesUnreliable),
            )


class ReadAhead:
    """The bytes from `start` to `stop`, in order, for one reading thread. Leaving the context manager cancels all
    fetches. Returned memory views stay valid. Raises what `RangeReader.read` raises."""

    def __init__(
        self,
        reader: RangeReader,
        start: int,
        stop: int,
        *,
        window_bytes: int = WINDOW_BYTES,
        windows: int = WINDOWS,
        memory: MemoryBudget | None = None,
    ) -> None:
        """`memory`: budget for all windows but one; without free budget, fewer are in flight. None: no limit."""
        self._reader = reader
        self._stop = stop
        self._next = start  # first byte not requested yet
        self._window_bytes = window_bytes
        self._windows = windows
        self._memory = memory
        self._coming: deque[tuple[Future[memoryview], Reservation | None]] = deque()
        self._held = memoryview(b"")
        self._held_in: Reservation | None = None
        self._pool = ThreadPoolExecutor(windows, thread_name_prefix="read-ahead")
        self.position = start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        while self._coming:
            _release(self._coming.popleft()[1])
        self._held = memoryview(b"")
        _release(self._held_in)

    def pieces(self, length: int, at_most: int = _MIB) -> Iterator[memoryview]:
        """Yield the next `length` bytes in pieces of at most `at_most`."""
        while length:
            if not self._held:
                self._held = self._window()
            piece = self._held[: min(length, at_most)]
            self._held = self._held[len(piece) :]
            self.position += len(piece)
            length -= len(piece)
            yield piece

    def read(self, length: int) -> bytes:
        return b"".join(self.pieces(length))

    def skip_to(self, offset: int) -> None:
        """Continue at `offset`, which must not be before the current position."""
        if offset < self.position:
            raise ValueError(f"cannot go back from byte {self.position} to {offset}")
        for _ in self.pieces(offset - self.position):
            pass

    def _window(self) -> memoryview:
        self._held = memoryview(b"")
        _release(self._held_in)
        self._held_in = None
        while len(self._coming) < self._windows and self._next < self._stop:
            length = min(self._window_bytes, self._stop - self._next)
            reserved = self._memory.try_ahead(length) if self._memory is not None else None
            if self._memory is not None and reserved is None and self._coming:
                break
            try:
                # with a copy of the context each: this thread's cancellation applies to them too
                window = self._pool.submit(copy_context().run, self._reader.read, self._next, length)
            except BaseException:
                _release(reserved)
                raise
            self._coming.append((window, reserved))
            self._next += length
        if not self._coming:
            raise EOFError(f"read past byte {self._stop} of {self._reader.source.name}")
        coming, self._held_in = self._coming.popleft()
        return coming.result()


def _release(reserved: Reservation | None) -> None:
    if reserved is not None:
        reserved.release()

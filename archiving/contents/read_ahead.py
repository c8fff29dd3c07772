"""A source read from one offset to another in order, several windows of it being fetched at once.

One connection is the bottleneck in real life (performance.md), so a sequential stream is read by several of them,
each window under the source's own renewal and validation. A window that fails is asked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Self

from transfer.base import Source, SourceInfo
from transfer.errors import SourceUnavailable
from transfer.retrying import Patience

_MIB = 1024 * 1024
WINDOW_BYTES = 4 * _MIB
WINDOWS = 8  # in flight or waiting: 32 MiB at most


class ReadAhead:
    """Use as a context manager; leaving it ends the fetching. One thread may read. The memory views it gives stay
    valid. Raises SourceError."""

    def __init__(
        self,
        source: Source,
        info: SourceInfo,
        start: int,
        stop: int,
        *,
        window_bytes: int = WINDOW_BYTES,
        windows: int = WINDOWS,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._source = source
        self._info = info
        self._patience = patience
        self._stop = stop
        self._next = start  # the first byte that no window has been asked for
        self._window_bytes = window_bytes
        self._windows = windows
        self._coming: deque[Future[memoryview]] = deque()
        self._held = memoryview(b"")
        self._pool = ThreadPoolExecutor(windows, thread_name_prefix="read-ahead")
        self.position = start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def pieces(self, length: int, at_most: int = _MIB) -> Iterator[memoryview]:
        """The next `length` bytes, in pieces of at most `at_most`."""
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
        """Go on to `offset`, which is not behind."""
        for _ in self.pieces(offset - self.position):
            pass

    def _window(self) -> memoryview:
        while len(self._coming) < self._windows and self._next < self._stop:
            length = min(self._window_bytes, self._stop - self._next)
            # a copy of the context each: the stop signal of this thread is theirs too
            self._coming.append(self._pool.submit(copy_context().run, self._fetch, self._next, length))
            self._next += length
        if not self._coming:
            raise EOFError(f"read past byte {self._stop} of {self._source.name}")
        return self._coming.popleft().result()

    def _fetch(self, start: int, length: int) -> memoryview:
        window = memoryview(bytearray(length))
        self._patience.keep_trying(
            lambda: self._source.read_range(start, window, self._info),
            lambda error: isinstance(error, SourceUnavailable),
        )
        return window

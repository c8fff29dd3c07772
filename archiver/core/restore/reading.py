"""Read an object of a destination in blocks, several at once, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from storage_backends.base import ObjectKey, StorageBackend

BLOCK_BYTES = 8 * 1024 * 1024
CONNECTIONS = 8
"""Requests at the same time, over all objects."""


class BlockReader:
    """Memory: up to `ahead` blocks for each object that is being read. Use as a context manager."""

    def __init__(self, connections: int = CONNECTIONS, block_bytes: int = BLOCK_BYTES) -> None:
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="read")
        self._ahead = connections
        self.block_bytes = block_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def blocks(self, store: StorageBackend, key: ObjectKey, start: int, size_bytes: int) -> Iterator[bytes]:
        """Yield the bytes from `start`, up to one byte beyond `size_bytes`: then the object is longer than expected.
        It ends early where the object does. Raises StorageError."""
        end = size_bytes + 1
        if end - start <= self.block_bytes + 1:
            yield store.read(key, start, end - start)
            return
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        at = start
        try:
            while waiting or at < end:
                while at < end and len(waiting) < self._ahead:
                    # no request for the byte beyond the end alone
                    length = end - at if end - at <= self.block_bytes + 1 else self.block_bytes
                    waiting.append((length, self._pool.submit(store.read, key, at, length)))
                    at += length
                length, reading = waiting.popleft()
                block = reading.result()
                yield block
                if len(block) < length:
                    return
        finally:
            for _, reading in waiting:
                reading.cancel()

"""A limit of bytes per second, shared by all reads of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Thread-safe. What was not used is not saved up for more than a second."""

    def __init__(
        self,
        bytes_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock`, `sleep`: in seconds."""
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def __call__(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - 1) + size_bytes / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)

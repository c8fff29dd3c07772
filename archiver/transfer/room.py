"""How many copies of an engine are under way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from archiver.http import cancellation
from archiver.http.runtime import Runtime


class Room:
    """The copies under way, at most `capacity`. Who waits to enter is woken when an eighth of it is free: to be woken
    for each would cost as much as all else about a small object."""

    def __init__(self, runtime: Runtime, capacity: int) -> None:
        self._runtime = runtime
        self._capacity = capacity
        self._inviting = capacity - max(1, capacity // 8)
        self._inside = 0
        self._lock = threading.Lock()
        self._free: Future[None] | None = None

    def enter(self, check: Callable[[], None]) -> None:
        """Blocks while it is full; raises what `check` raises."""
        while True:
            with self._lock:
                if self._inside < self._capacity:
                    self._inside += 1
                    return
                free = self._free = self._free or self._runtime.future()
            with suppress(TimeoutError):
                free.result(timeout=cancellation.POLL_SECONDS)
            check()

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            free = self._free if self._inside <= self._inviting else None
            if free is not None:
                self._free = None
        if free is not None:
            free.set_result(None)

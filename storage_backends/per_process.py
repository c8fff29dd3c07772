"""One of something for each process, made at first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """`get()` makes the thing once per process, whichever thread comes first. SDK clients shared across a fork
    answered one call's question to another (storage.md: 2 errors in 1,200 GETs; their own, none)."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        made = self._made
        if made is not None and made[0] == os.getpid():
            return made[1]
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._make())
            return self._made[1]

    def made(self) -> T | None:
        """What this process has made already; None when `get` would make it first."""
        made = self._made
        return made[1] if made is not None and made[0] == os.getpid() else None

    def drop(self) -> T | None:
        """Forget it, for closing; None when this process never made one."""
        with self._lock:
            made, self._made = self._made, None
        return made[1] if made is not None and made[0] == os.getpid() else None

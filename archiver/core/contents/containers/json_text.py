"""Check that a JSON text (RFC 8259) is whole."""

from __future__ import annotations

import threading
from collections.abc import Callable

from archiver.core.contents import texts
from archiver.transfer.errors import UnexpectedContent

MAX_CHECKED_BYTES = 16 * 1024 * 1024  # held in memory until its end; a summary has some KiB


class JsonText:
    """`transfer.base.Structure` of one JSON text, or of JSON Lines. A larger one is not checked."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._parts: dict[int, bytes] = {}
        self._held_bytes = 0

    @property
    def verifies_end(self) -> bool:
        return True

    def saw(self, start: int, data: memoryview) -> None:
        with self._lock:
            self._held_bytes += len(data)
            if self._held_bytes > MAX_CHECKED_BYTES:
                self._parts.clear()
            else:
                self._parts[start] = bytes(data)

    def finish(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        with self._lock:
            parts, self._parts = self._parts, {}
        if size_bytes > MAX_CHECKED_BYTES or self._held_bytes > MAX_CHECKED_BYTES:
            return
        whole = bytearray(size_bytes)
        if sum(map(len, parts.values())) == size_bytes:
            for start, part in parts.items():
                whole[start : start + len(part)] = part
        elif read is not None:
            read(0, memoryview(whole))
        else:
            return
        if not texts.begins_as_json(bytes(whole), is_whole=True):
            raise UnexpectedContent(f"{self._name}: its JSON is cut, or broken further down")

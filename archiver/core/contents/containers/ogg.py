"""Check that an Ogg file is whole by its pages (RFC 3533, section 6).

The last page must end exactly at the end of the file and be marked as the end of its stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from archiver.core.contents.containers.walk import Broken

_PAGE = re.compile(rb"OggS\0")
_HEADER_BYTES = 27
_ENDS_A_STREAM = 0x04
_ALL = 1 << 40


class Ogg:
    """`containers.walk.Format` of Ogg."""

    header_bytes = _HEADER_BYTES + 255

    def __init__(self) -> None:
        self._flags = 0  # of the last page

    @property
    def is_open_ended(self) -> bool:
        return False

    @property
    def scan_bytes(self) -> int:
        return _ALL

    def walk(self, data: memoryview, base: int, at: int) -> int:
        end = base + len(data)
        while end - at >= _HEADER_BYTES:
            start = at - base
            if bytes(data[start : start + 5]) != b"OggS\0":
                raise Broken(f"there is no page at byte {at}")
            table = start + _HEADER_BYTES
            content = table + data[table - 1]
            if content > len(data):
                return at
            self._flags = data[start + 5]
            at = base + content + sum(data[table:content])
        return at

    def finish(self, at: int, size_bytes: int, rest: bytes) -> None:
        if rest or at != size_bytes:
            raise Broken(f"its last page begins or ends at byte {at}, and the file ends at byte {size_bytes}")
        if not self._flags & _ENDS_A_STREAM:
            raise Broken("its last page is not the end of a stream")

    # -- parts out of order ----------------------------------------------------------------------------------
    def island(self) -> Ogg:
        return Ogg()

    def join(self, island: Ogg) -> None:
        self._flags = island._flags

    def entries(self, data: memoryview) -> Iterator[Sequence[int]]:
        return ((found.start(),) for found in _PAGE.finditer(data))

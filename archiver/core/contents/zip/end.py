"""Find the central directory by the end record (APPNOTE 4.3.16), and check that the zip is whole around it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from archiver.core.errors import BadContents

Read = Callable[[int, int], bytes | memoryview]
"""`read(start, length)` returns exactly `length` bytes of the zip."""

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END_MAGIC, _LOCATOR_MAGIC, _END64_MAGIC = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
ENTRY_MAGIC = b"PK\x01\x02"
LONGEST_END_BYTES = _END64.size + _END64_LOCATOR.size + _END.size + 0xFFFF  # with a comment of any length


@dataclass(frozen=True, slots=True)
class DirectoryPlace:
    """Position of the directory, and its number of members. Unless `is_zip64`, `members` may be modulo 65,536."""

    start: int
    length_bytes: int
    members: int
    is_zip64: bool


def find_directory(read: Read, size_bytes: int) -> DirectoryPlace:
    """Find the directory. Raises BadContents when the zip is cut, split, or has bytes before or after it; and what
    `read` raises."""
    tail_start = max(0, size_bytes - LONGEST_END_BYTES)
    tail = bytes(read(tail_start, size_bytes - tail_start))
    at = _end_record(tail)
    _, disk, first_disk, here, members, length, start, _ = _END.unpack_from(tail, at)
    ends = tail_start + at
    locator = at - _END64_LOCATOR.size
    is_zip64 = locator >= 0 and tail[locator : locator + 4] == _LOCATOR_MAGIC
    if is_zip64:
        _, _, end64, _ = _END64_LOCATOR.unpack_from(tail, locator)
        if end64 + _END64.size > tail_start + locator:
            raise BadContents(
                "its Zip64 end record is not where it says: bytes are missing, or lie before it"
            )
        record = (
            tail[end64 - tail_start :][: _END64.size]
            if end64 >= tail_start
            else bytes(read(end64, _END64.size))
        )
        magic, _, _, _, disk, first_disk, here, members, length, start = _END64.unpack(record)
        if magic != _END64_MAGIC:
            raise BadContents("its Zip64 end record is broken, or bytes lie before the zip")
        ends = end64
    if disk or first_disk or here != members:
        raise BadContents("it is one of several parts of a split zip")
    if start + length < ends:
        raise BadContents(f"{ends - start - length} bytes lie before the zip or before its end record")
    if start + length > ends:
        raise BadContents(
            "its directory does not end where its end record begins: it is cut, or its end record is broken"
        )
    return DirectoryPlace(start, length, members, is_zip64)


def check_whole(read: Read, size_bytes: int) -> None:
    """Raise BadContents for a zip that is broken, cut, split or empty, without reading members."""
    place = find_directory(read, size_bytes)
    if not place.members:
        raise BadContents("it is empty")
    if place.length_bytes < len(ENTRY_MAGIC) or bytes(read(place.start, len(ENTRY_MAGIC))) != ENTRY_MAGIC:
        raise BadContents("its directory is not where its end record says")


def _end_record(tail: bytes) -> int:
    """Return the position in `tail` of the end record whose comment reaches the end of the file."""
    at = len(tail) - _END.size
    left_over: int | None = None
    while at >= 0 and (at := tail.rfind(_END_MAGIC, 0, at + len(_END_MAGIC))) >= 0:
        *_, comment_bytes = _END.unpack_from(tail, at)
        after = len(tail) - at - _END.size - comment_bytes
        if after == 0:
            return at
        left_over = after if left_over is None else left_over
        at -= 1
    if left_over is None:
        raise BadContents("it has no end record: it is cut short at the source, or is no zip")
    if left_over < 0:
        raise BadContents("the comment at its end is cut short")
    raise BadContents(f"{left_over} bytes follow its end record")

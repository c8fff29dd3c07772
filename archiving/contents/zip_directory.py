"""The central directory of a zip, read by range and judged before any member is touched.

Python's `zipfile` wants a file; this reads three ranges. Zip64, stored and deflated members, with or without data
descriptors; nothing else. Sizes and offsets are the directory's: what a member's own header says is not believed.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from archiving.errors import BadContents
from transfer.base import Source, SourceInfo

_MIB = 1024 * 1024
_GIB = 1024 * _MIB

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_TAIL = _END64.size + _END64_LOCATOR.size + _END.size + 0xFFFF

STORED, DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8 = 0x800
_IN_ZIP64 = 0xFFFFFFFF
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """A recording stays far below; a bomb does not. Video hardly deflates at all, playlists and captions do."""

    members: int = 1_000_000
    directory_bytes: int = 256 * _MIB
    total_bytes: int = 4096 * _GIB  # inflated; 12 h in 4 layers are about 40 GiB
    member_ratio: int = 200  # inflated over packed, of a member of more than `ratio_from_bytes`
    total_ratio: int = 10  # of all together, above `ratio_from_bytes`
    ratio_from_bytes: int = 64 * _MIB


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the zip. `name` is relative, has no `..`, and is no other member's. Sizes in bytes."""

    name: str
    raw_name: bytes
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset: int  # of its local header
    room_ends: int  # the next member or the directory begins here


def read_directory(source: Source, info: SourceInfo, limits: ZipLimits) -> list[Member]:
    """The files of the zip in the order in which they lie in it. Raises BadContents, saying why, for a zip that
    is broken, hostile or of a kind that is not unpacked; SourceError. `info` must offer ranges and a size."""
    assert info.size_bytes is not None
    start, length, count = _find_directory(source, info, info.size_bytes)
    if length > limits.directory_bytes or count > limits.members:
        raise BadContents(
            f"{source.name}: a zip with {count} members and a directory of {length} bytes is refused"
        )
    data = _read(source, info, start, length)
    members = sorted(_entries(data, count, start), key=lambda member: member.offset)
    _check_bomb(members, limits)
    return [_with_room(*pair) for pair in zip_longest(members, members[1:])]


def local_header_bytes(member: Member) -> int:
    """As many as `data_offset` needs to see."""
    return int(_LOCAL.size) + len(member.raw_name)


def data_offset(member: Member, header: bytes) -> int:
    """Where in the zip a member's data begin. Raises BadContents when `header` is not its local header."""
    if header[:4] != b"PK\x03\x04":
        raise BadContents(f"{member.name!r}: no local header where the directory says")
    _, _, flags, method, *_, name_bytes, extra_bytes = _LOCAL.unpack_from(header)
    same_name = name_bytes == len(member.raw_name) and header[_LOCAL.size :] == member.raw_name
    if flags & _ENCRYPTED or method != member.method or not same_name:
        raise BadContents(f"{member.name!r}: its local header contradicts the directory")
    offset = member.offset + int(_LOCAL.size + name_bytes + extra_bytes)
    if offset + member.packed_bytes > member.room_ends:
        raise BadContents(f"{member.name!r}: reaches into the next member")
    return offset


def _find_directory(source: Source, info: SourceInfo, size: int) -> tuple[int, int, int]:
    """Start, length and number of entries."""
    tail_start = max(0, size - _LONGEST_TAIL)
    tail = _read(source, info, tail_start, size - tail_start)
    at = len(tail) - _END.size
    while True:
        at = tail.rfind(b"PK\x05\x06", 0, at + 4) if at >= 0 else -1
        if at < 0:
            raise BadContents(f"{source.name} is cut short or no zip: its end record is missing")
        *_, comment_bytes = _END.unpack_from(tail, at)
        if at + _END.size + comment_bytes == len(tail):
            break
        at -= 1
    _, disk, first_disk, here, count, length, start, _ = _END.unpack_from(tail, at)
    ends = tail_start + at
    locator = at - _END64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        _, _, end64, _ = _END64_LOCATOR.unpack_from(tail, locator)
        if end64 + _END64.size > tail_start + locator:
            raise BadContents(f"{source.name}: its Zip64 end record is not where it should be")
        record = _read(source, info, end64, _END64.size)
        magic, _, _, _, disk, first_disk, here, count, length, start = _END64.unpack(record)
        if magic != b"PK\x06\x06":
            raise BadContents(f"{source.name}: its Zip64 end record is broken")
        ends = end64
    if disk or first_disk or here != count:
        raise BadContents(f"{source.name} is one of several parts of a split zip")
    if start + length != ends:
        raise BadContents(f"{source.name}: its directory does not end where its end record begins")
    return start, length, count


def _entries(data: bytes, count: int, directory_start: int) -> Iterator[Member]:
    seen: set[str] = set()
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(data) or data[at : at + 4] != b"PK\x01\x02":
            raise BadContents(f"the zip's directory ends after {len(seen)} of {count} members")
        entry = _ENTRY.unpack_from(data, at)
        _, made_by, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes, comment_bytes = entry[
            :13
        ]
        disk, _, external, offset = entry[13], entry[14], entry[15], entry[16]
        at += _ENTRY.size
        raw_name = data[at : at + name_bytes]
        extra = data[at + name_bytes : at + name_bytes + extra_bytes]
        at += name_bytes + extra_bytes + comment_bytes
        size, packed, offset = _zip64(extra, size, packed, offset)
        name = _safe_name(raw_name, flags)
        if flags & _ENCRYPTED:
            raise BadContents(f"zip member {name!r} is encrypted")
        if disk not in (0, 0xFFFF):
            raise BadContents(f"zip member {name!r} lies in another part of a split zip")
        if name.endswith("/"):
            if size or packed > 2:  # an empty deflate stream has two bytes
                raise BadContents(f"zip member {name!r} is a folder with content")
            continue
        if method not in (STORED, DEFLATED):
            raise BadContents(
                f"zip member {name!r} is packed by method {method}; only stored and deflated are read"
            )
        if method == STORED and size != packed:
            raise BadContents(f"zip member {name!r} is stored with two sizes, {packed} and {size}")
        if made_by >> 8 == 3 and stat.S_ISLNK(external >> 16):
            raise BadContents(f"zip member {name!r} is a symbolic link")
        if name in seen:
            raise BadContents(f"zip member {name!r} is there twice")
        seen.add(name)
        if offset + _LOCAL.size + name_bytes + packed > directory_start:
            raise BadContents(f"zip member {name!r} lies outside of the zip's data")
        yield Member(name, raw_name, method, crc, packed, size, offset, directory_start)
    if at != len(data):
        raise BadContents(f"the zip's directory goes on after its {count} members")


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The three values, each taken from the Zip64 field where the entry has no room for it."""
    if _IN_ZIP64 not in (size, packed, offset):
        return size, packed, offset
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = iter(
                struct.unpack_from(f"<{length // 8}Q", extra, at + 4) if at + 4 + length <= len(extra) else ()
            )
            try:
                return (
                    next(wide) if size == _IN_ZIP64 else size,
                    next(wide) if packed == _IN_ZIP64 else packed,
                    next(wide) if offset == _IN_ZIP64 else offset,
                )
            except StopIteration:
                break
        at += 4 + length
    raise BadContents("a zip member's Zip64 sizes are missing")


def _safe_name(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        raise BadContents(f"zip member {raw[:80]!r} has a name that is not the UTF-8 it says") from None
    while name.startswith("./"):
        name = name[2:]
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or _DRIVE.match(name):
        raise BadContents(f"zip member {name[:80]!r} has an absolute name")
    if ".." in parts or "\\" in name:
        raise BadContents(f"zip member {name[:80]!r} has a name that leads out of the zip")
    if not all(part not in ("", ".") and part.isprintable() for part in parts):
        raise BadContents(f"zip member {name[:80]!r} has a name that is no plain path")
    return name


def _check_bomb(members: list[Member], limits: ZipLimits) -> None:
    total = sum(member.size_bytes for member in members)
    packed = sum(member.packed_bytes for member in members)
    if total > limits.total_bytes:
        raise BadContents(f"the zip inflates to {total} bytes, more than the {limits.total_bytes} allowed")
    if total > limits.ratio_from_bytes and total > packed * limits.total_ratio:
        raise BadContents(f"the zip inflates from {packed} to {total} bytes: a bomb, not a recording")
    for member in members:
        if (
            member.size_bytes > limits.ratio_from_bytes
            and member.size_bytes > member.packed_bytes * limits.member_ratio
        ):
            raise BadContents(
                f"zip member {member.name!r} inflates from {member.packed_bytes} to {member.size_bytes} bytes: a bomb"
            )


def _with_room(member: Member, following: Member | None) -> Member:
    room_ends = member.room_ends if following is None else following.offset
    if member.offset + _LOCAL.size + len(member.raw_name) + member.packed_bytes > room_ends:
        raise BadContents(f"zip member {member.name!r} overlaps another one")
    return replace(member, room_ends=room_ends)


def _read(source: Source, info: SourceInfo, start: int, length: int) -> bytes:
    data = bytearray(length)
    if length:
        source.read_range(start, memoryview(data), info)
    return bytes(data)

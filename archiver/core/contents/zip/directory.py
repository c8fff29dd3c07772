"""Read and validate the central directory of a zip by range (APPNOTE 4.3.12), before any member is read.

Supported: Zip64, stored and deflated members, data descriptors. Sizes and offsets are the directory's; local headers
are only compared with it. Python's `zipfile` has no such bounds (docs/decisions/0010-zip-directory.md)."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from archiver.core.contents.zip.end import ENTRY_MAGIC, DirectoryPlace, Read, find_directory
from archiver.core.contents.zip.names import extra_fields, member_name
from archiver.core.errors import BadContents

_MIB = 1024 * 1024
_GIB = 1024 * _MIB

_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

STORED, DEFLATED = 0, 8
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 99: "AES encryption"}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_IN_ZIP64 = 0xFFFFFFFF
_ZIP64 = 1  # the extra field


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """Limits far above any recording and below a zip bomb. Video hardly deflates; playlists and captions do."""

    members: int = 1_000_000
    directory_bytes: int = 256 * _MIB
    total_bytes: int = 4096 * _GIB  # inflated; 12 h in 4 layers are about 40 GiB
    member_ratio: int = 200  # size over compressed size, for members of more than `ratio_from_bytes`
    total_ratio: int = 10  # the same of all members together
    ratio_from_bytes: int = 64 * _MIB


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the zip. `name` is relative, without `..`, and unique."""

    name: str
    raw_name: bytes
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset: int  # of its local header
    end_bound: int  # where the next member or the directory begins


def read_directory(read: Read, size_bytes: int, limits: ZipLimits) -> list[Member]:
    """Return the files of the zip in order of offset. Raises BadContents for a zip that is broken, hostile, empty or
    not supported; and what `read` raises."""
    place = find_directory(read, size_bytes)
    if place.length_bytes > limits.directory_bytes or place.members > limits.members:
        raise BadContents(
            f"it has {place.members} members and a directory of {place.length_bytes} bytes, more than is unpacked"
        )
    data = bytes(read(place.start, place.length_bytes))
    entries = sorted(_entries(data, place, limits), key=lambda member: member.offset)
    if entries and entries[0].offset:
        raise BadContents(f"{entries[0].offset} bytes lie before its first member")
    _check_bomb(entries, limits)
    with_end = (_with_end(*pair) for pair in zip_longest(entries, entries[1:]))
    members = [member for member in with_end if not member.name.endswith("/")]
    if not members:
        raise BadContents("it holds no files")
    return members


def local_header_bytes(member: Member) -> int:
    """Return how many bytes `data_offset` needs."""
    return int(_LOCAL.size) + len(member.raw_name)


def data_offset(member: Member, header: bytes) -> int:
    """Return where a member's data begins (APPNOTE 4.3.7). Raises BadContents when `header` is not its local header."""
    if header[:4] != b"PK\x03\x04":
        raise BadContents("it has no local header where the directory says")
    _, _, flags, method, *_, name_bytes, extra_bytes = _LOCAL.unpack_from(header)
    same_name = name_bytes == len(member.raw_name) and header[_LOCAL.size :] == member.raw_name
    if flags & _ENCRYPTED or method != member.method or not same_name:
        raise BadContents("its local header contradicts the directory")
    offset = member.offset + int(_LOCAL.size + name_bytes + extra_bytes)
    if offset + member.packed_bytes > member.end_bound:
        raise BadContents("it reaches into the next member")
    return offset


def _entries(data: bytes, place: DirectoryPlace, limits: ZipLimits) -> Iterator[Member]:
    """Yield files, and folders, whose names end with a slash."""
    seen: set[str] = set()
    at = entries = 0
    while at < len(data):
        if at + _ENTRY.size > len(data) or data[at : at + 4] != ENTRY_MAGIC:
            raise BadContents(f"its directory is broken after {entries} of {place.members} members")
        entries += 1
        if entries > limits.members:
            raise BadContents(f"it has more than {limits.members} members")
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
        name = member_name(raw_name, flags, extra)
        if flags & _ENCRYPTED:
            raise BadContents(f"member {name!r} is encrypted")
        if disk not in (0, 0xFFFF):
            raise BadContents(f"member {name!r} lies in another part of a split zip")
        if name.endswith("/") and (size or packed > 2):  # an empty deflate stream has two bytes
            raise BadContents(f"member {name!r} is a folder with content")
        if method not in (STORED, DEFLATED):
            known = f" ({_METHODS[method]})" if method in _METHODS else ""
            raise BadContents(
                f"member {name!r} is packed by method {method}{known}; only stored and deflated are unpacked"
            )
        if method == STORED and size != packed and not name.endswith("/"):
            raise BadContents(f"member {name!r} is stored with two sizes, {packed} and {size}")
        if made_by >> 8 == 3 and stat.S_ISLNK(external >> 16):
            raise BadContents(f"member {name!r} is a symbolic link")
        if name in seen:
            raise BadContents(f"member {name!r} is there twice")
        seen.add(name)
        if offset + _LOCAL.size + name_bytes + packed > place.start:
            raise BadContents(f"member {name!r} lies outside of the zip's data")
        yield Member(name, raw_name, method, crc, packed, size, offset, place.start)
    # programs without Zip64 write the number modulo 65,536
    if at != len(data) or (entries if place.is_zip64 else entries & 0xFFFF) != place.members:
        raise BadContents(f"its directory ends after {entries} of {place.members} members")


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Return the three values, from the Zip64 extra field where the entry says 0xFFFFFFFF (APPNOTE 4.5.3)."""
    if _IN_ZIP64 not in (size, packed, offset):
        return size, packed, offset
    for kind, field in extra_fields(extra):
        if kind != _ZIP64:
            continue
        wide = iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
        try:
            return (
                next(wide) if size == _IN_ZIP64 else size,
                next(wide) if packed == _IN_ZIP64 else packed,
                next(wide) if offset == _IN_ZIP64 else offset,
            )
        except StopIteration:
            break
    raise BadContents("the Zip64 sizes of a member are missing")


def _check_bomb(members: list[Member], limits: ZipLimits) -> None:
    total = sum(member.size_bytes for member in members)
    packed = sum(member.packed_bytes for member in members)
    if total > limits.total_bytes:
        raise BadContents(f"it inflates to {total} bytes, more than the {limits.total_bytes} allowed")
    if total > limits.ratio_from_bytes and total > packed * limits.total_ratio:
        raise BadContents(f"it inflates from {packed} to {total} bytes: a bomb, not a recording")
    for member in members:
        if (
            member.size_bytes > limits.ratio_from_bytes
            and member.size_bytes > member.packed_bytes * limits.member_ratio
        ):
            raise BadContents(
                f"member {member.name!r} inflates from {member.packed_bytes} to {member.size_bytes} bytes: a bomb"
            )


def _with_end(member: Member, following: Member | None) -> Member:
    end_bound = member.end_bound if following is None else following.offset
    if member.offset + _LOCAL.size + len(member.raw_name) + member.packed_bytes > end_bound:
        raise BadContents(f"member {member.name!r} overlaps another one")
    return replace(member, end_bound=end_bound)

"""Zips of VOD trees, written as to a socket: with data descriptors after each member (APPNOTE 4.3.9)."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

from archiver.simulator.recordings.content import Content, Held, Joined

_TIME = (2024, 1, 1, 0, 0, 0)  # zips of the same files are the same bytes
_DESCRIPTOR_FOLLOWS = 0x08
_DOS_DATE = (2024 - 1980) << 9 | 1 << 5 | 1
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF
FARTHEST = _MOST_32  # from here on, an offset needs a Zip64 field


class _Socket(io.RawIOBase):
    """Cannot seek, so `zipfile` writes data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self.data += piece
        return len(piece)


def zipped(files: Mapping[str, Content], *, deflate: bool) -> Held:
    """Zip a small tree, in memory."""
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    socket = _Socket()
    with zipfile.ZipFile(socket, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, _TIME)
            info.compress_type = method
            archive.writestr(info, b"".join(content.read(0, content.size_bytes)))
    return Held(bytes(socket.data))


def streamed_zip(files: Mapping[str, Content]) -> Joined:
    """Make a zip of stored members, of any size, generated while read. Reads every member once for its CRC."""
    parts: list[Content] = []
    directory: list[bytes] = []
    offset = 0
    for name, content in files.items():
        crc = 0
        for piece in content.read(0, content.size_bytes):
            crc = zlib.crc32(piece, crc)
        header = _local_header(name.encode())
        # A descriptor has 64-bit sizes only with a Zip64 record; a member here is never over 4 GiB.
        descriptor = struct.pack("<4sLLL", b"PK\x07\x08", crc, content.size_bytes, content.size_bytes)
        directory.append(_directory_entry(name.encode(), crc, content.size_bytes, offset))
        parts += [Held(header), content, Held(descriptor)]
        offset += len(header) + content.size_bytes + len(descriptor)
    parts.append(Held(b"".join(directory) + _end(len(directory), sum(map(len, directory)), offset)))
    etag = hashlib.md5(b"".join(directory), usedforsecurity=False).hexdigest()
    return Joined(parts, f"{etag}-{len(parts)}")


def _local_header(name: bytes) -> bytes:
    return (
        struct.pack(
            "<4s5H3L2H", b"PK\x03\x04", 20, _DESCRIPTOR_FOLLOWS, 0, 0, _DOS_DATE, 0, 0, 0, len(name), 0
        )
        + name
    )


def _directory_entry(name: bytes, crc: int, size: int, offset: int) -> bytes:
    far = offset >= FARTHEST
    extra = struct.pack("<HHQ", 1, 8, offset) if far else b""
    version = 45 if far else 20
    return (
        struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\x01\x02", version, version, _DESCRIPTOR_FOLLOWS, 0, 0, _DOS_DATE, crc, size, size),
            *(len(name), len(extra), 0, 0, 0, 0, _MOST_32 if far else offset),
        )
        + name
        + extra
    )


def _end(count: int, size: int, offset: int) -> bytes:
    record = b""
    if count >= _MOST_16 or offset >= FARTHEST or size >= FARTHEST:
        record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
        record += struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + size, 1)
    return record + struct.pack(
        "<4s4H2LH",
        *(b"PK\x05\x06", 0, 0, min(count, _MOST_16), min(count, _MOST_16)),
        *(min(size, _MOST_32), min(offset, _MOST_32), 0),
    )

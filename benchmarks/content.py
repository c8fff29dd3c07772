"""What the source serves: files of any size, made of one file of random bytes, each different from the next.

Nothing large is stored: a file is a short list of pieces, each literal bytes or a stretch of the random file.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google_crc32c import extend

KIB, MIB, GIB = 2**10, 2**20, 2**30
PATTERN_BYTES = 64 * MIB  # more than a processor's cache: what a client reads is not in it already
_SEED = 20240501


def write_pattern(path: Path) -> None:
    generator = random.Random(_SEED)  # noqa: S311 - nothing secret
    with path.open("wb") as file:
        for _ in range(PATTERN_BYTES // MIB):
            file.write(generator.randbytes(MIB))


@dataclass(frozen=True, slots=True)
class Stretch:
    """`size_bytes` of the pattern from `offset`, which goes round."""

    offset: int
    size_bytes: int


Piece = bytes | Stretch


class Body:
    """A file's bytes."""

    __slots__ = ("pieces", "size_bytes")

    def __init__(self, *pieces: Piece) -> None:
        self.pieces = pieces
        self.size_bytes = sum(_length(piece) for piece in pieces)

    def part(self, start: int, stop: int) -> Iterator[Piece]:
        """The pieces of `[start, stop)`; a stretch does not go round."""
        at = 0
        for piece in self.pieces:
            low, high = max(start - at, 0), min(stop - at, _length(piece))
            at += _length(piece)
            if low >= high:
                continue
            if isinstance(piece, bytes):
                yield piece[low:high]
                continue
            while low < high:
                offset = (piece.offset + low) % PATTERN_BYTES
                size = min(high - low, PATTERN_BYTES - offset)
                yield Stretch(offset, size)
                low += size

    def crc32c(self, pattern: memoryview) -> int:
        crc = 0
        for piece in self.part(0, self.size_bytes):
            crc = extend(crc, bytes(bytes_of(piece, pattern)))
        return crc


def bytes_of(piece: Piece, pattern: memoryview) -> bytes | memoryview:
    return piece if isinstance(piece, bytes) else pattern[piece.offset : piece.offset + piece.size_bytes]


def media(name: str, size_bytes: int) -> Body:
    """A file that looks like MPEG-TS to whoever looks at its first bytes."""
    head = (b"\x47" + bytes(187)) * 22  # as far as the checks look
    offset = zlib.crc32(name.encode()) % (PATTERN_BYTES // 4096) * 4096
    return Body(head[:size_bytes], Stretch(offset, max(0, size_bytes - len(head))))


def zip_of(files: dict[str, Body], pattern: memoryview) -> Body:
    """A zip of stored members, as packers leave media."""
    pieces: list[Piece] = []
    directory: list[bytes] = []
    at = 0
    crcs: dict[tuple[Piece, ...], int] = {}
    for name, body in files.items():
        if body.pieces not in crcs:
            crc = 0
            for piece in body.part(0, body.size_bytes):
                crc = zlib.crc32(bytes_of(piece, pattern), crc)
            crcs[body.pieces] = crc
        encoded = name.encode()
        sizes = struct.pack("<LLL", crcs[body.pieces], body.size_bytes, body.size_bytes)
        local = struct.pack("<4sHHHHH", b"PK\x03\x04", 20, 0x800, 0, 0, 0x21) + sizes
        local += struct.pack("<HH", len(encoded), 0) + encoded
        central = struct.pack("<4sHHHHHH", b"PK\x01\x02", 20, 20, 0x800, 0, 0, 0x21) + sizes
        directory.append(central + struct.pack("<HHHHHLL", len(encoded), 0, 0, 0, 0, 0, at) + encoded)
        pieces += [local, *body.pieces]
        at += len(local) + body.size_bytes
    packed = b"".join(directory)
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, len(files), len(files), len(packed), at, 0)
    return Body(*pieces, packed + end)


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size_bytes

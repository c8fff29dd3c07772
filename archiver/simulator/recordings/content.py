"""The bytes of one file: held, or generated while read, so that any size needs no memory and no disk."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Protocol

import google_crc32c

TS_PACKET_BYTES = 188
TS_SYNC = 0x47
_STAMP_BYTES = 16
# Larger writes are not faster; whole TS packets, so that blocks can be repeated.
_BLOCK_BYTES = TS_PACKET_BYTES * 1394
# ftyp, moov with a track, mdat: enough for structure checks.
MP4_HEAD = (
    b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41"
    b"\x00\x00\x00\x18moov\x00\x00\x00\x10trak\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x00\x00\x00\x00mdat"  # size 0: to the end of the file
)


class Content(Protocol):
    """The bytes of a file, the same at every read."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def etag(self) -> str:
        """Without quotes: an MD5, or as S3 makes it for a multipart upload."""
        ...

    def __hash__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes `start` to `stop` - 1 in pieces; `stop` must not exceed the size."""
        ...


@dataclass(frozen=True)
class Held:
    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @cached_property
    def etag(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        for piece in range(start, stop, _BLOCK_BYTES):
            yield self.data[piece : min(piece + _BLOCK_BYTES, stop)]


@dataclass(frozen=True)
class Synthetic:
    """Bytes generated from `seed`. A random block is repeated with a different stamp each time, so that parts in the
    wrong order, or of another file, are detected."""

    size_bytes: int
    seed: str
    head: bytes = b""
    transport_stream: bool = False

    @property
    def etag(self) -> str:
        digest = hashlib.md5(f"{self.seed}/{self.size_bytes}".encode(), usedforsecurity=False).hexdigest()
        return f"{digest}-{max(1, -(-self.size_bytes // (16 << 20)))}"

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        seed = hashlib.md5(self.seed.encode(), usedforsecurity=False).digest()
        base = _transport_stream_block() if self.transport_stream else _noise_block()
        stamped_at = 4 if self.transport_stream else 0  # after the four bytes of a TS packet header
        before, after = base[:stamped_at], base[stamped_at + _STAMP_BYTES :]
        for number in range(start // _BLOCK_BYTES, -(-stop // _BLOCK_BYTES)):
            stamp = number.to_bytes(8, "big") + seed[:8]
            block = b"".join((before, stamp, after))
            if number == 0 and self.head:
                block = self.head + block[len(self.head) :]
            offset = number * _BLOCK_BYTES
            low, high = max(start - offset, 0), min(stop - offset, _BLOCK_BYTES)
            yield block if high - low == _BLOCK_BYTES else block[low:high]


class Joined:
    """Several contents, concatenated."""

    def __init__(self, parts: Sequence[Content], etag: str) -> None:
        self._parts = parts
        self._ends = list(accumulate(part.size_bytes for part in parts))
        self.etag = etag

    @property
    def size_bytes(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        index = bisect_right(self._ends, start)
        while start < stop:
            part = self._parts[index]
            offset = self._ends[index] - part.size_bytes
            yield from part.read(start - offset, min(stop - offset, part.size_bytes))
            start = self._ends[index]
            index += 1


@dataclass(frozen=True)
class Digests:
    sha256: str
    crc32c: int


def digests(content: Content) -> Digests:
    """Digest the content, about a second per 500 MB."""
    sha256, crc32c = hashlib.sha256(), 0
    for piece in content.read(0, content.size_bytes):
        sha256.update(piece)
        crc32c = google_crc32c.extend(crc32c, piece)
    return Digests(sha256.hexdigest(), crc32c)


def crc32c_of(content: Content) -> int:
    value = 0
    for piece in content.read(0, content.size_bytes):
        value = google_crc32c.extend(value, piece)
    return int(value)


@lru_cache(maxsize=1)
def _noise_block() -> bytes:
    return random.Random("noise").randbytes(_BLOCK_BYTES)


@lru_cache(maxsize=1)
def _transport_stream_block() -> bytes:
    # Null packets (PID 0x1FFF): a player skips them, a probe sees a transport stream.
    noise = random.Random("transport stream")
    header = bytes((TS_SYNC, 0x1F, 0xFF, 0x10))
    packets = _BLOCK_BYTES // TS_PACKET_BYTES
    return b"".join(header + noise.randbytes(TS_PACKET_BYTES - 4) for _ in range(packets))

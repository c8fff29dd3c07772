"""Content codings: which an answer really has, and undoing gzip and deflate in bounded memory.

The label is often wrong: uploaders write a charset or `aws-chunked` into Content-Encoding, or gzip on a body that is
not packed. A name that is no coding is ignored, and a coding is undone only where the body begins like it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from archiver.http.head import Headers
from archiver.transfer.base import Reader
from archiver.transfer.errors import StillEncoded

_PIECE_BYTES = 64 * 1024
_GZIP = frozenset({"gzip", "x-gzip"})
_DEFLATE = frozenset({"deflate", "x-deflate"})
_UNDOABLE = _GZIP | _DEFLATE
# The IANA registry, and what servers are known to send without being in it. Everything else transforms nothing.
_REAL = _UNDOABLE | {
    "aes128gcm", "br", "bzip2", "compress", "dcb", "dcz", "exi", "lz4", "lzma", "pack200-gzip", "sdch", "snappy",
    "x-bzip2", "x-compress", "x-snappy", "xz", "x-xz", "zstd",
}  # fmt: skip


def codings_in(headers: Headers, name: str = "content-encoding") -> tuple[str, ...]:
    """The real codings of an answer, in the order in which they were applied (RFC 9110, section 8.4)."""
    if headers.get(name) is None:
        return ()
    listed = ",".join(headers.all(name)).lower().split(",")
    return tuple(coding for text in listed if (coding := text.strip()) in _REAL)


def can_undo(codings: Sequence[str]) -> bool:
    return all(coding in _UNDOABLE for coding in codings)


def undo(body: Reader, codings: Sequence[str], name: str) -> tuple[Reader, tuple[str, ...]]:
    """`body` without `codings`, and those that it really had. Reads the first bytes.

    Reading raises StillEncoded when a packed stream is cut, corrupt or followed by something else: the body arrived
    whole by its framing, so that it is so at the source, and can be kept as it is sent.
    """
    undone: list[str] = []
    for coding in reversed(codings):
        peeked = _Peeked(body)
        body = peeked
        window_bits = _window_bits(coding, peeked.start)
        if window_bits is not None:
            body = _Unpacked(peeked, window_bits, coding, name)
            undone.insert(0, coding)
    return body, tuple(undone)


def _window_bits(coding: str, start: bytes) -> int | None:
    """Return how zlib unpacks a body that begins with `start`; None when it is not packed at all."""
    if coding in _GZIP:
        return 16 + zlib.MAX_WBITS if start[:2] == b"\x1f\x8b" else None
    if len(start) >= 2 and start[0] & 0x0F == 8 and int.from_bytes(start[:2], "big") % 31 == 0:
        return zlib.MAX_WBITS
    raw = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers send deflate without its zlib header
    try:
        raw.decompress(start)
    except zlib.error:
        return None
    return -zlib.MAX_WBITS if start and not raw.unused_data else None


class _Peeked:
    """A body whose first bytes were looked at: `start`, of two bytes or more, where there are so many."""

    def __init__(self, body: Reader) -> None:
        self._body = body
        piece = memoryview(bytearray(1024))
        start = b""
        while len(start) < 2 and (count := body.readinto(piece)):
            start += bytes(piece[:count])
        self.start = self._left = start

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._left:
            return self._body.readinto(buffer)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._body.close()


class _Unpacked:
    """A packed body, unpacked. A gzip body may have several members, and zeros after the last (as gzip(1) reads it)."""

    def __init__(self, body: Reader, window_bits: int, coding: str, name: str) -> None:
        self._body = body
        self._window_bits = window_bits
        self._coding = coding
        self._name = name
        self._stream = zlib.decompressobj(window_bits)
        self._piece = memoryview(bytearray(_PIECE_BYTES))
        self._packed = b""
        self._all_read = False
        self._ended = False

    def readinto(self, buffer: memoryview, /) -> int:
        while len(buffer) and not self._ended:
            if not self._packed and not self._all_read:
                self._packed = bytes(self._piece[: self._body.readinto(self._piece)])
                self._all_read = not self._packed
            if self._stream.eof and not self._next_member():
                continue
            try:
                data = self._stream.decompress(self._packed, len(buffer))
            except zlib.error as error:
                raise StillEncoded(self._name, f"is damaged {self._coding}: {error}") from None
            self._packed = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if data:
                buffer[: len(data)] = data
                return len(data)
            if self._all_read and not self._stream.eof:
                raise StillEncoded(self._name, f"is {self._coding} that was cut before it was sent")
        return 0

    def close(self) -> None:
        self._body.close()

    def _next_member(self) -> bool:
        """Return whether another member begins here. At the end, and within zeros, none does."""
        if self._coding in _GZIP:
            self._packed = self._packed.lstrip(b"\0")
        if self._packed:
            if self._coding not in _GZIP or self._packed[:1] != b"\x1f":
                raise StillEncoded(
                    self._name, f"has something else after the end of its {self._coding} stream"
                )
            self._stream = zlib.decompressobj(self._window_bits)
            return True
        self._ended = self._all_read
        return False

"""Request bodies, counted as they come and dropped."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

from google_crc32c import extend

from benchmarks.server import Connection, Request

_PIECE_BYTES = 1024 * 1024
_LOOK_BYTES = 4 * 1024


class Incoming:
    """Counts a body as it comes, at the connection's pace. `crc` is its CRC32C with `verify`, else None."""

    def __init__(self, connection: Connection, verify: bool) -> None:
        self._connection = connection
        self.crc: int | None = 0 if verify else None
        self.size_bytes = 0

    def framed(self, request: Request) -> None:
        """Take a whole body, by Content-Length or chunked."""
        for size in self._frames(request):
            self._take(size)

    def whole(self, request: Request) -> bytes:
        """Return a body, which the caller knows to be small. It is not counted."""
        return b"".join(bytes(self._read(size)) for size in self._frames(request))

    def aws_chunks(self, request: Request) -> None:
        """Take `aws-chunked` inside a body of either framing. Reads it whole: for small bodies."""
        data = self.whole(request)
        at = 0
        while True:
            end = data.index(b"\r\n", at)
            size = int(data[at:end].partition(b";")[0], 16)
            if not size:
                return
            self._see(memoryview(data)[end + 2 : end + 2 + size])
            at = end + 2 + size + 2

    def related(self, request: Request) -> bytes:
        """Take the second part of a multipart/related body and return the first (RFC 2387).

        Only the beginning and as many bytes as the closing delimiter may take are looked at; between them the kernel
        may drop the bytes as in `framed`.
        """
        boundary = re.search(r'boundary="?([^";]+)', request.headers["content-type"])
        if boundary is None:
            raise ConnectionResetError("multipart/related without a boundary")
        delimiter = b"\r\n--" + boundary[1].encode("latin-1")
        keep = len(delimiter) + len(b"--\r\n")
        first: bytes | None = None
        begun, tail = b"", b""
        for frame in self._frames(request):
            left = frame
            while left and first is None:
                size = min(left, _LOOK_BYTES)
                begun += self._read(size)
                left -= size
                first, tail = _split(begun, delimiter)
            if left >= keep:
                self._see(tail)
                self._take(left - keep)
                tail, left = b"", keep
            tail += self._read(left)
            if len(tail) > keep:
                self._see(tail[:-keep])
                tail = tail[-keep:]
        end = tail.rfind(delimiter + b"--")
        if first is None or end < 0:
            raise ConnectionResetError("not a multipart/related body of two parts")
        self._see(tail[:end])
        return first

    def _frames(self, request: Request) -> Iterator[int]:
        """The sizes of the stretches that the body comes in; the caller takes each before it asks for the next."""
        if "chunked" not in request.headers.get("transfer-encoding", ""):
            yield int(request.headers.get("content-length", "0"))
            return
        while size := int(self._connection.line().partition(b";")[0], 16):
            yield size
            self._connection.line()
        while self._connection.line():
            pass

    def _read(self, size: int) -> bytearray:
        data = bytearray(self._connection.take_buffered(size))
        self._connection.pacer.pass_on(len(data))
        while len(data) < size:
            piece = self._connection.sock.recv(min(_PIECE_BYTES, size - len(data)))
            if not piece:
                raise ConnectionResetError("the client left in the middle of a body")
            self._connection.pacer.pass_on(len(piece))
            data += piece
        return data

    def _take(self, size: int) -> None:
        ready = self._connection.take_buffered(size)
        self._see(ready)
        self._connection.pacer.pass_on(len(ready))
        left = size - len(ready)
        scrap = memoryview(_scrap())
        # without TLS or a checksum the kernel can drop the bytes where they are
        flags = socket.MSG_TRUNC if self.crc is None and not self._connection.tls else 0
        piece = self._connection.pacer.piece_bytes
        while left:
            into = scrap[: min(left, piece)]
            count = self._connection.sock.recv_into(into, len(into), flags)
            if not count:
                raise ConnectionResetError("the client left in the middle of a body")
            self._see(into[:count])
            self._connection.pacer.pass_on(count)
            left -= count

    def _see(self, data: bytes | memoryview) -> None:
        self.size_bytes += len(data)
        if self.crc is not None:
            self.crc = extend(self.crc, bytes(data))


def _split(begun: bytes, delimiter: bytes) -> tuple[bytes | None, bytes]:
    """The first part's content, and what has come of the second's; None while the second's head is not complete."""
    first = begun.find(b"\r\n\r\n")
    between = begun.find(delimiter, first + 2)
    second = begun.find(b"\r\n\r\n", between)
    if min(first, between, second) < 0:
        return None, b""
    return begun[first + 4 : between], begun[second + 4 :]


_LOCAL = threading.local()


def _scrap() -> bytearray:
    buffer: bytearray | None = getattr(_LOCAL, "buffer", None)
    if buffer is None:
        buffer = _LOCAL.buffer = bytearray(_PIECE_BYTES)
    return buffer

"""One HTTP/1.1 exchange after another on one socket: a strict reader of heads and of body framing.

Written out rather than taken from `http.client` for three reasons: a body is read into the caller's buffer with
no copy between; every wait ends (silence, a trickle, a stop) at the single receive call below; and a body whose
framing does not add up is an error here, where the library gives what it has.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from transfer import stopping

_HEAD_BYTES = 32 * 1024  # for status line and headers together; servers themselves stop at 8 to 16 KiB
_LINE_BYTES = 4096  # a chunk's size line or a trailer
_TRAILER_LINES = 64
_TRICKLE_SECONDS = 60.0
_TRICKLE_BYTES = 64 * 1024  # a body slower than this a minute is stalled: 1 GiB would take eleven days
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)", re.DOTALL)
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?")
_NO_BODY = frozenset({204, 304})


class WireError(Exception):
    """The exchange failed; the connection is of no more use. The text holds no URL."""


class ClosedBeforeAnswer(WireError):
    """Not one byte of an answer came. On a connection that was kept alive, the usual end of its life."""


class Headers:
    """Headers of an answer; names in any case. A name may come several times (`Set-Cookie`)."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def get(self, name: str) -> str | None:
        """The first value of `name`."""
        values = self._fields.get(name.lower())
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return list(self._fields.get(name.lower(), ()))


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: Headers
    keeps_alive: bool
    length_bytes: int | None  # of the body on the wire; None: chunked, or until the connection closes
    chunked: bool


class Wire:
    """One connection. Used by one thread at a time. `request` begins an exchange, `readinto` reads its body;
    when `at_end` and `reusable`, the next exchange may begin."""

    def __init__(self, sock: socket.socket, peer: str, silence_seconds: float) -> None:
        self._sock = sock
        self.peer = peer
        self._silence_seconds = silence_seconds
        sock.settimeout(min(stopping.POLL_SECONDS, silence_seconds))
        self._buffer = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._buffer)
        self._low = self._high = 0
        self._left: int | None = 0  # of the body, or of the current chunk; None: until the connection closes
        self._chunked = False
        self._spoiled = False
        self.at_end = True
        self.reusable = False
        self._slow_since_bytes = 0
        self._slow_seconds = 0.0

    # -- one exchange --------------------------------------------------------------------------------------
    def request(self, target: str, headers: Mapping[str, str]) -> Head:
        """Send a GET and read the head of the answer. Raises WireError."""
        self.at_end = self.reusable = False
        self._slow_seconds, self._slow_since_bytes = 0.0, 0
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        if any("\r" in line or "\n" in line for line in lines):
            raise WireError("the request would hold a line break in its address or headers")
        try:
            self._sock.sendall("\r\n".join(lines).encode("latin-1"))
        except UnicodeEncodeError:
            raise WireError("the request would hold a character that HTTP headers cannot carry") from None
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise ClosedBeforeAnswer(f"the connection was closed ({_plain(error)})") from error
        except OSError as error:
            raise WireError(f"the request could not be sent ({_plain(error)})") from error
        return self._head()

    def _head(self) -> Head:
        deadline = monotonic() + self._silence_seconds
        for _ in range(4):  # an informational answer or three may come first
            block = self._head_block(deadline)
            head = _parse_head(block)
            if head.status >= 200:
                break
        else:
            raise WireError("only informational answers came")
        self._chunked = head.chunked
        self._left = 0 if head.chunked else head.length_bytes
        self.reusable = head.keeps_alive and (head.chunked or head.length_bytes is not None)
        self.at_end = not head.chunked and head.length_bytes == 0
        return head

    def _head_block(self, deadline: float) -> bytes:
        self._compact()
        while True:
            end = self._buffer.find(b"\r\n\r\n", self._low, self._high)
            if end >= 0:
                block = bytes(self._view[self._low : end])
                self._low = end + 4
                return block
            if self._high == len(self._buffer):
                raise WireError(f"the head of the answer is longer than {_HEAD_BYTES} bytes")
            if monotonic() > deadline:
                raise WireError(f"no whole head of an answer within {self._silence_seconds:g} s")
            fresh = self._high == self._low
            try:
                count = self._receive(self._view[self._high :])
            except ConnectionError as error:
                kind = ClosedBeforeAnswer if fresh else WireError
                raise kind(f"the connection was reset before an answer ({_plain(error)})") from error
            if not count:
                kind = ClosedBeforeAnswer if fresh else WireError
                raise kind("the connection was closed before a whole answer")
            self._high += count

    def readinto(self, into: memoryview) -> int:
        """Some of the body, at most `len(into)` bytes; 0 at its proper end and there alone. Raises WireError."""
        if self.at_end or not len(into):
            return 0
        if self._chunked and self._left == 0 and not self._next_chunk():
            return 0
        if self._left is not None:
            into = into[: self._left]
        count = self._take(into)
        if self._left is None:
            self.at_end = not count
        elif not count:
            raise WireError(
                f"the body was cut short, {self._left} bytes before the end of its announced length"
            )
        else:
            self._left -= count
            if not self._left:
                self._end_of_piece()
        return count

    def _end_of_piece(self) -> None:
        if self._chunked:
            if self._line():
                raise WireError("a chunk of the body is longer than it says")
        else:
            self.at_end = True

    def _next_chunk(self) -> bool:
        match = _CHUNK_LINE.fullmatch(self._line())
        if not match:
            raise WireError("a chunk of the body does not begin with its size")
        self._left = int(match.group(1), 16)
        if self._left:
            return True
        for _ in range(_TRAILER_LINES):
            if not self._line():
                self.at_end = True
                return False
        raise WireError("the body's trailer does not end")

    # -- bytes ---------------------------------------------------------------------------------------------
    def _line(self) -> bytes:
        while True:
            end = self._buffer.find(b"\r\n", self._low, self._high)
            if end >= 0:
                line = bytes(self._view[self._low : end])
                self._low = end + 2
                return line
            if self._high - self._low > _LINE_BYTES:
                raise WireError("a line of the body's framing is too long")
            self._compact()
            count = self._receive_or_fail(self._view[self._high :])
            if not count:
                raise WireError("the body was cut short within its chunks")
            self._high += count

    def _take(self, into: memoryview) -> int:
        ready = min(self._high - self._low, len(into))
        if ready:
            into[:ready] = self._view[self._low : self._low + ready]
            self._low += ready
            return ready
        return self._receive_or_fail(into)

    def _receive_or_fail(self, into: memoryview) -> int:
        try:
            return self._receive(into)
        except ConnectionError as error:
            raise WireError(f"the body was cut short ({_plain(error)})") from error

    def _receive(self, into: memoryview) -> int:
        """The only wait: it ends with bytes, with the end of the stream (0), after `silence_seconds` of silence,
        on a trickle, or when told to stop."""
        began = monotonic()
        while True:
            try:
                count = self._sock.recv_into(into)
                break
            except TimeoutError:
                stopping.check()
                waited = monotonic() - began
                if waited >= self._silence_seconds:
                    raise WireError(f"nothing came for {waited:.0f} s") from None
            except ConnectionError:
                raise
            except ssl.SSLEOFError:  # the end of TCP without the end of TLS: somebody cut the stream
                raise ConnectionAbortedError(None, "the TLS stream was cut") from None
            except OSError as error:
                raise WireError(f"the connection broke ({_plain(error)})") from error
        self._slow_seconds += monotonic() - began
        self._slow_since_bytes += count
        if self._slow_seconds >= _TRICKLE_SECONDS:
            if self._slow_since_bytes < _TRICKLE_BYTES:
                raise WireError(f"only {self._slow_since_bytes} bytes came in {self._slow_seconds:.0f} s")
            self._slow_seconds, self._slow_since_bytes = 0.0, 0
        return count

    def _compact(self) -> None:
        if self._low:
            rest = bytes(self._view[self._low : self._high])
            self._view[: len(rest)] = rest
            self._low, self._high = 0, len(rest)

    # -- life ----------------------------------------------------------------------------------------------
    def idle_and_silent(self) -> bool:
        """Whether nothing unasked-for came since the last exchange; an end of the stream counts as something."""
        if self._high > self._low:
            return False
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return False
        self._sock.setblocking(False)
        try:
            # peeking beneath TLS: a session ticket looks like news, and the price is one new connection
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
            return False
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        finally:
            self._sock.settimeout(min(stopping.POLL_SECONDS, self._silence_seconds))

    def close(self) -> None:
        self._sock.close()


def _parse_head(block: bytes) -> Head:
    status_line, *lines = block.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if not match:
        raise WireError("what came is not an HTTP/1.x answer")
    minor, status = int(match.group(1)), int(match.group(2))
    fields: list[tuple[str, str]] = []
    for line in lines:
        field = _HEADER_LINE.fullmatch(line)
        if not field or b"\n" in line or b"\r" in line or b"\0" in line:
            raise WireError("a header line of the answer is malformed")
        fields.append((field.group(1).decode("ascii"), field.group(2).rstrip(b" \t").decode("latin-1")))
    headers = Headers(fields)
    connection = ",".join(headers.all("connection")).lower()
    keeps_alive = "close" not in connection and (minor == 1 or "keep-alive" in connection)
    codings = [part.strip().lower() for part in ",".join(headers.all("transfer-encoding")).split(",")]
    chunked = codings == ["chunked"]
    if not chunked and codings != [""]:
        raise WireError("the answer has a transfer encoding other than chunked")
    lengths = {part.strip() for value in headers.all("content-length") for part in value.split(",")}
    if len(lengths) > 1 or not all(text.isascii() and text.isdigit() and len(text) <= 18 for text in lengths):
        raise WireError("the answer's Content-Length is malformed or contradicts itself")
    if chunked and lengths:
        keeps_alive = False  # two framings: who is in between may have followed the other
    length = None if chunked or not lengths else int(lengths.pop())
    if status in _NO_BODY or status < 200:
        length, chunked = 0, False
    return Head(status, headers, keeps_alive, length, chunked)


def _plain(error: OSError) -> str:
    """An operating system's or OpenSSL's word for what happened; neither holds a URL."""
    return (error.strerror if isinstance(error.strerror, str) else None) or type(error).__name__

"""One HTTP/1.1 exchange after another on one socket: a strict reader of heads and of body framing.

Written out rather than taken from `http.client` for three reasons: a body is read into the caller's buffer with
no copy between; every wait ends (silence, a trickle, a stop) at the single receive call below; and a body whose
framing does not add up is an error here, where the library gives what it has.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from net.stream import Stream
from transfer import stopping

_HEAD_BYTES = 32 * 1024  # for status line and headers together; servers themselves stop at 8 to 16 KiB
_LINE_BYTES = 4096  # a chunk's size line or a trailer
_TRAILER_LINES = 64
_TRICKLE_SECONDS = 60.0
_TRICKLE_BYTES = 64 * 1024  # a body slower than this a minute is stalled: 1 GiB would take eleven days
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?"
_HEADER_LINES = rb"((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*)"
_HEAD = re.compile(_STATUS_LINE + _HEADER_LINES)
_FIELD = re.compile("\r\n([^:]+):[ \t]*([^\r]*)")
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?")
_NO_BODY = frozenset({204, 304})


class WireError(Exception):
    """The exchange failed; the connection is of no more use. The text holds no URL."""


class ClosedBeforeAnswer(WireError):
    """Not one byte of an answer came. On a connection that was kept alive, the usual end of its life."""


class Headers:
    """Headers of an answer, which are given in any case and asked for in lower case. A name may come several times
    (`Set-Cookie`). `get` is the first value of a name, or None."""

    __slots__ = ("_more", "get")

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        first = {name.lower(): value for name, value in reversed(fields)}
        self.get: Callable[[str], str | None] = first.get  # itself: a dozen are asked for of each answer
        self._more = fields if len(first) < len(fields) else ()

    def all(self, name: str) -> list[str]:
        if self._more:
            return [value for other, value in self._more if other.lower() == name]
        value = self.get(name)
        return [] if value is None else [value]


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: Headers
    keeps_alive: bool
    length_bytes: int | None  # of the body on the wire; None: chunked, or until the connection closes
    chunked: bool

    @property
    def framed(self) -> bool:
        """Whether the end of the body shows. Otherwise it is where the connection closes, as it is after a cut."""
        return self.chunked or self.length_bytes is not None


class Wire:
    """One connection. Used by one thread at a time. `request` begins an exchange, `readinto` reads its body;
    when `at_end` and `reusable`, the next exchange may begin."""

    def __init__(self, sock: socket.socket, peer: str, silence_seconds: float) -> None:
        self._stream = Stream(sock, min(stopping.POLL_SECONDS, silence_seconds))
        self.peer = peer
        self._silence_seconds = silence_seconds
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
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = f"GET {target} HTTP/1.1\r\n{lines}\r\n"
        breaks = len(headers) + 2
        if request.count("\r") != breaks or request.count("\n") != breaks:
            raise WireError("the request would hold a line break in its address or headers")
        try:
            self._stream.send(request.encode("latin-1"))
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
                count = self._receive(self._stream.receive, self._view[self._high :])
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
        if self._left is not None and self._left < len(into):
            into = into[: self._left]
        if self._high > self._low:
            count = min(self._high - self._low, len(into))
            into[:count] = self._view[self._low : self._low + count]
            self._low += count
        else:
            receive = self._stream.receive if self._left is None else self._stream.receive_all
            count = self._receive_or_fail(receive, into)
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
            count = self._receive_or_fail(self._stream.receive, self._view[self._high :])
            if not count:
                raise WireError("the body was cut short within its chunks")
            self._high += count

    def _receive_or_fail(self, receive: Callable[[memoryview], int], into: memoryview) -> int:
        try:
            return self._receive(receive, into)
        except ConnectionError as error:
            raise WireError(f"the body was cut short ({_plain(error)})") from error

    def _receive(self, receive: Callable[[memoryview], int], into: memoryview) -> int:
        """The only wait: it ends with bytes, with the end of the stream (0), after `silence_seconds` of silence,
        on a trickle, or when told to stop."""
        began = monotonic()
        while True:
            try:
                count = receive(into)
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
        waited = monotonic() - began
        if waited >= stopping.POLL_SECONDS:
            stopping.check()
        self._slow_seconds += waited
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
    @property
    def holds_more(self) -> bool:
        """Whether more was received than the exchange has: bytes that would pass for the next answer."""
        return self._high > self._low

    def idle_and_silent(self) -> bool:
        """Whether nothing unasked-for came since the last exchange; an end of the stream counts as something."""
        return not self.holds_more and self._stream.is_silent()

    def close(self) -> None:
        self._stream.close()


def _parse_head(block: bytes) -> Head:
    match = _HEAD.fullmatch(block)
    if not match:
        if re.match(_STATUS_LINE + rb"(?:\r\n|\Z)", block):
            raise WireError("a header line of the answer is malformed")
        raise WireError("what came is not an HTTP/1.x answer")
    minor, status = match.group(1), int(match.group(2))
    fields = _FIELD.findall(match.group(3).decode("latin-1"))
    headers = Headers([(name, value.rstrip(" \t")) for name, value in fields])
    connection = _joined(headers, "connection")
    keeps_alive = "close" not in connection and (minor == b"1" or "keep-alive" in connection)
    codings = _joined(headers, "transfer-encoding").strip()
    chunked = codings == "chunked"
    if codings and not chunked:
        raise WireError("the answer has a transfer encoding other than chunked")
    length = _length(headers)
    if chunked and length is not None:
        keeps_alive = False  # two framings: who is in between may have followed the other
        length = None
    if status in _NO_BODY or status < 200:
        length, chunked = 0, False
    return Head(status, headers, keeps_alive, length, chunked)


def _joined(headers: Headers, name: str) -> str:
    """All values of `name` as one list, in lower case."""
    return "" if headers.get(name) is None else ",".join(headers.all(name)).lower()


def _length(headers: Headers) -> int | None:
    texts = headers.all("content-length")
    if not texts:
        return None
    if len(texts) > 1 or "," in texts[0]:
        texts = list({part.strip() for text in texts for part in text.split(",")})
    if len(texts) > 1 or not (texts[0].isascii() and texts[0].isdigit() and len(texts[0]) <= 18):
        raise WireError("the answer's Content-Length is malformed or contradicts itself")
    return int(texts[0])


def _plain(error: OSError) -> str:
    """An operating system's or OpenSSL's word for what happened; neither holds a URL."""
    return (error.strerror if isinstance(error.strerror, str) else None) or type(error).__name__

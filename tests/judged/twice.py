"""A server, or a proxy before it, that answers twice: from then on every response of its connection is another's."""

from __future__ import annotations

import contextlib
import gzip
import heapq
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

ETAG = '"5f3c-1770"'  # the same for all, as nginx makes it of time and length
WITH_THE_NEXT = -1.0
"""A delay: the duplicate comes just before the next response, so that nobody can see it in time."""
ONE_BEHIND = -2.0
"""A delay: the duplicate comes instead of the next response, which comes instead of that after it, and so on."""

_RANGE = re.compile(r"\r\nrange: bytes=(\d+)-(\d+)\r\n", re.IGNORECASE)
_NEVER = 3600.0


def nobody(_path: str, _count: int) -> bool:
    return False


@dataclass
class TwiceServer:
    """Serves `files` by path, and those in `redirects` from where these lead. `twice(path, n)`: whether the n-th
    response for `path` is sent once more, `delay` seconds later. `asked`: what came, as (connection, path)."""

    files: Mapping[str, bytes]
    twice: Callable[[str, int], bool] = nobody
    delay: float = 0.0
    closes: bool = False  # the connection, with the response after the duplicate
    packed: bool = False
    refuses: Callable[[str, int], bool] = nobody
    tls: ssl.SSLContext | None = None
    redirects: Mapping[str, str] = field(default_factory=dict)
    holds: str | None = None  # a path whose first response comes only when the client is gone
    asked: list[tuple[int, str]] = field(default_factory=list)
    shifted: int = 0  # responses that a client took for another request's, or could have

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._counts: dict[str, int] = {}
        self._open: set[socket.socket] = set()
        self._connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def times_asked(self, path: str) -> int:
        return sum(asked == path for _, asked in self.asked)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            still_open = list(self._open)
        for sock in still_open:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections += 1
            self._start(self._serve, sock, self._connections)

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(plain, server_side=True)
            with self._lock:
                self._open.add(sock)
            _Conversation(self, sock, number).go_on()
        except OSError:  # the client went
            return
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def note(self, number: int, path: str) -> int:
        """Return how many times `path` was asked for by now."""
        with self._lock:
            self.asked.append((number, path))
            self._counts[path] = self._counts.get(path, 0) + 1
            return self._counts[path]

    def note_shift(self) -> None:
        with self._lock:
            self.shifted += 1

    def response(self, path: str, head: str) -> bytes:
        if path in self.redirects:
            return f"HTTP/1.1 302 Found\r\nLocation: {self.redirects[path]}\r\nContent-Length: 0\r\n\r\n".encode()
        body = self.files.get(path)
        if body is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        status, lines = "200 OK", [f"ETag: {ETAG}", "Accept-Ranges: bytes"]
        asked = _RANGE.search(head)
        if self.packed and path.endswith(".ts"):
            body = gzip.compress(body, mtime=0)
            lines.append("Content-Encoding: gzip")
        elif asked:
            total, start = len(body), int(asked.group(1))
            body = body[start : int(asked.group(2)) + 1]
            status = "206 Partial Content"
            lines.append(f"Content-Range: bytes {start}-{start + len(body) - 1}/{total}")
        lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


class _Conversation:
    """One connection. One thread reads and sends, so that two responses never mix."""

    def __init__(self, server: TwiceServer, sock: socket.socket, number: int) -> None:
        self._server = server
        self._sock = sock
        self._number = number
        self._due: list[tuple[float, bytes]] = []
        self._before_next = b""
        self._behind = b""
        self._ends = False
        self._is_shifted = False

    def go_on(self) -> None:
        came = b""
        while not self._ends:
            head, found, rest = came.partition(b"\r\n\r\n")
            if found:
                came = rest
                self._answer(head.decode("latin-1") + "\r\n")
            elif (piece := self._receive()) is not None:
                if not piece:
                    return
                came += piece

    def _receive(self) -> bytes | None:
        """None: nothing came before a duplicate was due, and was sent."""
        self._sock.settimeout(max(0.001, self._due[0][0] - time.monotonic()) if self._due else _NEVER)
        try:
            return self._sock.recv(65536)
        except TimeoutError:
            self._sock.settimeout(_NEVER)
            while self._due and self._due[0][0] <= time.monotonic():
                self._sock.sendall(heapq.heappop(self._due)[1])
                self._is_shifted = True
            return None

    def _answer(self, head: str) -> None:
        server, path = self._server, head.split()[1].partition("?")[0]
        count = server.note(self._number, path)
        response = server.response(path, head)
        if path == server.holds and count == 1:
            while self._sock.recv(65536):
                pass  # until the client is gone
            self._sock.sendall(response)
            self._ends = True
            return
        if server.refuses(path, count):
            response = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        if self._behind:
            server.note_shift()
            response, self._behind = self._behind, response
            self._sock.settimeout(_NEVER)
            self._sock.sendall(response)
            return
        before, self._before_next = self._before_next, b""
        self._is_shifted |= bool(before)
        if self._is_shifted:
            server.note_shift()
        self._ends = bool(before) and server.closes
        again = server.twice(path, count)
        if again and server.delay == WITH_THE_NEXT:
            self._before_next = response
        elif again and server.delay == ONE_BEHIND:
            self._behind = response
        elif again and server.delay:
            heapq.heappush(self._due, (time.monotonic() + server.delay, response))
        self._sock.settimeout(_NEVER)
        self._sock.sendall(before + response + (response if again and not server.delay else b""))

"""A small HTTP/1.1 server that stays out of the way: a thread a connection, bodies never copied by Python.

For measuring alone: it believes its clients about framing.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.network import Link, Network, Pacer

_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class Connection:
    """One client. `start` holds what of the body came along with the head."""

    def __init__(self, sock: socket.socket, pacer: Pacer) -> None:
        self.sock = sock
        self.pacer = pacer
        self.tls = isinstance(sock, ssl.SSLSocket)
        self._buffer = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._buffer)
        self._low = self._high = 0

    def request(self) -> Request | None:
        """The next request; None when the client has left."""
        while (end := self._buffer.find(b"\r\n\r\n", self._low, self._high)) < 0:
            if not self._more():
                return None
        first, *lines = bytes(self._view[self._low : end]).decode("latin-1").split("\r\n")
        self._low = end + 4
        method, target, _ = first.split(" ", 2)
        if "://" in target[:8]:
            target = "/" + target.split("/", 3)[3]
        path, _, query = target.partition("?")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Request(method, path, query, headers)

    def answer(self, status: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.send(self.head(status, {"Content-Length": str(len(body)), **(headers or {})}) + body)

    def head(self, status: str, headers: Mapping[str, str]) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")

    def send(self, data: bytes | memoryview) -> None:
        self.sock.sendall(data)

    def take_buffered(self, at_most: int) -> memoryview:
        """Bytes of the body that came along with its head."""
        size = min(at_most, self._high - self._low)
        taken = self._view[self._low : self._low + size]
        self._low += size
        return taken

    def line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n", self._low, self._high)) < 0:
            if not self._more():
                raise ConnectionResetError("the client left in the middle of a body")
        text = bytes(self._view[self._low : end])
        self._low = end + 2
        return text

    def _more(self) -> bool:
        if self._low:
            rest = bytes(self._view[self._low : self._high])
            self._view[: len(rest)] = rest
            self._low, self._high = 0, len(rest)
        count = self.sock.recv_into(self._view[self._high :])
        self._high += count
        return count > 0


Handle = Callable[[Connection, Request], None]


def serve(listener: socket.socket, network: Network, tls: ssl.SSLContext | None, handle: Handle) -> None:
    """Answer for ever."""
    link = Link(network.link_rate)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_talk, args=(sock, tls, Pacer(network, link), handle), daemon=True).start()


def _talk(sock: socket.socket, tls: ssl.SSLContext | None, pacer: Pacer, handle: Handle) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pacer.round_trip()  # TCP's hand-shake
        if tls is not None:
            pacer.round_trip()
            sock = tls.wrap_socket(sock, server_side=True)
        with sock:
            connection = Connection(sock, pacer)
            while (request := connection.request()) is not None:
                handle(connection, request)
                if request.headers.get("connection", "").lower() == "close":
                    return

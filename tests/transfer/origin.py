"""A fake origin, down at the socket: it serves files properly, with ranges and ETags, until a fault is scripted.

A fault is a function of the request and the proper reply, giving the reply to send instead. `faults` are used up
one a request, in order of arrival; after them the origin behaves.
"""

from __future__ import annotations

import gzip
import select
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

ETAG = '"v1"'


@dataclass(frozen=True)
class Request:
    number: int  # from 0, over all connections
    connection: int
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    @property
    def range(self) -> tuple[int, int] | None:
        text = self.headers.get("range")
        if text is None:
            return None
        first, last = text.removeprefix("bytes=").split("-")
        return int(first), int(last)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    announce: int | None = -1  # Content-Length: -1 the truth, None none at all
    chunked: bool = False
    cut_at: int | None = None  # bytes of the body after which the connection is closed
    reset: bool = False  # closed with a RST
    stall_at: int | None = None  # bytes of the body after which nothing more comes, until the origin is left
    raw: bytes | None = None  # these bytes instead of everything, then the connection is closed
    close: bool = False  # close after a proper end
    silent_close: bool = False  # the same, without saying so: a server that tires of an idle connection

    def header(self, name: str, value: str | None) -> Reply:
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))


Fault = Callable[[Request, Reply], Reply]


def none(_: Request, reply: Reply) -> Reply:
    return reply


@dataclass
class Origin:
    """`files` by path. `requests` are all that came; `sent_bytes` all bodies' bytes handed to the kernel."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = ETAG
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault = none
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    sent_bytes: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def ranges_asked(self) -> list[tuple[int, int]]:
        return [request.range for request in self.requests if request.range]

    def script(self, faults: Iterable[Fault]) -> None:
        self.faults.extend(faults)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def drop_connections(self) -> None:
        """Close every open connection, as a server does that was restarted."""
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def left_within(self, seconds: float) -> bool:
        """Return whether the other side ends every connection, as seen by this one."""
        deadline = monotonic() + seconds
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with suppress(OSError, ValueError):  # the latter when it was closed here meanwhile
                if not select.select([sock], [], [], max(0.0, deadline - monotonic()))[0]:
                    return False
        return True

    def end_connections(self) -> None:
        """The same, and wait until no request of them can come any more."""
        self.drop_connections()
        while self._sockets:
            self._left.wait(0.001)

    # -- the server ----------------------------------------------------------------------------------------
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
            with self._lock:
                self.connections += 1
                number = self.connections
            self._start(self._serve, sock, number)

    def _serve(self, sock: socket.socket, connection: int) -> None:
        with self._lock:
            self._sockets.add(sock)
        try:
            if self.tls:
                plain, sock = sock, self.tls.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
                with self._lock:
                    self._sockets.discard(plain)
                    self._sockets.add(sock)
            with sock.makefile("rb") as lines:
                while (request := self._read(lines.readline, connection)) is not None:
                    with self._lock:
                        fault = self.faults.popleft() if self.faults else self.always
                    if not self._send(sock, fault(request, self.proper(request))):
                        return
        except OSError:
            return
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _read(self, readline: Callable[[], bytes], connection: int) -> Request | None:
        line = readline().decode("latin-1")
        if not line.endswith("\r\n"):
            return None
        headers: dict[str, str] = {}
        while (header := readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        with self._lock:
            request = Request(len(self.requests), connection, line.split(" ")[1], headers)
            self.requests.append(request)
        return request

    def proper(self, request: Request) -> Reply:
        body = self.files.get(request.path)
        if body is None:
            return Reply(404, body=b"not here")
        reply = Reply(200, (("ETag", self.etag),) if self.etag else (), body)
        if request.headers.get("if-match") not in (None, self.etag):
            return replace(reply, status=412, body=b"changed")
        if not self.ranges or request.range is None:
            return reply
        first, last = request.range
        if first >= len(body):
            return replace(reply, status=416, body=b"").header("Content-Range", f"bytes */{len(body)}")
        last = min(last, len(body) - 1)
        reply = replace(reply, status=206, body=body[first : last + 1])
        return reply.header("Content-Range", f"bytes {first}-{last}/{len(body)}")

    def _send(self, sock: socket.socket, reply: Reply) -> bool:
        """Return whether the connection goes on."""
        if reply.raw is not None:
            sock.sendall(reply.raw)
            self._finish(sock)
            return False
        lines = [f"HTTP/1.1 {reply.status} Said", *(f"{name}: {value}" for name, value in reply.headers)]
        if reply.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif reply.announce is not None:
            lines.append(f"Content-Length: {len(reply.body) if reply.announce == -1 else reply.announce}")
        if reply.close:
            lines.append("Connection: close")
        body = reply.body
        if reply.chunked:
            pieces = [body[at : at + 700] for at in range(0, len(body), 700)]
            body = (
                b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
                + b"0\r\nX-T: 1\r\n\r\n"
            )
        limit = min((at for at in (reply.cut_at, reply.stall_at) if at is not None), default=len(body))
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body[:limit])
        with self._lock:
            self.sent_bytes += limit
        if reply.stall_at is not None:
            self._left.wait()
            return False
        if reply.reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if reply.cut_at is not None or reply.silent_close:
            return False
        if reply.close or (reply.announce is None and not reply.chunked):
            self._finish(sock)
            return False
        return True

    def _finish(self, sock: socket.socket) -> None:
        if isinstance(sock, ssl.SSLSocket):
            with suppress(OSError):
                sock.unwrap()
        else:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)


# -- faults by name ------------------------------------------------------------------------------------------
def cut_at(count: int) -> Fault:
    """The connection is closed after `count` bytes of the body."""
    return lambda _, reply: replace(reply, cut_at=count)


def reset_at(count: int) -> Fault:
    """The connection is reset after `count` bytes of the body."""
    return lambda _, reply: replace(reply, cut_at=count, reset=True)


def stall_at(count: int) -> Fault:
    """After `count` bytes of the body nothing more comes."""
    return lambda _, reply: replace(reply, stall_at=count)


def short(_: Request, reply: Reply) -> Reply:
    """A byte fewer than asked for, honestly announced."""
    return replace(reply, body=reply.body[:-1])


def too_long(_: Request, reply: Reply) -> Reply:
    """A byte more than asked for."""
    return replace(reply, body=reply.body + b"!")


def other_etag(_: Request, reply: Reply) -> Reply:
    return reply.header("ETag", '"v2"')


def status(code: int, **headers: str) -> Fault:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return lambda _, __: Reply(code, pairs, b"<Error>no</Error>")


def whole_file(origin: Origin) -> Fault:
    """200 and everything, whatever was asked for."""
    return lambda request, reply: Reply(200, (("ETag", ETAG),), origin.files[request.path])


def html(_: Request, __: Reply) -> Reply:
    return Reply(200, (("Content-Type", "text/html"),), b"<!DOCTYPE html><title>Sorry</title>")


def empty(_: Request, __: Reply) -> Reply:
    return Reply(200)


def other_total(_: Request, reply: Reply) -> Reply:
    text = dict(reply.headers)["Content-Range"]
    span, total = text.split("/")
    return reply.header("Content-Range", f"{span}/{int(total) + 7}")


def other_range(_: Request, reply: Reply) -> Reply:
    total = dict(reply.headers)["Content-Range"].split("/")[1]
    return reply.header("Content-Range", f"bytes 1-{len(reply.body)}/{int(total) + 1}")


def multipart(_: Request, reply: Reply) -> Reply:
    return reply.header("Content-Type", "multipart/byteranges; boundary=x").header("Content-Range", None)


def each(*faults: Fault) -> Fault:
    """All of them, one after the other."""

    def fault(request: Request, reply: Reply) -> Reply:
        for one in faults:
            reply = one(request, reply)
        return reply

    return fault


def without_content_range(_: Request, reply: Reply) -> Reply:
    return reply.header("Content-Range", None)


def total_unknown(_: Request, reply: Reply) -> Reply:
    """`bytes 0-99/*`."""
    text = dict(reply.headers).get("Content-Range", "")
    return reply.header("Content-Range", f"{text.split('/')[0]}/*" if text else None)


def capped_at(count: int) -> Fault:
    """A range is answered with so many of its bytes at most, honestly announced."""

    def fault(request: Request, reply: Reply) -> Reply:
        if reply.status != 206 or request.range is None:
            return reply
        total, body = dict(reply.headers)["Content-Range"].split("/")[1], reply.body[:count]
        start = request.range[0]
        reply = replace(reply, body=body)
        return reply.header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")

    return fault


def for_later_ranges(fault: Fault) -> Fault:
    """`fault`, of every range but the first."""
    return lambda request, reply: fault(request, reply) if request.range and request.range[0] else reply


def for_ranges(fault: Fault) -> Fault:
    """`fault`, of every answer to a range."""
    return lambda request, reply: fault(request, reply) if request.range else reply


def without_etag(_: Request, reply: Reply) -> Reply:
    return reply.header("ETag", None)


def chunked(_: Request, reply: Reply) -> Reply:
    return replace(reply, chunked=True)


def until_closed(_: Request, reply: Reply) -> Reply:
    """A body without length or chunks, ended by closing the connection."""
    return replace(reply, announce=None)


def gzipped(_: Request, reply: Reply) -> Reply:
    return replace(reply, body=gzip.compress(reply.body)).header("Content-Encoding", "gzip")


def raw(data: bytes) -> Fault:
    return lambda _, __: Reply(raw=data)


def silent_close(_: Request, reply: Reply) -> Reply:
    """A proper answer, then the connection is closed without a word."""
    return replace(reply, silent_close=True)


def redirect(to: str, code: int = 302) -> Fault:
    return lambda _, __: Reply(code, (("Location", to),))

"""What stands between a worker and a store's server: it counts what of an upload arrives, and kills the worker when
something has.

One request at a time reaches the server, so that "the k-th part" means one moment. What a dead worker had sent before
its death and the server had not yet seen never arrives: as if it had died a moment earlier.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TIMEOUT_SECONDS = 30.0
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@dataclass(frozen=True)
class Moment:
    """The `count`th time that a request of this kind (`begin`, `part`, `complete`, `put`, `list`) arrives: before the
    server has seen it, or when it has done it and nobody knows yet."""

    kind: str
    count: int = 1
    done: bool = True

    def __str__(self) -> str:
        return f"{'after' if self.done else 'before'} {self.kind} {self.count}"


@dataclass
class Seen:
    """Of one worker. `media_bytes` are those of parts that arrived; `held_bytes`, that the server took."""

    asked: Counter[str] = field(default_factory=Counter)  # by kind
    paths: list[tuple[str, str]] = field(default_factory=list)  # kind and path of each request, in order
    media_bytes: int = 0
    held_bytes: int = 0


@dataclass(frozen=True)
class _Call:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        span = next((value for name, value in self.headers.items() if name.lower() == "content-range"), None)
        if self.method == "PUT" and span is not None:  # of a GCS session
            return "part" if span.endswith("/*") else "complete"
        if self.method == "PUT" and query.get("comp") == ["blocklist"]:
            return "complete"
        if self.method == "PUT" and query.get("comp") == ["block"]:
            return "part" if len(self.body) > 1 else "begin"
        if self.method == "PUT":
            return "part" if "partNumber" in query else "put"
        if self.method == "POST":
            if "uploads" in query or query.get("uploadType") == ["resumable"]:
                return "begin"
            return "complete" if "uploadId" in query else "put"
        listing = "list-type" in query or re.fullmatch(r"/storage/v1/b/[^/]+/o", url.path)
        return "list" if self.method == "GET" and listing else "other"


class Sink:
    """In front of the server on `port_behind`; on one port of its own for as long as it exists, for stores are known
    by their address. `endpoint_url` is where a worker finds it."""

    def __init__(self, port_behind: int) -> None:
        self._port_behind = port_behind
        self._place = socket.socket()  # keeps the port while nobody listens
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port: int = self._place.getsockname()[1]

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._place.close()

    @contextlib.contextmanager
    def serving(
        self,
        moment: Moment | None = None,
        kill: Callable[[], None] = lambda: None,
    ) -> Iterator[Seen]:
        """For one worker. At `moment` it is killed."""
        run = _Run(self.port, self._port_behind, moment, kill)

        class Handler(_Handler):
            serve = staticmethod(run)  # type: ignore[assignment]

        class Server(ThreadingHTTPServer):
            allow_reuse_port = True
            daemon_threads = False  # so that closing waits for every one of them

            def handle_error(self, request: Any, client_address: Any) -> None:
                """The worker is gone: that is the purpose."""

        with Server(("127.0.0.1", self.port), Handler) as server:
            thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
            )
            thread.start()
            try:
                yield run.seen
            finally:
                server.shutdown()
                thread.join(10)


class _Run:
    def __init__(
        self,
        port: int,
        port_behind: int,
        moment: Moment | None,
        kill: Callable[[], None],
    ) -> None:
        self.seen = Seen()
        self._port = port
        self._port_behind = port_behind
        self._moment = moment
        self._kill = kill
        self._dead = False
        self._lock = threading.Lock()

    def __call__(self, call: _Call) -> _Answer | None:
        """The server's answer; None when there is nobody to hear it."""
        kind = call.kind
        with self._lock:
            if self._dead:
                return None
            of_a_session = (kind, call.method) == ("complete", "PUT") and "comp=" not in call.path
            media_bytes = len(call.body) if kind == "part" or of_a_session else 0
            self.seen.asked[kind] += 1
            self.seen.media_bytes += media_bytes
            self.seen.paths.append((kind, unquote(urlsplit(call.path).path)))
            now = self._moment and (self._moment.kind, self._moment.count) == (kind, self.seen.asked[kind])
            if now and self._moment and not self._moment.done:
                self._end()
                return None
            answer = self._forward(call)
            if answer.status < 400:
                self.seen.held_bytes += media_bytes
            if now:
                self._end()
                return None
            return answer

    def _end(self) -> None:
        self._dead = True
        self._kill()

    def _forward(self, call: _Call) -> _Answer:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._port_behind, timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request(call.method, call.path, call.body, dict(call.headers))
            response = connection.getresponse()
            headers = [(name, self._by_us(name, value)) for name, value in response.getheaders()]
            return _Answer(response.status, headers, response.read())

    def _by_us(self, name: str, value: str) -> str:
        """A GCS session is at the address that the server believes it has."""
        return value.replace(f":{self._port_behind}/", f":{self._port}/") if name == "Location" else value


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_SECONDS
    disable_nagle_algorithm = (
        True  # or each answer in two pieces waits 40 ms for the worker's acknowledgement
    )
    serve: _Run

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.serve(_Call(self.command, self.path, dict(self.headers.items()), body))
        if answer is None:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        length = str(len(answer.body))
        for name, value in answer.headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value  # of what it describes
            elif name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 # the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""

"""An HTTP proxy in front of a real server, which can spoil one exchange by name:

lose_answer   the request reaches the server and is done; the client gets a closed connection
answer        the server never sees the request; the client gets the given answer
replace       the request is done; the client gets the given answer instead of the server's
change        the request is done; the client gets the server's answer as changed by a function
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from urllib3 import HTTPHeaderDict

_TIMEOUT_SECONDS = 30.0
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    method: str
    path: str  # with its query
    headers: Mapping[str, str]  # names in any case
    body: bytes


@dataclass
class Fault:
    matches: Callable[[Call], bool]
    times: int
    forwards: bool
    answer: Callable[[Answer | None], Answer | None]  # None: the connection is closed


class FaultProxy:
    """`calls` holds the requests in order."""

    def __init__(self, port_behind: int) -> None:
        self.calls: list[Call] = []
        self.port = 0
        self._port_behind = port_behind
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def lose_answer(self, matches: Callable[[Call], bool], times: int = 1) -> None:
        self._faults.append(Fault(matches, times, True, lambda _: None))

    def answer(self, matches: Callable[[Call], bool], answer: Answer, times: int = 1) -> None:
        self._faults.append(Fault(matches, times, False, lambda _: answer))

    def replace(self, matches: Callable[[Call], bool], answer: Answer, times: int = 1) -> None:
        self._faults.append(Fault(matches, times, True, lambda _: answer))

    def change(
        self, matches: Callable[[Call], bool], change: Callable[[Answer], Answer], times: int = 1_000_000
    ) -> None:
        def changed(answer: Answer | None) -> Answer | None:
            return None if answer is None else change(answer)

        self._faults.append(Fault(matches, times, True, changed))

    def handle(self, call: Call) -> Answer | None:
        with self._lock:
            self.calls.append(call)
            fault = next((f for f in self._faults if f.times and f.matches(call)), None)
            if fault is not None:
                fault.times -= 1
        if fault is None:
            return self._forward(call)
        return fault.answer(self._forward(call) if fault.forwards else None)

    def _forward(self, call: Call) -> Answer:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._port_behind, timeout=_TIMEOUT_SECONDS)
        ) as connection:
            connection.request(call.method, call.path, call.body, dict(call.headers))
            response = connection.getresponse()
            return Answer(response.status, response.read(), dict(response.getheaders()))


def without_headers(*names: str) -> Callable[[Answer], Answer]:
    lower = {name.lower() for name in names}
    return lambda answer: replace(
        answer, headers={name: value for name, value in answer.headers.items() if name.lower() not in lower}
    )


@contextlib.contextmanager
def fault_proxy(port_behind: int) -> Iterator[FaultProxy]:
    proxy = FaultProxy(port_behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _TIMEOUT_SECONDS

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = proxy.handle(Call(self.command, self.path, HTTPHeaderDict(self.headers.items()), body))
            if answer is None:
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            length = {name.lower(): value for name, value in answer.headers.items()}.get(
                "content-length", "0"
            )
            # the length of what a HEAD describes; of what is really sent otherwise
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 # the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join(10)

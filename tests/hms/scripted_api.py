"""A real HTTP server that answers what the test wrote down, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    path: str  # as sent, still quoted
    query: Mapping[str, str]
    token: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`cut_at`: send so many bytes of the body, then hang up. `stall`: send nothing until the test is over."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    stall: bool = False
    hang_up: bool = False


def says(body: object, status: int = 200, **headers: str) -> Answer:
    """JSON, as the API answers. Header names are written with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json", **named})


def refuses(status: int, message: str = "no", **headers: str) -> Answer:
    return says({"code": status, "message": message, "details": []}, status, **headers)


def html(status: int = 200) -> Answer:
    return Answer(status, b"<!doctype html><h1>Maintenance</h1>", {"Content-Type": "text/html"})


Script = Sequence[Answer] | Callable[[Asked], Answer]


class ScriptedApi(ThreadingHTTPServer):
    """Answers in the order of the script, the last one for ever; or asks a function."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v2"

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            number = len(self.asked) - 1
        if callable(self.script):
            return self.script(asked)
        return self.script[min(number, len(self.script) - 1)]


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedApi
    protocol_version = "HTTP/1.1"
    timeout = 10
    wbufsize = -1  # head and body in one packet: no delayed ACK to wait for

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        answer = self.server.answer(Asked(url.path, query, token))
        if answer.stall:
            self.server.over.wait(10)
        if answer.stall or answer.hang_up:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        if "Date" not in answer.headers:
            self.send_header("Date", self.date_time_string())
        self.end_headers()
        self.wfile.write(answer.body[: answer.cut_at])
        if answer.cut_at is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        return


@contextmanager
def scripted_api(script: Script) -> Iterator[ScriptedApi]:
    with ScriptedApi(script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()

"""A small origin over real HTTP, whose every answer a test can change, and the reading and copying of contents."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote

from archiver.core.contents.base import Contents, Item, Phase
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.base import CHECKED_BYTES, Source, SourceInfo
from archiver.transfer.errors import SourceError
from archiver.transfer.http import HttpClient
from archiver.transfer.urls import SecretUrl
from tests.core.contents.media import tree


@dataclass(frozen=True)
class Request:
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Rule = Callable[[Request], Answer | None]


class Origin:
    """Serves `files` by path, with ranges and ETags. `rule` is asked first and may answer instead. `requests` are
    all that came."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.rule: Rule = lambda request: None
        self.headers: Rule = lambda request: None  # headers to add to an answer that is served from `files`
        self.ranges = True
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def asked(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: Request) -> Answer:
        if (special := self.rule(request)) is not None:
            return special
        body = self.files.get(request.path)
        if body is None:
            return Answer(404, b"<html>not here</html>")
        extra = self.headers(request)
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:16]}"', **(extra.headers if extra else {})}
        asked = request.headers.get("range", "")
        if not (self.ranges and asked.startswith("bytes=")):
            return Answer(200, body, headers)
        first, last = (int(number or len(body)) for number in asked.removeprefix("bytes=").split("-"))
        if first >= len(body):
            return Answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        piece = body[first : last + 1]
        stop = first + len(piece) - 1
        return Answer(206, piece, {**headers, "Content-Range": f"bytes {first}-{stop}/{len(body)}"})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path, _, query = self.path.partition(
                    "?"
                )  # not urlsplit: it takes `//` at the start for a host
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = parse_qs(query, keep_blank_values=True)
                request = Request(unquote(path, errors="surrogateescape"), asked, headers)
                origin.requests.append(request)
                answer = origin.answer(request)
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
                """Nothing: the requests are kept."""

        return Handler


@contextmanager
def http_client() -> Iterator[HttpClient]:
    """One that may read loopback origins which the test hands out, as the API would."""
    client = HttpClient(AddressPolicy(allow_private=True))
    try:
        yield client
    finally:
        client.close()


def signed(url: str) -> RenewableUrl:
    return RenewableUrl(lambda: SecretUrl(url))


def vod(name: str = "vod-ts", below: str = "/vod") -> dict[str, bytes]:
    """The files of `tests.core.contents.media.tree` by URL path."""
    return {f"{below}/{path}": body for path, body in tree(name).items()}


@dataclass
class Copy:
    """What a copy of contents holds, by path below the asset's folder."""

    files: dict[str, bytes] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    optional_failures: list[str] = field(default_factory=list)
    failures: dict[str, SourceError] = field(default_factory=dict)


def copy(contents: Contents, *, go_on: bool = False) -> Copy:
    """Fetch every item in order, as the engine would, and hold them to the promises of `Item` and `Phase`. With
    `go_on`, an item that cannot be had is one of `failures`, as the archiver makes a doubt of it."""
    made, phase = Copy(), Phase.MEDIA
    for item in contents.items():
        assert item.phase >= phase, f"{item.path} of phase {item.phase.name} came after {phase.name}"
        assert item.path not in made.files, f"{item.path} came twice"
        phase = item.phase
        assert sum(body is not None for body in (item.source, item.chunks, item.data)) == 1
        try:
            body, info = _fetched(item)
            if item.check is not None:
                item.check(body[:CHECKED_BYTES], info)
        except SourceError as error:
            if item.optional:
                made.optional_failures.append(f"{item.path}: {error}")
            elif go_on:
                made.failures[item.path] = error
            else:
                raise
            continue
        assert item.size_bytes in (None, len(body))
        made.files[item.path] = body
        made.items[item.path] = item
    return made


def body_of(item: Item) -> bytes:
    return _fetched(item)[0]


def read_source(source: Source) -> bytes:
    return _read(source)[0]


def _fetched(item: Item) -> tuple[bytes, SourceInfo | None]:
    if item.source is not None:
        return _read(item.source)
    if item.chunks is not None:
        return b"".join(bytes(chunk) for chunk in item.chunks), None
    assert item.data is not None
    return item.data, None


def _read(source: Source) -> tuple[bytes, SourceInfo]:
    info, reader = source.open(64 * 1024)
    try:
        body = bytearray()
        piece = memoryview(bytearray(64 * 1024))
        while count := reader.readinto(piece):
            body += piece[:count]
    finally:
        reader.close()
    if info.ranges and info.size_bytes is not None and info.size_bytes > len(body):
        rest = memoryview(bytearray(info.size_bytes - len(body)))
        source.read_range(len(body), rest, info)
        body += rest
    return bytes(body), info

"""What the sinks of S3 and Google Cloud Storage share: stores that remember objects and drop their bytes.

Every byte that comes is counted, so that each run is checked. With `verify` the CRC32C of each object is computed as
well, and a body that does not have the declared one is refused. Without, the kernel drops the bytes and what a client
declares is believed.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qs

from benchmarks.incoming import Incoming
from benchmarks.server import Connection, Request

Query = dict[str, list[str]]
Act = Callable[[Connection, Request, str, Query], None]


@dataclass(frozen=True, slots=True)
class Stored:
    size_bytes: int
    crc32c: int | None  # computed, with `verify`
    etag: str
    declared: str | None = None  # the CRC32C that the client sent along, in base64
    generation: int = 0


@dataclass(slots=True)
class MultipartUpload:
    key: str
    parts: dict[int, Stored] = field(default_factory=dict)


class Sink(ABC):
    def __init__(self, verify: bool) -> None:
        self._verify = verify
        self._lock = threading.Lock()
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, MultipartUpload] = {}
        self._numbers = itertools.count(1)
        self._requests: dict[str, int] = {}
        self._body_bytes = 0

    # -- for the harness -----------------------------------------------------------------------------------
    def report(self) -> dict[str, object]:
        with self._lock:
            return {
                "objects": {key: asdict(stored) for key, stored in self._objects.items()},
                "open_uploads": len(self._uploads),
                "requests": dict(self._requests),
                "body_bytes": self._body_bytes,
            }

    def reset(self) -> None:
        with self._lock:
            self._objects, self._uploads, self._requests, self._body_bytes = {}, {}, {}, 0

    # -- for the clients -----------------------------------------------------------------------------------
    def handle(self, connection: Connection, request: Request) -> None:
        if request.path == "/-/report":
            return connection.answer("200 OK", body=json.dumps(self.report()).encode())
        if request.path == "/-/reset":
            self.reset()
            return connection.answer("200 OK")
        query = parse_qs(request.query, keep_blank_values=True)
        operation, act, key = self.operation(request, query)
        with self._lock:
            self._requests[operation] = self._requests.get(operation, 0) + 1
        if request.headers.get("expect", "").lower() == "100-continue":
            connection.pacer.round_trip()
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return act(connection, request, key, query)

    @abstractmethod
    def operation(self, request: Request, query: Query) -> tuple[str, Act, str]:
        """The operation's name as the store's documentation has it, what does it, and the object's key."""

    def received(self, body: Incoming, size_bytes: int, declared: str | None, etag: str) -> Stored | None:
        """Return what has come, as an object or part; None when it has not the CRC32C that was declared."""
        with self._lock:
            self._body_bytes += size_bytes
        if body.crc is not None and declared is not None and declared != base64_of(body.crc):
            return None
        return Stored(size_bytes, body.crc, etag, declared, next(self._numbers))

    def remember(self, key: str, stored: Stored) -> None:
        with self._lock:
            self._objects[key] = stored


def base64_of(crc32c: int) -> str:
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()

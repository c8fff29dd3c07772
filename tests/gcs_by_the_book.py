"""The part of Google Cloud Storage's JSON API that the archiver speaks, as its documentation describes it, in memory.

It exists because fake-gcs-server gets resumable sessions wrong where it matters: it appends a chunk that is
sent again, goes on with a cancelled session, ignores conditions and checksums. It is our reading of
https://cloud.google.com/storage/docs/performing-resumable-uploads and of /json_api/v1, no more.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

MULTIPLE_BYTES = 256 * 1024


@dataclass
class Session:
    resource: dict[str, Any]
    expected: str | None
    held: bytearray = field(default_factory=bytearray)
    done: dict[str, Any] | None = None
    cancelled: bool = False


class Service:
    """`objects` is (resource, bytes) by bucket and name. `keep_at_most`: a session keeps only so much of a chunk."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, tuple[dict[str, Any], bytes]]] = {}
        self.sessions: dict[str, Session] = {}
        self.refuse_everybody = False
        self.permissions: set[str] = set()  # of the account, in the whole bucket
        self.keep_at_most: int | None = None
        self.spoil: Callable[[bytes], bytes] = bytes  # what happens to a small object's bytes on the way
        self.authority = ""
        self.lock = threading.RLock()
        self._generation = 0

    def holds(self, bucket: str, name: str, expected: str | None) -> bool:
        """`expected`: the generation of ifGenerationMatch, which is 0 for none."""
        there = self.objects[bucket].get(name)
        return expected in (None, "0" if there is None else there[0]["generation"])

    def create(
        self, bucket: str, resource: dict[str, Any], data: bytes, expected: str | None = None
    ) -> tuple[int, Any]:
        name = resource["name"]
        if not self.holds(bucket, name, expected):
            return 412, error(
                "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
            )
        crc32c = base64.b64encode(int(google_crc32c.value(data)).to_bytes(4, "big")).decode()
        if resource.get("crc32c", crc32c) != crc32c:
            return 400, error("invalid", f'Provided CRC32C "{resource["crc32c"]}" doesn\'t match "{crc32c}".')
        self._generation += 1
        stored = resource | {
            "bucket": bucket,
            "size": str(len(data)),
            "crc32c": crc32c,
            "etag": f"e{self._generation}",
            "generation": str(self._generation),
            "updated": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        self.objects[bucket][name] = (stored, data)
        return 200, stored


def error(reason: str, message: str) -> dict[str, Any]:
    return {"error": {"errors": [{"reason": reason, "message": message}], "message": message}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    service: Service

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.service.lock:
            if self.service.refuse_everybody:
                self._answer(
                    403, error("forbidden", "the account does not have storage.objects.create access")
                )
            elif url.path == "/session":
                self._session(query["upload_id"], body)
            elif url.path == "/storage/v1/b/bucket/iam/testPermissions":
                asked = parse_qs(url.query)["permissions"]
                self._answer(
                    200, {"permissions": [each for each in asked if each in self.service.permissions]}
                )
            elif match := re.fullmatch(r"/(upload/|download/)?storage/v1/b/([^/]+)/o(?:/([^/]+))?", url.path):
                bucket, name = unquote(match[2]), unquote(match[3] or "")
                if bucket not in self.service.objects:
                    self._answer(404, error("notFound", "The specified bucket does not exist."))
                elif match[1] == "upload/":
                    self._upload(bucket, query, body)
                elif name:
                    self._object(bucket, name, query)
                else:
                    self._list(bucket, query)
            elif match := re.fullmatch(
                r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", url.path
            ):
                source, name, target, new = map(unquote, match.groups())
                self._rewrite((source, name), (target, new), query, json.loads(body or b"{}"))
            else:
                self._answer(404, error("notFound", "no such method"))

    do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 # the library's names

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        expected = query.get("ifGenerationMatch")
        if query["uploadType"] == "multipart":
            boundary = b"\r\n--" + self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
            described, media = (b"\r\n" + body).split(boundary)[1:3]
            resource = json.loads(described.partition(b"\r\n\r\n")[2])
            data = self.service.spoil(media.partition(b"\r\n\r\n")[2])
            self._answer(*self.service.create(bucket, resource, data, expected))
            return
        resource = json.loads(body) | {"bucket": bucket}
        if not self.service.holds(bucket, resource["name"], expected):
            self._answer(
                412,
                error("conditionNotMet", "At least one of the pre-conditions you specified did not hold."),
            )
            return
        upload_id = uuid.uuid4().hex
        self.service.sessions[upload_id] = Session(resource, expected)
        self._answer(
            200, None, {"Location": f"http://{self.service.authority}/session?upload_id={upload_id}"}
        )

    def _session(self, upload_id: str, body: bytes) -> None:
        session = self.service.sessions.get(upload_id)
        if session is None:
            self._answer(404, None)
        elif session.cancelled:
            self._answer(499, None)
        elif self.command == "DELETE":
            session.cancelled = True
            self._answer(499, None)
        elif session.done is not None:
            self._answer(200, session.done)
        else:
            self._chunk(session, body)

    def _chunk(self, session: Session, body: bytes) -> None:
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers["Content-Range"])
        assert match is not None
        start = int(match[1]) if match[1] else len(session.held)
        total = None if match[3] == "*" else int(match[3])
        if start > len(session.held):
            self._answer(503, error("backendError", "a gap"))
            return
        fresh = body[len(session.held) - start :]  # what is kept already is ignored
        final = total is not None and len(session.held) + len(fresh) == total
        if not final:
            fresh = fresh[: len(fresh) - len(fresh) % MULTIPLE_BYTES]
            if self.service.keep_at_most is not None:
                fresh = fresh[: self.service.keep_at_most]
        session.held += fresh
        if not final:
            self._answer(308, None, {"Range": f"bytes=0-{len(session.held) - 1}"} if session.held else {})
            return
        resource = dict(session.resource)
        if claimed := re.fullmatch(r"crc32c=(.*)", self.headers.get("x-goog-hash", "")):
            resource["crc32c"] = claimed[1]
        status, answer = self.service.create(
            resource.pop("bucket"), resource, bytes(session.held), session.expected
        )
        if status == 200:
            session.done = answer
        self._answer(status, answer)

    def _object(self, bucket: str, name: str, query: dict[str, str]) -> None:
        found = self.service.objects[bucket].get(name)
        if found is None:
            self._answer(404, error("notFound", f"No such object: {bucket}/{name}"))
            return
        resource, data = found
        if self.command == "DELETE":
            if query.get("ifGenerationMatch", resource["generation"]) != resource["generation"]:
                self._answer(412, error("conditionNotMet", "no"))
                return
            del self.service.objects[bucket][name]
            self._answer(204, None)
        elif query.get("ifGenerationMatch", resource["generation"]) != resource["generation"]:
            self._answer(412, error("conditionNotMet", "no"))
        elif query.get("alt") == "media":
            self._media(data)
        else:
            self._answer(200, resource)

    def _rewrite(
        self, source: tuple[str, str], target: tuple[str, str], query: dict[str, str], given: dict[str, Any]
    ) -> None:
        """In two steps, as that of a large object."""
        found = self.service.objects.get(source[0], {}).get(source[1])
        if found is None:
            self._answer(404, error("notFound", f"No such object: {'/'.join(source)}"))
            return
        size = found[0]["size"]
        if "rewriteToken" not in query:
            again = {"done": False, "rewriteToken": "t1", "totalBytesRewritten": "0", "objectSize": size}
            self._answer(200, {"kind": "storage#rewriteResponse", **again})
            return
        _, made = self.service.create(target[0], {**given, "name": target[1]}, found[1])
        self._answer(200, {"done": True, "totalBytesRewritten": size, "objectSize": size, "resource": made})

    def _media(self, data: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            self._answer(200, data)
            return
        start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        if start >= len(data):
            self._answer(416, None)
        else:
            self._answer(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        names = sorted(n for n in self.service.objects[bucket] if n.startswith(query.get("prefix", "")))
        names = [name for name in names if name > query.get("pageToken", "")]
        page = names[: int(query["maxResults"])]
        answer: dict[str, Any] = (
            {"items": [self.service.objects[bucket][name][0] for name in page]} if page else {}
        )
        if len(names) > len(page):
            answer["nextPageToken"] = page[-1]
        self._answer(200, answer)

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


@contextlib.contextmanager
def gcs_by_the_book() -> Iterator[Service]:
    service = Service()
    handler = type("Handler", (_Handler,), {"service": service})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        service.authority = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join(10)

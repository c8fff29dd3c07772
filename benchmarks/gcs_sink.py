"""As much of Google Cloud Storage as the clients speak: the JSON API, and the XML API (a dialect of S3) for obstore.

The real service tells the CRC32C of every object. Here it is what the client declared (in the resource or in
`x-goog-hash`), computed only with `verify`; an object of which neither is known is described without.

https://cloud.google.com/storage/docs/json_api/v1/objects and /docs/performing-resumable-uploads
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from benchmarks.incoming import Incoming
from benchmarks.s3_sink import S3Sink
from benchmarks.server import Connection, Request
from benchmarks.sink import Act, Query, Stored, base64_of
from storage_backends.crc32c import combine

Resource = dict[str, Any]

MULTIPLE_BYTES = 256 * 1024  # of which every chunk of a session but the last is made
_PATH = re.compile(r"/(upload/)?storage/v1/b/([^/]+)(/o(?:/(.+))?)?")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_JSON = {"Content-Type": "application/json; charset=UTF-8"}
_DATE = "2024-05-01T00:00:00.000Z"


@dataclass(slots=True)
class _Session:
    resource: Resource
    if_absent: bool
    size_bytes: int = 0
    crc32c: int | None = field(default=0)


class GcsSink(S3Sink):
    def __init__(self, verify: bool) -> None:
        super().__init__(verify)
        self._resources: dict[str, Resource] = {}
        self._sessions: dict[str, _Session] = {}

    def report(self) -> dict[str, object]:
        body_json = super().report()
        with self._lock:
            return body_json | {"open_sessions": len(self._sessions)}

    def reset(self) -> None:
        super().reset()
        with self._lock:
            self._resources, self._sessions = {}, {}

    def operation(self, request: Request, query: Query) -> tuple[str, Act, str]:
        path = _PATH.fullmatch(request.path)
        if path is None:
            name, act, key = super().operation(request, query)
            return f"XML {name}", act, key
        upload, _, objects, key = path.groups()
        kind = query.get("uploadType", [""])[0]
        table: dict[tuple[str, str], tuple[str, Act]] = {
            ("POST", "multipart"): ("Objects.insert multipart", self._insert_related),
            ("POST", "media"): ("Objects.insert media", self._insert_media),
            ("POST", "resumable"): ("Objects.insert resumable", self._begin),
        }
        if "upload_id" in query:
            table = {
                ("PUT", "resumable"): ("session PUT", self._chunk),
                ("POST", "resumable"): ("session POST", self._chunk),  # as Google's client for Go has it
                ("DELETE", "resumable"): ("session DELETE", self._cancel),
            }
        if not upload:
            table = {
                ("GET", ""): ("Objects.get", self._get) if key else ("Objects.list", self._list_objects),
                ("DELETE", ""): ("Objects.delete", self._delete),
            }
        if not objects:
            table = {("GET", ""): ("Buckets.get", self._bucket)}
        known = table.get((request.method, kind), (f"{request.method} {kind}?", self._unknown))
        return *known, unquote(key or "")

    # -- of the XML API, what is not as S3 has it
    def _authorised(self, request: Request, query: Query) -> bool:  # noqa: ARG002
        return True  # anonymous, as with an emulator

    def _declared(self, request: Request) -> str | None:
        found = re.search(r"crc32c=([^,\s]+)", request.headers.get("x-goog-hash", ""))
        return found[1] if found else None

    def _receipt(self, stored: Stored) -> dict[str, str]:
        crc32c = _crc32c(stored)
        headers = {"ETag": f'"{stored.etag}"', "x-goog-generation": str(stored.generation)}
        return headers | ({"x-goog-hash": f"crc32c={crc32c}"} if crc32c else {})

    # -- JSON: whole objects
    def _insert_related(self, connection: Connection, request: Request, _: str, query: Query) -> None:
        body = Incoming(connection, self._verify)
        resource = json.loads(body.related(request))
        self._insert(connection, request, query, resource, body)

    def _insert_media(self, connection: Connection, request: Request, _: str, query: Query) -> None:
        body = Incoming(connection, self._verify)
        body.framed(request)
        resource = {"contentType": request.headers.get("content-type", "application/octet-stream")}
        self._insert(connection, request, query, resource, body)

    def _insert(
        self, connection: Connection, request: Request, query: Query, resource: Resource, body: Incoming
    ) -> None:
        resource = {"name": query.get("name", [""])[0], **resource}
        declared = self._declared(request) or resource.get("crc32c")
        self._make(connection, resource, _if_absent(query), body.size_bytes, body.crc, declared)

    def _make(
        self,
        connection: Connection,
        resource: Resource,
        if_absent: bool,
        size_bytes: int,
        crc32c: int | None,
        declared: str | None,
    ) -> None:
        """Publish an object that has arrived whole, and answer."""
        connection.pacer.round_trip()
        key, generation = resource["name"], next(self._numbers)
        if declared is not None and crc32c is not None and declared != base64_of(crc32c):
            return _error(connection, "400 Bad Request", "invalid")
        stored = Stored(size_bytes, crc32c, f"e{generation}", declared, generation)
        with self._lock:
            exists = if_absent and key in self._objects
            if not exists:
                self._objects[key], self._resources[key] = stored, resource
        if exists:
            return _error(connection, "412 Precondition Failed", "conditionNotMet")
        return _answer(connection, _described(resource, stored))

    # -- JSON: sessions
    def _begin(self, connection: Connection, request: Request, _: str, query: Query) -> None:
        resource = json.loads(Incoming(connection, verify=False).whole(request) or "{}")
        resource = {"name": query.get("name", [""])[0], **resource}
        upload_id = f"s{next(self._numbers)}"
        with self._lock:
            self._sessions[upload_id] = _Session(resource, _if_absent(query))
        connection.pacer.round_trip()
        origin = f"{'https' if connection.tls else 'http'}://{request.headers['host']}"
        location = f"{origin}{request.path}?uploadType=resumable&upload_id={upload_id}"
        connection.answer("200 OK", {"Location": location, "X-GUploader-UploadID": upload_id})

    def _chunk(self, connection: Connection, request: Request, _: str, query: Query) -> None:
        """Take chunks in their order, none twice: nothing is lost here that a client would send again."""
        body = Incoming(connection, self._verify)
        body.framed(request)
        upload_id = query["upload_id"][0]
        with self._lock:
            session = self._sessions.get(upload_id)
            self._body_bytes += body.size_bytes
        reported = _CONTENT_RANGE.fullmatch(
            request.headers.get("content-range", f"bytes */{body.size_bytes}")
        )
        if session is None or reported is None:
            return _error(connection, "404 Not Found", "notFound")
        first, last, total = reported.groups()
        held = session.size_bytes + body.size_bytes
        last_chunk = total != "*" and held == int(total)
        if first and (int(first), int(last) + 1) != (session.size_bytes, held):
            return _error(connection, "400 Bad Request", "invalid")
        if not last_chunk and body.size_bytes % MULTIPLE_BYTES:
            return _error(connection, "400 Bad Request", "invalid")
        session.size_bytes = held
        whole = None
        if body.crc is not None and session.crc32c is not None:
            whole = combine(session.crc32c, body.crc, body.size_bytes)
        session.crc32c = whole
        if not last_chunk:
            connection.pacer.round_trip()
            return _resume_incomplete(connection, request, held)
        with self._lock:
            self._sessions.pop(upload_id, None)
        declared = self._declared(request) or session.resource.get("crc32c")
        return self._make(connection, session.resource, session.if_absent, held, whole, declared)

    def _cancel(self, connection: Connection, _: Request, __: str, query: Query) -> None:
        connection.pacer.round_trip()
        with self._lock:
            self._sessions.pop(query["upload_id"][0], None)
        connection.answer("499 Client Closed Request")

    # -- JSON: the rest
    def _get(self, connection: Connection, request: Request, key: str, query: Query) -> None:
        if query.get("alt") == ["media"]:
            return self._unknown(connection, request, key, query)  # its bytes were dropped
        connection.pacer.round_trip()
        with self._lock:
            stored, resource = self._objects.get(key), self._resources.get(key, {"name": key})
        if stored is None:
            return _error(connection, "404 Not Found", "notFound")
        return _answer(connection, _described(resource, stored))

    def _list_objects(self, connection: Connection, _: Request, __: str, query: Query) -> None:
        connection.pacer.round_trip()
        prefix, most = query.get("prefix", [""])[0], int(query.get("maxResults", ["1000"])[0])
        with self._lock:
            found = sorted(key for key in self._objects if key.startswith(prefix))[:most]
            items = [_described(self._resources.get(key, {"name": key}), self._objects[key]) for key in found]
        _answer(connection, {"kind": "storage#objects", "items": items})

    def _bucket(self, connection: Connection, _: Request, __: str, ___: Query) -> None:
        connection.pacer.round_trip()
        _answer(connection, {"kind": "storage#bucket", "name": "bucket", "location": "US"})


def _if_absent(query: Query) -> bool:
    return query.get("ifGenerationMatch") == ["0"]


def _crc32c(stored: Stored) -> str | None:
    return stored.declared if stored.crc32c is None else base64_of(stored.crc32c)


def _described(resource: Resource, stored: Stored) -> Resource:
    crc32c = _crc32c(stored)
    return {
        "kind": "storage#object",
        "contentType": "application/octet-stream",
        **resource,
        "bucket": "bucket",
        "size": str(stored.size_bytes),
        **({"crc32c": crc32c} if crc32c else {}),
        "etag": stored.etag,
        "generation": str(stored.generation),
        "metageneration": "1",
        "timeCreated": _DATE,
        "updated": _DATE,
    }


def _answer(connection: Connection, body_json: Resource) -> None:
    connection.answer("200 OK", _JSON, json.dumps(body_json).encode())


def _error(connection: Connection, status: str, reason: str) -> None:
    code = int(status[:3])
    body_json = {
        "error": {"code": code, "message": status[4:], "errors": [{"reason": reason, "message": status}]}
    }
    connection.answer(status, _JSON, json.dumps(body_json).encode())


def _resume_incomplete(connection: Connection, request: Request, held_bytes: int) -> None:
    headers = {"Range": f"bytes=0-{held_bytes - 1}"} if held_bytes else {}
    if (
        request.headers.get("x-guploader-no-308") == "yes"
    ):  # Google's client for Go, which takes 308 for a redirect
        return connection.answer("200 OK", headers | {"X-Http-Status-Code-Override": "308"})
    return connection.answer("308 Resume Incomplete", headers)

"""The sink: as much of S3 as the clients speak, that keeps what it was told about objects and drops their bytes.

It counts every byte that comes, so that each run is checked. With `verify` it computes the CRC32C of each object as
well and refuses a body that does not have the one declared; without, the kernel drops the bytes and the declared is
believed.
Signatures are not checked, but must be there.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from google_crc32c import extend

from benchmarks.server import Connection, Request
from storage_backends.crc32c import combine

_PIECE_BYTES = 1024 * 1024
_XML = {"Content-Type": "application/xml"}
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_DATE = "2024-05-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Stored:
    size_bytes: int
    crc32c: int | None  # computed, with `verify`
    etag: str
    declared: str | None = None  # x-amz-checksum-crc32c


@dataclass(slots=True)
class _Upload:
    key: str
    parts: dict[int, Stored] = field(default_factory=dict)


class Sink:
    def __init__(self, verify: bool) -> None:
        self._verify = verify
        self._lock = threading.Lock()
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, _Upload] = {}
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

    # -- S3 ------------------------------------------------------------------------------------------------
    def handle(self, connection: Connection, request: Request) -> None:
        if request.path == "/-/report":
            return connection.answer("200 OK", body=json.dumps(self.report()).encode())
        if request.path == "/-/reset":
            self.reset()
            return connection.answer("200 OK")
        query = parse_qs(request.query, keep_blank_values=True)
        _, _, key = unquote(request.path).lstrip("/").partition("/")
        operation, act = self._operation(request.method, key, query)
        with self._lock:
            self._requests[operation] = self._requests.get(operation, 0) + 1
        if request.headers.get("expect", "").lower() == "100-continue":
            connection.pacer.round_trip()
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "authorization" not in request.headers and "X-Amz-Signature" not in query:
            self._receive(connection, request, keep=False)
            return self._error(connection, "403 Forbidden", "AccessDenied")
        return act(connection, request, key, query)

    def _operation(self, method: str, key: str, query: dict[str, list[str]]) -> tuple[str, _Act]:
        table: dict[tuple[str, bool], tuple[str, _Act]] = {
            ("PUT", True): ("PutObject", self._put),
            ("PUT", False): ("CreateBucket", self._ok),
            ("HEAD", True): ("HeadObject", self._head),
            ("HEAD", False): ("HeadBucket", self._ok),
            ("GET", False): ("ListObjects", self._list),
            ("DELETE", True): ("DeleteObject", self._delete),
        }
        if "uploadId" in query:
            table |= {
                ("PUT", True): ("UploadPart", self._part),
                ("POST", True): ("CompleteMultipartUpload", self._complete),
                ("GET", True): ("ListParts", self._list_parts),
                ("DELETE", True): ("AbortMultipartUpload", self._abort),
            }
        elif "uploads" in query:
            table[("POST", True)] = ("CreateMultipartUpload", self._create)
        return table.get((method, bool(key)), (f"{method} ?", self._unknown))

    def _put(self, connection: Connection, request: Request, key: str, _: _Query) -> None:
        stored = self._receive(connection, request)
        connection.pacer.round_trip()
        if stored is None:
            return self._error(connection, "400 Bad Request", "BadDigest")
        with self._lock:
            self._objects[key] = stored
        return connection.answer("200 OK", _receipt(stored))

    def _create(self, connection: Connection, request: Request, key: str, _: _Query) -> None:
        self._receive(connection, request, keep=False)
        upload_id = f"u{next(self._numbers)}"
        with self._lock:
            self._uploads[upload_id] = _Upload(key)
        headers = {
            name: request.headers[name]
            for name in ("x-amz-checksum-algorithm", "x-amz-checksum-type")
            if name in request.headers
        }
        connection.pacer.round_trip()
        connection.answer(
            "200 OK",
            _XML | headers,
            f"<InitiateMultipartUploadResult {_NAMESPACE}><Bucket>b</Bucket><Key>{escape(key)}</Key>"
            f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>".encode(),
        )

    def _part(self, connection: Connection, request: Request, _: str, query: _Query) -> None:
        number, upload_id = int(query["partNumber"][0]), query["uploadId"][0]
        stored = self._receive(connection, request, salt=f"{upload_id}.{number}")
        connection.pacer.round_trip()
        if stored is None:
            return self._error(connection, "400 Bad Request", "BadDigest")
        with self._lock:
            upload = self._uploads.get(upload_id)
            if upload is not None:
                upload.parts[number] = stored
        if upload is None:
            return self._error(connection, "404 Not Found", "NoSuchUpload")
        return connection.answer("200 OK", _receipt(stored))

    def _complete(self, connection: Connection, request: Request, key: str, query: _Query) -> None:
        text = self._read(connection, request)
        numbers = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", text)]
        etags = [
            etag.replace("&quot;", '"').replace("&#34;", '"').strip('"')
            for etag in re.findall("<ETag>([^<]*)", text)
        ]
        connection.pacer.round_trip()
        with self._lock:
            upload = self._uploads.get(query["uploadId"][0])
        if upload is None:
            return self._error(connection, "404 Not Found", "NoSuchUpload")
        parts = [upload.parts.get(number) for number in numbers]
        named = [(part.etag if part else None) for part in parts]
        if not numbers or numbers != sorted(numbers) or named != etags:
            return self._error(connection, "400 Bad Request", "InvalidPart")
        held = [part for part in parts if part]
        crc: int | None = 0
        for part in held:
            crc = None if crc is None or part.crc32c is None else combine(crc, part.crc32c, part.size_bytes)
        digest = hashlib.md5(
            b"".join(bytes.fromhex(part.etag) for part in held), usedforsecurity=False
        ).hexdigest()
        declared = request.headers.get("x-amz-checksum-crc32c")
        if self._verify and declared is not None and crc is not None and declared != _base64(crc):
            return self._error(connection, "400 Bad Request", "BadDigest")
        stored = Stored(sum(part.size_bytes for part in held), crc, f"{digest}-{len(held)}", declared)
        with self._lock:
            self._objects[upload.key] = stored
            self._uploads.pop(query["uploadId"][0], None)
        checksum = (
            f"<ChecksumCRC32C>{declared}</ChecksumCRC32C><ChecksumType>FULL_OBJECT</ChecksumType>"
            if declared
            else ""
        )
        return connection.answer(
            "200 OK",
            _XML,
            f"<CompleteMultipartUploadResult {_NAMESPACE}><Bucket>b</Bucket><Key>{escape(key)}</Key>"
            f'<ETag>"{stored.etag}"</ETag>{checksum}</CompleteMultipartUploadResult>'.encode(),
        )

    def _list_parts(self, connection: Connection, _: Request, key: str, query: _Query) -> None:
        connection.pacer.round_trip()
        with self._lock:
            upload = self._uploads.get(query["uploadId"][0])
            parts = dict(upload.parts) if upload else {}
        if upload is None:
            return self._error(connection, "404 Not Found", "NoSuchUpload")
        listed = "".join(
            f'<Part><PartNumber>{number}</PartNumber><ETag>"{part.etag}"</ETag><Size>{part.size_bytes}</Size>'
            f"<LastModified>{_DATE}</LastModified>"
            + (f"<ChecksumCRC32C>{part.declared}</ChecksumCRC32C>" if part.declared else "")
            + "</Part>"
            for number, part in sorted(parts.items())
        )
        return connection.answer(
            "200 OK",
            _XML,
            f"<ListPartsResult {_NAMESPACE}><Key>{escape(key)}</Key><IsTruncated>false</IsTruncated>{listed}"
            "</ListPartsResult>".encode(),
        )

    def _abort(self, connection: Connection, _: Request, __: str, query: _Query) -> None:
        connection.pacer.round_trip()
        with self._lock:
            self._uploads.pop(query["uploadId"][0], None)
        connection.send(connection.head("204 No Content", {}))

    def _head(self, connection: Connection, request: Request, key: str, _: _Query) -> None:
        connection.pacer.round_trip()
        with self._lock:
            stored = self._objects.get(key)
        if stored is None:
            return connection.send(connection.head("404 Not Found", {"Content-Length": "0"}))
        headers = {"Content-Length": str(stored.size_bytes), "Last-Modified": "Wed, 01 May 2024 00:00:00 GMT"}
        headers |= {"ETag": f'"{stored.etag}"', "Content-Type": "application/octet-stream"}
        if stored.declared and "x-amz-checksum-mode" in request.headers:
            headers |= {"x-amz-checksum-crc32c": stored.declared, "x-amz-checksum-type": "FULL_OBJECT"}
        return connection.send(connection.head("200 OK", headers))

    def _list(self, connection: Connection, _: Request, __: str, query: _Query) -> None:
        connection.pacer.round_trip()
        prefix = query.get("prefix", [""])[0]
        with self._lock:
            found = sorted((key, stored) for key, stored in self._objects.items() if key.startswith(prefix))
        listed = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_DATE}</LastModified><Size>{stored.size_bytes}</Size>"
            f'<ETag>"{stored.etag}"</ETag></Contents>'
            for key, stored in found[:1000]
        )
        connection.answer(
            "200 OK",
            _XML,
            f"<ListBucketResult {_NAMESPACE}><Name>b</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}"
            f"</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode(),
        )

    def _delete(self, connection: Connection, _: Request, key: str, __: _Query) -> None:
        connection.pacer.round_trip()
        with self._lock:
            self._objects.pop(key, None)
        connection.send(connection.head("204 No Content", {}))

    def _ok(self, connection: Connection, request: Request, _: str, __: _Query) -> None:
        self._receive(connection, request, keep=False)
        connection.pacer.round_trip()
        connection.answer("200 OK")

    def _unknown(self, connection: Connection, request: Request, _: str, __: _Query) -> None:
        self._receive(connection, request, keep=False)
        self._error(connection, "501 Not Implemented", "NotImplemented")

    def _error(self, connection: Connection, status: str, code: str) -> None:
        connection.answer(
            status, _XML, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        )

    # -- bodies --------------------------------------------------------------------------------------------
    def _receive(
        self, connection: Connection, request: Request, salt: str = "", *, keep: bool = True
    ) -> Stored | None:
        """Take the body in. None when it has not the CRC32C it says."""
        body = _Incoming(connection, self._verify and keep)
        decoded = request.headers.get("x-amz-decoded-content-length")
        if decoded is None:
            body.framed(request)
            size = body.size_bytes
        elif self._verify:
            body.aws_chunks(request)
            size = body.size_bytes
        else:
            body.framed(request)  # its chunks are not looked into
            size = int(decoded)
        if not keep:
            return None
        with self._lock:
            self._body_bytes += size
        declared = request.headers.get("x-amz-checksum-crc32c")
        if body.crc is not None and declared is not None and declared != _base64(body.crc):
            return None
        md5 = request.headers.get("content-md5")
        etag = (
            base64.b64decode(md5).hex()
            if md5
            else hashlib.md5(f"{request.path}{salt}".encode(), usedforsecurity=False).hexdigest()
        )
        return Stored(size, body.crc, etag, declared)

    def _read(self, connection: Connection, request: Request) -> str:
        left = int(request.headers.get("content-length", "0"))
        data = bytearray(connection.take_buffered(left))
        while len(data) < left:
            piece = connection.sock.recv(left - len(data))
            if not piece:
                raise ConnectionResetError("the client left in the middle of a body")
            data += piece
        return data.decode()


_Query = dict[str, list[str]]
_Act = Callable[[Connection, Request, str, _Query], None]


class _Incoming:
    """Counts a body as it comes, at the connection's pace. `crc` when it is to be verified, else None."""

    def __init__(self, connection: Connection, verify: bool) -> None:
        self._connection = connection
        self.crc: int | None = 0 if verify else None
        self.size_bytes = 0

    def framed(self, request: Request) -> None:
        if "chunked" not in request.headers.get("transfer-encoding", ""):
            return self._take(int(request.headers.get("content-length", "0")))
        while size := int(self._connection.line().partition(b";")[0], 16):
            self._take(size)
            self._connection.line()
        while self._connection.line():
            pass
        return None

    def aws_chunks(self, request: Request) -> None:
        """`aws-chunked` inside a plain body or a chunked one; small enough clients only, for it is read whole."""
        data = bytearray()
        if "chunked" in request.headers.get("transfer-encoding", ""):
            while size := int(self._connection.line().partition(b";")[0], 16):
                data += self._whole(size)
                self._connection.line()
            while self._connection.line():
                pass
        else:
            data += self._whole(int(request.headers.get("content-length", "0")))
        at = 0
        while True:
            end = data.index(b"\r\n", at)
            size = int(bytes(data[at:end]).partition(b";")[0], 16)
            if not size:
                return
            self._see(memoryview(data)[end + 2 : end + 2 + size])
            at = end + 2 + size + 2

    def _whole(self, size: int) -> bytearray:
        data = bytearray(self._connection.take_buffered(size))
        while len(data) < size:
            piece = self._connection.sock.recv(min(_PIECE_BYTES, size - len(data)))
            if not piece:
                raise ConnectionResetError("the client left in the middle of a body")
            self._connection.pacer.pass_on(len(piece))
            data += piece
        return data

    def _take(self, size: int) -> None:
        ready = self._connection.take_buffered(size)
        self._see(ready)
        self._connection.pacer.pass_on(len(ready))
        left = size - len(ready)
        scrap = memoryview(_scrap())
        # without TLS or a checksum the kernel can drop the bytes where they are
        flags = socket.MSG_TRUNC if self.crc is None and not self._connection.tls else 0
        piece = self._connection.pacer.piece_bytes
        while left:
            into = scrap[: min(left, piece)]
            count = self._connection.sock.recv_into(into, len(into), flags)
            if not count:
                raise ConnectionResetError("the client left in the middle of a body")
            self._see(into[:count])
            self._connection.pacer.pass_on(count)
            left -= count

    def _see(self, data: memoryview) -> None:
        self.size_bytes += len(data)
        if self.crc is not None:
            self.crc = extend(self.crc, bytes(data))


_LOCAL = threading.local()


def _scrap() -> bytearray:
    buffer: bytearray | None = getattr(_LOCAL, "buffer", None)
    if buffer is None:
        buffer = _LOCAL.buffer = bytearray(_PIECE_BYTES)
    return buffer


def _base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _receipt(stored: Stored) -> dict[str, str]:
    headers = {"ETag": f'"{stored.etag}"'}
    if stored.declared:
        headers["x-amz-checksum-crc32c"] = stored.declared
    return headers

"""As much of S3 as the clients speak. Signatures are not checked, but must be there."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import unquote
from xml.sax.saxutils import escape

from benchmarks.incoming import Incoming
from benchmarks.server import Connection, Request
from benchmarks.sink import Act, MultipartUpload, Query, Sink, Stored, base64_of
from storage_backends.crc32c import combine

_XML = {"Content-Type": "application/xml"}
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_DATE = "2024-05-01T00:00:00.000Z"


class S3Sink(Sink):
    def operation(self, request: Request, query: Query) -> tuple[str, Act, str]:
        _, _, key = unquote(request.path).lstrip("/").partition("/")
        table: dict[tuple[str, bool], tuple[str, Act]] = {
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
        name, act = table.get((request.method, bool(key)), (f"{request.method} ?", self._unknown))
        if not self._authorised(request, query):
            return name, self._denied, key
        return name, act, key

    def _authorised(self, request: Request, query: Query) -> bool:
        return "authorization" in request.headers or "X-Amz-Signature" in query

    def _declared(self, request: Request) -> str | None:
        """The CRC32C that a request declares for its object or part, in base64."""
        return request.headers.get("x-amz-checksum-crc32c")

    def _receipt(self, stored: Stored) -> dict[str, str]:
        headers = {"ETag": f'"{stored.etag}"'}
        if stored.declared:
            headers["x-amz-checksum-crc32c"] = stored.declared
        return headers

    def _put(self, connection: Connection, request: Request, key: str, _: Query) -> None:
        stored = self._receive(connection, request)
        connection.pacer.round_trip()
        if stored is None:
            return self._error(connection, "400 Bad Request", "BadDigest")
        self.remember(key, stored)
        return connection.answer("200 OK", self._receipt(stored))

    def _create(self, connection: Connection, request: Request, key: str, _: Query) -> None:
        self._receive(connection, request, keep=False)
        upload_id = f"u{next(self._numbers)}"
        with self._lock:
            self._uploads[upload_id] = MultipartUpload(key)
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

    def _part(self, connection: Connection, request: Request, _: str, query: Query) -> None:
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
        return connection.answer("200 OK", self._receipt(stored))

    def _complete(self, connection: Connection, request: Request, key: str, query: Query) -> None:
        text = Incoming(connection, verify=False).whole(request).decode()
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
        declared = self._declared(request)
        if self._verify and declared is not None and crc is not None and declared != base64_of(crc):
            return self._error(connection, "400 Bad Request", "BadDigest")
        stored = Stored(
            sum(part.size_bytes for part in held), crc, f"{digest}-{len(held)}", declared, next(self._numbers)
        )
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

    def _list_parts(self, connection: Connection, _: Request, key: str, query: Query) -> None:
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

    def _abort(self, connection: Connection, _: Request, __: str, query: Query) -> None:
        connection.pacer.round_trip()
        with self._lock:
            self._uploads.pop(query["uploadId"][0], None)
        connection.send(connection.head("204 No Content", {}))

    def _head(self, connection: Connection, request: Request, key: str, _: Query) -> None:
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

    def _list(self, connection: Connection, _: Request, __: str, query: Query) -> None:
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

    def _delete(self, connection: Connection, _: Request, key: str, __: Query) -> None:
        connection.pacer.round_trip()
        with self._lock:
            self._objects.pop(key, None)
        connection.send(connection.head("204 No Content", {}))

    def _ok(self, connection: Connection, request: Request, _: str, __: Query) -> None:
        self._receive(connection, request, keep=False)
        connection.pacer.round_trip()
        connection.answer("200 OK")

    def _unknown(self, connection: Connection, request: Request, _: str, __: Query) -> None:
        self._receive(connection, request, keep=False)
        self._error(connection, "501 Not Implemented", "NotImplemented")

    def _error(self, connection: Connection, status: str, code: str) -> None:
        connection.answer(
            status, _XML, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        )

    def _denied(self, connection: Connection, request: Request, _: str, __: Query) -> None:
        self._receive(connection, request, keep=False)
        self._error(connection, "403 Forbidden", "AccessDenied")

    def _receive(
        self, connection: Connection, request: Request, salt: str = "", *, keep: bool = True
    ) -> Stored | None:
        """Take the body in. None when it has not the CRC32C it says."""
        body = Incoming(connection, self._verify and keep)
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
        md5 = request.headers.get("content-md5")
        etag = base64.b64decode(md5).hex() if md5 else None
        return self.received(body, size, self._declared(request), etag or _digest(f"{request.path}{salt}"))


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

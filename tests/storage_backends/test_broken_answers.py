"""Whatever a server answers, a backend raises a StorageError with its fields, whose text holds no secret."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import socketserver
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from storage_backends.azure import AzureBackend, AzureSettings
from storage_backends.base import ObjectSpec, Part, StorageBackend, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import StorageError
from storage_backends.gcs import MULTIPLE_BYTES, GcsBackend
from storage_backends.operation import Operation
from storage_backends.s3 import S3Backend, S3Settings
from tests.contracts.storage_contract import abort_stale_uploads, removes_stale_uploads

KEY = object_key("recordings/one.mp4")
UPLOAD_ID = "a-secret-upload-id"
S3_TOKEN = f"{'0' * 32}.full.{UPLOAD_ID}"
XML = b"<?xml version='1.0' encoding='UTF-8'?>"


def http(
    status: str, body: bytes = b"", *headers: str, length: int | None = None, kind: str = "text/plain"
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def xml(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    return http(status, XML + body, *headers, length=length, kind="application/xml")


def json(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    return http(status, body, *headers, length=length, kind="application/json")


ERROR = b"<Error><Code>InternalError</Code><Message>no</Message></Error>"
RAW = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "half a status line": b"HTTP/1.1 20",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "a status that is none": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nxx",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxx",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nxxxxx",
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx",
    "chunks that are cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nxx",
    "an error in chunks that are cut": b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nxx",
    "a packing that is none": http("200 OK", b"not packed", "Content-Encoding: gzip"),
    "an error whose packing is none": http("503 No", b"not packed", "Content-Encoding: gzip"),
    "a success that is cut": http("200 OK", b"<", length=1000),
    "an error that is cut": xml(b"<Error><Co", "500 No", length=1000),
    "a refusal that is cut": xml(b"<Error><Co", "403 No", length=1000),
    "a missing key that is cut": xml(b"<Error><Co", "404 No", length=1000),
    "a missing key that is cut, in JSON": json(b'{"error": {', "404 No", length=1000),
    "an empty success": http("200 OK"),
    "an empty error": http("500 No"),
    "a redirect to nowhere": http("307 Elsewhere"),
    "a redirect to nothing": http("301 Elsewhere", b"", "Location: http://:0/"),
    "bytes that are no text": http("200 OK", b"\xff\xfe\x00\x01"),
    "an error of bytes that are no text": xml(b"\xff\xfe\x00\x01", "400 No"),
    "XML that is none": xml(b"<a><b></a>"),
    "an error in XML that is none": xml(b"<Error><Code>x</Error>", "400 No"),
    "an error of another shape": xml(b"<Oops/>", "400 No"),
    "an error in a success": xml(ERROR),
    "another document": xml(b"<Html/>"),
    "a date that is none": http("200 OK", b"0123456789", "Last-Modified: yesterday", 'ETag: "x"'),
    "a range that is none": http("206 Part", b"0123456789", "Content-Range: all of it", 'ETag: "x"'),
    "a checksum that is none": http(
        "200 OK", b"0123456789", "x-amz-checksum-crc32c: !", "x-amz-checksum-type: FULL_OBJECT", 'ETag: "x"'
    ),
    "a list of what is no object": xml(
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>"
    ),
    "a list of a size that is none": xml(
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>many</Size></Contents>"
        b"</ListBucketResult>"
    ),
    "a list of a date that is none": xml(
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>1</Size>"
        b"<LastModified>yesterday</LastModified></Contents></ListBucketResult>"
    ),
    "a list that goes on for ever": xml(
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
        b"</ListBucketResult>"
    ),
    "a list of uploads without ids": xml(
        b"<ListMultipartUploadsResult><Upload><Key>a</Key></Upload></ListMultipartUploadsResult>"
    ),
    "a list of parts without numbers": xml(
        b"<ListPartsResult><Part><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C></Part></ListPartsResult>"
    ),
    "a list of parts with sizes that are none": xml(
        b"<ListPartsResult><Part><PartNumber>x</PartNumber><Size>y</Size></Part></ListPartsResult>"
    ),
    "JSON that is none": json(b'{"kind": '),
    "JSON of another shape": json(b"[1, 2]"),
    "JSON that is null": json(b"null"),
    "JSON that says little": json(b"{}"),
    "JSON of other types": json(b'{"name": 1, "size": "many", "generation": [], "items": 3}'),
    "JSON with items of other types": json(b'{"items": [1, null, {"name": 5}]}'),
    "JSON with an item without a name": json(b'{"items": [{"size": "1", "generation": "1"}]}'),
    "JSON with a name that is a number": json(b'{"items": [{"name": 5, "size": "1", "generation": "1"}]}'),
    "JSON with a date that is none": json(
        b'{"items": [{"name": "a", "size": "1", "generation": "1", "updated": "yesterday"}]}'
    ),
    "JSON with a checksum that is none": json(
        b'{"name": "recordings/one.mp4", "size": "1", "generation": "1", "crc32c": "!", "updated": "never"}'
    ),
    "an error in JSON of another shape": json(b'{"error": "no"}', "400 No"),
    "an error in JSON that is a list": json(b"[]", "403 No"),
}


@contextlib.contextmanager
def answering(raw: bytes) -> Iterator[int]:
    """Serve the same bytes to every request and close the connection. Yields the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(5)
            with contextlib.suppress(OSError):
                asked = b""
                while b"\r\n\r\n" not in asked and (piece := self.request.recv(65536)):
                    asked += piece
                self.request.sendall(raw)
                self.request.shutdown(socket.SHUT_WR)
                while self.request.recv(65536):  # or what it still sends would reset the connection
                    pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(10)


def first_of_many(store: StorageBackend) -> None:
    for count, _ in enumerate(store.list()):
        if count > 10:
            return


def upload(store: StorageBackend) -> ObjectSpec:
    part_bytes = max(store.limits.min_part_bytes, MULTIPLE_BYTES)
    return ObjectSpec(KEY, "video/mp4", 5, part_bytes)


DOING: dict[str, Callable[[StorageBackend, str], object]] = {
    "put": lambda store, _: store.put(ObjectSpec(KEY, "video/mp4", 5), b"hello", crc32c_of(b"hello")),
    "put if absent": lambda store, _: store.put(
        ObjectSpec(KEY, "video/mp4", 5, if_absent=True), b"hello", crc32c_of(b"hello")
    ),
    "put if match": lambda store, _: store.put(
        ObjectSpec(KEY, "video/mp4", 5, if_match='"12345"' if isinstance(store, AzureBackend) else "12345"),
        b"hello",
        crc32c_of(b"hello"),
    ),
    "begin": lambda store, _: store.begin(upload(store)),
    "resume": lambda store, token: store.resume(upload(store), token),
    "part": lambda store, token: resumed(store, token).put_part(1, b"hello", crc32c_of(b"hello")),
    "complete": lambda store, token: resumed(store, token).complete(
        [Part(1, 5, crc32c_of(b"hello"), TAGS[type(store)])], crc32c_of(b"hello")
    ),
    "abort": lambda store, token: resumed(store, token).abort(),
    "stat": lambda store, _: store.stat(KEY),
    "read": lambda store, _: store.read(KEY),
    "read a range": lambda store, _: store.read(KEY, 3, 4),
    "list": lambda store, _: first_of_many(store),
    "delete": lambda store, _: store.delete(KEY),
    "abort stale uploads": lambda store, _: abort_stale_uploads(store, timedelta(0)),
    "removes stale uploads": lambda store, _: removes_stale_uploads(store),
}
LEFT_OPEN = {"a length that is none", "a date that is none"}
"""botocore cannot parse the head of these, and leaves the connection to the garbage collector: a ResourceWarning."""
WITHOUT_A_KEY = {"list", "abort stale uploads", "removes stale uploads"}
TAGS: dict[type, str] = {S3Backend: 'c "etag"', GcsBackend: "aGVsbG8=", AzureBackend: "md5"}


def resumed(store: StorageBackend, token: str):  # type: ignore[no-untyped-def] # as if it had been begun
    if isinstance(store, S3Backend):
        from storage_backends.s3.upload import S3Upload, Token

        return S3Upload(
            store,
            store._bucket,
            upload(store),
            Token.parse(token, Operation("resume", store.name, KEY, "resuming")),
        )
    return store.resume(upload(store), token)


@pytest.fixture(scope="module", params=RAW)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with answering(RAW[request.param]) as port:
        yield port


@pytest.fixture(autouse=True)
def nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    with warnings.catch_warnings():
        if request.node.callspec.params["port"] in LEFT_OPEN:
            warnings.simplefilter("ignore", ResourceWarning)
        yield
        if request.node.callspec.params["port"] in LEFT_OPEN:
            gc.collect()


@contextlib.contextmanager
def backend(scheme: str, port: int, patch: pytest.MonkeyPatch) -> Iterator[tuple[StorageBackend, str]]:
    if scheme == "gs":
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        with contextlib.closing(GcsBackend("bucket", sleep=lambda _: None)) as gcs:
            yield gcs, f"{'0' * 32} http://127.0.0.1:{port}/session?upload_id={UPLOAD_ID}"
        return
    if scheme == "az":
        patch.setenv("AZURE_STORAGE_SAS_TOKEN", f"sp=r&sig={UPLOAD_ID}")
        settings_of_az = AzureSettings("account", "container", "prefix", f"http://127.0.0.1:{port}/account")
        with contextlib.closing(AzureBackend(settings_of_az, sleep=lambda _: None)) as az:
            yield az, f"az1.{'0' * 32}"
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "x")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        patch.setenv(name, os.devnull)
    settings = S3Settings("bucket", "prefix", f"http://127.0.0.1:{port}", attempts=1)
    with contextlib.closing(S3Backend(settings)) as s3:
        yield s3, S3_TOKEN


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_every_failure_is_a_storage_error_with_its_fields_and_without_a_secret(
    scheme: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with backend(scheme, port, monkeypatch) as (store, token):
        for name, do in DOING.items():
            error = None
            try:
                do(store, token)
            except StorageError as raised:
                error = raised
            except Exception as defect:
                defect.add_note(f"while it was to {name}")
                raise
            if error is None:
                continue
            assert UPLOAD_ID not in str(error), name
            assert error.operation, name
            key = None if name in WITHOUT_A_KEY else KEY
            assert (error.store, error.key) == (store.name, key), name

"""The benchmarks' Google Cloud Storage: what it stores is what was sent, in every way that a client may send it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from io import BytesIO
from typing import Any
from urllib.parse import quote

import google_crc32c
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from benchmarks.serving import Serving, ask, started

KIB = 2**10
NAME = "a folder/ä?.ts"
UPLOAD = "/upload/storage/v1/b/bucket/o"


@dataclass(frozen=True)
class Sink:
    port: int
    verifies: bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        target: str,
        body: bytes | list[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], Any]:
        """Send a list chunked, as its elements say. Returns status, headers and the JSON, if it is any."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            chunked = isinstance(body, list)
            framing = {"Transfer-Encoding": "chunked"} if chunked else {}
            connection.request(method, target, body, {**(headers or {}), **framing}, encode_chunked=chunked)
            answer = connection.getresponse()
            data = answer.read()
            reported = json.loads(data) if "json" in answer.getheader("Content-Type", "") else data
            return answer.status, dict(answer.getheaders()), reported
        finally:
            connection.close()

    def stored(self) -> dict[str, tuple[int, int | None]]:
        objects = ask(f"{self.url}/-/report", None)["objects"]
        return {key: (one["size_bytes"], one["crc32c"]) for key, one in objects.items()}

    def holds(self, data: bytes) -> dict[str, tuple[int, int | None]]:
        return {NAME: (len(data), crc32c(data) if self.verifies else None)}


@pytest.fixture(scope="module", params=[True, False], ids=["computes checksums", "drops bytes"])
def running(request: pytest.FixtureRequest) -> Iterator[Sink]:
    with started(Serving("gcs", "raw", pattern="", verify=request.param)) as port:
        yield Sink(port, request.param)


@pytest.fixture
def sink(running: Sink) -> Sink:
    ask(f"{running.url}/-/reset", None)
    return running


VERIFYING = pytest.mark.parametrize("running", [True], indirect=True, ids=["computes checksums"])


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


def encoded(data: bytes) -> str:
    return base64.b64encode(crc32c(data).to_bytes(4, "big")).decode()


def media(size_bytes: int) -> bytes:
    return (b"0123456789abcdefg" * (size_bytes // 17 + 1))[:size_bytes]


@dataclass(frozen=True)
class Related:
    """A multipart/related body. `chunk_bytes`: chunked; None: with its length."""

    says: str
    data: bytes
    quoted: bool = True
    end: bytes = b""
    chunk_bytes: int | None = None

    def send(
        self, sink: Sink, resource: Mapping[str, str], query: str = ""
    ) -> tuple[int, Mapping[str, str], Any]:
        boundary = "==a=boundary=="
        described = json.dumps({"name": NAME, **resource}).encode()
        body = (
            b"--%b\r\ncontent-type: application/json\r\n\r\n%b"
            b"\r\n--%b\r\ncontent-type: video/mp2t\r\n\r\n%b\r\n--%b--%b"
        ) % (boundary.encode(), described, boundary.encode(), self.data, boundary.encode(), self.end)
        size = self.chunk_bytes
        framed = [body[at : at + size] for at in range(0, len(body), size)] if size else body
        kind = (
            f'multipart/related; boundary="{boundary}"'
            if self.quoted
            else f"multipart/related; boundary={boundary}"
        )
        return sink.request("POST", f"{UPLOAD}?uploadType=multipart{query}", framed, {"Content-Type": kind})


SMALL = Related("a small object", media(4 * KIB))
BODIES = (
    SMALL,
    Related("an empty object", b""),
    Related("one byte", b"x"),
    Related("more than a socket's buffer, as Google's library for Python sends it", media(300_000)),
    Related(
        "chunked and without quotes, as its library for Go sends it", media(300_000), False, b"\r\n", 32 * KIB
    ),
    Related("chunks smaller than the closing delimiter", media(5000), chunk_bytes=7),
    Related("one byte a chunk", media(300), end=b"\r\n", chunk_bytes=1),
    Related(
        "a last chunk that holds a part of the closing delimiter", media(64 * KIB - 150), chunk_bytes=64 * KIB
    ),
    Related("media that ends like a delimiter", media(9000) + b"\r\n--==a=bound", end=b"\r\n"),
    Related("media that begins with empty lines", b"\r\n\r\n" + media(9000)),
)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.says)
def test_a_multipart_upload_is_stored_whole(sink: Sink, body: Related) -> None:
    status, _, reported = body.send(sink, {"crc32c": encoded(body.data), "contentType": "video/mp2t"})

    assert status == 200
    assert (reported["name"], reported["bucket"], reported["size"]) == (NAME, "bucket", str(len(body.data)))
    assert (reported["crc32c"], reported["contentType"]) == (encoded(body.data), "video/mp2t")
    assert sink.stored() == sink.holds(body.data)


def test_an_object_is_described_and_listed_until_it_is_deleted(sink: Sink) -> None:
    address = f"/storage/v1/b/bucket/o/{quote(NAME, safe='')}"
    assert sink.request("GET", address)[0] == 404
    _, _, made = SMALL.send(sink, {"crc32c": encoded(SMALL.data)})

    assert sink.request("GET", address)[2] == made
    assert sink.request("GET", "/storage/v1/b/bucket/o?prefix=a%20folder/")[2]["items"] == [made]
    assert sink.request("GET", "/storage/v1/b/bucket/o?prefix=other")[2]["items"] == []
    assert sink.request("DELETE", address)[0] == 204
    assert sink.request("GET", address)[0] == 404


def test_each_generation_is_another(sink: Sink) -> None:
    first, second = (SMALL.send(sink, {})[2] for _ in range(2))

    assert (first["generation"], first["etag"]) != (second["generation"], second["etag"])


def test_a_condition_keeps_the_object_that_is_there(sink: Sink) -> None:
    SMALL.send(sink, {}, "&ifGenerationMatch=0")
    status, _, reported = replace(SMALL, data=b"other").send(sink, {}, "&ifGenerationMatch=0")

    assert (status, reported["error"]["errors"][0]["reason"]) == (412, "conditionNotMet")
    assert sink.stored() == sink.holds(SMALL.data)


def test_a_media_upload_is_stored_whole(sink: Sink) -> None:
    data = media(100_000)
    target = f"{UPLOAD}?uploadType=media&name={quote(NAME, safe='')}"
    status, _, reported = sink.request("POST", target, data, {"x-goog-hash": f"crc32c={encoded(data)},md5=x"})

    assert (status, reported["crc32c"]) == (200, encoded(data))
    assert sink.stored() == sink.holds(data)


def test_an_xml_upload_is_stored_whole(sink: Sink) -> None:
    data = media(100_000)
    status, headers, _ = sink.request(
        "PUT", f"/bucket/{quote(NAME)}", data, {"x-goog-hash": f"crc32c={encoded(data)}"}
    )

    assert (status, headers["x-goog-hash"]) == (200, f"crc32c={encoded(data)}")
    assert headers["ETag"]
    assert headers["x-goog-generation"]
    assert sink.stored() == sink.holds(data)


def begun(sink: Sink, query: str = "") -> str:
    body = json.dumps({"name": NAME, "contentType": "video/mp4"}).encode()
    status, headers, _ = sink.request("POST", f"{UPLOAD}?uploadType=resumable{query}", body)
    assert status == 200
    return headers["Location"].removeprefix(sink.url)


def chunk(data: bytes, start: int, total: int | None, **headers: str) -> dict[str, Any]:
    reported = "*" if total is None else total
    span = f"bytes {start}-{start + len(data) - 1}/{reported}" if data else f"bytes */{reported}"
    return {"body": data, "headers": {"Content-Range": span, **headers}}


def test_a_session_publishes_its_object_with_the_last_chunk(sink: Sink) -> None:
    data, session = media(600 * KIB), begun(sink)

    status, headers, _ = sink.request("PUT", session, **chunk(data[: 512 * KIB], 0, None))
    assert (status, headers["Range"]) == (308, f"bytes=0-{512 * KIB - 1}")
    assert sink.stored() == {}
    last = chunk(data[512 * KIB :], 512 * KIB, 600 * KIB)
    last["headers"]["x-goog-hash"] = f"crc32c={encoded(data)}"
    status, _, reported = sink.request("PUT", session, **last)

    assert (status, reported["size"], reported["crc32c"], reported["contentType"]) == (
        200,
        str(600 * KIB),
        encoded(data),
        "video/mp4",
    )
    assert sink.stored() == sink.holds(data)


def test_a_session_ends_without_another_byte_when_it_is_told_its_length(sink: Sink) -> None:
    data, session = media(256 * KIB), begun(sink)

    assert sink.request("PUT", session, **chunk(b"", 0, None))[:2][0] == 308
    assert sink.request("PUT", session, **chunk(data, 0, None))[0] == 308
    assert sink.request("PUT", session, **chunk(b"", 0, len(data)))[0] == 200
    assert sink.stored() == sink.holds(data)


def test_a_client_for_go_is_told_of_a_kept_chunk_by_a_header(sink: Sink) -> None:
    data, session = media(256 * KIB), begun(sink)
    first = chunk(data, 0, None)
    first["headers"]["X-GUploader-No-308"] = "yes"
    status, headers, _ = sink.request("POST", session, **first)

    assert (status, headers["X-Http-Status-Code-Override"]) == (200, "308")
    assert headers["Range"] == f"bytes=0-{256 * KIB - 1}"


@pytest.mark.parametrize(
    ("says", "data", "start", "total"),
    [
        ("a chunk that leaves a gap", media(256 * KIB), 256 * KIB, None),
        ("a chunk that is no multiple of 256 KiB, and not the last", media(100), 0, None),
        ("a last chunk that ends before the length it says", media(100), 0, 200),
    ],
)
def test_a_session_refuses(sink: Sink, says: str, data: bytes, start: int, total: int | None) -> None:
    assert sink.request("PUT", begun(sink), **chunk(data, start, total))[0] == 400, says
    assert sink.stored() == {}


def test_a_session_that_has_ended_is_unknown(sink: Sink) -> None:
    session = begun(sink)

    assert sink.request("DELETE", session)[0] == 499
    assert sink.request("PUT", session, **chunk(media(100), 0, 100))[0] == 404


@VERIFYING
def test_a_wrong_checksum_is_refused(sink: Sink) -> None:
    wrong = {"x-goog-hash": f"crc32c={encoded(b'other')}"}
    last = chunk(media(100), 0, 100)
    last["headers"] |= wrong

    assert SMALL.send(sink, {"crc32c": encoded(b"other")})[0] == 400
    assert sink.request("POST", f"{UPLOAD}?uploadType=media&name=n", b"these", wrong)[0] == 400
    assert sink.request("PUT", "/bucket/n", b"these", wrong)[0] == 400
    assert sink.request("PUT", begun(sink), **last)[0] == 400
    assert sink.stored() == {}


@VERIFYING
@pytest.mark.parametrize(
    ("says", "size_bytes", "chunk_bytes"),
    [("one request", 100_000, None), ("a session of three chunks", 600 * KIB, 256 * KIB)],
)
def test_googles_library_stores_an_object(
    sink: Sink, says: str, size_bytes: int, chunk_bytes: int | None
) -> None:
    data = media(size_bytes)
    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
    client = Client(project=None, credentials=anonymous, client_options={"api_endpoint": sink.url})
    blob = client.bucket("bucket").blob(NAME, chunk_size=chunk_bytes)
    blob.upload_from_file(BytesIO(data), size=None if chunk_bytes else size_bytes, checksum="crc32c")
    client.close()

    assert (blob.size, blob.crc32c) == (size_bytes, encoded(data)), says
    assert sink.stored() == sink.holds(data)

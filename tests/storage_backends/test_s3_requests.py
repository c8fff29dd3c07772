"""PUTs to S3 by our own client: signed as botocore signs, sent where boto3 would send them, and corrected by boto3
where it knows how."""

from __future__ import annotations

import base64
import calendar
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from types_boto3_s3.client import S3Client

from archiver.http import waiting
from archiver.http.errors import HttpError
from storage_backends.crc32c import crc32c_of, to_base64
from storage_backends.errors import StorageError
from storage_backends.s3.data_path import Checksum, Confirmed, S3DataPath
from storage_backends.s3.requests import _CORRECTED_BY_BOTO3, S3Requests, _learn
from storage_backends.s3.signing import Endpoint, RequestTemplate
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server

T = TypeVar("T")

LEAN = Config(s3={"payload_signing_enabled": False}, request_checksum_calculation="when_required")
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
UNICODE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
MD5_OF_BYTES = base64.b64encode(hashlib.md5(b"bytes").digest()).decode()
SIGNATURE_WRONG = Answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
DENIED = Answer(403, b"<Error><Code>AccessDenied</Code><Message>no &amp; no</Message></Error>")


def client_of(endpoint_url: str, config: Config = LEAN) -> S3Client:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=config,
    )


def answer_of(wanted: Awaitable[T]) -> T:
    """Block until it is there."""

    async def run() -> T:
        return await wanted

    return waiting.complete(run())


@contextlib.contextmanager
def requests_of(client: S3Client, bucket: str, secret: str = SECRET_KEY) -> Iterator[S3Requests]:
    requests = S3Requests(client, Credentials(ACCESS_KEY, secret), bucket, None)
    with contextlib.closing(requests):
        yield requests


class AskedBoto3(Exception):
    pass


def ask_boto3(**_: object) -> None:
    raise AskedBoto3


def never_ask_boto3(client: S3Client) -> None:
    client.meta.events.register_first("before-call.s3.PutObject", ask_boto3)


class Talk:
    def __init__(self, server: S3Server, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.bucket = server.new_bucket()
        self.client = client_of(f"http://127.0.0.1:{proxy.port}")
        self.requests = S3Requests(self.client, Credentials(ACCESS_KEY, SECRET_KEY), self.bucket, None)
        self._server = server

    def put(self, data: bytes | memoryview = b"bytes") -> str:
        return str(answer_of(self.requests.put_object(request(self.bucket, data)))["ETag"])

    def stored(self) -> bytes:
        with contextlib.closing(self._server.client()) as client:
            return client.get_object(Bucket=self.bucket, Key="key")["Body"].read()

    @property
    def senders(self) -> list[str]:
        return ["ours" if by_us(call) else "boto3" for call in self.proxy.calls]


def request(bucket: str, data: bytes | memoryview = b"bytes", **more: object) -> dict[str, object]:
    return {
        "Bucket": bucket,
        "Key": "key",
        "Body": data,
        "ChecksumCRC32C": to_base64(crc32c_of(data)),
        **more,
    }


def by_us(call: Call) -> bool:
    return "amz-sdk-invocation-id" not in call.headers


@pytest.fixture
def talk(ministack_server: S3Server) -> Iterator[Talk]:
    port = urlsplit(ministack_server.endpoint_url).port
    assert port is not None
    with fault_proxy(port) as proxy:
        talk = Talk(ministack_server, proxy)
        yield talk
        talk.requests.close()
        talk.client.close()


# -- signatures ----------------------------------------------------------------------------------------------
@settings(deadline=None)  # green on a busy machine
@given(key=UNICODE, upload_id=TEXT, metadata=WORDS, token=st.none() | TEXT)
@pytest.mark.parametrize("checked_by", ["ChecksumCRC32C", "ContentMD5"])
@pytest.mark.parametrize("with_body", [False, True])
def test_a_request_is_signed_as_botocore_signs_it(
    with_body: bool, checked_by: str, key: str, upload_id: str, metadata: str, token: str | None
) -> None:
    path = f"/bucket/{quote(key, safe='/-._~')}"
    query = f"partNumber=7&uploadId={quote(upload_id, safe='-._~')}"
    checksum_header = {"ChecksumCRC32C": "x-amz-checksum-crc32c", "ContentMD5": "content-md5"}[checked_by]
    headers = {"content-type": "video/mp4", "x-amz-meta-one": metadata, checksum_header: "AAAAAA=="}
    headers |= {"if-match": '"one"', "x-amz-server-side-encryption": "aws:kms"}
    theirs = AWSRequest("PUT", f"https://example.com{path}?{query}", headers, b"bytes")
    theirs.context["payload_signing_enabled"] = with_body
    theirs.context["client_config"] = Config(s3={"payload_signing_enabled": with_body})
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "s3", "eu-west-1").add_auth(theirs)
    second = calendar.timegm(time.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))

    form = RequestTemplate(
        Endpoint("https://example.com", "example.com", "/bucket/", "eu-west-1", "me", ""),
        "PUT",
        second,
        ReadOnlyCredentials(ACCESS_KEY, SECRET_KEY, token),
        checked_by,
        (("ContentType", "video/mp4"), ("IfMatch", '"one"'), ("ServerSideEncryption", "aws:kms")),
        (("one", metadata),),
    )
    digest = hashlib.sha256(b"bytes").hexdigest() if with_body else "UNSIGNED-PAYLOAD"
    ours = form.request(key, query, "AAAAAA==", digest, b"bytes")

    assert (ours.method, ours.url, ours.body) == ("PUT", f"https://example.com{path}?{query}", b"bytes")
    assert headers_of(ours.lines) == {
        **{name.lower(): value for name, value in theirs.headers.items()},
        "x-amz-meta-one": " ".join(metadata.split()),  # which is how a signature counts blanks
    }


def headers_of(lines: tuple[bytes, ...]) -> dict[str, str]:
    """libcurl sends `name;` as a header without a value."""
    pairs = [line.decode("ascii").partition(": ") for line in lines]
    return {name.removesuffix(";"): value for name, _, value in pairs}


def test_a_server_that_checks_signatures_takes_ours(rclone_server: S3Server) -> None:
    bucket = rclone_server.new_bucket()
    metadata = {"a": "b c", "Blanks": "  two  blanks ", "empty": ""}
    more: dict[str, Any] = {"ContentType": "video/mp2t", "Metadata": metadata}
    with (
        contextlib.closing(client_of(rclone_server.endpoint_url)) as client,
        requests_of(client, bucket) as requests,
    ):
        never_ask_boto3(client)

        answer_of(requests.put_object(request(bucket, Key="a b/ü+%~.ts", **more)))

        assert client.get_object(Bucket=bucket, Key="a b/ü+%~.ts")["Body"].read() == b"bytes"


def test_a_server_that_checks_signatures_refuses_another_secret(rclone_server: S3Server) -> None:
    bucket = rclone_server.new_bucket()
    with (
        contextlib.closing(client_of(rclone_server.endpoint_url)) as client,
        requests_of(client, bucket, secret="not the secret") as requests,
    ):
        assert requests.direct

        for _ in range(3):
            answer_of(requests.put_object(request(bucket, b"by boto3, in the end")))

        assert not requests.direct


def test_parts_are_signed_with_their_number_and_upload(rclone_server: S3Server) -> None:
    bucket = rclone_server.new_bucket()
    with (
        contextlib.closing(client_of(rclone_server.endpoint_url)) as client,
        requests_of(client, bucket) as requests,
    ):
        upload_id = client.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
        client.meta.events.register_first("before-call.s3.UploadPart", ask_boto3)

        answer = answer_of(requests.upload_part(request(bucket, PartNumber=1, UploadId=upload_id)))

        parts = [{"PartNumber": 1, "ETag": answer["ETag"]}]
        client.complete_multipart_upload(
            Bucket=bucket,
            Key="key",
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
        )
        assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"bytes"


def refuses_unsigned(code: str = "AccessDenied", status: int = 403) -> tuple[Callable[[Call], bool], Answer]:
    def is_unsigned(call: Call) -> bool:
        return {n.lower(): v for n, v in call.headers.items()}["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"

    return is_unsigned, Answer(status, f"<Error><Code>{code}</Code></Error>".encode())


@pytest.mark.parametrize(
    ("code", "status"),
    [("AccessDenied", 403), ("InvalidRequest", 400), ("Odd", 400), ("NotImplemented", 501)],
)
def test_bodies_are_signed_where_unsigned_ones_are_refused(talk: Talk, code: str, status: int) -> None:
    talk.proxy.answer(*refuses_unsigned(code, status), times=99)

    talk.put(memoryview(b"bytes"))
    talk.put()

    digests = [call.headers["x-amz-content-sha256"] for call in talk.proxy.calls]
    of_bytes = hashlib.sha256(b"bytes").hexdigest()
    assert digests == ["UNSIGNED-PAYLOAD", of_bytes, of_bytes], "learned once"
    assert talk.senders == ["ours"] * 3
    assert talk.stored() == b"bytes"


def test_signed_bodies_are_taken_by_a_server_that_checks_signatures(rclone_server: S3Server) -> None:
    port = urlsplit(rclone_server.endpoint_url).port
    assert port is not None
    bucket = rclone_server.new_bucket()
    with (
        fault_proxy(port) as proxy,
        contextlib.closing(client_of(f"http://127.0.0.1:{proxy.port}")) as client,
    ):
        proxy.answer(*refuses_unsigned(), times=99)
        with requests_of(client, bucket) as requests:
            never_ask_boto3(client)

            answer_of(requests.put_object(request(bucket, Key="a b/ü.ts", ContentType="video/mp2t")))


def test_after_one_unsigned_body_was_taken_a_refusal_is_about_something_else(talk: Talk) -> None:
    talk.put()
    talk.proxy.answer(lambda _: True, DENIED)

    with pytest.raises(ClientError):
        talk.put()

    assert len(talk.proxy.calls) == 2


# -- where they go -------------------------------------------------------------------------------------------
def test_bytes_are_sent_by_us(talk: Talk) -> None:
    etags = {talk.put(memoryview(b"xbytesx")[1:6]) for _ in range(5)}

    assert talk.senders == ["ours"] * 5
    assert len(etags) == 1
    assert talk.stored() == b"bytes"


def test_asking_boto3_how_it_would_send_sends_nothing(talk: Talk) -> None:
    assert talk.requests.direct
    assert talk.proxy.calls == []


def test_a_region_and_an_addressing_style_are_those_that_boto3_chose() -> None:
    session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="eu-central-1")
    with contextlib.closing(session.client("s3", config=LEAN)) as client:
        endpoint = _learn(client, Credentials(ACCESS_KEY, SECRET_KEY), "some-bucket")

    assert isinstance(endpoint, Endpoint)
    host = "some-bucket.s3.eu-central-1.amazonaws.com"
    assert (endpoint.origin, endpoint.host_header) == (f"https://{host}", host)
    assert (endpoint.path_before_key, endpoint.region, endpoint.proxy) == ("/", "eu-central-1", "")


@pytest.mark.parametrize(
    "config",
    [
        Config(signature_version=UNSIGNED),
        Config(signature_version="s3", s3={"payload_signing_enabled": False}),
    ],
    ids=["anonymous", "SigV2"],
)
def test_what_boto3_does_in_another_way_is_left_to_it(config: Config) -> None:
    with contextlib.closing(client_of("http://127.0.0.1:9", config)) as client, capture_logs() as logs:
        with requests_of(client, "bucket") as requests:
            assert not requests.direct

        assert [entry["event"] for entry in logs] == ["s3_sent_by_boto3"]


def test_a_header_that_somebody_adds_is_left_to_boto3_and_named() -> None:
    def lock(params: dict[str, Any], **_: object) -> None:
        params["headers"]["x-amz-object-lock-mode"] = "COMPLIANCE"

    with contextlib.closing(client_of("http://127.0.0.1:9")) as client, capture_logs() as logs:
        client.meta.events.register("before-call.s3.PutObject", lock)
        with requests_of(client, "bucket") as requests:
            assert not requests.direct

    assert [entry["headers"] for entry in logs] == [("x-amz-object-lock-mode",)]


@pytest.mark.parametrize("named_by", ["the environment", "the client"])
def test_a_proxy_is_used_where_boto3_would_use_it(
    named_by: str, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    address = f"http://127.0.0.1:{talk.proxy.port}"
    config = LEAN
    if named_by == "the environment":
        monkeypatch.setenv("http_proxy", address)
    else:
        config = LEAN.merge(Config(proxies={"http": address}))
    talk.proxy.answer(lambda _: True, Answer(200, headers={"ETag": '"1"'}))
    with (
        contextlib.closing(client_of("http://storage.example", config)) as client,
        requests_of(client, "bucket") as requests,
    ):
        assert answer_of(requests.put_object(request("bucket")))["ETag"] == '"1"'

    assert talk.senders == ["ours"]
    assert talk.proxy.calls[0].path == "http://storage.example/bucket/key"
    assert talk.proxy.calls[0].headers["host"] == "storage.example"


def test_a_host_that_the_environment_excepts_is_asked_without_a_proxy(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with requests_of(talk.client, talk.bucket) as requests:
        answer_of(requests.put_object(request(talk.bucket)))

    assert talk.proxy.calls[0].path == f"/{talk.bucket}/key"


def test_a_header_that_somebody_adds_to_requests_is_left_to_boto3() -> None:
    with contextlib.closing(client_of("http://127.0.0.1:9")) as client:
        client.meta.events.register(
            "before-sign.s3", lambda request, **_: request.headers.add_header("x-team", "us")
        )

        with requests_of(client, "bucket") as requests:
            assert not requests.direct


def test_without_credentials_boto3_is_asked() -> None:
    with contextlib.closing(client_of("http://127.0.0.1:9")) as client:
        assert not S3Requests(client, None, "bucket", None).direct


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"CacheControl": "no-store"}, "CacheControl"),
        ({"ContentType": "é"}, "content-type"),
        ({"Metadata": {"a": "é"}}, "x-amz-meta-a"),
        ({"Metadata": {"a": "one\x00two"}}, "x-amz-meta-a"),
        ({"Bucket": "another"}, "another"),
        ({"ChecksumCRC32C": None}, "checksum"),
    ],
    ids=["an argument", "a type", "metadata", "a control character", "another bucket", "no checksum"],
)
def test_what_we_cannot_send_fails_and_is_not_sent_otherwise(
    change: dict[str, Any], why: str, talk: Talk
) -> None:
    asked = {name: value for name, value in request(talk.bucket, **change).items() if value is not None}

    with pytest.raises(StorageError, match=why):
        answer_of(talk.requests.put_object(asked))

    assert talk.proxy.calls == []


def test_a_request_may_have_both_checksums(talk: Talk) -> None:
    answer_of(talk.requests.put_object(request(talk.bucket, ContentMD5=MD5_OF_BYTES)))

    assert talk.senders == ["ours"]
    assert talk.proxy.calls[0].headers["content-md5"] == MD5_OF_BYTES
    assert "x-amz-checksum-crc32c" in talk.proxy.calls[0].headers


# -- what goes wrong -----------------------------------------------------------------------------------------
def test_an_answer_that_was_lost_is_an_error(talk: Talk) -> None:
    """Over a new connection; over a kept one the request is sent once more, see tests/http/test_reuse.py."""
    talk.proxy.lose_answer(by_us)

    with pytest.raises(HttpError):
        talk.put()

    assert talk.senders == ["ours"]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_transient_error_is_raised_to_whoever_retries(talk: Talk, status: int) -> None:
    talk.proxy.answer(by_us, Answer(status, b"<Error><Code>SlowDown</Code></Error>"))

    with pytest.raises(ClientError, match="SlowDown"):
        talk.put()

    assert talk.senders == ["ours"]
    assert talk.requests.direct


def test_a_connection_that_the_server_ends_costs_nothing(talk: Talk) -> None:
    talk.proxy.answer(by_us, Answer(200, headers={"ETag": '"1"', "Connection": "close"}))

    talk.put()
    talk.put()

    assert talk.senders == ["ours", "ours"]


def test_a_refusal_is_raised_as_boto3_would(talk: Talk) -> None:
    talk.put()
    talk.proxy.answer(lambda _: True, DENIED, times=2)

    with pytest.raises(ClientError) as ours:
        talk.put()
    with pytest.raises(ClientError) as theirs:
        talk.client.put_object(Bucket=talk.bucket, Key="key", Body=b"bytes")

    assert str(ours.value) == str(theirs.value)
    assert ours.value.response["Error"] == theirs.value.response["Error"]
    assert ours.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(
    "answer",
    [Answer(403, f"<Error><Code>{code}</Code></Error>".encode()) for code in sorted(_CORRECTED_BY_BOTO3)]
    + [Answer(301), Answer(307)],
    ids=[*sorted(_CORRECTED_BY_BOTO3), "301", "307"],
)
def test_what_boto3_knows_how_to_correct_is_sent_by_it_once(talk: Talk, answer: Answer) -> None:
    talk.proxy.answer(by_us, answer)

    with capture_logs() as logs:
        talk.put()
        talk.put()

    assert talk.senders == ["ours", "boto3", "ours"]
    assert [entry["event"] for entry in logs] == ["s3_request_corrected_by_boto3"]
    assert talk.stored() == b"bytes"


def test_a_server_that_refuses_only_our_requests_gets_them_from_boto3(talk: Talk) -> None:
    talk.proxy.answer(by_us, SIGNATURE_WRONG, times=99)

    with capture_logs() as logs:
        for _ in range(5):
            talk.put()

    assert talk.senders == ["ours", "boto3"] * 3 + ["boto3"] * 2
    events = [entry["event"] for entry in logs]
    assert events == ["s3_request_corrected_by_boto3"] * 3 + ["s3_sent_by_boto3"]


def test_a_single_disagreement_is_forgotten(talk: Talk) -> None:
    for _ in range(4):
        talk.proxy.answer(by_us, SIGNATURE_WRONG)
        talk.put()
        talk.put()

    assert talk.requests.direct


# -- answers, byte by byte -----------------------------------------------------------------------------------
Speak = Callable[[socket.socket, Mapping[str, str]], None]
"""Answers one request, of which it gets the headers."""


@pytest.fixture
def speaking() -> Iterator[Callable[[Speak], tuple[S3Requests, Credentials]]]:
    """A server that keeps its connections; boto3 is not to be asked."""
    with contextlib.ExitStack() as stack:

        def start(speak: Speak) -> tuple[S3Requests, Credentials]:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_accept, args=(listener, speak), daemon=True)
            thread.start()
            client = client_of(f"http://127.0.0.1:{listener.getsockname()[1]}")
            credentials = Credentials(ACCESS_KEY, SECRET_KEY)
            requests = S3Requests(client, credentials, "bucket", None)
            never_ask_boto3(client)
            stack.callback(thread.join, 10)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            stack.callback(client.close)
            stack.callback(requests.close)
            return requests, credentials

        yield start


Speaking = Callable[[Speak], tuple[S3Requests, Credentials]]


def _accept(listener: socket.socket, speak: Speak) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve, args=(sock, speak), daemon=True).start()


def _serve(sock: socket.socket, speak: Speak) -> None:
    with contextlib.suppress(OSError), sock, sock.makefile("rb") as lines:
        while lines.readline():
            headers = {}
            while line := lines.readline().decode().strip():
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            lines.read(int(headers["content-length"]))
            speak(sock, headers)


def always(answer: bytes) -> Speak:
    return lambda sock, _: sock.sendall(answer)


def confirming(sock: socket.socket, headers: Mapping[str, str]) -> None:
    checksum = headers["x-amz-checksum-crc32c"]
    sock.sendall(f'HTTP/1.1 200 \r\nETag: "1"\r\nx-amz-checksum-crc32c: {checksum}\r\n{EMPTY}'.encode())


EMPTY = "Content-Length: 0\r\n\r\n"
DENIAL = b"<Error><Code>AccessDenied</Code></Error>"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n" + DENIAL,
        (
            b"HTTP/1.1 403 \r\ntransfer-encoding: chunked\r\n\r\n1C;x=y\r\n<Error><Code>AccessDenied</C\r\n"
            b"C\r\node></Error>\r\n0\r\n\r\n"
        ),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n" + DENIAL,
        b"HTTP/1.1 403 No\r\nVary: Origin\r\nVary: Accept-Encoding\r\nContent-Length: 40\r\n\r\n" + DENIAL,
    ],
    ids=["a length", "chunks", "an informational answer first", "a header of no concern twice"],
)
def test_an_error_is_read_however_it_is_framed(speaking: Speaking, answer: bytes) -> None:
    requests, _ = speaking(always(answer))

    for _ in range(2):
        with pytest.raises(ClientError, match="AccessDenied"):
            answer_of(requests.put_object(request("bucket")))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nETag : "1"\r\nContent-Length: 0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nETag: "\0"\r\nContent-Length: 0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nETag: "1"\nContent-Length: 0\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * 999_999,
    ],
    ids=[
        "no header", "a blank after a name", "a NUL", "a bare line feed", "a sign", "a length of many digits",
        "another protocol", "no HTTP", "no chunk", "an endless answer",
    ],
)  # fmt: skip
def test_what_is_not_an_answer_is_not_success(speaking: Speaking, answer: bytes) -> None:
    requests, _ = speaking(always(answer))

    with pytest.raises(HttpError):
        answer_of(requests.put_object(request("bucket")))


@pytest.mark.parametrize("late", [False, True])
def test_an_unrequested_response_confirms_no_other_object(late: bool, speaking: Speaking) -> None:
    """It came with the answer to the first, or while the connection was idle: the second is sent over another one."""
    asked: list[str] = []
    duplicate_sent, first_was_read = threading.Event(), threading.Event()

    def speak(sock: socket.socket, headers: Mapping[str, str]) -> None:
        asked.append(headers["x-amz-checksum-crc32c"])
        confirming(sock, headers)
        if len(asked) == 1:
            assert not late or first_was_read.wait(10)
            confirming(sock, headers)
            duplicate_sent.set()

    requests, _ = speaking(speak)
    data_path = S3DataPath(lambda: requests, "bucket", Checksum.AUTO)
    answer_of(data_path.put("key", b"one", crc32c_of(b"one"), {}))
    first_was_read.set()
    assert duplicate_sent.wait(10)

    receipt = answer_of(data_path.put("key", b"two", crc32c_of(b"two"), {}))

    assert receipt.confirmed is Confirmed.CRC32C
    assert asked == [to_base64(crc32c_of(b"one")), to_base64(crc32c_of(b"two"))]


def test_each_request_is_signed_for_its_own_time_and_credentials(
    speaking: Speaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Mapping[str, str]] = []

    def speak(sock: socket.socket, headers: Mapping[str, str]) -> None:
        sent.append(headers)
        confirming(sock, headers)

    requests, credentials = speaking(speak)
    clock = SimpleNamespace(**{name: getattr(time, name) for name in ("gmtime", "monotonic", "strftime")})
    monkeypatch.setattr("storage_backends.s3.requests.time", clock)
    for now, secret, token in [
        (0.0, "a", None),
        (0.9, "a", None),
        (1.0, "a", None),
        (1.0, "b", None),
        (86_401.0, "b", None),
        (86_401.0, "b", "t"),
    ]:
        clock.time = lambda now=now: now
        credentials.secret_key, credentials.token = secret, token
        answer_of(requests.put_object(request("bucket")))

    assert [headers["x-amz-date"] for headers in sent] == [
        *["19700101T000000Z"] * 2,
        *["19700101T000001Z"] * 2,
        *["19700102T000001Z"] * 2,
    ]
    assert [headers.get("x-amz-security-token") for headers in sent] == [None] * 5 + ["t"]
    signatures = [headers["authorization"] for headers in sent]
    assert signatures[0] == signatures[1]
    assert len(set(signatures)) == 5

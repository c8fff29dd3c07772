"""The short way for bytes to S3: signed as botocore signs, taken only where boto3 would do nothing more, and never the
judge of what went wrong."""

from __future__ import annotations

import base64
import calendar
import contextlib
import hashlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from types_boto3_s3.client import S3Client

from storage_backends.crc32c import crc32c_of, to_base64
from storage_backends.errors import ChecksumRejected
from storage_backends.s3_data import Checksum, S3DataPath
from storage_backends.s3_wire import Endpoint, S3Wire, _form, _learn
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server

LEAN = Config(s3={"payload_signing_enabled": False}, request_checksum_calculation="when_required")
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
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


def wire_of(client: S3Client, bucket: str, secret: str = SECRET_KEY) -> S3Wire:
    return S3Wire(client, Credentials(ACCESS_KEY, secret), bucket)


class AskedBoto3(Exception):
    pass


def ask_boto3(**_: object) -> None:
    raise AskedBoto3


class Talk:
    def __init__(self, server: S3Server, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.bucket = server.new_bucket()
        self.client = client_of(f"http://127.0.0.1:{proxy.port}")
        self.credentials = Credentials(ACCESS_KEY, SECRET_KEY)
        self.wire = S3Wire(self.client, self.credentials, self.bucket)
        self._server = server

    def put(self, data: bytes | memoryview = b"bytes") -> str:
        return str(self.wire.put_object(request(self.bucket, data))["ETag"])

    def stored(self) -> bytes:
        with contextlib.closing(self._server.client()) as client:
            return client.get_object(Bucket=self.bucket, Key="key")["Body"].read()

    @property
    def senders(self) -> list[str]:
        return ["boto3" if by_boto3(call) else "wire" for call in self.proxy.calls]


def request(bucket: str, data: bytes | memoryview = b"bytes", **more: object) -> dict[str, object]:
    return {
        "Bucket": bucket,
        "Key": "key",
        "Body": data,
        "ChecksumCRC32C": to_base64(crc32c_of(data)),
        **more,
    }


def by_boto3(call: Call) -> bool:
    return "amz-sdk-invocation-id" in call.headers


def by_wire(call: Call) -> bool:
    return not by_boto3(call)


@pytest.fixture
def talk(ministack_server: S3Server) -> Iterator[Talk]:
    port = urlsplit(ministack_server.endpoint_url).port
    assert port is not None
    with fault_proxy(port) as proxy:
        talk = Talk(ministack_server, proxy)
        yield talk
        talk.wire.close()
        talk.client.close()


# -- signatures
@given(key=UNICODE, upload_id=TEXT, metadata=TEXT, token=st.none() | TEXT)
@pytest.mark.parametrize("checked_by", ["ChecksumCRC32C", "ContentMD5"])
def test_a_request_is_signed_as_botocore_signs_it(
    checked_by: str, key: str, upload_id: str, metadata: str, token: str | None
) -> None:
    path, query = (
        f"/bucket/{quote(key, safe='/-._~')}",
        f"partNumber=7&uploadId={quote(upload_id, safe='-._~')}",
    )
    checksum_header = {"ChecksumCRC32C": "x-amz-checksum-crc32c", "ContentMD5": "content-md5"}[checked_by]
    headers = {"content-type": "video/mp4", "x-amz-meta-one": metadata, checksum_header: "AAAAAA=="}
    theirs = AWSRequest("PUT", f"https://example.com{path}?{query}", headers)
    theirs.context["payload_signing_enabled"] = False
    theirs.context["client_config"] = LEAN
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "s3", "eu-west-1").add_auth(theirs)
    second = calendar.timegm(time.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))

    form = _form(
        Endpoint(True, "example.com", 443, "example.com", "/bucket/", "eu-west-1", "me"),
        second,
        ReadOnlyCredentials(ACCESS_KEY, SECRET_KEY, token),
        checked_by,
        (("ContentType", "video/mp4"),),
        (("one", metadata),),
    )

    assert form is not None
    request_line, *lines = form.head(key, query, "AAAAAA==", 5).decode("ascii").split("\r\n")
    ours = dict(line.split(": ", 1) for line in lines if line)
    assert request_line == f"PUT {path}?{query} HTTP/1.1"
    assert ours == {
        **{name.lower(): value for name, value in theirs.headers.items()},
        "host": "example.com",
        "user-agent": "me",
        "content-length": "5",
    }


def test_a_server_that_checks_signatures_takes_ours(rclone_server: S3Server) -> None:
    bucket = rclone_server.new_bucket()
    with contextlib.closing(client_of(rclone_server.endpoint_url)) as client:
        wire = wire_of(client, bucket)
        wire.put_object(request(bucket, Key="a b/ü+%~.ts", ContentType="video/mp2t", Metadata={"a": "b c"}))

        assert wire.direct
        assert client.get_object(Bucket=bucket, Key="a b/ü+%~.ts")["Body"].read() == b"bytes"
        wire.close()


def test_a_server_that_checks_signatures_refuses_another_secret(rclone_server: S3Server) -> None:
    bucket = rclone_server.new_bucket()
    with contextlib.closing(client_of(rclone_server.endpoint_url)) as client:
        wire = wire_of(client, bucket, secret="not the secret")
        assert wire.direct

        for _ in range(3):
            wire.put_object(request(bucket, b"by boto3, in the end"))

        assert not wire.direct
        wire.close()


# -- when it is taken
def test_bytes_go_the_short_way_on_one_connection(talk: Talk) -> None:
    etags = {talk.put(memoryview(b"xbytesx")[1:6]) for _ in range(5)}

    assert talk.senders == ["wire"] * 5
    assert len(etags) == 1
    assert talk.stored() == b"bytes"


def test_asking_boto3_how_it_would_send_sends_nothing(talk: Talk) -> None:
    assert talk.wire.direct
    assert talk.proxy.calls == []


def test_a_region_and_an_addressing_style_are_those_that_boto3_chose() -> None:
    session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="eu-central-1")
    with contextlib.closing(session.client("s3", config=LEAN)) as client:
        endpoint = _learn(client, Credentials(ACCESS_KEY, SECRET_KEY), "some-bucket")

    assert endpoint is not None
    assert (endpoint.host, endpoint.port, endpoint.path_before_key, endpoint.region) == (
        "some-bucket.s3.eu-central-1.amazonaws.com",
        443,
        "/",
        "eu-central-1",
    )


@pytest.mark.parametrize(
    "config",
    [
        Config(signature_version=UNSIGNED),
        Config(signature_version="s3", s3={"payload_signing_enabled": False}),
        Config(s3={"payload_signing_enabled": True}),
        Config(s3={"payload_signing_enabled": False}, proxies={"http": "http://127.0.0.1:9"}),
    ],
    ids=["anonymous", "SigV2", "signed bodies", "a proxy of the client's own"],
)
def test_what_boto3_does_in_another_way_is_left_to_it(config: Config) -> None:
    with contextlib.closing(client_of("http://127.0.0.1:9", config)) as client:
        assert not wire_of(client, "bucket").direct


def test_a_proxy_named_by_the_environment_is_left_to_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)

    with contextlib.closing(client_of("http://example.com")) as client:
        assert not wire_of(client, "bucket").direct


def test_a_header_that_somebody_adds_to_requests_is_left_to_boto3() -> None:
    with contextlib.closing(client_of("http://127.0.0.1:9")) as client:
        client.meta.events.register(
            "before-sign.s3", lambda request, **_: request.headers.add_header("x-team", "us")
        )

        assert not wire_of(client, "bucket").direct


def test_without_credentials_boto3_is_asked() -> None:
    with contextlib.closing(client_of("http://127.0.0.1:9")) as client:
        assert not S3Wire(client, None, "bucket").direct


@pytest.mark.parametrize(
    "more",
    [{"CacheControl": "no-store"}, {"Metadata": {"a": "two  blanks"}}, {"ContentType": "é"}],
    ids=["an argument that is not known here", "blanks that are signed otherwise", "not ASCII"],
)
def test_what_is_not_plain_is_left_to_boto3(more: dict[str, Any]) -> None:
    with contextlib.closing(client_of("http://127.0.0.1:9")) as client:
        wire = wire_of(client, "bucket")
        client.meta.events.register_first("before-call.s3.PutObject", ask_boto3)

        with pytest.raises(AskedBoto3):
            wire.put_object(request("bucket", **more))


def test_what_has_no_checksum_is_left_to_boto3(talk: Talk) -> None:
    talk.wire.put_object({"Bucket": talk.bucket, "Key": "key", "Body": b"bytes"})

    assert talk.senders == ["boto3"]


def test_a_request_may_have_both_checksums(talk: Talk) -> None:
    talk.wire.put_object(request(talk.bucket, ContentMD5=MD5_OF_BYTES))

    assert talk.senders == ["wire"]
    assert talk.proxy.calls[0].headers["content-md5"] == MD5_OF_BYTES
    assert "x-amz-checksum-crc32c" in talk.proxy.calls[0].headers


# -- what goes wrong
def test_an_answer_that_was_lost_is_asked_of_boto3(talk: Talk) -> None:
    talk.proxy.lose_answer(by_wire)

    talk.put()

    assert talk.senders == ["wire", "boto3"]
    assert talk.stored() == b"bytes"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_what_is_worth_trying_again_is_left_to_boto3(talk: Talk, status: int) -> None:
    talk.proxy.answer(by_wire, Answer(status, b"<Error><Code>SlowDown</Code></Error>"))

    talk.put()

    assert talk.senders == ["wire", "boto3"]
    assert talk.wire.direct


def test_an_idle_connection_that_ended_costs_nothing(talk: Talk) -> None:
    talk.proxy.answer(by_wire, Answer(200, headers={"ETag": '"1"', "Connection": "close"}))

    talk.put()
    talk.put()

    assert talk.senders == ["wire", "wire"]


def test_a_refusal_is_raised_as_boto3_would(talk: Talk) -> None:
    talk.proxy.answer(lambda _: True, DENIED, times=2)

    with pytest.raises(ClientError) as ours:
        talk.put()
    with pytest.raises(ClientError) as theirs:
        talk.client.put_object(Bucket=talk.bucket, Key="key", Body=b"bytes")

    assert str(ours.value) == str(theirs.value)
    assert ours.value.response["Error"] == theirs.value.response["Error"]
    assert ours.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_server_that_refuses_only_the_short_way_is_spared_it(talk: Talk) -> None:
    talk.proxy.answer(by_wire, SIGNATURE_WRONG, times=99)

    for _ in range(5):
        talk.put()

    assert talk.senders == ["wire", "boto3"] * 3 + ["boto3"] * 2


def test_a_single_disagreement_is_forgotten(talk: Talk) -> None:
    for _ in range(4):
        talk.proxy.answer(by_wire, SIGNATURE_WRONG)
        talk.put()
        talk.put()

    assert talk.wire.direct


# -- answers as they are framed
Speak = Callable[[socket.socket, Mapping[str, str]], None]
"""Answers one request, of which it gets the headers."""


@pytest.fixture
def speaking() -> Iterator[Callable[[Speak], Talk]]:
    """A server that keeps its connections; boto3 is not to be asked."""
    with contextlib.ExitStack() as stack:

        def start(speak: Speak) -> Talk:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_serve, args=(listener, speak), daemon=True)
            thread.start()
            client = client_of(f"http://127.0.0.1:{listener.getsockname()[1]}")
            talk = Talk.__new__(Talk)
            talk.client, talk.bucket, talk.credentials = client, "bucket", Credentials(ACCESS_KEY, SECRET_KEY)
            talk.wire = S3Wire(client, talk.credentials, talk.bucket)
            client.meta.events.register_first("before-send.s3.PutObject", ask_boto3)
            stack.callback(thread.join, 10)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            stack.callback(client.close)
            stack.callback(talk.wire.close)
            return talk

        yield start


def _serve(listener: socket.socket, speak: Speak) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            with sock, sock.makefile("rb") as lines:
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


def until_something_came(wire: S3Wire) -> None:
    """Something that nobody asked for, or the end, on the one idle connection."""
    assert wire._line is not None
    (idle,) = wire._line._connections._idle
    assert select.select([idle._stream._sock], [], [], 10)[0]


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
def test_an_error_is_read_however_it_is_framed(speaking: Callable[[Speak], Talk], answer: bytes) -> None:
    talk = speaking(always(answer))

    for _ in range(2):
        with pytest.raises(ClientError, match="AccessDenied"):
            talk.put()


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nETag: "2"\r\nContent-Length: 0\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nETag : "1"\r\nContent-Length: 0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nETag: "1"\nContent-Length: 0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nETag: "\0"\r\nContent-Length: 0\r\n\r\n',
        b'HTTP/1.0 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9,
        b"SSH-2.0-OpenSSH\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
    ids=[
        "more than announced", "a header twice", "no header", "a blank after a name", "a bare line feed", "a NUL",
        "HTTP/1.0", "a sign", "a length of many digits", "another protocol", "hints without an end", "no HTTP",
        "no chunk",
    ],
)  # fmt: skip
def test_what_is_not_an_answer_is_left_to_boto3(speaking: Callable[[Speak], Talk], answer: bytes) -> None:
    talk = speaking(always(answer))

    with pytest.raises(AskedBoto3):  # what it makes of the answer is its own affair
        talk.put()


def test_a_server_that_is_not_understood_is_spared_the_short_way(talk: Talk) -> None:
    twice = Answer(200, headers={"ETag": '"1"', "etag": '"2"'})
    talk.proxy.answer(by_wire, twice, times=99)

    for _ in range(5):
        talk.put()

    assert talk.senders == ["wire", "boto3"] * 3 + ["boto3"] * 2


# -- what is kept between requests
def test_a_connection_that_ended_while_it_was_idle_is_not_used(
    speaking: Callable[[Speak], Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_backends.s3_wire._FRESH_SECONDS", 0.0)
    talk = speaking(_confirm_and_leave)

    talk.put()
    until_something_came(talk.wire)
    talk.put()


def test_a_connection_that_ended_a_moment_ago_costs_a_request_of_boto3(
    speaking: Callable[[Speak], Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_backends.s3_wire._FRESH_SECONDS", 60.0)
    talk = speaking(_confirm_and_leave)

    talk.put()
    until_something_came(talk.wire)

    with pytest.raises(AskedBoto3):
        talk.put()


def _confirm_and_leave(sock: socket.socket, headers: Mapping[str, str]) -> None:
    confirming(sock, headers)
    sock.shutdown(socket.SHUT_RDWR)


def test_an_answer_that_nobody_asked_for_confirms_no_other_object(
    speaking: Callable[[Speak], Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_backends.s3_wire._FRESH_SECONDS", 60.0)
    first_was_read = threading.Event()

    def speak(sock: socket.socket, headers: Mapping[str, str]) -> None:
        if first_was_read.is_set():
            return
        confirming(sock, headers)
        assert first_was_read.wait(10)
        confirming(sock, headers)

    talk = speaking(speak)
    data_path = S3DataPath(lambda: talk.wire, talk.bucket, Checksum.AUTO)
    data_path.put("key", b"one", crc32c_of(b"one"), {})
    first_was_read.set()
    until_something_came(talk.wire)

    with pytest.raises(ChecksumRejected):
        data_path.put("key", b"two", crc32c_of(b"two"), {})


def test_each_request_is_signed_for_its_own_time_and_credentials(
    speaking: Callable[[Speak], Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Mapping[str, str]] = []

    def speak(sock: socket.socket, headers: Mapping[str, str]) -> None:
        sent.append(headers)
        confirming(sock, headers)

    talk = speaking(speak)
    clock = SimpleNamespace(**{name: getattr(time, name) for name in ("gmtime", "monotonic", "strftime")})
    monkeypatch.setattr("storage_backends.s3_wire.time", clock)
    times_and_secrets = [(0.0, "a"), (0.9, "a"), (1.0, "a"), (1.0, "b"), (86_401.0, "b")]
    for now, secret in times_and_secrets:
        clock.time = lambda now=now: now
        talk.credentials.secret_key = secret
        talk.put()
    talk.credentials.token = "t"
    talk.put()

    assert [headers["x-amz-date"] for headers in sent] == [
        *["19700101T000000Z"] * 2,
        *["19700101T000001Z"] * 2,
        *["19700102T000001Z"] * 2,
    ]
    assert [headers.get("x-amz-security-token") for headers in sent] == [None] * 5 + ["t"]
    signatures = [headers["authorization"] for headers in sent]
    assert signatures[0] == signatures[1]
    assert len(set(signatures)) == 5

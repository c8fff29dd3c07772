"""The short way for bytes to S3: signed as botocore signs, taken only where boto3 would do nothing more, and never the
judge of what went wrong."""

from __future__ import annotations

import calendar
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
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

from storage_backends.s3_wire import S3Wire, _Signer
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server

LEAN = Config(s3={"payload_signing_enabled": False}, request_checksum_calculation="when_required")
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
UNICODE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
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


class Talk:
    def __init__(self, server: S3Server, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.bucket = server.new_bucket()
        self.client = client_of(f"http://127.0.0.1:{proxy.port}")
        self.wire = wire_of(self.client, self.bucket)
        self._server = server

    def put(self, data: bytes | memoryview = b"bytes") -> str:
        return str(self.wire.put_object(Bucket=self.bucket, Key="key", Body=data)["ETag"])

    def stored(self) -> bytes:
        with contextlib.closing(self._server.client()) as client:
            return client.get_object(Bucket=self.bucket, Key="key")["Body"].read()

    @property
    def senders(self) -> list[str]:
        return ["boto3" if by_boto3(call) else "wire" for call in self.proxy.calls]


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
def test_a_request_is_signed_as_botocore_signs_it(
    key: str, upload_id: str, metadata: str, token: str | None
) -> None:
    path, query = (
        f"/bucket/{quote(key, safe='/-._~')}",
        f"partNumber=7&uploadId={quote(upload_id, safe='-._~')}",
    )
    headers = {"content-type": "video/mp4", "x-amz-meta-one": metadata, "x-amz-checksum-crc32c": "AAAAAA=="}
    theirs = AWSRequest("PUT", f"https://example.com{path}?{query}", dict(headers))
    theirs.context["payload_signing_enabled"] = False
    theirs.context["client_config"] = LEAN
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "s3", "eu-west-1").add_auth(theirs)
    now = calendar.timegm(time.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))

    ours = {**headers, "host": "example.com"}
    frozen = ReadOnlyCredentials(ACCESS_KEY, SECRET_KEY, token)
    _Signer().sign(path, query, ours, frozen, "eu-west-1", now)

    assert ours["authorization"] == theirs.headers["Authorization"]


def test_a_signing_key_is_made_anew_for_another_day_region_or_secret() -> None:
    signer, made = _Signer(), set()
    for secret, region, now in [("a", "r", 0), ("b", "r", 0), ("b", "s", 0), ("b", "s", 86_400)]:
        headers = {"host": "example.com"}
        signer.sign("/k", "", headers, ReadOnlyCredentials("id", secret, None), region, now)
        made.add(headers["authorization"].rpartition("=")[2])

    assert len(made) == 4


def test_a_server_that_checks_signatures_takes_ours(rclone_server: S3Server) -> None:
    bucket = rclone_server.new_bucket()
    with contextlib.closing(client_of(rclone_server.endpoint_url)) as client:
        wire = wire_of(client, bucket)
        wire.put_object(
            Bucket=bucket, Key="a b/ü+%~.ts", Body=b"bytes", ContentType="video/mp2t", Metadata={"a": "b c"}
        )

        assert wire.direct
        assert client.get_object(Bucket=bucket, Key="a b/ü+%~.ts")["Body"].read() == b"bytes"
        wire.close()


def test_a_server_that_checks_signatures_refuses_another_secret(rclone_server: S3Server) -> None:
    bucket = rclone_server.new_bucket()
    with contextlib.closing(client_of(rclone_server.endpoint_url)) as client:
        wire = wire_of(client, bucket, secret="not the secret")
        assert wire.direct

        wire.put_object(Bucket=bucket, Key="key", Body=b"by boto3, in the end")
        wire.put_object(Bucket=bucket, Key="key", Body=b"by boto3, in the end")
        wire.put_object(Bucket=bucket, Key="key", Body=b"by boto3, in the end")

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
        endpoint = S3Wire(client, Credentials(ACCESS_KEY, SECRET_KEY), "some-bucket")._endpoint

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


def test_an_argument_that_is_not_known_here_is_left_to_boto3(talk: Talk) -> None:
    talk.wire.put_object(Bucket=talk.bucket, Key="key", Body=b"bytes", CacheControl="no-store")
    talk.wire.put_object(Bucket=talk.bucket, Key="key", Body=b"bytes", Metadata={"a": "two  blanks"})

    assert talk.senders == ["boto3", "boto3"]


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
@pytest.fixture
def answering() -> Iterator[Callable[[bytes], Talk]]:
    """A server that answers every request with the given bytes and keeps the connection."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes) -> Talk:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_answer_all, args=(listener, answer), daemon=True)
            thread.start()
            client = client_of(f"http://127.0.0.1:{listener.getsockname()[1]}")
            talk = Talk.__new__(Talk)
            talk.client, talk.bucket, talk.wire = client, "bucket", wire_of(client, "bucket")
            stack.callback(thread.join, 10)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            stack.callback(client.close)
            stack.callback(talk.wire.close)
            return talk

        yield start


def _answer_all(listener: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            with sock, sock.makefile("rb") as lines:
                while lines.readline():
                    length = 0
                    while (line := lines.readline().lower()) not in (b"\r\n", b""):
                        if line.startswith(b"content-length:"):
                            length = int(line.partition(b":")[2])
                    lines.read(length)
                    sock.sendall(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n<Error><Code>AccessDenied</Code></Error>",
        (
            b"HTTP/1.1 403 \r\ntransfer-encoding: chunked\r\n\r\n1C;x=y\r\n<Error><Code>AccessDenied</C\r\n"
            b"C\r\node></Error>\r\n0\r\n\r\n"
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n"
            b"<Error><Code>AccessDenied</Code></Error>"
        ),
    ],
    ids=["a length", "chunks", "an informational answer first"],
)
def test_an_error_is_read_however_it_is_framed(answering: Callable[[bytes], Talk], answer: bytes) -> None:
    talk = answering(answer)

    for _ in range(2):
        with pytest.raises(ClientError, match="AccessDenied"):
            talk.put()


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nETag: "2"\r\nContent-Length: 0\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
    ids=["more than announced", "a header twice", "no header", "no HTTP", "no chunk"],
)
def test_what_is_not_an_answer_is_left_to_boto3(answering: Callable[[bytes], Talk], answer: bytes) -> None:
    talk = answering(answer)

    def asked(**_: object) -> None:
        raise AskedBoto3

    talk.client.meta.events.register_first("before-send.s3.PutObject", asked)

    with pytest.raises(AskedBoto3):  # what it makes of the answer is its own affair
        talk.put()

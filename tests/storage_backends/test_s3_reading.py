"""Reads of S3 objects: over our own client, and by boto3 where that corrects our request, every response is the bytes
asked for or an error."""

from __future__ import annotations

import calendar
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.core.upkeep.limited_reads import limited
from archiver.http import waiting
from archiver.limits.rate_limit import RateLimit
from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectCold,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)
from storage_backends.s3 import S3Backend, S3Settings
from storage_backends.s3.reading import RangeReading
from storage_backends.s3.requests import _CORRECTIONS
from storage_backends.s3.signing import Endpoint, RequestTemplate
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server

KEY = object_key("recordings/one.mp4")
DATA = b"0123456789"
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
UNICODE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def is_read(call: Call) -> bool:
    return call.method == "GET"


def by_us(call: Call) -> bool:
    return "amz-sdk-invocation-id" not in call.headers


def senders(proxy: FaultProxy) -> list[str]:
    return ["ours" if by_us(call) else "boto3" for call in proxy.calls if is_read(call)]


def leave_to_boto3(store: S3Backend) -> None:
    store._bucket.connection.get().reads._corrections = _CORRECTIONS


def error(status: int, code: str) -> Answer:
    return Answer(status, f"<Error><Code>{code}</Code></Error>".encode())


@pytest.fixture
def proxy(ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    port = urlsplit(ministack_server.endpoint_url).port
    assert port is not None
    for name, value in ministack_server.env.items():
        monkeypatch.setenv(name, value)
    with fault_proxy(port) as proxy:
        yield proxy


@pytest.fixture
def store(
    proxy: FaultProxy, ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Backend]:
    """It holds DATA at KEY, and attempts a read twice, at once."""
    monkeypatch.setattr("storage_backends.s3.bucket.random.uniform", lambda *_: 0.0)
    endpoint = f"http://127.0.0.1:{proxy.port}"
    with contextlib.closing(
        S3Backend(S3Settings(ministack_server.new_bucket(), "", endpoint, attempts=2))
    ) as store:
        store.put(ObjectSpec(KEY, "video/mp4"), DATA, crc32c_of(DATA))
        yield store


# -- requests ------------------------------------------------------------------------------------------------
@settings(deadline=None)  # green on a busy machine
@given(
    key=UNICODE, start=st.integers(0, 2**40), length=st.none() | st.integers(1, 2**40), token=st.none() | TEXT
)
def test_a_read_is_signed_as_botocore_signs_it(
    key: str, start: int, length: int | None, token: str | None
) -> None:
    path = f"/bucket/{quote(key, safe='/-._~')}"
    asked = RangeReading(start, length).range
    headers = {"range": asked, "if-match": '"one"', "x-amz-request-payer": "requester"}
    theirs = AWSRequest("GET", f"https://example.com{path}", headers)
    theirs.context["client_config"] = Config(s3={"payload_signing_enabled": True})
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "s3", "eu-west-1").add_auth(theirs)

    ours = RequestTemplate(
        Endpoint("https://example.com", "example.com", "/bucket/", "eu-west-1", "me", ""),
        "GET",
        calendar.timegm(time.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")),
        ReadOnlyCredentials(ACCESS_KEY, SECRET_KEY, token),
        "Range",
        (("IfMatch", '"one"'), ("RequestPayer", "requester")),
        (),
    ).request(key, "", asked, hashlib.sha256().hexdigest())

    assert (ours.method, ours.url, ours.body) == ("GET", f"https://example.com{path}", None)
    sent = dict(line.decode("ascii").split(": ", 1) for line in ours.lines)
    assert sent == {name.lower(): value for name, value in theirs.headers.items()}


@pytest.mark.parametrize("option", ["VersionId", "PartNumber", "ChecksumMode", "UploadId"])
def test_an_option_that_a_read_cannot_carry_fails(option: str, store: S3Backend, proxy: FaultProxy) -> None:
    request = {**store._bucket.address(KEY), option: "x"}
    reads = store._bucket.connection.get().reads

    with pytest.raises(StorageError, match=option):
        waiting.complete(reads.get_object(request, RangeReading(0, 1)))

    assert senders(proxy) == []


def test_a_server_that_checks_signatures_takes_our_reads(rclone_server: S3Server) -> None:
    port = urlsplit(rclone_server.endpoint_url).port
    assert port is not None
    key = object_key("a b/ü+%~.ts")
    with fault_proxy(port) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in rclone_server.env.items():
            patch.setenv(name, value)
        endpoint = f"http://127.0.0.1:{proxy.port}"
        with contextlib.closing(S3Backend(S3Settings(rclone_server.new_bucket(), "", endpoint))) as store:
            store.put(ObjectSpec(key, "video/mp4"), DATA, crc32c_of(DATA))

            assert store.read(key) == DATA
            assert store.read(key, 4, 2) == b"45"
            assert store.read(key, 4, 99) == b"456789"

        assert senders(proxy) == ["ours"] * 3


def test_a_wrapped_store_reads_over_our_client_and_is_limited(store: S3Backend, proxy: FaultProxy) -> None:
    waited: list[float] = []
    limit = RateLimit("scrub", lambda: 1.0, lambda _name, amount, _rate: amount, monotonic=lambda: 0.0)
    [wrapped] = limited([store], limit, waited.append)

    assert wrapped.read(KEY, 4, 2) == b"45"

    assert senders(proxy) == ["ours"]
    assert waited == [2.0]


# -- responses -----------------------------------------------------------------------------------------------
WRONG = {
    "another range": Answer(206, b"01", {"Content-Range": "bytes 0-1/10"}),
    "fewer bytes than asked for": Answer(206, b"4", {"Content-Range": "bytes 4-4/10"}),
    "more bytes than asked for": Answer(206, b"456", {"Content-Range": "bytes 4-6/10"}),
    "fewer bytes than announced": Answer(206, b"4", {"Content-Range": "bytes 4-5/10"}),
    "more bytes than announced": Answer(206, b"456", {"Content-Range": "bytes 4-5/10"}),
    "fewer bytes of an unknown size": Answer(206, b"4", {"Content-Range": "bytes 4-4/*"}),
    "a range without its place": Answer(206, b"45"),
    "a range that is none": Answer(206, b"45", {"Content-Range": "bytes 4-/10"}),
    "a range beyond the end": Answer(206, b"45", {"Content-Range": "bytes 4-5/5"}),
}


@pytest.mark.parametrize("sender", ["ours", "boto3"])
@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_bytes_that_were_not_asked_for_are_an_error(
    answer: Answer, sender: str, store: S3Backend, proxy: FaultProxy
) -> None:
    if sender == "boto3":
        leave_to_boto3(store)
    proxy.answer(is_read, answer, times=9)

    with pytest.raises(TransientStorageError, match=r"recordings/one\.mp4"):
        store.read(KEY, 4, 2)

    assert senders(proxy) == [sender] * 2, "attempted again"


@pytest.mark.parametrize("sender", ["ours", "boto3"])
@pytest.mark.parametrize(
    ("start", "length", "expected"), [(4, 2, b"45"), (0, None, DATA), (8, None, b"89"), (20, 5, b"")]
)
def test_out_of_a_whole_object_the_range_is_picked(
    start: int, length: int | None, expected: bytes, sender: str, store: S3Backend, proxy: FaultProxy
) -> None:
    if sender == "boto3":
        leave_to_boto3(store)
    proxy.answer(is_read, Answer(200, DATA), times=9)

    assert store.read(KEY, start, length) == expected
    assert senders(proxy) == [sender]


def test_a_range_of_an_object_of_unknown_size_is_read_when_it_is_all_that_was_asked_for(
    store: S3Backend, proxy: FaultProxy
) -> None:
    proxy.answer(is_read, Answer(206, b"45", {"Content-Range": "bytes 4-5/*"}))

    assert store.read(KEY, 4, 2) == b"45"


def test_a_body_that_is_cut_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_backends.s3.bucket.random.uniform", lambda *_: 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    head = (
        b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"
    )
    with (
        answering([head + b"012", head + DATA]) as (endpoint, asked),
        contextlib.closing(S3Backend(S3Settings("bucket", "", endpoint, attempts=2))) as store,
    ):
        assert store.read(KEY) == DATA

    assert len(asked) == 2


@contextlib.contextmanager
def answering(answers: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each connection once, and closes it. Yields its address, and what it was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            sock, _ = listener.accept()
            with sock:
                asked.append(sock.recv(65536))
                sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(10)


# -- errors --------------------------------------------------------------------------------------------------
def test_another_object_at_the_key_is_a_change(store: S3Backend, proxy: FaultProxy) -> None:
    with pytest.raises(ObjectChanged):
        store.read(KEY, 0, 2, if_match='"another"')

    (call,) = (call for call in proxy.calls if is_read(call))
    assert call.headers["if-match"] == '"another"'


def test_another_object_at_the_key_is_a_change_where_the_condition_is_ignored(
    store: S3Backend, proxy: FaultProxy
) -> None:
    proxy.answer(is_read, Answer(200, DATA, {"ETag": '"one"'}))

    with pytest.raises(ObjectChanged):
        store.read(KEY, 0, 2, if_match='"another"')


def test_beyond_its_end_an_object_has_no_bytes(store: S3Backend, proxy: FaultProxy) -> None:
    info = store.stat(KEY)
    assert info is not None

    assert store.read(KEY, 10, 5) == b""
    assert store.read(KEY, 99) == b""
    assert store.read(KEY, 10, 5, if_match=info.etag) == b""
    assert senders(proxy) == ["ours"] * 3


def test_an_empty_object_is_read(store: S3Backend) -> None:
    store.put(ObjectSpec(KEY, "video/mp4"), b"", crc32c_of(b""))

    assert store.read(KEY) == store.read(KEY, 0, 5) == b""


def test_a_denial_of_bytes_that_are_there_is_an_error(store: S3Backend, proxy: FaultProxy) -> None:
    proxy.answer(is_read, error(416, "InvalidRange"), times=9)

    with pytest.raises(TransientStorageError, match="of 10"):
        store.read(KEY, 4, 2)


@pytest.mark.parametrize(
    ("answer", "kind", "attempts"),
    [
        (error(403, "InvalidObjectState"), ObjectCold, 1),
        (error(403, "AccessDenied"), AccessDenied, 1),
        (error(404, "NoSuchKey"), ObjectMissing, 1),
        (error(503, "SlowDown"), TransientStorageError, 2),
        (Answer(204), TransientStorageError, 1),
        (Answer(200, b"<html>please log in</html>", {"Content-Range": "none"}), TransientStorageError, 2),
    ],
    ids=["cold", "denied", "missing", "overloaded", "a success without an object", "a portal"],
)
def test_a_refusal_is_told_as_what_it_is(
    answer: Answer, kind: type[StorageError], attempts: int, store: S3Backend, proxy: FaultProxy
) -> None:
    proxy.answer(is_read, answer, times=9)

    with pytest.raises(kind) as raised:
        store.read(KEY)

    assert type(raised.value) is kind
    assert senders(proxy) == ["ours"] * attempts


def test_an_overloaded_server_is_asked_again(store: S3Backend, proxy: FaultProxy) -> None:
    proxy.answer(is_read, error(503, "SlowDown"))

    assert store.read(KEY) == DATA


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "AuthorizationHeaderMalformed"])
def test_what_boto3_knows_how_to_correct_is_read_by_it_once(
    code: str, store: S3Backend, proxy: FaultProxy
) -> None:
    proxy.answer(lambda call: is_read(call) and by_us(call), error(400, code))

    assert store.read(KEY, 4, 2) == b"45"
    assert store.read(KEY, 4, 2) == b"45"
    assert senders(proxy) == ["ours", "boto3", "ours"]


def test_credentials_that_stay_expired_are_a_refusal(store: S3Backend, proxy: FaultProxy) -> None:
    proxy.answer(is_read, error(400, "ExpiredToken"), times=99)

    with pytest.raises(AccessDenied, match="ExpiredToken"):
        store.read(KEY)

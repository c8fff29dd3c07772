"""Roles of an s3:// destination, assumed at moto's STS. moto gives temporary credentials and does not look at whether
the caller may have them; what is asked for is seen by a proxy in front of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from structlog.testing import capture_logs

from storage_backends.base import ObjectSpec, StorageBackend, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import AccessDenied
from storage_backends.registry import open_destination
from storage_backends.s3 import S3Backend
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy
from tests.servers import ACCESS_KEY, S3Server

KEY = object_key("recordings/movie.mp4")
READER, WRITER = (f"arn:aws:iam::123456789012:role/{name}" for name in ("reader", "writer"))


@pytest.fixture
def proxy(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    port = urlsplit(moto_server.endpoint_url).port
    assert port is not None
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)
    with fault_proxy(port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{proxy.port}")
        yield proxy


@contextlib.contextmanager
def opened(proxy: FaultProxy, bucket: str, **options: str) -> Iterator[StorageBackend]:
    url = S3Server(f"http://127.0.0.1:{proxy.port}").url(bucket, "pre", **options)
    with contextlib.closing(open_destination(url)) as store:
        yield store


def use(store: StorageBackend) -> None:
    store.put(ObjectSpec(KEY, "video/mp4"), b"movie", crc32c_of(b"movie"))
    assert store.read(KEY) == b"movie"
    assert store.stat(KEY) is not None
    upload = store.begin(ObjectSpec(KEY, "video/mp4", part_bytes=5 * 2**20))
    upload.complete([upload.put_part(1, b"other", crc32c_of(b"other"))], crc32c_of(b"other"))
    store.delete(KEY)


def asked(proxy: FaultProxy) -> list[dict[str, str]]:
    """The requests of the STS."""
    forms = [parse_qs(call.body.decode()) for call in proxy.calls if is_sts(call)]
    return [{name: values[0] for name, values in form.items()} for form in forms]


def is_sts(call: Call) -> bool:
    return call.method == "POST" and call.path == "/"


def key_of(call: Call) -> str:
    return call.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def test_a_role_is_assumed_once_and_used_for_everything(proxy: FaultProxy, moto_server: S3Server) -> None:
    options = {"role_arn": WRITER, "role_session_name": "team-a", "external_id": "e-1"}
    with capture_logs() as logs, opened(proxy, moto_server.new_bucket(), **options) as store:
        use(store)

    assert [form["Action"] for form in asked(proxy)] == ["AssumeRole"]
    assert (
        asked(proxy)[0] | {"RoleArn": WRITER, "RoleSessionName": "team-a", "ExternalId": "e-1"}
        == asked(proxy)[0]
    )
    used = {key_of(call) for call in proxy.calls if not is_sts(call)}
    assert len(used) == 1
    assert ACCESS_KEY not in used
    assert "s3_sent_by_boto3" not in [entry["event"] for entry in logs]
    puts = [call for call in proxy.calls if call.method == "PUT"]
    assert all("amz-sdk-invocation-id" not in call.headers for call in puts), "sent by us"
    assert all("x-amz-security-token" in call.headers for call in puts)


def test_a_web_identity_needs_no_credentials(
    proxy: FaultProxy, moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto_server.new_bucket()
    (tmp_path / "token").write_text("an.oidc.token")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with opened(proxy, bucket, role_arn=WRITER, web_identity_file=str(tmp_path / "token")) as store:
        use(store)

    assert [(form["Action"], form["WebIdentityToken"]) for form in asked(proxy)] == [
        ("AssumeRoleWithWebIdentity", "an.oidc.token")
    ]


def test_reads_and_writes_have_roles_of_their_own(proxy: FaultProxy, moto_server: S3Server) -> None:
    bucket = moto_server.new_bucket()
    with opened(proxy, bucket, read_role_arn=READER, write_role_arn=WRITER) as store:
        use(store)
        list(store.list())

    assert {form["RoleArn"] for form in asked(proxy)} == {READER, WRITER}
    by = {"reads": set(), "writes": set()}  # type: dict[str, set[str]]
    for call in proxy.calls:
        if not is_sts(call):
            by["reads" if call.method in ("GET", "HEAD") else "writes"].add(key_of(call))
    assert len(by["reads"]) == len(by["writes"]) == 1
    assert by["reads"] != by["writes"]
    (read,) = (call for call in proxy.calls if call.method == "GET" and "list-type" not in call.path)
    assert "amz-sdk-invocation-id" not in read.headers, "sent by us"
    assert "x-amz-security-token" in read.headers


def test_a_signed_url_is_that_of_the_role_that_reads(proxy: FaultProxy, moto_server: S3Server) -> None:
    bucket = moto_server.new_bucket()
    with opened(proxy, bucket, read_role_arn=READER, write_role_arn=WRITER) as store:
        store.put(ObjectSpec(KEY, "video/mp4"), b"movie", crc32c_of(b"movie"))
        assert isinstance(store, S3Backend)
        url = store.signed_url(KEY, timedelta(minutes=5))
        with urlopen(url, timeout=10) as answer:
            assert answer.read() == b"movie"

    query = parse_qs(urlsplit(url).query)
    assert "X-Amz-Security-Token" in query
    assert not query["X-Amz-Credential"][0].startswith(ACCESS_KEY)


def test_a_role_for_writes_alone_reads_with_the_credentials_of_the_sdk(
    proxy: FaultProxy, moto_server: S3Server
) -> None:
    with opened(proxy, moto_server.new_bucket(), write_role_arn=WRITER) as store:
        use(store)

    reads = {key_of(call) for call in proxy.calls if call.method in ("GET", "HEAD")}
    assert reads == {ACCESS_KEY}
    assert [form["RoleArn"] for form in asked(proxy)] == [WRITER]


def test_credentials_that_are_about_to_expire_are_renewed_and_each_request_has_valid_ones(
    proxy: FaultProxy, moto_server: S3Server
) -> None:
    """boto3 renews what lasts less than ten minutes before it is used."""
    soon = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()

    def expires_soon(answer: Answer) -> Answer:
        body = re.sub(
            b"<Expiration>[^<]*</Expiration>", b"<Expiration>" + soon + b"</Expiration>", answer.body
        )
        return replace(answer, body=body)

    proxy.change(is_sts, expires_soon)
    with opened(proxy, moto_server.new_bucket(), role_arn=WRITER) as store:
        for number in range(3):
            key = object_key(f"recordings/{number}.mp4")
            store.put(ObjectSpec(key, "video/mp4"), b"movie", crc32c_of(b"movie"))

            assert store.read(key) == b"movie"

    for method in ("PUT", "GET"):
        calls = [call for call in proxy.calls if call.method == method]
        assert len(calls) == 3
        assert len({key_of(call) for call in calls}) == 3
    assert len(asked(proxy)) >= 6


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredTokenException", "InvalidIdentityToken"])
def test_a_role_that_may_not_be_assumed_is_a_refusal(
    code: str, proxy: FaultProxy, moto_server: S3Server
) -> None:
    refusal = f"<ErrorResponse><Error><Code>{code}</Code><Message>not you</Message></Error></ErrorResponse>"
    proxy.answer(is_sts, Answer(403, refusal.encode()), times=9)
    with (
        opened(proxy, moto_server.new_bucket(), role_arn=WRITER) as store,
        pytest.raises(AccessDenied, match=f"{code}|assum") as error,
    ):
        store.stat(KEY)

    assert "token" not in str(error.value).lower().replace("expiredtokenexception", "").replace(
        "invalididentitytoken", ""
    )


def test_a_web_identity_file_that_is_missing_is_a_refusal(
    proxy: FaultProxy, moto_server: S3Server, tmp_path: Path
) -> None:
    options = {"role_arn": WRITER, "web_identity_file": str(tmp_path / "none")}
    with (
        opened(proxy, moto_server.new_bucket(), **options) as store,
        pytest.raises(AccessDenied, match="no usable AWS credentials"),
    ):
        store.stat(KEY)

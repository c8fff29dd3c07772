"""Each option of an s3:// destination is in the requests that need it, and those are ours: none falls back to boto3's
slow path, and none is left out silently."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from archiver.http import waiting
from storage_backends.base import ObjectSpec, StorageBackend, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import BadDestinationUrl
from storage_backends.optional import locks_of, sends_of, sends_parts_of
from storage_backends.registry import open_destination
from storage_backends.s3 import S3Backend
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.settings import OPTIONS, S3Settings
from tests.fault_proxy import Call, FaultProxy, fault_proxy
from tests.servers import S3Server

KEY = object_key("recordings/movie.mp4")
LABELS = {"room": "r 1é", "session": "s1", "type": "room-composite"}
PART = b"p" * (5 * 2**20)
ROLE = "arn:aws:iam::123456789012:role/archiver"
CONTEXT = base64.b64encode(json.dumps({"a": "b", "c": "d"}).encode()).decode()


@dataclass(frozen=True)
class Sent:
    """`options`: of the URL. `new`: headers of a PUT of media, and of the request that begins an upload. `every`: of
    each request about an object as well."""

    options: Mapping[str, str]
    new: Mapping[str, str] = field(default_factory=dict)
    every: Mapping[str, str] = field(default_factory=dict)


KMS = {"encryption": "aws:kms", "kms_key_id": "alias/archive"}  # ministack requires a key id
SENT = {
    "encryption": Sent({"encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
    "kms_key_id": Sent(
        KMS,
        {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "alias/archive",
        },
    ),
    "kms_context": Sent(KMS | {"kms_context": "a=b;c=d"}, {"x-amz-server-side-encryption-context": CONTEXT}),
    "bucket_key": Sent(
        KMS | {"bucket_key": "true"}, {"x-amz-server-side-encryption-bucket-key-enabled": "true"}
    ),
    "storage_class": Sent({"storage_class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}),
    "tags": Sent(
        {"tags": "room;type;asset;team=a/b"}, {"x-amz-tagging": "team=a%2Fb&room=r+1_&type=room-composite"}
    ),
    "metadata": Sent(
        {"metadata": "session;team=video"}, {"x-amz-meta-session": "s1", "x-amz-meta-team": "video"}
    ),
    "acl": Sent({"acl": "bucket-owner-full-control"}, {"x-amz-acl": "bucket-owner-full-control"}),
    "request_payer": Sent({"request_payer": "requester"}, every={"x-amz-request-payer": "requester"}),
}
ELSEWHERE = {
    "endpoint_url": "where requests go: all tests here",
    "region": "test_s3_requests.py",
    "addressing_style": "test_the_addressing_style_is_that_of_the_setting",
    "checksum": "test_the_checksum_is_that_of_the_setting",
    "lock_mode": "test_a_lock_begins_when_it_is_asked_for_and_not_before",
    "lock_days": "test_a_lock_begins_when_it_is_asked_for_and_not_before",
    "role_arn": "test_s3_roles.py",
    "read_role_arn": "test_s3_roles.py",
    "write_role_arn": "test_s3_roles.py",
    "role_session_name": "test_s3_roles.py",
    "external_id": "test_s3_roles.py",
    "web_identity_file": "test_s3_roles.py",
    "batch_role_arn": "test_s3_at_rest.py",
}
"""Options that are no header of an upload, and what tests them."""


def test_every_option_is_tested_here_or_elsewhere() -> None:
    assert {*SENT, *ELSEWHERE} == set(OPTIONS)
    assert not SENT.keys() & ELSEWHERE.keys()


@pytest.fixture
def proxy(ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    for name, value in ministack_server.env.items():
        monkeypatch.setenv(name, value)
    port = urlsplit(ministack_server.endpoint_url).port
    assert port is not None
    with fault_proxy(port) as proxy:
        yield proxy


@contextlib.contextmanager
def opened(proxy: FaultProxy, bucket: str, **options: str) -> Iterator[StorageBackend]:
    url = S3Server(f"http://127.0.0.1:{proxy.port}").url(bucket, "pre", **options)
    with contextlib.closing(open_destination(url)) as store:
        yield store


def put(
    store: StorageBackend, *, media: bool = True, data: bytes = b"movie", if_absent: bool = False
) -> None:
    spec = ObjectSpec(KEY, "video/mp4", media=media, labels=LABELS if media else {}, if_absent=if_absent)
    store.put(spec, data, crc32c_of(data))


def upload(store: StorageBackend) -> None:
    begun = store.begin(ObjectSpec(KEY, "video/mp4", len(PART), len(PART), media=True, labels=LABELS))
    begun.complete([begun.put_part(1, PART, crc32c_of(PART))], crc32c_of(PART))


def by_us(call: Call) -> bool:
    return "amz-sdk-invocation-id" not in call.headers


def headers_of(call: Call, like: Mapping[str, str]) -> dict[str, str]:
    return {name: call.headers[name] for name in like if name in call.headers}


@pytest.mark.parametrize("option", SENT)
def test_an_option_is_in_a_put_and_in_an_upload_sent_by_us(
    option: str, proxy: FaultProxy, ministack_server: S3Server
) -> None:
    sent = SENT[option]
    with capture_logs() as logs, opened(proxy, ministack_server.new_bucket(), **sent.options) as store:
        put(store, if_absent=True)
        store.delete(KEY)
        put(store)
        before = len(proxy.calls)
        upload(store)
    puts = [call for call in proxy.calls[:before] if call.method == "PUT"]
    of_upload = proxy.calls[before:]
    begins = [call for call in of_upload if call.method == "POST" and "uploads" in call.path]
    parts = [call for call in of_upload if call.method == "PUT"]

    assert len(puts) == 2
    assert len(begins) == len(parts) == 1
    expected = {**sent.new, **sent.every}
    assert [headers_of(call, expected) for call in puts + begins] == [expected] * 3
    assert headers_of(parts[0], sent.every) == sent.every
    assert all(map(by_us, puts + parts))
    assert "s3_sent_by_boto3" not in [entry["event"] for entry in logs]


@pytest.mark.parametrize("option", ["storage_class", "tags"])
def test_a_record_has_neither_class_nor_labels(
    option: str, proxy: FaultProxy, ministack_server: S3Server
) -> None:
    sent = SENT[option]
    with opened(proxy, ministack_server.new_bucket(), **sent.options) as store:
        put(store, media=False)

    found = headers_of(proxy.calls[0], sent.new)
    assert found == ({"x-amz-tagging": "team=a%2Fb"} if option == "tags" else {})


def test_a_requester_pays_for_every_request(proxy: FaultProxy, ministack_server: S3Server) -> None:
    with opened(proxy, ministack_server.new_bucket(), request_payer="requester") as store:
        put(store)
        store.stat(KEY)
        store.read(KEY)
        list(store.list())
        begun = store.begin(ObjectSpec(KEY, "video/mp4", len(PART), len(PART)))
        begun.put_part(1, PART, crc32c_of(PART))
        store.resume(begun.spec, begun.token)
        begun.abort()
        store.abort_stale_uploads(timedelta())  # type: ignore[attr-defined]
        store.delete(KEY)

    assert len(proxy.calls) >= 9
    without = [call for call in proxy.calls if call.headers.get("x-amz-request-payer") != "requester"]
    assert [(call.method, call.path) for call in without] == []


def test_an_option_is_sent_over_the_engines_path_too(proxy: FaultProxy, ministack_server: S3Server) -> None:
    options = {name: value for sent in SENT.values() for name, value in sent.options.items()}
    expected = {
        name: value for sent in SENT.values() for name, value in {**sent.new, **sent.every}.items()
    } | {"x-amz-server-side-encryption": "aws:kms"}
    with opened(proxy, ministack_server.new_bucket(), **options | KMS) as store:
        spec = ObjectSpec(KEY, "video/mp4", 5, len(PART), media=True, labels=LABELS)
        send = sends_of(store)
        assert send is not None
        waiting.complete(send.send(spec, b"movie", crc32c_of(b"movie")))
        begun = store.begin(spec)
        send_part = sends_parts_of(begun)
        assert send_part is not None
        waiting.complete(send_part.send_part(1, PART, crc32c_of(PART)))

    assert all(by_us(call) for call in proxy.calls if call.method == "PUT")
    assert headers_of(proxy.calls[0], expected) == expected


def test_a_copy_within_the_store_has_every_option(proxy: FaultProxy, ministack_server: S3Server) -> None:
    options = {name: value for sent in SENT.values() for name, value in sent.options.items()} | KMS
    expected = {name: value for sent in SENT.values() for name, value in {**sent.new, **sent.every}.items()}
    expected["x-amz-server-side-encryption"] = "aws:kms"
    with opened(proxy, ministack_server.new_bucket(), **options) as store:
        put(store)
        assert isinstance(store, S3Backend)
        spec = ObjectSpec(object_key("copy.mp4"), "video/mp4", 5, media=True, labels=LABELS)
        store.copy_from(store.place(), KEY, spec, crc32c_of(b"movie"))

    (copy,) = [call for call in proxy.calls if "x-amz-copy-source" in call.headers]
    assert headers_of(copy, expected) == expected


def test_all_headers_are_signed(proxy: FaultProxy, ministack_server: S3Server) -> None:
    options = {name: value for sent in SENT.values() for name, value in sent.options.items()} | KMS
    with opened(proxy, ministack_server.new_bucket(), **options) as store:
        put(store)

    headers = proxy.calls[0].headers
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {name for name in headers if name.startswith("x-amz-")} <= set(signed)


@pytest.mark.parametrize(
    ("style", "url"),
    [
        ("path", "https://s3.eu-west-1.amazonaws.com/archive-1/"),
        ("virtual", "https://archive-1.s3.eu-west-1.amazonaws.com/"),
    ],
)
def test_the_addressing_style_is_that_of_the_setting(
    style: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket = Bucket(S3Settings("archive-1", region="eu-west-1", addressing_style=style))
    made = bucket.connection.get()
    with contextlib.closing(made):
        endpoint = made.writes._endpoint  # nothing is sent

    assert endpoint is not None
    assert endpoint.origin + endpoint.path_before_key == url


@pytest.mark.parametrize(
    ("checksum", "header"), [("crc32c", "x-amz-checksum-crc32c"), ("md5", "content-md5")]
)
def test_the_checksum_is_that_of_the_setting(
    checksum: str, header: str, proxy: FaultProxy, ministack_server: S3Server
) -> None:
    with opened(proxy, ministack_server.new_bucket(), checksum=checksum) as store:
        put(store)
        upload(store)

    puts = [call for call in proxy.calls if call.method == "PUT"]
    assert len(puts) == 2
    assert all(header in call.headers and by_us(call) for call in puts)


# -- locks ---------------------------------------------------------------------------------------------------
def test_a_lock_begins_when_it_is_asked_for_and_not_before(
    proxy: FaultProxy, ministack_server: S3Server
) -> None:
    """On ministack for what is sent; test_s3_locks.py has what moto makes of it."""
    locks = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": ""}
    with (
        contextlib.closing(ministack_server.client()) as client,
        opened(proxy, bucket := "locked-1", lock_mode="GOVERNANCE", lock_days="30") as store,
    ):
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        put(store)
        upload(store)
        unlocked = [headers_of(call, locks) for call in proxy.calls]
        spec = ObjectSpec(KEY, "application/json", lock=True)
        store.put(spec, b"{}", crc32c_of(b"{}"))
        asked = proxy.calls[-1]
        able = locks_of(store)
        assert able is not None
        until = able.lock([KEY])

    assert unlocked == [{}] * len(unlocked)
    assert by_us(asked)
    assert asked.headers["x-amz-object-lock-mode"] == "GOVERNANCE"
    sent = datetime.fromisoformat(asked.headers["x-amz-object-lock-retain-until-date"])
    now = datetime.now(UTC)
    assert until is not None
    for moment in (sent, until):
        assert timedelta(days=30) - timedelta(minutes=5) < moment - now <= timedelta(days=30, seconds=1)
    assert "retention" in proxy.calls[-1].path


# -- bad values ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("storage_clas=GLACIER", "unknown option 'storage_clas'; did you mean storage_class?"),
        ("lockmode=COMPLIANCE", "did you mean lock_mode?"),
        ("storage_class=DEEPARCHIVE", "did you mean DEEP_ARCHIVE?"),
        ("storage_class=GLACIER&endpoint_url=http://h&acl=pubic-read", "did you mean public-read?"),
        ("kms_context=a=b", "kms_context goes with encryption=aws:kms"),
        ("encryption=aws:kms&kms_context=a", "kms_context is a list such as"),
        ("encryption=aws:kms&kms_context=a=b;a=c", "kms_context is a list such as"),
        ("encryption=AES256&bucket_key=true", "bucket_key goes with encryption=aws:kms"),
        ("encryption=aws:kms&bucket_key=yes", "bucket_key is one of true, false"),
        ("tags=rom", "there are only room, session, type, asset, not rom"),
        ("tags=room;room", "room is in it twice"),
        ("tags=aws:x=1", "a name in it cannot be used"),
        ("tags=a=%00", "the value of a has 1 to 256"),
        ("tags=" + ";".join(f"t{n}=1" for n in range(11)), "of at most 10"),
        ("metadata=Team=x", "a name in it cannot be used"),
        ("metadata=archiverupload=x", "a name in it cannot be used"),
        ("request_payer=me", "request_payer is one of requester"),
        ("lock_mode=COMPLIANCE", "lock_mode and lock_days go together"),
        ("lock_days=30", "lock_mode and lock_days go together"),
        ("lock_mode=COMPLIANCE&lock_days=0", "lock_days is a number of days"),
        ("lock_mode=COMPLIANCE&lock_days=99999", "lock_days is a number of days"),
        ("role_arn=archiver", "role_arn is the ARN of a role"),
        (f"role_arn={ROLE}&read_role_arn={ROLE}", "not both"),
        ("external_id=abc", "go with role_arn"),
        (f"role_arn={ROLE}&external_id=abc&web_identity_file=/token", "has no external_id"),
    ],
)
def test_a_bad_option_is_named(query: str, message: str) -> None:
    with pytest.raises(BadDestinationUrl) as error:
        open_destination(f"s3://bucket/prefix?{query}")

    assert message in str(error.value)
    assert str(error.value).startswith("destination s3://bucket/prefix")

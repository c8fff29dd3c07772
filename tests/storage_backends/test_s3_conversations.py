"""Failing exchanges with S3: lost responses, refused checksums, servers that do not do what they say. A real server
behind a proxy that spoils one response at a time."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from archiver.http import waiting
from storage_backends.base import ObjectInfo, ObjectSpec, Part, StorageBackend, Upload, object_key
from storage_backends.crc32c import crc32c_of, to_base64
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumRejected,
    DestinationFull,
    ObjectChanged,
    ObjectExists,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.registry import open_destination
from storage_backends.s3 import S3Backend, S3Settings
from tests.contracts.storage_contract import abort_stale_uploads, removes_stale_uploads
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy, without_headers
from tests.servers import S3Server

KEY = object_key("recordings/one.mp4")
PART_BYTES = 5 * 2**20
DATA = bytes(range(256)) * (PART_BYTES // 256) + b"the end"
CHECKSUM_HEADERS = ("x-amz-checksum-crc32c", "x-amz-checksum-type", "x-amz-checksum-algorithm")


class Conversation:
    """A store, the proxy in front of the server, and the bucket seen without either."""

    def __init__(self, server: S3Server, proxy: FaultProxy, bucket: str, options: dict[str, str]) -> None:
        self.proxy = proxy
        self.store = open_destination(S3Server(f"http://127.0.0.1:{proxy.port}").url(bucket, "", **options))
        self.bucket = bucket
        self.server = server

    def stored(self) -> bytes:
        with contextlib.closing(self.server.client()) as client:
            return client.get_object(Bucket=self.bucket, Key=KEY)["Body"].read()


Converse = Callable[..., Conversation]


@pytest.fixture
def converse(
    ministack_server: S3Server, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Converse]:
    """`converse(server="moto", **options of the URL)`; moto is the one with FULL_OBJECT, ministack the strict one."""
    for name, value in ministack_server.env.items():
        monkeypatch.setenv(name, value)
    with contextlib.ExitStack() as stack:

        def start(server: str = "ministack", *, attempts: int | None = None, **options: str) -> Conversation:
            behind = {"ministack": ministack_server, "moto": moto_server}[server]
            port = urlsplit(behind.endpoint_url).port
            assert port is not None
            proxy = stack.enter_context(fault_proxy(port))
            conversation = Conversation(behind, proxy, behind.new_bucket(), options)
            if attempts is not None:
                settings = S3Settings(
                    conversation.bucket, "", f"http://127.0.0.1:{proxy.port}", attempts=attempts
                )
                conversation.store = S3Backend(settings)
            stack.enter_context(contextlib.closing(conversation.store))
            return conversation

        yield start


def put(
    store: StorageBackend,
    data: bytes = b"hello",
    *,
    if_absent: bool = False,
    if_match: str | None = None,
) -> ObjectInfo:
    spec = ObjectSpec(KEY, "video/mp4", len(data), if_absent=if_absent, if_match=if_match)
    return store.put(spec, data, crc32c_of(data))


def etag_of(store: StorageBackend) -> str:
    info = store.stat(KEY)
    assert info is not None
    assert info.etag is not None
    return info.etag


def begin(store: StorageBackend, *, if_absent: bool = False) -> Upload:
    return store.begin(ObjectSpec(KEY, "video/mp4", len(DATA), PART_BYTES, if_absent=if_absent))


def put_parts(upload: Upload) -> list[Part]:
    pieces = [DATA[:PART_BYTES], DATA[PART_BYTES:]]
    return [upload.put_part(number, piece, crc32c_of(piece)) for number, piece in enumerate(pieces, start=1)]


def is_put(call: Call) -> bool:
    return call.method == "PUT" and "uploadId" not in call.path


def is_part(call: Call) -> bool:
    return call.method == "PUT" and "partNumber" in call.path


def is_create(call: Call) -> bool:
    return call.method == "POST" and call.path.endswith("?uploads")


def is_complete(call: Call) -> bool:
    return call.method == "POST" and "uploadId" in call.path


def having(header: str) -> Callable[[Call], bool]:
    return lambda call: any(name.lower() == header for name in call.headers)


has_crc32c = having("x-amz-checksum-crc32c")


def error(status: int, code: str, message: str = "no") -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Answer(status, body, {"Content-Type": "application/xml"})


# -- lost answers


def test_a_put_whose_answer_was_lost_is_done_once_more(converse: Converse) -> None:
    talk = converse()
    talk.proxy.lose_answer(is_put)

    put(talk.store)

    assert talk.stored() == b"hello"


def test_a_put_if_absent_whose_answer_was_lost_knows_its_own_object(converse: Converse) -> None:
    talk = converse()
    talk.proxy.lose_answer(is_put)

    put(talk.store, if_absent=True)

    assert talk.stored() == b"hello"
    assert [call.method for call in talk.proxy.calls].count("PUT") == 2


def test_a_part_whose_answer_was_lost_is_sent_once_more(converse: Converse) -> None:
    talk = converse()
    talk.proxy.lose_answer(is_part)
    upload = begin(talk.store)

    upload.complete(put_parts(upload), crc32c_of(DATA))

    assert talk.stored() == DATA


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_complete_whose_answer_was_lost_is_found_to_be_done(converse: Converse, if_absent: bool) -> None:
    talk = converse()
    upload = begin(talk.store, if_absent=if_absent)
    parts = put_parts(upload)
    talk.proxy.lose_answer(is_complete)
    talk.proxy.answer(is_complete, error(404, "NoSuchUpload"))  # what most servers say to the second attempt

    info = upload.complete(parts, crc32c_of(DATA))

    assert info.size_bytes == len(DATA)
    assert talk.stored() == DATA


def test_a_complete_if_absent_that_finds_its_own_object_is_no_conflict(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store, if_absent=True)
    parts = put_parts(upload)
    talk.proxy.replace(is_complete, error(412, "PreconditionFailed"))

    info = upload.complete(parts, crc32c_of(DATA))

    assert info.size_bytes == len(DATA)


def test_an_object_of_the_same_size_by_someone_else_is_not_ours(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store, if_absent=True)
    parts = put_parts(upload)
    put(talk.store, bytes(len(DATA)))
    talk.proxy.answer(is_complete, error(404, "NoSuchUpload"))

    with pytest.raises(ObjectExists):
        upload.complete(parts, crc32c_of(DATA))

    assert talk.stored() == bytes(len(DATA))


def test_another_worker_finds_the_upload_completed_whose_answer_was_lost(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store)
    parts = put_parts(upload)
    upload.complete(parts, crc32c_of(DATA))
    talk.proxy.answer(lambda call: "uploadId" in call.path, error(404, "NoSuchUpload"), times=9)

    resumed = talk.store.resume(upload.spec, upload.token)

    assert resumed.parts() is None
    assert resumed.complete(parts, crc32c_of(DATA)).size_bytes == len(DATA)


# -- an answer that is not what it seems


def test_a_complete_that_answers_200_with_an_error_is_not_success(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store)
    parts = put_parts(upload)
    talk.proxy.answer(is_complete, error(200, "InternalError"), times=9)

    with pytest.raises(TransientStorageError):
        upload.complete(parts, crc32c_of(DATA))

    assert talk.store.stat(KEY) is None


def test_a_complete_that_meets_another_write_restarts_the_upload(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store)
    parts = put_parts(upload)
    talk.proxy.answer(is_complete, error(409, "ConditionalRequestConflict"), times=9)

    with pytest.raises(UploadGone):
        upload.complete(parts, crc32c_of(DATA))


@pytest.mark.parametrize("method", ["PUT", "POST", "GET"])
def test_a_portal_that_answers_in_place_of_the_server_is_not_success(converse: Converse, method: str) -> None:
    talk = converse()
    portal = Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
    talk.proxy.answer(lambda call: call.method == method, portal, times=99)
    doing: dict[str, Callable[[], object]] = {
        "PUT": lambda: put(talk.store),
        "POST": lambda: begin(talk.store),
        "GET": lambda: list(talk.store.list()),
    }

    with pytest.raises(TransientStorageError):
        doing[method]()


def test_a_complete_answered_with_success_without_an_object_is_not_success(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store)
    parts = put_parts(upload)
    done = b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
    talk.proxy.answer(is_complete, Answer(200, done))

    with pytest.raises(TransientStorageError):
        upload.complete(parts, crc32c_of(DATA))


def test_a_range_that_was_not_requested_is_an_error(converse: Converse) -> None:
    talk = converse()
    put(talk.store, b"0123456789")
    other = Answer(206, b"01", {"Content-Range": "bytes 0-1/10"})
    talk.proxy.answer(lambda call: call.method == "GET", other, times=9)

    with pytest.raises(TransientStorageError):
        talk.store.read(KEY, 4, 2)


def test_a_whole_object_in_place_of_a_range_is_cut_to_the_range(converse: Converse) -> None:
    talk = converse()
    put(talk.store, b"0123456789")
    talk.proxy.answer(lambda call: call.method == "GET", Answer(200, b"0123456789"), times=9)

    assert talk.store.read(KEY, 4, 2) == b"45"
    assert talk.store.read(KEY, 8) == b"89"
    assert talk.store.read(KEY, 20, 5) == b""


# -- checksums


def test_a_server_with_crc32c_gets_and_confirms_it_for_parts_and_whole(converse: Converse) -> None:
    talk = converse("moto")
    upload = begin(talk.store)

    info = upload.complete(put_parts(upload), crc32c_of(DATA))

    assert info.crc32c == crc32c_of(DATA)
    parts = [call for call in talk.proxy.calls if is_part(call)]
    assert [call.headers["x-amz-checksum-crc32c"] for call in parts] == [
        to_base64(crc32c_of(DATA[:PART_BYTES])),
        to_base64(crc32c_of(DATA[PART_BYTES:])),
    ]
    (complete,) = (call for call in talk.proxy.calls if is_complete(call))
    assert complete.headers["x-amz-checksum-crc32c"] == to_base64(crc32c_of(DATA))
    assert complete.headers["x-amz-checksum-type"] == "FULL_OBJECT"


def test_bodies_are_sent_plain_and_unsigned(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store)
    upload.complete(put_parts(upload), crc32c_of(DATA))
    put(talk.store)

    sent = [call for call in talk.proxy.calls if call.method == "PUT"]
    assert {call.headers["X-Amz-Content-SHA256"] for call in sent} == {"UNSIGNED-PAYLOAD"}
    assert not any("Content-Encoding" in call.headers or "Transfer-Encoding" in call.headers for call in sent)
    assert not any("x-amz-trailer" in (name.lower() for name in call.headers) for call in sent)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidRequest"),
        (501, "NotImplemented"),
        (400, "InvalidArgument"),
        (400, "BadDigest"),
        (400, "Odd"),
    ],
)
def test_a_server_that_refuses_crc32c_gets_md5_from_then_on(
    converse: Converse, status: int, code: str
) -> None:
    talk = converse()
    talk.proxy.answer(lambda call: is_put(call) and has_crc32c(call), error(status, code), times=99)

    put(talk.store, b"first")
    put(talk.store, b"second")

    assert talk.stored() == b"second"
    puts = [call for call in talk.proxy.calls if is_put(call)]
    # the second one with a signed body, for that might have been missed as well
    assert [has_crc32c(call) for call in puts] == [True] * (1 if code == "BadDigest" else 2) + [False, False]
    assert all("Content-MD5" in call.headers for call in puts[-2:])


def test_a_server_that_refuses_a_checksum_algorithm_at_the_start_gets_md5_for_parts(
    converse: Converse,
) -> None:
    talk = converse()
    talk.proxy.answer(having("x-amz-checksum-algorithm"), error(501, "NotImplemented"), times=99)
    upload = begin(talk.store)

    info = upload.complete(put_parts(upload), crc32c_of(DATA))

    assert talk.stored() == DATA
    assert info.crc32c == crc32c_of(DATA), "its ETags are digests of what it got, and were compared"
    assert all("Content-MD5" in call.headers for call in talk.proxy.calls if is_part(call))


def test_md5_by_setting_never_sends_a_crc32c(converse: Converse) -> None:
    talk = converse(checksum="md5")
    upload = begin(talk.store)

    upload.complete(put_parts(upload), crc32c_of(DATA))
    put(talk.store)

    assert talk.proxy.calls
    assert not any(has_crc32c(call) for call in talk.proxy.calls)


def test_crc32c_by_setting_never_falls_back(converse: Converse) -> None:
    talk = converse(checksum="crc32c")
    talk.proxy.answer(is_put, error(501, "NotImplemented"), times=99)

    with pytest.raises(StorageError):
        put(talk.store)

    assert not any("Content-MD5" in call.headers for call in talk.proxy.calls)


def test_a_bad_digest_from_a_server_that_knows_crc32c_is_not_explained_away(converse: Converse) -> None:
    talk = converse()
    put(talk.store)
    put_parts(begin(talk.store))  # it confirms those of parts
    talk.proxy.answer(is_put, error(400, "BadDigest"))

    with pytest.raises(ChecksumRejected):
        put(talk.store, b"second")

    assert talk.stored() == b"hello"


@pytest.mark.parametrize("server", ["ministack", "moto"])
def test_a_server_that_says_nothing_of_checksums_proves_an_upload_by_nothing(
    converse: Converse, server: str
) -> None:
    talk = converse(server)
    talk.proxy.change(lambda call: True, _silent_about_checksums)
    upload = begin(talk.store)

    info = upload.complete(put_parts(upload), crc32c_of(DATA))

    assert info.crc32c is None, "the caller is to read it back"
    assert talk.stored() == DATA


def test_a_server_that_computes_another_crc32c_confirms_nothing(converse: Converse) -> None:
    talk = converse("moto")
    wrong = to_base64(0x12345678)
    talk.proxy.change(lambda call: True, lambda answer: _with_crc32c(answer, wrong))
    upload = begin(talk.store)

    info = upload.complete(put_parts(upload), crc32c_of(DATA))

    assert info.crc32c is None
    assert talk.stored() == DATA


def test_an_etag_that_is_the_md5_proves_a_small_object(converse: Converse) -> None:
    talk = converse()
    talk.proxy.change(is_put, without_headers(*CHECKSUM_HEADERS))

    info = talk.store.put(ObjectSpec(KEY, "video/mp4", 5), b"hello", crc32c_of(b"hello"))

    assert info.etag == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert info.crc32c == crc32c_of(b"hello")


def test_an_etag_that_is_something_else_proves_nothing(converse: Converse) -> None:
    talk = converse()
    talk.proxy.change(
        is_put,
        lambda answer: Answer(answer.status, answer.body, {"ETag": '"kms-0123456789abcdef0123456789abcd"'}),
    )

    info = talk.store.put(ObjectSpec(KEY, "video/mp4", 5), b"hello", crc32c_of(b"hello"))

    assert info.crc32c is None


# -- conditions


REFUSED_CONDITIONS = [
    error(400, "InvalidArgument"),
    error(400, "InvalidRequest"),
    error(403, "AccessDenied"),
    error(405, "MethodNotAllowed"),
    error(411, "MissingContentLength"),
    error(412, "PreconditionFailed"),
    error(501, "NotImplemented"),
    Answer(400, b"<html>bad request</html>"),
    Answer(417),
]
each_refused_condition = pytest.mark.parametrize(
    "refusal", REFUSED_CONDITIONS, ids=lambda a: f"{a.status} {a.body[13:30]!r}"
)


@each_refused_condition
def test_a_server_that_refuses_if_none_match_is_checked_first(converse: Converse, refusal: Answer) -> None:
    talk = converse()
    talk.proxy.answer(having("if-none-match"), refusal, times=99)

    put(talk.store, b"first", if_absent=True)
    with pytest.raises(ObjectExists):
        put(talk.store, b"second", if_absent=True)

    assert talk.stored() == b"first"
    assert not talk.store.limits.conditional_create


@each_refused_condition
def test_an_upload_completes_where_if_none_match_is_refused(converse: Converse, refusal: Answer) -> None:
    talk = converse()
    upload = begin(talk.store, if_absent=True)
    parts = put_parts(upload)
    talk.proxy.answer(having("if-none-match"), refusal, times=99)

    upload.complete(parts, crc32c_of(DATA))

    assert talk.stored() == DATA


@each_refused_condition
def test_a_server_that_refuses_if_match_is_compared_with_first(converse: Converse, refusal: Answer) -> None:
    talk = converse()
    talk.proxy.answer(having("if-match"), refusal, times=99)
    put(talk.store, b"first")
    expected = etag_of(talk.store)

    put(talk.store, b"second", if_match=expected)
    with pytest.raises(ObjectChanged):
        put(talk.store, b"third", if_match=expected)

    assert talk.stored() == b"second"
    assert not talk.store.limits.conditional_replace


def test_if_match_is_trusted_after_a_wrong_one_was_refused(converse: Converse) -> None:
    talk = converse("moto")
    put(talk.store, b"first")

    put(talk.store, b"second", if_match=etag_of(talk.store))
    assert talk.store.limits.conditional_replace
    before = len(talk.proxy.calls)
    with pytest.raises(ObjectChanged):
        put(talk.store, b"third", if_match='"another"')

    assert [call.method for call in talk.proxy.calls[before:]] == ["PUT", "HEAD", "HEAD"]  # ours? another's?
    assert talk.stored() == b"second"


def test_if_match_is_not_trusted_after_a_wrong_one_was_taken(
    rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in rclone_server.env.items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(open_destination(rclone_server.url(rclone_server.new_bucket()))) as store:
        put(store, b"first")
        expected = etag_of(store)

        put(store, b"second", if_match=expected)
        with pytest.raises(ObjectChanged):
            put(store, b"third", if_match=expected)

        assert store.read(KEY) == b"second"
        assert not store.limits.conditional_replace


@pytest.mark.parametrize("server", ["moto", "ministack"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_put_if_match_whose_answer_was_lost_knows_its_own_object(
    converse: Converse, server: str, times: int
) -> None:
    talk = converse(server)
    put(talk.store, b"first")
    expected = etag_of(talk.store)
    talk.proxy.lose_answer(is_put, times=times)

    put(talk.store, b"second", if_match=expected)

    assert talk.stored() == b"second"


@pytest.mark.parametrize("named_by", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "a profile"])
def test_an_endpoint_from_the_environment_or_a_profile_is_not_aws(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named_by: str
) -> None:
    port = urlsplit(moto_server.endpoint_url).port
    assert port is not None
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)
    with fault_proxy(port) as proxy:
        address = f"http://127.0.0.1:{proxy.port}"
        if named_by == "a profile":
            (tmp_path / "config").write_text(f"[profile nas]\nendpoint_url = {address}\n")
            monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
            monkeypatch.setenv("AWS_PROFILE", "nas")
        else:
            monkeypatch.setenv(named_by, address)
        proxy.answer(having("if-none-match"), error(501, "NotImplemented"), times=99)
        with contextlib.closing(
            open_destination(f"s3://{moto_server.new_bucket()}?addressing_style=path")
        ) as store:
            put(store, b"first", if_absent=True)

            with pytest.raises(ObjectExists):
                put(store, b"second", if_absent=True)
            assert store.read(KEY) == b"first"


def test_aws_is_trusted_to_create_only_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    backend = open_destination("s3://bucket?region=eu-west-1")
    assert isinstance(backend, S3Backend)
    assert not backend.limits.conditional_create, "asking it must not open a connection"

    with contextlib.closing(backend):
        backend._bucket.connection.get()
        assert backend.limits.conditional_create


# -- overwriting refused


def test_where_overwriting_is_refused_the_same_content_is_success(converse: Converse) -> None:
    talk = converse()
    put(talk.store)
    talk.proxy.answer(is_put, error(403, "AccessDenied", "object is WORM protected"), times=99)

    assert put(talk.store).size_bytes == 5
    with pytest.raises(AccessDenied):
        put(talk.store, b"other")


@pytest.mark.parametrize("refused_at", [is_create, is_complete])
def test_an_upload_over_the_same_content_is_success_where_overwriting_is_refused(
    converse: Converse, refused_at: Callable[[Call], bool]
) -> None:
    talk = converse()
    first = begin(talk.store)
    first.complete(put_parts(first), crc32c_of(DATA))
    talk.proxy.answer(refused_at, error(403, "AccessDenied"), times=99)
    again = begin(talk.store)

    info = again.complete(put_parts(again), crc32c_of(DATA))

    assert info.size_bytes == len(DATA)


@pytest.mark.parametrize("there", [None, bytes(len(DATA)), b"shorter"])
def test_an_upload_over_other_content_stays_refused(converse: Converse, there: bytes | None) -> None:
    talk = converse()
    if there is not None:
        put(talk.store, there)
    talk.proxy.answer(is_create, error(403, "AccessDenied"), times=99)

    def store_it() -> None:
        upload = begin(talk.store)
        upload.complete(put_parts(upload), crc32c_of(DATA))

    with pytest.raises(AccessDenied):
        store_it()


# -- encryption


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"encryption": "aws:kms", "kms_key_id": "alias/archive"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "alias/archive",
            },
        ),
        ({}, {}),
    ],
)
def test_encryption_is_requested_with_every_object(
    converse: Converse, options: dict[str, str], expected: dict[str, str]
) -> None:
    talk = converse(**options)
    put(talk.store)
    upload = begin(talk.store)
    upload.complete(put_parts(upload), crc32c_of(DATA))

    asked = [
        {n.lower(): v for n, v in call.headers.items() if "encryption" in n.lower()}
        for call in talk.proxy.calls
        if is_put(call) or is_create(call)
    ]
    assert asked == [expected] * 2


def test_encryption_is_requested_with_each_part_where_a_policy_demands_it(converse: Converse) -> None:
    talk = converse(encryption="AES256")
    encrypts = having("x-amz-server-side-encryption")
    talk.proxy.answer(lambda call: is_part(call) and not encrypts(call), error(403, "AccessDenied"), times=99)
    upload = begin(talk.store)

    upload.complete(put_parts(upload), crc32c_of(DATA))

    assert talk.stored() == DATA
    assert [encrypts(call) for call in talk.proxy.calls if is_part(call)][-2:] == [True, True]


def test_a_refusal_names_encryption_among_what_a_bucket_may_demand(converse: Converse) -> None:
    talk = converse()
    talk.proxy.answer(is_put, error(403, "AccessDenied"), times=9)

    with pytest.raises(AccessDenied, match="encryption=aws:kms"):
        put(talk.store)


# -- uploads of other programs


def test_without_a_prefix_the_uploads_of_other_programs_are_left(converse: Converse) -> None:
    talk = converse()
    begin(talk.store)
    with contextlib.closing(talk.server.client()) as client:
        client.create_multipart_upload(Bucket=talk.bucket, Key="backups/database.dump")

        def open_uploads() -> list[str]:
            return [
                one["Key"] for one in client.list_multipart_uploads(Bucket=talk.bucket).get("Uploads", [])
            ]

        assert abort_stale_uploads(talk.store, timedelta(0)) == 0
        assert sorted(open_uploads()) == ["backups/database.dump", KEY]

        assert isinstance(talk.store, S3Backend)
        assert talk.store.abort_uploads(timedelta(hours=1), lambda key: key == KEY) == 0, "it is young"
        assert talk.store.abort_uploads(timedelta(0), lambda key: key == KEY) == 1
        assert open_uploads() == ["backups/database.dump"]


# -- refusals


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(403, "AccessDenied"), AccessDenied),
        (error(403, "SignatureDoesNotMatch"), AccessDenied),
        (error(400, "ExpiredToken"), AccessDenied),
        (error(403, "RequestTimeTooSkewed"), TransientStorageError),
        (error(503, "SlowDown"), TransientStorageError),
        (error(429, "TooManyRequests"), TransientStorageError),
        (Answer(502, b"<html>bad gateway</html>"), TransientStorageError),
        (error(507, "XMinioStorageFull"), DestinationFull),
        (error(403, "QuotaExceeded"), DestinationFull),
        (error(404, "NoSuchBucket"), BucketMissing),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_each_refusal_has_its_error(converse: Converse, answer: Answer, expected: type[StorageError]) -> None:
    talk = converse()
    talk.proxy.answer(lambda call: call.method == "GET", answer, times=99)

    with pytest.raises(expected):
        list(talk.store.list())


@pytest.mark.parametrize("operation", ["put", "send", "put_part", "begin", "stat", "list"])
def test_what_a_busy_server_asks_for_reaches_the_error(converse: Converse, operation: str) -> None:
    talk = converse(attempts=1)
    upload = begin(talk.store)
    body = error(503, "SlowDown").body
    talk.proxy.answer(lambda _: True, Answer(503, body, {"Retry-After": "3600"}), times=99)
    store, spec = talk.store, ObjectSpec(KEY, "video/mp4", 5)
    assert isinstance(store, S3Backend)
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: put(talk.store),
        "send": lambda: waiting.complete(store.send(spec, b"hello", crc32c_of(b"hello"))),
        "put_part": lambda: upload.put_part(1, DATA[:PART_BYTES], crc32c_of(DATA[:PART_BYTES])),
        "begin": lambda: begin(talk.store),
        "stat": lambda: talk.store.stat(KEY),
        "list": lambda: list(talk.store.list()),
    }

    with pytest.raises(TransientStorageError) as caught:
        calls[operation]()

    assert (caught.value.status, caught.value.retry_after) == (503, timedelta(hours=1))
    assert caught.value.store == talk.store.name
    assert caught.value.operation == ("put" if operation == "send" else operation)


def test_a_server_that_asks_for_longer_than_a_pause_is_not_asked_again(converse: Converse) -> None:
    talk = converse()
    talk.proxy.answer(is_put, Answer(503, error(503, "SlowDown").body, {"Retry-After": "21"}), times=99)

    with pytest.raises(TransientStorageError):
        put(talk.store)

    assert len([call for call in talk.proxy.calls if is_put(call)]) == 1


def test_stat_works_without_checksums_where_the_key_management_refuses_them(converse: Converse) -> None:
    talk = converse()
    put(talk.store)
    wants_checksum = having("x-amz-checksum-mode")
    talk.proxy.answer(wants_checksum, Answer(403), times=99)

    first, second = talk.store.stat(KEY), talk.store.stat(KEY)

    assert first is not None
    assert second is not None
    assert [wants_checksum(call) for call in talk.proxy.calls if call.method == "HEAD"] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(404, "NoSuchLifecycleConfiguration"), False),
        (error(403, "AccessDenied"), None),
        (error(501, "NotImplemented"), None),
        (error(400, "InvalidRequest"), None),
    ],
)
def test_lifecycle_rules_that_cannot_be_seen_are_not_guessed(
    converse: Converse, answer: Answer, expected: bool | None
) -> None:
    talk = converse()
    talk.proxy.answer(lambda call: "lifecycle" in call.path, answer, times=9)

    assert removes_stale_uploads(talk.store) is expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"Filter": {"Prefix": ""}}, True),
        ({"Filter": {"Prefix": "other/"}}, False),
        ({"Filter": {"Prefix": ""}, "Status": "Disabled"}, False),
        ({"Filter": {"Tag": {"Key": "a", "Value": "b"}}}, False),
    ],
)
def test_a_lifecycle_rule_counts_when_it_covers_the_destination(
    converse: Converse, rule: dict[str, object], expected: bool
) -> None:
    talk = converse()
    with contextlib.closing(talk.server.client()) as client:
        full = {
            "ID": "x",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
            **rule,
        }
        client.put_bucket_lifecycle_configuration(
            Bucket=talk.bucket,
            LifecycleConfiguration={"Rules": [full]},  # type: ignore[list-item] # a table of rules
        )

    assert removes_stale_uploads(talk.store) is expected


def test_no_error_repeats_an_upload_id(converse: Converse) -> None:
    talk = converse()
    upload = begin(talk.store)
    talk.proxy.lose_answer(lambda call: "uploadId" in call.path, times=99)

    with pytest.raises(TransientStorageError) as caught:
        put_parts(upload)

    upload_id = upload.token.rpartition(".")[2]
    assert upload_id not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def _silent_about_checksums(answer: Answer) -> Answer:
    body = re.sub(rb"<Checksum\w+>[^<]*</Checksum\w+>", b"", answer.body)
    body = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag>opaque</ETag>", body)
    return without_headers(*CHECKSUM_HEADERS)(Answer(answer.status, body, answer.headers))


def _with_crc32c(answer: Answer, wrong: str) -> Answer:
    body = re.sub(rb"<ChecksumCRC32C>[^<]*<", b"<ChecksumCRC32C>" + wrong.encode() + b"<", answer.body)
    body = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag>opaque</ETag>", body)
    headers = {n: wrong if n.lower() == "x-amz-checksum-crc32c" else v for n, v in answer.headers.items()}
    return Answer(answer.status, body, headers)

"""Failing exchanges with GCS: a service that follows Google's documentation, behind a proxy that spoils one response at
a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from storage_backends.base import ObjectInfo, ObjectSpec, Part, Upload, object_key
from storage_backends.crc32c import crc32c_of, to_base64
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    ObjectChanged,
    ObjectExists,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.gcs import MULTIPLE_BYTES, GcsBackend
from tests.contracts.interrupted_upload import content
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy
from tests.gcs_by_the_book import Service, gcs_by_the_book

KEY = object_key("recordings/one.mp4")
PART_BYTES = 2 * MULTIPLE_BYTES
DATA = content(
    2 * PART_BYTES + MULTIPLE_BYTES + 100
)  # the last part: 256 KiB that can be kept, and 100 bytes


@dataclass
class Conversation:
    store: GcsBackend
    service: Service
    proxy: FaultProxy
    waits: list[float]

    def stored(self) -> bytes:
        return self.service.objects["bucket"][KEY][1]

    def put(self, data: bytes = b"hello", *, if_absent: bool = False, if_match: str | None = None) -> None:
        spec = ObjectSpec(KEY, "video/mp4", len(data), if_absent=if_absent, if_match=if_match)
        self.store.put(spec, data, crc32c_of(data))

    def begin(self, *, if_absent: bool = False, size_bytes: int | None = len(DATA)) -> Upload:
        return self.store.begin(ObjectSpec(KEY, "video/mp4", size_bytes, PART_BYTES, if_absent=if_absent))


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    with gcs_by_the_book() as service, fault_proxy(int(service.authority.rpartition(":")[2])) as proxy:
        service.authority = f"127.0.0.1:{proxy.port}"  # sessions too go through the proxy
        service.objects["bucket"] = {}
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.port}")
        waits: list[float] = []
        with contextlib.closing(GcsBackend("bucket", sleep=waits.append)) as store:
            yield Conversation(store, service, proxy, waits)


def put_parts(upload: Upload, data: bytes = DATA) -> list[Part]:
    pieces = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    return [upload.put_part(number, piece, crc32c_of(piece)) for number, piece in enumerate(pieces, start=1)]


def is_chunk(call: Call) -> bool:
    return call.method == "PUT" and call.headers["Content-Range"].endswith("/*")


def is_last_chunk(call: Call) -> bool:
    return call.method == "PUT" and not is_chunk(call)


def is_put(call: Call) -> bool:
    return call.method == "POST" and "uploadType=multipart" in call.path


def test_a_small_put_is_one_request_with_its_checksum_and_condition(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    talk.put(if_absent=True)

    (call,) = talk.proxy.calls
    assert "uploadType=multipart" in call.path
    assert "ifGenerationMatch=0" in call.path
    assert f'"crc32c": "{to_base64(crc32c_of(b"hello"))}"'.encode() in call.body
    assert list(tmp_path.iterdir()) == []


def test_a_checksum_that_does_not_match_is_refused_by_the_service(talk: Conversation) -> None:
    talk.service.spoil = lambda data: data.replace(b"hello", b"jello")

    with pytest.raises(ChecksumRejected):
        talk.put()

    assert KEY not in talk.service.objects["bucket"]


def test_more_bytes_than_requested_are_an_error(talk: Conversation) -> None:
    talk.put()
    talk.proxy.answer(lambda call: "alt=media" in call.path, Answer(200, b"hello"), times=9)

    with pytest.raises(TransientStorageError, match="5 bytes arrived, 3 were requested"):
        talk.store.read(KEY, 1, 3)


def test_a_read_that_breaks_off_is_done_once_more(talk: Conversation) -> None:
    talk.put()
    talk.proxy.lose_answer(lambda call: "alt=media" in call.path)

    assert talk.store.read(KEY, 1, 3) == b"ell"
    assert len(talk.waits) == 1


def test_a_redirect_is_not_followed(talk: Conversation) -> None:
    elsewhere = Answer(302, headers={"Location": "http://127.0.0.1:9/elsewhere"})
    talk.proxy.answer(lambda _: True, elsewhere, times=99)
    upload = talk.store.resume(
        ObjectSpec(KEY, "video/mp4", None, PART_BYTES),
        f"{'0' * 32} http://{talk.service.authority}/session?upload_id=x",
    )

    for ask in (lambda: talk.store.stat(KEY), talk.put, lambda: put_parts(upload), talk.begin):
        with pytest.raises(StorageError):
            ask()

    assert all(call.headers["Host"] == talk.service.authority for call in talk.proxy.calls)


@pytest.mark.parametrize("written", ["{}", "http://{}", "http://{}/"])
def test_an_emulator_may_be_named_with_http_or_without(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", written.format(talk.service.authority))

    talk.put()

    assert talk.stored() == b"hello"


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_put_whose_answer_was_lost_is_done_once_more(talk: Conversation, if_absent: bool) -> None:
    talk.proxy.lose_answer(is_put)

    talk.put(if_absent=if_absent)

    assert talk.stored() == b"hello"
    assert len(talk.waits) == 1


def test_a_part_whose_answer_was_lost_is_sent_once_more(talk: Conversation) -> None:
    talk.proxy.lose_answer(is_chunk, times=2)
    upload = talk.begin()

    upload.complete(put_parts(upload), crc32c_of(DATA))

    assert talk.stored() == DATA


def test_a_part_of_which_the_session_keeps_a_piece_is_sent_from_there(talk: Conversation) -> None:
    talk.service.keep_at_most = MULTIPLE_BYTES
    upload = talk.begin()

    upload.complete(put_parts(upload), crc32c_of(DATA))

    assert talk.stored() == DATA
    spans = [call.headers["Content-Range"] for call in talk.proxy.calls if is_chunk(call)]
    assert spans[:2] == [f"bytes 0-{PART_BYTES - 1}/*", f"bytes {MULTIPLE_BYTES}-{PART_BYTES - 1}/*"]


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_complete_whose_answer_was_lost_is_found_to_be_done(talk: Conversation, if_absent: bool) -> None:
    upload = talk.begin(if_absent=if_absent)
    parts = put_parts(upload)
    talk.proxy.lose_answer(is_last_chunk)

    info = upload.complete(parts, crc32c_of(DATA))

    assert info.crc32c == crc32c_of(DATA)
    assert talk.stored() == DATA


@pytest.mark.parametrize("status", [404, 410])
def test_a_complete_of_a_session_that_is_forgotten_is_found_to_be_done(
    talk: Conversation, status: int
) -> None:
    upload = talk.begin()
    parts = put_parts(upload)
    upload.complete(parts, crc32c_of(DATA))
    talk.proxy.answer(is_last_chunk, Answer(status), times=9)

    info = upload.complete(parts, crc32c_of(DATA))

    assert info.size_bytes == len(DATA)


@pytest.mark.parametrize("status", [404, 410, 499])
def test_a_session_that_is_forgotten_ends_the_upload(talk: Conversation, status: int) -> None:
    upload = talk.begin()
    talk.proxy.answer(is_chunk, Answer(status), times=9)

    with pytest.raises(UploadGone):
        put_parts(upload)


def test_what_a_session_cannot_keep_yet_is_kept_in_the_tag_of_the_part(talk: Conversation) -> None:
    upload = talk.begin()
    parts = put_parts(upload)

    with contextlib.closing(GcsBackend("bucket")) as another:
        another.resume(upload.spec, upload.token).complete(parts, crc32c_of(DATA))

    assert [bool(part.tag) for part in parts] == [False, False, True]
    assert talk.stored() == DATA


def test_an_upload_that_holds_less_than_the_journal_says_restarts(
    talk: Conversation,
) -> None:
    upload = talk.begin()
    first, second, third = put_parts(talk.begin())

    with pytest.raises((UploadGone, TransientStorageError)):
        upload.complete([first, second, third], crc32c_of(DATA))

    assert KEY not in talk.service.objects["bucket"]


@pytest.mark.parametrize("size", [PART_BYTES, 2 * PART_BYTES, PART_BYTES + MULTIPLE_BYTES])
def test_an_object_of_whole_multiples_ends_with_an_empty_chunk(talk: Conversation, size: int) -> None:
    data = content(size)
    upload = talk.begin(size_bytes=None)

    upload.complete(put_parts(upload, data), crc32c_of(data))

    assert talk.stored() == data
    assert talk.proxy.calls[-1].headers["Content-Range"] == f"bytes */{size}"


def test_the_last_chunk_carries_the_checksum_of_the_whole(talk: Conversation) -> None:
    upload = talk.begin()
    parts = put_parts(upload)
    session = next(iter(talk.service.sessions.values()))
    session.held[0] ^= 1  # a bit flipped on the way

    with pytest.raises(ChecksumRejected):
        upload.complete(parts, crc32c_of(DATA))

    assert KEY not in talk.service.objects["bucket"]


def test_an_object_that_the_service_made_wrong_is_deleted_and_only_that_one(talk: Conversation) -> None:
    upload = talk.begin()
    parts = put_parts(upload)

    def lying(answer: Answer) -> Answer:
        described = json.loads(answer.body) | {"crc32c": "AAAAAA=="}
        return Answer(answer.status, json.dumps(described).encode(), answer.headers)

    talk.proxy.change(is_last_chunk, lying)

    with pytest.raises(ChecksumRejected):
        upload.complete(parts, crc32c_of(DATA))

    assert KEY not in talk.service.objects["bucket"]
    assert "ifGenerationMatch=" in talk.proxy.calls[-1].path


def test_an_upload_if_absent_of_a_taken_key_is_refused_at_once(talk: Conversation) -> None:
    talk.put(b"theirs")

    with pytest.raises(ObjectExists):
        talk.begin(if_absent=True)


def test_a_failing_service_is_asked_five_times_with_growing_pauses(talk: Conversation) -> None:
    talk.proxy.answer(lambda call: call.method == "GET", Answer(503), times=99)

    with pytest.raises(TransientStorageError):
        talk.store.stat(KEY)

    assert len(talk.proxy.calls) == 5
    assert len(talk.waits) == 4
    assert all(0 <= wait <= 2**number for number, wait in enumerate(talk.waits))


BUSY = {"Retry-After": "7"}


def test_a_busy_service_is_not_asked_sooner_than_it_said(talk: Conversation) -> None:
    talk.proxy.answer(lambda call: call.method == "GET", Answer(503, headers=BUSY), times=99)

    with pytest.raises(TransientStorageError) as caught:
        talk.store.stat(KEY)

    assert talk.waits[:3] == [7, 7, 7]
    assert 7 <= talk.waits[3] <= 8
    assert (caught.value.status, caught.value.retry_after) == (503, timedelta(seconds=7))


@pytest.mark.parametrize("operation", ["put", "put_part", "begin", "stat", "list"])
def test_a_service_that_asks_for_longer_than_a_pause_is_not_asked_again(
    talk: Conversation, operation: str
) -> None:
    upload = talk.begin()
    before = len(talk.proxy.calls)
    talk.proxy.answer(lambda _: True, Answer(429, headers={"Retry-After": "3600"}), times=99)
    calls: dict[str, Callable[[], object]] = {
        "put": talk.put,
        "put_part": lambda: upload.put_part(1, DATA[:PART_BYTES], crc32c_of(DATA[:PART_BYTES])),
        "begin": talk.begin,
        "stat": lambda: talk.store.stat(KEY),
        "list": lambda: list(talk.store.list()),
    }

    with pytest.raises(TransientStorageError) as caught:
        calls[operation]()

    assert (caught.value.status, caught.value.retry_after) == (429, timedelta(hours=1))
    assert caught.value.operation == operation
    assert len(talk.proxy.calls) == before + 1


def test_a_refusal_is_not_asked_again(talk: Conversation) -> None:
    talk.service.refuse_everybody = True

    with pytest.raises(AccessDenied):
        talk.put()

    assert [call.method for call in talk.proxy.calls] == ["POST", "GET"]  # and is it there already?


def test_a_list_of_many_pages_is_read_to_its_end(talk: Conversation) -> None:
    for number in range(2500):
        talk.service.create("bucket", {"name": f"a/{number:05}"}, b"")

    assert sum(1 for _ in talk.store.list("a/")) == 2500
    assert len(talk.proxy.calls) == 3


def test_parts_that_are_no_multiple_of_256_kib_are_refused_at_the_start(talk: Conversation) -> None:
    with pytest.raises(StorageError, match="256 KiB"):
        talk.store.begin(ObjectSpec(KEY, "video/mp4", 10, 1000))


@pytest.mark.parametrize(
    "uri", ["http://elsewhere.example/session", "file:///etc/passwd", "https://googleapis.com.evil/x"]
)
def test_a_token_that_leads_elsewhere_is_refused(talk: Conversation, uri: str) -> None:
    with pytest.raises(UploadGone):
        talk.store.resume(ObjectSpec(KEY, "video/mp4", 10, PART_BYTES), f"{'0' * 32} {uri}")

    assert talk.proxy.calls == []


def test_no_error_repeats_the_sessions_uri(talk: Conversation) -> None:
    upload = talk.begin()
    talk.proxy.lose_answer(is_chunk, times=99)

    with pytest.raises(TransientStorageError) as caught:
        put_parts(upload)

    assert "upload_id" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_credentials_that_cannot_be_found_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv(
        "GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path_factory.mktemp("none") / "missing.json")
    )

    with (
        contextlib.closing(GcsBackend("bucket")) as store,
        pytest.raises(AccessDenied, match="GOOGLE_APPLICATION"),
    ):
        store.stat(KEY)


@pytest.mark.parametrize(
    "described",
    [
        "no JSON hunter2",
        '{"type": "service_account", "private_key": "hunter2", "client_email": "a@b", "token_uri": "https://c"}',
        (
            '{"type": "authorized_user", "client_id": "a", "client_secret": "hunter2", "refresh_token": "hunter2",'
            ' "universe_domain": "cloud.example"}'
        ),
    ],
    ids=["no JSON", "a key that is none", "another of Google's clouds"],
)
def test_credentials_that_cannot_be_used_are_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, described: str
) -> None:
    (tmp_path / "credentials.json").write_text(described)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))

    with (
        contextlib.closing(GcsBackend("bucket", sleep=lambda _: None)) as store,
        pytest.raises(AccessDenied, match="redentials") as caught,
    ):
        store.stat(KEY)

    assert "hunter2" not in str(caught.value)


# -- replacing only what is expected, and overwriting refused


def test_an_object_is_replaced_while_its_generation_is_the_one_expected(talk: Conversation) -> None:
    talk.put(b"first")
    expected = talk.service.objects["bucket"][KEY][0]["generation"]

    talk.put(b"second", if_match=expected)
    with pytest.raises(ObjectChanged):
        talk.put(b"third", if_match=expected)

    assert talk.stored() == b"second"
    assert talk.store.limits.conditional_replace, "it was seen to refuse"


@pytest.mark.parametrize("expected", ["CJ+v1+m=", "", "-1", "1&ifGenerationMatch=0"])
def test_what_is_no_generation_is_never_sent(talk: Conversation, expected: str) -> None:
    talk.put(b"first")

    with pytest.raises(ObjectChanged):
        talk.put(b"second", if_match=expected)

    assert len(talk.proxy.calls) == 1
    assert talk.stored() == b"first"


def test_a_put_if_match_whose_answer_was_lost_knows_its_own_object(talk: Conversation) -> None:
    talk.put(b"first")
    first = talk.service.objects["bucket"][KEY][0]["generation"]
    talk.put(b"second", if_match=first)
    second = talk.service.objects["bucket"][KEY][0]["generation"]
    talk.proxy.lose_answer(is_put)

    talk.put(b"third", if_match=second)

    assert talk.stored() == b"third"


RETAINED = Answer(
    403,
    json.dumps(
        {"error": {"errors": [{"reason": "retentionPolicyNotMet", "message": "no"}], "message": "no"}}
    ).encode(),
)


def test_where_overwriting_is_refused_the_same_content_is_success(talk: Conversation) -> None:
    talk.put(b"hello")
    talk.proxy.answer(is_put, RETAINED, times=9)

    talk.put(b"hello")
    with pytest.raises(AccessDenied):
        talk.put(b"other")


@pytest.mark.parametrize("refused_at", ["the start", "the end"])
@pytest.mark.parametrize("there", [DATA, bytes(len(DATA)), b"short"], ids=["equal", "other", "shorter"])
def test_an_upload_is_compared_with_what_may_not_be_overwritten(
    talk: Conversation, refused_at: str, there: bytes
) -> None:
    talk.put(there)

    def refused(call: Call) -> bool:
        return is_last_chunk(call) if refused_at == "the end" else "uploadType=resumable" in call.path

    talk.proxy.answer(refused, RETAINED, times=9)

    def store_it() -> ObjectInfo:
        upload = talk.begin()
        return upload.complete(put_parts(upload), crc32c_of(DATA))

    if there == DATA:
        assert store_it().size_bytes == len(DATA)
    else:
        with pytest.raises(AccessDenied):
            store_it()
    assert talk.stored() == there

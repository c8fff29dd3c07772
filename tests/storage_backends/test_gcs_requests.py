"""The data path to GCS: what requests carry, which responses count, where tokens come from."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from google.auth import exceptions as auth_errors
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession

from archiver.http.runtime import process_runtime
from archiver.transfer.tasks import Task
from storage_backends.base import ObjectSpec, Upload, object_key
from storage_backends.crc32c import crc32c_of, to_base64
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    DestinationRefuses,
    StorageError,
    TransientStorageError,
)
from storage_backends.gcs import MULTIPLE_BYTES, GcsBackend
from tests.contracts.interrupted_upload import content
from tests.fault_proxy import Answer, Call, FaultProxy, fault_proxy
from tests.gcs_by_the_book import Service, gcs_by_the_book
from tests.tls_front import tls_front
from tests.trust import certificates
from tests.trust.certificates import HOST, Certificate, server_context

KEY = object_key("recordings/ä one.mp4")
SPEC = ObjectSpec(KEY, "video/mp4", metadata={"recording": "réc 1"}, if_absent=True)
DATA = content(2 * MULTIPLE_BYTES)
WAIT_SECONDS = 30.0


class Tokens(Credentials):
    """The credentials that Google's library finds. Each token is new; `error` is raised instead of one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given = 0
        self.threads: list[str] = []
        self.error: Exception | None = None
        self.asked = threading.Event()
        self.may_be_given = threading.Event()
        self.may_be_given.set()

    def refresh(self, _request: object) -> None:
        self.asked.set()
        assert self.may_be_given.wait(WAIT_SECONDS)
        self.threads.append(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        self.given += 1
        self.token = f"secret-{self.given}"


@dataclass
class Talk:
    service: Service
    proxy: FaultProxy
    store: GcsBackend
    tokens: Tokens
    waits: list[float] = field(default_factory=list)

    def put(self, data: bytes = b"hello", spec: ObjectSpec = SPEC) -> None:
        self.store.put(spec, data, crc32c_of(data))

    def send(self, key: str = KEY, data: bytes = b"hello") -> Coroutine[Any, Any, Any]:
        return self.store.send(ObjectSpec(object_key(key), "video/mp4"), data, crc32c_of(data))

    def begin(self) -> Upload:
        return self.store.begin(ObjectSpec(KEY, "video/mp4", None, len(DATA)))

    def stored(self, key: str = KEY) -> bytes:
        return self.service.objects["bucket"][key][1]

    def authorizations(self) -> list[str | None]:
        return [call.headers.get("Authorization") for call in self.proxy.calls]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    """With credentials, which an emulator does not need."""
    tokens = Tokens()
    monkeypatch.setattr("google.auth.default", lambda *_, **__: (tokens, None))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    with gcs_by_the_book() as service, fault_proxy(int(service.authority.rpartition(":")[2])) as proxy:
        service.authority = f"127.0.0.1:{proxy.port}"
        service.objects["bucket"] = {}
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", f"http://127.0.0.1:{proxy.port}")
        waits: list[float] = []
        with contextlib.closing(GcsBackend("bucket", sleep=waits.append)) as store:
            yield Talk(service, proxy, store, tokens, waits)


def in_engine(*coroutines: Coroutine[Any, Any, Any]) -> list[BaseException | None]:
    """Return how each ends, run at once in the engine's thread."""
    runtime, ended = process_runtime(), threading.Semaphore(0)
    tasks: list[Task] = []

    def start() -> None:
        for coroutine in coroutines:
            task = Task(runtime, coroutine)
            tasks.append(task)
            task.start(lambda *_: ended.release())
            task.begin()

    runtime.call_soon(start)
    for _ in coroutines:
        assert ended.acquire(timeout=WAIT_SECONDS)
    return [task.error for task in tasks]


def is_put(call: Call) -> bool:
    return call.method == "POST" and "uploadType=multipart" in call.path


def is_chunk(call: Call) -> bool:
    return call.method == "PUT"


def shown(error: BaseException) -> str:
    """Everything that a log could show of it."""
    return "".join(traceback.format_exception(error)) + repr(error)


# -- what a request carries
def parts_of(call: Call) -> tuple[dict[str, Any], str, bytes]:
    """The resource, the media's type and the media of a multipart/related body."""
    boundary = call.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
    described, media = call.body.split(b"--" + boundary)[1:3]
    head, _, data = media.partition(b"\r\n\r\n")
    media_type = re.search(rb"(?i)content-type: *([^\r]+)", head)
    assert media_type is not None
    return json.loads(described.partition(b"\r\n\r\n")[2]), media_type[1].decode(), data.removesuffix(b"\r\n")


def test_a_put_says_what_an_upload_by_googles_library_would_say(talk: Talk) -> None:
    """A release of the library that adds something fails here, to be carried or refused."""
    talk.put()
    made = talk.service.objects["bucket"].pop(KEY)[0]
    blob = talk.store._bucket.connected().bucket("bucket").blob(KEY)
    blob.content_type, blob.metadata = SPEC.content_type, made["metadata"]
    blob.crc32c = to_base64(crc32c_of(b"hello"))
    blob.upload_from_string(b"hello", SPEC.content_type, checksum=None, if_generation_match=0)

    ours, theirs = talk.proxy.calls
    assert ours.method == theirs.method
    assert urlsplit(ours.path).path == urlsplit(theirs.path).path
    assert parse_qs(urlsplit(ours.path).query) == parse_qs(urlsplit(theirs.path).query)
    resource, media_type, media = parts_of(ours)
    assert (resource, media_type, media) == parts_of(theirs)
    left_out = {name.lower() for name in theirs.headers} - {name.lower() for name in ours.headers}
    assert left_out == {
        "accept-encoding",  # an answer of some hundred bytes
        "connection",  # the default
        "x-goog-api-client",  # for Google's statistics
        "x-upload-content-type",  # the resource says it
    }
    for name in ("Authorization", "User-Agent"):
        assert ours.headers[name] == theirs.headers[name]


def test_an_object_is_stored_with_all_that_its_spec_says(talk: Talk) -> None:
    talk.put()

    resource, data = talk.service.objects["bucket"][KEY]
    assert data == b"hello"
    assert resource["contentType"] == SPEC.content_type
    assert resource["metadata"].items() >= SPEC.metadata.items()
    assert {spec.name for spec in fields(ObjectSpec)} == {
        "key", "content_type", "metadata", "if_absent", "if_match",
        "size_bytes", "part_bytes",  # of no use to a request that holds the whole
        "media", "labels",  # test_gcs_options.py
        "lock",  # a bucket's own retention policy does that on GCS
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 9 * 2**20])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_an_object_of_any_size_is_one_request(talk: Talk, size: int, kind: Callable[[bytes], Any]) -> None:
    data = content(size)

    talk.store.put(SPEC, kind(data), crc32c_of(data))

    assert talk.stored() == data
    assert len(talk.proxy.calls) == 1


@pytest.mark.parametrize("content_type", ["video/mp4\r\nX-Other: 1", "video/mp4\n", "", "vidéo/mp4", " a/b"])
def test_a_type_that_no_header_can_carry_is_refused(talk: Talk, content_type: str) -> None:
    with pytest.raises(StorageError, match="cannot carry the content type"):
        talk.put(spec=ObjectSpec(KEY, content_type))

    assert talk.proxy.calls == []


def test_a_bucket_that_is_not_there_is_named_as_such(talk: Talk) -> None:
    del talk.service.objects["bucket"]

    with pytest.raises(BucketMissing):
        talk.put()


# -- how often it is sent
def test_what_the_engine_sends_is_attempted_once(talk: Talk) -> None:
    """The engine has its own retries."""
    upload: Any = talk.begin()
    talk.proxy.lose_answer(lambda call: is_put(call) or is_chunk(call), times=2)

    errors = in_engine(talk.send(), upload.send_part(1, DATA, crc32c_of(DATA)))

    assert [type(error) for error in errors] == [TransientStorageError, TransientStorageError]
    assert len(talk.proxy.calls) == 3
    assert talk.waits == []


def test_what_the_engine_sends_again_arrives(talk: Talk) -> None:
    upload: Any = talk.begin()
    talk.proxy.lose_answer(lambda call: is_put(call) or is_chunk(call), times=2)

    for _ in range(2):
        errors = in_engine(talk.send("a"), upload.send_part(1, DATA, crc32c_of(DATA)))
    part = upload.put_part(1, DATA, crc32c_of(DATA))

    assert errors == [None, None]
    assert talk.stored("a") == b"hello"
    upload.complete([part], crc32c_of(DATA))
    assert talk.stored() == DATA


def test_a_conditional_object_that_the_engine_sends_knows_itself_after_a_lost_answer(talk: Talk) -> None:
    talk.proxy.lose_answer(is_put)

    assert in_engine(talk.store.send(SPEC, b"hello", crc32c_of(b"hello"))) == [None]

    assert talk.stored() == b"hello"


# -- responses to other requests
@pytest.mark.parametrize(
    ("says", "other"),
    [
        ("another object", {"name": "recordings/two.mp4"}),
        ("the same key, made by another request", {"metadata": {"archiverupload": "0" * 32}}),
        ("an object of nobody", {"metadata": None}),
        ("an object whose metadata is no table", {"metadata": "x"}),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["put", "session"])
def test_a_response_that_describes_another_requests_object_is_an_error(
    talk: Talk, says: str, other: dict[str, Any], whole: bool
) -> None:
    def swapped(answer: Answer) -> Answer:
        return Answer(answer.status, json.dumps(json.loads(answer.body) | other).encode(), answer.headers)

    upload = talk.begin()
    part = upload.put_part(1, DATA, crc32c_of(DATA))
    talk.proxy.change(lambda call: is_put(call) or is_chunk(call), swapped)

    def ask() -> object:
        if whole:
            return talk.store.put(ObjectSpec(KEY, "video/mp4"), b"hello", crc32c_of(b"hello"))
        return upload.complete([part], crc32c_of(DATA))

    with pytest.raises(TransientStorageError, match="of another request"):
        ask()

    assert not [call for call in talk.proxy.calls if call.method == "DELETE"], says


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"name": "recordings/one.mp4"}', b"\xff"])
def test_a_success_that_describes_no_object_is_transient(talk: Talk, body: bytes) -> None:
    talk.proxy.answer(is_put, Answer(200, body), times=9)

    with pytest.raises(TransientStorageError, match="does not describe an object"):
        talk.put()


@pytest.mark.parametrize(
    "other", [{"size": "many"}, {"size": None}, {"updated": "yesterday"}, {"crc32c": 7}, {"updated": 7}]
)
def test_a_description_that_cannot_be_parsed_is_transient(talk: Talk, other: dict[str, Any]) -> None:
    def unreadable(answer: Answer) -> Answer:
        return Answer(answer.status, json.dumps(json.loads(answer.body) | other).encode(), answer.headers)

    talk.proxy.change(is_put, unreadable)

    with pytest.raises(TransientStorageError, match="does not describe an object"):
        talk.put(spec=ObjectSpec(KEY, "video/mp4"))


# -- tokens
def test_every_request_carries_the_token(talk: Talk) -> None:
    talk.put()
    upload = talk.begin()
    upload.complete([upload.put_part(1, DATA, crc32c_of(DATA))], crc32c_of(DATA))
    upload.abort()

    assert set(talk.authorizations()) == {"Bearer secret-1"}
    assert talk.tokens.given == 1


def test_many_that_are_sent_at_once_wait_for_one_token_and_never_in_the_engines_thread(talk: Talk) -> None:
    keys = [f"a/{number}" for number in range(20)]

    assert in_engine(*map(talk.send, keys)) == [None] * 20

    assert {key: talk.stored(key) for key in keys} == dict.fromkeys(keys, b"hello")
    assert talk.tokens.given == 1
    assert not {"sources", "stores"} & set(talk.tokens.threads), "the loops' threads"


def test_a_token_that_is_long_in_coming_holds_nobody_else_up(talk: Talk) -> None:
    talk.tokens.may_be_given.clear()
    waiting: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: waiting.extend(in_engine(talk.send())), daemon=True)
    thread.start()
    assert talk.tokens.asked.wait(WAIT_SECONDS)

    went_on = threading.Event()
    process_runtime().call_soon(went_on.set)

    assert went_on.wait(WAIT_SECONDS)
    talk.tokens.may_be_given.set()
    thread.join(WAIT_SECONDS)
    assert waiting == [None]


def test_a_token_that_is_refused_is_replaced_once(talk: Talk) -> None:
    talk.proxy.answer(is_put, Answer(401))

    talk.put()

    assert talk.authorizations() == ["Bearer secret-1", "Bearer secret-2"]
    assert talk.waits == []


def test_credentials_that_are_refused_with_every_token_are_refused(talk: Talk) -> None:
    talk.proxy.answer(is_put, Answer(401), times=99)

    with pytest.raises(AccessDenied):
        talk.put()

    assert talk.authorizations() == ["Bearer secret-1", "Bearer secret-2"]


def test_a_token_that_is_refused_to_many_at_once_is_replaced_once(talk: Talk) -> None:
    talk.put(spec=ObjectSpec(KEY, "video/mp4"))
    talk.proxy.answer(lambda call: call.headers["Authorization"].endswith("-1"), Answer(401), times=99)

    assert in_engine(*[talk.send(f"a/{number}") for number in range(10)]) == [None] * 10

    assert talk.tokens.given == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (auth_errors.TransportError("secret-0"), TransientStorageError),  # type: ignore[no-untyped-call]
        (auth_errors.RefreshError("secret-0"), AccessDenied),  # type: ignore[no-untyped-call]
    ],
    ids=["nobody answers", "the account is closed"],
)
@pytest.mark.parametrize("at_first", [True, False], ids=["the first", "a new one"])
def test_a_token_that_is_not_given_is_a_fault_of_its_kind(
    talk: Talk, error: Exception, expected: type[StorageError], at_first: bool
) -> None:
    if not at_first:
        talk.put(spec=ObjectSpec(KEY, "video/mp4"))
        talk.proxy.answer(is_put, Answer(401), times=99)
    talk.tokens.error = error

    (caught,) = in_engine(talk.send(data=b"other bytes"))

    assert type(caught) is expected
    assert "secret-" not in shown(caught)


def test_an_emulator_is_given_no_token(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{talk.proxy.port}")
    talk.proxy.answer(is_put, Answer(401))

    with contextlib.closing(GcsBackend("bucket")) as store, pytest.raises(AccessDenied, match="401"):
        store.put(SPEC, b"hello", crc32c_of(b"hello"))

    assert talk.authorizations() == [None]
    assert talk.tokens.threads == []


def test_a_client_certificate_is_refused(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our requests could not present it."""
    monkeypatch.setattr(AuthorizedSession, "is_mtls", True)

    with pytest.raises(DestinationRefuses, match="GOOGLE_API_USE_CLIENT_CERTIFICATE"):
        talk.put()

    assert talk.proxy.calls == []


# -- secrets
@pytest.mark.parametrize(
    ("says", "spoil"),
    [
        ("every answer is lost", lambda proxy: proxy.lose_answer(is_chunk, times=99)),
        ("refused", lambda proxy: proxy.answer(is_chunk, Answer(400), times=99)),
        ("redirected", lambda proxy: proxy.answer(is_chunk, Answer(302, b"", {"Location": "/x"}), times=99)),
        ("gone", lambda proxy: proxy.answer(is_chunk, Answer(410), times=99)),
        (
            "it goes on, elsewhere",
            lambda proxy: proxy.answer(is_chunk, Answer(308, b"", {"Location": "/x"}), times=9),
        ),
        ("a success with nothing", lambda proxy: proxy.answer(is_chunk, Answer(200), times=99)),
    ],
)
def test_no_error_shows_a_sessions_uri_or_a_token(
    talk: Talk, says: str, spoil: Callable[[FaultProxy], None]
) -> None:
    upload: Any = talk.begin()
    spoil(talk.proxy)

    (sending,) = in_engine(upload.send_part(1, DATA, crc32c_of(DATA)))
    with pytest.raises(StorageError) as putting:
        upload.put_part(1, DATA, crc32c_of(DATA))

    assert isinstance(sending, StorageError), says
    for error in (sending, putting.value):
        assert "upload_id=" not in shown(error)
        assert "secret-" not in shown(error)


def test_a_session_that_cannot_be_asked_for_is_not_shown(talk: Talk) -> None:
    token = f"{'0' * 32} http://127.0.0.1:{talk.proxy.port}/session?upload_id=a\x7fb"
    upload = talk.store.resume(ObjectSpec(KEY, "video/mp4", None, len(DATA)), token)

    with pytest.raises(StorageError) as caught:
        upload.put_part(1, DATA, crc32c_of(DATA))

    assert type(caught.value) is StorageError
    assert "upload_id=" not in shown(caught.value)
    assert talk.waits == []


# -- where requests go
@pytest.mark.parametrize(
    ("certificate", "reason", "remedy"),
    [
        (certificates.expired, "certificate has expired", "renewed"),
        (certificates.of_another_host, "", "correct the host name"),
        (certificates.of_an_unknown_authority, "unable to get local issuer certificate", "ARCHIVER_CA_FILE"),
        (certificates.self_signed, "self-signed certificate", "ARCHIVER_CA_FILE"),
    ],
)
def test_a_certificate_that_does_not_verify_refuses_the_destination_with_its_reason(
    talk: Talk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: Callable[[], Certificate],
    reason: str,
    remedy: str,
) -> None:
    shows = certificate()
    (tmp_path / "ca.pem").write_bytes(shows.authority)
    monkeypatch.setenv("ARCHIVER_CA_FILE", str(tmp_path / "ca.pem"))

    with tls_front(talk.proxy.port, server_context(shows, tmp_path)) as port:
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", f"https://{HOST}:{port}")
        with contextlib.closing(GcsBackend("bucket")) as store, pytest.raises(DestinationRefuses) as refused:
            store.put(SPEC, b"hello", crc32c_of(b"hello"))

    assert "its TLS certificate is not accepted: " in str(refused.value)
    assert reason in str(refused.value)
    assert remedy in str(refused.value)
    assert talk.proxy.calls == []


def test_a_certificate_of_the_authority_that_is_trusted_is_accepted(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows = certificates.good()
    (tmp_path / "ca.pem").write_bytes(shows.authority)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    with tls_front(talk.proxy.port, server_context(shows, tmp_path)) as port:
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", f"https://{HOST}:{port}")
        with contextlib.closing(GcsBackend("bucket")) as store:
            store.put(SPEC, b"hello", crc32c_of(b"hello"))

    assert talk.stored() == b"hello"


@pytest.mark.parametrize(
    ("setting", "value", "through"),
    [
        ("http_proxy", "http://127.0.0.1:{}", True),
        ("http_proxy", "127.0.0.1:{}", True),
        ("all_proxy", "http://127.0.0.1:{}", True),
        ("https_proxy", "http://127.0.0.1:{}", False),
    ],
)
def test_the_environments_proxy_is_used(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, through: bool
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with fault_proxy(talk.proxy.port) as proxy, contextlib.closing(GcsBackend("bucket")) as store:
        monkeypatch.setenv(setting, value.format(proxy.port))
        store.put(SPEC, b"hello", crc32c_of(b"hello"))

        assert talk.stored() == b"hello"
        assert [call.path.startswith("http://") for call in proxy.calls] == ([True] if through else [])


def test_a_host_that_the_environment_excepts_is_asked_without_the_proxy(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    talk.put()

    assert talk.stored() == b"hello"


def test_nobody_at_the_endpoint_is_transient(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", "http://127.0.0.1:1")

    with (
        contextlib.closing(GcsBackend("bucket", sleep=talk.waits.append)) as store,
        pytest.raises(TransientStorageError, match="refused"),
    ):
        store.put(SPEC, b"hello", crc32c_of(b"hello"))

    assert len(talk.waits) == 4

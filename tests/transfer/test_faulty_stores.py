"""Every step of storing meets each named fault once, at stores of every kind; the end is the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from archiver.transfer.base import CopyResult
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import SourceError, SourceForbidden, SourceMismatch, SourceUnavailable
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.parts_upload import PartsUpload
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectSpec, StorageBackend, Upload, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    DestinationFull,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, Journal, client, request, some_bytes, source
from tests.transfer.origin import Fault, Origin, for_later_ranges, none, status
from tests.transfer.stores import (
    BrokenStore,
    FaultyStore,
    NoChecksumStore,
    OrderedStore,
    Wrapped,
    open_uploads,
    stored_in,
)

LARGE = some_bytes(4504)
SMALL = some_bytes(700)
OTHERS = bytes(700)
OTHER_KEY = object_key("another/object")
FAULTS = ("before", "half", "lost", "slow", "twice")


def engine_of(memory: MemoryBudget | None = None, journal: Journal | None = None) -> TransferEngine:
    budget = memory or MemoryBudget(64 * 1024 * 1024)
    return TransferEngine(budget, part_bytes=1000, connections=3, uploads=3, journal=journal, policy=HURRIED)


def copy(content: bytes, *stores: StorageBackend, journal: Journal | None = None) -> CopyResult:
    http = client()
    memory = MemoryBudget(64 * 1024 * 1024)
    with Origin({"/file": content}) as origin:
        with engine_of(memory, journal) as engine:
            result = engine.submit(source(http, origin), request(), stores).result(timeout=20)
        http.close()
    assert memory.in_use_bytes == 0
    return result


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("method", "content"), [("put", SMALL), ("begin", LARGE), ("put_part", LARGE), ("complete", LARGE)]
)
@pytest.mark.parametrize("kind", [Wrapped, OrderedStore, NoChecksumStore])
def test_a_fault_at_any_step_ends_in_the_same_object(
    method: str, content: bytes, fault: str, kind: type[Wrapped]
) -> None:
    store = kind(
        FaultyStore(MemoryBackend("faulty"), {method: ["ok", fault] if method == "put_part" else [fault]})
    )

    result = copy(content, store)

    assert result.failed == {}
    assert stored_in(store) == {KEY: content}
    assert result.stored[store.name].size_bytes == len(content)


@pytest.mark.parametrize("fault", ["before", "half", "lost"])
@pytest.mark.parametrize(("method", "content"), [("put", SMALL), ("put_part", LARGE)])
def test_a_fault_that_stays_fails_the_store_and_shows_nothing(
    method: str, content: bytes, fault: str
) -> None:
    store = FaultyStore(MemoryBackend("faulty"), {method: [fault] * 100})

    result = copy(content, store)

    assert isinstance(
        result.failed[store.name], ChecksumRejected if fault == "half" else TransientStorageError
    )
    assert result.stored == {}
    # a whole object whose every answer was lost is there all the same: the next attempt finds out
    assert stored_in(store) in ({}, {KEY: content})
    assert (stored_in(store) == {}) == (method == "put_part" or fault != "lost")


@pytest.mark.parametrize(
    ("method", "content"), [("put", SMALL), ("begin", LARGE), ("put_part", LARGE), ("complete", LARGE)]
)
@pytest.mark.parametrize("error", [AccessDenied("403"), DestinationFull("507"), UploadGone("404")])
def test_one_store_that_fails_does_not_cost_the_others_their_copy(
    method: str, content: bytes, error: StorageError
) -> None:
    broken = BrokenStore(MemoryBackend("broken"), method, error)
    parallel = Wrapped(MemoryBackend("parallel"))
    ordered = OrderedStore(MemoryBackend("ordered"))

    result = copy(content, broken, parallel, ordered)

    assert result.failed == {broken.name: error}
    assert result.stored.keys() == {parallel.name, ordered.name}
    assert stored_in(parallel) == stored_in(ordered) == {KEY: content}
    assert stored_in(broken) == {}


@pytest.mark.parametrize("method", ["begin", "put_part"])
@pytest.mark.parametrize(
    ("ask", "answer", "failure"),
    [
        ({"crc32c": 1}, none, SourceMismatch),
        ({}, for_later_ranges(status(503)), SourceUnavailable),
        ({}, for_later_ranges(status(403)), SourceForbidden),
    ],
)
def test_a_store_that_fails_is_in_the_error_of_a_source_that_fails_too(
    ask: dict[str, object], answer: Fault, failure: type[SourceError], method: str
) -> None:
    refusal = AccessDenied("403")
    broken = BrokenStore(MemoryBackend("broken"), method, refusal)
    http = client()
    with Origin({"/file": LARGE}, always=answer) as origin, engine_of() as engine:
        future = engine.submit(source(http, origin), request(**ask), [broken, MemoryBackend("good")])
        error = future.exception(timeout=20)
    http.close()

    assert isinstance(error, failure)
    assert error.failed_stores == {broken.name: refusal}


@pytest.mark.parametrize("late", [False, True])
def test_a_store_that_fails_is_in_the_error_of_chunks_that_fail_too(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal, refused, given_up = AccessDenied("403"), threading.Event(), threading.Event()

    class Refusing(MemoryBackend):
        def begin(self, spec: ObjectSpec) -> Upload:  # type: ignore[override]
            refused.set()
            assert not late or given_up.wait(20)
            raise refusal

    def begin_no_more(upload: PartsUpload) -> None:
        real(upload)
        given_up.set()

    def chunks() -> Iterator[bytes]:
        yield LARGE[:2500]
        assert refused.wait(20)
        raise SourceUnavailable("cut")

    real = PartsUpload.begin_no_more
    monkeypatch.setattr(PartsUpload, "begin_no_more", begin_no_more)
    store = Refusing("refusing")
    with engine_of() as engine, pytest.raises(SourceUnavailable) as raised:
        engine.submit_chunks(chunks(), request(), [store, MemoryBackend("good")])

    assert raised.value.failed_stores == {store.name: refusal}


class _Replaced(NoChecksumStore):
    """Another worker stores an object of its own at the same key right after ours."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        info = super().put(spec, data, crc32c)
        self.inner.put(spec, OTHERS, crc32c_of(OTHERS))
        return info


class _Corrupting(NoChecksumStore):
    """Keeps other bytes than it is sent."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        return super().put(spec, OTHERS, crc32c_of(OTHERS))


def test_an_object_that_another_worker_stored_meanwhile_is_not_deleted() -> None:
    store = _Replaced(MemoryBackend("one"))

    result = copy(SMALL, store)

    assert isinstance(result.failed[store.name], ChecksumRejected)
    assert stored_in(store) == {KEY: OTHERS}


def test_an_object_that_the_store_corrupted_is_deleted() -> None:
    store = _Corrupting(MemoryBackend("one"))

    result = copy(SMALL, store)

    assert isinstance(result.failed[store.name], ChecksumRejected)
    assert stored_in(store) == {}


def test_each_byte_is_read_once_however_many_stores_there_are() -> None:
    stores = [MemoryBackend(f"store-{n}") for n in range(4)]
    http = client()
    with Origin({"/file": LARGE}) as origin:
        with TransferEngine(MemoryBudget(1 << 24), part_bytes=1000, policy=HURRIED) as engine:
            engine.submit(source(http, origin), request(), stores).result(timeout=20)
        http.close()

        assert origin.sent_bytes == len(LARGE)


def test_reading_stops_when_no_store_is_left() -> None:
    content = some_bytes(300_000)
    store = BrokenStore(MemoryBackend("broken"), "put_part", AccessDenied("403"))
    http = client()
    with Origin({"/file": content}) as origin:
        with TransferEngine(
            MemoryBudget(256 * 1024), part_bytes=1000, connections=2, policy=HURRIED
        ) as engine:
            result = engine.submit(source(http, origin), request(), [store]).result(timeout=20)
        http.close()

        assert isinstance(result.failed[store.name], AccessDenied)
        assert len(origin.requests) < 150


def test_a_store_without_checksums_is_read_back_before_its_object_counts() -> None:
    store = NoChecksumStore(MemoryBackend("plain"))

    result = copy(LARGE, store)

    assert store.calls["read"] >= 1
    assert result.stored.keys() == {store.name}


class Corrupting(NoChecksumStore):
    """Keeps what it was sent, but reads back something else."""

    def read(self, key, start=0, length_bytes=None, *, if_match=None):  # type: ignore[no-untyped-def]
        data = bytearray(super().read(key, start, length_bytes, if_match=if_match))
        data[-1:] = b"?" if data[-1:] != b"?" else b"!"
        return bytes(data)


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_an_object_that_reads_back_differently_is_removed_and_failed(content: bytes) -> None:
    store = Corrupting(MemoryBackend("corrupting"))

    result = copy(content, store)

    assert isinstance(result.failed[store.name], ChecksumRejected)
    assert stored_in(store) == {}


class Misnaming(Wrapped):
    """Says of what it stored that it is another object, and holds other bytes than it was given."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        info = super().put(spec, data, crc32c)
        return replace(info, key=OTHER_KEY, crc32c=crc32c ^ 1)


def test_what_cannot_be_verified_is_removed_under_our_own_name_for_it() -> None:
    inner = MemoryBackend("store")
    inner.put(ObjectSpec(OTHER_KEY, "text/plain", len(SMALL)), SMALL, crc32c_of(SMALL))

    result = copy(SMALL, Misnaming(inner))

    assert isinstance(result.failed[inner.name], ChecksumRejected)
    assert stored_in(inner).keys() == {OTHER_KEY}


def test_an_upload_that_no_journal_knows_is_aborted_when_its_store_fails() -> None:
    store = BrokenStore(MemoryBackend("broken"), "complete", TransientStorageError("503"))

    copy(LARGE, store)

    assert open_uploads(store) == 0


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (TransientStorageError("503"), True),
        (AccessDenied("403"), True),
        (DestinationFull("507"), False),
        (ChecksumRejected("400"), False),
        (UploadGone("404"), False),
    ],
)
def test_what_becomes_of_a_journaled_upload_depends_on_why_its_store_failed(
    error: StorageError, kept: bool
) -> None:
    store, journal = BrokenStore(MemoryBackend("broken"), "complete", error), Journal()

    copy(LARGE, store, journal=journal)

    assert (open_uploads(store), len(journal.saved)) == ((1, 1) if kept else (0, 0))


def test_too_large_an_object_fails_only_the_store_that_cannot_hold_it() -> None:
    class Tiny(Wrapped):
        @property
        def limits(self) -> Limits:
            return replace(self.inner.limits, max_object_bytes=1000)

    tiny, roomy = Tiny(MemoryBackend("tiny")), MemoryBackend("roomy")

    result = copy(LARGE, tiny, roomy)

    assert "4504 bytes are more than the 1000" in str(result.failed[tiny.name])
    assert result.stored.keys() == {roomy.name}
    assert tiny.calls["begin"] == 0

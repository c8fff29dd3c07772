"""A structure sees every byte that arrives, and judges before anything becomes visible; what it refuses is left for
an attempt that keeps it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from archiver.transfer.base import CopyRequest, CopyResult, Source, SourceInfo
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import (
    ErrorPage,
    RangesUnreliable,
    SourceError,
    SourceUnavailable,
    UnexpectedContent,
)
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import plain
from storage_backends.base import StorageBackend
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, Journal, client, request, some_bytes, source
from tests.transfer.origin import Fault, Origin, chunked, cut_at, for_later_ranges, none, status, until_closed
from tests.transfer.stores import OrderedStore, Wrapped, open_uploads, stored_in

PART = 1000
SMALL, LARGE = some_bytes(600), some_bytes(8500)
PARTS = 9


@dataclass
class Recorder:
    """Keeps what it was shown, and what could be read of the rest. `refuse`: what it thinks of the whole."""

    refuse: Exception | None = None
    asks: Callable[[], None] = lambda: None
    seen: dict[int, bytes] = field(default_factory=dict)
    whole: bytes | None = None
    could_read: bool | None = None
    finished: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    @property
    def verifies_end(self) -> bool:
        return True

    def saw(self, start: int, data: memoryview) -> None:
        assert data.readonly
        with self._lock:
            assert start not in self.seen, "shown twice"
            self.seen[start] = bytes(data)

    def finish(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        self.asks()
        self.finished += 1
        self.could_read = read is not None
        body = bytearray(size_bytes)
        for start, data in self.seen.items():
            body[start : start + len(data)] = data
        at = 0
        while at < size_bytes:
            size = len(self.seen.get(at, b""))
            if not size:
                assert read is not None, f"byte {at} was not shown, and cannot be read"
                size = min(PART, size_bytes - at)
                read(at, memoryview(body)[at : at + size])
            at += size
        self.whole = bytes(body)
        if self.refuse:
            raise self.refuse


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = client()
    yield made
    made.close()


def copy(
    origin: Origin,
    http: HttpClient,
    stores: list[StorageBackend],
    journal: Journal | None = None,
    ask: CopyRequest | None = None,
    how: Callable[[Source], Source] = lambda source: source,
    connections: int = 4,
) -> CopyResult:
    memory = MemoryBudget(1 << 24)
    try:
        with TransferEngine(
            memory, part_bytes=PART, connections=connections, uploads=3, journal=journal, policy=HURRIED
        ) as engine:
            return engine.submit(how(source(http, origin)), ask or request(), stores).result(timeout=20)
    finally:
        assert memory.in_use_bytes == 0


@pytest.mark.parametrize(
    ("content", "ranges", "framing", "readable"),
    [
        (SMALL, True, none, True),
        (SMALL, False, none, False),
        (b"", False, none, False),
        (LARGE, True, none, True),
        (LARGE, True, for_later_ranges(chunked), True),
        (LARGE, False, none, False),
        (LARGE, False, chunked, False),
        (LARGE, False, until_closed, False),
        (SMALL, False, until_closed, False),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, bytes) else getattr(value, "__name__", str(value)),
)
def test_every_byte_is_shown_once(
    content: bytes, ranges: bool, framing: Fault, readable: bool, http: HttpClient
) -> None:
    structure = Recorder()
    with Origin({"/file": content}, ranges=ranges, always=framing) as origin:
        copy(origin, http, [MemoryBackend("store")], ask=request(structure=structure))

    assert b"".join(data for _, data in sorted(structure.seen.items())) == content
    assert structure.whole == content
    assert structure.could_read == readable
    assert structure.finished == 1
    if not readable:
        assert list(structure.seen) == sorted(structure.seen)


@pytest.mark.parametrize("faults", [[cut_at(300)], [none, cut_at(300), none, cut_at(0)]])
def test_a_part_that_is_read_again_is_shown_once(faults: list[Fault], http: HttpClient) -> None:
    structure = Recorder()
    with Origin({"/file": LARGE}) as origin:
        origin.script(faults)
        copy(origin, http, [MemoryBackend("store")], ask=request(structure=structure))

    assert structure.whole == LARGE


@pytest.mark.parametrize("pieces", [[], [b"one"], [bytes([n]) * 700 for n in range(9)]])
def test_chunks_are_shown_in_order_and_cannot_be_read_again(pieces: list[bytes]) -> None:
    structure = Recorder()
    with TransferEngine(MemoryBudget(1 << 20), part_bytes=PART) as engine:
        future = engine.submit_chunks(iter(pieces), request(structure=structure), [MemoryBackend("store")])
        future.result(timeout=20)

    assert structure.whole == b"".join(pieces)
    assert structure.could_read is False


@pytest.mark.parametrize("content", [SMALL, LARGE])
@pytest.mark.parametrize("ranges", [True, False])
def test_it_judges_before_a_store_is_told(content: bytes, ranges: bool, http: HttpClient) -> None:
    store = Wrapped(MemoryBackend("store"))
    reported: list[int] = []
    structure = Recorder(
        UnexpectedContent("cut"), asks=lambda: reported.append(store.calls["put"] + store.calls["complete"])
    )
    with (
        Origin({"/file": content}, ranges=ranges) as origin,
        pytest.raises(UnexpectedContent, match="cut"),
    ):
        copy(origin, http, [store], ask=request(structure=structure))

    assert reported == [0]
    assert store.calls["put"] == store.calls["complete"] == 0
    assert stored_in(store) == {}
    assert open_uploads(store) == 0  # no journal could find it again


def test_what_it_refuses_of_chunks_is_not_stored() -> None:
    store = MemoryBackend("store")
    structure = Recorder(UnexpectedContent("cut"))
    with TransferEngine(MemoryBudget(1 << 20), part_bytes=PART) as engine:
        future = engine.submit_chunks([LARGE], request(structure=structure), [store])
        error = future.exception(timeout=20)

    assert isinstance(error, UnexpectedContent)
    assert stored_in(store) == {}
    assert open_uploads(store) == 0


# -- kept for a later attempt --------------------------------------------------------------------------------
def slow(store: Wrapped) -> Wrapped:
    """So that parts still wait to be sent when everything has been read."""
    gate = threading.Semaphore(1)
    act = store.act

    def one_at_a_time(method, action):  # type: ignore[no-untyped-def]
        with gate:
            return act(method, action)

    store.act = one_at_a_time  # type: ignore[method-assign]
    return store


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("kind", [Wrapped, OrderedStore])
@pytest.mark.parametrize("size_known", [True, False])
def test_a_keeping_attempt_sends_nothing_again(
    size_known: bool, kind: type[Wrapped], ranges: bool, http: HttpClient
) -> None:
    stores: list[StorageBackend] = [slow(kind(MemoryBackend("one"))), kind(MemoryBackend("two"))]
    journal, size = Journal(), len(LARGE) if size_known else None
    with Origin({"/file": LARGE}, ranges=ranges) as origin:
        strict = request(structure=Recorder(UnexpectedContent("no moov")), size_bytes=size)
        with pytest.raises(UnexpectedContent):
            copy(origin, http, stores, journal, strict)
        held = [len(upload.parts) for upload in journal.saved.values()]
        visible = [stored_in(store) for store in stores]
        origin.requests.clear()
        for store in stores:
            assert isinstance(store, Wrapped)
            store.sent_parts.clear()

        keeping = Recorder()
        result = copy(origin, http, stores, journal, request(structure=keeping, size_bytes=size))

        read_again = [asked for asked in origin.ranges_asked if asked[0] > 0]
    assert held == [PARTS, PARTS]
    assert visible == [{}, {}]
    assert result.failed == {}
    assert all(isinstance(store, Wrapped) and store.sent_parts == [] for store in stores)
    assert all(stored_in(store) == {KEY: LARGE} for store in stores)
    assert keeping.whole == LARGE
    assert journal.saved == {}
    # what the structure asked for, and not one part for the stores
    assert len(read_again) == (PARTS - 1 if ranges else 0)


def test_parts_that_are_held_are_read_for_the_structure_with_retries(http: HttpClient) -> None:
    store, journal = Wrapped(MemoryBackend("store")), Journal()
    with Origin({"/file": LARGE}) as origin:
        with pytest.raises(UnexpectedContent):
            copy(origin, http, [store], journal, request(structure=Recorder(UnexpectedContent("no"))))
        origin.script([none, cut_at(100), status(503), for_later_ranges(cut_at(7))])
        keeping = Recorder()

        copy(origin, http, [store], journal, request(structure=keeping))

    assert keeping.seen == {}
    assert keeping.whole == LARGE


def test_a_source_that_fails_the_structure_leaves_the_upload(http: HttpClient) -> None:
    store, journal = Wrapped(MemoryBackend("store")), Journal()
    with Origin({"/file": LARGE}) as origin:
        with pytest.raises(UnexpectedContent):
            copy(origin, http, [store], journal, request(structure=Recorder(UnexpectedContent("no"))))
        origin.script([none])
        origin.always = status(503)
        with pytest.raises(SourceUnavailable):
            copy(origin, http, [store], journal, request(structure=Recorder()))
        origin.always = none
        store.sent_parts.clear()

        copy(origin, http, [store], journal)

    assert store.sent_parts == []
    assert stored_in(store) == {KEY: LARGE}


@pytest.mark.parametrize(("error", "kept"), [(UnexpectedContent("webm"), 1), (ErrorPage("<html>"), 0)])
def test_an_upload_whose_first_bytes_are_refused_is_kept_when_they_may_be(
    error: SourceError, kept: int, http: HttpClient
) -> None:
    def refuse(_: bytes, info: SourceInfo | None) -> None:
        raise error

    store, journal = Wrapped(MemoryBackend("store")), Journal()
    with Origin({"/file": LARGE}) as origin:
        with pytest.raises(type(error)):
            copy(origin, http, [store], journal, request(check=refuse))
        assert (open_uploads(store), len(journal.saved)) == (kept, kept)

        copy(origin, http, [store], journal)

    assert stored_in(store) == {KEY: LARGE}
    assert open_uploads(store) == 0


def test_a_plain_stream_goes_on_with_the_parts_that_ranges_brought(http: HttpClient) -> None:
    store, journal = Wrapped(MemoryBackend("store")), Journal()
    with Origin({"/file": LARGE}) as origin:
        origin.script([none] * 4)
        origin.always = for_later_ranges(lambda _, reply: reply.header("Content-Range", None))
        with pytest.raises(RangesUnreliable):
            copy(origin, http, [store], journal, connections=1)
        held = sorted(journal.saved[store.name, KEY].parts)
        store.sent_parts.clear()

        structure = Recorder()
        copy(origin, http, [store], journal, request(structure=structure), how=plain)

    assert held == [1, 2, 3, 4]
    assert sorted(store.sent_parts) == [5, 6, 7, 8, 9]
    assert stored_in(store) == {KEY: LARGE}
    assert structure.whole == LARGE
    assert structure.could_read is False
    assert origin.requests[-1].range is None


def test_a_plain_stream_does_not_trust_a_held_part_of_other_bytes(http: HttpClient) -> None:
    store, journal = Wrapped(MemoryBackend("store")), Journal()
    with Origin({"/file": LARGE}) as origin:
        with pytest.raises(UnexpectedContent):
            copy(origin, http, [store], journal, request(structure=Recorder(UnexpectedContent("no"))))
        other = some_bytes(len(LARGE), seed=8)
        origin.files["/file"] = other  # under the same ETag

        copy(origin, http, [store], journal, how=plain)

    assert stored_in(store) == {KEY: other}

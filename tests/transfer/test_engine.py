from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.http.options import Timeouts
from archiver.ledger.errors import LeaseLost, LedgerUnavailable
from archiver.transfer.base import CHECKED_BYTES, CopyResult, Reader, SavedUpload, SourceInfo
from archiver.transfer.checksums import crc32c
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import (
    BudgetTooSmall,
    SourceMismatch,
    SourceUnavailable,
    Stopped,
    UnexpectedContent,
)
from archiver.transfer.memory import MemoryBudget
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend, object_key
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, Journal, client, request, some_bytes, source
from tests.transfer.origin import Fault, Origin, Reply, Request, cut_at, none, reset_at, status
from tests.transfer.stores import BottomlessStore, OrderedStore, Wrapped, open_uploads, stored_in
from worker.memory import tune_malloc

MIB = 1024 * 1024


@contextmanager
def copying(content: bytes, **engine: object) -> Iterator[Callable[..., Future[CopyResult]]]:
    """An engine on one file; call with stores to copy it."""
    http = client()
    arguments: dict[str, object] = {"memory": MemoryBudget(64 * MIB), "part_bytes": 1000, "policy": HURRIED}
    with Origin({"/file": content}) as origin:
        with TransferEngine(**(arguments | engine)) as running:  # type: ignore[arg-type]
            yield lambda *stores, **ask: running.submit(source(http, origin), request(**ask), stores)
        http.close()


# -- properties ----------------------------------------------------------------------------------------------
faults = st.one_of(
    st.builds(cut_at, st.integers(0, 400)), st.builds(reset_at, st.integers(0, 400)), st.just(status(503))
)


@given(
    size=st.integers(0, 6000),
    part=st.integers(1, 900).map(lambda n: n + n % 2),
    connections=st.integers(1, 6),
    uploads=st.integers(1, 5),
    ranges=st.booleans(),
    cuts=st.lists(st.one_of(st.just(none), faults), max_size=8),
    budget=st.integers(1, 4),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_parts_cuts_and_order_make_the_same_object(
    size: int, part: int, connections: int, uploads: int, ranges: bool, cuts: list[Fault], budget: int
) -> None:
    """In every store at once, one of them ordered, in a memory as small as a single part."""
    content = some_bytes(size)
    stores: list[StorageBackend] = [MemoryBackend("parallel"), OrderedStore(MemoryBackend("ordered"))]
    memory = MemoryBudget(budget * 64 * 1024)
    http = client()
    retrying = replace(HURRIED, attempts=10)
    with Origin({"/file": content}, ranges=ranges) as origin:
        if ranges or size <= part:  # a straight read of several parts is not taken up in the middle
            origin.script(cuts)
        with TransferEngine(
            memory, part_bytes=part, connections=connections, uploads=uploads, policy=retrying
        ) as engine:
            result = engine.submit(source(http, origin), request(), stores).result(timeout=30)
        http.close()

    assert result.failed == {}
    assert (result.size_bytes, result.crc32c) == (size, crc32c(content))
    assert all(stored_in(store) == {KEY: content} for store in stores)
    assert memory.in_use_bytes == 0


@given(pieces=st.lists(st.binary(max_size=700), max_size=12), part=st.integers(1, 500), known=st.booleans())
@settings(max_examples=50, deadline=None)
def test_any_chunks_make_the_same_object(pieces: list[bytes], part: int, known: bool) -> None:
    content = b"".join(pieces)
    store = OrderedStore(MemoryBackend("ordered"))
    with TransferEngine(MemoryBudget(MIB), part_bytes=part) as engine:
        ask = request(size_bytes=len(content) if known else None, crc32c=crc32c(content))

        result = engine.submit_chunks(iter(pieces), ask, [store]).result(timeout=30)

    assert result.size_bytes == len(content)
    assert stored_in(store) == {KEY: content}


# -- chunks --------------------------------------------------------------------------------------------------
class Corrupt(Exception):
    pass


@pytest.mark.parametrize("good", [0, 1, 5])
def test_what_chunks_raise_is_raised_and_nothing_becomes_visible(good: int) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [bytes(700)] * good
        raise Corrupt

    store = MemoryBackend("store")
    with TransferEngine(MemoryBudget(MIB), part_bytes=1000) as engine, pytest.raises(Corrupt):
        engine.submit_chunks(chunks(), request(), [store])

    assert stored_in(store) == {}
    assert open_uploads(store) == 0


@pytest.mark.parametrize("ask", [{"size_bytes": 4999}, {"crc32c": 1}, {"check": "refuses"}])
def test_chunks_that_do_not_check_out_are_read_to_their_end_all_the_same(ask: dict[str, object]) -> None:
    """They come from a stream that holds the next member, too."""

    def refuse(_: bytes, info: SourceInfo | None) -> None:
        assert info is None
        raise UnexpectedContent("not a video")

    store, pieces = MemoryBackend("store"), iter([bytes(500)] * 10)
    with TransferEngine(MemoryBudget(MIB), part_bytes=1000) as engine:
        future = engine.submit_chunks(
            pieces, request(**ask | ({"check": refuse} if "check" in ask else {})), [store]
        )

        assert isinstance(future.exception(timeout=20), SourceMismatch)
    assert next(pieces, None) is None
    assert stored_in(store) == {}
    assert open_uploads(store) == 0


def test_chunks_that_end_early_are_the_wrong_file_not_a_cut_connection() -> None:
    with TransferEngine(MemoryBudget(MIB), part_bytes=1000) as engine:
        future = engine.submit_chunks([bytes(10)], request(size_bytes=11), [MemoryBackend("store")])

        assert isinstance(future.exception(timeout=20), SourceMismatch)


def test_an_endless_body_is_left_where_the_expected_length_ends() -> None:
    class Endless(Generated):
        def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
            return self.info, _GeneratedReader(10**15)

    store = MemoryBackend("store")
    with TransferEngine(MemoryBudget(MIB), part_bytes=1000) as engine:
        future = engine.submit(Endless(0, ranges=False), request(size_bytes=5000), [store])

        assert isinstance(future.exception(timeout=20), SourceMismatch)
    assert stored_in(store) == {}


# -- what is asked for and told ------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, CHECKED_BYTES, CHECKED_BYTES + 1, 20_000])
def test_check_sees_the_first_bytes_and_what_the_source_says(size: int) -> None:
    seen: list[tuple[bytes, SourceInfo | None]] = []
    content = some_bytes(size)
    with copying(content, part_bytes=6000) as copy:
        result = copy(MemoryBackend("store"), check=lambda *reported: seen.append(reported)).result(
            timeout=20
        )

    assert seen == [(content[:CHECKED_BYTES], result.source)]
    assert result.source is not None
    assert result.source.size_bytes == size


def test_bytes_are_reported_as_they_come() -> None:
    counted: list[tuple[ObjectKey, int]] = []
    with copying(some_bytes(2500), on_bytes=lambda key, count: counted.append((key, count))) as copy:
        copy(MemoryBackend("store")).result(timeout=20)

    assert sorted(counted) == [(KEY, 500), (KEY, 1000), (KEY, 1000)]


def test_content_type_and_metadata_arrive() -> None:
    store = MemoryBackend("store")
    with copying(some_bytes(2500)) as copy:
        copy(store, metadata={"asset": "a1"}).result(timeout=20)

    assert store.store.objects[KEY].metadata == {"asset": "a1"}
    assert store.store.objects[KEY].info.content_type == "video/mp4"


def test_a_part_that_exceeds_the_memory_is_refused_with_both_numbers() -> None:
    with copying(some_bytes(300_000), memory=MemoryBudget(100_000), part_bytes=200_000) as copy:
        error = copy(MemoryBackend("store")).exception(timeout=20)

    assert isinstance(error, BudgetTooSmall)
    assert "200000 bytes does not fit into the 100000" in str(error)


@pytest.mark.parametrize("stores", [[], [MemoryBackend("same"), MemoryBackend("same")]])
def test_stores_must_be_told_apart(stores: list[StorageBackend]) -> None:
    with copying(b"x") as copy, pytest.raises(ValueError, match="distinct"):
        copy(*stores)


def test_a_journal_that_is_away_costs_nothing_but_resumption() -> None:
    class Away(Journal):
        def load(self, store: str, key: ObjectKey) -> SavedUpload | None:
            raise LedgerUnavailable

        def begun(self, store: str, key: ObjectKey, upload: SavedUpload) -> None:
            raise LedgerUnavailable

        def part_done(self, store: str, key: ObjectKey, part: Part) -> None:
            raise LedgerUnavailable

        def forget(self, store: str, key: ObjectKey) -> None:
            raise LedgerUnavailable

    store = MemoryBackend("store")
    with copying(some_bytes(4000), journal=Away()) as copy:
        assert copy(store).result(timeout=20).failed == {}


def test_a_lost_lease_stops_the_copy_and_touches_nothing() -> None:
    def lost(_: object) -> None:
        raise LeaseLost

    journal, store = Journal(), MemoryBackend("store")
    journal.on_part = lost
    with copying(some_bytes(4000), journal=journal) as copy, pytest.raises(LeaseLost):
        copy(store).result(timeout=20)

    assert stored_in(store) == {}
    assert open_uploads(store) == 1
    assert len(journal.saved) == 1


# -- stopping ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["source", "no room", "memory"])
def test_leaving_on_an_exception_ends_all_requests_within_two_seconds(where: str) -> None:
    class Leaving(BaseException):
        pass

    http = client(Timeouts())  # thirty seconds of silence are allowed
    store = MemoryBackend("store")
    memory = MemoryBudget(128 * 1024 if where == "memory" else 64 * MIB)
    stalled = threading.Event()

    def stall(_: Request, reply: Reply) -> Reply:
        stalled.set()
        return replace(reply, stall_at=10)

    with Origin({"/file": some_bytes(200_000)}, always=stall) as origin:
        engine = TransferEngine(memory, part_bytes=50_000, connections=4, policy=HURRIED)
        copies = 30 if where == "no room" else 3
        futures = [engine.submit(source(http, origin), request(), [store]) for _ in range(copies)]
        stalled.wait(10)

        began = time.monotonic()
        with pytest.raises(Leaving), engine:
            raise Leaving
        took = time.monotonic() - began
        http.close()

        assert took < 2
        assert origin.left_within(seconds=5), "its connections are still open"
        assert all(isinstance(future.exception(timeout=0), Stopped) for future in futures)
    assert memory.in_use_bytes == 0


def test_what_should_stop_raises_is_in_the_futures() -> None:
    class ShuttingDown(Exception):
        pass

    reported = threading.Event()

    def should_stop() -> None:
        if reported.is_set():
            raise ShuttingDown

    http = client(Timeouts())
    with Origin({"/file": some_bytes(5000)}, always=lambda _, p: replace(p, stall_at=1)) as origin:
        with TransferEngine(
            MemoryBudget(MIB), part_bytes=1000, should_stop=should_stop, policy=HURRIED
        ) as engine:
            future = engine.submit(source(http, origin), request(), [MemoryBackend("store")])
            reported.set()

            with pytest.raises(ShuttingDown):
                future.result(timeout=5)
            with pytest.raises((ShuttingDown, Stopped)):
                engine.submit(source(http, origin), request(), [MemoryBackend("store")])
        http.close()


def test_leaving_with_a_store_that_hangs_does_not_wait_for_it() -> None:
    hanging, entered = threading.Event(), threading.Event()

    class Hanging(Wrapped):
        def put(self, spec: ObjectSpec, data: object, crc32c: int) -> ObjectInfo:
            entered.set()
            hanging.wait(20)
            raise AssertionError("too late to matter")

    with Origin({"/file": b"small"}) as origin:
        http = client()
        with TransferEngine(MemoryBudget(MIB)) as engine:
            future = engine.submit(source(http, origin), request(), [Hanging(MemoryBackend("store"))])
            entered.wait(10)
            began = time.monotonic()
        took = time.monotonic() - began
        http.close()
    hanging.set()

    assert took < 3
    assert isinstance(future.exception(timeout=0), Stopped)


def test_an_engine_with_nothing_to_do_leaves_at_once() -> None:
    began = time.monotonic()
    with TransferEngine(MemoryBudget(MIB)):
        pass

    assert time.monotonic() - began < 0.5


# -- memory --------------------------------------------------------------------------------------------------
class Generated:
    """A source without a network: any range of an endless pattern, made on the spot."""

    name = "https://source.example/generated"
    pattern = memoryview(some_bytes(MIB) * 2)

    def __init__(self, size_bytes: int, ranges: bool = True) -> None:
        self.info = SourceInfo(size_bytes if ranges else None, ranges, '"e"')
        self.size_bytes = size_bytes

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        return self.info, _GeneratedReader(
            min(first_bytes, self.size_bytes) if self.info.ranges else self.size_bytes
        )

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        for at in range(0, len(into), MIB):
            piece = into[at : at + MIB]
            offset = (start + at) % MIB
            piece[:] = self.pattern[offset : offset + len(piece)]


class _GeneratedReader:
    def __init__(self, size_bytes: int) -> None:
        self._at, self._size = 0, size_bytes

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), self._size - self._at, MIB)
        buffer[:count] = Generated.pattern[self._at % MIB : self._at % MIB + count]
        self._at += count
        return count

    def close(self) -> None:
        return


@pytest.mark.parametrize("ranges", [True, False])
def test_a_large_object_passes_in_the_memory_it_was_given(ranges: bool) -> None:
    """512 MiB through a budget of 24 MiB, by the budget's word and by the kernel's."""
    tune_malloc()  # as a worker does
    memory = MemoryBudget(24 * MIB)
    process = psutil.Process()
    gc.collect()
    before, peak = process.memory_info().rss, 0

    def look(*_: object) -> None:
        nonlocal peak
        peak = max(peak, process.memory_info().rss)

    with TransferEngine(memory, part_bytes=4 * MIB, on_bytes=look) as engine:
        future = engine.submit(Generated(512 * MIB, ranges), request(), [BottomlessStore("bottomless")])
        result = future.result(timeout=60)

    assert result.size_bytes == 512 * MIB
    assert memory.peak_bytes <= 24 * MIB
    assert peak - before < 24 * MIB + 16 * MIB  # threads' stacks, and what allocators keep


def test_many_small_objects_are_never_all_in_flight() -> None:
    memory = MemoryBudget(4 * MIB)
    done = 0
    with TransferEngine(memory, part_bytes=8 * MIB, connections=8, uploads=4) as engine:
        pending: list[Future[CopyResult]] = []
        for number in range(3000):
            ask = replace(request(), key=object_key(f"asset/{number}.ts"))
            pending.append(engine.submit(Generated(100_000), ask, [BottomlessStore("bottomless")]))
            unfinished = [future for future in pending if not future.done()]
            done += len(pending) - len(unfinished)
            pending = unfinished
            assert len(pending) <= 2 * (8 + 4)
        done += sum(future.result(timeout=20).size_bytes == 100_000 for future in pending)

    assert done == 3000
    assert memory.peak_bytes <= 4 * MIB
    assert memory.in_use_bytes == 0


def test_copies_that_share_a_small_memory_do_not_block_each_other() -> None:
    """Ordered stores, many parts, room for two of them: whoever holds memory can always go on."""
    memory = MemoryBudget(2 * 64 * 1024)
    stores = [OrderedStore(MemoryBackend(f"store-{n}")) for n in range(2)]
    content = some_bytes(60_000 * 5)
    http = client()
    with Origin({"/file": content}) as origin:
        with (
            TransferEngine(memory, part_bytes=60_000, connections=6, uploads=3, policy=HURRIED) as one,
            TransferEngine(memory, part_bytes=60_000, connections=6, uploads=3, policy=HURRIED) as two,
        ):
            futures = [
                engine.submit(source(http, origin), replace(request(), key=object_key(f"{name}/{n}")), stores)
                for n in range(4)
                for name, engine in (("one", one), ("two", two))
            ]
            results = [future.result(timeout=60) for future in futures]
        http.close()

    assert all(result.failed == {} for result in results)
    assert all(set(stored_in(store).values()) == {content} for store in stores)


def test_an_unavailable_source_does_not_hold_memory_afterwards() -> None:
    memory = MemoryBudget(MIB)
    http = client()
    with Origin({"/file": some_bytes(5000)}) as origin:
        origin.script([none])
        origin.always = status(503)
        with TransferEngine(memory, part_bytes=1000, policy=HURRIED) as engine:
            future = engine.submit(source(http, origin), request(), [MemoryBackend("store")])
            assert isinstance(future.exception(timeout=20), SourceUnavailable)
        http.close()

    assert memory.in_use_bytes == 0


def test_a_source_that_asks_for_less_gets_fewer_connections() -> None:
    http, content = client(), some_bytes(10_000)
    with Origin({"/file": content}) as origin:
        origin.script([status(503)] * 2)
        with TransferEngine(MemoryBudget(MIB), part_bytes=1000, connections=8, policy=HURRIED) as engine:
            submitted = engine.submit(source(http, origin), request(), [MemoryBackend("store")])
            assert submitted.result(timeout=20).size_bytes == len(content)
            narrowed = engine._tools.connections.limit
        http.close()

    assert 4 <= narrowed < 8

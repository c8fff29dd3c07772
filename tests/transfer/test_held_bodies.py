"""A body that is here already, held by `HttpSource.peek`: it is copied in the thread that submits it, where that thread
waits for nobody else."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from archiver.http.runtime import ProcessRuntime
from archiver.http.transfer import WINDOW_BYTES
from archiver.http.waiting import Ended, Wait
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.base import CHECKED_BYTES, CopyRequest, KnownCopy
from archiver.transfer.checksums import crc32c
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import (
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    Stopped,
    UnexpectedContent,
)
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import AccessDenied, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, client, expired_before, request, some_bytes, source
from tests.transfer.origin import Fault, Origin, Reply, Request, cut_at, none, reset_at, status
from tests.transfer.stores import Wrapped, stored_in

SMALL_BYTES = 64 * 1024
CONTENT = some_bytes(5000)


class Threads(ProcessRuntime):
    """A runtime that counts what the engine's thread is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told = 0
        real = self.call_soon

        def call_soon(action: Callable[[], None]) -> None:
            self.told += 1
            real(action)

        self.call_soon = call_soon


class Store(Wrapped):
    """Raises each of `errors` once, and notes the threads of its puts."""

    def __init__(self, name: str, errors: Sequence[StorageError] = ()) -> None:
        super().__init__(MemoryBackend(name))
        self.errors = list(errors)
        self.threads: set[threading.Thread] = set()

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self.threads.add(threading.current_thread())
        if self.errors:
            raise self.errors.pop(0)
        return super().put(spec, data, crc32c)


class Sending(Store):
    """Its requests are ended by a thread of its own, as those of a store over HTTP are."""

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self.threads.add(threading.current_thread())
        return await Sent(lambda: self.inner.put(spec, data, crc32c))


class Sent(Wait[ObjectInfo]):
    def __init__(self, put: Callable[[], ObjectInfo]) -> None:
        self._put = put

    def start(self, ended: Ended) -> None:
        threading.Thread(target=lambda: ended(self._put(), None), name="a store's loop").start()


class Unanswered(Wait[ObjectInfo]):
    def __init__(self) -> None:
        self.cancelled = False

    def start(self, ended: Ended) -> None:
        return

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = client()
    yield made
    made.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin({"/file": CONTENT}) as made:
        yield made


@pytest.fixture
def held(http: HttpClient, origin: Origin) -> HttpSource:
    made = source(http, origin)
    assert made.peek(SMALL_BYTES)[1] == CONTENT
    return made


def make_engine(runtime: ProcessRuntime, **options: object) -> TransferEngine:
    return TransferEngine(MemoryBudget(1 << 24), policy=HURRIED, runtime=runtime, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Store, Sending], ids=["a store that blocks", "a store that sends"])
def test_it_is_copied_in_the_thread_that_submits_it_and_the_engines_is_not_told(
    held: HttpSource, origin: Origin, kind: type[Store]
) -> None:
    store, runtime, counted = kind("one"), Threads(), list[tuple[ObjectKey, int]]()
    with make_engine(runtime, on_bytes=lambda key, count: counted.append((key, count))) as engine:
        future = engine.submit(held, request(size_bytes=len(CONTENT)), [store])

        assert future.done()
        assert future.result().crc32c == crc32c(CONTENT)
        assert engine.confirm() == {}
    assert stored_in(store) == {KEY: CONTENT}
    assert store.threads == {threading.current_thread()}
    assert runtime.told == 0
    assert counted == [(KEY, len(CONTENT))]
    assert len(origin.requests) == 1


@dataclass(frozen=True)
class Elsewhere:
    says: str
    stores: Callable[[], list[Store]] = field(default=lambda: [Store("one")])
    ask: CopyRequest = field(default_factory=request)
    part_bytes: int = SMALL_BYTES


ELSEWHERE = [
    Elsewhere("one of two stores must not wait for the other", lambda: [Store("one"), Store("two")]),
    Elsewhere("its response may be another's", ask=request(fresh=True)),
    Elsewhere(
        "it is asked for in another way, to compare", ask=request(known=KnownCopy(1, 1, '"of before"'))
    ),
    Elsewhere("it is more than one part", part_bytes=1000),
]


@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda case: case.says)
def test_whatever_else_must_be_waited_for_is_left_to_the_engines_thread(
    held: HttpSource, case: Elsewhere
) -> None:
    stores, runtime = case.stores(), Threads()
    with make_engine(runtime, part_bytes=case.part_bytes) as engine:
        assert engine.submit(held, case.ask, stores).result(10).failed == {}

    assert all(stored_in(store) == {KEY: CONTENT} for store in stores)
    assert all(threading.current_thread() not in store.threads for store in stores)
    assert runtime.told > 0


def test_it_is_left_to_the_engines_thread_that_has_begun_another(
    http: HttpClient, held: HttpSource, origin: Origin
) -> None:
    """Slots are taken in one thread alone."""
    store = Store("one")
    with make_engine(Threads()) as engine:
        engine.submit(source(http, origin), request(), [Store("other")]).result(10)

        engine.submit(held, request(), [store]).result(10)

    assert threading.current_thread() not in store.threads


def refuse(_start: bytes, _info: object) -> None:
    raise UnexpectedContent("not what it should be")


@dataclass(frozen=True)
class Refused:
    says: str
    ask: CopyRequest
    error: type[Exception]


@pytest.mark.parametrize(
    "case",
    [
        Refused("longer than it must be", request(size_bytes=len(CONTENT) - 1), SourceMismatch),
        Refused("with another checksum", request(crc32c=crc32c(CONTENT) ^ 1), SourceMismatch),
        Refused("of another kind", request(check=refuse), UnexpectedContent),
    ],
    ids=lambda case: case.says,
)
def test_it_gets_all_checks_before_anything_is_visible(held: HttpSource, case: Refused) -> None:
    store, runtime = Store("one"), Threads()
    with make_engine(runtime) as engine:
        future = engine.submit(held, case.ask, [store])

        with pytest.raises(case.error):
            future.result()
    assert stored_in(store) == {}
    assert runtime.told == 0


@dataclass(frozen=True)
class Failing:
    says: str
    errors: Sequence[StorageError]
    puts: int
    stored: bool


@pytest.mark.parametrize(
    "case",
    [
        Failing("for a moment", [TransientStorageError("busy")] * 2, puts=3, stored=True),
        Failing("for good", [AccessDenied("no")], puts=1, stored=False),
        Failing("again and again", [TransientStorageError("busy")] * 9, puts=4, stored=False),
    ],
    ids=lambda case: case.says,
)
def test_a_store_that_fails_is_tried_again_or_named(held: HttpSource, case: Failing) -> None:
    store = Store("one", case.errors)
    with make_engine(Threads()) as engine:
        result = engine.submit(held, request(), [store]).result()

    assert list(result.stored if case.stored else result.failed) == [store.name]
    assert (stored_in(store) == {KEY: CONTENT}) is case.stored
    assert len(case.errors) - len(store.errors) + case.stored == case.puts


def test_a_stop_ends_what_is_tried_again(held: HttpSource) -> None:
    stopped = False

    def should_stop() -> None:
        if stopped:
            raise Stopped("the worker ends")

    class Silent(Store):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            nonlocal stopped
            stopped = True
            self.threads.add(threading.current_thread())
            raise TransientStorageError("no answer")

    store, runtime = Silent("one"), Threads()
    with make_engine(runtime, should_stop=should_stop) as engine:
        future = engine.submit(held, request(), [store])

        with pytest.raises(Stopped, match="the worker ends"):
            future.result()
        with pytest.raises(Stopped):
            engine.submit(held, request(), [store])
    assert runtime.told == 0


def test_a_stop_ends_a_request_that_a_store_does_not_answer(held: HttpSource) -> None:
    unanswered = Unanswered()

    class Silent(Store):
        async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            self.threads.add(threading.current_thread())
            return await unanswered

    store = Silent("one")

    def should_stop() -> None:
        if store.threads:
            raise Stopped("the worker ends")

    with make_engine(Threads(), should_stop=should_stop) as engine:
        future = engine.submit(held, request(), [store])

        with pytest.raises(Stopped, match="the worker ends"):
            future.result()
    assert unanswered.cancelled


def test_what_a_signal_raises_in_the_middle_is_in_the_future(held: HttpSource) -> None:
    class TimeIsUp(Exception):
        pass

    class Interrupted(Store):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            raise TimeIsUp

    with make_engine(Threads()) as engine:
        future = engine.submit(held, request(), [Interrupted("one")])

        with pytest.raises(TimeIsUp):
            future.result()


def test_one_copy_after_another_finds_room(http: HttpClient, origin: Origin) -> None:
    store: StorageBackend = MemoryBackend("one")
    with make_engine(Threads(), connections=1, uploads=1) as engine:
        for _ in range(10):
            one = source(http, origin)
            one.peek(SMALL_BYTES)
            engine.submit(one, request(), [store]).result()


# -- peek: the first request of a small file -------------------------------------------------------------------
def moved(request: Request, reply: Reply) -> Reply:
    return reply if request.number else Reply(302, (("Location", "/file?moved"),), b"over there")


def longer(_: Request, reply: Reply) -> Reply:
    """Without a range, and without saying how long it is."""
    return Reply(200, body=LONGER, announce=None)


def chunked(_: Request, reply: Reply) -> Reply:
    return Reply(200, body=CONTENT, chunked=True)


def packed(_: Request, reply: Reply) -> Reply:
    return Reply(200, (("Content-Encoding", "gzip"),), gzip.compress(CONTENT))


LONGER = some_bytes(3 * WINDOW_BYTES)


@dataclass(frozen=True)
class Peek:
    """`holds`: whether the copy needs no other request."""

    says: str
    fault: Fault = none
    file: bytes = CONTENT
    connections: int = 1
    holds: bool = False


@pytest.mark.parametrize(
    "case",
    [
        Peek("all of it", holds=True),
        Peek("after a redirect, over connections of their own", moved, connections=2, holds=True),
        Peek("after a refusal, by a fresh signature", expired_before(2), connections=2, holds=True),
        Peek("of a larger one, the first part", file=LONGER),
        Peek("of one whose length is not known, as much as is looked at", longer, LONGER),
        Peek("in chunks", chunked),
        Peek("unpacked", packed),
    ],
    ids=lambda case: case.says,
)
def test_the_thread_that_peeks_carries_its_requests(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch, case: Peek
) -> None:
    monkeypatch.setattr("archiver.transfer.http.process_runtime", pytest.fail)
    with Origin({"/file": case.file}, always=case.fault) as origin:
        one = source(http, origin)

        start = one.peek(SMALL_BYTES)[1]

        assert case.file.startswith(start)
        assert len(start) >= min(CHECKED_BYTES, len(case.file))
        assert one.holds(SMALL_BYTES) is case.holds
        assert not one.holds(len(CONTENT) - 1)
        assert origin.connections == case.connections
        assert origin.left_within(10)


def test_the_thread_that_peeks_keeps_to_the_address_policy(origin: Origin) -> None:
    public = HttpClient(AddressPolicy())

    with pytest.raises(SourceNotAllowed):
        source(public, origin).peek(SMALL_BYTES)

    assert origin.requests == []
    public.close()


def test_the_thread_that_peeks_goes_on_after_an_error(http: HttpClient, origin: Origin) -> None:
    origin.script([status(503), cut_at(10), reset_at(10)])
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            source(http, origin).peek(SMALL_BYTES)

    assert source(http, origin).peek(SMALL_BYTES)[1] == CONTENT

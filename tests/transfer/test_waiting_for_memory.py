"""A response waits for memory, which is reserved only once it is there; not for ever, and never for a later part."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import Pause
from archiver.limits.rate_limit import RateLimit
from archiver.retry_policy import REQUEST
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.addresses import FixedAddress
from archiver.transfer.bandwidth import UNLIMITED, Bandwidth
from archiver.transfer.base import CopyResult
from archiver.transfer.engine import TransferEngine
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.intake import PATIENCE_SECONDS
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend, object_key
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import Journal, request, some_bytes
from tests.transfer.single_threaded import InMemorySession, SingleThreaded
from tests.transfer.stores import OrderedStore, Wrapped, WrappedUpload, stored_in

PART_BYTES = 1000
ONCE = replace(REQUEST, attempts=1)
LIMITED = Bandwidth(RateLimit("bandwidth", lambda: 1e9, lambda _name, _amount, _rate: 0.0))


class Impatient(InMemorySession):
    """Its server closes the connection while a response waits, which shows once that is read."""

    def unpause(self, transfer: Transfer) -> None:
        self.cancel(transfer)


class Client(HttpClient):
    """Its server has `files`, and sends ranges of them."""

    def __init__(
        self,
        runtime: SingleThreaded,
        files: dict[str, bytes],
        session: type[InMemorySession] = InMemorySession,
    ) -> None:
        super().__init__(AddressPolicy())
        self.runtime = runtime
        self.made = session(runtime, self._serve)
        self.lengths = True  # whether responses say how long they are
        self._files = files

    def session(self) -> Session:
        return self.made  # type: ignore[return-value] # as much of it as the engine asks for

    def _serve(self, asked: Request) -> tuple[list[bytes], bytes]:
        content = self._files[asked.url.removeprefix("https://source.example/")]
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers["Range"])
        assert found is not None
        if not self.lengths:
            return [b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n"], content
        start, end = int(found[1]), min(int(found[2]), len(content) - 1)
        head = [
            b"HTTP/1.1 206 Partial Content\r\n",
            b'ETag: "one"\r\n',
            f"Content-Range: bytes {start}-{end}/{len(content)}\r\n".encode(),
            f"Content-Length: {end + 1 - start}\r\n".encode(),
            b"\r\n",
        ]
        return head, content[start : end + 1]

    def source(self, path: str) -> HttpSource:
        url = SecretUrl(f"https://source.example/{path}")
        return HttpSource(self, FixedAddress(Address(url, {}, frozenset({url.origin}))))

    def asked_for(self, path: str) -> Sequence[str]:
        return [asked.headers["Range"] for asked in self.made.requests if asked.url.endswith(path)]


class Slow(Wrapped):
    """Takes `seconds` for each request."""

    def __init__(self, seconds: float) -> None:
        super().__init__(MemoryBackend("slow"))
        self.seconds = seconds

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        await Pause(self.seconds)
        return self.inner.put(spec, data, crc32c)

    def upload(self, inner: object) -> SlowUpload:
        return SlowUpload(self, inner)  # type: ignore[arg-type]


class SlowUpload(WrappedUpload):
    store: Slow

    async def send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        await Pause(self.store.seconds)
        return self.inner.put_part(number, data, crc32c)


def engine_on(
    runtime: SingleThreaded,
    memory: MemoryBudget,
    connections: int = 16,
    bandwidth: Bandwidth = UNLIMITED,
) -> TransferEngine:
    def in_time() -> None:
        if runtime.now > 3600:
            raise AssertionError("they wait for each other")

    return TransferEngine(
        memory,
        part_bytes=PART_BYTES,
        connections=connections,
        policy=ONCE,
        bandwidth=bandwidth,
        should_stop=in_time,
        runtime=runtime,
    )


def key_of(path: str) -> ObjectKey:
    return object_key(path)


@dataclass(frozen=True)
class Waits:
    """Two files, the second of which is begun while the first has all of the memory, or one in two parts. `asked`: the
    requests for the last of them when memory comes in time; `again`: when it does not."""

    says: str
    files: dict[str, bytes]
    asked: Sequence[str]
    again: Sequence[str]


WAITS = [
    Waits(
        "all of a small file",
        {"one": some_bytes(PART_BYTES), "two": some_bytes(PART_BYTES, 8)},
        ["bytes=0-999"],
        ["bytes=0-999"] * 2,
    ),
    Waits(
        "the first part of a large one",
        {"one": some_bytes(PART_BYTES), "two": some_bytes(PART_BYTES + 5, 8)},
        ["bytes=0-999", "bytes=1000-1004"],
        ["bytes=0-999", "bytes=1000-1004"] * 2,
    ),
    Waits(
        "a part after it",
        {"one": some_bytes(2 * PART_BYTES)},
        ["bytes=0-999", "bytes=1000-1999"],
        ["bytes=0-999", "bytes=1000-1999", "bytes=1000-1999"],
    ),
]


@dataclass(frozen=True)
class Delay:
    """`seconds`: of the store that has the memory. `again`: whether what waits is requested again."""

    says: str
    seconds: float
    again: bool
    session: type[InMemorySession] = InMemorySession


DELAYS = [
    Delay("in time", PATIENCE_SECONDS / 2, again=False),
    Delay("late", 6 * PATIENCE_SECONDS, again=True),
    Delay("in time for us, late for the source", PATIENCE_SECONDS / 2, again=True, session=Impatient),
]


@pytest.mark.parametrize("delay", DELAYS, ids=lambda delay: delay.says)
@pytest.mark.parametrize("case", WAITS, ids=lambda case: case.says)
def test_what_waits_for_memory_is_requested_again_only_when_it_waits_too_long(
    case: Waits, delay: Delay
) -> None:
    """The source, which closes the connection in the end, is blamed for nothing: there is one attempt."""
    runtime, memory = SingleThreaded(), MemoryBudget(PART_BYTES + 5)
    client, store = Client(runtime, case.files, delay.session), Slow(delay.seconds)
    with engine_on(runtime, memory) as engine:
        futures = [
            engine.submit(client.source(path), replace(request(), key=key_of(path)), [store])
            for path in case.files
        ]
        results: list[CopyResult] = [future.result() for future in futures]

    assert [result.failed for result in results] == [{}] * len(results)
    assert stored_in(store) == {key_of(path): content for path, content in case.files.items()}
    last = list(case.files)[-1]
    assert client.asked_for(last) == (case.again if delay.again else case.asked)
    assert (memory.in_use_bytes, memory.waiting) == (0, 0)


def test_what_was_reserved_for_another_response_than_the_one_that_came_is_given_back() -> None:
    runtime, memory = SingleThreaded(), MemoryBudget(2 * PART_BYTES)
    client = Client(runtime, {"one": some_bytes(PART_BYTES)})
    taken = [memory.try_reserve(PART_BYTES), memory.try_reserve(500)]

    def change() -> None:
        client.lengths = False
        for reservation in taken:
            assert reservation is not None
            reservation.release()

    runtime.call_later(2 * PATIENCE_SECONDS, change)
    store = MemoryBackend("store")
    with engine_on(runtime, memory) as engine:
        asked = request(size_bytes=PART_BYTES)
        assert engine.submit(client.source("one"), asked, [store]).result().failed == {}

    assert list(stored_in(store).values()) == [some_bytes(PART_BYTES)]
    assert memory.in_use_bytes == 0


def test_the_start_of_what_is_resumed_may_come_late_too() -> None:
    class Killed(BaseException):
        pass

    def die(_key: object, _count: int) -> None:
        if journal.saved and any(upload.parts for upload in journal.saved.values()):
            raise Killed

    content, journal, store = some_bytes(5 * PART_BYTES), Journal(), MemoryBackend("store")
    asked = request(size_bytes=len(content))

    def copy(client: Client, memory: MemoryBudget, on_bytes: Callable[[ObjectKey, int], None]) -> CopyResult:
        engine = TransferEngine(
            memory,
            part_bytes=PART_BYTES,
            policy=ONCE,
            journal=journal,
            on_bytes=on_bytes,
            runtime=client.runtime,
        )
        with engine:
            return engine.submit(client.source("one"), asked, [store]).result()

    with pytest.raises(Killed):
        copy(Client(SingleThreaded(), {"one": content}), MemoryBudget(3 * PART_BYTES), die)

    memory = MemoryBudget(len(content))
    taken = memory.try_reserve(len(content))
    assert taken is not None
    client = Client(SingleThreaded(), {"one": content})
    client.runtime.call_later(2 * PATIENCE_SECONDS, taken.release)
    assert copy(client, memory, lambda _key, _count: None).failed == {}

    assert list(stored_in(store).values()) == [content]
    assert client.asked_for("one").count("bytes=0-4095") == 2
    assert memory.in_use_bytes == 0


def test_after_one_that_was_late_memory_is_reserved_first() -> None:
    """A store that is slow for hours costs each connection one request, not one for each part."""
    runtime, memory = SingleThreaded(), MemoryBudget(PART_BYTES)
    content = some_bytes(20 * PART_BYTES)
    client, store = Client(runtime, {"one": content}), Slow(2 * PATIENCE_SECONDS)
    with engine_on(runtime, memory, connections=4) as engine:
        assert engine.submit(client.source("one"), request(), [store]).result().failed == {}

    assert len(client.asked_for("one")) <= 20 + 4
    assert list(stored_in(store).values()) == [content]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("bandwidth", [UNLIMITED, LIMITED], ids=["unlimited", "limited"])
def test_a_part_never_waits_for_memory_of_one_that_waits_for_it(
    bandwidth: Bandwidth, parts: int, seed: int
) -> None:
    """A store that takes parts in order makes the later hold their memory until the earlier are stored, so these get
    memory first, in whatever order bandwidth is given and their responses come."""
    runtime, memory = SingleThreaded(seed=seed), MemoryBudget(parts * PART_BYTES)
    content = some_bytes(12 * PART_BYTES)
    stores: list[StorageBackend] = [OrderedStore(MemoryBackend("in order")), MemoryBackend("in any")]
    client = Client(runtime, {"one": content})
    with engine_on(runtime, memory, connections=4, bandwidth=bandwidth) as engine:
        assert engine.submit(client.source("one"), request(), stores).result().failed == {}

    assert all(list(stored_in(store).values()) == [content] for store in stores)


@pytest.mark.parametrize("seconds", [PATIENCE_SECONDS / 2, 2 * PATIENCE_SECONDS], ids=["waiting", "late"])
def test_a_copy_that_is_stopped_leaves_the_queue(seconds: float) -> None:
    runtime, memory = SingleThreaded(), MemoryBudget(PART_BYTES)
    client = Client(runtime, {"one": some_bytes(5 * PART_BYTES)})
    taken = memory.try_reserve(PART_BYTES)
    assert taken is not None
    ended = runtime.future()
    runtime.call_later(seconds, lambda: ended.set_result(None))
    with engine_on(runtime, memory) as engine:
        future = engine.submit(client.source("one"), request(), [MemoryBackend("store")])
        ended.result()
        assert not future.done()
    assert future.exception() is not None
    assert memory.waiting == 0

    taken.release()
    assert memory.in_use_bytes == 0


@pytest.mark.parametrize("seed", range(60))
def test_what_comes_for_a_copy_that_was_stopped_takes_no_memory(seed: int) -> None:
    """A head may come between a request's cancellation and its end."""
    runtime, memory = SingleThreaded(seed=seed), MemoryBudget(3 * PART_BYTES)
    client = Client(runtime, {"one": some_bytes(12 * PART_BYTES)})
    stores: list[StorageBackend] = [OrderedStore(MemoryBackend("in order")), MemoryBackend("in any")]
    with engine_on(runtime, memory, connections=4) as engine:
        future = engine.submit(client.source("one"), request(), stores[seed % 2 :])
        for _ in range(2 * seed):
            runtime.step()
    while runtime.step():
        pass

    assert future.done()
    assert (memory.in_use_bytes, memory.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size_bytes", [PART_BYTES, 5 * PART_BYTES])
def test_memory_that_is_granted_as_the_copy_is_stopped_is_given_back(size_bytes: int, seed: int) -> None:
    """Even where the engine's thread has not heard of it when it does its last."""
    runtime, memory = SingleThreaded(seed=seed), MemoryBudget(PART_BYTES)
    client = Client(runtime, {"one": some_bytes(size_bytes)})
    taken = memory.try_reserve(PART_BYTES)
    assert taken is not None
    with engine_on(runtime, memory) as engine:
        engine.submit(client.source("one"), request(), [MemoryBackend("store")])
        while not memory.waiting:
            assert runtime.step()
        taken.release()

    assert memory.in_use_bytes == 0

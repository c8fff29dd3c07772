"""Every byte that is read of a source is taken from the bandwidth of all workers, once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from archiver.limits.rate_limit import RateLimit
from archiver.transfer.bandwidth import Bandwidth
from archiver.transfer.engine import TransferEngine
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from storage_backends.memory import MemoryBackend
from tests.transfer import origin as fault
from tests.transfer.builders import HURRIED, client, request, some_bytes, source
from tests.transfer.origin import Fault, Origin, none
from tests.transfer.stores import stored_in

SMALL, LARGE = some_bytes(700), some_bytes(45_000)
PART_BYTES = 4096


class Counted(RateLimit):
    """Counts what is reserved; `seconds` is what each reservation has to wait."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("copy", lambda: 1e6, lambda *_: 0.0)
        self.amounts: list[float] = []
        self.corrected = 0.0
        self.seconds = seconds

    def reserve(self, amount: float) -> float:
        self.amounts.append(amount)
        return self.seconds

    def correct(self, amount: float) -> None:
        self.corrected += amount

    @property
    def taken(self) -> float:
        return sum(self.amounts) + self.corrected


@pytest.fixture
def http() -> HttpClient:
    return client()


def engine(limit: RateLimit, is_ignored: Callable[[], bool] = lambda: False) -> TransferEngine:
    return TransferEngine(
        MemoryBudget(64 * PART_BYTES),
        part_bytes=PART_BYTES,
        policy=HURRIED,
        bandwidth=Bandwidth(limit, is_ignored),
    )


@pytest.mark.parametrize(
    ("content", "always", "asked"),
    [
        pytest.param(SMALL, none, {}, id="a small file, its size unknown before"),
        pytest.param(SMALL, none, {"size_bytes": 700}, id="a small file of a known size"),
        pytest.param(SMALL, none, {"likely_bytes": 900}, id="a small file, another size said by the API"),
        pytest.param(LARGE, none, {}, id="a large file in ranges"),
        pytest.param(LARGE, none, {"size_bytes": 45_000}, id="a large file in ranges, its size known"),
        pytest.param(LARGE, fault.chunked, {}, id="a large file without a length"),
    ],
)
def test_what_is_taken_is_what_is_read(
    http: HttpClient, content: bytes, always: Fault, asked: dict[str, object]
) -> None:
    limit, store = Counted(), MemoryBackend("store")
    with Origin({"/file": content}, always=always) as origin, engine(limit) as copies:
        copies.submit(source(http, origin), request(**asked), [store]).result(timeout=20)

    assert list(stored_in(store).values()) == [content]
    assert limit.taken == pytest.approx(len(content), rel=0.1)


@pytest.mark.parametrize("chunks", [[SMALL], [LARGE[:9000], LARGE[9000:]]])
def test_what_comes_in_chunks_is_taken_too(chunks: Sequence[bytes]) -> None:
    limit = Counted()
    with engine(limit) as copies:
        copies.submit_chunks(iter(chunks), request(), [MemoryBackend("store")]).result(timeout=20)

    size_bytes = sum(map(len, chunks))
    assert size_bytes <= limit.taken <= size_bytes + PART_BYTES


def test_a_copy_that_would_miss_its_deadline_takes_nothing(http: HttpClient) -> None:
    limit, store = Counted(seconds=3600), MemoryBackend("store")
    with Origin({"/file": LARGE}) as origin, engine(limit, lambda: True) as copies:
        copies.submit(source(http, origin), request(), [store]).result(timeout=20)

    assert list(stored_in(store).values()) == [LARGE]
    assert (limit.amounts, limit.corrected) == ([], 0)


def test_a_copy_that_waits_goes_on_when_its_deadline_comes_near(http: HttpClient) -> None:
    limit, near = Counted(seconds=3600), threading.Event()
    reserve = limit.reserve

    def reserve_then_come_near(amount: float) -> float:
        near.set()
        return reserve(amount)

    limit.reserve = reserve_then_come_near  # type: ignore[method-assign]
    with Origin({"/file": SMALL}) as origin, engine(limit, near.is_set) as copies:
        copies.submit(source(http, origin), request(), [MemoryBackend("store")]).result(timeout=20)

    assert len(limit.amounts) == 1


def test_a_copy_that_waits_can_be_stopped(http: HttpClient) -> None:
    limit = Counted(seconds=3600)
    with Origin({"/file": SMALL}) as origin:
        with engine(limit) as copies:
            future = copies.submit(source(http, origin), request(), [MemoryBackend("store")])
        assert future.exception(timeout=20) is not None
        assert origin.requests == []

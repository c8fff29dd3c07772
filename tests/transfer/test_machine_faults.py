"""A fault of this machine is no fault of the source: it arrives as itself, and costs no memory for good."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from storage_backends.base import StorageBackend
from storage_backends.memory import MemoryBackend
from tests.transfer.origin import Origin
from tests.transfer.stores import Wrapped, open_uploads, stored_in
from tests.transfer.worlds import HURRIED, KEY, client, request, some_bytes, source
from transfer import memory as memory_module
from transfer.base import CopyResult
from transfer.engine import TransferEngine
from transfer.errors import SourceUnavailable
from transfer.http import Address
from transfer.memory import MemoryBudget
from transfer.urls import SecretUrl

KIB = 1024
LARGE, SMALL = some_bytes(600 * KIB), some_bytes(700)
NO_THREAD = "can't start new thread"


@contextmanager
def few_threads(refused: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As under `pids.max`: threads whose name is `refused` cannot be started."""
    start = threading.Thread.start

    def may_start(self: threading.Thread) -> None:
        if refused(self.name):
            raise RuntimeError(NO_THREAD)
        start(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", may_start)
        yield


def copy(content: bytes, budget: MemoryBudget, *stores: StorageBackend, **ask: object) -> CopyResult:
    http = client()
    try:
        with Origin({"/file": content}) as origin:
            patient = TransferEngine(budget, part_bytes=64 * KIB, connections=8, uploads=4, policy=HURRIED)
            with patient as engine:
                stored = stores or (MemoryBackend("store"),)
                return engine.submit(source(http, origin), request(**ask), stored).result(timeout=20)
    finally:
        http.close()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("crew", ["getter", "putter"])
def test_without_one_thread_the_copy_fails_as_what_it_is(
    crew: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = MemoryBudget(256 * KIB)
    for _ in range(5):
        with (
            few_threads(lambda name: name.startswith(crew), monkeypatch),
            pytest.raises(RuntimeError, match=NO_THREAD),
        ):
            copy(content, budget)
        assert (budget.in_use_bytes, budget.waiting) == (0, 0)

    assert copy(content, budget).size_bytes == len(content)


@pytest.mark.parametrize("crew", ["getter", "putter"])
def test_with_one_thread_the_copy_is_made_by_it(crew: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget, store = MemoryBudget(256 * KIB), MemoryBackend("store")

    with few_threads(lambda name: name.startswith(crew) and not name.endswith("-0"), monkeypatch):
        result = copy(LARGE, budget, store)

    assert result.failed == {}
    assert stored_in(store) == {KEY: LARGE}
    assert budget.in_use_bytes == 0


FAULTS = [MemoryError(), RuntimeError(NO_THREAD), OSError(errno.ENOSPC, "No space left on device")]


class Sick(Wrapped):
    """A store on whose way this machine fails."""

    def __init__(self, inner: StorageBackend, method: str, error: BaseException) -> None:
        super().__init__(inner)
        self.method, self.error = method, error

    def act(self, method, action):  # type: ignore[no-untyped-def]
        if method == self.method:
            raise self.error
        return super().act(method, action)


@pytest.mark.parametrize("error", FAULTS, ids=repr)
@pytest.mark.parametrize(
    ("method", "content"), [("put", SMALL), ("begin", LARGE), ("put_part", LARGE), ("complete", LARGE)]
)
def test_a_fault_on_the_way_to_a_store_arrives_as_itself(
    method: str, content: bytes, error: Exception
) -> None:
    budget, store = MemoryBudget(256 * KIB), MemoryBackend("store")

    with pytest.raises(type(error)) as raised:
        copy(content, budget, Sick(store, method, error))

    assert raised.value is error
    assert stored_in(store) == {}
    assert open_uploads(store) == 0
    assert budget.in_use_bytes == 0


class SickStructure:
    def __init__(self, where: str, error: Exception) -> None:
        self.where, self.error = where, error

    @property
    def proves_end(self) -> bool:
        return True

    def saw(self, start: int, data: memoryview) -> None:
        if self.where == "saw":
            raise self.error

    def finish(self, size_bytes: int, read: object) -> None:
        if self.where == "finish":
            raise self.error


@pytest.mark.parametrize("error", FAULTS, ids=repr)
@pytest.mark.parametrize("where", ["check", "saw", "finish"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_fault_while_looking_arrives_as_itself(content: bytes, where: str, error: Exception) -> None:
    budget, store = MemoryBudget(256 * KIB), MemoryBackend("store")

    def check(*_: object) -> None:
        if where == "check":
            raise error

    with pytest.raises(type(error)) as raised:
        copy(content, budget, store, check=check, structure=SickStructure(where, error))

    assert raised.value is error
    assert stored_in(store) == {}
    assert budget.in_use_bytes == 0


@pytest.mark.parametrize("after", [0, 1, 3])
def test_less_memory_than_the_setting_says_is_given_back(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    budget, made = MemoryBudget(256 * KIB), 0

    def scarce(size: int) -> bytearray:
        nonlocal made
        made += 1
        if made > after:
            raise MemoryError
        return bytearray(size)

    with monkeypatch.context() as patched:
        patched.setattr(memory_module, "bytearray", scarce, raising=False)
        with pytest.raises(MemoryError):
            copy(LARGE, budget)

    assert (budget.in_use_bytes, budget.waiting) == (0, 0)
    assert copy(LARGE, budget).size_bytes == len(LARGE)


def test_a_waiting_reservation_without_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MemoryBudget(128 * KIB)
    holder = budget.reserve(100 * KIB)
    place, next_place = budget.line_up(70 * KIB), budget.line_up(100 * KIB)
    holder.release()

    def none_left(size: int) -> bytearray:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(memory_module, "bytearray", none_left, raising=False)
        with pytest.raises(MemoryError):
            place.wait()

    next_place.wait().release()
    assert budget.in_use_bytes == 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EMFILE, OSError),
        (errno.ENFILE, OSError),
        (errno.ENOMEM, OSError),
        (errno.ENOBUFS, OSError),
        (errno.ECONNREFUSED, SourceUnavailable),
        (errno.EHOSTUNREACH, SourceUnavailable),
    ],
)
def test_a_machine_without_sockets_is_told_from_a_silent_source(
    number: int, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    http = client()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    url = SecretUrl("http://127.0.0.1:9/file")
    with pytest.raises(expected) as raised:
        http.get(Address(url, {}, frozenset({url.origin})), {})

    assert type(raised.value) is expected
    http.close()

"""A fault of this machine is no fault of the source: it arrives as itself, and costs no memory for good."""

from __future__ import annotations

import errno
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from archiver.http import handle, runtime
from archiver.transfer import memory
from archiver.transfer.base import CopyResult, UploadJournal
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import SourceUnavailable
from archiver.transfer.http import Address
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.urls import SecretUrl
from storage_backends.base import StorageBackend
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, Journal, client, request, some_bytes, source
from tests.transfer.origin import Origin
from tests.transfer.stores import Wrapped, open_uploads, stored_in

KIB = 1024
LARGE, SMALL = some_bytes(600 * KIB), some_bytes(700)
NO_THREAD = "can't start new thread"


@contextmanager
def few_threads(refused: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As under `pids.max`: threads whose name is `refused` cannot be started. None runs at first."""
    monkeypatch.setattr(runtime, "_made", None)
    start = threading.Thread.start

    def may_start(self: threading.Thread) -> None:
        if refused(self.name):
            raise RuntimeError(NO_THREAD)
        start(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", may_start)
        yield


def copy(
    content: bytes,
    budget: MemoryBudget,
    *stores: StorageBackend,
    journal: UploadJournal | None = None,
    part_bytes: int = 64 * KIB,
    **ask: object,
) -> CopyResult:
    http = client()
    try:
        with Origin({"/file": content}) as origin:
            retrying = TransferEngine(
                budget, part_bytes=part_bytes, connections=8, uploads=4, policy=HURRIED, journal=journal
            )
            with retrying as engine:
                stored = stores or (MemoryBackend("store"),)
                return engine.submit(source(http, origin), request(**ask), stored).result(timeout=20)
    finally:
        http.close()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", ["sources", "store-"])
def test_without_one_thread_the_copy_fails_as_what_it_is(
    name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the requests to sources; those that call stores."""
    budget = MemoryBudget(256 * KIB)
    with few_threads(lambda started: started.startswith(name), monkeypatch):
        for _ in range(5):
            with pytest.raises(RuntimeError, match=NO_THREAD):
                copy(content, budget)
            assert (budget.in_use_bytes, budget.waiting) == (0, 0)

    assert copy(content, budget).size_bytes == len(content)


@pytest.mark.parametrize("name", ["store-", "ledger-"])
def test_with_one_thread_the_copy_is_made_by_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget, store = MemoryBudget(256 * KIB), MemoryBackend("store")

    def refused(started: str) -> bool:
        return started.startswith(name) and not started.endswith("-0")

    with few_threads(refused, monkeypatch):
        result = copy(LARGE, budget, store, journal=Journal())

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
    def verifies_end(self) -> bool:
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


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("where", ["a response", "a reader"])
def test_less_memory_than_the_setting_says_is_released(
    where: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget, made = MemoryBudget(4096 * KIB), 0
    content = LARGE * 14  # in parts that are more than comes at a time

    def scarce(initial: bytes) -> io.BytesIO:
        nonlocal made
        made += 1
        if made > after:
            raise MemoryError
        return io.BytesIO(initial)

    def attempt() -> CopyResult:
        if where == "a response":
            return copy(content, budget, part_bytes=2048 * KIB)
        with TransferEngine(budget, part_bytes=2048 * KIB) as engine:
            return engine.submit_chunks([content], request(), [MemoryBackend("store")]).result(timeout=20)

    with monkeypatch.context() as patched:
        patched.setattr(memory, "BytesIO", scarce)
        with pytest.raises(MemoryError):
            attempt()

    assert (budget.in_use_bytes, budget.waiting) == (0, 0)
    assert attempt().size_bytes == len(content)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_a_machine_without_sockets_is_told_from_a_silent_source(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = client()

    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(handle, "_socket", refuse)
    url = SecretUrl("http://127.0.0.1:9/file")
    with pytest.raises(OSError, match="no") as raised:
        http.get(Address(url, {}, frozenset({url.origin})), {})

    assert raised.value.errno == number
    http.close()


def test_a_source_that_refuses_the_connection_is_unavailable() -> None:
    http = client()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = SecretUrl(f"http://127.0.0.1:{listener.getsockname()[1]}/file")

    with pytest.raises(SourceUnavailable):
        http.get(Address(url, {}, frozenset({url.origin})), {})
    http.close()

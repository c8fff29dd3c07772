"""The runtime of a process: two loops, and threads for blocking calls.

Requests to sources and small uploads are driven by one loop, in whose thread the engine's coroutines run as well; large
uploads and reads from stores by the other, so that TLS uses two processors (`http.store_sessions`). Nothing else of the
engine starts a thread or reads a clock: it speaks to `Runtime`, and a test puts a single-threaded one in its place.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from archiver.http import cancellation
from archiver.http.loop import Loop, Timer
from archiver.http.multi import Multi
from archiver.http.pool import Pool
from archiver.http.waiting import Blocking, Ended


class Caller(Protocol):
    """A thread that waits for something and meanwhile runs the blocking calls that only it may run."""

    def run(self, wait: Blocking[Any], ended: Ended) -> None:
        """From any thread: have `wait.call` called in the caller's."""
        ...

    def serve(self, until: Future[Any]) -> None:
        """In the caller's thread: run calls until `until` is done. Raises the cancellation signal."""
        ...


class Runs(Protocol):
    """What coroutines run on."""

    def call_soon(self, action: Callable[[], None]) -> None:
        """Have `action` called in the engine's thread, in order. Raises RuntimeError when there is no thread."""
        ...

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """In the engine's thread."""
        ...

    def block(self, wait: Blocking[Any], ended: Ended) -> None:
        """Have `wait.call` called where it may block."""
        ...


class Runtime(Runs, Protocol):
    def future(self) -> Future[Any]:
        """One whose `result` lets the work go on."""
        ...

    def caller(self) -> Caller: ...


class ProcessRuntime:
    """Threads start at the first use. Of one process: see `process_runtime`."""

    def __init__(self) -> None:
        loop = Loop("sources")
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later
        self.sources = Multi(loop, "source")
        self.small_uploads = Multi(loop, "store")
        self.stores = Multi(Loop("stores"), "store")
        self._pools: dict[str, Pool] = {}
        self._lock = threading.Lock()

    def block(self, wait: Blocking[Any], ended: Ended) -> None:
        with self._lock:
            pool = self._pools.setdefault(wait.pool, Pool(wait.pool))
        pool.run(wait, ended)

    def future(self) -> Future[Any]:
        return Future()

    def caller(self) -> Caller:
        return _ThisThread()


class _ThisThread:
    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Blocking[Any], Ended] | None] = queue.SimpleQueue()

    def run(self, wait: Blocking[Any], ended: Ended) -> None:
        self._calls.put((wait, ended))

    def serve(self, until: Future[Any]) -> None:
        until.add_done_callback(lambda _: self._calls.put(None))
        while True:
            cancellation.check()
            try:
                call = self._calls.get(timeout=cancellation.POLL_SECONDS)
            except queue.Empty:
                continue
            if call is None:
                return
            wait, ended = call
            try:
                value = wait.call()
            except BaseException as error:  # noqa: BLE001 - who waits judges it
                ended(None, error)
            else:
                ended(value, None)


_made: tuple[int, ProcessRuntime] | None = None
_orphans: list[ProcessRuntime] = []
_lock = threading.Lock()


def process_runtime() -> ProcessRuntime:
    """This process's. After a fork a new one is made, and the parent's is kept but never touched: to close it would end
    TLS connections that the parent still uses."""
    global _made  # noqa: PLW0603 - one of each process
    made = _made
    if made is not None and made[0] == os.getpid():
        return made[1]
    with _lock:
        if _made is None or _made[0] != os.getpid():
            if _made is not None:
                _orphans.append(_made[1])
            _made = (os.getpid(), ProcessRuntime())
        return _made[1]


os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))

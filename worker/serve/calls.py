"""Run blocking calls beside the event loop, with an end to each wait and a bound to how many wait."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Busy(Exception):
    """As many calls are waiting as may."""


class Calls:
    """Threads that end with the process, even while a call hangs."""

    def __init__(self, name: str, *, threads: int, most_waiting: int) -> None:
        self._calls: queue.Queue[
            tuple[Callable[[], object], asyncio.Future[object], asyncio.AbstractEventLoop]
        ]
        self._calls = queue.Queue(most_waiting)
        for _ in range(threads):
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """In the event loop: have `call` run. Raises Busy."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            self._calls.put_nowait((call, future, loop))  # type: ignore[arg-type] # of object
        except queue.Full:
            raise Busy from None
        return future

    def _run(self) -> None:
        while True:
            call, future, loop = self._calls.get()
            result: object = None
            failure: Exception | None = None
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 - whoever waits judges it
                failure = error
            try:
                loop.call_soon_threadsafe(_end, future, result, failure)
            except RuntimeError:  # the loop is closed: nobody waits
                return


def _end(future: asyncio.Future[object], result: object, failure: Exception | None) -> None:
    if future.done():  # whoever waited has gone
        return
    if failure is not None:
        future.set_exception(failure)
        future.exception()  # taken, should nobody wait
    else:
        future.set_result(result)


class SharedCall(Generic[T]):
    """One call at a time; who comes while it runs gets its result too."""

    def __init__(self, name: str, call: Callable[[], T], *, seconds: float) -> None:
        self._calls = Calls(name, threads=1, most_waiting=1)
        self._call = call
        self._seconds = seconds
        self._running: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        """Raises TimeoutError after `seconds`, and what the call raises."""
        if self._running is None or self._running.done():
            self._running = self._calls.submit(self._call)
        return await asyncio.wait_for(asyncio.shield(self._running), self._seconds)

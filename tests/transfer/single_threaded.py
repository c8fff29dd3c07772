"""A `Runtime` of one thread and no clock: whoever waits for a future does the work meanwhile.

Steps are taken in a fixed order, or in one that a seeded generator chooses; timers jump to their time when there is
nothing else to do. With `InMemorySession` the whole engine runs on it, without a socket.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from archiver.http.connections import Connection
from archiver.http.errors import HttpError
from archiver.http.loop import Timer
from archiver.http.runtime import Caller
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import Blocking, Ended

Serve = Callable[[Request], tuple[list[bytes], bytes]]
"""A request -> the lines of the response's head, and its body. What it raises ends the transfer."""


class SingleThreaded:
    """`archiver.http.runtime.Runtime`. `now` is the time that its timers see."""

    def __init__(self, seed: int | None = None) -> None:
        self.now = 0.0
        self._random = None if seed is None else random.Random(seed)
        self._ready: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def call_soon(self, action: Callable[[], None]) -> None:
        self._ready.append(action)

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        timer = Timer(action)
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), timer))
        return timer

    def block(self, wait: Blocking[Any], ended: Ended) -> None:
        self.call_soon(lambda: _call(wait, ended))

    def future(self) -> Future[Any]:
        return _Pumped(self)

    def caller(self) -> Caller:
        return _Here(self)

    def step(self) -> bool:
        """Do one thing; False when there is nothing to do."""
        if self._ready:
            if self._random is not None:
                self._ready.rotate(self._random.randrange(len(self._ready)))
            self._ready.popleft()()
            return True
        while self._timers:
            when, _, timer = heapq.heappop(self._timers)
            if timer.action is not None:
                self.now = max(self.now, when)
                timer.action()
                return True
        return False


class _Pumped(Future[Any]):
    def __init__(self, runtime: SingleThreaded) -> None:
        super().__init__()
        self._runtime = runtime

    def result(self, timeout: float | None = None) -> Any:
        self._pump()
        return super().result(timeout=0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._pump()
        return super().exception(timeout=0)

    def _pump(self) -> None:
        while not self.done():
            if not self._runtime.step():
                raise AssertionError("everybody waits for somebody else")


class _Here:
    def __init__(self, runtime: SingleThreaded) -> None:
        self._runtime = runtime

    def run(self, wait: Blocking[Any], ended: Ended) -> None:
        self._runtime.block(wait, ended)

    def serve(self, until: Future[Any]) -> None:
        until.exception()


def _call(wait: Blocking[Any], ended: Ended) -> None:
    try:
        value = wait.call()
    except BaseException as error:
        ended(None, error)
    else:
        ended(value, None)


class InMemorySession:
    """What a `Transfer` asks of `archiver.http.session.Session`, answered by `serve`: every response over the one
    connection of the session."""

    def __init__(self, runtime: SingleThreaded, serve: Serve) -> None:
        self._runtime = runtime
        self._serve = serve
        self._connection = Connection(tls=False)
        self._held: dict[Transfer, bytes] = {}
        self.requests: list[Request] = []

    def submit(self, transfer: Transfer) -> None:
        self._runtime.call_soon(lambda: self._begin(transfer))

    def cancel(self, transfer: Transfer) -> None:
        self._held.pop(transfer, None)
        self._runtime.call_soon(lambda: transfer.finish(HttpError("it was cancelled")))

    def condition(self) -> threading.Condition:
        return threading.Condition()

    def unpause(self, transfer: Transfer) -> None:
        self._runtime.call_soon(lambda: self._body(transfer))

    def close(self) -> None:
        return

    def in_loop(self, action: Callable[[], None]) -> None:
        action()

    def _begin(self, transfer: Transfer) -> None:
        if transfer.done:
            return
        try:
            lines, body = self._serve(transfer.request)
            self.requests.append(transfer.request)
            for line in lines:
                transfer.on_line(line)
        except BaseException as error:
            transfer.finish(error)
            return
        self._held[transfer] = body
        self._body(transfer)

    def _body(self, transfer: Transfer) -> None:
        body = self._held.get(transfer)
        if body is None:
            return
        try:
            if body and not transfer.on_data(body):
                return
        except BaseException as error:
            transfer.finish(error)
            return
        del self._held[transfer]
        self._connection.served += 1
        transfer.connection, transfer.ordinal = self._connection, self._connection.served
        transfer.finish(None)

"""Awaitables of this project: HTTP transfers, blocking calls, pauses.

A coroutine names its waits (`await Transfer(...)`, `await Blocking(call)`) and does not know who runs it: the engine's
scheduler, many at once in one thread, or `complete`, which blocks the calling thread. So one piece of linear code
serves the engine and plain callers, and a simulation can run it without threads or clocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeVar

from archiver.http import cancellation

T = TypeVar("T")

Ended = Callable[[Any, BaseException | None], None]
"""Told once, in any thread: the value, or the error."""


class Wait(Generic[T]):
    """Something that ends once."""

    __slots__ = ()

    def start(self, ended: Ended) -> None:
        """Begin; `ended` is called once, from any thread, perhaps before this returns."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Nobody waits any more: end early where possible. `ended` may or may not be called afterwards."""

    def __await__(self) -> Generator[Wait[T], T, T]:
        return (yield self)


class Blocking(Wait[T]):
    """A call that blocks its thread: a store's library, the ledger, a file system. `pool` names where the scheduler
    runs it: calls of one kind never wait for threads that another kind holds."""

    __slots__ = ("call", "pool")

    def __init__(self, call: Callable[[], T], pool: str = "store") -> None:
        self.call = call
        self.pool = pool


async def blocking(call: Callable[[], T], pool: str = "store") -> T:
    """Return what `call` returns, made where it may block."""
    wait = Blocking(call, pool)
    return await wait


class Pause(Wait[None]):
    """Nothing for `seconds`."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Event(Protocol):
    """As `threading.Event`."""

    def set(self) -> None: ...

    def wait(self, timeout: float) -> bool: ...


def complete(coroutine: Coroutine[Wait[Any], Any, T], event: Callable[[], Event] = threading.Event) -> T:
    """Run `coroutine` in this thread, blocking while it waits. Raises what it raises, and the thread's cancellation
    signal; the wait is cancelled then. `event`: makes what is waited for."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            wait = coroutine.throw(error) if error is not None else coroutine.send(value)
        except StopIteration as stop:
            result: T = stop.value
            return result
        value, error = _block(wait, event)


def _block(wait: Wait[Any], event: Callable[[], Event]) -> tuple[Any, BaseException | None]:
    try:
        if isinstance(wait, Blocking):
            return wait.call(), None
        if isinstance(wait, Pause):
            pause(wait.seconds)
            return None, None
        outcome: list[tuple[Any, BaseException | None]] = []
        done = event()

        def ended(value: Any, error: BaseException | None) -> None:
            outcome.append((value, error))
            done.set()

        wait.start(ended)
        try:
            while not done.wait(cancellation.POLL_SECONDS):
                cancellation.check()
        except BaseException:
            wait.cancel()
            raise
        return outcome[0]
    except BaseException as error:  # noqa: BLE001 - it is raised inside the coroutine, which may clean up
        return None, error


def pause(seconds: float) -> None:
    """Block this thread; ends early with its cancellation signal."""
    done = threading.Event()
    while seconds > 0:
        cancellation.check()
        done.wait(min(seconds, cancellation.POLL_SECONDS))
        seconds -= cancellation.POLL_SECONDS
    cancellation.check()

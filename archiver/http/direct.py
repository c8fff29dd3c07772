"""Requests in the calling thread: to wake another thread would cost half of what a small request does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from archiver.http import cancellation
from archiver.http.loop import Loop
from archiver.http.multi import Multi
from archiver.http.options import Options
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import Wait, complete

T = TypeVar("T")


class _CallersLoop(Loop):
    """A loop without a thread: it turns while its caller waits."""

    def __init__(self) -> None:
        super().__init__("caller")
        self._open()

    def call_soon(self, action: Callable[[], None]) -> None:
        self._posted.append(action)

    def event(self) -> _Event:
        return _Event(self)

    def condition(self) -> threading.Condition:
        return _Condition(self)

    @property
    def is_current(self) -> bool:
        return True

    def turn(self) -> None:
        """Do what is due, or wait for it a little."""
        self._turn()

    def stay_awake(self) -> None:
        """Let the turn that this happens in end without waiting."""
        self.call_soon(lambda: None)

    def settle(self) -> None:
        """Do what the last turn left."""
        self._call_posted()

    def close(self) -> None:
        self._call_posted()
        self._close()

    def call(self, action: Callable[[], None]) -> None:
        action()  # what it raises is for the caller, such as a signal's

    def _call_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def _seconds_to_sleep(self) -> float:
        return min(cancellation.POLL_SECONDS, super()._seconds_to_sleep())


class _Event:
    """`archiver.http.waiting.Event`."""

    def __init__(self, loop: _CallersLoop) -> None:
        self._loop = loop
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._loop.stay_awake()

    def wait(self, timeout: float) -> bool:  # noqa: ARG002 - a turn has its own
        if not self._is_set:
            self._loop.turn()
        return self._is_set


class _Condition(threading.Condition):
    def __init__(self, loop: _CallersLoop) -> None:
        super().__init__()  # of a lock that this thread may take again while it turns the loop
        self._loop = loop

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as above
        self._loop.turn()
        return True

    def notify(self, n: int = 1) -> None:  # noqa: ARG002 - as above
        self._loop.stay_awake()


class DirectSession:
    """A `Session` whose requests are carried by the thread that waits for them: one thread at a time. Of one process:
    see `orphaned`. Close it, also after an error."""

    def __init__(self, options: Options, target: str = "") -> None:
        """`target`: see `Multi`."""
        self._loop = _CallersLoop()
        self.session = Session(Multi(self._loop, target), options)

    @property
    def orphaned(self) -> bool:
        """Return whether its connections are those of the process that this one was forked from."""
        return self._loop.orphaned

    def complete(self, coroutine: Coroutine[Wait[Any], Any, T]) -> T:
        """As `waiting.complete`, of one that waits for transfers of `session` alone. A body that is read while it comes
        is read in this thread, before the next."""
        return complete(coroutine, self._loop.event)

    def get(self, request: Request, max_bytes: int, check: Callable[[], None]) -> Transfer:
        """Return the response, with the whole body. `check` is called twice a second at least; what it raises ends the
        request, and so does what a signal's handler raises. Raises HttpError, and faults of this machine as themselves.
        """
        with cancellation.watched(check):
            transfer = self.complete(_get(Transfer(self.session, request, max_bytes=max_bytes)))
        check()
        return transfer

    def settle(self) -> bool:
        """Do what the last turn left, such as closing a socket. Return whether no transfer is under way."""
        self._loop.settle()
        return self.session.is_idle

    def close(self) -> None:
        self.session.close()
        self._loop.close()


class DirectSessions:
    """As many as are in use at once, kept for the next. Thread-safe. After a fork the child makes its own."""

    def __init__(
        self, options: Options, target: str = "", harmless: tuple[type[Exception], ...] = ()
    ) -> None:
        """`target`: see `Multi`. `harmless`: errors that are raised when a transfer has ended, never in the middle of
        one: a session that raised them is kept, with the authorities that it has parsed."""
        self.options = options
        self._target = target
        self._harmless = harmless
        self._idle: list[DirectSession] = []
        self._closed = False

    @contextmanager
    def session(self) -> Iterator[DirectSession]:
        """One that nobody else uses meanwhile. What is not over at the end of the block is cancelled."""
        session, intact = self._take(), False
        try:
            yield session
            intact = True
        except self._harmless:
            intact = True
            raise
        finally:
            if intact and session.settle():
                self._idle.append(session)
            else:
                session.close()
            if self._closed:
                self.close()

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> DirectSession:
        if self._closed:
            raise RuntimeError("the client is closed")
        while self._idle:
            session = self._idle.pop()
            if not session.orphaned:
                return session
        return DirectSession(self.options, self._target)


async def _get(transfer: Transfer) -> Transfer:
    return await transfer

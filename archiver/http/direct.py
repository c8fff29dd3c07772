"""Requests in the calling thread, one at a time: to wake another thread would cost half of what a request does."""

from __future__ import annotations

from collections.abc import Callable

from archiver.http.cancellation import POLL_SECONDS
from archiver.http.loop import Loop
from archiver.http.multi import Multi
from archiver.http.options import Options
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer


class _CallersLoop(Loop):
    """A loop without a thread: it turns while `run` waits for a transfer."""

    def __init__(self) -> None:
        super().__init__("caller")
        self._awaited: Transfer | None = None
        self._open()

    def call_soon(self, action: Callable[[], None]) -> None:
        self._posted.append(action)

    @property
    def is_current(self) -> bool:
        return True

    def run(self, transfer: Transfer, check: Callable[[], None]) -> None:
        self._awaited = transfer
        while not transfer.done:
            self._turn()
            check()

    def close(self) -> None:
        while self._posted:
            self._posted.popleft()()
        self._close()

    def _call(self, action: Callable[[], None]) -> None:
        action()  # what it raises is for the caller, such as a signal's

    def _seconds_to_sleep(self) -> float:
        if self._awaited is None or self._awaited.done:
            return 0.0
        return min(POLL_SECONDS, super()._seconds_to_sleep())


class DirectSession:
    """A `Session` whose requests are carried by the thread that makes them: one thread at a time. Of one process: see
    `orphaned`. Close it, also after `get` raised."""

    def __init__(self, options: Options) -> None:
        self._loop = _CallersLoop()
        self._session = Session(Multi(self._loop), options)

    @property
    def orphaned(self) -> bool:
        """Return whether its connections are those of the process that this one was forked from."""
        return self._loop.orphaned

    def get(self, request: Request, max_bytes: int, check: Callable[[], None]) -> Transfer:
        """Return the response, with the whole body. `check` is called twice a second at least; what it raises ends the
        request, and so does what a signal's handler raises. Raises HttpError, and faults of this machine as themselves.
        """
        transfer = Transfer(self._session, request, max_bytes=max_bytes)
        transfer.start(_untold)
        self._loop.run(transfer, check)
        if transfer.error is not None:
            raise transfer.error
        return transfer

    def close(self) -> None:
        self._session.close()
        self._loop.close()


def _untold(_transfer: object, _error: BaseException | None) -> None:
    return

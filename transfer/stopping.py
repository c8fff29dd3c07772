"""The stop signal of the running thread. Every wait in this package asks it about once a second, so that a
thread that waits for a silent server still ends in time.

It travels beside the arguments (a context variable) because it has to reach the innermost wait of a source,
and a `Source` is asked for bytes by many callers who have nothing to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic, sleep

POLL_SECONDS = 0.5  # how late a stop may be noticed: threads are promised to end within two seconds


def _never() -> None:
    return


_check: ContextVar[Callable[[], None]] = ContextVar("transfer_stop_check", default=_never)


@contextmanager
def watched(check: Callable[[], None]) -> Iterator[None]:
    """Within the block, waits of this thread call `check` about twice a second; what it raises ends them."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check() -> None:
    """Raises what the current signal raises; nothing where no one is watching."""
    _check.get()()


def pause(seconds: float) -> None:
    """Sleep that ends early, with the signal's exception, when told to stop."""
    until = monotonic() + seconds
    while True:
        check()
        left = until - monotonic()
        if left <= 0:
            return
        sleep(min(left, POLL_SECONDS))

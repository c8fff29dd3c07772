"""The cancellation signal of the running thread. Every blocking wait asks it about twice a second, so that a thread
that waits for a silent server still ends in time.

It travels in a context variable because it has to reach the innermost wait of a source, and a source is read by many
callers who have nothing to cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

POLL_SECONDS = 0.5  # how late a cancellation may be noticed: threads are promised to end within two seconds


_check: ContextVar[Callable[[], None]] = ContextVar("cancellation_check", default=lambda: None)


@contextmanager
def watched(check: Callable[[], None]) -> Iterator[None]:
    """Within the block, waits of this thread call `check` about twice a second; what it raises ends them."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check() -> None:
    """Raise what the current signal raises; do nothing where no one is watching."""
    _check.get()()

"""Ctrl-C for a command that runs until it is pressed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def lasting_interrupt() -> Iterator[Callable[[], bool]]:
    """Raise KeyboardInterrupt on SIGINT within the block, and yield a function that tells whether one came.

    The exception alone is not enough: Python drops what is raised while a destructor or a weakref callback runs
    (`sys.unraisablehook`), and the garbage collector starts those anywhere, such as in the middle of drawing a table.
    A loop must ask the function as well. SIGINT works even when it was ignored at the start, as a shell does for what
    it runs in the background. Main thread only. Not a threading.Event: the handler would take its lock, which the
    thread that it interrupts may hold.
    """
    came = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, old)

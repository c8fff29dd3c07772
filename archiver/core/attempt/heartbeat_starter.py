"""Start heartbeat threads late: thousands of small assets an hour are archived in milliseconds each and need none.

One thread of the process waits for all attempts, and starts the heartbeat of those that last longer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class HeartbeatStarter:
    """Call `begin` of what was added and not removed in time. The thread starts at the first use, and stays."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Callable[[], None], float] = {}  # and when, by the monotonic clock
        self._thread: threading.Thread | None = None
        self._idle = False

    def add(self, begin: Callable[[], None], after_seconds: float) -> None:
        """Call `begin` in `after_seconds`, from another thread; again each second while it cannot start a thread.

        Raises RuntimeError or MemoryError, and adds nothing, when no thread can be started for this.
        """
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="start-heartbeats", daemon=True)
                thread.start()
                self._thread = thread
            self._waiting[begin] = time.monotonic() + after_seconds
            if self._idle:
                self._changed.notify()

    def remove(self, begin: Callable[[], None]) -> None:
        """Once this returns, `begin` is not called any more. Idempotent."""
        with self._changed:
            self._waiting.pop(begin, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                if not self._waiting:
                    self._idle = True
                    self._changed.wait()
                    self._idle = False
                    continue
                begin, due = min(self._waiting.items(), key=lambda entry: entry[1])
                left_seconds = due - time.monotonic()
                if left_seconds > 0:
                    self._changed.wait(left_seconds)
                    continue
                try:
                    begin()
                except (RuntimeError, MemoryError) as error:  # no thread now: perhaps a little later
                    log.warning("heartbeat_not_begun", reason=repr(error))
                    self._waiting[begin] = due + 1
                else:
                    del self._waiting[begin]


_of_this_process = HeartbeatStarter()


def heartbeat_starter() -> HeartbeatStarter:
    """Return the process's one. A child has its own: threads do not survive a fork."""
    return _of_this_process


os.register_at_fork(after_in_child=lambda: globals().update(_of_this_process=HeartbeatStarter()))

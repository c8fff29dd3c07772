"""Thread pool for blocking calls: stores' libraries, the ledger, file systems.

Not a `ThreadPoolExecutor`: that one waits for its threads when the interpreter ends, and a worker that is told to stop
would hang on a silent server (celery.md, "Shutdown"). These are daemons; how many calls run at once is for those who
ask to bound.
"""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from typing import Any

from archiver.http.waiting import Blocking, Ended

_IDLE_SECONDS = 60.0


class Pool:
    """As many threads as calls are under way. Safe from several threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Blocking[Any], Ended]] = queue.SimpleQueue()
        self._idle = 0  # threads that wait for a call, less the calls that wait for a thread
        self._threads = 0

    def run(self, wait: Blocking[Any], ended: Ended) -> None:
        """Have `wait.call` called in a thread. Where the machine gives no more threads, one that has another call
        comes to it later; where there is none at all, `ended` is told the error."""
        failed: BaseException | None = None
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                failed = self._start()
                if failed is not None and self._threads:
                    self._idle -= 1
                    failed = None
            if failed is None:
                self._jobs.put((wait, ended))
        if failed is not None:
            ended(None, failed)

    def _start(self) -> BaseException | None:
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # "can't start new thread"
            return error
        self._threads += 1
        return None

    def _work(self) -> None:
        while True:
            try:
                wait, ended = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle <= 0:
                        continue  # a call is on its way to this thread
                    self._idle -= 1
                    self._threads -= 1
                    return
            value, error = None, None
            try:
                value = wait.call()
            except BaseException as raised:  # noqa: BLE001 - a thread's edge: who waits judges it
                error = raised
            del wait
            with self._lock:
                self._idle += 1
            try:
                ended(value, error)
            except BaseException:  # noqa: BLE001 - it counts as idle: calls are given to it
                traceback.print_exc(file=sys.stderr)
            del value, error, ended

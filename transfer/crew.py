"""Threads that do jobs in order and can be left behind.

Not a `ThreadPoolExecutor`: that one waits for its threads when the interpreter ends, and a worker that is told to
go would hang on a silent server (celery.md, "Shutdown"). These are daemons: told to stop, they end within a
second; one that a store's library holds longer dies with the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from transfer import stopping
from transfer.errors import Stopped
from transfer.memory import Block, MemoryBudget


@dataclass(frozen=True, slots=True)
class Job:
    """`run` owns the block it is given. `fail` is called instead of it, or with what it raised, so every job ends
    in one of the two. A job no longer `wanted` when its turn comes fails with None."""

    run: Callable[[Block | None], None]
    fail: Callable[[BaseException | None], None]
    needs_bytes: int = 0
    wanted: Callable[[], bool] | None = None


class Crew:
    """At most `limit` jobs at once, begun in the order they were added. The memory that a job needs is reserved
    in the same order, one job after the other: so the earliest unfinished part of an object always has its
    buffer, and a store that wants parts in order never waits for one that cannot be read."""

    def __init__(self, name: str, size: int, memory: MemoryBudget, check: Callable[[], None]) -> None:
        self._name = name
        self._size = size
        self._limit = size
        self._memory = memory
        self._check = check
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._busy = 0
        self._open = True
        self._threads: list[threading.Thread] = []

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._changed:
            self._limit = max(1, min(limit, self._size))
            self._changed.notify_all()

    def add(self, job: Job) -> None:
        """Never blocks. After `stop`, the job fails at once."""
        with self._changed:
            if self._open:
                self._jobs.append(job)
                self._changed.notify()
                if len(self._threads) < self._size and len(self._threads) < self._busy + len(self._jobs):
                    self._start_thread()
                return
        job.fail(Stopped("told to stop before this was begun"))

    def stop(self) -> None:
        """Fail all jobs not yet begun. Repeatable."""
        with self._changed:
            self._open = False
            jobs = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in jobs:
            job.fail(Stopped("told to stop before this was begun"))

    def join(self, deadline: float) -> bool:
        """Wait for the threads until `deadline` (monotonic seconds); whether all have ended."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        with stopping.watched(self._check):
            while True:
                with self._turn:
                    job = self._next()
                    if job is None:
                        return
                    block, error, wanted = self._prepare(job)
                if error is None and wanted:
                    try:
                        job.run(block)
                    except BaseException as raised:  # noqa: BLE001 - a thread's edge: the job's owner judges it
                        error = raised
                if error is not None or not wanted:
                    job.fail(error)
                del job, block, error  # an idle thread holds no buffer and no traceback
                with self._changed:
                    self._busy -= 1
                    self._changed.notify()

    def _next(self) -> Job | None:
        with self._changed:
            while self._open and (not self._jobs or self._busy >= self._limit):
                self._changed.wait()
            if not self._open:
                return None
            self._busy += 1
            return self._jobs.popleft()

    def _prepare(self, job: Job) -> tuple[Block | None, BaseException | None, bool]:
        if job.wanted is not None and not job.wanted():
            return None, None, False
        try:
            self._check()
            return (self._memory.reserve(job.needs_bytes) if job.needs_bytes else None), None, True
        except BaseException as error:  # noqa: BLE001 - as above
            return None, error, True

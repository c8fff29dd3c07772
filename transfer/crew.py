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
from transfer.memory import Block, MemoryBudget, Place


@dataclass(slots=True)
class Job:
    """`run` owns the block it is given. `fail` is called instead of it, or with what it raised, so every job ends
    in one of the two. A job no longer `wanted` when its turn comes fails with None."""

    run: Callable[[Block | None], None]
    fail: Callable[[BaseException | None], None]
    needs_bytes: int = 0
    wanted: Callable[[], bool] | None = None


class _Turn:
    """A job whose time has come, with its place in the line for memory. An idle thread waits in an empty one."""

    __slots__ = ("_wake", "job", "place")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.place: Place | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def wait(self) -> None:
        self._wake.acquire()

    def wake(self) -> None:
        self._wake.release()


class Crew:
    """At most `limit` jobs at once, begun in the order they were added. They line up for the memory that they need in
    the same order: so the earliest unfinished part of an object always has its buffer, and a store that wants parts
    in order never waits for one that cannot be read.

    A thread that ends a job takes the next one itself; an idle one is woken only for a job that no busy one will
    come to, and only it.
    """

    def __init__(self, name: str, size: int, memory: MemoryBudget, check: Callable[[], None]) -> None:
        self._name = name
        self._size = size
        self._limit = size
        self._memory = memory
        self._check = check
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._idle: list[_Turn] = []
        self._busy = 0
        self._open = True
        self._threads: list[threading.Thread] = []

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = max(1, min(limit, self._size))
            error = self._begin_jobs()
            stranded = self._stranded(error)
        for job in stranded:
            job.fail(error)

    def add(self, job: Job) -> None:
        """Never blocks. After `stop`, the job fails at once; also where not one thread can be started."""
        error: BaseException | None = Stopped("told to stop before this was begun")
        stranded = [job]
        with self._lock:
            if self._open:
                self._jobs.append(job)
                error = self._begin_jobs()
                stranded = self._stranded(error)
        for each in stranded:
            each.fail(error)

    def stop(self) -> None:
        """Fail all jobs not yet begun. Repeatable."""
        with self._lock:
            self._open = False
            jobs = list(self._jobs)
            self._jobs.clear()
            idle, self._idle = self._idle, []
        for turn in idle:
            turn.wake()
        for job in jobs:
            job.fail(Stopped("told to stop before this was begun"))

    def join(self, deadline: float) -> bool:
        """Wait for the threads until `deadline` (monotonic seconds); whether all have ended."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # -- with the lock held --------------------------------------------------------------------------------
    def _begin_jobs(self) -> BaseException | None:
        """Wake an idle thread, or start one, for each job that may begin now. What the machine raises when no more
        threads can be had: the busy ones come to the rest."""
        while self._jobs and self._busy < self._limit:
            if self._idle:
                turn = self._idle.pop()
            else:  # for the busy ones are fewer than the limit, and that is at most the size
                turn = _Turn()
                name = f"{self._name}-{len(self._threads)}"
                try:
                    thread = threading.Thread(target=self._work, args=(turn,), name=name, daemon=True)
                    thread.start()
                except (RuntimeError, MemoryError) as error:  # "can't start new thread"
                    return error
                self._threads.append(thread)
            self._fill(turn)
            turn.wake()
            self._busy += 1
        return None

    def _stranded(self, error: BaseException | None) -> list[Job]:
        """The jobs that nobody will come to, after that error."""
        if error is None or self._busy:
            return []
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs

    def _fill(self, turn: _Turn) -> None:
        turn.job = job = self._jobs.popleft()
        if job.needs_bytes:
            turn.place = self._memory.line_up(job.needs_bytes)

    # -- in the threads ------------------------------------------------------------------------------------
    def _work(self, turn: _Turn) -> None:
        turn.wait()
        with stopping.watched(self._check):
            while turn.job is not None:
                self._do(turn.job, turn.place)
                turn.job = turn.place = None  # an idle thread holds no buffer
                if not self._next(turn):
                    turn.wait()

    def _next(self, turn: _Turn) -> bool:
        """Whether the thread may go on at once: with the next job, or, without one, to its end."""
        with self._lock:
            if self._jobs and self._busy <= self._limit:
                self._fill(turn)
                return True
            self._busy -= 1
            if self._open:
                self._idle.append(turn)
            return not self._open

    def _do(self, job: Job, place: Place | None) -> None:
        error: BaseException | None = None
        wanted = True
        try:
            wanted = job.wanted is None or job.wanted()
            if wanted:
                self._check()
                block, place = (place.wait() if place else None), None
                job.run(block)
        except BaseException as raised:  # noqa: BLE001 - a thread's edge: the job's owner judges it
            error = raised
        if place is not None:
            place.leave()
        if error is not None or not wanted:
            job.fail(error)

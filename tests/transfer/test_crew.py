from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from transfer.crew import Crew, Job
from transfer.errors import Stopped
from transfer.memory import Block, MemoryBudget


class Ended:
    """What became of a job."""

    def __init__(self, work: Callable[[Block | None], None] = lambda _: None) -> None:
        self.work = work
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.ran = False

    def job(self, needs_bytes: int = 0, wanted: Callable[[], bool] | None = None) -> Job:
        return Job(self._run, self._fail, needs_bytes, wanted)

    def _run(self, block: Block | None) -> None:
        self.ran = True
        self.work(block)
        if block:
            block.release()
        self.done.set()

    def _fail(self, error: BaseException | None) -> None:
        self.error = error
        self.done.set()


@pytest.fixture
def memory() -> MemoryBudget:
    return MemoryBudget(100)


@pytest.fixture
def crew(memory: MemoryBudget) -> Iterator[Crew]:
    made = Crew("tested", 4, memory, lambda: None)
    yield made
    made.stop()
    assert made.join(monotonic() + 5)


def test_memory_is_reserved_in_the_order_of_the_jobs(crew: Crew) -> None:
    """A later part never holds the memory that an earlier one waits for."""
    go, first, second = threading.Event(), Ended(), Ended()

    def slowly_wanted() -> bool:
        return go.wait(10)

    crew.add(first.job(100, slowly_wanted))
    crew.add(second.job(100))

    assert not second.done.wait(0.05)
    go.set()
    assert first.done.wait(5)
    assert second.done.wait(5)


def test_no_more_jobs_run_at_once_than_the_limit(crew: Crew) -> None:
    crew.limit = 2
    running, most, lock = 0, 0, threading.Lock()
    hold = threading.Event()

    def work(_: Block | None) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        hold.wait(0.01)
        with lock:
            running -= 1

    jobs = [Ended(work) for _ in range(20)]
    for job in jobs:
        crew.add(job.job())

    assert all(job.done.wait(5) for job in jobs)
    assert most == 2


def test_a_job_that_raises_fails_and_the_thread_goes_on(crew: Crew) -> None:
    class Broken(BaseException):
        pass

    def work(_: Block | None) -> None:
        raise Broken

    broken, next_one = Ended(work), Ended()
    crew.add(broken.job())
    crew.add(next_one.job())

    assert broken.done.wait(5)
    assert next_one.done.wait(5)
    assert isinstance(broken.error, Broken)


def test_an_unwanted_job_keeps_no_memory(crew: Crew, memory: MemoryBudget) -> None:
    job = Ended()

    crew.add(job.job(100, lambda: False))

    assert job.done.wait(5)
    assert (job.ran, job.error, memory.in_use_bytes) == (False, None, 0)


def test_after_a_stop_every_job_has_failed(crew: Crew) -> None:
    entered, hold = threading.Event(), threading.Event()

    def work(_: Block | None) -> None:
        entered.set()
        hold.wait(5)

    crew.limit = 1
    busy, queued, late = Ended(work), Ended(), Ended()
    crew.add(busy.job())
    crew.add(queued.job())
    entered.wait(5)

    crew.stop()
    crew.add(late.job())
    hold.set()

    assert isinstance(queued.error, Stopped)
    assert isinstance(late.error, Stopped)
    assert busy.done.wait(5)
    assert not queued.ran
    assert not late.ran

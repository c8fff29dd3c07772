"""Coroutines of the engine: whatever they wait for, a cancelled one leaves no slot and no memory behind."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from archiver.http.waiting import Ended, Pause, Wait, blocking
from archiver.retry_policy import REQUEST
from archiver.transfer.errors import SourceUnavailable
from archiver.transfer.memory import MemoryBudget, Reservation
from archiver.transfer.tasks import Gate, Group, GroupEnded, Slots, Task, gather
from tests.transfer.builders import reserved
from tests.transfer.single_threaded import SingleThreaded


class Told(Exception):
    """What a task is stopped with."""


class Never(Wait[None]):
    def __init__(self) -> None:
        self.cancelled = 0

    def start(self, ended: Ended) -> None:
        return

    def cancel(self) -> None:
        self.cancelled += 1


class Harness:
    """One slot and 100 bytes, both held by somebody else."""

    def __init__(self, seed: int | None = None) -> None:
        self.runs = SingleThreaded(seed)
        self.slots = Slots(1)
        self.memory = MemoryBudget(100)
        self.steps: list[str] = []
        self.never = Never()
        self.gate = Gate()
        self.begin(self.slots.take())
        self.held = reserved(self.memory, 100)

    def begin(self, coroutine: Coroutine[Wait[Any], Any, Any]) -> Task:
        return Task(self.runs, coroutine).begin()

    def give_all_back(self) -> None:
        self.slots.release()
        self.held.release()

    def run(self) -> None:
        while self.runs.step():
            pass

    def assert_nothing_is_held(self) -> None:
        self.run()
        assert (self.slots.in_use, self.memory.in_use_bytes, self.memory.waiting) == (0, 0, 0)


@pytest.fixture
def harness() -> Harness:
    return Harness()


# -- every kind of wait --------------------------------------------------------------------------------------
async def a_slot(harness: Harness) -> None:
    await harness.slots.take()
    try:
        harness.steps.append("went on")
    finally:
        harness.slots.release()


async def memory(harness: Harness) -> None:
    reservation = await harness.memory.reserve(60)
    try:
        harness.steps.append("went on")
    finally:
        reservation.release()


async def a_pause(harness: Harness) -> None:
    await Pause(5)
    harness.steps.append("went on")


async def a_call(harness: Harness) -> None:
    await blocking(lambda: harness.steps.append("called"))
    harness.steps.append("went on")


async def a_gate(harness: Harness) -> None:
    await harness.gate
    harness.steps.append("went on")


async def a_request(harness: Harness) -> None:
    await harness.never


async def another_task(harness: Harness) -> None:
    await harness.begin(a_pause(harness))
    harness.steps.append("went on")


async def a_group(harness: Harness) -> None:
    async with Group(harness.runs) as group:
        group.spawn(a_slot(harness))
        group.spawn(memory(harness))
    harness.steps.append("went on")


async def a_retry(harness: Harness) -> None:
    async def action() -> None:
        raise SourceUnavailable("no")

    await replace(REQUEST, attempts=99).run(action, lambda error: isinstance(error, SourceUnavailable))


async def something_with_all_held(harness: Harness) -> None:
    await harness.slots.take()
    try:
        reservation = await harness.memory.reserve(60)
        try:
            await harness.never
        finally:
            reservation.release()
    finally:
        harness.slots.release()


Wanted = Callable[[Harness], Coroutine[Wait[Any], Any, None]]
waits = pytest.mark.parametrize(
    "wait",
    [
        a_slot,
        memory,
        a_pause,
        a_call,
        a_gate,
        a_request,
        another_task,
        a_group,
        a_retry,
        something_with_all_held,
    ],
    ids=lambda wait: wait.__name__,
)


@waits
def test_a_task_that_is_stopped_where_it_waits_raises_that_and_holds_nothing(
    wait: Wanted, harness: Harness
) -> None:
    task = harness.begin(wait(harness))
    assert not task.done

    reported = Told()
    task.throw(reported)
    task.throw(Told())

    assert (task.done, task.error) == (True, reported)
    harness.give_all_back()
    harness.gate.open()
    harness.assert_nothing_is_held()
    if wait is not another_task:  # which is nobody's but its own
        assert "went on" not in harness.steps


@waits
def test_a_task_that_is_stopped_as_its_wait_ends_holds_nothing(wait: Wanted, harness: Harness) -> None:
    """It was given what it waited for, and did not hear of it."""
    task = harness.begin(wait(harness))
    harness.give_all_back()
    harness.gate.open()

    reported = Told()
    task.throw(reported)

    assert (task.done, task.error) == (True, reported)
    harness.assert_nothing_is_held()


@pytest.mark.parametrize("steps", range(12))
@waits
def test_a_task_that_is_stopped_after_any_step_holds_nothing(
    wait: Wanted, steps: int, harness: Harness
) -> None:
    task = harness.begin(wait(harness))
    harness.give_all_back()
    for _ in range(steps):
        harness.runs.step()

    task.throw(Told())

    harness.assert_nothing_is_held()


@pytest.mark.parametrize("seed", range(60))
def test_whoever_is_stopped_whenever_nothing_stays_held(seed: int) -> None:
    harness, plan = Harness(seed), random.Random(seed)
    slots = Slots(2)

    async def work(size_bytes: int) -> None:
        await slots.take()
        reservation: Reservation | None = None
        try:
            reservation = await harness.memory.reserve(size_bytes)
            await blocking(lambda: None)
            await Pause(plan.random())
        finally:
            if reservation is not None:
                reservation.release()
            slots.release()

    tasks = [harness.begin(work(plan.randint(1, 100))) for _ in range(20)]
    stopped = plan.sample(tasks, 10)
    while not all(task.done for task in tasks):
        if plan.random() < 0.3 and stopped:
            stopped.pop().throw(Told())
        elif plan.random() < 0.1 or not harness.runs.step():
            harness.held.release()

    harness.give_all_back()
    harness.assert_nothing_is_held()
    assert slots.in_use == 0
    assert all(isinstance(task.error, Told | None) for task in tasks)


def test_a_request_that_nobody_waits_for_any_more_is_cancelled_once(harness: Harness) -> None:
    task = harness.begin(a_request(harness))

    task.throw(Told())
    task.throw(Told())

    assert harness.never.cancelled == 1


def test_a_task_may_clean_up_after_it_was_stopped(harness: Harness) -> None:
    async def tidy() -> None:
        try:
            await harness.never
        finally:
            await blocking(lambda: harness.steps.append("tidied up"))

    task = harness.begin(tidy())
    reported = Told()
    task.throw(reported)
    assert not task.done

    harness.run()

    assert harness.steps == ["tidied up"]
    assert task.error is reported


def test_a_wait_that_cannot_begin_raises_where_it_is_awaited(harness: Harness) -> None:
    class Broken(Wait[None]):
        def start(self, ended: Ended) -> None:
            raise Told

    async def work() -> str:
        try:
            await Broken()
        except Told:
            return "caught"
        return "not raised"

    assert harness.begin(work()).value == "caught"


def test_who_awaits_a_task_gets_what_it_returned_even_afterwards(harness: Harness) -> None:
    async def work() -> int:
        await Pause(1)
        return 7

    task = harness.begin(work())
    during, reported = harness.begin(_awaiting(task)), list[object]()
    harness.run()
    after = harness.begin(_awaiting(task))
    task.start(lambda value, error: reported.append((value, error)))
    harness.run()

    assert (during.value, after.value, reported) == (7, 7, [(7, None)])


async def _awaiting(task: Task) -> Any:
    return await task


# -- slots and gates -----------------------------------------------------------------------------------------
def test_slots_are_given_in_the_order_of_asking_and_past_those_who_left(harness: Harness) -> None:
    served: list[str] = []

    async def want(name: str) -> None:
        await harness.slots.take()
        served.append(name)
        harness.slots.release()

    tasks = {name: harness.begin(want(name)) for name in ("first", "second", "third")}
    tasks["second"].throw(Told())
    harness.slots.release()
    harness.run()

    assert served == ["first", "third"]


def test_nobody_overtakes_those_who_wait_for_a_slot(harness: Harness) -> None:
    waiting = harness.begin(harness.slots.take())
    harness.slots.release()

    late = harness.begin(harness.slots.take())
    harness.run()

    assert (waiting.done, late.done, harness.slots.in_use) == (True, False, 1)


def test_an_open_gate_lets_everybody_through_at_once(harness: Harness) -> None:
    before = harness.begin(a_gate(harness))
    harness.gate.open()
    harness.run()
    after = harness.begin(a_gate(harness))
    harness.run()

    assert before.done
    assert after.done


# -- groups --------------------------------------------------------------------------------------------------
async def returning(value: int, seconds: float) -> int:
    await Pause(seconds)
    return value


async def raising(error: Exception, seconds: float) -> int:
    await Pause(seconds)
    raise error


def test_all_results_come_in_the_order_of_asking(harness: Harness) -> None:
    task = harness.begin(gather(harness.runs, [returning(n, 3 - n) for n in range(3)]))
    harness.run()

    assert task.value == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_are_results_too(count: int, harness: Harness) -> None:
    task = harness.begin(gather(harness.runs, [returning(n, 1) for n in range(count)]))
    harness.run()

    assert task.value == list(range(count))


def test_leaving_a_group_waits_for_all_of_it(harness: Harness) -> None:
    async def work() -> float:
        async with Group(harness.runs) as group:
            group.spawn(returning(1, 5))
            group.spawn(returning(2, 9))
        return harness.runs.now

    task = harness.begin(work())
    harness.run()

    assert task.value == 9


def test_the_first_error_ends_the_others_and_is_raised(harness: Harness) -> None:
    first = Told("first")
    seen: list[BaseException] = []

    async def other() -> None:
        try:
            await harness.never
        except BaseException as error:
            seen.append(error)
            raise

    async def work() -> None:
        async with Group(harness.runs) as group:
            group.spawn(other())
            group.spawn(raising(first, 1))
            group.spawn(raising(Told("second"), 2))

    task = harness.begin(work())
    harness.run()

    assert task.error is first
    assert harness.runs.now < 2
    assert [type(error) for error in seen] == [GroupEnded]


def test_a_task_that_retries_does_not_take_the_error_of_another_for_its_own(harness: Harness) -> None:
    """It would begin again, and the group would wait for that."""
    tries: list[float] = []

    async def action() -> None:
        tries.append(harness.runs.now)
        await harness.never

    async def persistent() -> None:
        policy = replace(REQUEST, base=timedelta())
        await policy.run(action, lambda error: isinstance(error, SourceUnavailable))

    async def work() -> None:
        async with Group(harness.runs) as group:
            group.spawn(persistent())
            group.spawn(raising(SourceUnavailable("another's"), 1))

    task = harness.begin(work())
    harness.run()

    assert isinstance(task.error, SourceUnavailable)
    assert tries == [0]


def test_an_error_in_the_block_ends_the_tasks(harness: Harness) -> None:
    tasks: list[Task] = []
    reported = Told()

    async def work() -> None:
        async with Group(harness.runs) as group:
            tasks.append(group.spawn(a_slot(harness)))
            await Pause(1)
            raise reported

    task = harness.begin(work())
    harness.run()

    assert task.error is reported
    assert isinstance(tasks[0].error, GroupEnded)


def test_a_group_may_be_failed_from_outside_once(harness: Harness) -> None:
    groups: list[Group] = []

    async def work() -> None:
        async with Group(harness.runs) as group:
            groups.append(group)
            group.spawn(a_request(harness))

    task = harness.begin(work())
    reported = Told()
    groups[0].fail(reported)
    groups[0].fail(Told())
    harness.run()

    assert groups[0].failed
    assert task.error is reported


def test_one_who_fails_in_a_finished_group_fails_nobody(harness: Harness) -> None:
    async def work() -> str:
        async with Group(harness.runs) as group:
            group.spawn(returning(1, 0))
        return "ended"

    task = harness.begin(work())
    harness.run()
    task.throw(Told())

    assert (task.value, task.error) == ("ended", None)


# -- fewer at once -------------------------------------------------------------------------------------------
def test_slots_are_halved_once_for_all_that_were_refused_at_the_same_time() -> None:
    slots = Slots(16)
    for _ in range(16):
        slots.narrow()

    assert slots.limit == 8


def test_slots_are_halved_again_when_as_many_calls_as_are_allowed_were_refused_after_that() -> None:
    slots = Slots(16)
    slots.narrow()
    for _ in range(8):
        slots.widen()
    slots.narrow()

    assert slots.limit == 4


def test_at_least_one_slot_is_left() -> None:
    slots = Slots(2)
    for _ in range(20):
        slots.narrow()
        slots.widen()

    assert slots.limit >= 1
    assert slots.try_take()


def test_calls_that_go_well_bring_all_slots_back() -> None:
    slots = Slots(16)
    slots.narrow()
    for _ in range(400):
        slots.widen()

    assert slots.limit == 16


def test_more_in_use_than_the_new_limit_end_before_others_begin() -> None:
    runs, slots = SingleThreaded(), Slots(4)
    assert all(slots.try_take() for _ in range(4))
    slots.narrow()
    begun: list[int] = []

    async def one(number: int) -> None:
        await slots.take()
        begun.append(number)

    for number in range(2):
        Task(runs, one(number)).begin()
    for _ in range(2):
        slots.release()
        while runs.step():
            pass
    assert begun == []

    slots.release()
    while runs.step():
        pass
    assert begun == [0]

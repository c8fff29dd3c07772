"""Coroutines of the engine, many at once in one thread.

Small on purpose, and not asyncio: an object of a tree costs a dozen steps, and its whole budget of processor time is a
few of asyncio's; and a simulation steps through it without a clock (docs/decisions/0007-libcurl.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from archiver.http.loop import Timer
from archiver.http.runtime import Runs
from archiver.http.waiting import Blocking, Ended, Pause, Wait

T = TypeVar("T")


class Task(Wait[Any]):
    """A coroutine that runs. Awaited, it gives what the coroutine returns, or raises what that raises. In the engine's
    thread."""

    __slots__ = (
        "_coroutine",
        "_step_number",
        "_timer",
        "_wait",
        "_watchers",
        "done",
        "error",
        "runs",
        "value",
    )

    def __init__(self, runs: Runs, coroutine: Coroutine[Wait[Any], Any, Any]) -> None:
        self.runs = runs
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._coroutine = coroutine
        self._wait: Wait[Any] | None = None
        self._timer: Timer | None = None
        self._step_number = 0
        self._watchers: list[Ended] = []

    def begin(self) -> Task:
        """Run up to the first wait."""
        self._step(None, None)
        return self

    def start(self, ended: Ended) -> None:
        if self.done:
            ended(self.value, self.error)
        else:
            self._watchers.append(ended)

    def throw(self, error: BaseException) -> None:
        """Raise `error` where it waits. Idempotent; does nothing once the task has ended."""
        wait, self._wait = self._wait, None
        if self.done or wait is None:
            return
        self._step_number += 1
        if self._timer is not None:
            self._timer.cancel()
        wait.cancel()
        self._step(None, error)

    def _step(self, value: Any, error: BaseException | None) -> None:
        try:
            wait = self._coroutine.send(value) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self._end(stop.value, None)
            return
        except BaseException as raised:  # noqa: BLE001 - whoever awaits the task judges it
            self._end(None, raised)
            return
        self._wait = wait
        self._step_number += 1
        ended = partial(self._wake, self._step_number)
        try:
            if isinstance(wait, Blocking):
                self.runs.block(wait, ended)
            elif isinstance(wait, Pause):
                resume = partial(self._resume, self._step_number, None, None)
                self._timer = self.runs.call_later(wait.seconds, resume)
            else:
                wait.start(ended)
        except BaseException as raised:  # noqa: BLE001 - as above
            self._resume(self._step_number, None, raised)

    def _wake(self, number: int, value: Any, error: BaseException | None) -> None:
        """From any thread: resume soon. `number`: the step that waits."""
        self.runs.call_soon(partial(self._resume, number, value, error))

    def _resume(self, number: int, value: Any, error: BaseException | None) -> None:
        if number == self._step_number and not self.done:
            self._wait = self._timer = None
            self._step(value, error)

    def _end(self, value: Any, error: BaseException | None) -> None:
        self.done, self.value, self.error = True, value, error
        watchers, self._watchers = self._watchers, []
        for ended in watchers:
            ended(value, error)


class Gate(Wait[None]):
    """Closed until `open` is called, once; then it lets everybody through. In the engine's thread."""

    __slots__ = ("_waiting", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._waiting: list[Ended] = []

    def start(self, ended: Ended) -> None:
        if self.is_open:
            ended(None, None)
        else:
            self._waiting.append(ended)

    def open(self) -> None:
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            ended(None, None)


class Slots:
    """At most `count` at once, in the order of asking; fewer after `narrow`. In the engine's thread."""

    def __init__(self, count: int) -> None:
        self._count = self._limit = count
        self._in_use = 0
        self._calm = 0  # calls of `widen` since the last step
        self.waiting: deque[_Slot] = deque()  # only for `_Slot`

    @property
    def in_use(self) -> int:
        return self._in_use

    @property
    def limit(self) -> int:
        """At most how many just now."""
        return self._limit

    def narrow(self) -> None:
        """Half as many, at least one: the other side asked for less. Once for all that ask at the same time."""
        if self._limit == self._count or self._calm >= self._limit:
            self._limit, self._calm = max(1, self._limit // 2), 0

    def widen(self) -> None:
        """One call more went well: as many of them as are allowed at once allow one more."""
        if self._limit < self._count:
            self._calm += 1
            if self._calm > self._limit:
                self._limit, self._calm = self._limit + 1, 0
                self._grant()

    def try_take(self) -> bool:
        """Take one, when that is possible at once."""
        if self._in_use < self._limit and not self.waiting:
            self._in_use += 1
            return True
        return False

    async def take(self) -> None:
        if not self.try_take():
            await _Slot(self)

    def release(self) -> None:
        self._in_use -= 1
        self._grant()

    def _grant(self) -> None:
        while self.waiting and self._in_use < self._limit:
            slot = self.waiting.popleft()
            if slot.ended is not None:
                self._in_use += 1
                slot.ended(None, None)


class _Slot(Wait[None]):
    __slots__ = ("_slots", "ended")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.ended: Ended | None = None

    def start(self, ended: Ended) -> None:
        self.ended = ended
        self._slots.waiting.append(self)

    def cancel(self) -> None:
        if self.ended is not None and self not in self._slots.waiting:  # it was just given to us
            self._slots.release()
        self.ended = None


class GroupEnded(Exception):
    """Raised in the tasks of a group that is to end. Not the error that ends it: a task may take that for one of its
    own and try again."""


class Group:
    """Tasks that end together: leaving the block waits for all. The first error cancels the others and is raised.

    async with Group(runs) as group:
        group.spawn(one())
        group.spawn(other())
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._tasks: dict[Task, None] = {}  # in the order in which they began
        self._error: BaseException | None = None
        self._changed: Gate | None = None

    def spawn(self, coroutine: Coroutine[Wait[Any], Any, Any]) -> Task:
        task = Task(self._runs, coroutine)
        self._tasks[task] = None
        task.start(lambda _, error: self._ended(task, error))
        return task.begin()

    @property
    def failed(self) -> bool:
        return self._error is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.cancel()
            return
        while self._tasks:
            self._changed = Gate()
            try:
                await self._changed
            except BaseException:
                self.cancel()
                raise
        if self._error is not None:
            raise self._error

    def fail(self, error: BaseException) -> None:
        """End the group with `error`, unless it has another already."""
        if self._error is None:
            self._error = error
            self.cancel()
            self._tell()

    def cancel(self) -> None:
        """End all of its tasks."""
        for task in list(self._tasks):
            task.throw(GroupEnded("another task of its group failed"))

    def _ended(self, task: Task, error: BaseException | None) -> None:
        self._tasks.pop(task, None)
        if error is not None:
            self.fail(error)
        if not self._tasks:
            self._tell()

    def _tell(self) -> None:
        if self._changed is not None and not self._changed.is_open:
            self._changed.open()


async def gather(runs: Runs, coroutines: Sequence[Coroutine[Wait[Any], Any, T]]) -> list[T]:
    """All results, in order. The first error cancels the others and is raised."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    async with Group(runs) as group:
        tasks = [group.spawn(coroutine) for coroutine in coroutines]
    return [task.value for task in tasks]

"""Retries: a bounded number, with growing and jittered pauses."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from archiver.http.waiting import Pause, complete

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`tries` in all. Before try n + 1 there is a pause of a random length up to `first_pause * 2**(n - 1)`, at most
    `longest_pause`; never shorter than the other side asked for, unless it asks for more than `longest_asked`: then the
    failure is handed up at once, for the ledger waits better than a worker. With the defaults four tries take at most
    3.5 s of pauses."""

    tries: int = 4
    first_pause: timedelta = timedelta(milliseconds=500)
    longest_pause: timedelta = timedelta(seconds=8)
    longest_asked: timedelta = timedelta(seconds=20)

    async def run(self, action: Callable[[], Awaitable[T]], worth_it: Callable[[Exception], bool]) -> T:
        """What `action` returns. Raises what it raised last, or at once when that is not `worth_it`."""
        for attempt in range(1, self.tries):
            try:
                return await action()
            except Exception as error:
                asked = getattr(error, "retry_after", None) or timedelta()
                if not worth_it(error) or asked > self.longest_asked:
                    raise
            ceiling = min(self.first_pause * 2 ** (attempt - 1), self.longest_pause)
            await Pause(max(asked.total_seconds(), random.uniform(0, ceiling.total_seconds())))  # noqa: S311
        return await action()

    def call(self, action: Callable[[], T], worth_it: Callable[[Exception], bool]) -> T:
        """As `run`, for a call that blocks; so does this. The pauses end with the thread's cancellation signal."""

        async def once() -> T:
            return action()

        return complete(self.run(once, worth_it))

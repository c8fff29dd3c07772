"""Trying again, a bounded number of times, with growing and jittered pauses."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from transfer import stopping

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """`tries` in all. Before try n + 1 there is a pause of a random length up to `first_pause * 2**(n - 1)`, at
    most `longest_pause`; never shorter than the other side asked for, unless it asks for more than
    `longest_asked`: then the failure is handed up at once, for the ledger waits better than a thread. With the
    defaults four tries take at most 3.5 s of pauses."""

    tries: int = 4
    first_pause: timedelta = timedelta(milliseconds=500)
    longest_pause: timedelta = timedelta(seconds=8)
    longest_asked: timedelta = timedelta(seconds=20)
    sleep: Callable[[float], None] = stopping.pause

    def keep_trying(self, action: Callable[[], _Result], worth_it: Callable[[Exception], bool]) -> _Result:
        """What `action` returns. Raises what it raised last, or at once when that is not `worth_it`."""
        for attempt in range(1, self.tries):
            try:
                return action()
            except Exception as error:
                asked = getattr(error, "retry_after", None) or timedelta()
                if not worth_it(error) or asked > self.longest_asked:
                    raise
            ceiling = min(self.first_pause * 2 ** (attempt - 1), self.longest_pause)
            self.sleep(max(asked.total_seconds(), random.uniform(0, ceiling.total_seconds())))  # noqa: S311
        return action()

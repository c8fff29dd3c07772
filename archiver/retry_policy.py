"""Every retry policy of the archiver: backoff and jitter, with formula and defaults.

What fails for good at one level is retried at the next, where a retry is rarer and costs more:

| policy        | what is tried again                                | attempts            | pauses                    |
|---------------|----------------------------------------------------|---------------------|---------------------------|
| REQUEST       | one request to a source or a store, during a copy  | 4                   | 0 to 3.5 s in all         |
| STORE_CALL    | one call of a vendor's library, as boto3 does      | 5 (S3: an option)   | 0 to 15 s in all          |
| API_CALL      | one call of the 100ms API                          | 5, within 60 s      | 3.75 to 7.5 s in all      |
| SETTLING      | recording a finished copy while the ledger is down | 26, within 3 min    | 117 s in all              |
| ATTEMPT       | one asset (ARCHIVER_RETRY_*_SECONDS)               | until it is settled | 15 to 30 s, up to 1 h     |
| MACHINE_FAULT | the next asset, after a fault of this machine      | 5, then a restart   | 5 s, doubling to 1 minute |
| RESTART       | a process of `archiver up` that exited             | no limit            | 1 s, doubling to 30 s     |
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from archiver.http.waiting import Pause, complete

T = TypeVar("T")

_MOST_DOUBLINGS = 20  # a timedelta ends at 2^46 seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The pause after failure n is a random length from `(1 - jitter) * p` to `p`, where

        p = min(cap, base * 2^(n - 1))

    `jitter` 1 is "full", 0.5 "equal" jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), 0 none.
    `attempts` counts the first one; None: no limit. A pause is never shorter than the Retry-After of the other side
    (RFC 9110, 10.2.3); one of more than `longest_asked` is not waited for by `run`, which raises the error at once: the
    asset waits in the ledger instead, and the worker does something else.
    """

    base: timedelta
    cap: timedelta
    jitter: float
    attempts: int | None = None
    longest_asked: timedelta = timedelta(seconds=20)

    def pause(self, failures: int, chance: float = 0.0) -> timedelta:
        """The pause after so many failures in a row. `chance` is a random number from 0 to 1."""
        doublings = min(max(failures - 1, 0), _MOST_DOUBLINGS)
        return min(self.base * (1 << doublings), self.cap) * (1 - self.jitter + self.jitter * chance)

    async def run(self, action: Callable[[], Awaitable[T]], worth_it: Callable[[Exception], bool]) -> T:
        """Return what `action` returns. Raise its last error, or the first that is not `worth_it`."""
        failures = 0
        while True:
            try:
                return await action()
            except Exception as error:
                failures += 1
                asked: timedelta = getattr(error, "retry_after", None) or timedelta()
                if failures == self.attempts or not worth_it(error) or asked > self.longest_asked:
                    raise
            await Pause(max(asked, self.pause(failures, random.uniform(0, 1))).total_seconds())  # noqa: S311

    def call(self, action: Callable[[], T], worth_it: Callable[[Exception], bool]) -> T:
        """Like `run`, for a call that blocks this thread. A pause ends with the thread's cancellation signal."""

        async def once() -> T:
            return action()

        return complete(self.run(once, worth_it))


REQUEST = RetryPolicy(base=timedelta(milliseconds=500), cap=timedelta(seconds=8), jitter=1.0, attempts=4)
API_CALL = RetryPolicy(base=timedelta(milliseconds=500), cap=timedelta(seconds=8), jitter=0.5, attempts=5)
SETTLING = RetryPolicy(base=timedelta(seconds=1), cap=timedelta(seconds=5), jitter=0.0, attempts=26)
ATTEMPT = RetryPolicy(base=timedelta(seconds=30), cap=timedelta(hours=1), jitter=0.5)
STORE_CALL = RetryPolicy(base=timedelta(seconds=1), cap=timedelta(seconds=20), jitter=1.0, attempts=5)
MACHINE_FAULT = RetryPolicy(base=timedelta(seconds=5), cap=timedelta(minutes=1), jitter=0.0)
RESTART = RetryPolicy(base=timedelta(seconds=1), cap=timedelta(seconds=30), jitter=0.0)

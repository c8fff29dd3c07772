"""One rate for many processes: each reserves from a shared account what it uses.

An amount may be used when it is earned: after the time that it takes at the rate, counted from the end of what was
reserved before it by anybody. So the rate holds on average from the first byte on, nothing is saved up while idle, and
no process needs to know how many others there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RESERVED_SECONDS = 0.1
"""A process reserves at least what is earned in this time: at most ten calls a second to the shared account."""

ALONE_SECONDS = 30.0
"""After the account could not be reached, it is not asked again for so long: each try may take seconds."""

Reserve = Callable[[str, float, float], float | None]
"""Reserve an amount of the account of this name, at so many a second: the seconds until it is earned; None when the
account cannot be reached."""


class RateLimit:
    """Safe to use from several threads."""

    def __init__(
        self,
        name: str,
        per_second: Callable[[], float | None],
        reserve: Reserve,
        *,
        processes: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`per_second`: the rate of now; None: unlimited. `processes`: among how many the rate is divided while the
        account cannot be reached."""
        self._name = name
        self._per_second = per_second
        self._shared = reserve
        self._processes = processes
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._reserved = 0.0  # and not used yet; negative: used beyond it
        self._earned_at = 0.0  # by `monotonic`, what is reserved
        self._own_until = 0.0  # by `monotonic`, what was reserved while the account could not be reached
        self._alone_until = 0.0

    def per_second(self) -> float | None:
        return self._per_second()

    def reserve(self, amount: float) -> float:
        """Reserve `amount`, and return the seconds to wait before it is used. May call the shared account, which blocks
        for as long as that takes."""
        rate = self._per_second()
        if rate is None:
            return 0.0
        with self._lock:
            missing = amount - self._reserved
            if missing > 0:
                taken = max(missing, rate * RESERVED_SECONDS)
                wait = self._wait_for(taken, rate)
                self._earned_at = self._monotonic() + wait
                self._reserved += taken
            self._reserved -= amount
            return max(0.0, self._earned_at - self._monotonic())

    def correct(self, amount: float) -> None:
        """Count `amount` more as used than was reserved (negative: less), without a wait: what is reserved next pays
        for it."""
        if self._per_second() is not None:
            with self._lock:
                self._reserved -= amount

    def _wait_for(self, amount: float, rate: float) -> float:
        if self._monotonic() >= self._alone_until:
            wait = self._shared(self._name, amount, rate)
            if wait is not None:
                return wait
            self._alone_until = self._monotonic() + ALONE_SECONDS
        now = self._monotonic()
        self._own_until = max(self._own_until, now) + amount / (rate / self._processes)
        return self._own_until - now

"""What one copy may read, by the bandwidth limit that all workers share."""

from __future__ import annotations

import time
from collections.abc import Callable

from archiver.http.waiting import Pause, blocking
from archiver.limits.rate_limit import RateLimit

UNKNOWN_BYTES = 512 * 1024
"""Taken for the first response whose length nobody has said. What it really has is counted when it came."""
LEARN_FROM = 4
"""Responses of unknown length that come one after the other, before others are asked for at once."""

_LEARN_SECONDS = 10.0  # for each: it may fail
_LEARN_EVERY_SECONDS = 0.05
_LOOK_EVERY_SECONDS = 5.0


class UsualSize:
    """How many bytes a response has whose length nobody has said, by those that came. Of one process, whose first
    requests would otherwise go far beyond a low limit, or far below it."""

    def __init__(self) -> None:
        self.size_bytes = UNKNOWN_BYTES
        self._seen = 0
        self._next_at: float | None = None

    def saw(self, size_bytes: int) -> None:
        self.size_bytes += (size_bytes - self.size_bytes) // min(self._seen + 1, 4)
        self._seen += 1
        self._next_at = None

    def may_ask(self, now_seconds: float) -> bool:
        """Return whether to send the next request, by a monotonic clock."""
        if self._seen >= LEARN_FROM:
            return True
        if self._next_at is not None and now_seconds < self._next_at:
            return False
        self._next_at = now_seconds + _LEARN_SECONDS
        return True


class Bandwidth:
    """Counted are bytes of sources. Each destination is sent as many."""

    def __init__(
        self,
        limit: RateLimit | None = None,
        is_ignored: Callable[[], bool] = lambda: False,
        usual: UsualSize | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_ignored`: whether this copy need not keep to the limit by now. Called from any thread; quick."""
        self._limit = limit
        self._is_ignored = is_ignored
        self._monotonic = monotonic
        self._usual = usual or UsualSize()

    async def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read."""
        limit = self._limit
        if limit is None or not size_bytes or self._is_free(limit):
            return
        seconds = await blocking(lambda: limit.reserve(size_bytes), "ledger")
        ends = self._monotonic() + seconds
        while (left := ends - self._monotonic()) > 0 and not self._is_free(limit):
            await Pause(min(left, _LOOK_EVERY_SECONDS))

    async def take_unknown(self, most_bytes: int) -> int:
        """Wait until a response of unknown length may be read, of at most `most_bytes`. Return how many were taken."""
        if self._limit is None or self._is_free(self._limit):
            return 0
        while not self._usual.may_ask(self._monotonic()):
            await Pause(_LEARN_EVERY_SECONDS)
        size_bytes = min(most_bytes, self._usual.size_bytes)
        await self.take(size_bytes)
        return size_bytes

    def came(self, size_bytes: int, taken_bytes: int) -> None:
        """Count a response of so many bytes, for which others were taken."""
        self._usual.saw(size_bytes)
        if self._limit is not None and not self._is_ignored():
            self._limit.correct(size_bytes - taken_bytes)

    def _is_free(self, limit: RateLimit) -> bool:
        return limit.per_second() is None or self._is_ignored()


UNLIMITED = Bandwidth()

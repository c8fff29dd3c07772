"""What one copy may read, by the bandwidth limit that all workers share."""

from __future__ import annotations

import time
from collections.abc import Callable

from archiver.http.waiting import Pause, blocking, complete
from archiver.limits.rate_limit import RateLimit

UNKNOWN_BYTES = 1024 * 1024
"""Reserved for the first responses whose length nobody has said. What they really have is counted when they came."""

_LOOK_EVERY_SECONDS = 5.0


def _never() -> bool:
    return False


class Bandwidth:
    """Counted are bytes of sources. Each destination is sent as many."""

    def __init__(
        self,
        limit: RateLimit | None = None,
        is_ignored: Callable[[], bool] = _never,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_ignored`: whether this copy need not keep to the limit by now. Called from any thread; quick."""
        self._limit = limit
        self._is_ignored = is_ignored
        self._monotonic = monotonic
        self.usual_bytes = UNKNOWN_BYTES
        """Of the responses so far."""

    async def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read."""
        limit = self._limit
        if limit is None or not size_bytes or self._is_free(limit):
            return
        seconds = await blocking(lambda: limit.reserve(size_bytes), "ledger")
        ends = self._monotonic() + seconds
        while (left := ends - self._monotonic()) > 0 and not self._is_free(limit):
            await Pause(min(left, _LOOK_EVERY_SECONDS))

    def take_blocking(self, size_bytes: int) -> None:
        """`take`, in a thread that may block; ends early with its cancellation signal."""
        if self._limit is not None:
            complete(self.take(size_bytes))

    def came(self, size_bytes: int, taken_bytes: int) -> None:
        """Count a response of so many bytes, for which others were taken."""
        self.usual_bytes += (size_bytes - self.usual_bytes) // 4
        if self._limit is not None and not self._is_ignored():
            self._limit.correct(size_bytes - taken_bytes)

    def _is_free(self, limit: RateLimit) -> bool:
        return limit.per_second() is None or self._is_ignored()


UNLIMITED = Bandwidth()

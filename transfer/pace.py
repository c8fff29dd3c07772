"""How many connections to a source pay. One is never enough, for CDNs and S3 cap each; too many waste memory and
are answered with 429."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

_FIRST = 16  # 8 took a second to become 16, of the five that a GiB takes at 20 MB/s a connection
_WINDOW_SECONDS = 0.5
_FIRST_WINDOW_SECONDS = 0.2  # which gives no more than something to compare with
_PAYS = 1.05  # by how much the throughput must grow for more connections to be worth having
_SETTLED_SECONDS = 15.0  # before trying again whether more would pay by now, or were only refused for a while


class Pace:
    """Doubles the number of connections while that raises the throughput, takes the last step back when it
    does not, halves it when the source says slower. `apply` is told each new number. Safe from several threads."""

    def __init__(
        self, most: int, apply: Callable[[int], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self._most = most
        self._apply = apply
        self._clock = clock
        self._lock = threading.Lock()
        self._connections = min(_FIRST, most)
        self._before = self._connections  # the number that `_best_rate` was reached with
        self._best_rate = 0.0
        self._bytes = self._answers = 0
        self._since = clock()
        self._settled_until = 0.0
        apply(self._connections)

    def moved(self, size_bytes: int) -> None:
        """One answer was read to its end."""
        with self._lock:
            self._bytes += size_bytes
            self._answers += 1
            now = self._clock()
            elapsed = now - self._since
            # every connection should have had its say, or a window ends between two lumps
            window = _WINDOW_SECONDS if self._best_rate else _FIRST_WINDOW_SECONDS
            if elapsed >= window and self._answers >= self._connections:
                rate = self._bytes / elapsed
                self._since, self._bytes, self._answers = now, 0, 0
                if now >= self._settled_until:
                    self._judge(rate, now)

    def throttled(self) -> None:
        """The source answered 429 or 503."""
        with self._lock:
            now = self._clock()
            if now >= self._settled_until or self._connections > self._before // 2:
                self._before = self._connections
                self._set(max(1, self._connections // 2), now)
                self._settle(now)

    def _judge(self, rate: float, now: float) -> None:
        if rate >= self._best_rate * _PAYS:
            self._best_rate, self._before = rate, self._connections
            if self._connections < self._most:
                self._set(min(self._most, 2 * self._connections), now)
            return
        self._set(self._before, now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._settled_until = now + _SETTLED_SECONDS
        self._best_rate = 0.0

    def _set(self, connections: int, now: float) -> None:
        self._connections = connections
        self._since, self._bytes, self._answers = now, 0, 0
        self._apply(connections)

"""Counters of one process, until `worker.tallies` adds them to the totals in the ledger."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

BOUNDS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the buckets of a histogram of requests; a last one holds the rest."""
REQUESTS = "request_seconds:"
"""Begin of the names of such a histogram: `request_seconds:TARGET:BOUND`, and `request_seconds:TARGET:microseconds` for
the sum. A bucket counts the requests of its own, not those of the smaller ones."""
REST, SUM = "more", "microseconds"

_BUCKETS = (*map(str, BOUNDS_SECONDS), REST)


class Tally:
    """Thread-safe. A fork leaves its counts with the parent."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def add_request(self, target: str, seconds: float) -> None:
        """Count a request to `target`: "api", "source" or "store"."""
        bucket, total = _names(target, bisect_left(BOUNDS_SECONDS, seconds))
        with self._lock:
            self._counts[bucket] += 1
            self._counts[total] += round(seconds * 1e6)

    def take(self) -> Mapping[str, int]:
        """Return what was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def forget(self) -> None:
        self._counts, self._lock = Counter(), threading.Lock()


@lru_cache(maxsize=128)
def _names(target: str, bucket: int) -> tuple[str, str]:
    """Of a bucket and of the sum."""
    return f"{REQUESTS}{target}:{_BUCKETS[bucket]}", f"{REQUESTS}{target}:{SUM}"


TALLY = Tally()
"""Of this process."""

os.register_at_fork(after_in_child=TALLY.forget)

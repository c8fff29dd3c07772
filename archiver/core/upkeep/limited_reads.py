"""A store that is read at a limited rate, for upkeep that may take its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from archiver.http.waiting import pause
from archiver.limits.rate_limit import RateLimit
from storage_backends.base import StorageBackend


def limited(
    stores: Sequence[StorageBackend], limit: RateLimit | None, wait: Callable[[float], None] = pause
) -> list[StorageBackend]:
    """Wrap each of `stores`; all of them share `limit`. None: unlimited."""
    if limit is None:
        return list(stores)
    # optional abilities are found by getattr, so that a wrapper passes on those that its store has
    return [cast("StorageBackend", LimitedReads(store, limit, wait)) for store in stores]


class LimitedReads:
    """A `storage_backends.base.StorageBackend` that waits after each read until what it read is earned."""

    def __init__(self, store: StorageBackend, limit: RateLimit, wait: Callable[[float], None]) -> None:
        self._store = store
        self._limit = limit
        self._wait = wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, *args: Any, **options: Any) -> bytes:
        data = self._store.read(*args, **options)
        if seconds := self._limit.reserve(len(data)):
            self._wait(seconds)
        return data

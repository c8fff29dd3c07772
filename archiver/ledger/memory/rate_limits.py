"""Shared rates in memory."""

from __future__ import annotations

from datetime import timedelta

from archiver.ledger.memory.state import State, synchronized
from archiver.ledger.models import MAX_RESERVED_AHEAD


class MemoryRateLimits(State):
    """`ledger.base.RateLimits`."""

    @synchronized
    def reserve(self, name: str, amount: float, per_second: float) -> timedelta:
        now = self._clock()
        taken = timedelta(seconds=min(amount / per_second, MAX_RESERVED_AHEAD.total_seconds()))
        self._rates[name] = min(max(self._rates.get(name, now), now) + taken, now + MAX_RESERVED_AHEAD)
        return self._rates[name] - now

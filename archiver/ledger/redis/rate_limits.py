"""Shared rates in Redis."""

from __future__ import annotations

from datetime import timedelta

from archiver.ledger.models import MAX_RESERVED_AHEAD
from archiver.ledger.redis.calls import ScriptCalls
from archiver.ledger.redis.values import MICROSECOND


class RedisRateLimits(ScriptCalls):
    """`ledger.base.RateLimits`. Not retried: whoever waits for a rate can keep to a share of it alone."""

    def reserve(self, name: str, amount: float, per_second: float) -> timedelta:
        longest = MAX_RESERVED_AHEAD // MICROSECOND
        return MICROSECOND * int(
            self._run("reserve", name, repr(amount), repr(per_second), longest, once=True)
        )

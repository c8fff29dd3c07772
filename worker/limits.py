"""Build the rate limits of one process from the settings. Their accounts are in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.urgency import would_miss_deadline
from archiver.ledger.base import RateLimits
from archiver.ledger.errors import LedgerError
from archiver.limits.rate_limit import RateLimit, Reserve
from archiver.limits.schedule import RateSchedule
from archiver.transfer.bandwidth import UNLIMITED, Bandwidth, UsualSize
from worker.settings import Settings

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]


def copy_limit(settings: Settings, ledger: RateLimits, clock: Clock) -> RateLimit | None:
    return _of_schedule("copy", settings.bandwidth_schedule, settings, ledger, clock)


def scrub_limit(settings: Settings, ledger: RateLimits, clock: Clock) -> RateLimit | None:
    return _of_schedule("scrub", settings.scrub_schedule, settings, ledger, clock)


def drill_limit(settings: Settings, ledger: RateLimits, clock: Clock) -> RateLimit | None:
    return _of_schedule("drill", settings.drill_schedule, settings, ledger, clock)


def replicate_limit(
    settings: Settings, ledger: RateLimits, clock: Clock, per_second: float | None = None
) -> Callable[[int], None]:
    """Return what waits before so many bytes are read to replicate. `per_second`: instead of the setting."""
    limit = _of_schedule("replicate", settings.replicate_schedule, settings, ledger, clock)
    if per_second is not None:
        limit = RateLimit("replicate", lambda: per_second, _shared(ledger))
    if limit is None:
        return lambda _bytes: None
    return lambda size_bytes: time.sleep(limit.reserve(size_bytes))


def api_limit(settings: Settings, ledger: RateLimits) -> RateLimit | None:
    rate = settings.api_rate
    if rate is None:
        return None
    return RateLimit("api", lambda: rate, _shared(ledger), processes=settings.worker_concurrency)


def bandwidth_of(
    limit: RateLimit | None, usual: UsualSize, heartbeat: Heartbeat, clock: Clock, near: timedelta
) -> Bandwidth:
    """Return the bandwidth of one copy. It is unlimited once the copy would miss its deadline otherwise."""
    if limit is None:
        return UNLIMITED

    def is_ignored() -> bool:
        rate = limit.per_second()
        if rate is None or heartbeat.expires_at is None:
            return False
        size_bytes = heartbeat.bytes_total or 0
        return would_miss_deadline(heartbeat.expires_at, size_bytes, clock(), near, rate)

    return Bandwidth(limit, is_ignored, usual)


def _of_schedule(
    name: str, schedule: RateSchedule, settings: Settings, ledger: RateLimits, clock: Clock
) -> RateLimit | None:
    if schedule.is_unlimited:
        return None
    processes = settings.worker_concurrency
    return RateLimit(name, lambda: schedule.at(clock()), _shared(ledger), processes=processes)


def _shared(ledger: RateLimits) -> Reserve:
    def reserve(name: str, amount: float, per_second: float) -> float | None:
        try:
            return ledger.reserve(name, amount, per_second).total_seconds()
        except LedgerError as error:
            log.warning("rate_limit_not_shared", name=name, reason=str(error))
            return None

    return reserve

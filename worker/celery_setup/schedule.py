"""Beat's schedule. Every task here tolerates being sent twice, late, or not at all.

Wall clocks are not trusted: messages carry no `expires`, which a worker would compare with its own clock
(`tasks.throttle` skips what piled up instead), and beat runs on a monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from celery.schedules import BaseSchedule, crontab, schedule

from tasks.names import DISPATCH, DRILL, RECONCILE, SCRUB, SWEEP, WATCH
from tasks.throttle import EVERY_HEADER
from tasks.watch import BEAT_HEADER
from worker.celery_setup.processes import CONTROL_QUEUE

WATCH_EVERY = timedelta(minutes=1)
RECONCILE_MINUTE = 17  # of each hour; not on the hour, when other jobs start
DRILL_HOUR = 2  # UTC, at DRILL_MINUTE
DRILL_MINUTE = 11
SCRUB_HOUR = 3  # UTC, at SCRUB_MINUTE
SCRUB_MINUTE = 41


class SteadyClock:
    """Its creation time plus a monotonic clock, so that setting the wall clock does not disturb beat."""

    def __init__(
        self, started_at: datetime | None = None, elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        """`elapsed`: seconds of a clock that is never set."""
        self._elapsed = elapsed
        self._started_at = (started_at or datetime.now(UTC)) - timedelta(seconds=elapsed())

    def __call__(self) -> datetime:
        return self._started_at + timedelta(seconds=self._elapsed())


def beat_schedule(
    *,
    sweep_every: timedelta,
    dispatch_every: timedelta,
    beat_name: str = "beat",
    clock: Callable[[], datetime] | None = None,
) -> dict[str, object]:
    """For Celery's `beat_schedule`. Sweep, dispatch and watch are due at once when beat starts; the others at fixed
    times of the day, since a beat that is restarted more often than they are due would never send them.
    `beat_name` travels with each watch, so that `archiver doctor` can count the beats. `clock`: a `SteadyClock`."""
    now = clock or SteadyClock()
    hourly = crontab(minute=RECONCILE_MINUTE, nowfun=now)
    nightly = crontab(hour=DRILL_HOUR, minute=DRILL_MINUTE, nowfun=now)
    daily = crontab(hour=SCRUB_HOUR, minute=SCRUB_MINUTE, nowfun=now)
    return {
        "sweep": _every(SWEEP, sweep_every, now),
        "dispatch": _every(DISPATCH, dispatch_every, now),
        "watch": _every(WATCH, WATCH_EVERY, now, {BEAT_HEADER: beat_name}),
        "reconcile": _entry(RECONCILE, hourly, timedelta(hours=1)),
        "scrub": _entry(SCRUB, daily, timedelta(days=1)),
        "drill": _entry(DRILL, nightly, timedelta(days=1)),
    }


def _every(
    task: str,
    interval: timedelta,
    clock: Callable[[], datetime],
    headers: Mapping[str, object] | None = None,
) -> dict[str, object]:
    # Otherwise beat waits a full interval after each start.
    last_run_at = clock() - interval
    entry = _entry(task, schedule(interval, nowfun=clock), interval, headers)
    return {**entry, "last_run_at": last_run_at}


def _entry(
    task: str, when: BaseSchedule, interval: timedelta, headers: Mapping[str, object] | None = None
) -> dict[str, object]:
    sent = {EVERY_HEADER: interval.total_seconds(), **(headers or {})}
    return {"task": task, "schedule": when, "options": {"queue": CONTROL_QUEUE, "headers": sent}}

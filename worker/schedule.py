"""What beat sends, and when. Every task here is harmless when it comes twice, late, or not at all this time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from celery.schedules import crontab

from tasks.names import DISPATCH, RECONCILE, SCRUB, SWEEP, WATCH
from worker.processes import CONTROL_QUEUE

WATCH_EVERY = timedelta(minutes=1)
RECONCILE_MINUTE = 17  # of each hour; not on the hour, when everybody else's jobs start
SCRUB_HOUR = 3  # UTC, at SCRUB_MINUTE
SCRUB_MINUTE = 41

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def beat_schedule(*, sweep_every: timedelta, dispatch_every: timedelta) -> dict[str, object]:
    """For Celery's `beat_schedule`. Sweep, dispatch and watch are due at once when beat starts; reconcile and scrub
    follow the wall clock, since a beat that is restarted more often than they are due would never send them."""
    return {
        "sweep": _every(SWEEP, sweep_every),
        "dispatch": _every(DISPATCH, dispatch_every),
        "watch": _every(WATCH, WATCH_EVERY),
        "reconcile": _by_clock(RECONCILE, crontab(minute=RECONCILE_MINUTE), timedelta(hours=1)),
        "scrub": _by_clock(SCRUB, crontab(hour=SCRUB_HOUR, minute=SCRUB_MINUTE), timedelta(days=1)),
    }


def _every(task: str, interval: timedelta) -> dict[str, object]:
    # Otherwise beat waits a full interval after each start.
    return {"task": task, "schedule": interval, "last_run_at": LONG_AGO, "options": _options(interval)}


def _by_clock(task: str, schedule: crontab, interval: timedelta) -> dict[str, object]:
    return {"task": task, "schedule": schedule, "options": _options(interval)}


def _options(interval: timedelta) -> dict[str, object]:
    # Dropped before the next one is due: a worker that was away for a night finds one of each, not thousands.
    return {"queue": CONTROL_QUEUE, "expires": interval.total_seconds() * 0.9}

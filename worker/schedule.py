"""What beat sends, and when. Every task here is harmless when it comes twice, late, or not at all this time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from celery.schedules import crontab

from tasks.names import DISPATCH, RECONCILE, SCRUB, SWEEP, WATCH
from tasks.watch import BEAT_HEADER
from worker.processes import CONTROL_QUEUE

WATCH_EVERY = timedelta(minutes=1)
RECONCILE_MINUTE = 17  # of each hour; not on the hour, when everybody else's jobs start
SCRUB_HOUR = 3  # UTC, at SCRUB_MINUTE
SCRUB_MINUTE = 41

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def beat_schedule(
    *, sweep_every: timedelta, dispatch_every: timedelta, beat_name: str = "beat"
) -> dict[str, object]:
    """For Celery's `beat_schedule`. Sweep, dispatch and watch are due at once when beat starts; reconcile and scrub
    follow the wall clock, since a beat that is restarted more often than they are due would never send them.
    `beat_name` travels with each watch, so that `archiver doctor` can count the beats."""
    return {
        "sweep": _every(SWEEP, sweep_every),
        "dispatch": _every(DISPATCH, dispatch_every),
        "watch": _every(WATCH, WATCH_EVERY, {BEAT_HEADER: beat_name}),
        "reconcile": _by_clock(RECONCILE, crontab(minute=RECONCILE_MINUTE), timedelta(hours=1)),
        "scrub": _by_clock(SCRUB, crontab(hour=SCRUB_HOUR, minute=SCRUB_MINUTE), timedelta(days=1)),
    }


def _every(task: str, interval: timedelta, headers: Mapping[str, str] | None = None) -> dict[str, object]:
    # Otherwise beat waits a full interval after each start.
    options = _options(interval) | ({"headers": dict(headers)} if headers else {})
    return {"task": task, "schedule": interval, "last_run_at": LONG_AGO, "options": options}


def _by_clock(task: str, schedule: crontab, interval: timedelta) -> dict[str, object]:
    return {"task": task, "schedule": schedule, "options": _options(interval)}


def _options(interval: timedelta) -> dict[str, object]:
    # Dropped before the next one is due: a worker that was away for a night finds one of each, not thousands.
    return {"queue": CONTROL_QUEUE, "expires": interval.total_seconds() * 0.9}

"""Relations between Celery's settings, and that Celery reads them as we mean them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from packaging.version import Version

from tasks import names
from tasks.throttle import EVERY_HEADER
from tasks.watch import BEAT_HEADER
from worker.celery_setup.config import SOFT_TIME_LIMIT, TASK_TIME_LIMIT, VISIBILITY_TIMEOUT, celery_settings
from worker.celery_setup.processes import (
    ARCHIVE_QUEUE,
    CONTROL_QUEUE,
    CONTROL_SLOTS,
    URGENT_QUEUE,
    archive_worker,
    control_worker,
)
from worker.celery_setup.schedule import SteadyClock, beat_schedule

SECRET = "a-password-of-the-broker"
SETTINGS = celery_settings(
    broker_url=f"redis://:{SECRET}@127.0.0.1:1/0",
    concurrency=3,
    beat_schedule=beat_schedule(sweep_every=timedelta(seconds=300), dispatch_every=timedelta(seconds=15)),
)


@pytest.fixture
def app() -> Celery:
    app = Celery(set_as_current=False)
    app.conf.update(SETTINGS)
    return app


def test_celery_knows_every_setting_that_we_set() -> None:
    known = dict(flatten(NAMESPACES))

    assert set(SETTINGS) - set(known) == set()


def test_the_release_of_celery_is_one_whose_worker_survives_a_restart_of_the_broker() -> None:
    assert Version("5.6.3") <= Version(celery.__version__) < Version("5.7")


def test_a_message_outlives_the_longest_task_before_redis_hands_it_out_again() -> None:
    assert VISIBILITY_TIMEOUT > TASK_TIME_LIMIT > SOFT_TIME_LIMIT


def test_urgent_assets_are_taken_first_and_control_does_not_wait_behind_copies() -> None:
    assert queues_of(archive_worker()) == [URGENT_QUEUE, ARCHIVE_QUEUE]
    assert queues_of(control_worker()) == [CONTROL_QUEUE]


def queues_of(command: list[str]) -> list[str]:
    return command[command.index("--queues") + 1].split(",")


def test_every_queue_that_is_consumed_or_sent_to_exists(app: Celery) -> None:
    scheduled = {entry["options"]["queue"] for entry in app.conf.beat_schedule.values()}

    assert set(app.amqp.queues) == {CONTROL_QUEUE, URGENT_QUEUE, ARCHIVE_QUEUE}
    assert scheduled <= set(app.amqp.queues)


def test_no_message_reaches_two_queues(app: Celery) -> None:
    bindings = [(queue.exchange.name, queue.routing_key) for queue in app.amqp.queues.values()]

    assert len(set(bindings)) == len(bindings)


def test_a_queue_with_a_typo_is_refused_instead_of_filling_up_unread(app: Celery) -> None:
    with pytest.raises(KeyError):
        app.amqp.queues["urgnet"]


def test_the_slots_of_the_control_worker_leave_one_for_dispatch_and_watch() -> None:
    long_ones = {names.SWEEP, names.RECONCILE, names.SCRUB, names.DRILL}

    assert len(long_ones) + 1 <= CONTROL_SLOTS


def test_beat_sends_each_control_task_and_nothing_else(app: Celery) -> None:
    sent = {entry["task"] for entry in app.conf.beat_schedule.values()}

    assert sent == {names.SWEEP, names.DISPATCH, names.WATCH, names.RECONCILE, names.SCRUB, names.DRILL}


def test_no_message_of_beat_holds_a_time_that_a_worker_would_compare_with_its_own_clock(app: Celery) -> None:
    for entry in app.conf.beat_schedule.values():
        assert set(entry["options"]) == {"queue", "headers"}
        assert set(entry["options"]["headers"]) <= {EVERY_HEADER, BEAT_HEADER}


def test_each_message_says_how_often_it_is_sent(app: Celery) -> None:
    result = {
        name: entry["options"]["headers"][EVERY_HEADER] for name, entry in app.conf.beat_schedule.items()
    }

    assert result == {
        "sweep": 300,
        "dispatch": 15,
        "watch": 60,
        "reconcile": 3600,
        "scrub": 86400,
        "drill": 86400,
    }


class Beat:
    """Celery's beat on a wall clock that can be set and a monotonic clock that cannot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, started_at: datetime) -> None:
        self.elapsed = 1000.0
        self.wall = started_at
        self.sent: list[tuple[str, float]] = []
        self.app = Celery(set_as_current=False)
        monkeypatch.setattr(self.app, "now", lambda: self.wall)
        self.app.conf.update(
            celery_settings(
                broker_url="memory://",
                concurrency=1,
                beat_schedule=beat_schedule(
                    sweep_every=timedelta(minutes=5),
                    dispatch_every=timedelta(seconds=15),
                    clock=SteadyClock(started_at, lambda: self.elapsed),
                ),
            )
        )
        # the configured one: the default keeps a file in the working directory
        service = self.app.Beat().Service(self.app, scheduler_cls=self.app.conf.beat_scheduler)
        self.scheduler = service.get_scheduler()
        monkeypatch.setattr(self.scheduler, "apply_entry", self._send)

    def _send(self, entry: Any, producer: object = None) -> None:
        self.sent.append((entry.name, self.elapsed - 1000.0))

    def run(self, duration: timedelta) -> None:
        until = self.elapsed + duration.total_seconds()
        while self.elapsed < until:
            wait = max(self.scheduler.tick(), 0.005)  # beat sends one entry a tick, and wakes a little early
            self.elapsed += wait
            self.wall += timedelta(seconds=wait)

    def sent_times(self, name: str) -> list[float]:
        return [round(at) for sent, at in self.sent if sent == name]


@pytest.mark.parametrize(
    "step",
    [
        timedelta(0),
        timedelta(seconds=-40),
        timedelta(days=-1),
        timedelta(days=-20000),
        timedelta(days=1),
        timedelta(days=3000),
    ],
    ids=str,
)
def test_beat_goes_on_at_its_intervals_when_the_wall_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    beat = Beat(monkeypatch, datetime(2026, 3, 1, 12, tzinfo=UTC))

    beat.run(timedelta(minutes=11))
    beat.wall += step
    beat.run(timedelta(minutes=11))

    assert beat.sent_times("sweep") == [0, 300, 600, 900, 1200]
    assert beat.sent_times("watch") == list(range(0, 22 * 60, 60))
    assert len(beat.sent_times("dispatch")) == 22 * 4
    assert beat.sent_times("reconcile") == [17 * 60]


@pytest.mark.parametrize("started_at", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)])
def test_beat_works_on_a_machine_that_does_not_know_the_date(
    monkeypatch: pytest.MonkeyPatch, started_at: datetime
) -> None:
    beat = Beat(monkeypatch, started_at)

    beat.run(timedelta(minutes=3))

    assert beat.sent_times("sweep") == [0]
    assert beat.sent_times("watch") == [0, 60, 120]


def test_sweep_dispatch_and_watch_are_due_at_once_when_beat_starts_and_only_once(app: Celery) -> None:
    # the configured one: the default keeps a file in the working directory
    scheduler = app.Beat().Service(app, scheduler_cls=app.conf.beat_scheduler).get_scheduler()
    due = {name: entry.is_due()[0] for name, entry in scheduler.schedule.items()}

    again = {name: next(entry).is_due()[0] for name, entry in scheduler.schedule.items()}

    assert {name for name, value in due.items() if value} == {"sweep", "dispatch", "watch"}
    assert not any(again.values())


@pytest.mark.parametrize(
    ("name", "next_run"),
    [
        ("reconcile", datetime(2026, 3, 1, 3, 17, tzinfo=UTC)),
        ("scrub", datetime(2026, 3, 1, 3, 41, tzinfo=UTC)),
        ("drill", datetime(2026, 3, 2, 2, 11, tzinfo=UTC)),
    ],
)
def test_reconcile_and_scrub_follow_the_clock_so_that_a_restarted_beat_does_not_put_them_off(
    app: Celery, name: str, next_run: datetime
) -> None:
    beat_started = datetime(2026, 3, 1, 2, 40, tzinfo=UTC)
    schedule = app.conf.beat_schedule[name]["schedule"]
    schedule.app = app

    last, until_next, _ = schedule.remaining_delta(beat_started)

    assert last + until_next == next_run


def test_what_a_worker_tells_of_its_configuration_hides_the_brokers_password(app: Celery) -> None:
    outcome = app.conf.humanize(with_defaults=True, censored=True)

    assert "127.0.0.1" in outcome
    assert SECRET not in outcome

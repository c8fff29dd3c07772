"""Relations between Celery's settings, and that Celery reads them as we mean them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from celery.schedules import crontab
from packaging.version import Version

from tasks import names
from worker.celery_config import SOFT_TIME_LIMIT, TASK_TIME_LIMIT, VISIBILITY_TIMEOUT, celery_settings
from worker.processes import (
    ARCHIVE_QUEUE,
    CONTROL_QUEUE,
    CONTROL_SLOTS,
    URGENT_QUEUE,
    archive_worker,
    control_worker,
)
from worker.schedule import RECONCILE_MINUTE, beat_schedule

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
    long_ones = {names.SWEEP, names.RECONCILE, names.SCRUB}

    assert len(long_ones) + 1 <= CONTROL_SLOTS


def test_beat_sends_each_control_task_and_nothing_else(app: Celery) -> None:
    sent = {entry["task"] for entry in app.conf.beat_schedule.values()}

    assert sent == {names.SWEEP, names.DISPATCH, names.WATCH, names.RECONCILE, names.SCRUB}


def test_a_message_expires_before_its_next_is_due(app: Celery) -> None:
    for entry in app.conf.beat_schedule.values():
        assert 0 < entry["options"]["expires"] < interval_seconds(entry["schedule"])


def interval_seconds(schedule: Any) -> float:
    if isinstance(schedule, timedelta):
        return schedule.total_seconds()
    assert isinstance(schedule, crontab)
    return 3600 if schedule == crontab(minute=RECONCILE_MINUTE) else 86400


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
    told = app.conf.humanize(with_defaults=True, censored=True)

    assert "127.0.0.1" in told
    assert SECRET not in told

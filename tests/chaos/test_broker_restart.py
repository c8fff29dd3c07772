"""The broker goes away under a worker. With celery 5.7.0 the first test fails: its main process dies of an
AttributeError when a task runs and a slot is free. It tells when a newer release may be taken
(docs/decisions/0002-celery-pin.md)."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.chaos.harness import Harness, pid, until

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda each: each.name)
def test_the_same_worker_lives_through_a_restart_of_the_broker_ends_its_task_once_and_takes_the_next(
    harness: Harness, number: signal.Signals
) -> None:
    worker = harness.start_worker(slots=4)
    before = pid(worker)
    harness.hold("running")
    harness.send("running")
    harness.wait_began("running")

    harness.stop_broker(number)
    harness.start_broker()
    harness.send("next")

    harness.wait_ended("next", seconds=40)
    harness.release("running")
    harness.wait_ended("running")
    assert pid(worker) == before
    assert "Unrecoverable" not in worker.last_lines(1000)


@pytest.mark.parametrize("away_seconds", [0, 20])
def test_with_every_slot_busy_an_outage_ends_no_task_and_the_backlog_is_worked_off_after_it(
    harness: Harness, away_seconds: int
) -> None:
    worker = harness.start_worker(slots=2)
    for asset_id in ("one", "two"):
        harness.hold(asset_id)
    harness.send_many(["one", "two", "three", "four"])
    harness.wait_began("one")
    harness.wait_began("two")
    processes = {harness.records.lindex(f"began:{asset_id}", 0) for asset_id in ("one", "two")}

    harness.stop_broker(signal.SIGKILL)
    down_until = time.monotonic() + away_seconds
    until(lambda: time.monotonic() >= down_until, seconds=away_seconds + 5, what="the outage to last")
    harness.start_broker()

    harness.release("one", "two")
    for asset_id in ("one", "two", "three", "four"):
        harness.wait_ended(asset_id, seconds=60)
    finishers = {harness.records.lindex(f"ended:{asset_id}", 0) for asset_id in ("one", "two")}
    assert finishers == processes, "those that ran when the broker left finished what they had begun"
    assert worker.is_alive()


def test_a_stalled_broker_ends_no_worker_and_work_goes_on_when_it_moves_again(harness: Harness) -> None:
    worker = harness.start_worker(slots=2)
    harness.hold("running")
    harness.send("running")
    harness.wait_began("running")
    broker = pid(harness.broker)

    os.kill(broker, signal.SIGSTOP)
    stalled_until = time.monotonic() + 35  # longer than the socket timeout of 30 s
    until(
        lambda: time.monotonic() >= stalled_until, seconds=40, what="the stall to outlast the socket timeout"
    )
    os.kill(broker, signal.SIGCONT)

    harness.release("running")
    harness.wait_ended("running", seconds=40)
    harness.send("next")
    harness.wait_ended("next", seconds=60)
    assert worker.is_alive()

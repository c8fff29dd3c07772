"""The broker goes away under a worker. With celery 5.7.0 the first test fails: its main process dies of an
AttributeError when a task runs and a slot is free. It tells when a newer release may be taken
(docs/decisions/0002-celery-pin.md)."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.chaos.world import World, pid, until

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda each: each.name)
def test_the_same_worker_lives_through_a_restart_of_the_broker_ends_its_task_once_and_takes_the_next(
    world: World, number: signal.Signals
) -> None:
    worker = world.start_worker(slots=4)
    before = pid(worker)
    world.hold("running")
    world.send("running")
    world.wait_began("running")

    world.stop_broker(number)
    world.start_broker()
    world.send("next")

    world.wait_ended("next", seconds=40)
    world.release("running")
    world.wait_ended("running")
    assert pid(worker) == before
    assert "Unrecoverable" not in worker.last_lines(1000)


@pytest.mark.parametrize("away_seconds", [0, 20])
def test_with_every_slot_busy_an_outage_ends_no_task_and_the_backlog_is_worked_off_after_it(
    world: World, away_seconds: int
) -> None:
    worker = world.start_worker(slots=2)
    for asset_id in ("one", "two"):
        world.hold(asset_id)
    world.send_many(["one", "two", "three", "four"])
    world.wait_began("one")
    world.wait_began("two")
    processes = {world.records.lindex(f"began:{asset_id}", 0) for asset_id in ("one", "two")}

    world.stop_broker(signal.SIGKILL)
    down_until = time.monotonic() + away_seconds
    until(lambda: time.monotonic() >= down_until, seconds=away_seconds + 5, what="the outage to last")
    world.start_broker()

    world.release("one", "two")
    for asset_id in ("one", "two", "three", "four"):
        world.wait_ended(asset_id, seconds=60)
    finishers = {world.records.lindex(f"ended:{asset_id}", 0) for asset_id in ("one", "two")}
    assert finishers == processes, "those that ran when the broker left finished what they had begun"
    assert worker.is_alive()


def test_a_stalled_broker_ends_no_worker_and_work_goes_on_when_it_moves_again(world: World) -> None:
    worker = world.start_worker(slots=2)
    world.hold("running")
    world.send("running")
    world.wait_began("running")
    broker = pid(world.broker)

    os.kill(broker, signal.SIGSTOP)
    stalled_until = time.monotonic() + 35  # longer than the socket timeout of 30 s
    until(
        lambda: time.monotonic() >= stalled_until, seconds=40, what="the stall to outlast the socket timeout"
    )
    os.kill(broker, signal.SIGCONT)

    world.release("running")
    world.wait_ended("running", seconds=40)
    world.send("next")
    world.wait_ended("next", seconds=60)
    assert worker.is_alive()

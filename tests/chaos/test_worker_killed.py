"""Workers and their children are killed."""

from __future__ import annotations

import os
import signal

import pytest

from tests.chaos.world import World, descendants, pid, until, wait_gone

pytestmark = pytest.mark.chaos


def test_a_killed_child_loses_nothing_its_task_runs_again_within_seconds(world: World) -> None:
    world.start_worker()
    world.hold("victim")
    world.send("victim")
    world.wait_began("victim")
    child = int(world.records.lindex("began:victim", 0) or 0)

    os.kill(child, signal.SIGKILL)

    world.wait_began("victim", times=2, seconds=15)
    world.release("victim")
    world.wait_ended("victim")
    assert int(world.records.lindex("ended:victim", 0) or 0) != child


def test_no_child_survives_its_killed_worker(world: World) -> None:
    worker = world.start_worker(slots=4)
    world.hold("running")
    world.send("running")
    world.wait_began("running")
    pool = descendants(pid(worker))
    assert len(pool) == 4

    os.kill(pid(worker), signal.SIGKILL)

    wait_gone(pool, seconds=5)


def test_sigterm_in_the_middle_of_a_task_is_out_within_the_grace_and_the_task_is_taken_up_elsewhere(
    world: World,
) -> None:
    first = world.start_worker("first", slots=2)
    pool = descendants(pid(first))
    world.hold("long")
    world.send("long")
    world.wait_began("long")

    first.ask_to_stop()  # the soft shutdown of this app is 1 s
    until(lambda: not first.is_alive(), seconds=15, what="the worker to be out")

    wait_gone(pool, seconds=1)
    assert world.ended("long") == 0
    world.start_worker("second")
    world.wait_began("long", times=2)
    world.release("long")
    world.wait_ended("long")


def test_sigterm_under_load_loses_no_message(world: World) -> None:
    assets = [f"asset-{number}" for number in range(60)]
    first = world.start_worker("first", slots=2)
    world.send_many(assets)
    until(lambda: world.ended(assets[5]) > 0, seconds=30, what="the worker to be in the middle")

    first.ask_to_stop()
    until(lambda: not first.is_alive(), seconds=15, what="the worker to be out")
    world.start_worker("second")

    for asset_id in assets:
        world.wait_ended(asset_id)


def test_an_idle_worker_ends_at_once(world: World) -> None:
    worker = world.start_worker()

    worker.ask_to_stop()

    until(lambda: not worker.is_alive(), seconds=5, what="the idle worker to be out")

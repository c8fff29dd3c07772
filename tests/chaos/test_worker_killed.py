"""Workers and their children are killed."""

from __future__ import annotations

import os
import signal

import pytest

from tests.chaos.harness import Harness, descendants, pid, until, wait_gone

pytestmark = pytest.mark.chaos


def test_a_killed_child_loses_nothing_its_task_runs_again_within_seconds(harness: Harness) -> None:
    harness.start_worker()
    harness.hold("victim")
    harness.send("victim")
    harness.wait_began("victim")
    child = int(harness.records.lindex("began:victim", 0) or 0)

    os.kill(child, signal.SIGKILL)

    harness.wait_began("victim", times=2, seconds=15)
    harness.release("victim")
    harness.wait_ended("victim")
    assert int(harness.records.lindex("ended:victim", 0) or 0) != child


def test_no_child_survives_its_killed_worker(harness: Harness) -> None:
    worker = harness.start_worker(slots=4)
    harness.hold("running")
    harness.send("running")
    harness.wait_began("running")
    pool = descendants(pid(worker))
    assert len(pool) == 4

    os.kill(pid(worker), signal.SIGKILL)

    wait_gone(pool, seconds=5)


def test_sigterm_in_the_middle_of_a_task_is_out_within_the_grace_and_the_task_is_taken_up_elsewhere(
    harness: Harness,
) -> None:
    first = harness.start_worker("first", slots=2)
    pool = descendants(pid(first))
    harness.hold("long")
    harness.send("long")
    harness.wait_began("long")

    first.ask_to_stop()  # the soft shutdown of this app is 1 s
    until(lambda: not first.is_alive(), seconds=15, what="the worker to be out")

    wait_gone(pool, seconds=1)
    assert harness.ended("long") == 0
    harness.start_worker("second")
    harness.wait_began("long", times=2)
    harness.release("long")
    harness.wait_ended("long")


def test_sigterm_under_load_loses_no_message(harness: Harness) -> None:
    assets = [f"asset-{number}" for number in range(60)]
    first = harness.start_worker("first", slots=2)
    harness.send_many(assets)
    until(lambda: harness.ended(assets[5]) > 0, seconds=30, what="the worker to be in the middle")

    first.ask_to_stop()
    until(lambda: not first.is_alive(), seconds=15, what="the worker to be out")
    harness.start_worker("second")

    for asset_id in assets:
        harness.wait_ended(asset_id)


def test_an_idle_worker_ends_at_once(harness: Harness) -> None:
    worker = harness.start_worker()

    worker.ask_to_stop()

    until(lambda: not worker.is_alive(), seconds=5, what="the idle worker to be out")

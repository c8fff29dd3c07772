"""Beat: doubled, killed, and without a broker for a while."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.names import DISPATCH, SWEEP
from tests.chaos.world import World, pid, until

pytestmark = pytest.mark.chaos


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A quick clock: dispatch every second, a sweep every hour, or as a parameter says."""
    environment = {
        "CHAOS_DISPATCH_SECONDS": "1",
        "CHAOS_SWEEP_SECONDS": "3600",
        **getattr(request, "param", {}),
    }
    with World(tmp_path, environment=environment) as world:
        world.start_control()
        yield world


def runs(world: World, task: str) -> int:
    return world.records.llen(f"sent:{task}")


def test_a_killed_beat_sweeps_at_once_when_it_is_back_and_not_a_whole_interval_later(world: World) -> None:
    beat = world.start_beat()
    until(lambda: runs(world, SWEEP) == 1, seconds=20, what="the sweep at the start")

    os.kill(pid(beat), signal.SIGKILL)
    world.start_beat("beat-again")

    until(lambda: runs(world, SWEEP) == 2, seconds=20, what="the sweep after the kill")


def test_two_beats_send_double_and_both_go_on(world: World) -> None:
    beats = [world.start_beat("beat-1"), world.start_beat("beat-2")]

    until(lambda: runs(world, SWEEP) == 2, seconds=20, what="a sweep from each")
    sent = runs(world, DISPATCH)
    until(lambda: runs(world, DISPATCH) >= sent + 4, seconds=20, what="both to go on")

    assert all(beat.is_alive() for beat in beats)


def test_beat_lives_through_an_outage_of_the_broker(world: World) -> None:
    beat = world.start_beat()
    until(lambda: runs(world, DISPATCH) >= 2, seconds=20, what="beat to be at work")
    before = pid(beat)

    world.stop_broker(signal.SIGKILL)
    away_until = time.monotonic() + 8
    until(lambda: time.monotonic() >= away_until, seconds=10, what="the outage to last")
    world.start_broker()

    sent = runs(world, DISPATCH)
    until(lambda: runs(world, DISPATCH) >= sent + 3, seconds=40, what="beat to be at work again")
    assert pid(beat) == before


def test_a_broker_that_starts_after_beat_does_not_cost_the_first_sweep(world: World) -> None:
    world.stop_broker(signal.SIGTERM)
    world.start_beat()

    world.start_broker()

    until(lambda: runs(world, SWEEP) == 1, seconds=40, what="the sweep at the start")


def test_control_runs_while_every_slot_of_the_archive_worker_is_busy(world: World) -> None:
    world.start_worker(slots=2)
    for asset_id in ("one", "two"):
        world.hold(asset_id)
    world.send_many(["one", "two", "three"])
    world.wait_began("one")
    world.wait_began("two")

    world.start_beat()

    until(lambda: runs(world, SWEEP) == 1 and runs(world, DISPATCH) >= 2, seconds=20, what="control's tasks")
    assert world.began("three") == 0


@pytest.mark.parametrize("world", [{"CHAOS_SWEEP_SECONDS": "1"}], indirect=True)
def test_of_what_piled_up_while_no_control_worker_ran_one_of_each_kind_is_run(world: World) -> None:
    for child in list(world.children):
        child.kill()
    beat = world.start_beat()
    until(lambda: queued(world) >= 9, seconds=30, what="messages to pile up")
    beat.kill()
    stale = queued(world)

    world.start_control("control-again")
    until(lambda: queued(world) == 0, seconds=20, what="the pile to be worked off")
    until(
        lambda: runs(world, DISPATCH) + runs(world, SWEEP) >= stale - 1,
        seconds=20,
        what="each to be looked at",
    )

    for task in (DISPATCH, SWEEP):
        assert runs(world, task) >= 4
        assert world.records.llen(f"ran:{task}") < runs(world, task) / 2


def queued(world: World) -> int:
    return world.records.llen("archiver:control")

"""Beat: doubled, killed, and without a broker for a while."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.names import DISPATCH, SWEEP
from tests.chaos.harness import Harness, pid, until

pytestmark = pytest.mark.chaos


@pytest.fixture
def harness(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """A quick clock: dispatch every second, a sweep every hour, or as a parameter says."""
    environment = {
        "CHAOS_DISPATCH_SECONDS": "1",
        "CHAOS_SWEEP_SECONDS": "3600",
        **getattr(request, "param", {}),
    }
    with Harness(tmp_path, environment=environment) as harness:
        harness.start_control()
        yield harness


def runs(harness: Harness, task: str) -> int:
    return harness.records.llen(f"sent:{task}")


def test_a_killed_beat_sweeps_at_once_when_it_is_back_and_not_a_whole_interval_later(
    harness: Harness,
) -> None:
    beat = harness.start_beat()
    until(lambda: runs(harness, SWEEP) == 1, seconds=20, what="the sweep at the start")

    os.kill(pid(beat), signal.SIGKILL)
    harness.start_beat("beat-again")

    until(lambda: runs(harness, SWEEP) == 2, seconds=20, what="the sweep after the kill")


def test_two_beats_send_double_and_both_go_on(harness: Harness) -> None:
    beats = [harness.start_beat("beat-1"), harness.start_beat("beat-2")]

    until(lambda: runs(harness, SWEEP) == 2, seconds=20, what="a sweep from each")
    sent = runs(harness, DISPATCH)
    until(lambda: runs(harness, DISPATCH) >= sent + 4, seconds=20, what="both to go on")

    assert all(beat.is_alive() for beat in beats)


def test_beat_lives_through_an_outage_of_the_broker(harness: Harness) -> None:
    beat = harness.start_beat()
    until(lambda: runs(harness, DISPATCH) >= 2, seconds=20, what="beat to be at work")
    before = pid(beat)

    harness.stop_broker(signal.SIGKILL)
    away_until = time.monotonic() + 8
    until(lambda: time.monotonic() >= away_until, seconds=10, what="the outage to last")
    harness.start_broker()

    sent = runs(harness, DISPATCH)
    until(lambda: runs(harness, DISPATCH) >= sent + 3, seconds=40, what="beat to be at work again")
    assert pid(beat) == before


def test_a_broker_that_starts_after_beat_does_not_cost_the_first_sweep(harness: Harness) -> None:
    harness.stop_broker(signal.SIGTERM)
    harness.start_beat()

    harness.start_broker()

    until(lambda: runs(harness, SWEEP) == 1, seconds=40, what="the sweep at the start")


def test_control_runs_while_every_slot_of_the_archive_worker_is_busy(harness: Harness) -> None:
    harness.start_worker(slots=2)
    for asset_id in ("one", "two"):
        harness.hold(asset_id)
    harness.send_many(["one", "two", "three"])
    harness.wait_began("one")
    harness.wait_began("two")

    harness.start_beat()

    until(
        lambda: runs(harness, SWEEP) == 1 and runs(harness, DISPATCH) >= 2, seconds=20, what="control's tasks"
    )
    assert harness.began("three") == 0


@pytest.mark.parametrize("harness", [{"CHAOS_SWEEP_SECONDS": "1"}], indirect=True)
def test_of_what_piled_up_while_no_control_worker_ran_one_of_each_kind_is_run(harness: Harness) -> None:
    for child in list(harness.children):
        child.kill()
    beat = harness.start_beat()
    until(lambda: queued(harness) >= 9, seconds=30, what="messages to pile up")
    beat.kill()
    stale = queued(harness)

    harness.start_control("control-again")
    until(lambda: queued(harness) == 0, seconds=20, what="the pile to be worked off")
    until(
        lambda: runs(harness, DISPATCH) + runs(harness, SWEEP) >= stale - 1,
        seconds=20,
        what="each to be looked at",
    )

    for task in (DISPATCH, SWEEP):
        assert runs(harness, task) >= 4
        assert harness.records.llen(f"ran:{task}") < runs(harness, task) / 2


def queued(harness: Harness) -> int:
    return harness.records.llen("archiver:control")

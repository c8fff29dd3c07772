"""A few fixed seeds of the simulation. `make simulate SEEDS=1000` runs many (docs/simulation.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.simulation.__main__ import run
from tests.simulation.faults import Fault, longest_clear
from tests.simulation.fleet import Fleet
from tests.simulation.oracle import Harm
from tests.simulation.planted import PLANTED, planted
from tests.simulation.scheduler import DAY, Process, Scheduler

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [2, 3, 9])  # 2 and 9 have terms
def test_all_invariants_hold(seed: int) -> None:
    outcome = run(seed)

    assert outcome.violation is None, "\n".join([str(outcome.violation), *outcome.tail])
    assert outcome.states.get("archived", 0) + outcome.states.get("expired", 0) >= 5


def test_the_same_seed_is_the_same_run_in_every_process() -> None:
    def told(seed: int, hash_seed: int) -> str:
        return subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", str(seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            text=True,
        ).stdout

    first = told(4, 1)
    assert "events, digest" in first
    assert told(4, 2) == first
    assert told(5, 1).partition("digest")[2] != first.partition("digest")[2]


@pytest.mark.parametrize(
    "bug",
    [
        "the second destination is forgotten",
        "a sweep opens what is archived again",
        "a wait may last for a week",
    ],
)
def test_a_planted_bug_is_found(bug: str) -> None:
    found = next(outcome for seed in range(1, 13) if (outcome := run(seed, bug)).violation is not None)

    assert found.tail[-1].strip()


@pytest.mark.parametrize("bug", sorted(PLANTED))
def test_every_bug_can_be_planted(bug: str) -> None:
    """What a bug replaces may be renamed, and nobody runs all of them each time."""
    with planted(bug):
        pass


def test_a_failure_says_how_to_repeat_it() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.simulation",
            "--seed",
            "1",
            "--bug",
            "an asset is leased to two workers at once",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert told.returncode == 1
    assert "one worker at a time" in told.stdout
    assert "again: python -m tests.simulation --seed 1 --bug" in told.stdout


@pytest.mark.parametrize(
    ("windows", "longest"),
    [
        ([], 10.0),
        ([(2.0, 3.0)], 7.0),
        ([(0.0, 4.0), (3.0, 9.0)], 1.0),
        ([(5.0, 20.0)], 5.0),
        ([(-5.0, 2.0), (4.0, 4.5), (12.0, 13.0)], 5.5),
        ([(-1.0, 11.0)], 0.0),
    ],
)
def test_the_longest_time_without_a_fault(windows: list[tuple[float, float]], longest: float) -> None:
    assert longest_clear(0.0, 10.0, windows) == longest


def test_a_paused_process_is_not_awake() -> None:
    scheduler = Scheduler(1)
    process = Process(scheduler, "worker-0", lambda _process: None)
    process.start()
    for at, pause in [(100.0, 50.0), (120.0, 80.0), (300.0, 10.0)]:
        scheduler.seconds = at
        process.pause(pause)
    scheduler.seconds = 330.0

    # asleep from 100 to 200, and from 300 to 310
    awake = {since: process.awake_seconds_since(since) for since in (0.0, 110.0, 190.0, 250.0, 305.0, 320.0)}
    assert awake == {0.0: 220.0, 110.0: 120.0, 190.0: 120.0, 250.0: 70.0, 305.0: 20.0, 320.0: 10.0}


def test_a_process_that_starts_again_has_looked_at_nothing_before() -> None:
    scheduler = Scheduler(1)
    process = Process(scheduler, "worker-0", lambda _process: None)
    process.start()
    scheduler.seconds = 500.0
    process.start()
    scheduler.seconds = 510.0

    assert process.awake_seconds_since(0.0) == 10.0


def test_an_unmounted_disk_is_not_there_whatever_else_happens_to_it() -> None:
    fleet = Fleet(1)
    store = fleet.destinations[0]
    where = f"store:{store.name}"
    fleet.faults.add(Fault(where, "corrupting", 0.0, 100.0))
    fleet.faults.add(Fault(where, "unmounted", 10.0, 50.0))

    kinds = []
    for fleet.scheduler.seconds in (5.0, 20.0, 60.0, 200.0):
        kinds.append((store.kind_of_fault, store.backend() is store.real))

    assert kinds == [("corrupting", True), ("unmounted", False), ("corrupting", True), (None, True)]


def test_a_sweep_counts_from_its_record_on_though_its_process_is_killed() -> None:
    fleet = Fleet(1)
    fleet.faults.add(Fault("api rows", "without id", 0.0, 100.0))
    for fleet.scheduler.seconds in (50.0, 150.0):
        fleet.oracle.swept({"started_at": (fleet.scheduler.now() - timedelta(seconds=5)).isoformat()})
        met = dict(fleet.oracle.met)
        assert met == ({"api rows": 0} if fleet.scheduler.seconds < 100 else {})


@pytest.mark.parametrize("compared", [False, True])
def test_a_deleted_manifest_is_to_be_seen_by_the_first_reconcile_that_ends(compared: bool) -> None:
    fleet = Fleet(1)
    oracle, control = fleet.oracle, fleet.controls[0]
    harm = Harm(1000.0, "manifest deleted", "key", is_hidden=False)
    control.attempt_began = 2000.0 if compared else 900.0
    fleet.scheduler.seconds = 2100.0
    oracle.reconciled(control)

    assert oracle._noticed_by(harm) == (1000.0 + DAY if compared else float("inf"))

"""A few fixed seeds of the simulation. `make simulate SEEDS=1000` runs many (docs/simulation.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import run
from tests.simulation.faults import longest_clear
from tests.simulation.planted import PLANTED, planted

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [2, 7, 9])
def test_all_invariants_hold(seed: int) -> None:
    outcome = run(seed)

    assert outcome.violation is None, "\n".join([str(outcome.violation), *outcome.tail])
    assert outcome.states.get("archived", 0) >= 5


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

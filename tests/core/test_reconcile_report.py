from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.health import assess
from archiver.core.upkeep.reconcile_report import FACT, said
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock

CASES: list[tuple[dict[str, object], list[tuple[str, bool]]]] = [
    ({}, []),
    ({"manifests": 5, "missing_copies": 0, "would_change": 0, "unreadable": 0}, []),
    ({"would_change": 30}, [("reconcile_stopped", True)]),
    ({"unreadable": 1}, [("manifests_unreadable", True)]),
    ({"missing_copies": 3, "damaged": 3}, []),  # each of them is told as damaged
    ({"missing_copies": 5, "damaged": 3}, [("copies_missing", False)]),
    ({"missing_copies": 5}, [("copies_missing", False)]),
    ({"would_change": "many", "unreadable": True, "missing_copies": None}, []),
]


@pytest.mark.parametrize(("fact", "expected"), CASES)
def test_what_a_comparison_says(fact: dict[str, object], expected: list[tuple[str, bool]]) -> None:
    assert [(one.code, one.is_problem) for one in said(fact)] == expected


@pytest.mark.parametrize(
    ("fact", "healthy", "words"),
    [
        ({"would_change": 30}, False, "archiver reconcile --yes"),
        ({"missing_copies": 5}, True, "5 assets are at fewer destinations"),
    ],
)
def test_status_says_it(fact: dict[str, object], healthy: bool, words: str) -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    ledger.remember("sweep", {"started_at": NOW.isoformat()})
    ledger.remember(FACT, fact)
    watcher = Watcher(
        ledger=ledger, clock=clock, at_risk_within=timedelta(days=3), sweep_every=timedelta(minutes=5)
    )

    verdict = assess(watcher.summary())

    assert verdict.healthy is healthy
    assert words in " ".join([*verdict.notes, *(problem.text for problem in verdict.problems)])

"""What `status` and the alarms conclude from the scrub's fact."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.upkeep import scrub_promise
from archiver.core.upkeep.scrub_promise import FACT, Standing
from archiver.core.upkeep.sweep import FACT as SWEPT
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock

DAY = timedelta(days=1)
EVERY = 30 * DAY
KEPT = Standing(NOW, copies=9, due_by=NOW + 20 * DAY, oldest_check=NOW - 10 * DAY, round_days=30.0)

SLIPS = {
    "overdue": (replace(KEPT, overdue=3), DAY, "3 copies were not checked within 30 days"),
    "overdue since the run": (
        replace(KEPT, due_by=NOW + DAY),
        2 * DAY,
        "a copy was not checked within 30 days",
    ),
    "the budget": (
        replace(KEPT, round_days=91.2),
        DAY,
        "a round takes 91 days, not 30: raise ARCHIVER_SCRUB_BYTES",
    ),
    "not recorded": (
        replace(KEPT, recorded=False),
        DAY,
        "(`checks/`) was lost, or cannot be written",
    ),
    "no run": (KEPT, 5 * DAY, "No scrub has ended for 5 days"),
}


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(Clock(NOW))


def problems(ledger: MemoryLedger, later: timedelta) -> list[str]:
    return scrub_promise.problems(ledger.recall(FACT), NOW + later)


def test_a_promise_that_is_kept_is_no_problem(ledger: MemoryLedger) -> None:
    scrub_promise.record(ledger, {"s3://b": KEPT}, EVERY, NOW)

    assert problems(ledger, 2 * DAY) == []


@pytest.mark.parametrize(("standing", "later", "expected"), SLIPS.values(), ids=SLIPS.keys())
def test_each_way_to_slip_is_one_problem(
    ledger: MemoryLedger, standing: Standing, later: timedelta, expected: str
) -> None:
    scrub_promise.record(ledger, {"s3://a": KEPT, "s3://b": standing}, EVERY, NOW)

    (problem,) = problems(ledger, later)

    assert expected in problem
    assert problem.startswith(("No scrub", "s3://b: "))


def test_a_destination_that_was_never_reached_is_a_problem_after_some_days(ledger: MemoryLedger) -> None:
    for day in range(5):
        scrub_promise.record(
            ledger, {"s3://b": Standing(NOW + day * DAY, error="403")}, EVERY, NOW + day * DAY
        )
        assert bool(problems(ledger, day * DAY)) is (day > 3)

    assert problems(ledger, 5 * DAY) == ["s3://b: it could not be scrubbed for 5 days: 403"]


def test_a_destination_that_is_away_keeps_what_was_known_of_it_and_grows_older(ledger: MemoryLedger) -> None:
    scrub_promise.record(ledger, {"s3://b": KEPT}, EVERY, NOW)
    scrub_promise.record(ledger, {"s3://b": Standing(NOW + 21 * DAY, error="503")}, EVERY, NOW + 21 * DAY)

    assert problems(ledger, 21 * DAY) == [
        "s3://b: it could not be scrubbed for 21 days: 503",
        "s3://b: a copy was not checked within 30 days, or not read in time when new.",
    ]


def test_a_destination_that_was_taken_out_of_the_settings_is_forgotten(ledger: MemoryLedger) -> None:
    scrub_promise.record(ledger, {"s3://a": KEPT, "s3://b": replace(KEPT, overdue=1)}, EVERY, NOW)
    scrub_promise.record(ledger, {"s3://a": KEPT}, EVERY, NOW)

    assert problems(ledger, DAY) == []


def test_where_the_version_before_had_got_to_is_forgotten(ledger: MemoryLedger) -> None:
    ledger.remember("scrub:s3://gone", {"after": "manifests/x.json"})

    scrub_promise.record(ledger, {"s3://a": KEPT}, EVERY, NOW)

    assert ledger.recall_all("scrub:") == {}
    assert ledger.recall(FACT) is not None


@pytest.mark.parametrize(
    "fact",
    [
        {},
        {"at": 7},
        {"at": "never", "since": "yesterday"},
        {"at": (NOW + 9 * DAY).isoformat(), "destinations": []},
    ],
)
def test_a_fact_that_cannot_be_understood_is_a_problem(ledger: MemoryLedger, fact: dict[str, object]) -> None:
    ledger.remember(FACT, fact)

    assert problems(ledger, DAY)


def test_nothing_is_expected_of_an_installation_without_a_control_worker(ledger: MemoryLedger) -> None:
    assert problems(ledger, 100 * DAY) == []


def test_the_account_is_not_healthy_while_the_promise_slips(ledger: MemoryLedger) -> None:
    clock = Clock(NOW)
    ledger.remember(SWEPT, {"started_at": NOW.isoformat(), "assets": 1, "new": 0})
    watcher = Watcher(ledger=ledger, clock=clock, at_risk_within=3 * DAY, sweep_every=timedelta(minutes=5))
    scrub_promise.record(ledger, {"s3://b": replace(KEPT, overdue=1)}, EVERY, NOW)

    summary = watcher.summary()

    assert [(each.id, each.text) for each in summary.reported if each.is_problem] == [
        (
            "scrub_promise_slips",
            "s3://b: 1 copy was not checked within 30 days, or not read in time when new.",
        )
    ]


def test_the_control_worker_expects_a_scrub_from_its_first_look_on(ledger: MemoryLedger) -> None:
    Watcher(ledger=ledger, clock=Clock(NOW), at_risk_within=3 * DAY, sweep_every=timedelta(minutes=5)).watch()

    assert problems(ledger, 2 * DAY) == []
    assert problems(ledger, 4 * DAY) == ["No scrub has ended for 4 days; it is due each day."]

"""What verify, reconcile and scrub report to `status`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.health import assess
from archiver.core.upkeep import reports, status
from archiver.core.upkeep.reports import (
    KEEP_DAMAGED_FOR,
    MAX_DAMAGED,
    RECONCILE_FACT,
    SCRUB_FACT,
    ScrubReport,
    expect_reconcile,
    reconcile_findings,
    record_verify,
    still_damaged,
)
from archiver.core.upkeep.sweep import FACT as SWEPT
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.archived import enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
EVERY = 30 * DAY
KEPT = ScrubReport(NOW, copies=9, due_by=NOW + 20 * DAY, oldest_check=NOW - 10 * DAY, round_days=30.0)

DELAYS = {
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

RECONCILE_CASES: list[tuple[dict[str, object], list[tuple[str, bool]]]] = [
    ({}, []),
    ({"manifests": 5, "missing_copies": 0, "would_change": 0, "unreadable": 0}, []),
    ({"would_change": 30}, [("reconcile_stopped", True)]),
    ({"unreadable": 1}, [("manifests_unreadable", True)]),
    ({"missing_copies": 3, "damaged": 3}, []),  # each of them is reported as damaged
    ({"missing_copies": 5}, []),  # `status` tells them by what the ledger knows of each copy
    ({"would_change": "many", "unreadable": True, "missing_copies": None}, []),
]


@pytest.mark.parametrize(
    ("expected", "ended", "is_late"),
    [
        (None, None, False),  # no control process: `archiver run --once`
        (None, 9 * DAY, False),
        (2 * HOUR, None, False),
        (2 * HOUR, 9 * DAY, False),  # the control process has just begun
        (25 * HOUR, None, True),
        (9 * DAY, 23 * HOUR, False),
        (9 * DAY, 25 * HOUR, True),
    ],
)
def test_a_reconcile_that_has_not_ended_for_a_day_is_a_problem(
    clock: Clock, ledger: MemoryLedger, expected: timedelta | None, ended: timedelta | None, is_late: bool
) -> None:
    if expected is not None:
        expect_reconcile(ledger, NOW - expected)
        expect_reconcile(ledger, NOW)  # each watch does
    if ended is not None:
        ledger.remember(RECONCILE_FACT, {"at": (NOW - ended).isoformat()})

    findings = status.summarize(ledger, NOW, at_risk_within=DAY, sweep_every=HOUR).reported

    assert [(each.id, each.is_problem) for each in findings] == [("reconcile_is_late", True)] * is_late


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def ledger(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock)


@pytest.fixture
def ledger_of_two(clock: Clock, ledger: MemoryLedger) -> MemoryLedger:
    """Assets a and b, archived a minute ago."""
    for name in ("a", "b"):
        enter(ledger, asset(id=name))
    clock.advance(MINUTE)
    return ledger


def watcher_of(ledger: MemoryLedger) -> Watcher:
    return Watcher(ledger=ledger, clock=ledger.now, at_risk_within=3 * DAY, sweep_every=5 * MINUTE)


def scrub_problems(ledger: MemoryLedger, later: timedelta) -> list[str]:
    return reports.scrub_problems(ledger.recall(SCRUB_FACT), NOW + later)


def test_scrub_is_well_while_every_copy_was_checked_in_time(ledger: MemoryLedger) -> None:
    reports.record_scrub(ledger, {"s3://b": KEPT}, EVERY, NOW)

    assert scrub_problems(ledger, 2 * DAY) == []


@pytest.mark.parametrize(("report", "later", "expected"), DELAYS.values(), ids=DELAYS.keys())
def test_each_delay_of_the_scrub_is_one_problem(
    ledger: MemoryLedger, report: ScrubReport, later: timedelta, expected: str
) -> None:
    reports.record_scrub(ledger, {"s3://a": KEPT, "s3://b": report}, EVERY, NOW)

    (problem,) = scrub_problems(ledger, later)

    assert expected in problem
    assert problem.startswith(("No scrub", "s3://b: "))


def test_a_destination_that_scrub_never_reached_is_a_problem_after_some_days(ledger: MemoryLedger) -> None:
    for day in range(5):
        reports.record_scrub(
            ledger, {"s3://b": ScrubReport(NOW + day * DAY, error="403")}, EVERY, NOW + day * DAY
        )
        assert bool(scrub_problems(ledger, day * DAY)) is (day > 3)

    assert scrub_problems(ledger, 5 * DAY) == ["s3://b: it could not be scrubbed for 5 days: 403"]


def test_a_destination_that_is_unavailable_keeps_its_last_report_and_becomes_overdue(
    ledger: MemoryLedger,
) -> None:
    reports.record_scrub(ledger, {"s3://b": KEPT}, EVERY, NOW)
    reports.record_scrub(ledger, {"s3://b": ScrubReport(NOW + 21 * DAY, error="503")}, EVERY, NOW + 21 * DAY)

    assert scrub_problems(ledger, 21 * DAY) == [
        "s3://b: it could not be scrubbed for 21 days: 503",
        "s3://b: a copy was not checked within 30 days, or not read in time when new.",
    ]


def test_a_destination_removed_from_the_settings_is_forgotten(ledger: MemoryLedger) -> None:
    reports.record_scrub(ledger, {"s3://a": KEPT, "s3://b": replace(KEPT, overdue=1)}, EVERY, NOW)
    reports.record_scrub(ledger, {"s3://a": KEPT}, EVERY, NOW)

    assert scrub_problems(ledger, DAY) == []


def test_scrub_facts_of_an_earlier_version_are_deleted(ledger: MemoryLedger) -> None:
    ledger.remember("scrub:s3://gone", {"after": "manifests/x.json"})

    reports.record_scrub(ledger, {"s3://a": KEPT}, EVERY, NOW)

    assert ledger.recall_all("scrub:") == {}
    assert ledger.recall(SCRUB_FACT) is not None


@pytest.mark.parametrize(
    "fact",
    [
        {},
        {"at": 7},
        {"at": "never", "since": "yesterday"},
        {"at": (NOW + 9 * DAY).isoformat(), "destinations": []},
    ],
)
def test_a_scrub_report_that_cannot_be_understood_is_a_problem(
    ledger: MemoryLedger, fact: dict[str, object]
) -> None:
    ledger.remember(SCRUB_FACT, fact)

    assert scrub_problems(ledger, DAY)


def test_no_scrub_is_expected_of_an_installation_without_a_control_worker(ledger: MemoryLedger) -> None:
    assert scrub_problems(ledger, 100 * DAY) == []


def test_status_reports_a_late_scrub(ledger: MemoryLedger) -> None:
    ledger.remember(SWEPT, {"started_at": NOW.isoformat(), "assets": 1, "new": 0})
    watcher = watcher_of(ledger)
    reports.record_scrub(ledger, {"s3://b": replace(KEPT, overdue=1)}, EVERY, NOW)

    summary = watcher.summary()

    assert [(each.id, each.text) for each in summary.reported if each.is_problem] == [
        (
            "scrub_promise_slips",
            "s3://b: 1 copy was not checked within 30 days, or not read in time when new.",
        )
    ]


def test_the_control_worker_expects_a_scrub_from_its_first_watch_on(ledger: MemoryLedger) -> None:
    watcher_of(ledger).watch()

    assert scrub_problems(ledger, 2 * DAY) == []
    assert scrub_problems(ledger, 4 * DAY) == ["No scrub has ended for 4 days; it is due each day."]


@pytest.mark.parametrize(("fact", "expected"), RECONCILE_CASES)
def test_reconcile_reports_what_it_could_not_repair(
    fact: dict[str, object], expected: list[tuple[str, bool]]
) -> None:
    assert [(each.id, each.is_problem) for each in reconcile_findings(fact)] == expected


@pytest.mark.parametrize(
    ("fact", "healthy", "words"),
    [
        ({"would_change": 30}, False, "archiver reconcile --yes"),
        (
            {"would_change": 30, "would_change_at": ["s3://two"]},
            False,
            "30 assets lack a copy at s3://two that",
        ),
    ],
)
def test_status_reports_the_last_reconcile(
    ledger: MemoryLedger, fact: dict[str, object], healthy: bool, words: str
) -> None:
    ledger.remember(SWEPT, {"started_at": NOW.isoformat()})
    ledger.remember(RECONCILE_FACT, fact)

    health = assess(watcher_of(ledger).summary())

    assert health.healthy is healthy
    assert words in " ".join([*health.notes, *(problem.text for problem in health.problems)])


def test_what_verify_finds_damaged_is_reported_until_it_finds_it_whole(ledger_of_two: MemoryLedger) -> None:
    assert list(still_damaged(ledger_of_two)) == []

    record_verify(ledger_of_two, damaged={"a"}, whole={"b"}, everything=True)
    assert list(still_damaged(ledger_of_two)) == ["a"]
    record_verify(ledger_of_two, damaged={"b"}, whole=(), everything=False)
    assert list(still_damaged(ledger_of_two)) == ["a", "b"]
    record_verify(ledger_of_two, damaged=(), whole={"a"}, everything=False)
    assert list(still_damaged(ledger_of_two)) == ["b"]
    record_verify(ledger_of_two, damaged=(), whole={"a", "b"}, everything=True)
    assert list(still_damaged(ledger_of_two)) == []


def test_what_has_changed_since_verify_is_not_reported(ledger_of_two: MemoryLedger, clock: Clock) -> None:
    record_verify(ledger_of_two, damaged={"a", "b"}, whole=(), everything=True)
    clock.advance(MINUTE)

    ledger_of_two.reopen("a")

    assert list(still_damaged(ledger_of_two)) == ["b"]


def test_status_reports_what_verify_found_damaged(ledger_of_two: MemoryLedger) -> None:
    record_verify(ledger_of_two, damaged={"a"}, whole=(), everything=True)

    reported = [each for each in watcher_of(ledger_of_two).summary().reported if each.id == "found_damaged"]

    assert [each.is_problem for each in reported] == [True]
    assert "1 asset was found damaged by `archiver verify`: a." in reported[0].text


def test_damaged_ids_are_bounded_and_expire(ledger_of_two: MemoryLedger, clock: Clock) -> None:
    record_verify(
        ledger_of_two, damaged={f"x{number}" for number in range(MAX_DAMAGED + 1)}, whole=(), everything=True
    )
    assert len(list(still_damaged(ledger_of_two))) == MAX_DAMAGED

    clock.advance(KEEP_DAMAGED_FOR)
    assert list(still_damaged(ledger_of_two)) == []

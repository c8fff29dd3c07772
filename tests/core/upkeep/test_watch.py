from __future__ import annotations

from datetime import timedelta

import pytest
import structlog

from archiver.core.destinations import breaker
from archiver.core.health import assess
from archiver.core.judging import Scope, judge
from archiver.core.upkeep.failed_later import FACT as FAILED_LATER
from archiver.core.upkeep.status import SHOWN
from archiver.core.upkeep.sweep import FACT, RUNNING_FACT, UNFINISHED_FACT
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Settlement
from tests.core.archived import enter
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock

SWEEP_EVERY = timedelta(minutes=5)


class Harness:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.watcher = Watcher(
            ledger=self.ledger, clock=self.clock, at_risk_within=timedelta(days=3), sweep_every=SWEEP_EVERY
        )
        self.swept()

    def swept(self) -> None:
        self.ledger.remember(FACT, {"started_at": self.clock().isoformat(), "assets": 1, "new": 0})

    def enter(self, asset_id: str, *, days_left: float, state: AssetState = AssetState.DISCOVERED) -> None:
        created = NOW + timedelta(days=days_left) - RETENTION
        enter(self.ledger, asset(id=asset_id, created_at=created.isoformat()), state, "because")

    def alarms(self) -> list[tuple[str, int]]:
        with structlog.testing.capture_logs() as logs:
            self.watcher.watch()
        return [(log["asset_id"], log["within_days"]) for log in logs if log["event"] == "asset_at_risk"]


def test_an_account_with_everything_archived_is_healthy() -> None:
    harness = Harness()
    harness.enter("a", days_left=1, state=AssetState.ARCHIVED)

    summary = harness.watcher.summary()

    assert summary.healthy
    assert summary.counts.seen == 1
    assert summary.at_risk == ()


def test_status_is_not_healthy_without_a_sweep() -> None:
    harness = Harness()
    harness.ledger.forget(FACT)

    assert not harness.watcher.summary().healthy


def test_unsaved_assets_with_little_time_left_are_at_risk_most_urgent_first() -> None:
    harness = Harness()
    harness.enter("plenty", days_left=10)
    harness.enter("soon", days_left=2)
    harness.enter("now", days_left=0.1, state=AssetState.WAITING)
    harness.enter("saved", days_left=0.1, state=AssetState.ARCHIVED)
    harness.enter("quarantined", days_left=1, state=AssetState.QUARANTINED)

    summary = harness.watcher.summary()

    assert [row.asset_id for row in summary.at_risk] == ["now", "soon"], "what is quarantined is stored"
    assert not summary.healthy


@pytest.mark.parametrize(
    "state",
    [AssetState.LOST, AssetState.DAMAGED, AssetState.QUARANTINED, AssetState.NEEDS_SOURCE_ACCESS],
)
def test_ends_that_need_a_person_are_named(state: AssetState) -> None:
    harness = Harness()
    harness.enter("a", days_left=10, state=state)

    summary = harness.watcher.summary()

    assert [row.reason for row in summary.needs_attention] == ["because"]
    assert not summary.healthy


def test_waiting_assets_are_shown_with_their_reason_and_when_they_are_due() -> None:
    harness = Harness()
    harness.enter("a", days_left=10, state=AssetState.WAITING)

    summary = harness.watcher.summary()

    assert [(row.asset_id, row.reason) for row in summary.waiting] == [("a", "because")]
    assert summary.next_due_at == NOW + timedelta(minutes=1)
    assert summary.healthy, "a retry is nothing to wake up for"


def test_lists_are_cut_and_counts_are_not() -> None:
    harness = Harness()
    for number in range(SHOWN + 5):
        harness.enter(f"asset-{number}", days_left=10, state=AssetState.LOST)

    summary = harness.watcher.summary()

    assert len(summary.needs_attention) == SHOWN
    assert summary.counts.states[AssetState.LOST] == SHOWN + 5


def test_a_sweep_is_late_after_three_missed_intervals() -> None:
    harness = Harness()

    harness.clock.advance(2 * SWEEP_EVERY)
    assert not harness.watcher.summary().sweep_is_late

    harness.clock.advance(2 * SWEEP_EVERY)
    assert harness.watcher.summary().sweep_is_late
    assert not harness.watcher.summary().healthy


def test_assets_that_stay_queued_while_nothing_is_copied_mean_that_no_worker_takes_them() -> None:
    harness = Harness()
    harness.enter("a", days_left=10)
    harness.ledger.take_due(10, timedelta(hours=1))
    codes = []
    for _ in range(8):
        harness.swept()
        codes.append([problem.id for problem in assess(harness.watcher.watch()).problems])
        harness.clock.advance(timedelta(minutes=1))
    assert codes == [[]] * 6 + [["workers_are_silent"]] * 2

    assert harness.ledger.lease("a", "worker", timedelta(minutes=5)) is not None

    assert assess(harness.watcher.watch()).healthy


def test_the_control_worker_is_missed_when_it_stops_watching() -> None:
    harness = Harness()
    harness.enter("a", days_left=10, state=AssetState.ARCHIVED)
    assert assess(harness.watcher.watch()).healthy

    harness.clock.advance(timedelta(minutes=6))
    harness.swept()

    assert [problem.id for problem in assess(harness.watcher.summary()).problems] == ["control_is_silent"]


def test_a_running_sweep_is_not_late() -> None:
    harness = Harness()
    harness.clock.advance(4 * SWEEP_EVERY)
    began, now = (NOW + SWEEP_EVERY).isoformat(), harness.clock().isoformat()

    harness.ledger.remember(RUNNING_FACT, {"started_at": began, "at": now, "pages": 1, "assets": 1})

    assert not harness.watcher.summary().sweep_is_late


@pytest.mark.parametrize("fact", ["sweep", "watch", "run_once", "sweep_running", "scrub", "anything"])
def test_a_recorded_time_in_the_future_is_an_alarm(fact: str) -> None:
    harness = Harness()
    later = (harness.clock() + timedelta(hours=1)).isoformat()

    harness.ledger.remember(fact, {"started_at": later, "at": later, "assets": 1, "pages": 1, "new": 0})

    assert "clock_is_wrong" in [problem.id for problem in assess(harness.watcher.summary()).problems]


@pytest.mark.parametrize(
    ("number", "attempts", "reasons", "told"),
    [
        (10, 2, ["s3://b: TransientStorageError: put recordings/{}/a.mp4: timed out"], True),
        (300, 2, ["SourceUnavailable: https://storage.test/{}.mp4 answered 503"], True),
        (9, 2, ["s3://b: TransientStorageError: put recordings/{}/a.mp4: timed out"], False),
        (10, 1, ["s3://b: TransientStorageError: put recordings/{}/a.mp4: timed out"], False),
        (10, 2, ["s3://b: timed out", "SourceMismatch: too short"], False),
    ],
)
def test_many_assets_that_keep_failing_for_one_reason_are_a_problem(
    number: int, attempts: int, reasons: list[str], told: bool
) -> None:
    harness = Harness()
    for index in range(number):
        recording = asset(id=f"asset-{index}", created_at=NOW.isoformat())
        enter(harness.ledger, recording, AssetState.DISCOVERED)
        for _ in range(attempts):
            lease = harness.ledger.lease(recording.id, "w", timedelta(minutes=1))
            assert lease is not None
            reason = reasons[index % len(reasons)].format(recording.id)
            harness.ledger.settle(
                lease, judge(recording, Scope(RETENTION)), Settlement(AssetState.WAITING, reason)
            )

    found = [problem.id for problem in assess(harness.watcher.summary()).problems]

    assert found == (["many_fail"] if told else [])


@pytest.mark.parametrize(
    ("fact", "noted", "code"),
    [
        (FACT, {"started_at": NOW.isoformat(), "assets": 1, "new": 0, "garbled": 2}, "assets_without_id"),
        ("reconcile", {"would_change": 40}, "reconcile_stopped"),
        ("reconcile", {"unreadable": 1}, "manifests_unreadable"),
        ("machine:archive@host", {"reason": "no memory", "faults": 3}, "machine_fault"),
        ("scrub", {"since": (NOW - timedelta(days=9)).isoformat()}, "scrub_promise_slips"),
    ],
)
def test_what_the_tasks_and_machines_recorded_is_a_problem(
    fact: str, noted: dict[str, object], code: str
) -> None:
    harness = Harness()

    harness.ledger.remember(fact, noted)

    assert [problem.id for problem in assess(harness.watcher.summary()).problems] == [code]


def test_ends_are_logged_once_and_faults_as_long_as_they_last() -> None:
    harness = Harness()
    harness.enter("a", days_left=10, state=AssetState.LOST)
    breaker.trip(harness.ledger, "s3://b", "403", NOW)

    def told() -> list[str]:
        with structlog.testing.capture_logs() as logs:
            harness.watcher.watch()
        return [log["event"] for log in logs if log["log_level"] == "error"]

    assert told() == ["lost", "on_hold"]
    assert told() == ["on_hold"]
    harness.enter("b", days_left=10, state=AssetState.LOST)
    assert told() == ["lost", "on_hold"]


def test_an_open_circuit_breaker_is_shown_and_is_not_healthy() -> None:
    harness = Harness()
    breaker.trip(harness.ledger, "s3://bucket", "403", NOW)

    summary = harness.watcher.summary()

    assert summary.open_breakers["s3://bucket"].reason == "403"
    assert not summary.healthy


def test_an_archived_asset_with_something_optional_missing_is_shown_and_healthy() -> None:
    harness = Harness()
    enter(harness.ledger, asset(id="b"), AssetState.DISCOVERED)
    lease = harness.ledger.lease("b", "test", timedelta(minutes=2))
    assert lease is not None
    done = Settlement(AssetState.ARCHIVED, warnings=("thumbnail-0.png could not be fetched",))
    harness.ledger.settle(lease, judge(asset(id="b"), Scope(RETENTION)), done)

    summary = harness.watcher.summary()

    assert [row.asset_id for row in summary.with_warnings] == ["b"]
    assert summary.healthy


def test_an_alarm_is_logged_once_for_each_level_of_urgency() -> None:
    harness = Harness()
    harness.enter("a", days_left=8)
    assert harness.alarms() == []

    harness.clock.advance(timedelta(days=2))
    assert harness.alarms() == [("a", 7)]
    assert harness.alarms() == []

    harness.clock.advance(timedelta(days=4))
    assert harness.alarms() == [("a", 3)]

    harness.clock.advance(timedelta(days=1.5))
    assert harness.alarms() == [("a", 1)]
    assert harness.alarms() == []


def problems(harness: Harness) -> dict[str, str]:
    return {problem.id: problem.text for problem in assess(harness.watcher.summary()).problems}


def test_an_asset_that_failed_later_is_a_problem_until_it_is_saved() -> None:
    harness = Harness()
    for number in range(7):
        harness.enter(f"a{number}", days_left=10)
    harness.ledger.remember(FAILED_LATER, {"ids": [f"a{number}" for number in range(7)]})

    told = problems(harness)["failed_later"]
    assert "not saved: 7," in told
    assert "a4, ..." in told
    for number in range(7):
        harness.enter(f"a{number}", days_left=10, state=AssetState.ARCHIVED)
    assert problems(harness) == {}


@pytest.mark.parametrize(
    ("ahead", "is_problem"), [(None, False), (299.0, False), (-299, False), (301.0, True), (-86400, True)]
)
def test_a_ledger_whose_clock_differs_from_the_apis_is_a_problem(
    ahead: float | None, is_problem: bool
) -> None:
    harness = Harness()
    harness.ledger.remember(FACT, {"started_at": NOW.isoformat(), "assets": 1, "clock_ahead_seconds": ahead})

    assert ("clock_is_wrong" in problems(harness)) is is_problem


@pytest.mark.parametrize(("begun", "late"), [(1, False), (3, False), (4, True), (40, True)])
def test_sweeps_that_are_killed_one_after_the_other_are_no_running_sweep(begun: int, late: bool) -> None:
    harness = Harness()
    harness.clock.advance(timedelta(hours=2))
    began, now = (NOW + SWEEP_EVERY).isoformat(), harness.clock().isoformat()
    harness.ledger.remember(UNFINISHED_FACT, {"begun": begun})
    harness.ledger.remember(RUNNING_FACT, {"started_at": began, "at": now, "pages": 3, "assets": 300})

    assert ("sweep_is_late" in problems(harness)) is late

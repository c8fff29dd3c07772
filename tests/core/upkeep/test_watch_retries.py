from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
import structlog

from archiver.core.upkeep.watch import (
    MOST_ALARMS,
    MOST_LOST,
    RETRY_LOOK_EVERY,
    RETRY_LOST_FOR,
    Watcher,
    reopen_ended,
)
from archiver.ledger.base import Ledger
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen, Settlement
from tests.core.examples import NOW
from tests.core.fakes import Clock

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class Harness:
    """One asset that was given up at NOW, with this much time left."""

    def __init__(self, left: timedelta, state: AssetState = AssetState.QUARANTINED) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        end(self.ledger, "a", NOW + left, state)

    def state(self) -> AssetState:
        row = self.ledger.get("a")
        assert row
        return row.state


def end(ledger: Ledger, asset_id: str, expires_at: datetime, state: AssetState) -> None:
    seen = Seen(asset_id, "chat", expires_at, AssetState.DISCOVERED)
    ledger.discover([seen])
    lease = ledger.lease(asset_id, "test", HOUR)
    assert lease
    ledger.settle(lease, seen, Settlement(state, reason="why", stored_objects=2))


@pytest.mark.parametrize("state", [AssetState.QUARANTINED, AssetState.NEEDS_SOURCE_ACCESS])
def test_what_was_given_up_is_retried_once_a_day_while_its_source_has_it(state: AssetState) -> None:
    harness = Harness(10 * DAY, state)

    harness.clock.advance(DAY - HOUR)
    too_early = reopen_ended(harness.ledger, harness.clock())
    harness.clock.advance(RETRY_LOOK_EVERY)
    in_time = reopen_ended(harness.ledger, harness.clock())

    assert (too_early, in_time) == (0, 1)
    assert harness.state() is AssetState.DISCOVERED


def test_it_is_retried_on_its_last_day_too() -> None:
    harness = Harness(20 * HOUR)
    chances = 0

    for _ in range(24):
        harness.clock.advance(RETRY_LOOK_EVERY)
        chances += reopen_ended(harness.ledger, harness.clock())
        if harness.state() is AssetState.DISCOVERED:
            end(harness.ledger, "a", NOW + 20 * HOUR, AssetState.QUARANTINED)

    assert 3 <= chances <= 6


def test_an_asset_quarantined_with_nothing_stored_is_reopened_at_once() -> None:
    harness = Harness(-DAY)
    seen = Seen("old", "chat", NOW + DAY, AssetState.DISCOVERED)
    harness.ledger.discover([seen])
    lease = harness.ledger.lease("old", "test", HOUR)
    assert lease
    harness.ledger.settle(lease, seen, Settlement(AssetState.QUARANTINED, reason="SourceMismatch"))

    assert reopen_ended(harness.ledger, harness.clock()) == 1
    row = harness.ledger.get("old")
    assert row
    assert row.state is AssetState.DISCOVERED


def test_what_is_stored_stays_during_a_retry() -> None:
    harness = Harness(10 * DAY)
    harness.clock.advance(DAY)

    reopen_ended(harness.ledger, harness.clock())

    row = harness.ledger.get("a")
    assert row
    assert row.stored_objects == 2
    assert watcher(harness).summary().at_risk == ()


def test_it_stays_given_up_once_its_source_has_ended() -> None:
    harness = Harness(10 * DAY)

    harness.clock.advance(10 * DAY)

    assert reopen_ended(harness.ledger, harness.clock()) == 0
    assert harness.state() is AssetState.QUARANTINED


def test_an_asset_without_a_known_deadline_is_retried() -> None:
    harness = Harness(timedelta())
    end(harness.ledger, "undated", datetime.fromisoformat("1970-01-01T00:00:00Z"), AssetState.QUARANTINED)

    harness.clock.advance(DAY)

    assert reopen_ended(harness.ledger, harness.clock()) == 1
    assert harness.state() is AssetState.QUARANTINED


@pytest.mark.parametrize("state", [AssetState.ARCHIVED, AssetState.DAMAGED, AssetState.SKIPPED])
def test_no_other_end_is_touched(state: AssetState) -> None:
    harness = Harness(10 * DAY, state)

    harness.clock.advance(2 * DAY)

    assert reopen_ended(harness.ledger, harness.clock()) == 0
    assert harness.state() is state


@pytest.mark.parametrize("left", [DAY, -DAY, -20 * DAY])
def test_a_lost_asset_is_retried_once_a_day_for_a_month(left: timedelta) -> None:
    harness = Harness(left, AssetState.LOST)
    looks = []

    for hour in range(24 * 40):
        harness.clock.advance(RETRY_LOOK_EVERY)
        if reopen_ended(harness.ledger, harness.clock()):
            looks.append(hour)
            end(harness.ledger, "a", NOW + left, AssetState.LOST)

    assert 24 <= min(b - a for a, b in itertools.pairwise(looks)) <= 25
    until = max(left, timedelta(0)) + RETRY_LOST_FOR
    assert until - 2 * DAY <= looks[-1] * HOUR <= until


def test_a_lost_asset_with_an_impossible_deadline_is_retried_too() -> None:
    harness = Harness(timedelta(), AssetState.LOST)
    end(harness.ledger, "b", datetime.fromisoformat("0001-01-16T00:00:00Z"), AssetState.LOST)

    harness.clock.advance(40 * DAY)

    assert reopen_ended(harness.ledger, harness.clock()) == 1


def test_many_lost_assets_are_retried_in_turn_and_do_not_delay_the_others() -> None:
    harness = Harness(-DAY, AssetState.LOST)
    for number in range(MOST_LOST + 20):
        end(harness.ledger, f"lost-{number}", NOW - DAY - number * HOUR, AssetState.LOST)
    harness.clock.advance(2 * DAY)

    first = reopen_ended(harness.ledger, harness.clock())
    for row in list(harness.ledger.rows([AssetState.DISCOVERED])):
        end(harness.ledger, row.asset_id, row.expires_at, AssetState.LOST)
    harness.clock.advance(RETRY_LOOK_EVERY)
    second = reopen_ended(harness.ledger, harness.clock())

    assert (first, second) == (MOST_LOST, 21)


def test_a_lost_asset_that_a_person_has_acknowledged_is_left_alone() -> None:
    harness = Harness(-DAY, AssetState.LOST)
    harness.ledger.acknowledge("a", "somebody", "100ms confirmed it")

    harness.clock.advance(2 * DAY)

    assert reopen_ended(harness.ledger, harness.clock()) == 0
    assert harness.state() is AssetState.LOST


def test_retries_are_looked_for_once_an_hour() -> None:
    harness = Harness(10 * DAY)
    reopen_ended(harness.ledger, harness.clock())

    harness.clock.advance(DAY)
    first = reopen_ended(harness.ledger, harness.clock())
    end(harness.ledger, "b", NOW + 10 * DAY, AssetState.QUARANTINED)
    harness.clock.advance(HOUR / 2)

    assert first == 1
    assert reopen_ended(harness.ledger, harness.clock()) == 0


def watcher(harness: Harness) -> Watcher:
    return Watcher(
        ledger=harness.ledger, clock=harness.clock, at_risk_within=3 * DAY, sweep_every=timedelta(minutes=5)
    )


def test_the_watch_reopens_what_can_be_retried() -> None:
    harness = Harness(10 * DAY)
    harness.clock.advance(DAY)

    watcher(harness).watch()

    assert harness.state() is AssetState.DISCOVERED


def test_many_assets_given_up_long_ago_hide_none_that_can_be_saved() -> None:
    harness = Harness(-DAY)
    for number in range(MOST_ALARMS):
        end(harness.ledger, f"old-{number}", NOW - DAY, AssetState.QUARANTINED)
    harness.ledger.discover([Seen("urgent", "chat", NOW + HOUR, AssetState.DISCOVERED)])

    with structlog.testing.capture_logs() as logs:
        summary = watcher(harness).watch()

    assert "urgent" in {log.get("asset_id") for log in logs if log["event"] == "asset_at_risk"}
    assert summary.at_risk

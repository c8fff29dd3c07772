"""What is measured of the past, and the forecast that `status` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.forecast import Hour
from archiver.core.health import Summary, assess
from archiver.core.upkeep import throughput
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import Amount, AssetState, CopyState, Progress, Seen, Settlement
from tests.core.examples import NOW
from tests.core.fakes import Clock

GIB = 1 << 30
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Fleet:
    """A ledger, what the workers do to it, and a watch that looks each minute."""

    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self._number = 0

    def discovers(self, assets: int = 1, *, size_bytes: int | None = GIB, left: timedelta = 10 * DAY) -> None:
        for _ in range(assets):
            self._number += 1
            self.ledger.discover([self.seen(self._number, size_bytes, left)])

    def seen(self, number: int, size_bytes: int | None = GIB, left: timedelta = 10 * DAY) -> Seen:
        return Seen(
            f"a{number}", "room-composite", self.clock() + left, AssetState.DISCOVERED, size_bytes=size_bytes
        )

    def archives(self, number: int, copied_bytes: int = GIB) -> None:
        lease = self.ledger.lease(f"a{number}", "w", HOUR)
        assert lease is not None
        how = Settlement(AssetState.ARCHIVED, stored_bytes=GIB, copied_bytes=copied_bytes)
        self.ledger.settle(lease, self.seen(number), how)

    def watch(self, minutes: int = 1) -> None:
        for _ in range(minutes):
            self.clock.advance(MINUTE)
            throughput.observe(self.ledger, self.clock())

    def summary(self) -> Summary:
        throughput.remember_forecast(self.ledger, self.clock())
        return Summary(
            at=self.clock(),
            counts=self.ledger.counts(),
            at_risk_within=DAY,
            sweep_every=MINUTE,
            last_sweep={"started_at": self.clock().isoformat()},
            forecast=throughput.last_forecast(self.ledger.recall_all("")),
        )


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.watch()
    return fleet


def test_what_attempts_copied_while_assets_were_queued_is_measured(fleet: Fleet) -> None:
    fleet.discovers(300)
    fleet.ledger.take_due(300, HOUR)
    for number in range(1, 241):
        fleet.archives(number)
        fleet.watch()

    hours = throughput.history(fleet.ledger)

    assert sum(hour.size_bytes for hour in hours) == 240 * GIB
    assert sum(hour.assets for hour in hours) == 240
    assert sum((hour.busy for hour in hours), timedelta(0)) == 240 * MINUTE


def test_hours_without_work_are_not_counted_as_slow(fleet: Fleet) -> None:
    fleet.discovers(2)
    fleet.archives(1)
    fleet.watch(60)
    fleet.ledger.take_due(1, HOUR)
    fleet.archives(2)
    fleet.watch(60)

    [first, second] = throughput.history(fleet.ledger)

    assert (first.busy, second.busy) == (MINUTE, MINUTE)


def test_an_hour_of_work_in_which_nothing_was_copied_counts(fleet: Fleet) -> None:
    fleet.discovers()
    fleet.ledger.take_due(1, HOUR)
    fleet.watch(180)

    assert throughput.history(fleet.ledger)[1] == Hour(HOUR, 0, 0)


def test_a_long_copy_is_measured_while_it_runs_and_not_again_at_its_end(fleet: Fleet) -> None:
    fleet.discovers()
    lease = fleet.ledger.lease("a1", "w", DAY)
    assert lease is not None
    for minute in range(1, 181):
        fleet.ledger.report(Progress("a1", "room-composite", minute * GIB, None, 0, "a.mp4"))
        fleet.watch()
    fleet.ledger.settle(lease, fleet.seen(1), Settlement(AssetState.ARCHIVED, copied_bytes=180 * GIB))
    fleet.watch()

    hours = throughput.history(fleet.ledger)

    assert sum(hour.size_bytes for hour in hours) == 180 * GIB
    assert hours[1].size_bytes == 60 * GIB


def test_a_silence_of_the_watch_is_not_taken_for_work(fleet: Fleet) -> None:
    fleet.discovers(2)
    fleet.ledger.take_due(2, HOUR)
    fleet.clock.advance(5 * HOUR)
    fleet.archives(1)
    fleet.watch()

    assert throughput.history(fleet.ledger) == []


def test_a_flushed_ledger_starts_to_measure_again(fleet: Fleet) -> None:
    fleet.discovers()
    fleet.archives(1)
    fleet.watch()
    fleet.ledger.clear()
    fleet.watch(2)

    assert throughput.history(fleet.ledger) == []


def test_two_weeks_are_kept(fleet: Fleet) -> None:
    fleet.discovers()
    fleet.ledger.take_due(1, HOUR)
    for _ in range(24 * 16 * 2):
        fleet.clock.advance(30 * MINUTE)
        throughput.observe(fleet.ledger, fleet.clock())

    assert 24 * 14 <= len(throughput.history(fleet.ledger)) <= 24 * 14 + 1


class TestForecast:
    def test_it_is_shown_and_nothing_is_missed(self, fleet: Fleet) -> None:
        busy(fleet)

        health = assess(fleet.summary())

        assert [each.id for each in health.findings if each.id == "forecast"]
        assert not [each for each in health.problems if each.id == "will_miss_deadline"]

    def test_what_will_be_missed_is_a_problem_with_number_size_and_date(self, fleet: Fleet) -> None:
        busy(fleet)
        fleet.discovers(1000, left=5 * HOUR)  # one a minute: 300

        [problem] = [each for each in assess(fleet.summary()).problems if each.id == "will_miss_deadline"]

        assert "At this rate 7" in problem.text
        assert "2026-03-01 21:00 UTC" in problem.text

    def test_too_little_was_measured_to_say_anything(self, fleet: Fleet) -> None:
        fleet.discovers(1000, left=5 * HOUR)
        fleet.watch(10)

        assert fleet.summary().forecast is None

    def test_an_old_forecast_is_not_shown(self, fleet: Fleet) -> None:
        busy(fleet)
        assert fleet.summary().forecast is not None
        fleet.clock.advance(throughput.FORECAST_LIFETIME)

        assert throughput.last_forecast(fleet.ledger.recall_all("")) is None

    def test_assets_of_unknown_size_count_as_one_of_average_size(self, fleet: Fleet) -> None:
        fleet.discovers(2, size_bytes=None)
        fleet.discovers(2, size_bytes=GIB)
        fleet.discovers(2, size_bytes=3 * GIB)

        assert sum(due.size_bytes for due in throughput.left(fleet.ledger.amounts())) == 12 * GIB

    def test_assets_and_bytes_by_state_are_kept_beside_the_forecast(self, fleet: Fleet) -> None:
        fleet.discovers(2, size_bytes=None)
        fleet.discovers(3)
        throughput.remember_forecast(fleet.ledger, fleet.clock())

        amounts = throughput.last_amounts(fleet.ledger.recall_all(""))

        assert amounts[AssetState.DISCOVERED] == Amount(5, 3 * GIB, unsized=2)
        assert amounts[AssetState.ARCHIVED] == Amount(0, 0)
        assert set(amounts) == set(AssetState)

    @pytest.mark.parametrize("fact", [{}, {"states": 3}, {"states": {"archived": [1, "x", 2]}}])
    def test_a_fact_of_another_shape_holds_no_amounts(self, fact: Mapping[str, object]) -> None:
        assert throughput.last_amounts({throughput.AMOUNTS_FACT: fact}) == {}

    @pytest.mark.parametrize("fact", [{}, {"assets_left": 1}, {"done_in_seconds": 3}, {"hours": "x"}])
    def test_a_fact_of_another_shape_is_no_forecast(self, fact: Mapping[str, object]) -> None:
        assert throughput.last_forecast({throughput.FORECAST_FACT: fact}) is None


def busy(fleet: Fleet) -> None:
    """Four hours with one asset of a GiB a minute, and ten assets left."""
    fleet.discovers(250)
    fleet.ledger.take_due(250, HOUR)
    for number in range(1, 241):
        fleet.archives(number)
        fleet.watch()


def test_the_forecast_is_made_again_every_ten_minutes(fleet: Fleet) -> None:
    busy(fleet)
    before = fleet.summary().forecast
    fleet.discovers(100)
    fleet.clock.advance(5 * MINUTE)
    same = fleet.summary().forecast
    fleet.clock.advance(5 * MINUTE)
    after = fleet.summary().forecast

    assert before is not None
    assert same == replace(before)
    assert after is not None
    assert after.assets_left == before.assets_left + 100


def test_bytes_by_destination_are_summed_every_hour_and_sooner_while_there_are_none(fleet: Fleet) -> None:
    def seen() -> Mapping[str, Mapping[CopyState, int]]:
        throughput.remember_copy_bytes(fleet.ledger, fleet.clock())
        return throughput.last_copy_bytes(fleet.ledger.recall_all(""))

    def archive(asset_id: str) -> None:
        held = Settlement(AssetState.ARCHIVED, stored_bytes=GIB, copies={"one": CopyState.WHOLE})
        fleet.ledger.record_archived(
            Seen(asset_id, "chat", fleet.clock() + timedelta(days=9), AssetState.DISCOVERED), held
        )

    assert seen() == {}
    archive("a")
    assert seen() == {}
    fleet.clock.advance(throughput.FORECAST_EVERY)
    one = {"one": {CopyState.WHOLE: GIB}}
    assert seen() == one
    archive("b")
    fleet.clock.advance(throughput.FORECAST_EVERY)
    assert seen() == {"one": {CopyState.WHOLE: GIB}}
    fleet.clock.advance(throughput.COPY_BYTES_EVERY)
    assert seen() == {"one": {CopyState.WHOLE: 2 * GIB}}

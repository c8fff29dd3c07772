"""What the forecast promises: its band holds what comes, and it names the deadlines that will be missed."""

from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest

from archiver.core.forecast import HORIZON, PATHS, Due, Forecast, Hour, forecast
from tests.core.examples import NOW

HOUR = timedelta(hours=1)
GIB = 1 << 30


def steady(gib_per_hour: float = 10, hours: int = 24) -> list[Hour]:
    return [Hour(HOUR, int(gib_per_hour * GIB), 0)] * hours


def due(hours: float, assets: int, gib: float) -> Due:
    return Due(NOW + hours * HOUR, assets, int(gib * GIB))


def of(left: list[Due], history: list[Hour]) -> Forecast:
    reported = forecast(NOW, left, history)
    assert reported is not None
    return reported


class TestSteadyThroughput:
    def test_what_fits_is_done_in_the_time_it_takes(self) -> None:
        reported = of([due(100, 10, 90)], steady(10))

        assert reported.done_in_seconds.likely == pytest.approx(9 * 3600, rel=0.01)
        assert reported.missed_assets.high == 0
        assert reported.first_missed_at is None
        assert reported.first_missed_at_worst is None
        assert reported.bytes_left == 90 * GIB

    def test_what_does_not_fit_is_missed_and_dated(self) -> None:
        reported = of([due(5, 10, 40), due(6, 10, 40), due(50, 1, 1)], steady(10))

        assert reported.missed_assets.likely == 5  # 20 of the second 40 GiB
        assert reported.missed_bytes.likely == pytest.approx(20 * GIB, rel=0.01)
        assert reported.first_missed_at == NOW + 6 * HOUR

    def test_most_urgent_first_whatever_the_order_given(self) -> None:
        left = [due(50, 1, 1), due(6, 10, 40), due(5, 10, 40)]

        assert of(left, steady()) == of(left[::-1], steady())

    def test_a_missed_asset_delays_no_other(self) -> None:
        reported = of([due(1, 1, 500), due(30, 10, 100)], steady(10))

        assert reported.missed_assets.high == 1

    def test_a_deadline_that_is_past_is_no_forecast(self) -> None:
        reported = of([due(-1, 3, 10), due(10, 1, 1)], steady(10))

        assert reported.missed_assets.high == 0
        assert reported.done_in_seconds.likely > 3600

    def test_small_assets_cost_more_than_their_bytes(self) -> None:
        one, many = of([due(100, 1, 1)], steady()), of([due(100, 100_000, 1)], steady())

        assert many.done_in_seconds.likely > 5 * one.done_in_seconds.likely


class TestWhatIsNotKnown:
    @pytest.mark.parametrize("hours", [0, 1, 2])
    def test_too_little_history_says_nothing(self, hours: int) -> None:
        assert forecast(NOW, [due(1, 1, 1)], steady(hours=hours)) is None

    def test_hours_without_work_do_not_count(self) -> None:
        idle = [Hour(timedelta(0), 0, 0)] * 100

        assert forecast(NOW, [due(1, 1, 1)], idle) is None
        assert of([due(100, 10, 90)], [*steady(10), *idle]) == of([due(100, 10, 90)], steady(10))

    def test_hours_in_which_nothing_could_be_copied_do_count(self) -> None:
        """An outage is part of what may come."""
        reported = of([due(100, 10, 90)], [*steady(10), *[Hour(HOUR, 0, 0)] * 24])

        assert reported.done_in_seconds.likely > 15 * 3600

    def test_nothing_was_ever_copied(self) -> None:
        reported = of([due(100, 10, 90)], [Hour(HOUR, 0, 0)] * 24)

        assert reported.missed_assets.low == 10
        assert reported.first_missed_at == NOW + 100 * HOUR

    def test_nothing_is_left(self) -> None:
        reported = of([], steady())

        assert (reported.done_in_seconds.high, reported.missed_assets.high, reported.assets_left) == (0, 0, 0)

    def test_a_rate_of_nearly_nothing_ends_at_the_horizon(self) -> None:
        reported = of([Due(NOW - HOUR, 1, GIB)], [Hour(HOUR, 1, 0)] * 24)

        assert reported.done_in_seconds.high == HORIZON.total_seconds()


class TestTheBand:
    def test_it_holds_nine_outcomes_in_ten(self) -> None:
        """Rates that vary by a third to a factor of two, each hour half like the one before; backlogs of 6 to 72 h."""
        covered = sum(_lies_in_its_band(random.Random(seed)) for seed in range(200))

        assert 0.85 <= covered / 200 <= 0.95, covered

    def test_more_spread_is_a_wider_band(self) -> None:
        calm = of([due(300, 10, 240)], _rates(random.Random(1), 0.1, 200))
        wild = of([due(300, 10, 240)], _rates(random.Random(1), 0.8, 200))

        width = [reported.done_in_seconds.high - reported.done_in_seconds.low for reported in (calm, wild)]
        assert width[1] > 3 * width[0]

    def test_the_same_history_gives_the_same_forecast(self) -> None:
        history = _rates(random.Random(3), 0.5, 100)

        assert of([due(30, 10, 240)], history) == of([due(30, 10, 240)], history)
        assert PATHS >= 300, "each end of the band needs a few futures beyond it"


def _rates(chance: random.Random, spread: float, hours: int) -> list[Hour]:
    level, history = 0.0, []
    for _ in range(hours):
        level = 0.5 * level + math.sqrt(1 - 0.25) * chance.gauss(0, spread)
        history.append(Hour(HOUR, int(10 * GIB * math.exp(level)), 0))
    return history


def _lies_in_its_band(chance: random.Random) -> bool:
    known = chance.randrange(48, 14 * 24)
    rates = _rates(chance, chance.uniform(0.3, 0.7), known + 2000)
    past, future = rates[:known], rates[known:]
    gib = chance.uniform(60, 720)
    band = of([due(1900, 10, gib)], past).done_in_seconds
    left, hours = gib * GIB + 10 * 2**20, 0.0
    for hour in future:
        if left <= hour.size_bytes:
            hours += left / hour.size_bytes
            break
        left -= hour.size_bytes
        hours += 1
    return band.low <= hours * 3600 <= band.high

"""Rates by the time of day, as a person writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from archiver.limits.schedule import BadSchedule, parse_schedule

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, hour: int, minute: int = 0, *, zone: ZoneInfo | None = None) -> float | None:
    return parse_schedule(text, zone or UTC).at(datetime(2026, 7, 1, hour, minute, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("50MB/s", 50_000_000),
        ("50 MiB/s", 50 * 2**20),
        ("1.5GB/s", 1_500_000_000),
        ("200Mbit/s", 25_000_000),
        ("64KiB/s", 65536),
        ("unlimited", None),
        ("else=5MB/s", 5_000_000),
    ],
)
def test_one_rate_holds_all_day(text: str, per_second: float | None) -> None:
    assert {at(text, hour) for hour in range(24)} == {per_second}


def test_hours_have_a_rate_and_the_rest_of_the_day_another() -> None:
    text = "08:00-20:00=50MB/s, else=unlimited"

    assert [at(text, 7, 59), at(text, 8), at(text, 19, 59), at(text, 20)] == [None, 5e7, 5e7, None]


def test_what_is_not_named_is_unlimited() -> None:
    assert at("08:00-20:00=50MB/s", 3) is None


def test_hours_may_pass_midnight_and_reach_the_end_of_the_day() -> None:
    text = "22:00-06:00=1MB/s,06:00-12:00=2MB/s,12:00-22:00=3MB/s"

    assert [at(text, hour) for hour in (23, 0, 5, 6, 12, 21)] == [1e6, 1e6, 1e6, 2e6, 3e6, 3e6]
    assert at("20:00-24:00=1MB/s", 23, 59) == 1e6


def test_hours_are_those_of_the_time_zone_in_summer_and_winter() -> None:
    schedule = parse_schedule("08:00-20:00=1MB/s", BERLIN)

    assert schedule.at(datetime(2026, 7, 1, 6, 0, tzinfo=UTC)) == 1e6
    assert schedule.at(datetime(2026, 1, 1, 6, 59, tzinfo=UTC)) is None
    assert schedule.at(datetime(2026, 1, 1, 7, 0, tzinfo=UTC)) == 1e6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a rate with a unit"),
        ("50", "a rate with a unit"),
        ("50MB", "a rate with a unit"),
        ("200Mbps", "a rate with a unit"),  # bits, to most; 200Mbit/s says so
        ("fast", "a rate with a unit"),
        ("-5MB/s", "a rate with a unit"),
        ("0MB/s", "archiver pause"),
        ("1KB/s", "archiver pause"),
        ("8-20=50MB/s", "where hours are expected"),
        ("25:00-26:00=50MB/s", "no hours of a day"),
        ("08:60-09:00=50MB/s", "no hours of a day"),
        ("08:00-08:00=50MB/s", "no time at all"),
        ("08:00-20:00=1MB/s,19:00-21:00=2MB/s", "08:00-20:00 and 19:00-21:00 overlap"),
        ("else=1MB/s,else=2MB/s", "more than one rate for the rest"),
        ("08:00-20:00=", "a rate with a unit"),
    ],
)
def test_what_is_no_schedule_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(BadSchedule, match=says):
        parse_schedule(text, UTC)

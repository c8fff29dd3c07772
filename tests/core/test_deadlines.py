from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archiver.core.deadlines import (
    UNDATED,
    UNDATED_RETENTION,
    expires_at,
    is_over,
    is_undated,
    source_ends_at,
)
from tests.core.examples import NOW, RETENTION, asset, row

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    "created_at",
    [
        *(None, "", "yesterday", 1700000000, "2026-02-30T00:00:00Z", "2026-03-01T07:44:27"),
        *("0001-01-01T00:00:00Z", "1601-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2018-12-31T23:59:59Z"),
        *("2026-03-02T12:00:01Z", "2038-01-19T03:14:07Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_an_asset_without_a_date_that_can_be_true_is_undated(created_at: object) -> None:
    assert expires_at(asset(created_at=created_at), RETENTION, NOW) == UNDATED


@pytest.mark.parametrize(
    "created_at",
    ["2019-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z"],
)
def test_a_deadline_is_retention_after_creation_however_long_ago(created_at: str) -> None:
    made = asset(created_at=created_at)

    assert made.created_at
    assert expires_at(made, RETENTION, NOW) == made.created_at + RETENTION


def test_a_retention_without_an_end_makes_no_deadline() -> None:
    assert expires_at(asset(), timedelta.max, NOW) == UNDATED


def at(*date: int) -> datetime:
    return datetime(*date, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("created_at", "deadline", "undated"),
    [
        (None, UNDATED, True),
        (NOW - 20 * DAY, NOW - 5 * DAY, False),
        (NOW + DAY, NOW + 16 * DAY, False),
        (None, NOW + 10 * DAY, False),
        # as earlier versions entered them
        (at(1, 1, 1), at(1, 1, 16), True),
        (at(1970, 1, 1), at(1970, 1, 16), True),
        (at(2015, 1, 1), at(2025, 1, 1), True),
        (NOW + 2 * DAY, NOW + 17 * DAY, True),
        (at(9999, 1, 1), at(9999, 1, 16), True),
    ],
)
def test_a_deadline_that_cannot_be_true_is_none_also_when_it_is_in_the_ledger(
    created_at: datetime | None, deadline: datetime, undated: bool
) -> None:
    known = row(created_at=created_at, expires_at=deadline, first_seen_at=NOW)

    assert is_undated(known) is undated
    assert source_ends_at(known) == (NOW + UNDATED_RETENTION if undated else deadline)


def test_the_time_of_an_undated_asset_counts_from_when_it_was_first_seen() -> None:
    undated = row(expires_at=UNDATED, first_seen_at=NOW)

    assert not is_over(undated, NOW + UNDATED_RETENTION - timedelta(seconds=1))
    assert is_over(undated, NOW + UNDATED_RETENTION)

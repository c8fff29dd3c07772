from __future__ import annotations

from datetime import timedelta

import pytest

from archiving.deadlines import UNDATED, UNDATED_PATIENCE, expires_at, is_over
from tests.archiving.examples import NOW, RETENTION, asset, row


@pytest.mark.parametrize(
    "created_at", [None, "", "yesterday", 1700000000, "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z"]
)
def test_an_asset_without_a_usable_date_is_undated_and_nothing_breaks(created_at: object) -> None:
    assert expires_at(asset(created_at=created_at), RETENTION) == UNDATED


@pytest.mark.parametrize(
    "created_at", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2026-03-01T00:00:00Z"]
)
def test_a_deadline_is_retention_after_creation_however_long_ago(created_at: str) -> None:
    made = asset(created_at=created_at)

    assert made.created_at
    assert expires_at(made, RETENTION) == made.created_at + RETENTION


def test_the_time_of_an_undated_asset_counts_from_when_it_was_first_seen() -> None:
    undated = row(expires_at=UNDATED, first_seen_at=NOW)

    assert not is_over(undated, NOW + UNDATED_PATIENCE - timedelta(seconds=1))
    assert is_over(undated, NOW + UNDATED_PATIENCE)

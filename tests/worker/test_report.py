"""When the report of a period may call itself complete. What it holds: tests/walkthrough/commands/test_report.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.report import Period, not_seen

MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
LATE = timedelta(minutes=15)


@pytest.mark.parametrize(
    ("now", "swept", "why"),
    [
        ("2026-05-01T00:00:00Z", None, "no sweep has ended"),
        ("2026-05-01T00:00:00Z", {}, "no sweep has ended"),
        (
            "2026-05-01T00:00:00Z",
            {"started_at": "2026-03-31T22:00:00Z"},
            "the last sweep began at 2026-03-31 22:00",
        ),
        ("2026-05-01T00:00:00Z", {"started_at": "2026-04-01T00:01:00Z"}, ""),
        ("2026-03-10T12:00:00Z", {"started_at": "2026-03-10T11:50:00Z"}, ""),
        ("2026-03-10T12:00:00Z", {"started_at": "2026-03-10T11:40:00Z"}, "what 100ms had later is not known"),
        (
            "2026-05-01T00:00:00Z",
            {"started_at": "2026-04-02T00:00:00Z", "garbled": 2},
            "without a usable id: 2",
        ),
    ],
)
def test_a_report_is_complete_only_if_a_sweep_showed_the_period(
    now: str, swept: dict[str, object] | None, why: str
) -> None:
    found = list(not_seen(MARCH, swept, datetime.fromisoformat(now), LATE))

    assert [why in each for each in found] == ([True] if why else [])

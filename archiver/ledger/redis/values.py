"""Times, durations and JSON as the scripts take them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    """Return whole microseconds since 1970: exact in a sorted set's double until the year 2255."""
    return (time - EPOCH) // MICROSECOND


def from_microseconds(value: str | float) -> datetime:
    return EPOCH + int(value) * MICROSECOND


def milliseconds(duration: timedelta) -> int:
    return max(1, duration // timedelta(milliseconds=1))  # Redis refuses 0


def to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))

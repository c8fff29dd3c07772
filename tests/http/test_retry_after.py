"""`Retry-After` as responses write it (RFC 9110, section 10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archiver.http.retry_after import retry_after

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("99999999", 86_400),
        ("9" * 5000, 86_400),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30),
        ("Wed Oct 21 07:28:30 2026", 30),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:00:00 GMT", 86_400),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(value: str, seconds: int | None) -> None:
    asked = retry_after({"retry-after": value}.get, NOW)

    assert asked == (None if seconds is None else timedelta(seconds=seconds))


def test_a_date_is_measured_by_the_clock_of_the_response() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:10 GMT"}

    assert retry_after(headers.get, NOW) == timedelta(seconds=20)


def test_a_date_of_the_response_that_cannot_be_parsed_counts_as_absent() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "today"}

    assert retry_after(headers.get, NOW) == timedelta(seconds=30)


def test_a_response_without_the_header_asks_for_nothing() -> None:
    assert retry_after(lambda _: None, NOW) is None

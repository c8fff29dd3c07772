"""`Retry-After` (RFC 9110, section 10.2.3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = timedelta(days=1)


def retry_after(header: Callable[[str], str | None], now: datetime | None = None) -> timedelta | None:
    """Return how long a response asks to wait, between zero and MAX_RETRY_AFTER; None when it does not say.

    `header` returns a header by its name in lower case. A date is measured from the response's own `Date`, else from
    `now`, so that a wrong clock on either side does not matter. What cannot be parsed counts as absent.
    """
    text = (header("retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:10])  # ten digits are longer than the maximum
        return min(timedelta(seconds=seconds), MAX_RETRY_AFTER)
    until = http_date(text)
    if until is None:
        return None
    since = http_date(header("date") or "") or now or datetime.now(UTC)
    return min(max(timedelta(), until - since), MAX_RETRY_AFTER)


def http_date(text: str) -> datetime | None:
    """Parse a date of RFC 9110, section 5.6.7; None for anything else."""
    try:
        parsed = parsedate_to_datetime(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

"""The simulator's clocks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta


@dataclass
class Clock:
    """`shift` moves retention and the expiry of signed URLs, so that tests need not wait. `api_skew` moves only the
    API's clock (its Date header, the validity of tokens), as a client with a wrong clock sees it."""

    shift: timedelta = timedelta(0)
    api_skew: timedelta = timedelta(0)

    def storage_seconds(self) -> float:
        """Seconds since 1970 at the storage and the CDN."""
        return time.time() + self.shift.total_seconds()

    def api_seconds(self) -> float:
        """Seconds since 1970 at the API."""
        return time.time() + self.api_skew.total_seconds()

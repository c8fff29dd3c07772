"""What is due gets a message, most urgent first, a bounded number at a time. The ledger holds the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from ledger.base import Ledger, Row

log = structlog.get_logger(__name__)

REQUEUE_AFTER = timedelta(minutes=15)
"""A message not taken up by then is sent again: Redis loses some when a worker is killed (celery.md, finding 1).
One sent twice ends quietly at the lease."""

Send = Callable[[Row, bool], None]
"""Sends the wake-up for one asset; the flag says whether it is urgent."""


class Dispatcher:
    def __init__(
        self,
        *,
        ledger: Ledger,
        send: Send,
        clock: Callable[[], datetime],
        window: int,
        urgent_within: timedelta,
    ) -> None:
        self._ledger = ledger
        self._send = send
        self._clock = clock
        self._window = window
        self._urgent_within = urgent_within

    def dispatch(self) -> int:
        """Send for what is due, so that at most `window` messages are out; how many were sent. Repeatable: what
        is queued already is left alone. When sending fails half-way the rest is sent after REQUEUE_AFTER."""
        now = self._clock()
        due = self._ledger.take_due(self._window, REQUEUE_AFTER)
        for row in due:
            self._send(row, row.expires_at - now < self._urgent_within)
        if due:
            log.info("dispatched", count=len(due), most_urgent=due[0].expires_at.isoformat())
        return len(due)

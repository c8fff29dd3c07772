"""The dispatch: send a message for each asset that is due, most urgent first, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt import urgency
from archiver.core.destinations import breaker
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState, Row

log = structlog.get_logger(__name__)

REQUEUE_AFTER = timedelta(minutes=15)
"""A message that no worker has taken by then is sent again: Redis loses some when a worker is killed (celery.md,
finding 1). A duplicate ends at the lease."""

URGENT_BEYOND = 20
"""Messages for urgent assets that may be in flight beyond the window."""

_MOST_LOOKED_AT = 200

Send = Callable[[Row, bool], None]
"""Sends the message for one asset; the flag says whether it is urgent."""


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
        """Send messages for due assets until `window` are in flight, and up to URGENT_BEYOND more for urgent ones; how
        many were sent. Report urgent assets that wait for a slot (`core.attempt.urgency`). Idempotent: an asset with a
        message in flight is skipped; when sending fails, it is sent after REQUEUE_AFTER. Raises LedgerError."""
        now = self._clock()
        if breaker.EVERYTHING in breaker.opened(self._ledger, now):
            log.info("dispatch_paused")
            return 0
        before = now + self._urgent_within
        due = self._ledger.take_due(self._window, REQUEUE_AFTER)
        if not due and self._is_urgent_left(now, before):  # the window is full, perhaps of what is not urgent
            due = self._ledger.take_due(self._window + URGENT_BEYOND, REQUEUE_AFTER)
        for row in due:
            self._send(row, row.expires_at < before)
        if due:
            log.info("dispatched", count=len(due), most_urgent=due[0].expires_at.isoformat())
        self._say_what_waits(now, before)
        return len(due)

    def _is_urgent_left(self, now: datetime, before: datetime) -> bool:
        if any(self._ledger.rows([AssetState.DISCOVERED], expiring_before=before, limit=1)):
            return True
        waiting = self._ledger.rows([AssetState.WAITING], expiring_before=before, limit=_MOST_LOOKED_AT)
        return any(row.next_attempt_at is not None and row.next_attempt_at <= now for row in waiting)

    def _say_what_waits(self, now: datetime, before: datetime) -> None:
        queued = self._ledger.rows([AssetState.QUEUED], expiring_before=before, limit=URGENT_BEYOND)
        waiting = [row.asset_id for row in queued if now - row.changed_at >= urgency.URGENT_AFTER]
        if waiting:
            log.warning("urgent_assets_wait_for_a_slot", count=len(waiting), most_urgent=waiting[0])
            urgency.publish(self._ledger, waiting, before)

"""The dispatch: send a message for each asset that is due, most urgent first, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt import urgency
from archiver.core.destinations import breaker
from archiver.ledger.base import Ledger
from archiver.ledger.models import CLOCK_STEP, AssetState, Row

log = structlog.get_logger(__name__)

REQUEUE_AFTER = timedelta(minutes=15)
"""An asset that no worker has taken by then is sent again, unless its message still waits in the queue: Redis loses
some when a worker is killed (celery.md, finding 1). A duplicate ends at the lease."""

URGENT_BEYOND = 20
"""Messages for urgent assets that may be in flight beyond the window."""

_MOST_LOOKED_AT = 200

Send = Callable[[Row, bool], None]
"""Sends the message for one asset; the flag says whether it is urgent."""

Waiting = Callable[[], Mapping[str, bool]]
"""Returns the assets whose message no worker has taken yet, and whether that was sent as urgent. One that is left out
is sent again, which is harmless."""


class Dispatcher:
    def __init__(
        self,
        *,
        ledger: Ledger,
        send: Send,
        clock: Callable[[], datetime],
        window: int,
        urgent_within: timedelta,
        waiting: Waiting | None = None,
    ) -> None:
        """`waiting`: None where nobody can tell."""
        self._ledger = ledger
        self._send = send
        self._clock = clock
        self._window = window
        self._urgent_within = urgent_within
        self._waiting = waiting

    def dispatch(self) -> int:
        """Send messages for due assets until `window` are in flight, and up to URGENT_BEYOND more for urgent ones; how
        many were sent. Report urgent assets that wait for a slot (`core.attempt.urgency`). Idempotent: an asset with a
        message in flight is skipped, however long no worker takes it; when sending fails, it is sent after
        REQUEUE_AFTER. Raises LedgerError."""
        now = self._clock()
        if breaker.EVERYTHING in breaker.opened(self._ledger, now):
            log.info("dispatch_paused")
            return 0
        before = now + self._urgent_within
        may_wait = self._waiting if self._waiting is not None and self._some_are_late(now) else None
        due = self._ledger.take_due(self._window, REQUEUE_AFTER)
        if not due and self._is_urgent_left(now, before):  # the window is full, perhaps of what is not urgent
            due = self._ledger.take_due(self._window + URGENT_BEYOND, REQUEUE_AFTER)
        # read after they were queued again: whoever takes such a message finds its asset queued
        waiting = may_wait() if due and may_wait is not None else {}
        sent = [row for row in due if not _is_sent(waiting.get(row.asset_id), row.expires_at < before)]
        for row in sent:
            self._send(row, row.expires_at < before)
        if sent:
            log.info("dispatched", count=len(sent), most_urgent=sent[0].expires_at.isoformat())
        self._say_what_waits(now, before)
        return len(sent)

    def _some_are_late(self, now: datetime) -> bool:
        """Whether `take_due` may return what was sent before."""
        since = self._ledger.queued_since()
        return since is not None and not now - REQUEUE_AFTER < since <= now + CLOCK_STEP

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


def _is_sent(waits_as_urgent: bool | None, urgent: bool) -> bool:
    """Whether a message waits, and is taken as soon as one that is sent now. `waits_as_urgent`: None without one."""
    return waits_as_urgent is not None and (waits_as_urgent or not urgent)

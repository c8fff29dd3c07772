"""Deliver the events in the outbox, in order for each asset, until each has been taken."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import httpx
import structlog
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from archiver.core.events import FACT, message_of
from archiver.http import trust
from archiver.ledger.base import Facts, Outbox
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import Event

log = structlog.get_logger(__name__)

EVERY = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=15)
"""Between two rounds while the receiver does not take anything; doubled from EVERY."""
WANTED_FOR = timedelta(days=7)
"""How long events are kept after the last sender ran."""
TIMEOUT_SECONDS = 15
BATCH = 500
_LOCK = "events"
_LOCK_TTL = timedelta(minutes=2)


class Ledger(Facts, Outbox, Protocol): ...


class EventSender:
    """One of several may run: a lock lets one deliver at a time. At least once: an answer that is lost, or a process
    that is killed, makes an event come again, with the same id."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        url: SecretStr,
        secret: SecretStr,
        destinations: Sequence[str],
        authorities: Path,
    ) -> None:
        """`secret`: `whsec_` and base64, as `ARCHIVER_EVENT_SECRET`. `destinations`: names for the receiver."""
        self._ledger = ledger
        self._url = url
        self._webhook = Webhook(secret.get_secret_value())
        self._destinations = destinations
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS, verify=trust.context(authorities))

    def close(self) -> None:
        self._client.close()

    def run(self, stopped: threading.Event) -> None:
        """Deliver until `stopped`. Never raises."""
        pause = EVERY
        while True:
            try:
                pause = EVERY if self.deliver() else min(2 * pause, LONGEST_PAUSE)
            except LedgerError as error:
                log.warning("events_wait", reason=str(error))
            except Exception:  # the loop must outlive whatever one round meets
                log.exception("events_failed")
            if stopped.wait(pause.total_seconds()):
                return

    def deliver(self) -> bool:
        """Deliver what waits; False when something was not taken. Raises LedgerError."""
        self._ledger.keep_events(WANTED_FOR)
        token = self._ledger.lock(_LOCK, _LOCK_TTL)
        if token is None:
            return True
        try:
            return self._deliver(token)
        finally:
            self._ledger.unlock(_LOCK, token)

    def _deliver(self, token: str) -> bool:
        waiting: set[str] = set()  # assets with an event that was not taken: the later ones wait for it
        failure: str | None = None
        while True:
            batch = self._ledger.events(BATCH)
            delivered = 0
            for event in batch:
                if event.row.asset_id in waiting:
                    continue
                failure = self._post(event)
                if failure is not None:
                    waiting.add(event.row.asset_id)
                    if not failure.startswith(_REFUSED):  # nobody is there: the others need not be tried
                        break
                    continue
                self._ledger.delivered(event)
                delivered += 1
                if not self._ledger.extend_lock(_LOCK, token, _LOCK_TTL):
                    return not waiting
            if waiting or delivered < len(batch) or not batch:
                break
        self._note(failure if waiting else None)
        return not waiting

    def _post(self, event: Event) -> str | None:
        """Deliver one event; the reason why it was not taken, without a secret."""
        message = message_of(event, self._destinations)
        body = json.dumps({"type": message.type, "timestamp": message.data["at"], "data": message.data})
        now = self._ledger.now()
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message.id, now, body),
        }
        try:
            answer = self._client.post(self._url.get_secret_value(), content=body, headers=headers)
        except (httpx.HTTPError, OSError, ValueError) as error:  # its text may name the URL
            return f"the receiver cannot be reached ({type(error).__name__})"
        if answer.is_success:
            return None
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            return f"the receiver answered {answer.status_code}"
        log.warning(
            "event_refused", asset_id=event.row.asset_id, type=message.type, status=answer.status_code
        )
        return f"{_REFUSED} {event.row.asset_id}: {answer.status_code}"

    def _note(self, failure: str | None) -> None:
        if failure is None:
            self._ledger.forget(FACT)
            return
        fact = self._ledger.recall(FACT) or {}
        since = fact.get("failing_since") or self._ledger.now().isoformat()
        self._ledger.remember(FACT, {"failing_since": since, "reason": failure})


_REFUSED = "the receiver refused the event of"

"""The alert loop. It runs outside Celery, so that a dead Redis, beat or worker is reported too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from archiver.core.alerts import BOOK_FACT, LOOKED_AT, Alert, AlertBook
from archiver.core.evidence import is_over
from archiver.core.health import Summary, alert_findings, assess
from archiver.core.health_rules import finding
from archiver.ledger.base import Facts
from archiver.ledger.clock import since_boot
from archiver.ledger.errors import LedgerError
from worker.alerts.channels import DeliveryFailed, OpenChannel
from worker.alerts.messages import body_of, digest, title_of

log = structlog.get_logger(__name__)

EVERY = timedelta(minutes=1)
AWAY_AFTER = timedelta(minutes=2)
"""A ledger that does not answer for less than this is being restarted."""
LOCK_TTL = timedelta(minutes=5)
"""Longer than slow channels take in one look; a killed process delays the next one by so much."""
_LOCK = "alerts"


class LookIsRunning(Exception):
    """A look for alerts holds the lock."""


def resolve(ledger: Facts, rule_id: str, cause: str | None) -> AlertBook:
    """Resolve alerts whose finding is absent, as `AlertBook.resolve`; return the book. The next look sends the notes.
    Idempotent. Raises LookIsRunning, LedgerError."""
    if (token := ledger.lock(_LOCK, LOCK_TTL)) is None:
        raise LookIsRunning
    try:
        book = AlertBook.from_fact(ledger.recall(BOOK_FACT)).resolve(rule_id, cause)
        if not ledger.remember_locked(BOOK_FACT, book.as_fact(), lock=_LOCK, token=token):
            raise LookIsRunning
        return book
    finally:
        ledger.unlock(_LOCK, token)


class Alerter:
    """Assesses the account each minute, and sends each channel the alerts that it has not had.

    Two of them send nothing twice: one looks at a time, and the ledger keeps what was sent. While the ledger is down
    each goes by its memory."""

    def __init__(
        self,
        *,
        ledger: Facts,
        summarize: Callable[[], Summary],
        channels: Sequence[OpenChannel],
        digest_hour: int,
        steady: Callable[[], float] = time.monotonic,
        elapsed: Callable[[], float] = since_boot,
    ) -> None:
        """`digest_hour`: UTC; negative for no digest. `elapsed`: seconds of a clock that also runs while the machine
        sleeps."""
        self._ledger = ledger
        self._summarize = summarize
        self._channels = channels
        self._digest_hour = digest_hour
        self._steady = steady
        self._elapsed = elapsed
        self._writer = ""  # names this process in the books that it keeps
        self._writes = 0  # of them, how many the ledger has taken
        self._book = AlertBook()
        self._is_kept = True  # what this one knows is in the ledger
        self._seen_at: tuple[datetime, float] | None = None  # the ledger's time, and ours then
        self._away_since: float | None = None
        self.looked_at = steady()
        """When the last look ended, by `steady`."""

    def firing(self) -> Sequence[Alert]:
        """Return what fired at the last look, worst first; also while the ledger is unreachable."""
        return self._book.firing()

    def run(self, stopped: threading.Event) -> None:
        """Look each minute until `stopped`. Never raises: what goes wrong is logged, and the next look comes."""
        while True:
            try:
                self.look()
            except Exception:  # the loop must outlive whatever one look meets
                log.exception("alerts_failed")
            if stopped.wait(EVERY.total_seconds()):
                return

    def look(self) -> None:
        """Look once, and send what is new. Raises nothing for a ledger that is unreachable or a channel that fails."""
        locked_at = self._elapsed()
        try:
            if (token := self._ledger.lock(_LOCK, LOCK_TTL)) is not None:
                try:
                    self._look(token, locked_at)
                finally:
                    self._ledger.unlock(_LOCK, token)
            self._away_since = None
        except LedgerError as error:
            self._without_ledger(error)
        self.looked_at = self._steady()

    def _look(self, token: str, locked_at: float) -> None:
        self._writer = self._writer or token
        summary = self._summarize()
        now = summary.at
        self._seen_at = (now, self._steady())
        kept = AlertBook.from_fact(self._ledger.recall(BOOK_FACT))
        # One that was made of ours has all that we sent, and what another process has sent since. A book of before a
        # rollback, or that another process began after a flush, lacks it, whatever its revision is.
        has_ours = (kept.revision > 0 and not kept.writes) or kept.writes.get(self._writer, 0) >= self._writes
        is_newer = self._is_kept and has_ours and kept.revision >= self._book.revision
        book = kept if is_newer else self._book.merge(kept)
        if not has_ours:
            log.warning("ledger_lost_what_it_knew", advice="alerts are resolved once it is known again")
            book = book.after_loss(now)
        book = book.only(each.channel for each in self._channels)
        lost_at = book.ledger_lost_at
        if lost_at is not None and lost_at > now:  # the ledger's clock was set back
            book = book.after_loss(lost_at := now)
        known = partial(is_over, summary=summary, ledger_lost_at=lost_at)
        self._book = replace(book.observe(alert_findings(summary), now, known), revision=book.revision + 1)
        self._is_kept = False
        self._deliver(now, locked_at)
        if self._book.digest_at is None:
            self._book = self._book.with_digest(now)
        if self._digest_hour >= 0 and self._book.digest_is_due(now, self._digest_hour):
            self._send_digest(summary)
        fact = {**self._book.written_by(self._writer, self._writes + 1).as_fact(), LOOKED_AT: now.isoformat()}
        if self._ledger.remember_locked(BOOK_FACT, fact, lock=_LOCK, token=token):
            self._writes += 1
        else:  # Paused for longer than the lock: if another process has kept a book since, only that one counts.
            log.warning("alert_book_not_kept", revision=self._book.revision)
        self._is_kept = True

    def _without_ledger(self, error: LedgerError) -> None:
        if self._away_since is None:
            self._away_since = self._steady()
        if self._steady() - self._away_since < AWAY_AFTER.total_seconds():
            return
        log.error("ledger_unreachable", reason=str(error))
        if self._seen_at is None:  # it never answered: there is no time to go by but this machine's
            self._seen_at = (datetime.now().astimezone(), self._steady())
        seen_at, steadily = self._seen_at
        now = seen_at + timedelta(seconds=self._steady() - steadily)
        self._is_kept = False
        self._book = self._book.add(
            finding("ledger_unreachable", f"The ledger does not answer: {error}"), now
        )
        self._deliver(now)

    def _deliver(self, now: datetime, locked_at: float | None = None) -> None:
        """`locked_at`: when the lock was taken, by `elapsed`; None: without one."""
        for each in self._channels:
            if locked_at is not None and self._elapsed() - locked_at >= LOCK_TTL.total_seconds():
                log.warning("alert_look_took_too_long", channel=each.channel.name)
                return  # another process may have sent it: the next look goes by the book that is kept
            message = self._book.message(each.channel, now)
            if message is None:
                continue
            try:
                each.send(title_of(message), body_of(message), message.severity)
            except DeliveryFailed as error:
                log.warning("alert_not_delivered", channel=each.channel.name, reason=str(error))
                self._book = self._book.failed(each.channel, str(error), now)
            else:
                names = [alert.rule_id for alert in (*message.firing, *message.resolved)]
                log.info("alert_delivered", channel=each.channel.name, rules=names)
                self._book = self._book.delivered(each.channel, message, now)

    def _send_digest(self, summary: Summary) -> None:
        title, severity, body = digest(summary, assess(summary), self._book.firing())
        for each in self._channels:
            if each.channel.wants_digest:
                try:
                    each.send(title, body, severity)
                except DeliveryFailed as error:  # tomorrow there is another
                    log.warning("digest_not_delivered", channel=each.channel.name, reason=str(error))
        self._book = self._book.with_digest(summary.at)

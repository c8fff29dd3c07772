"""Enter the assets of a session as soon as a webhook announces them, instead of at the next sweep.

An optimisation: the sweep finds whatever is missed here. What the API does not list is reported (`not_listed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import structlog

from archiver.core.contents.thumbnails import webhook as webhook_thumbnails
from archiver.core.judging import Scope
from archiver.core.upkeep import not_listed
from archiver.core.upkeep.failed_later import Statuses
from archiver.core.upkeep.not_listed import Announced
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.workspaces import is_of_another
from archiver.hms.base import RecordingAssets, WebhookHistory
from archiver.hms.errors import HmsError, HmsNotFound
from archiver.hms.models import Asset, parse_time
from archiver.hms.webhooks import EVENTS, RecordingEvent
from archiver.ledger.base import Ledger

log = structlog.get_logger(__name__)

ATTEMPT_PAUSE = timedelta(minutes=1)
"""A webhook, however often it is repeated, causes no two attempts at an asset within this."""
MOST_ASSETS = 100
"""That one event can name: each costs the ledger time. The others are found through their session, or by the sweep."""
MISSED_FACT = "missed_webhooks"
FIRST_LOOK = timedelta(days=1)
LONGEST_LOOK = timedelta(days=14)
"""What 100ms answers for at once."""
OVERLAP = timedelta(minutes=5)
"""A failed delivery may be listed some time after it failed."""
MOST_SESSIONS = 1000
"""Looked up in one run: each costs a request. The sweep finds the others."""


class Announcements:
    """Looks up what was announced."""

    def __init__(
        self,
        *,
        api: RecordingAssets,
        ledger: Ledger,
        scope: Scope,
        clock: Callable[[], datetime],
        workspace: str | None = None,
    ) -> None:
        """`workspace`: that of our credentials (`hms.workspace`), when it is known."""
        self._api = api
        self._ledger = ledger
        self._scope = scope
        self._clock = clock
        self._workspace = workspace

    def take(self, event: RecordingEvent) -> list[Announced]:
        """Seal the thumbnails of an event and end the waits of the assets it names; return what to look up. Idempotent.
        Raises LedgerError."""
        event = event.model_copy(update={"asset_ids": event.asset_ids[:MOST_ASSETS]})
        webhook_thumbnails.remember(self._ledger, event)
        unknown = tuple(self._make_due(event.asset_ids))
        if event.type not in EVENTS:
            return []
        if event.session_id is None:
            return [Announced(None, event.type, (asset_id,)) for asset_id in unknown]
        known = event.asset_ids and not unknown
        return [Announced(event.session_id, "" if known else event.type, unknown)]

    def enter(self, announced: Announced) -> int:
        """Enter the announced assets in the ledger and end their waits; return how many were new. Idempotent. Raises
        HmsError, LedgerError.

        Nothing is entered before a sweep has: it rebuilds an empty ledger from the buckets, and refuses one of another
        workspace."""
        if not self._is_ready():
            return 0
        statuses = Statuses(self._api, self._ledger, self._scope)
        new = 0
        listed: list[Asset] = []
        try:
            for assets in self._pages(announced):
                new += self._ledger.discover(statuses.judged(assets, self._clock()))
                self._make_due([asset.id for asset in assets])
                listed += assets
        except HmsNotFound:
            self._note(announced, [])
            raise
        self._note(announced, listed)
        return new

    def look_again(self) -> None:
        """Look up what was not listed before. Idempotent. Raises HmsError, LedgerError."""
        for announced in not_listed.all_noted(self._ledger, since=self._clock() - self._scope.retention):
            try:
                self.enter(announced)
            except HmsNotFound:
                continue

    def enter_missed(self, history: WebhookHistory) -> int:
        """Enter what webhooks announced since the last call and nobody took; return how many assets were new.
        Idempotent. Raises LedgerError; HmsError, after which the next call covers the same time again."""
        if not self._is_ready():
            return 0
        now = self._clock()
        last = parse_time((self._ledger.recall(MISSED_FACT) or {}).get("until")) or now - FIRST_LOOK
        since = max(min(last, now) - OVERLAP, now - LONGEST_LOOK + OVERLAP)
        found: dict[Announced, None] = {}
        for event in history.failed_deliveries(since, now):
            found |= dict.fromkeys(self.take(event))
        new = sum(self._entered(announced) for announced in list(found)[:MOST_SESSIONS])
        self._ledger.remember(MISSED_FACT, {"until": now.isoformat()})
        if found:
            log.warning("webhooks_missed", announced=len(found), new=new, since=since.isoformat())
        return new

    def _entered(self, announced: Announced) -> int:
        try:
            return self.enter(announced)
        except HmsNotFound:  # it is noted as not listed
            return 0

    def _is_ready(self) -> bool:
        return self._ledger.recall(SWEEP_FACT) is not None and not is_of_another(
            self._ledger, self._workspace
        )

    def _make_due(self, asset_ids: Sequence[str]) -> list[str]:
        """End the waits of known assets; return the unknown ids."""
        return self._ledger.make_due(asset_ids, unless_within=ATTEMPT_PAUSE) if asset_ids else []

    def _note(self, announced: Announced, listed: Sequence[Asset]) -> None:
        ids = announced.asset_ids
        is_known = bool(ids) and all(self._ledger.get(asset_id) is not None for asset_id in ids)
        not_listed.note(
            self._ledger,
            announced,
            is_listed=is_known or announced.is_among(listed),
            now=self._clock(),
        )

    def _pages(self, announced: Announced) -> Iterable[Sequence[Asset]]:
        if announced.session_id is None:
            return ([self._api.asset(asset_id)] for asset_id in announced.asset_ids)
        return (page.assets for page in self._api.pages(session_id=announced.session_id))


class MissedWebhooks:
    """Looks for what was announced and not taken, or not listed."""

    def __init__(self, announcements: Announcements, history: WebhookHistory) -> None:
        self._announcements = announcements
        self._history = history

    def look(self) -> int:
        """Do `Announcements.enter_missed` and `look_again` as far as the API allows; return how many assets were new.
        The history is optional: an account without it, or an invalid response, changes nothing. Raises LedgerError."""
        new = 0
        try:
            new = self._announcements.enter_missed(self._history)
        except HmsError as error:
            log.info("webhook_history_not_read", reason=str(error))
        try:
            self._announcements.look_again()
        except HmsError as error:
            log.info("not_listed_not_looked_up", reason=str(error))
        return new

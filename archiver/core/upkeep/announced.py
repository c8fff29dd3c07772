"""Enter the assets of a session as soon as a webhook announces them, instead of at the next sweep.

An optimisation: the sweep finds whatever is missed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.judging import Scope
from archiver.core.upkeep.failed_later import Statuses
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.workspaces import is_of_another
from archiver.hms.base import RecordingAssets
from archiver.hms.models import Asset
from archiver.ledger.base import Ledger

ATTEMPT_PAUSE = timedelta(minutes=1)
"""A webhook, however often it is repeated, causes no two attempts at an asset within this."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A session, or an asset when `asset_id` is given."""

    session_id: str | None
    asset_id: str | None = None


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

    def make_due(self, asset_ids: Sequence[str]) -> list[str]:
        """End the waits of known assets; return the unknown ids. Idempotent. Raises LedgerError."""
        return self._ledger.make_due(asset_ids, unless_within=ATTEMPT_PAUSE) if asset_ids else []

    def enter(self, announced: Announced) -> int:
        """Enter the announced assets in the ledger and end their waits; return how many were new. Idempotent. Raises
        HmsError, LedgerError.

        Nothing is entered before a sweep has: it rebuilds an empty ledger from the buckets, and refuses one of another
        workspace."""
        if self._ledger.recall(SWEEP_FACT) is None or is_of_another(self._ledger, self._workspace):
            return 0
        statuses = Statuses(self._api, self._ledger, self._scope)
        new = 0
        for assets in self._pages(announced):
            new += self._ledger.discover(statuses.judged(assets, self._clock()))
            self.make_due([asset.id for asset in assets])
        return new

    def _pages(self, announced: Announced) -> Iterable[Sequence[Asset]]:
        if announced.asset_id is not None:
            return [[self._api.asset(announced.asset_id)]]
        return (page.assets for page in self._api.pages(session_id=announced.session_id))

"""Assets that 100ms listed as completed and later as failed, or with both statuses at once.

Such a recording may be in the storage all the same, so it is tried until its deadline (`Ledger.discover`), and `status`
reports it. Where list and ledger disagree, the asset's own endpoint is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import structlog

from archiver.core.judging import Scope, judge
from archiver.hms.base import RecordingAssets
from archiver.hms.errors import HmsError
from archiver.hms.models import Asset
from archiver.ledger.base import Ledger
from archiver.ledger.models import OPEN_STATES, AssetState, Row, Seen

log = structlog.get_logger(__name__)

FACT = "failed_later"
MOST_ASKED = 200  # assets asked for in one walk: each costs a request
MOST_NAMED = 1000  # assets recorded for `status`
MOST_KEPT = 100_000  # ids of failed assets of one walk, in memory


def failed_later(ledger: Ledger) -> Iterator[Row]:
    """Yield the assets that the last sweeps found failed later and that are still not saved. Raises LedgerError."""
    named = (ledger.recall(FACT) or {}).get("ids")
    for asset_id in named if isinstance(named, list) else ():
        row = ledger.get(str(asset_id))
        if row is not None and row.state in OPEN_STATES:
            yield row


class Statuses:
    """Statuses of failed assets along one walk over the list. Memory: MOST_KEPT ids."""

    def __init__(self, api: RecordingAssets, ledger: Ledger, scope: Scope) -> None:
        self._api = api
        self._ledger = ledger
        self._scope = scope
        self._failed: set[str] = set()
        self._later: dict[str, None] = {}
        self._asked = 0

    def judged(self, assets: Sequence[Asset], now: datetime) -> list[Seen]:
        """Judge the assets of one page. Raises LedgerError."""
        saved: set[str] = set()  # of this page, listed as there to be saved
        seen = []
        for asset in assets:
            one = judge(asset, self._scope, now)
            if one.verdict is AssetState.SOURCE_FAILED:
                known = self._ledger.get(asset.id)
                if asset.id in saved or (known is not None and known.state in OPEN_STATES):
                    one = self._asked_for(one, now)
                if (
                    one.verdict is AssetState.SOURCE_FAILED
                    and known is not None
                    and known.state in OPEN_STATES
                ):
                    self._note(asset.id)
            elif asset.id in self._failed:
                one = self._asked_for(one, now)
            if one.verdict is AssetState.SOURCE_FAILED and len(self._failed) < MOST_KEPT:
                self._failed.add(asset.id)
            elif one.verdict is AssetState.DISCOVERED:
                saved.add(asset.id)
            seen.append(one)
        return seen

    def remember(self, *, full: bool) -> int:
        """Record which assets failed later and are not saved yet; how many. Unless `full`, those that earlier walks saw
        are kept. Raises LedgerError."""
        earlier: Iterable[str] = () if full else (row.asset_id for row in failed_later(self._ledger))
        ids = list(dict.fromkeys([*self._later, *earlier]))[:MOST_NAMED]
        if ids:
            self._ledger.remember(FACT, {"ids": ids})
        else:
            self._ledger.forget(FACT)
        return len(ids)

    def _note(self, asset_id: str) -> None:
        log.error("asset_failed_later", asset_id=asset_id)
        if len(self._later) < MOST_NAMED:
            self._later[asset_id] = None

    def _asked_for(self, listed: Seen, now: datetime) -> Seen:
        """Judge by the asset's own endpoint; as listed when that cannot be asked now."""
        if self._asked >= MOST_ASKED:
            return listed
        self._asked += 1
        try:
            asset = self._api.asset(listed.asset_id)
        except HmsError as error:
            log.warning("asset_with_two_statuses", asset_id=listed.asset_id, reason=str(error))
            return listed
        log.warning("asset_with_two_statuses", asset_id=asset.id, status=asset.status)
        return judge(asset, self._scope, now)

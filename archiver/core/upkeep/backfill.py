"""Enter the assets of one room or session now, not at the next full sweep: those that a filter or an outage hid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from archiver.core.judging import Scope
from archiver.core.upkeep.failed_later import Statuses
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.hms.base import RecordingAssets
from archiver.hms.models import Asset
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """`states`: of the assets that were found, now. `reasons`: why some are skipped, with their number."""

    found: int
    new: int
    states: Mapping[AssetState, int]
    reasons: Mapping[str, int]


def backfill(
    *,
    api: RecordingAssets,
    ledger: Ledger,
    scope: Scope,
    clock: Callable[[], datetime],
    room_id: str | None = None,
    session_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BackfillResult:
    """Walk the API's list of the room or session, enter what was created in [since, until) as a sweep does, and make
    what waits due now. What has no date is entered only when no time is asked for.

    The filters of the settings hold: what they skip stays skipped, since each attempt would skip it again. What ended
    otherwise stays (`retry`). Idempotent. Raises HmsError, LedgerError; pages entered before stay entered."""
    statuses = Statuses(api, ledger, scope)
    known: set[str] = set()
    new = 0
    for page in api.pages(room_id=room_id, session_id=session_id):
        # an API that ignores a filter must not have the whole account entered as one room
        wanted = [
            asset
            for asset in page.assets
            if _is_of(asset, room_id, session_id) and _is_between(asset.created_at, since, until)
        ]
        new += ledger.discover(statuses.judged(wanted, clock()))
        ledger.make_due([asset.id for asset in wanted], unless_within=timedelta(0))
        known.update(asset.id for asset in wanted)
        on_progress("listing", len(known))
    states: Counter[AssetState] = Counter()
    reasons: Counter[str] = Counter()
    for asset_id in known:
        row = ledger.get(asset_id)
        if row is not None:
            states[row.state] += 1
            if row.state is AssetState.SKIPPED:
                reasons[row.reason or ""] += 1
    log.info("backfilled", found=len(known), new=new, room_id=room_id, session_id=session_id)
    return BackfillResult(len(known), new, dict(states), dict(reasons))


def _is_of(asset: Asset, room_id: str | None, session_id: str | None) -> bool:
    return room_id in (None, asset.room_id) and session_id in (None, asset.session_id)


def _is_between(created_at: datetime | None, since: datetime | None, until: datetime | None) -> bool:
    if created_at is None:
        return since is None and until is None
    return (since is None or created_at >= since) and (until is None or created_at < until)

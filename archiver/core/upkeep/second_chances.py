"""What ended without being archived is looked at again while its source may have it: the source may be complete by now,
or this program fixed, and a look costs little beside a recording. So is what was called lost, for a while: a storage
that answers again is worth a few requests a day.
"""

from __future__ import annotations

import heapq
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt.copying import TRIED_AGAIN
from archiver.core.deadlines import source_ends_at
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState, Row

log = structlog.get_logger(__name__)

GIVEN_UP = (AssetState.QUARANTINED, AssetState.NEEDS_SOURCE_ACCESS)
LONGEST_PAUSE = timedelta(days=1)
LOST_LOOKED_AT_FOR = timedelta(
    days=30
)  # after the deadline, or after it was first seen; each look ends in minutes
MOST_LOST = 100  # reopened in one look: their deadlines are past, so they go before all others
MOST_WARNED = 1000  # assets looked at for what was busy when they were archived, the latest first
LOOK_EVERY = timedelta(hours=1)  # a look reads every row of these states
FACT = "second_chances"


def give_second_chances(ledger: Ledger, now: datetime) -> int:
    """Reopen what ended in GIVEN_UP and has time left: a day after it ended, or after half of the time that it had
    left then, whichever comes first, so that each is tried on its last day too. What is stored of it stays. One that an
    earlier version quarantined with nothing stored is reopened at once; so is what was archived without something
    optional that was busy, which is then added to it. What is lost is reopened once a day for LOST_LOOKED_AT_FOR,
    unless a person acknowledged it; at most MOST_LOST at once, those first that were looked at longest ago. How many;
    looks once in LOOK_EVERY. Idempotent. Raises LedgerError."""
    if ledger.recall(FACT) is not None:
        return 0
    ledger.remember(FACT, {"at": now.isoformat()}, lifetime=LOOK_EVERY)
    reopened = 0
    for row in ledger.warned(MOST_WARNED):
        tried_again = any(TRIED_AGAIN in warning for warning in row.warnings)
        # doubling, from an hour to a day: what is refused for good must not cost a look each hour
        pause = min(max(LOOK_EVERY, row.changed_at - row.first_seen_at), LONGEST_PAUSE)
        if tried_again and row.changed_at + pause <= now < source_ends_at(row):
            ledger.reopen(row.asset_id, keep_stored=True)
            reopened += 1
    given_up = (row for row in ledger.rows(GIVEN_UP) if _is_due(row, now))
    lost = (row for row in ledger.rows([AssetState.LOST]) if _lost_is_due(row, now))
    for row in (*given_up, *heapq.nsmallest(MOST_LOST, lost, key=lambda row: row.changed_at)):
        log.warning("second_chance", asset_id=row.asset_id, state=row.state, reason=row.reason)
        ledger.reopen(row.asset_id, keep_stored=True)
        reopened += 1
    return reopened


def _is_due(row: Row, now: datetime) -> bool:
    if row.state is AssetState.QUARANTINED and row.stored_objects == 0:
        return True
    ends_at = source_ends_at(row)
    pause = min(LONGEST_PAUSE, (ends_at - row.changed_at) / 2)
    return row.changed_at + pause <= now < ends_at


def _lost_is_due(row: Row, now: datetime) -> bool:
    until = max(source_ends_at(row), row.first_seen_at) + LOST_LOOKED_AT_FOR
    return row.acknowledged is None and row.changed_at + LONGEST_PAUSE <= now < until

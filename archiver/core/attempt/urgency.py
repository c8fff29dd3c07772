"""Preempt copies so that urgent assets get their slots.

The dispatcher publishes which urgent assets have been queued for a while: every slot is busy. For each of them, one
copy that is not urgent stops at the end of a part. That asset is due again at once and is resumed; this
costs no attempt, and happens at most MOST_PREEMPTIONS times a day to one asset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.ledger.base import Facts, Ledger

URGENT_AFTER = timedelta(seconds=30)
"""How long an urgent asset waits before all slots count as busy; how long a copy runs before it may be preempted."""
MOST_PREEMPTIONS = 3
"""Of one asset in a day."""

_FACT = "urgent_waiting"
_FACT_LIFETIME = timedelta(minutes=1)  # written again by each dispatch
_PREEMPTIONS = "handed_back:"  # the name of the fact in earlier versions too
_COUNTED_FOR = timedelta(days=1)
_ONE_FOR = timedelta(minutes=10)  # at most one copy is preempted for an urgent asset in this time
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class UrgentWaiting:
    """`asset_ids`: most urgent first. `before`: assets with a later deadline are not urgent."""

    asset_ids: Sequence[str]
    before: datetime


def would_miss_deadline(
    expires_at: datetime, size_bytes: int, now: datetime, near: timedelta, bytes_per_second: float
) -> bool:
    """Return whether a copy that keeps to a bandwidth limit may miss its deadline: less than `near` is left, or than
    twice what the copy alone takes at that rate."""
    return expires_at - now <= max(near, timedelta(seconds=2 * size_bytes / bytes_per_second))


def publish(ledger: Facts, asset_ids: Sequence[str], before: datetime) -> None:
    """Publish for a minute that these wait for a slot. Raises LedgerError."""
    fact = {"asset_ids": list(asset_ids[:_MOST_NAMED]), "before": before.isoformat()}
    ledger.remember(_FACT, fact, lifetime=_FACT_LIFETIME)


def waiting(ledger: Facts) -> UrgentWaiting | None:
    """Return what was published; None: no urgent asset waits for a slot. Raises LedgerError."""
    match ledger.recall(_FACT):
        case {"asset_ids": [*asset_ids], "before": str(before)}:
            return UrgentWaiting([str(asset_id) for asset_id in asset_ids], datetime.fromisoformat(before))
    return None


def preempted_by(ledger: Ledger, asset_id: str) -> str | None:
    """Return the urgent asset that preempts the copy of `asset_id`; None: it continues.

    The preemption is counted, so the caller must carry it out. Raises LedgerError.
    """
    urgent = waiting(ledger)
    if urgent is None:
        return None
    row = ledger.get(asset_id)
    if row is None or row.expires_at < urgent.before:
        return None
    counted = ledger.recall(_PREEMPTIONS + asset_id) or {}
    times = counted.get("times", 0)
    if not isinstance(times, int) or times >= MOST_PREEMPTIONS:
        return None
    for waits in urgent.asset_ids:
        if ledger.lock(f"handed_back_for:{waits}", _ONE_FOR):
            ledger.remember(_PREEMPTIONS + asset_id, {"times": times + 1}, lifetime=_COUNTED_FOR)
            return waits
    return None

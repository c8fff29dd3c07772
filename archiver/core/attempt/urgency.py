"""Urgent assets that wait for a slot, and copies that give theirs up for them.

The dispatcher says which urgent assets have had a message for a while and are not taken up: every slot is busy. A copy
that is not urgent then hands its asset back at a part's end, one copy for each of them. It is due again at once and
resumes where it was; it costs no attempt, and no asset is handed back more often than MOST_HAND_BACKS times a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.ledger.base import Facts, Ledger

URGENT_AFTER = timedelta(seconds=30)
"""How long a message of an urgent asset is out before no slot counts as free; and how long a copy has to have run
before it is handed back."""
MOST_HAND_BACKS = 3
"""Of one asset a day."""

_FACT = "urgent_waiting"
_FACT_LIFETIME = timedelta(minutes=1)  # said again by each dispatch
_HANDED_BACK = "handed_back:"
_COUNTED_FOR = timedelta(days=1)
_ONE_FOR = timedelta(minutes=10)  # one copy is handed back for an urgent asset, and another after so long
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class UrgentWaiting:
    """`asset_ids`: most urgent first. `before`: the deadline from which on an asset is not urgent."""

    asset_ids: Sequence[str]
    before: datetime


def say(ledger: Facts, asset_ids: Sequence[str], before: datetime) -> None:
    """Let it be known for a minute that these wait for a slot. Raises LedgerError."""
    fact = {"asset_ids": list(asset_ids[:_MOST_NAMED]), "before": before.isoformat()}
    ledger.remember(_FACT, fact, lifetime=_FACT_LIFETIME)


def waiting(ledger: Facts) -> UrgentWaiting | None:
    """None: no urgent asset waits for a slot. Raises LedgerError."""
    match ledger.recall(_FACT):
        case {"asset_ids": [*asset_ids], "before": str(before)}:
            return UrgentWaiting([str(asset_id) for asset_id in asset_ids], datetime.fromisoformat(before))
    return None


def hand_back_for(ledger: Ledger, asset_id: str) -> str | None:
    """The urgent asset that a copy of `asset_id` is to make room for; None: it goes on. Counted: hand it back then.
    Raises LedgerError."""
    urgent = waiting(ledger)
    if urgent is None:
        return None
    row = ledger.get(asset_id)
    if row is None or row.expires_at < urgent.before:
        return None
    counted = ledger.recall(_HANDED_BACK + asset_id) or {}
    times = counted.get("times", 0)
    if not isinstance(times, int) or times >= MOST_HAND_BACKS:
        return None
    for waits in urgent.asset_ids:
        if ledger.lock(f"handed_back_for:{waits}", _ONE_FOR):
            ledger.remember(_HANDED_BACK + asset_id, {"times": times + 1}, lifetime=_COUNTED_FOR)
            return waits
    return None

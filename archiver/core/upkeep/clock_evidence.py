"""Say whether the ledger's clock can be believed, by what else tells the time.

What cannot be undone (an asset is called expired) waits for a clock that others confirm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from archiver.core.clocks import CLOCK_TOLERANCE, clocks_agree
from archiver.core.destinations.probing import tell_time
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from storage_backends.base import StorageBackend

MEASURED_WITHIN = timedelta(days=1)
"""A sweep that ended earlier says nothing of the API's clock: the ledger's may have been set since."""


def problem_by_facts(ledger: Facts, now: datetime) -> str | None:
    """Return why the ledger's clock cannot be believed, by what the last sweep measured; None when it can. Raises
    LedgerError."""
    sweep = ledger.recall(SWEEP_FACT) or {}
    ended = parse_time(sweep.get("ended_at"))
    if ended is None:
        return "no sweep has compared the ledger's clock with 100ms's yet"
    if ended - now > CLOCK_TOLERANCE:
        return "the last sweep is dated in the future: the ledger's clock was set back, or was ahead"
    if now - ended > MEASURED_WITHIN:
        return "no sweep has compared the ledger's clock with 100ms's for a day"
    ahead = sweep.get("clock_ahead_seconds")
    if isinstance(ahead, int | float) and abs(ahead) > CLOCK_TOLERANCE.total_seconds():
        return f"the ledger's clock differs from 100ms's by {abs(ahead):.0f} s"
    return None


def problem(
    ledger: Facts, stores: Sequence[StorageBackend], now: datetime, recorded: Iterable[datetime | None] = ()
) -> str | None:
    """As `problem_by_facts`, and ask every destination for its time: three requests each. `recorded`: times that are
    past, if the clock is right. Raises LedgerError."""
    if (found := problem_by_facts(ledger, now)) is not None:
        return found
    if any(at is not None and at - now > CLOCK_TOLERANCE for at in recorded):
        return "the last expiry is dated in the future: the ledger's clock was set back, or was ahead"
    ahead = (ledger.recall(SWEEP_FACT) or {}).get("clock_ahead_seconds")
    api = now - timedelta(seconds=ahead) if isinstance(ahead, int | float) else None
    times = {store.name: tell_time(store, ledger) for store in stores}
    if not clocks_agree(now, api, times.values()):
        apart = [name for name, at in times.items() if at is not None and not clocks_agree(now, at)]
        return (
            f"the ledger's clock differs from that of {', '.join(apart)}"
            if apart
            else "neither 100ms nor a destination tells the time"
        )
    return None

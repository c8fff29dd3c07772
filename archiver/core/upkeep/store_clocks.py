"""Compare the clocks of the destinations with the ledger's, each hour.

While they differ no asset is called lost or expired (`core.clocks`), so a person must know before a deadline comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.destinations.probing import tell_time
from archiver.core.health_rules import Finding, finding
from archiver.ledger.base import Facts
from storage_backends.base import StorageBackend

FACT = "store_clocks"


def measure(ledger: Facts, destinations: Sequence[StorageBackend], clock: Callable[[], datetime]) -> None:
    """Record by how much each destination's clock is ahead of `clock`, the ledger's. Three requests each.

    One that tells no time now (it is away, or takes one probe a day) keeps what was last measured. Idempotent. Raises
    LedgerError."""
    known = _seconds_ahead(ledger.recall(FACT))
    began = clock()
    measured: dict[str, float] = {}
    for store in destinations:
        before, at, after = clock(), tell_time(store, ledger), clock()
        if at is not None:
            ahead = at - min(max(at, before), after)  # it was dated between the two
            measured[store.name] = round(ahead.total_seconds())
        elif store.name in known:
            measured[store.name] = known[store.name]
    ledger.remember(FACT, {"started_at": began.isoformat(), "seconds_ahead": measured})


def findings(fact: Mapping[str, object] | None, sweep: Mapping[str, object]) -> Iterator[Finding]:
    """What was measured last. A destination that agrees with 100ms is right, and the ledger is wrong; `sweep`: what the
    last sweep measured."""
    ledger_ahead = sweep.get("clock_ahead_seconds")
    for name, ahead in sorted(_seconds_ahead(fact).items()):
        agrees_with_api = isinstance(ledger_ahead, int | float) and _is_small(ahead + ledger_ahead)
        if _is_small(ahead) or agrees_with_api:
            continue
        where = "ahead of" if ahead > 0 else "behind"
        yield finding(
            "destination_clock_is_wrong",
            f"The clock of {name} is {_in_words(abs(ahead))} {where} the ledger's: no asset whose source is gone is "
            "called lost, and nothing expires.",
            cause=name,
        )


def _seconds_ahead(fact: Mapping[str, object] | None) -> dict[str, float]:
    match fact:
        case {"seconds_ahead": dict(measured)}:
            return {str(name): each for name, each in measured.items() if isinstance(each, int | float)}
    return {}


def _is_small(seconds: float) -> bool:
    return abs(seconds) <= CLOCK_TOLERANCE.total_seconds()


def _in_words(seconds: float) -> str:
    minutes = timedelta(seconds=seconds) / timedelta(minutes=1)
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"

"""A destination (or the API) that refuses is left alone for a while, instead of failing every asset against it.

A hold ends by itself; the first asset after it is the probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from hms.models import parse_time
from ledger.base import Ledger

API = "the 100ms API"
PREFIX = "hold:"
"""Of the names of the ledger's facts that are holds."""


@dataclass(frozen=True, slots=True)
class Hold:
    reason: str
    until: datetime


def put(ledger: Ledger, name: str, reason: str, now: datetime, duration: timedelta) -> None:
    """Leave `name` alone for `duration`. Repeatable; the last one counts."""
    fact = {"reason": reason, "until": (now + duration).isoformat()}
    ledger.remember(PREFIX + name, fact, lifetime=duration)


def lift(ledger: Ledger, name: str) -> None:
    ledger.forget(PREFIX + name)


def current(ledger: Ledger, now: datetime) -> Mapping[str, Hold]:
    """The holds in force, by name."""
    return among(ledger.recall_all(PREFIX), now)


def among(facts: Mapping[str, Mapping[str, object]], now: datetime) -> Mapping[str, Hold]:
    """The holds in force, by name, out of the ledger's facts."""
    holds = {}
    for key, fact in facts.items():
        until = parse_time(fact.get("until"))
        if until is not None and until > now:
            holds[key.removeprefix(PREFIX)] = Hold(str(fact.get("reason", "")), until)
    return holds

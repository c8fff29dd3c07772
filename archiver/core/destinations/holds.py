"""Circuit breakers: a destination (or the API) that refuses is left alone for a while, instead of failing every asset
against it. A hold ends by itself; the first asset after it is the probe.

Beside the holds, which stop every worker, the troubles of a destination as single machines meet them: a disk that is
not mounted here may well be mounted there. A trouble stops that machine alone, and people see it among the holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from archiver.hms.models import parse_time
from archiver.ledger.base import Facts

API = "the 100ms API"
PREFIX = "hold:"
"""Of the names of the ledger's facts that are holds."""

TROUBLE_PREFIX = "destination-trouble:"
UNREACHABLE_AFTER = timedelta(minutes=5)
"""A destination that failed for so long on a machine, without any success there, is a fault and no passing one."""


@dataclass(frozen=True, slots=True)
class Hold:
    """`code`: the event in the logs, and the row in docs/operations.md."""

    reason: str
    until: datetime
    code: str = "on_hold"


def put(ledger: Facts, name: str, reason: str, now: datetime, duration: timedelta) -> None:
    """Leave `name` alone for `duration`. Repeatable; the last one counts."""
    fact = {"reason": reason, "until": (now + duration).isoformat()}
    ledger.remember(PREFIX + name, fact, lifetime=duration)


def lift(ledger: Facts, name: str) -> None:
    ledger.forget(PREFIX + name)


def current(ledger: Facts, now: datetime) -> Mapping[str, Hold]:
    """The holds in force, by name, and the troubles that a person must see."""
    troubles = {
        trouble.name: Hold(f"{trouble.reason} (on {trouble.place})", trouble.until, trouble.kind.code)
        for trouble in _troubles(ledger)
        if trouble.is_fault
    }
    return {**troubles, **among(ledger.recall_all(PREFIX), now)}


def among(facts: Mapping[str, Mapping[str, object]], now: datetime) -> Mapping[str, Hold]:
    """The holds in force, by name, out of the ledger's facts."""
    holds = {}
    for key, fact in facts.items():
        until = parse_time(fact.get("until"))
        if key.startswith(PREFIX) and until is not None and until > now:
            holds[key.removeprefix(PREFIX)] = Hold(str(fact.get("reason", "")), until)
    return holds


class Kind(StrEnum):
    """What troubles a destination."""

    UNKNOWN = "unknown"  # it is not the destination that the ledger knows
    REFUSES = "refuses"  # it lets nothing be read: credentials, a policy
    SILENT = "silent"  # it does not answer, or fails
    SILENT_TO_WRITES = "silent to writes"  # the same, though it can be read

    @property
    def code(self) -> str:
        codes = {Kind.UNKNOWN: "destination_unknown", Kind.REFUSES: "destination_refuses"}
        return codes.get(self, "destination_silent")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What one machine met at one destination. `since` and `last`: the first and the last time in a row."""

    name: str
    place: str
    kind: Kind
    reason: str
    since: datetime
    last: datetime
    until: datetime  # when it is forgotten, if it is not met again

    @property
    def is_fault(self) -> bool:
        """Whether it is more than a passing failure."""
        return self.kind in (Kind.UNKNOWN, Kind.REFUSES) or self.last - self.since >= UNREACHABLE_AFTER


def note_trouble(
    ledger: Facts, name: str, place: str, kind: Kind, reason: str, now: datetime, lifetime: timedelta
) -> Trouble:
    """Record that `name` failed at `place` once more, in ledger time `now`. Forgotten after `lifetime`."""
    before = trouble_at(ledger, name, place)
    same = before is not None and (before.kind is Kind.UNKNOWN) == (kind is Kind.UNKNOWN)
    since = min(before.since, now) if before is not None and same else now
    fact = {
        "name": name,
        "place": place,
        "kind": kind.value,
        "reason": reason,
        "since": since.isoformat(),
        "last": now.isoformat(),
        "until": (now + lifetime).isoformat(),
    }
    ledger.remember(_trouble_key(name, place), fact, lifetime=lifetime)
    return Trouble(name, place, kind, reason, since, now, now + lifetime)


def trouble_at(ledger: Facts, name: str, place: str) -> Trouble | None:
    fact = ledger.recall(_trouble_key(name, place))
    return _parse_trouble(fact) if fact else None


def end_trouble(ledger: Facts, name: str, place: str) -> None:
    """Something succeeded there. Repeatable."""
    ledger.forget(_trouble_key(name, place))


def forget_refusals(ledger: Facts) -> None:
    """End all troubles that are told at once, for a person may have mended them: whoever meets one tells it again.
    Repeatable."""
    for trouble in _troubles(ledger):
        if trouble.kind is Kind.REFUSES:
            end_trouble(ledger, trouble.name, trouble.place)


def forget_others(ledger: Facts, names: Iterable[str], place: str) -> None:
    """End the troubles at `place` of destinations that are not among `names`: they are used no more. Repeatable."""
    kept = set(names)
    for trouble in _troubles(ledger):
        if trouble.place == place and trouble.name not in kept:
            end_trouble(ledger, trouble.name, place)


def _trouble_key(name: str, place: str) -> str:
    return f"{TROUBLE_PREFIX}{name}#{place}"


def _troubles(ledger: Facts) -> list[Trouble]:
    found = (_parse_trouble(fact) for fact in ledger.recall_all(TROUBLE_PREFIX).values())
    return sorted((one for one in found if one is not None), key=lambda one: one.since)


def _parse_trouble(fact: Mapping[str, object]) -> Trouble | None:
    times = [parse_time(fact.get(name)) for name in ("since", "last", "until")]
    since, last, until = times
    kind = fact.get("kind")
    if since is None or last is None or until is None or kind not in list(Kind):
        return None
    return Trouble(
        str(fact.get("name", "")),
        str(fact.get("place", "")),
        Kind(str(kind)),
        str(fact.get("reason", "")),
        since,
        last,
        until,
    )

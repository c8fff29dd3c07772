"""Record how destinations fail on single machines: a disk that is not mounted on one may be mounted on another.

A failure stops the machine that records it alone. One that lasts is shown to people beside the open circuit breakers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerError

log = structlog.get_logger(__name__)

PREFIX = "destination-trouble:"
"""Of the names of the ledger's facts, one for each destination and machine."""

FAULT_AFTER = timedelta(minutes=5)
"""A destination that failed for this long on a machine, without a success there, is not a passing failure."""


class Kind(StrEnum):
    UNKNOWN = "unknown"  # it is not the destination that the ledger knows
    REFUSES = "refuses"  # it lets nothing be read: credentials, a policy
    SILENT = "silent"  # it does not answer, or fails
    SILENT_TO_WRITES = "silent to writes"  # the same, though it can be read

    @property
    def code(self) -> str:
        """The event in the logs, and the row in docs/operations.md."""
        codes = {Kind.UNKNOWN: "destination_unknown", Kind.REFUSES: "destination_refuses"}
        return codes.get(self, "destination_silent")

    @property
    def badness(self) -> int:
        """Greater for what a person must see first."""
        return {Kind.UNKNOWN: 2, Kind.REFUSES: 1}.get(self, 0)


@dataclass(frozen=True, slots=True)
class Failure:
    """How the destination `name` fails on `machine`: `since` the first and until the `last` time in a row. Forgotten at
    `until`, unless it is recorded again."""

    name: str
    machine: str
    kind: Kind
    reason: str
    since: datetime
    last: datetime
    until: datetime

    @property
    def is_fault(self) -> bool:
        """Return whether it is more than a passing failure."""
        return self.kind in (Kind.UNKNOWN, Kind.REFUSES) or self.last - self.since >= FAULT_AFTER


def record(
    ledger: Facts, name: str, machine: str, kind: Kind, reason: str, now: datetime, lifetime: timedelta
) -> Failure:
    """Record that `name` failed once more on `machine`, in ledger time `now`. Silence refutes nothing: what was found
    worse before stays so. Raises LedgerError."""
    before = failure_on(ledger, name, machine)
    if before is not None and kind is Kind.SILENT and before.kind.badness > kind.badness:
        kind, reason = before.kind, before.reason
    same = before is not None and (before.kind is Kind.UNKNOWN) == (kind is Kind.UNKNOWN)
    since = min(before.since, now) if before is not None and same else now
    fact = {
        "name": name,
        "place": machine,
        "kind": kind.value,
        "reason": reason,
        "since": since.isoformat(),
        "last": now.isoformat(),
        "until": (now + lifetime).isoformat(),
    }
    ledger.remember(_key(name, machine), fact, lifetime=lifetime)
    return Failure(name, machine, kind, reason, since, now, now + lifetime)


class MachineFailures:
    """Those of one machine. `lifetime`: after which a failure that is not met again is forgotten. A ledger that is down
    is logged, and stops nothing."""

    def __init__(self, ledger: Facts, machine: str, lifetime: timedelta) -> None:
        self._ledger = ledger
        self._machine = machine
        self._lifetime = lifetime

    def record(self, name: str, kind: Kind, reason: str, now: datetime) -> Failure | None:
        """None when the ledger is unreachable."""
        try:
            return record(self._ledger, name, self._machine, kind, reason, now, self._lifetime)
        except LedgerError as error:
            log.warning("trouble_not_recorded", store=name, reason=str(error))
            return None

    def record_readable(self, name: str, writes: bool | None, write_error: str, now: datetime) -> None:
        """`name` can be read. `writes`: whether its last write succeeded; None: none was tried since the last call."""
        try:
            before = failure_on(self._ledger, name, self._machine)
            if writes is False:
                reason = f"it takes nothing: {write_error}"
                kind = Kind.SILENT_TO_WRITES
                failure = record(self._ledger, name, self._machine, kind, reason, now, self._lifetime)
                if failure.is_fault:
                    log.error("destination_takes_nothing", store=name, reason=reason)
            elif before is not None and (writes or before.kind is not Kind.SILENT_TO_WRITES):
                clear(self._ledger, name, self._machine)
                log.warning("destination_answers_again", store=name, after=before.reason)
        except LedgerError as error:
            log.warning("trouble_not_recorded", store=name, reason=str(error))

    def clear(self, name: str) -> None:
        """Raises LedgerError."""
        clear(self._ledger, name, self._machine)

    def clear_unused(self, names: Iterable[str]) -> None:
        """Forget the failures of destinations that are not among `names`. Raises LedgerError."""
        clear_unused(self._ledger, names, self._machine)


def failure_on(ledger: Facts, name: str, machine: str) -> Failure | None:
    fact = ledger.recall(_key(name, machine))
    return _parse(fact) if fact else None


def clear(ledger: Facts, name: str, machine: str) -> None:
    """After a success there. Idempotent."""
    ledger.forget(_key(name, machine))


def clear_refusals(ledger: Facts) -> None:
    """Forget what refused to be read, on all machines: a person may have fixed it, and whoever is refused again records
    it again. Idempotent."""
    for each in recorded(ledger):
        if each.kind is Kind.REFUSES:
            clear(ledger, each.name, each.machine)


def clear_unused(ledger: Facts, names: Iterable[str], machine: str) -> None:
    """Forget the failures on `machine` of destinations that are not among `names`. Idempotent."""
    used = set(names)
    for each in recorded(ledger):
        if each.machine == machine and each.name not in used:
            clear(ledger, each.name, machine)


def recorded(ledger: Facts) -> list[Failure]:
    """All of them, the longest first."""
    found = (_parse(fact) for fact in ledger.recall_all(PREFIX).values())
    return sorted((each for each in found if each is not None), key=lambda each: each.since)


def _key(name: str, machine: str) -> str:
    return f"{PREFIX}{name}#{machine}"


def _parse(fact: Mapping[str, object]) -> Failure | None:
    since, last, until = (parse_time(fact.get(name)) for name in ("since", "last", "until"))
    kind = fact.get("kind")
    if since is None or last is None or until is None or kind not in list(Kind):
        return None
    name, machine, reason = (str(fact.get(each, "")) for each in ("name", "place", "reason"))
    return Failure(name, machine, Kind(str(kind)), reason, since, last, until)

"""Circuit breakers of the destinations and the API: what refuses gets no requests for a while, instead of failing one
asset after another.

    closed     nothing is known to be wrong
    open       for OPEN_FOR after a refusal: assets wait, which costs them no attempt
    half-open  afterwards: the next asset tries it, and opens the breaker again or closes it; people are told of it for
               HALF_OPEN_FOR, because nothing shows that it works again

A refusal opens the breaker of one machine, because its credentials, clock or disk may be the cause. It opens for every
machine only when a second one is refused while none succeeds. So one machine with an old password cannot stop the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.destinations import failures
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerError

API = "the 100ms API"
EVERYTHING = "all"
"""Name of the breaker that stops every asset."""
PAUSED = "paused"
"""Code of a breaker that a person opened."""
LONGEST_PAUSE = timedelta(hours=24)
"""A pause that nobody ends: who forgets it must not lose what 100ms deletes after 15 days."""
OPEN_FOR = timedelta(minutes=5)
HALF_OPEN_FOR = timedelta(hours=1)
"""The next attempt may be late, or its worker paused; what was not tried within the hour had nothing waiting for it."""

PREFIX = "hold:"
"""Of the names of the ledger's facts, one for each breaker that is open or half-open."""

_ANSWERED = "answered:"
_OF_A_MACHINE = re.compile(r" \(on [^()]*\)\Z")


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """`code`: the event name in the logs, and the row in docs/operations.md."""

    reason: str
    until: datetime
    code: str = "on_hold"


def trip(ledger: Facts, name: str, reason: str, now: datetime) -> None:
    """Open the breaker of `name` for every machine. Idempotent; the last reason counts. Raises LedgerError."""
    fact = {"reason": reason, "until": (now + OPEN_FOR).isoformat()}
    ledger.remember(PREFIX + name, fact, lifetime=OPEN_FOR + HALF_OPEN_FOR)


def trip_on(ledger: Facts, name: str, machine: str, reason: str, now: datetime) -> None:
    """Open the breaker of `name` for `machine`; for every machine when another one is refused too. Idempotent.
    Raises LedgerError."""
    here = _on(name, machine)
    trip(ledger, here, reason, now)
    if ledger.recall(_ANSWERED + name) is not None:
        return
    others = parse(ledger.recall_all(PREFIX + _of_all_machines(name)), now)
    if any(other != here for other in others):
        trip(ledger, name, reason, now)


def pause(ledger: Facts, name: str, *, by: str, why: str, now: datetime) -> datetime:
    """Open the breaker of a destination, or of EVERYTHING, for LONGEST_PAUSE or until `close`; return when it ends.
    Copies that run end first. Alarms for deadlines go on. Idempotent: the last call counts. Raises LedgerError."""
    until = now + LONGEST_PAUSE
    reason = f"paused by {by}{f': {why}' if why else ''}"
    ledger.remember(
        PREFIX + name, {"reason": reason, "until": until.isoformat(), "code": PAUSED}, lifetime=LONGEST_PAUSE
    )
    return until


def close(ledger: Facts, name: str) -> None:
    """Idempotent. Raises LedgerError."""
    ledger.forget(PREFIX + name)


def close_on(ledger: Facts, names: Iterable[str], machine: str) -> None:
    """Close the breakers of `names` that are of `machine` or of all, after what was refused was corrected. Those that a
    person opened stay open. Idempotent. Raises LedgerError."""
    for name in names:
        close(ledger, _on(name, machine))
        fact = ledger.recall(PREFIX + name)
        if fact is not None and fact.get("code") != PAUSED:
            close(ledger, name)


def note_success(ledger: Facts, opened: Mapping[str, OpenBreaker], name: str) -> None:
    """Close the breaker of `name` for all but refused machines, and keep it so for OPEN_FOR, whatever refuses another.

    Writes nothing while no breaker of `name` is among the `opened`, or while the ledger is unreachable.
    """
    if any(other == name or other.startswith(_of_all_machines(name)) for other in opened):
        with suppress(LedgerError):
            ledger.remember(_ANSWERED + name, {}, lifetime=OPEN_FOR)
            close(ledger, name)


def close_half_open(ledger: Facts, half_open: Mapping[str, OpenBreaker], name: str, machine: str) -> None:
    """After a success on `machine`: close those of the `half_open` that are of `name` and of this machine or of all.
    Writes nothing while the ledger is unreachable."""
    with suppress(LedgerError):
        for each in {name, _on(name, machine)} & half_open.keys():
            close(ledger, each)


def not_closed(ledger: Facts, now: datetime) -> Mapping[str, OpenBreaker]:
    """`opened`, and the half-open breakers. Raises LedgerError."""
    return {**half_open(ledger.recall_all(PREFIX), now), **opened(ledger, now)}


def opened(ledger: Facts, now: datetime) -> Mapping[str, OpenBreaker]:
    """The open breakers by name, and the failures of single machines that a person must see: of each destination the
    worst, and of those the longest. One beside a breaker of the same name, such as a pause, which must not hide it, has
    its machine in the name. Each of these records ends by itself. Raises LedgerError."""
    breakers = parse(ledger.recall_all(PREFIX), now)
    worst_last = sorted(failures.recorded(ledger), key=lambda each: (each.kind.badness, now - each.since))
    worst = {each.name: each for each in worst_last if each.is_fault}
    faults = {
        _on(name, each.machine) if name in breakers else name: OpenBreaker(
            f"{each.reason} (on {each.machine})", each.until, each.kind.code
        )
        for name, each in worst.items()
    }
    return {**breakers, **faults}


def parse(facts: Mapping[str, Mapping[str, object]], now: datetime) -> Mapping[str, OpenBreaker]:
    """The open breakers by name, out of the ledger's facts. One that would be open for longer than it was opened for is
    closed: the ledger's clock was set back."""
    return {
        name: each
        for name, each in _parsed(facts).items()
        if now < each.until <= now + CLOCK_TOLERANCE + (LONGEST_PAUSE if each.code == PAUSED else OPEN_FOR)
    }


def half_open(facts: Mapping[str, Mapping[str, object]], now: datetime) -> Mapping[str, OpenBreaker]:
    """The half-open breakers by name, out of the ledger's facts. Their `until` is past."""
    found = _parsed(facts).items()
    return {name: each for name, each in found if each.until <= now and each.code != PAUSED}


def _parsed(facts: Mapping[str, Mapping[str, object]]) -> dict[str, OpenBreaker]:
    found = {}
    for key, fact in facts.items():
        until = parse_time(fact.get("until"))
        if key.startswith(PREFIX) and until is not None:
            code = PAUSED if fact.get("code") == PAUSED else "on_hold"
            found[key.removeprefix(PREFIX)] = OpenBreaker(str(fact.get("reason", "")), until, code)
    return found


def opened_on(opened: Mapping[str, OpenBreaker], machine: str) -> Mapping[str, OpenBreaker]:
    """Those of `opened` that stop `machine`, by the name of the destination."""
    here = _on("", machine)
    own = {name.removesuffix(here): each for name, each in opened.items() if name.endswith(here)}
    return {**{name: each for name, each in opened.items() if not _OF_A_MACHINE.search(name)}, **own}


def forget(ledger: Facts, name: str) -> None:
    """Close every breaker of a destination that is no longer configured, on all machines, and forget how it failed.
    Idempotent. Raises LedgerError."""
    for key in ledger.recall_all(PREFIX + name):
        if destination_of(key.removeprefix(PREFIX)) == name:
            ledger.forget(key)
    for each in failures.recorded(ledger):
        if each.name == name:
            failures.clear(ledger, name, each.machine)


def destination_of(name: str) -> str:
    """The destination, or API, of a breaker that may be of one machine."""
    return _OF_A_MACHINE.sub("", name)


def machine_of(holder: str) -> str:
    """The machine of a worker, whose name is `name@machine`."""
    return holder.rpartition("@")[2]


def _on(name: str, machine: str) -> str:
    return f"{name} (on {machine})"


def _of_all_machines(name: str) -> str:
    return _on(name, "")[:-1]

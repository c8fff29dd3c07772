"""A refusal that only one machine sees is that machine's matter: its credentials, certificates, clock or disk.

What refuses one machine is left alone there. It is left alone everywhere only when it refuses a second machine as well
and answered none meanwhile; an answer anywhere ends that. So one machine with an old password cannot stop the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from archiver.core.destinations import holds
from archiver.core.destinations.holds import Hold
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerError

_ANSWERED = "answered:"
_AT_A_PLACE = re.compile(r" \(on [^()]*\)\Z")


def note_refusal(
    ledger: Facts, name: str, place: str, reason: str, now: datetime, duration: timedelta
) -> None:
    """Leave `name` alone at the machine `place` for `duration`; everywhere if another is refused too. Repeatable."""
    here = _at(name, place)
    holds.put(ledger, here, reason, now, duration)
    if ledger.recall(_ANSWERED + name) is not None:
        return
    others = holds.among(ledger.recall_all(holds.PREFIX + _at(name, "")[:-1]), now)
    if any(other != here for other in others):
        holds.put(ledger, name, reason, now, duration)


def respected(on_hold: Mapping[str, Hold], place: str) -> Mapping[str, Hold]:
    """What is to be left alone at `place`, by name, of the circuit breakers that are open."""
    here = _at("", place)
    own = {name.removesuffix(here): hold for name, hold in on_hold.items() if name.endswith(here)}
    return {**{name: hold for name, hold in on_hold.items() if not _AT_A_PLACE.search(name)}, **own}


def note_answer(ledger: Facts, on_hold: Mapping[str, Hold], name: str, duration: timedelta) -> None:
    """`name` took what we asked of it: for `duration` no refusal elsewhere is everybody's. Nothing is written while no
    machine is refused, or while the ledger is away."""
    if any(held == name or held.startswith(_at(name, "")[:-1]) for held in on_hold):
        with suppress(LedgerError):
            ledger.remember(_ANSWERED + name, {}, lifetime=duration)
            holds.lift(ledger, name)


def place_of(holder: str) -> str:
    """The machine of a worker, whose name is `name@machine`."""
    return holder.rpartition("@")[2]


def _at(name: str, place: str) -> str:
    return f"{name} (on {place})"

"""What the scrub promises, as a fact in the ledger: `status` and the alarms read it without asking a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from archiver.hms.models import parse_time
from archiver.ledger.base import Facts

FACT = "scrub"
"""Owned by the scrub, which replaces it at each run."""
OLD_FACTS = "scrub:"
"""Where the version before had got to at each destination."""
LATE = timedelta(days=3)
"""A daily run that has not ended for so long is an alarm."""
FUTURE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one destination when its part of a run ended, at `at`. `due_by`: when the promise breaks for the first copy,
    unless it is checked before; None: there are no copies. `round_days`: what a round takes at the budget. `error`: why
    nothing could be checked. `recorded`: whether the record of the checks was there, and could be written."""

    at: datetime
    copies: int = 0
    overdue: int = 0
    due_by: datetime | None = None
    oldest_check: datetime | None = None
    never_read: int = 0
    cold: int = 0
    coldest_read: datetime | None = None  # the oldest full read of a cold copy; None: one was never read
    damaged: int = 0
    unreadable: int = 0
    round_days: float = 0.0
    recorded: bool = True
    error: str | None = None


def expect(ledger: Facts, now: datetime) -> None:
    """Note that a scrub is to run from now on, if nothing is known of any: one that never runs is missed too."""
    if ledger.recall(FACT) is None:
        ledger.remember(FACT, {"since": now.isoformat(), "destinations": {}})


def record(ledger: Facts, standings: Mapping[str, Standing], every: timedelta, now: datetime) -> None:
    """A destination that could not be looked at keeps what was known of it, and the reason."""
    before = ledger.recall(FACT) or {}
    known = before.get("destinations")
    destinations: dict[str, object] = {}
    for name, standing in standings.items():
        last = known.get(name) if isinstance(known, Mapping) else None
        if standing.error is None:
            destinations[name] = _plain(standing)
        elif isinstance(last, Mapping):
            destinations[name] = {**last, "error": standing.error}
        else:
            destinations[name] = {"error": standing.error, "since": now.isoformat()}
    fact = {
        "at": now.isoformat(),
        "since": before.get("since") or now.isoformat(),
        "every_days": every / timedelta(days=1),
        "destinations": destinations,
    }
    ledger.remember(FACT, fact)
    for old in ledger.recall_all(OLD_FACTS):
        ledger.forget(old)


def was_recorded(ledger: Facts, name: str) -> bool:
    """Whether the last run left a record of its checks at the destination `name`. Raises LedgerError."""
    destinations = (ledger.recall(FACT) or {}).get("destinations")
    standing = destinations.get(name) if isinstance(destinations, Mapping) else None
    return isinstance(standing, Mapping) and _number(standing.get("copies")) > 0


def problems(fact: Mapping[str, object] | None, now: datetime) -> list[str]:
    """Why the promise is not kept, or cannot be known to be, a sentence each; none when it is kept. Without a fact
    nothing was ever promised (see `expect`)."""
    if fact is None:
        return []
    found = []
    ended = parse_time(fact.get("at"))
    last = ended or parse_time(fact.get("since"))
    if last is None or last > now + FUTURE:
        found.append("The last scrub is dated in the future: nobody knows when it ran.")
    elif now - last > LATE:
        found.append(f"No scrub has ended for {_days(now - last)}; it is due each day.")
    destinations = fact.get("destinations")
    every = _number(fact.get("every_days"))
    for name, each in (destinations if isinstance(destinations, Mapping) else {}).items():
        if isinstance(each, Mapping):
            found += [f"{name}: {problem}" for problem in _problems_at(each, every, now)]
    return found


def in_words(fact: Mapping[str, object] | None, now: datetime) -> list[str]:
    """What is known of each destination, a sentence each, for people."""
    destinations = (fact or {}).get("destinations")
    said = []
    for name, each in (destinations if isinstance(destinations, Mapping) else {}).items():
        if not isinstance(each, Mapping) or "at" not in each:
            continue
        oldest = parse_time(each.get("oldest_check"))
        ago = f"the oldest check is {_days(now - oldest)} old" if oldest else "none checked yet"
        words = f"{name}: {int(_number(each.get('copies'))):,} copies, {ago}"
        if cold := int(_number(each.get("cold"))):
            read = parse_time(each.get("coldest_read"))
            last = f"last read on {read:%Y-%m-%d} or later" if read else "not all were ever read"
            words += f", {cold:,} cold ({last})"
        said.append(f"{words}.")
    return said


def _problems_at(standing: Mapping[str, object], every: float, now: datetime) -> list[str]:
    found = []
    error, overdue, due_by = (
        standing.get("error"),
        _number(standing.get("overdue")),
        parse_time(standing.get("due_by")),
    )
    if error:
        since = parse_time(standing.get("at")) or parse_time(standing.get("since"))
        if since is None or now - since > LATE:
            for_long = _days(now - since) if since else "an unknown time"
            found.append(f"it could not be scrubbed for {for_long}: {error}")
    if overdue:
        copies = "1 copy was" if overdue == 1 else f"{overdue:,.0f} copies were"
        found.append(f"{copies} not checked within {every:g} days, or not read in time when new.")
    elif due_by is not None and due_by < now:
        found.append(f"a copy was not checked within {every:g} days, or not read in time when new.")
    if (takes := _number(standing.get("round_days"))) > every > 0:
        found.append(
            f"at the budget a round takes {takes:.0f} days, not {every:g}: raise ARCHIVER_SCRUB_BYTES or "
            "ARCHIVER_SCRUB_DAYS."
        )
    if standing.get("recorded") is False:
        found.append(
            "the record of the checks (`checks/`) was lost, or cannot be written: a new round begins."
        )
    return found


def _plain(standing: Standing) -> dict[str, object]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(standing).items()
        if value is not None
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _days(duration: timedelta) -> str:
    days = duration / timedelta(days=1)
    return f"{days:.0f} days" if days >= 2 else f"{duration / timedelta(hours=1):.0f} hours"

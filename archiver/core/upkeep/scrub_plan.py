"""Choose the copies that the scrub checks next, and those that are overdue. Pure.

Times are seconds since 1970 by the ledger's clock.

Each copy is checked within `every`, a new one in full before its source expires, and in full again within `full_every`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from archiver.core.deadlines import UNDATED_RETENTION, is_plausible
from archiver.core.records import keys
from archiver.core.records.check_records import LATEST, Check, Checks, Mark, tag_of
from storage_backends.base import ObjectInfo, ObjectKey

DAY = 86_400
AHEAD = timedelta(days=3)
"""A copy is checked this long before it is due: two daily runs may fail."""
GRACE = timedelta(days=2)
"""A new copy is read this long before its source expires, or within this time when that is too late."""
MANY = 100
"""Up to this many new copies whose source has expired are read at once; more are spread over `every`."""


@dataclass(frozen=True, slots=True)
class ScrubRules:
    """How often copies are checked, and what may be read for it."""

    every: timedelta = timedelta(days=30)  # each copy is checked
    full_every: timedelta = timedelta(days=365)  # each copy is read in full
    retention: timedelta = timedelta(days=15)  # of the source
    bytes_a_day: int | None = None  # budget for each destination; None: no limit
    urgent_within: timedelta = timedelta(days=3)  # an asset being copied with less time left goes first


class Urgency(IntEnum):
    NEW = 0  # never read in full, and its source can still replace it
    DUE = 1
    AGAIN = 2  # unreadable or damaged the last time: after all others


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """A copy to check; tasks sort by urgency. `at`: when it is due, or its source expires."""

    urgency: Urgency
    at: int
    key: ObjectKey
    in_full: bool

    def reads(self, check: Check) -> bool:
        """Return whether the check will read bytes, as far as is known."""
        return self.in_full or not check.marks & (Mark.SUMMED | Mark.COLD)


def take_stock(
    known: Checks, listed: Iterable[ObjectInfo], rules: ScrubRules, now: int, since: int | None
) -> Checks:
    """Return the checks of all manifests in `listed`, with new ones added. `since`: when the last list was made; None:
    there is no record yet. Empties `known`.

    Without a record, or when more than MANY copies whose source has ended appear at once (a bucket was moved), their
    first checks are spread over `every`: one run could not read them all."""
    seen = now if since is None else min(since, now)
    stock = Checks()
    old: list[ObjectKey] = []
    for info in listed:
        if not info.key.endswith(".json"):
            continue
        check, tag = known.pop(info.key), tag_of(info)
        if check is not None and check.tag == tag:
            stock.put(info.key, check)
        if stock.get(info.key) is not None:
            continue
        source_ends = source_ends_at(info.key, rules.retention, now)
        if source_ends <= now:
            old.append(info.key)
        read_by = max(seen + _s(GRACE), source_ends - _s(GRACE))
        stock.put(info.key, Check(tag, seen, read_by=min(read_by, LATEST)))
    if since is not None and len(old) <= MANY:
        return stock
    for key, read_by in zip(sorted(old), spread(len(old), rules.every, now), strict=True):
        check = stock.get(key)
        assert check is not None
        stock.put(key, replace(check, read_by=read_by))
    return stock


def spread(count: int, over: timedelta, now: int) -> list[int]:
    """Return the times by which each of `count` copies is to be read: evenly over `over`, less a reserve for days
    without a run, the first at once. Turns are tied to the calendar, so that each copy is read even if the record is
    lost every day."""
    days = max((over - 2 * AHEAD) // timedelta(days=1), 1)
    today = now // DAY
    turns = [(number * days // count - today) % days for number in range(count)]
    first = min(turns, default=0)
    return [now + _s(AHEAD) + (turn - first) * DAY for turn in turns]


def plan(stock: Checks, rules: ScrubRules, now: int) -> list[Task]:
    """Return what a run at `now` checks, most urgent first."""
    tasks = []
    for key, check in stock.items():
        due = due_at(check, rules)
        new = is_new(check)
        source_ends = source_ends_at(key, rules.retention, now) if new else 0
        if check.marks & (Mark.DAMAGED | Mark.UNREADABLE):
            if check.marks & Mark.DAMAGED or new or due - _s(AHEAD) <= now:
                tasks.append(Task(Urgency.AGAIN, check.checked_at, key, _in_full(check, rules, now)))
        elif new and source_ends > now:
            tasks.append(Task(Urgency.NEW, source_ends, key, in_full=True))
        elif due - _s(AHEAD) <= now:
            tasks.append(Task(Urgency.DUE, due, key, _in_full(check, rules, now)))
    tasks.sort()
    return tasks


def is_new(check: Check) -> bool:
    """Return whether it was never checked."""
    return check.read_at == 0 and not check.marks & (Mark.COLD | Mark.DAMAGED)


def due_at(check: Check, rules: ScrubRules) -> int:
    """By when it must be checked, in full or not. A damaged one is checked in each run that has the time."""
    if check.marks & Mark.DAMAGED:
        return check.checked_at + _s(rules.every)
    return min(check.checked_at + _s(rules.every), _read_by(check, rules))


def is_overdue(check: Check, rules: ScrubRules, now: int) -> bool:
    """Return whether it was not checked in time."""
    return due_at(check, rules) < now


def after(
    check: Check, rules: ScrubRules, now: int, *, size_bytes: int, marks: int, read: bool, in_full: bool
) -> Check:
    """Return the check after a verification at `now`. `read`: every byte was read and is right. `in_full`: every byte
    was to be read; a copy too cold for that is next read when it would be due again."""
    done = read or (in_full and bool(marks & Mark.COLD))
    read_by = min(now + _s(rules.full_every), LATEST) if done else check.read_by
    return Check(check.tag, now, now if read else check.read_at, read_by, size_bytes, marks)


def round_days(stock: Checks, rules: ScrubRules) -> float:
    """Days needed to check every copy once within the budget; at least `every`."""
    every = rules.every / timedelta(days=1)
    if rules.bytes_a_day is None:
        return every
    sizes = [check.size_bytes for check in stock.values() if not is_new(check)]
    usual = sum(sizes) / len(sizes) if sizes else 0.0
    need = 0.0  # bytes a day
    for check in stock.values():
        size = usual if is_new(check) else check.size_bytes
        if not check.marks & Mark.COLD:
            need += size / (rules.full_every / timedelta(days=1) if check.marks & Mark.SUMMED else every)
    return every * max(1.0, need / max(rules.bytes_a_day, 1))


def source_ends_at(key: ObjectKey, retention: timedelta, now: int) -> int:
    """Return when the source of an asset ends, by the day in its manifest's key, if that is plausible."""
    undated = now + _s(UNDATED_RETENTION)
    created_on = keys.created_on(key)
    try:
        if created_on is None or not is_plausible(created_on, datetime.fromtimestamp(now, UTC)):
            return undated
        return int((created_on + timedelta(days=1) + retention).timestamp())
    except OverflowError:
        return undated


def _in_full(check: Check, rules: ScrubRules, now: int) -> bool:
    return is_new(check) or bool(check.marks & Mark.DAMAGED) or _read_by(check, rules) - _s(AHEAD) <= now


def _read_by(check: Check, rules: ScrubRules) -> int:
    if check.read_at and not check.marks & Mark.COLD:
        return min(check.read_by, check.read_at + _s(rules.full_every))  # the setting may be shorter by now
    return check.read_by


def _s(duration: timedelta) -> int:
    return int(duration.total_seconds())

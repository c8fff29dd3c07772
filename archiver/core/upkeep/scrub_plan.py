"""Which copies are checked next, and whether the promise is kept: every copy within `every`, a new one in full before
its source expires, and in full again within `full_every`. Pure; times are seconds since 1970 by the ledger's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import IntEnum

from archiver.core.deadlines import UNDATED_PATIENCE
from archiver.core.records import keys
from archiver.core.records.check_records import LATEST, Check, Checks, Mark, tag_of
from storage_backends.base import ObjectInfo, ObjectKey

DAY = 86_400
AHEAD = timedelta(days=3)
"""So long before it is due a copy is checked: two daily runs may fail, and the promise still holds."""
GRACE = timedelta(days=2)
"""So long before its source expires a new copy should have been read, and so long a late one may wait for it."""


MANY = 100
"""So many new copies of which the source is gone are read as soon as they are seen."""


@dataclass(frozen=True, slots=True)
class ScrubRules:
    """`every`: each copy is checked within. `full_every`: and read in full within. `retention`: of the source.
    `bytes_a_day`: what may be read back of each destination; None: as much as is due. `urgent_within`: a copy under way
    with less time left goes before reading back."""

    every: timedelta = timedelta(days=30)
    full_every: timedelta = timedelta(days=365)
    retention: timedelta = timedelta(days=15)
    bytes_a_day: int | None = None
    urgent_within: timedelta = timedelta(days=3)


class Urgency(IntEnum):
    NEW = 0  # never read in full, and its source can still replace it
    DUE = 1
    AGAIN = 2  # could not be checked, or was damaged, the last time: not in the way of the others


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """A copy to be checked; tasks sort by urgency. `at`: when it is due, or its source expires."""

    urgency: Urgency
    at: int
    key: ObjectKey
    in_full: bool

    def reads(self, check: Check) -> bool:
        """Whether bytes must be read, as far as is known before."""
        return self.in_full or not check.marks & (Mark.SUMMED | Mark.COLD)


def take_stock(
    known: Checks, listed: Iterable[ObjectInfo], rules: ScrubRules, now: int, since: int | None
) -> Checks:
    """What is known of each manifest in `listed`, new ones included: they may be there since the last list, which was
    made at `since`; None: there is no record yet. Empties `known`.

    What is no longer at its source is spread over `every` when there is no record, or MANY such copies appear at once,
    as in a bucket that was moved: it would all be read in one run."""
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
    """By when each of `count` copies is to be read: evenly over the days of `over`, with time to spare for days without
    a run, and the first at once. The days are those of the calendar: were the record lost each day, each copy would
    still have its turn."""
    days = max((over - 2 * AHEAD) // timedelta(days=1), 1)
    today = now // DAY
    turns = [(number * days // count - today) % days for number in range(count)]
    first = min(turns, default=0)
    return [now + _s(AHEAD) + (turn - first) * DAY for turn in turns]


def plan(stock: Checks, rules: ScrubRules, now: int) -> list[Task]:
    """What a run at `now` is to check, most urgent first."""
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
    """Whether it was never looked at."""
    return check.read_at == 0 and not check.marks & (Mark.COLD | Mark.DAMAGED)


def due_at(check: Check, rules: ScrubRules) -> int:
    """By when it is to be checked, in whatever way. A damaged one is looked at in each run that has the time, and the
    account names it meanwhile."""
    if check.marks & Mark.DAMAGED:
        return check.checked_at + _s(rules.every)
    return min(check.checked_at + _s(rules.every), _read_by(check, rules))


def is_overdue(check: Check, rules: ScrubRules, now: int) -> bool:
    """Whether the promise is broken for it."""
    return due_at(check, rules) < now


def after(
    check: Check, rules: ScrubRules, now: int, *, size_bytes: int, marks: int, read: bool, in_full: bool
) -> Check:
    """What is known once a check at `now` had a result. `read`: every byte was read and is right. `in_full`: that was
    to be done; what is too cold for it is next tried when it would be due again."""
    done = read or (in_full and bool(marks & Mark.COLD))
    read_by = min(now + _s(rules.full_every), LATEST) if done else check.read_by
    return Check(check.tag, now, now if read else check.read_at, read_by, size_bytes, marks)


def round_days(stock: Checks, rules: ScrubRules) -> float:
    """How many days a round takes at the budget; `every` where the budget allows it."""
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
    """When the source of an asset ends, by the day in its manifest's key."""
    undated = now + _s(UNDATED_PATIENCE)
    created_on = keys.created_on(key)
    try:
        return int((created_on + timedelta(days=1) + retention).timestamp()) if created_on else undated
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

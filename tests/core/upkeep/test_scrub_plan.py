"""What a run checks, in which order, and what counts as overdue: pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver.core.records.check_records import Check, Checks, Mark, tag_of
from archiver.core.upkeep.scrub_plan import (
    AHEAD,
    DAY,
    ScrubRules,
    Urgency,
    after,
    due_at,
    is_new,
    is_overdue,
    plan,
    round_days,
    source_ends_at,
    spread,
    take_stock,
)
from storage_backends.base import ObjectInfo, ObjectKey, object_key

NOW = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp())
RULES = ScrubRules()
GONE = object_key("manifests/2025/06/01/gone.json")  # its source is over
LIVE = object_key("manifests/2026/02/25/live.json")
UNDATED = object_key("manifests/undated/someone.json")
UNIX_START = object_key("manifests/1970/01/01/someone.json")  # as the API said: a default of somebody's
READ = Check(7, checked_at=NOW, read_at=NOW, read_by=NOW + 365 * DAY, size_bytes=100, marks=Mark.SUMMED)


def stock(*known: tuple[ObjectKey, Check]) -> Checks:
    checks = Checks()
    for key, check in known:
        checks.put(key, check)
    return checks


def aged(days: float, check: Check = READ) -> Check:
    return replace(check, checked_at=check.checked_at - int(days * DAY))


@pytest.mark.parametrize(
    ("check", "due", "in_full", "overdue"),
    [
        (READ, False, False, False),
        (aged(26), False, False, False),
        (aged(27), True, False, False),
        (aged(30), True, False, False),
        (aged(30.1), True, False, True),
        (replace(READ, read_by=NOW + 4 * DAY), False, False, False),
        (replace(READ, read_by=NOW + 3 * DAY), True, True, False),
        (replace(READ, read_by=NOW - 1), True, True, True),
        # the setting was longer when it was read
        (replace(aged(5), read_at=NOW - 363 * DAY, read_by=NOW + 2000 * DAY), True, True, False),
        (replace(aged(5), read_at=NOW - 366 * DAY, read_by=NOW + 2000 * DAY), True, True, True),
        (replace(READ, marks=Mark.DAMAGED), True, True, False),
        (replace(aged(31), marks=Mark.DAMAGED), True, True, True),
        (replace(READ, marks=Mark.UNREADABLE), False, False, False),
        (replace(aged(28), marks=Mark.UNREADABLE), True, False, False),
        (replace(aged(31), marks=Mark.UNREADABLE), True, False, True),
        (replace(aged(28), marks=Mark.COLD, read_at=0), True, False, False),
        (replace(aged(28), marks=Mark.COLD, read_at=NOW - 900 * DAY), True, False, False),
        (replace(aged(28), marks=Mark.COLD, read_by=NOW), True, True, False),
    ],
)
def test_when_a_copy_is_due_and_how(check: Check, due: bool, in_full: bool, overdue: bool) -> None:
    tasks = plan(stock((GONE, check)), RULES, NOW)

    assert [task.in_full for task in tasks] == ([in_full] if due else [])
    assert is_overdue(check, RULES, NOW) is overdue


def test_the_order_of_a_run() -> None:
    new = Check(7, NOW, read_by=NOW + 5 * DAY)
    sooner = object_key("manifests/2026/02/20/sooner.json")
    names = [object_key(f"manifests/2025/06/02/{name}.json") for name in "abcd"]
    tasks = plan(
        stock(
            (names[0], aged(28.5)),
            (names[1], aged(35)),
            (names[2], replace(aged(99), marks=Mark.UNREADABLE)),
            (names[3], replace(READ, marks=Mark.DAMAGED)),
            (LIVE, new),
            (sooner, new),
            (GONE, Check(7, NOW, read_by=NOW + 2 * DAY)),
        ),
        RULES,
        NOW,
    )

    order = [(task.urgency, task.key) for task in tasks]
    assert order[:2] == [(Urgency.NEW, sooner), (Urgency.NEW, LIVE)]
    assert order[2:5] == [(Urgency.DUE, names[1]), (Urgency.DUE, names[0]), (Urgency.DUE, GONE)]
    assert order[5:] == [(Urgency.AGAIN, names[2]), (Urgency.AGAIN, names[3])]


def listed(key: ObjectKey, etag: str = "one") -> ObjectInfo:
    return ObjectInfo(key, 100, etag=etag)


def test_a_check_is_kept_while_its_manifest_is_the_same() -> None:
    known = replace(READ, tag=tag_of(listed(GONE)))

    same = take_stock(stock((GONE, known)), [listed(GONE)], RULES, NOW, NOW - DAY)
    replaced = take_stock(stock((GONE, known)), [listed(GONE, "two")], RULES, NOW, NOW - DAY).get(GONE)

    assert dict(same.items()) == {GONE: known}
    assert replaced is not None
    assert is_new(replaced)


def test_the_time_of_a_new_copy_starts_at_the_last_list() -> None:
    check = take_stock(Checks(), [listed(GONE)], RULES, NOW, NOW - 9 * DAY).get(GONE)

    assert check is not None
    assert check.checked_at == NOW - 9 * DAY
    assert due_at(check, RULES) < NOW, "it may have been there unread for that long"


@pytest.mark.parametrize(("count", "at_once"), [(100, True), (101, False)])
def test_many_that_appear_at_once_are_spread(count: int, at_once: bool) -> None:
    moved = [listed(object_key(f"manifests/2025/06/01/{number}.json")) for number in range(count)]

    tasks = plan(take_stock(Checks(), moved, RULES, NOW, NOW - DAY), RULES, NOW)

    assert (len(tasks) == count) is at_once
    assert len(tasks) >= count // 24


def test_a_list_of_the_future_counts_as_now() -> None:
    check = take_stock(Checks(), [listed(GONE)], RULES, NOW, NOW + 9 * DAY).get(GONE)

    assert check is not None
    assert check.checked_at == NOW


def test_a_manifest_listed_twice_is_one_copy_and_other_objects_are_none() -> None:
    known = replace(READ, tag=tag_of(listed(GONE)))
    notes = object_key("manifests/notes.txt")

    found = take_stock(stock((GONE, known)), [listed(GONE), listed(GONE), listed(notes)], RULES, NOW, NOW)

    assert dict(found.items()) == {GONE: known}


def test_the_check_of_a_deleted_manifest_is_forgotten() -> None:
    assert len(take_stock(stock((GONE, READ)), [], RULES, NOW, NOW)) == 0


@pytest.mark.parametrize("count", [0, 1, 2, 23, 24, 25, 1000])
def test_a_first_round_is_spread_evenly_and_begins_now(count: int) -> None:
    days = [(at - NOW - int(AHEAD.total_seconds())) // DAY for at in spread(count, RULES.every, NOW)]

    assert len(days) == count
    assert min(days, default=0) == 0
    assert max(days, default=0) <= 24
    assert max((days.count(day) for day in days), default=0) <= count // 24 + 1


def test_every_copy_has_its_turn_even_if_the_record_is_lost_each_day() -> None:
    turns = set()
    for today in range(24):
        now = NOW + today * DAY
        first = spread(100, RULES.every, now)
        turns |= {number for number, at in enumerate(first) if at - int(AHEAD.total_seconds()) <= now}

    assert turns == set(range(100))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (LIVE, datetime(2026, 3, 13, tzinfo=UTC)),
        (GONE, datetime(2025, 6, 17, tzinfo=UTC)),
        (object_key("manifests/9999/12/31/end-of-time.json"), None),
        (object_key("manifests/2027/03/01/far-ahead.json"), None),
        (UNIX_START, None),
        (object_key("manifests/0001/01/01/x.json"), None),
        (object_key("manifests/2026/99/01/x.json"), None),
        (object_key("manifests/a/b/c/x.json"), None),
        (UNDATED, None),
    ],
)
def test_when_the_source_of_a_copy_ends(key: ObjectKey, expected: datetime | None) -> None:
    found = source_ends_at(key, timedelta(days=15), NOW)

    assert found == (int(expected.timestamp()) if expected else NOW + 15 * DAY)


@pytest.mark.parametrize("key", [UNDATED, UNIX_START])
@pytest.mark.parametrize("since", [None, NOW - DAY])
def test_an_undated_copy_is_read_at_once_though_others_are_spread(key: ObjectKey, since: int | None) -> None:
    old = [object_key(f"manifests/2025/06/01/{n:03}.json") for n in range(200)]
    known = take_stock(Checks(), [listed(each) for each in (*old, key)], RULES, NOW, since)

    first = plan(known, RULES, NOW)[0]

    assert (first.key, first.urgency, first.in_full) == (key, Urgency.NEW, True)


def test_a_cold_copy_is_read_again_only_when_that_would_be_due_again() -> None:
    new = Check(7, NOW, read_by=NOW)

    cold = after(new, RULES, NOW, size_bytes=9, marks=Mark.COLD, read=False, in_full=True)
    later = after(cold, RULES, NOW + 27 * DAY, size_bytes=9, marks=Mark.COLD, read=False, in_full=False)

    assert (cold.read_at, cold.read_by) == (0, NOW + 365 * DAY)
    assert (later.checked_at, later.read_by) == (NOW + 27 * DAY, NOW + 365 * DAY)
    assert not is_new(cold)


@pytest.mark.parametrize(
    ("budget", "marks", "expected"),
    [
        (None, 0, 30),
        (10_000, 0, 30),
        (100, 0, 30),  # 3,000 bytes in 30 days
        (50, 0, 60),
        (50, Mark.SUMMED, 30),  # read once a year
        (4, Mark.SUMMED, 61.6),
        (1, Mark.COLD, 30),
    ],
)
def test_how_many_days_a_round_takes(budget: int | None, marks: int, expected: float) -> None:
    copies = [(object_key(f"manifests/undated/{n}.json"), replace(READ, marks=marks)) for n in range(30)]

    takes = round_days(stock(*copies), replace(RULES, bytes_a_day=budget))

    assert takes == pytest.approx(expected, rel=0.01)

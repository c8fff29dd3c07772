"""The scrub over months and years: every copy is checked in time, or status reports it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from archiver.core.records.keys import CHECKS
from archiver.core.upkeep import reports
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock

DAY = timedelta(days=1)
RULES = ScrubRules(retention=RETENTION)
MOVIE = b"m" * 100


class WatchedStore(MemoryBackend):
    """Notes when each recording was last read, and last asked about. `sums`: whether it keeps checksums."""

    def __init__(self, name: str, clock: Clock, *, sums: bool) -> None:
        super().__init__(name)
        self.clock = clock
        self.sums = sums
        self.away = False
        self.read_at: dict[str, datetime] = {}
        self.looked_at: dict[str, datetime] = {}
        self.reads: list[str] = []

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self._answer()
        info = super().stat(key)
        if key.endswith(".mp4") and self.sums:
            self.looked_at[key.split("/")[1]] = self.clock()
        return self._told(info) if info else None

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        self._answer()
        if key.endswith(".mp4") and start == 0:
            self.read_at[key.split("/")[1]] = self.looked_at[key.split("/")[1]] = self.clock()
            self.reads.append(key.split("/")[1])
        return super().read(key, start, length_bytes, if_match=if_match)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._answer()
        yield from map(self._told, super().list(prefix))

    def _told(self, info: ObjectInfo) -> ObjectInfo:
        return info if self.sums else replace(info, crc32c=None)

    def _answer(self) -> None:
        if self.away:
            raise TransientStorageError("503: come back later")


class Harness:
    def __init__(
        self, *, sums: bool = True, rules: ScrubRules = RULES, names: tuple[str, ...] = ("one",)
    ) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [WatchedStore(name, self.clock, sums=sums) for name in names]
        self.store = self.stores[0]
        self.rules = rules
        self.scrubber = Scrubber(ledger=self.ledger, destinations=self.stores, clock=self.clock, rules=rules)
        self.born: dict[str, datetime] = {}
        self.created: dict[str, datetime] = {}
        self.spoiled: dict[str, datetime] = {}
        reports.expect_scrub(self.ledger, NOW)

    def add(self, name: str, *, days_old: float = 0) -> None:
        self.created[name] = self.clock() - timedelta(days=days_old)
        self.born[name] = self.clock()
        self.archive(name)

    def archive(self, name: str) -> None:
        one = asset(id=name, created_at=self.created[name].isoformat())
        archive_at(self.stores, one, {"movie.mp4": MOVIE})
        enter(self.ledger, one)

    def spoil(self, name: str) -> None:
        put(self.store, f"recordings/{name}/movie.mp4", b"x" * 100)
        self.spoiled.setdefault(name, self.clock())

    def archive_what_is_due(self) -> None:
        """As a worker does, of what was reopened."""
        for row in list(self.ledger.rows([AssetState.DISCOVERED])):
            self.archive(row.asset_id)
            self.spoiled.pop(row.asset_id, None)

    def problems(self) -> list[str]:
        return reports.scrub_problems(self.ledger.recall(reports.SCRUB_FACT), self.clock())

    def age(self, name: str) -> timedelta:
        """Since the recording was last looked at, or archived."""
        return self.clock() - self.store.looked_at.get(name, self.born[name])

    def source_over_by(self, name: str) -> timedelta:
        return self.clock() - (self.created[name] + RETENTION)

    def scrub(self) -> int:
        result = self.scrubber.scrub()
        assert result is not None
        return result.manifests


@pytest.mark.parametrize("sums", [True, False], ids=["checksums", "no checksums"])
def test_with_a_few_new_ones_each_day_everything_still_goes_round(sums: bool) -> None:
    harness = Harness(sums=sums)
    for number in range(30):
        harness.add(f"old{number}", days_old=100)
    for day in range(100):
        harness.clock.advance(DAY)
        harness.add(f"new{day}")
        if day % 10 == 0:
            harness.add(f"late{day}", days_old=14.5)
            harness.add(f"restored{day}", days_old=200)
        harness.scrub()
        assert harness.problems() == []
        assert [name for name in harness.born if harness.age(name) > RULES.every] == []


def test_copies_older_than_the_first_scrub_are_read_over_a_round_and_not_at_once() -> None:
    harness = Harness()
    for number in range(300):
        harness.add(f"old{number}", days_old=100)
    daily = []
    for _ in range(30):
        daily.append(harness.scrub())
        harness.clock.advance(DAY)

    assert max(daily) <= 2 * 300 / 24
    assert len(harness.store.read_at) == 300


def test_a_new_copy_is_read_in_full_once_the_next_day_and_then_known_by_its_checksum() -> None:
    harness = Harness()
    harness.add("a")
    for _ in range(300):
        harness.clock.advance(DAY)
        harness.scrub()

    assert harness.store.reads == ["a"]
    assert harness.age("a") <= RULES.every


def test_each_copy_is_read_in_full_again_within_a_year() -> None:
    harness = Harness()
    harness.add("a")
    for _ in range(2 * 365):
        harness.clock.advance(DAY)
        harness.scrub()
        assert harness.clock() - harness.store.read_at["a"] <= RULES.full_every

    assert harness.store.reads == ["a"] * 3


def test_without_checksums_each_check_reads_everything() -> None:
    harness = Harness(sums=False)
    harness.add("a")
    for _ in range(3 * 27):
        harness.clock.advance(DAY)
        harness.scrub()

    assert harness.store.reads == ["a"] * 3


def test_copies_whose_source_expires_soonest_are_read_first() -> None:
    harness = Harness(rules=replace(RULES, bytes_a_day=100))
    for number in range(5):
        harness.add(f"old{number}", days_old=100)
    for days_old in (1, 9, 5):
        harness.add(f"{days_old}-days", days_old=days_old)

    for _ in range(3):
        harness.clock.advance(DAY)
        harness.scrub()

    assert harness.store.reads == ["9-days", "5-days", "1-days"]


def test_a_budget_holds_over_days_and_its_round_is_reported() -> None:
    harness = Harness(sums=False, rules=replace(RULES, bytes_a_day=150))
    for number in range(90):
        harness.add(f"old{number}", days_old=100)
    for _ in range(60):
        harness.clock.advance(DAY)
        harness.scrub()

    assert len(harness.store.reads) == 90
    (slipping,) = [problem for problem in harness.problems() if "at the budget" in problem]
    assert "a round takes 60 days, not 30" in slipping
    assert any("were not checked within 30 days" in problem for problem in harness.problems())


def test_the_same_budget_suffices_for_a_longer_interval() -> None:
    harness = Harness(sums=False, rules=replace(RULES, bytes_a_day=150, every=timedelta(days=70)))
    for number in range(90):
        harness.add(f"old{number}", days_old=100)
    for _ in range(140):
        harness.clock.advance(DAY)
        harness.scrub()
        assert harness.problems() == []


def test_a_copy_larger_than_the_budget_is_paid_for_on_the_days_after() -> None:
    harness = Harness(sums=False, rules=replace(RULES, bytes_a_day=25))
    for number in range(3):
        harness.add(f"new{number}")
    spent = []
    for _ in range(12):
        harness.clock.advance(DAY)
        harness.scrub()
        spent.append(len(harness.store.reads))

    assert spent == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_checks_that_read_no_bytes_continue_when_the_budget_is_used_up() -> None:
    harness = Harness()
    for number in range(10):
        harness.add(f"a{number}")
    harness.clock.advance(DAY)
    harness.scrub()
    poor = Scrubber(
        ledger=harness.ledger,
        destinations=harness.stores,
        clock=harness.clock,
        rules=replace(RULES, bytes_a_day=1),
    )
    harness.clock.advance(timedelta(days=28))
    poor.scrub()  # what each costs is known now
    harness.add("new")
    harness.clock.advance(timedelta(days=28))

    result = poor.scrub()

    assert result is not None
    assert (result.manifests, result.read_bytes) == (11, 100)


def test_a_scrub_that_never_runs_is_an_alarm() -> None:
    harness = Harness()
    harness.clock.advance(timedelta(days=2))
    assert harness.problems() == []

    harness.clock.advance(timedelta(days=2))

    (problem,) = harness.problems()
    assert "No scrub has ended for 4 days" in problem


def test_a_scrub_that_stops_is_a_problem_before_a_copy_is_overdue() -> None:
    harness = Harness()
    harness.add("a")
    harness.scrub()
    harness.clock.advance(timedelta(days=4))
    assert "No scrub has ended for 4 days; it is due each day." in harness.problems()

    harness.clock.advance(timedelta(days=27))
    assert any("a copy was not checked within 30 days" in problem for problem in harness.problems())


def test_a_fact_from_the_future_is_an_alarm() -> None:
    harness = Harness()
    harness.clock.advance(timedelta(days=365))
    harness.scrub()
    harness.clock.advance(timedelta(days=-365))

    assert "dated in the future" in harness.problems()[0]


def test_without_check_records_turns_follow_the_calendar_and_status_reports_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness()
    for number in range(60):
        harness.add(f"old{number}", days_old=100)
    put_object = harness.store.put

    def refusing(spec: object, *data: object) -> object:
        if str(getattr(spec, "key", "")).startswith(CHECKS):
            raise TransientStorageError("put: 503")
        return put_object(spec, *data)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.store, "put", refusing)
    for _ in range(31):
        harness.clock.advance(DAY)
        harness.scrub()
        assert any("cannot be written" in problem for problem in harness.problems())

    assert len(harness.store.read_at) == 60


def test_an_unavailable_destination_stops_no_other_and_is_reported_after_some_days() -> None:
    harness = Harness(names=("one", "two"))
    harness.add("a")
    harness.clock.advance(DAY)
    harness.scrub()
    harness.store.away = True
    harness.add("b")
    for _ in range(3):
        harness.clock.advance(DAY)
        harness.scrub()
    assert "b" in harness.stores[1].read_at
    assert harness.problems() == []

    harness.clock.advance(DAY)
    harness.scrub()

    (problem,) = harness.problems()
    assert problem.startswith("memory://one: it could not be scrubbed for 4 days: 503")

    harness.store.away = False
    harness.scrub()
    assert harness.problems() == []


def test_a_destination_that_becomes_unavailable_keeps_the_checks_so_far() -> None:
    harness = Harness()
    for number in range(20):
        harness.add(f"a{number}")
    harness.clock.advance(DAY)
    read, limit = harness.store.read, 10

    def going(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        harness.store.away = len(harness.store.reads) >= limit
        return read(key, start, length_bytes)

    harness.store.read = going  # type: ignore[method-assign,assignment]
    result = harness.scrubber.scrub()
    assert result is not None
    assert result.unreadable == 5, "then it was asked whether it answers at all"
    harness.store.read = read  # type: ignore[method-assign]
    harness.store.away = False
    harness.clock.advance(DAY)

    harness.scrub()

    assert len(set(harness.store.reads)) == 20


def test_copies_missing_from_a_lost_record_are_checked_again_within_a_round() -> None:
    harness = Harness()
    for number in range(60):
        harness.add(f"old{number}", days_old=100)
    for _ in range(40):
        harness.clock.advance(DAY)
        harness.scrub()
    for info in list(harness.store.list(CHECKS)):
        harness.store.delete(info.key)
    lost_at = harness.clock()
    harness.clock.advance(DAY)
    harness.scrub()
    (problem,) = harness.problems()
    assert "the record of the checks (`checks/`) was lost" in problem

    for _ in range(29):
        harness.clock.advance(DAY)
        harness.scrub()

    assert all(at > lost_at for at in harness.store.looked_at.values())
    assert harness.problems() == []


@pytest.mark.parametrize("sums", [True, False], ids=["checksums", "no checksums"])
@pytest.mark.parametrize("seed", range(4))
def test_in_a_rough_year_every_copy_is_checked_in_time_or_the_alarm_is_on(seed: int, sums: bool) -> None:
    draw = random.Random(seed)
    budget = draw.choice([None, None, 300, 2000])
    harness = Harness(sums=sums, rules=replace(RULES, bytes_a_day=budget))
    for number in range(draw.randrange(40)):
        harness.add(f"old{number}", days_old=draw.uniform(20, 400))
    pause = 0
    for day in range(365):
        harness.clock.advance(DAY * draw.uniform(0.5, 1.5))
        harness.archive_what_is_due()
        for number in range(draw.choice([0, 0, 0, 0, 1, 3])):
            harness.add(f"{day}-{number}", days_old=draw.choice([0, 0, 5, 14.9, 300]))
        if harness.born and draw.random() < 0.05:
            harness.spoil(draw.choice(list(harness.born)))
        if draw.random() < 0.02:
            pause = draw.randrange(1, 45)
        harness.store.away = draw.random() < 0.05
        pause -= 1
        if pause < 0:
            harness.scrub()
        harness.store.away = False
        _check(harness, seed, day)
    assert harness.ledger.counts().balanced


def _check(harness: Harness, seed: int, day: int) -> None:
    if harness.problems():
        return
    where = f"seed {seed}, day {day}"
    for name in harness.born:
        state = harness.ledger.get(name)
        assert state is not None
        if state.state is AssetState.DISCOVERED:
            continue
        assert harness.age(name) <= RULES.every, f"{where}: {name}"
        alive_when_archived = harness.born[name] < harness.created[name] + RETENTION - timedelta(days=4)
        if alive_when_archived and harness.source_over_by(name) > DAY:
            assert name in harness.store.read_at, f"{where}: {name} was never read in full"
        if name in harness.spoiled and harness.clock() - harness.spoiled[name] > RULES.every:
            assert state.state is AssetState.DAMAGED, f"{where}: {name} is spoiled"

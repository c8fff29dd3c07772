"""A destination's clock is wrong: a person is told before a deadline comes, since nothing is called lost meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from archiver.core.health import assess
from archiver.core.health_rules import Finding
from archiver.core.upkeep import store_clocks
from archiver.core.upkeep.status import summarize
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW
from tests.core.fakes import Clock

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Store(MemoryBackend):
    """Dates what it holds by its own clock. `away`: it does not answer. `keeps`: nothing can be deleted."""

    def __init__(self, name: str, clock: Clock, ahead: timedelta = timedelta(0)) -> None:
        super().__init__(name)
        self.ahead, self.away, self.keeps, self.tells = ahead, False, False, True
        self._now = clock

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.away:
            raise TransientStorageError("no route to host")
        return super().put(spec, data, crc32c)

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        info = super().stat(key)
        at = self._now() + self.ahead if self.tells else None
        return ObjectInfo(info.key, info.size_bytes, info.crc32c, updated_at=at) if info else None

    def delete(self, key: ObjectKey) -> None:
        if self.away:
            raise TransientStorageError("no route to host")
        if self.keeps:
            raise AccessDenied("403")
        super().delete(key)


class Harness:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)

    def measure(self, *stores: Store) -> None:
        store_clocks.measure(self.ledger, stores, self.clock)

    def swept(self, ledger_ahead: timedelta | None) -> None:
        fact: dict[str, Any] = {"started_at": self.clock().isoformat(), "ended_at": self.clock().isoformat()}
        if ledger_ahead is not None:
            fact["clock_ahead_seconds"] = ledger_ahead.total_seconds()
        self.ledger.remember(SWEEP_FACT, fact)

    def findings(self) -> list[Finding]:
        summary = summarize(self.ledger, self.clock(), at_risk_within=7 * DAY, sweep_every=HOUR)
        return [each for each in assess(summary).problems if each.id == "destination_clock_is_wrong"]


@pytest.fixture
def harness() -> Harness:
    return Harness()


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (-6 * MINUTE, "The clock of memory://two is 6 min behind the ledger's"),
        (6 * MINUTE, "The clock of memory://two is 6 min ahead of the ledger's"),
        (3 * DAY, "The clock of memory://two is 72 h ahead of the ledger's"),
        (4 * MINUTE, None),
        (-4 * MINUTE, None),
    ],
)
@pytest.mark.parametrize("ledger_ahead", [None, timedelta(0), 20 * timedelta(seconds=1)])
def test_a_clock_that_is_more_than_5_minutes_off_is_a_problem_of_its_own(
    harness: Harness, ahead: timedelta, text: str | None, ledger_ahead: timedelta | None
) -> None:
    harness.swept(ledger_ahead)

    harness.measure(Store("one", harness.clock), Store("two", harness.clock, ahead))

    found = harness.findings()
    assert [(each.cause, each.text.split(": ")[0]) for each in found] == (
        [("memory://two", text)] if text else []
    )


def test_it_is_the_ledger_that_is_wrong_when_the_destination_agrees_with_100ms(harness: Harness) -> None:
    harness.swept(HOUR)

    harness.measure(Store("right", harness.clock, -HOUR), Store("as the ledger", harness.clock, -2 * HOUR))

    assert [each.cause for each in harness.findings()] == ["memory://as the ledger"]


def test_a_destination_that_cannot_be_asked_keeps_what_was_measured_last(harness: Harness) -> None:
    store = Store("one", harness.clock, HOUR)
    harness.measure(store)
    store.ahead, store.away = timedelta(0), True

    harness.measure(store)
    assert len(harness.findings()) == 1, "unknown is never well"

    store.away = False
    harness.measure(store)
    assert harness.findings() == [], "an hour in which it was away is no day without a probe"


def test_where_nothing_can_be_deleted_one_object_a_day_tells_the_time(harness: Harness) -> None:
    store = Store("one", harness.clock, HOUR)
    store.keeps = True

    for _ in range(3):
        harness.measure(store)
        harness.clock.advance(HOUR)

    assert len(store.store.objects) == 1
    assert len(harness.findings()) == 1


def test_a_destination_that_was_removed_or_tells_no_time_is_no_problem(harness: Harness) -> None:
    silent = Store("silent", harness.clock)
    silent.tells = False
    harness.measure(Store("removed", harness.clock, HOUR), silent)

    harness.measure(silent)

    assert harness.findings() == []


@pytest.mark.parametrize("fact", [{}, {"seconds_ahead": None}, {"seconds_ahead": {"one": "x", "two": None}}])
def test_what_another_version_recorded_is_left_out(fact: dict[str, object]) -> None:
    assert list(store_clocks.findings(fact, {"clock_ahead_seconds": "?"})) == []


def test_slow_answers_are_no_skew(harness: Harness) -> None:
    """The request takes 16 minutes, and the object is dated by when it was asked for."""

    class Slow(Store):
        def stat(self, key: ObjectKey) -> ObjectInfo | None:
            info = super().stat(key)
            harness.clock.advance(16 * MINUTE)
            return info

    harness.measure(Slow("slow", harness.clock))

    assert harness.findings() == []


def test_the_time_of_the_comparison_is_recorded(harness: Harness) -> None:
    harness.measure(Store("one", harness.clock))

    fact = harness.ledger.recall(store_clocks.FACT) or {}

    assert datetime.fromisoformat(str(fact["started_at"])) == NOW

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from archiver.ledger import clock
from archiver.ledger.clock import MEASURE_EVERY, LedgerClock, since_boot
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Harness:
    """The ledger's clock, and seconds of this machine's monotonic one, which may go at another rate."""

    def __init__(self) -> None:
        self.now = NOON
        self.elapsed = 1000.0
        self.away = False
        self.asked = 0
        ledger = MemoryLedger(self._time)
        self.clock = LedgerClock(ledger, lambda: self.elapsed)

    def _time(self) -> datetime:
        self.asked += 1
        if self.away:
            raise LedgerUnavailable("away")
        return self.now

    def advance(self, ledger: timedelta, here: timedelta) -> None:
        self.now += ledger
        self.elapsed += here.total_seconds()


def test_it_is_the_ledger_s_time_carried_on_between_two_questions() -> None:
    harness = Harness()

    assert harness.clock() == NOON
    harness.advance(10 * SECOND, 10 * SECOND)
    assert harness.clock() == NOON + 10 * SECOND
    assert harness.asked == 1


def test_it_is_asked_for_again_so_that_a_step_of_the_ledger_s_clock_is_followed() -> None:
    harness = Harness()
    harness.clock()

    harness.advance(timedelta(hours=5), MEASURE_EVERY)

    assert harness.clock() == NOON + timedelta(hours=5)


def test_while_the_ledger_is_away_the_last_answer_is_carried_on_and_it_is_asked_seldom() -> None:
    harness = Harness()
    harness.clock()
    harness.away = True

    for _ in range(5):
        harness.advance(MEASURE_EVERY / 2, MEASURE_EVERY / 2)
        assert harness.clock() == harness.now
    assert harness.asked == 3

    harness.away = False
    harness.advance(MEASURE_EVERY, MEASURE_EVERY)
    assert harness.clock() == harness.now


def test_without_any_answer_there_is_no_time() -> None:
    harness = Harness()
    harness.away = True
    with pytest.raises(LedgerUnavailable):
        harness.clock()

    harness.away = False
    assert harness.clock() == NOON


def test_it_advances_while_the_machine_sleeps_if_the_system_has_such_a_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "clock_gettime", {7: 5000.0}.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)

    monkeypatch.setattr(clock, "_BOOT", 7)
    assert since_boot() == 5000
    monkeypatch.setattr(clock, "_BOOT", None)
    assert since_boot() == 1000

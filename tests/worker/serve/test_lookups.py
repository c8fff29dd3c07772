"""Announced sessions enter the ledger at once, and again and again until they do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from archiver.core.judging import Scope
from archiver.core.upkeep.announced import Announcements
from archiver.core.upkeep.not_listed import Announced
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.workspaces import adopt_ledger
from archiver.hms.errors import HmsUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock, FakeApi
from tests.walkthrough.user import until
from worker.serve import lookups
from worker.serve.lookups import Lookups

S1 = Announced("s1")


class Ticks:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def ledger() -> MemoryLedger:
    """One that a sweep has filled."""
    ledger = MemoryLedger(Clock(NOW))
    ledger.remember(SWEEP_FACT, {"started_at": NOW.isoformat()})
    return ledger


def announcements(api: FakeApi, ledger: MemoryLedger) -> Announcements:
    return Announcements(api=api, ledger=ledger, scope=Scope(timedelta(days=15)), clock=Clock(NOW))


def test_the_assets_of_a_session_are_entered(ledger: MemoryLedger) -> None:
    api = FakeApi([asset(id="a1", session_id="s1"), asset(id="a2", session_id="s2")])

    assert announcements(api, ledger).enter(S1) == 1
    assert [row.asset_id for row in ledger.rows([AssetState.DISCOVERED])] == ["a1"]
    assert announcements(api, ledger).enter(S1) == 0


def test_nothing_is_entered_before_a_sweep_has_or_from_another_workspace(ledger: MemoryLedger) -> None:
    api = FakeApi([asset(id="a1", session_id="s1")])
    never_swept = MemoryLedger(Clock(NOW))
    adopt_ledger(ledger, "theirs")
    ours = Announcements(
        api=api, ledger=ledger, scope=Scope(timedelta(days=15)), clock=Clock(NOW), workspace="ours"
    )

    assert announcements(api, never_swept).enter(S1) == 0
    assert ours.enter(S1) == 0
    assert (never_swept.counts().seen, ledger.counts().seen) == (0, 0)


def test_an_announced_asset_is_entered(ledger: MemoryLedger) -> None:
    api = FakeApi([asset(id="a1")])

    assert announcements(api, ledger).enter(Announced(None, asset_ids=("a1",))) == 1
    assert ledger.get("a1") is not None


def test_a_look_that_brings_nothing_new_or_fails_is_repeated_later_and_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookups, "PAUSES_SECONDS", (10.0, 60.0))
    ticks, looked = Ticks(), []

    def enter(announced: Announced) -> int:
        looked.append(ticks.seconds)
        if len(looked) == 2:
            raise HmsUnavailable("away")
        if len(looked) == 3:
            raise RuntimeError("a defect")
        return 0

    made = Lookups(enter, steady=ticks)
    assert made.add(S1)
    assert made.add(S1), "it waits already"
    for _ in range(100):
        if (due := made.take()) is not None:
            made.look(due)
        ticks.seconds += 1

    assert looked == [0, 10, 70]


def test_what_brought_something_new_is_not_looked_up_again() -> None:
    ticks = Ticks()
    made = Lookups(lambda _: 1, steady=ticks)
    made.add(S1)
    assert made.take() == S1
    made.look(S1)
    ticks.seconds += 1000

    assert made.take() is None


def test_no_more_wait_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MOST_WAITING", 2)
    made = Lookups(lambda _: 0)

    assert [made.add(Announced(f"s{number}")) for number in range(4)] == [True, True, False, False]


@pytest.fixture
def running() -> Iterator[tuple[Lookups, list[Announced]]]:
    looked: list[Announced] = []

    def enter(announced: Announced) -> int:
        looked.append(announced)
        return 1

    made = Lookups(enter)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made, looked
    made.close()
    thread.join()


def test_a_thread_looks_up_what_is_added(running: tuple[Lookups, list[Announced]]) -> None:
    made, looked = running
    for number in range(3):
        made.add(Announced(f"s{number}"))

    until(lambda: len(looked) == 3, seconds=20, what="three looks")

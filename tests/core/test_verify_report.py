from __future__ import annotations

from datetime import timedelta

from archiver.core.upkeep.verify_report import LIFETIME, MOST, note, still_bad
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory import MemoryLedger
from tests.core.archived import enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock


class World:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        for name in ("a", "b"):
            enter(self.ledger, asset(id=name))
        self.clock.advance(timedelta(minutes=1))

    def bad(self) -> list[str]:
        return list(still_bad(self.ledger))


def test_what_a_run_finds_damaged_is_told_until_a_run_finds_it_whole() -> None:
    world = World()
    assert world.bad() == []

    note(world.ledger, bad={"a"}, whole={"b"}, everything=True)
    assert world.bad() == ["a"]
    note(world.ledger, bad={"b"}, whole=(), everything=False)
    assert world.bad() == ["a", "b"]
    note(world.ledger, bad=(), whole={"a"}, everything=False)
    assert world.bad() == ["b"]
    note(world.ledger, bad=(), whole={"a", "b"}, everything=True)
    assert world.bad() == []


def test_what_was_recorded_of_the_asset_since_counts_more() -> None:
    world = World()
    note(world.ledger, bad={"a", "b"}, whole=(), everything=True)
    world.clock.advance(timedelta(minutes=1))

    world.ledger.reopen("a")

    assert world.bad() == ["b"]


def test_status_is_not_well_while_something_is_damaged() -> None:
    world = World()
    watcher = Watcher(
        ledger=world.ledger,
        clock=world.clock,
        at_risk_within=timedelta(days=3),
        sweep_every=timedelta(minutes=5),
    )
    note(world.ledger, bad={"a"}, whole=(), everything=True)

    told = [each for each in watcher.summary().reported if each.id == "found_damaged"]

    assert [each.is_problem for each in told] == [True]
    assert "1 asset was found damaged by `archiver verify`: a." in told[0].text


def test_ids_are_bounded_and_forgotten_some_time() -> None:
    world = World()
    note(world.ledger, bad={f"x{number}" for number in range(MOST + 1)}, whole=(), everything=True)
    assert len(world.bad()) == MOST

    world.clock.advance(LIFETIME)
    assert world.bad() == []

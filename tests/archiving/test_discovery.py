from __future__ import annotations

from datetime import timedelta

import pytest

from archiving.discovery import FULL_WALK_EVERY, LOCK_NAME, Sweeper
from archiving.judging import Scope
from hms.errors import HmsUnavailable
from hms.models import Asset
from ledger.base import AssetState
from ledger.memory import MemoryLedger
from tests.archiving.examples import NOW, RETENTION, asset
from tests.archiving.fakes import Clock, FakeApi


class World:
    def __init__(self, assets: list[Asset]) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.api = FakeApi(assets)
        self.rebuilt = 0
        self.sweeper = Sweeper(
            api=self.api,
            ledger=self.ledger,
            scope=Scope(RETENTION),
            clock=self.clock,
            rebuild=self._rebuild,
        )

    def _rebuild(self) -> None:
        self.rebuilt += 1


def numbered(number: int, *, hours_old: int, **fields: object) -> Asset:
    created = (NOW - timedelta(hours=hours_old)).isoformat()
    return asset(id=f"asset-{number}", created_at=created, **fields)


def newest_first(count: int) -> list[Asset]:
    return [numbered(number, hours_old=2 * number) for number in range(count)]


def oldest_first(count: int) -> list[Asset]:
    return list(reversed(newest_first(count)))


def test_every_asset_of_every_page_is_entered() -> None:
    world = World(newest_first(7))

    result = world.sweeper.sweep()

    assert result is not None
    assert (result.pages, result.assets, result.new, result.full) == (4, 7, 7, True)
    assert world.ledger.counts().states[AssetState.DISCOVERED] == 7


def test_a_sweep_that_runs_twice_changes_nothing() -> None:
    world = World(newest_first(5))
    world.sweeper.sweep()
    before = list(world.ledger.rows())

    again = world.sweeper.sweep(full=True)

    assert again is not None
    assert again.new == 0
    assert list(world.ledger.rows()) == before


def test_only_one_sweep_runs_at_a_time() -> None:
    world = World(newest_first(3))
    assert world.ledger.lock(LOCK_NAME, timedelta(minutes=1)) is not None

    assert world.sweeper.sweep() is None
    assert world.api.pages_read == 0


def test_a_sweep_that_failed_leaves_no_lock_and_keeps_what_it_saw() -> None:
    world = World(newest_first(6))
    world.api.fail_on_page = (2, HmsUnavailable("503"))

    with pytest.raises(HmsUnavailable):
        world.sweeper.sweep()
    world.api.fail_on_page = None
    result = world.sweeper.sweep()

    assert result is not None
    assert result.new == 2
    assert world.ledger.counts().seen == 6


def test_while_no_order_was_observed_every_sweep_reads_all_pages() -> None:
    world = World(oldest_first(20))
    world.sweeper.sweep()

    second = world.sweeper.sweep()

    assert second is not None
    assert (second.pages, second.full, second.newest_first) == (10, True, False)


def test_equal_timestamps_alone_are_no_order() -> None:
    world = World([numbered(number, hours_old=5) for number in range(6)])
    world.sweeper.sweep()

    second = world.sweeper.sweep()

    assert second is not None
    assert second.full


def test_an_observed_order_shortens_the_walk_to_what_is_new() -> None:
    world = World(newest_first(40))
    world.sweeper.sweep()
    world.api.assets.insert(0, numbered(100, hours_old=0))

    second = world.sweeper.sweep()

    assert second is not None
    assert second.new == 1
    assert not second.full
    assert second.pages < 5


def test_a_full_walk_comes_at_least_every_six_hours_whatever_was_observed() -> None:
    world = World(newest_first(40))
    world.sweeper.sweep()
    late = numbered(200, hours_old=70)  # appeared deep in the list
    world.api.assets.insert(35, late)
    short = world.sweeper.sweep()
    assert short is not None
    assert short.new == 0

    world.clock.advance(FULL_WALK_EVERY)
    full = world.sweeper.sweep()

    assert full is not None
    assert (full.full, full.new) == (True, 1)


def test_short_walks_do_not_put_the_full_walk_off() -> None:
    world = World(newest_first(40))
    world.sweeper.sweep()
    for _ in range(5):
        world.clock.advance(FULL_WALK_EVERY / 5)
        last = world.sweeper.sweep()

    assert last is not None
    assert last.full


def test_a_failed_asset_that_completes_later_is_found_by_the_next_full_walk() -> None:
    world = World([asset(status="failed")])
    world.sweeper.sweep()
    world.api.assets = [asset()]

    world.sweeper.sweep(full=True)

    assert world.ledger.counts().states[AssetState.DISCOVERED] == 1


def test_an_empty_ledger_is_rebuilt_from_the_buckets_before_anything_is_found() -> None:
    world = World(newest_first(2))

    world.sweeper.sweep()
    world.sweeper.sweep()

    assert world.rebuilt == 1

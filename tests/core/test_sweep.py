from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from archiver.core.deadlines import UNDATED
from archiver.core.destinations import breaker
from archiver.core.judging import Scope
from archiver.core.upkeep.sweep import (
    FACT,
    FULL_WALK_EVERY,
    LOCK_NAME,
    LOCK_TTL,
    Sweeper,
    recorded_in_future,
    sweep_progress,
)
from archiver.hms.errors import HmsUnavailable
from archiver.hms.models import Asset, Page
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock, FakeApi


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


# -- a sweep that is running -----------------------------------------------------------------------------------


def test_a_running_sweep_shows_when_it_began_and_how_far_it_is() -> None:
    world = World(newest_first(6))
    seen: list[tuple[timedelta, timedelta, int, int]] = []

    def look(page: int) -> None:
        world.clock.advance(timedelta(minutes=4))
        progress = sweep_progress(world.ledger)
        assert progress is not None
        seen.append((progress.started_at - NOW, progress.at - NOW, progress.pages, progress.assets))

    world.api.before_page = look
    world.sweeper.sweep()

    minutes = [timedelta(minutes=4 * number) for number in range(3)]
    assert seen == [(timedelta(0), at, page, 2 * page) for page, at in enumerate(minutes)]


def test_a_sweep_that_ended_or_failed_is_not_running() -> None:
    world = World(newest_first(6))
    world.sweeper.sweep()
    assert sweep_progress(world.ledger) is None

    world.api.fail_on_page = (1, HmsUnavailable("503"))
    with pytest.raises(HmsUnavailable):
        world.sweeper.sweep()

    assert sweep_progress(world.ledger) is None


def test_a_sweep_whose_process_was_killed_is_not_running_for_long() -> None:
    world = World(newest_first(6))
    walk = world.api.pages()
    world.api.pages = lambda **_: walk  # type: ignore[method-assign]
    world.ledger.forget = lambda name: None  # type: ignore[method-assign]
    world.sweeper.sweep()
    assert sweep_progress(world.ledger) is not None

    world.clock.advance(LOCK_TTL)

    assert sweep_progress(world.ledger) is None


def test_sweeps_that_are_killed_or_fail_one_after_the_other_are_counted() -> None:
    world = World(newest_first(6))
    begun = []

    def look(page: int) -> None:
        progress = sweep_progress(world.ledger)
        assert progress
        begun.append(progress.begun)

    world.api.before_page = look
    world.api.fail_on_page = (0, HmsUnavailable("503"))
    for _ in range(3):
        with pytest.raises(HmsUnavailable):
            world.sweeper.sweep()
    world.api.fail_on_page = None
    world.sweeper.sweep(full=True)
    world.sweeper.sweep(full=True)

    assert begun == [1, 2, 3, 4, 4, 4, 1, 1, 1]


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (None, False),
        ({}, False),
        ({"started_at": "not a time", "pages": 3}, False),
        ({"started_at": NOW.isoformat(), "full_at": None}, False),
        ({"started_at": (NOW + timedelta(minutes=4)).isoformat()}, False),
        ({"started_at": (NOW + timedelta(minutes=6)).isoformat()}, True),
        ({"started_at": NOW.isoformat(), "full_at": (NOW + timedelta(days=1)).isoformat()}, True),
        ({"at": (NOW + timedelta(hours=1)).isoformat()}, True),
    ],
)
def test_a_fact_dated_in_the_future_is_recognised(fact: dict[str, object] | None, expected: bool) -> None:
    assert recorded_in_future(fact, NOW) is expected


def test_after_a_clock_was_set_back_all_pages_are_read() -> None:
    world = World(newest_first(40))
    world.clock.advance(timedelta(days=1))
    world.sweeper.sweep()

    world.clock.advance(-timedelta(days=1))
    result = world.sweeper.sweep()

    assert result is not None
    assert result.full
    assert not recorded_in_future(world.ledger.recall(FACT), world.clock())


# -- what the list says of itself ------------------------------------------------------------------------------


def fact(world: World, name: str) -> object:
    return (world.ledger.recall(FACT) or {}).get(name)


def test_rows_without_an_id_stay_visible_until_a_full_walk_finds_none() -> None:
    world = World(newest_first(40))
    pages, garbled = world.api.pages, 3

    def with_garbled(**asked: str | None) -> Iterator[Page]:
        for number, page in enumerate(pages(**asked)):
            yield page.model_copy(update={"invalid_rows": garbled if number == 15 else 0})

    world.api.pages = with_garbled  # type: ignore[method-assign]
    world.sweeper.sweep()
    seen = [fact(world, "garbled")]
    short = world.sweeper.sweep()
    seen.append(fact(world, "garbled"))
    garbled = 0
    world.sweeper.sweep(full=True)
    seen.append(fact(world, "garbled"))

    assert short is not None
    assert not short.full
    assert seen == [3, 3, 0]


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(minutes=7), -timedelta(days=2)])
def test_a_sweep_notes_how_far_the_ledgers_clock_is_ahead_of_the_apis(ahead: timedelta) -> None:
    world = World(newest_first(2))
    world.api.clock = lambda: NOW - ahead

    world.sweeper.sweep()

    assert fact(world, "clock_ahead_seconds") == ahead.total_seconds()


def test_an_api_that_does_not_tell_the_time_is_noted_as_such() -> None:
    world = World(newest_first(2))

    world.sweeper.sweep()

    assert fact(world, "clock_ahead_seconds") is None


@pytest.mark.parametrize(
    ("created", "api_ahead", "undated"),
    [
        (timedelta(hours=20), None, False),
        (timedelta(days=2), None, True),
        # the ledger's clock is behind, the API knows what it says
        (timedelta(days=2), timedelta(days=3), False),
        (timedelta(days=2), -timedelta(days=3), True),
        (-timedelta(days=3000), None, True),
    ],
)
def test_a_date_that_cannot_be_true_is_not_believed(
    created: timedelta, api_ahead: timedelta | None, undated: bool
) -> None:
    world = World([asset(created_at=(NOW + created).isoformat())])
    world.api.clock = None if api_ahead is None else lambda: NOW + api_ahead

    world.sweeper.sweep()

    assert [row.expires_at == UNDATED for row in world.ledger.rows()] == [undated]


def test_a_sweep_that_is_answered_ends_the_hold_that_the_refusals_of_others_put() -> None:
    world = World(newest_first(2))
    for place in ("a", "b"):
        breaker.trip_on(world.ledger, breaker.API, place, "401", NOW)
    assert breaker.API in breaker.opened(world.ledger, NOW)

    world.sweeper.sweep()

    assert breaker.API not in breaker.opened(world.ledger, NOW)

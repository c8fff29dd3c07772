from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from archiver.core.deadlines import UNDATED
from archiver.core.destinations import breaker
from archiver.core.health import assess
from archiver.core.judging import Scope
from archiver.core.upkeep.status import summarize
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


class Harness:
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
    harness = Harness(newest_first(7))

    result = harness.sweeper.sweep()

    assert result is not None
    assert (result.pages, result.assets, result.new, result.full) == (4, 7, 7, True)
    assert harness.ledger.counts().states[AssetState.DISCOVERED] == 7


def listed_nothing(harness: Harness) -> list[str]:
    harness.sweeper.sweep()
    summary = summarize(
        harness.ledger, harness.clock(), at_risk_within=timedelta(days=3), sweep_every=timedelta(hours=1)
    )
    return [each.text for each in assess(summary).problems if each.id == "list_is_empty"]


def test_a_list_that_is_suddenly_empty_is_a_problem_while_100ms_keeps_what_is_known() -> None:
    harness = Harness(newest_first(3))
    assert listed_nothing(harness) == []

    assets, harness.api.assets = harness.api.assets, []
    (text,) = listed_nothing(harness)
    assert "what is new there is not seen" in text

    harness.api.assets = assets
    assert listed_nothing(harness) == []

    harness.api.assets = []
    harness.clock.advance(RETENTION)
    assert listed_nothing(harness) == [], "all of it has been deleted by now"


def test_an_account_without_any_recording_is_no_problem() -> None:
    assert listed_nothing(Harness([])) == []


def test_a_sweep_that_runs_twice_changes_nothing() -> None:
    harness = Harness(newest_first(5))
    harness.sweeper.sweep()
    before = list(harness.ledger.rows())

    again = harness.sweeper.sweep(full=True)

    assert again is not None
    assert again.new == 0
    assert list(harness.ledger.rows()) == before


def test_only_one_sweep_runs_at_a_time() -> None:
    harness = Harness(newest_first(3))
    assert harness.ledger.lock(LOCK_NAME, timedelta(minutes=1)) is not None

    assert harness.sweeper.sweep() is None
    assert harness.api.pages_read == 0


def test_a_failed_sweep_releases_its_lock_and_keeps_what_it_entered() -> None:
    harness = Harness(newest_first(6))
    harness.api.fail_on_page = (2, HmsUnavailable("503"))

    with pytest.raises(HmsUnavailable):
        harness.sweeper.sweep()
    harness.api.fail_on_page = None
    result = harness.sweeper.sweep()

    assert result is not None
    assert result.new == 2
    assert harness.ledger.counts().seen == 6


def test_while_no_order_was_observed_every_sweep_reads_all_pages() -> None:
    harness = Harness(oldest_first(20))
    harness.sweeper.sweep()

    second = harness.sweeper.sweep()

    assert second is not None
    assert (second.pages, second.full, second.newest_first) == (10, True, False)


def test_equal_timestamps_alone_are_no_order() -> None:
    harness = Harness([numbered(number, hours_old=5) for number in range(6)])
    harness.sweeper.sweep()

    second = harness.sweeper.sweep()

    assert second is not None
    assert second.full


def test_an_observed_order_shortens_the_walk_to_what_is_new() -> None:
    harness = Harness(newest_first(40))
    harness.sweeper.sweep()
    harness.api.assets.insert(0, numbered(100, hours_old=0))

    second = harness.sweeper.sweep()

    assert second is not None
    assert second.new == 1
    assert not second.full
    assert second.pages < 5


def test_a_full_walk_comes_at_least_every_six_hours_whatever_was_observed() -> None:
    harness = Harness(newest_first(40))
    harness.sweeper.sweep()
    late = numbered(200, hours_old=70)  # appeared deep in the list
    harness.api.assets.insert(35, late)
    short = harness.sweeper.sweep()
    assert short is not None
    assert short.new == 0

    harness.clock.advance(FULL_WALK_EVERY)
    full = harness.sweeper.sweep()

    assert full is not None
    assert (full.full, full.new) == (True, 1)


def test_short_walks_do_not_put_the_full_walk_off() -> None:
    harness = Harness(newest_first(40))
    harness.sweeper.sweep()
    for _ in range(5):
        harness.clock.advance(FULL_WALK_EVERY / 5)
        last = harness.sweeper.sweep()

    assert last is not None
    assert last.full


def test_a_failed_asset_that_completes_later_is_found_by_the_next_full_walk() -> None:
    harness = Harness([asset(status="failed")])
    harness.sweeper.sweep()
    harness.api.assets = [asset()]

    harness.sweeper.sweep(full=True)

    assert harness.ledger.counts().states[AssetState.DISCOVERED] == 1


def test_an_empty_ledger_is_rebuilt_from_the_buckets_before_anything_is_found() -> None:
    harness = Harness(newest_first(2))

    harness.sweeper.sweep()
    harness.sweeper.sweep()

    assert harness.rebuilt == 1


# -- a sweep that is running -----------------------------------------------------------------------------------


def test_a_running_sweep_shows_when_it_began_and_how_far_it_is() -> None:
    harness = Harness(newest_first(6))
    seen: list[tuple[timedelta, timedelta, int, int]] = []

    def look(page: int) -> None:
        harness.clock.advance(timedelta(minutes=4))
        progress = sweep_progress(harness.ledger)
        assert progress is not None
        seen.append((progress.started_at - NOW, progress.at - NOW, progress.pages, progress.assets))

    harness.api.before_page = look
    harness.sweeper.sweep()

    minutes = [timedelta(minutes=4 * number) for number in range(3)]
    assert seen == [(timedelta(0), at, page, 2 * page) for page, at in enumerate(minutes)]


def test_a_sweep_that_ended_or_failed_is_not_running() -> None:
    harness = Harness(newest_first(6))
    harness.sweeper.sweep()
    assert sweep_progress(harness.ledger) is None

    harness.api.fail_on_page = (1, HmsUnavailable("503"))
    with pytest.raises(HmsUnavailable):
        harness.sweeper.sweep()

    assert sweep_progress(harness.ledger) is None


def test_a_sweep_whose_process_was_killed_is_not_running_for_long() -> None:
    harness = Harness(newest_first(6))
    walk = harness.api.pages()
    harness.api.pages = lambda **_: walk  # type: ignore[method-assign]
    harness.ledger.forget = lambda name: None  # type: ignore[method-assign]
    harness.sweeper.sweep()
    assert sweep_progress(harness.ledger) is not None

    harness.clock.advance(LOCK_TTL)

    assert sweep_progress(harness.ledger) is None


def test_sweeps_that_are_killed_or_fail_one_after_the_other_are_counted() -> None:
    harness = Harness(newest_first(6))
    begun = []

    def look(page: int) -> None:
        progress = sweep_progress(harness.ledger)
        assert progress
        begun.append(progress.begun)

    harness.api.before_page = look
    harness.api.fail_on_page = (0, HmsUnavailable("503"))
    for _ in range(3):
        with pytest.raises(HmsUnavailable):
            harness.sweeper.sweep()
    harness.api.fail_on_page = None
    harness.sweeper.sweep(full=True)
    harness.sweeper.sweep(full=True)

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
    harness = Harness(newest_first(40))
    harness.clock.advance(timedelta(days=1))
    harness.sweeper.sweep()

    harness.clock.advance(-timedelta(days=1))
    result = harness.sweeper.sweep()

    assert result is not None
    assert result.full
    assert not recorded_in_future(harness.ledger.recall(FACT), harness.clock())


# -- what the list says of itself ------------------------------------------------------------------------------


def fact(harness: Harness, name: str) -> object:
    return (harness.ledger.recall(FACT) or {}).get(name)


def test_rows_without_an_id_stay_visible_until_a_full_walk_finds_none() -> None:
    harness = Harness(newest_first(40))
    pages, invalid = harness.api.pages, 3

    def with_invalid(**asked: str | None) -> Iterator[Page]:
        for number, page in enumerate(pages(**asked)):
            yield page.model_copy(update={"invalid_rows": invalid if number == 15 else 0})

    harness.api.pages = with_invalid  # type: ignore[method-assign]
    harness.sweeper.sweep()
    seen = [fact(harness, "garbled")]
    short = harness.sweeper.sweep()
    seen.append(fact(harness, "garbled"))
    invalid = 0
    harness.sweeper.sweep(full=True)
    seen.append(fact(harness, "garbled"))

    assert short is not None
    assert not short.full
    assert seen == [3, 3, 0]


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(minutes=7), -timedelta(days=2)])
def test_a_sweep_notes_how_far_the_ledgers_clock_is_ahead_of_the_apis(ahead: timedelta) -> None:
    harness = Harness(newest_first(2))
    harness.api.clock = lambda: NOW - ahead

    harness.sweeper.sweep()

    assert fact(harness, "clock_ahead_seconds") == ahead.total_seconds()


def test_an_api_without_a_date_header_leaves_the_clock_unknown() -> None:
    harness = Harness(newest_first(2))

    harness.sweeper.sweep()

    assert fact(harness, "clock_ahead_seconds") is None


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
def test_an_impossible_date_is_ignored(
    created: timedelta, api_ahead: timedelta | None, undated: bool
) -> None:
    harness = Harness([asset(created_at=(NOW + created).isoformat())])
    harness.api.clock = None if api_ahead is None else lambda: NOW + api_ahead

    harness.sweeper.sweep()

    assert [row.expires_at == UNDATED for row in harness.ledger.rows()] == [undated]


def test_a_successful_sweep_closes_the_breaker_that_refusals_elsewhere_opened() -> None:
    harness = Harness(newest_first(2))
    for place in ("a", "b"):
        breaker.trip_on(harness.ledger, breaker.API, place, "401", NOW)
    assert breaker.API in breaker.opened(harness.ledger, NOW)

    harness.sweeper.sweep()

    assert breaker.API not in breaker.opened(harness.ledger, NOW)

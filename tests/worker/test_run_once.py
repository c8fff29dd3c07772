from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from archiving import holds
from archiving.decisions import HOLD
from archiving.discovery import Sweeper
from archiving.judging import Scope
from archiving.reconcile import Reconciler
from hms.errors import HmsRefused
from hms.models import Asset
from ledger.base import AssetState
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.archiving.bench import Bench, BytesSource, Tree, file
from tests.archiving.examples import RETENTION, asset
from transfer.errors import SourceUnavailable
from worker.run_once import OneRun, RunResult, result_json


class World:
    """The bench, run as `archiver run --once` does."""

    def __init__(
        self, contents: Callable[[], Tree] = lambda: file(b"m" * 100), assets: list[Asset] | None = None
    ) -> None:
        self.bench = Bench(contents, assets=assets or [asset(size=None)])
        self.ledger = self.bench.ledger
        self.store = self.bench.stores[0]
        self.stop = threading.Event()

    def run(self, asset_ids: list[str] | None = None, patience: timedelta = timedelta(0)) -> RunResult:
        scope = Scope(RETENTION)
        reconciler = Reconciler(
            ledger=self.ledger, destinations=self.bench.stores, scope=scope, clock=self.bench.clock
        )
        sweeper = Sweeper(
            api=self.bench.api,
            ledger=self.ledger,
            scope=scope,
            clock=self.bench.clock,
            rebuild=reconciler.reconcile,
        )
        return OneRun(
            reconciler=reconciler,
            sweeper=sweeper,
            archiver=self.bench.archiver,
            ledger=self.ledger,
            concurrency=2,
            patience=patience,
            clock=self._tick,
            stop=self.stop,
        ).run(asset_ids)

    def _tick(self) -> datetime:
        """Time passes, if only a little."""
        self.bench.clock.advance(timedelta(microseconds=1))
        return self.bench.clock()

    def state(self, asset_id: str) -> AssetState:
        row = self.ledger.get(asset_id)
        assert row is not None
        return row.state


def failing_once() -> Callable[[], Tree]:
    """Contents whose source is away for the first attempt."""
    failures: list[Exception] = [SourceUnavailable("GET: answered 503")] * 100

    def contents() -> Tree:
        errors = list(failures)
        failures.clear()
        return Tree({"movie.mp4": BytesSource(b"m" * 100, errors)}, form="file")

    return contents


def test_everything_that_the_api_lists_is_archived_and_counted() -> None:
    assets = [asset(id=f"asset-{number}", size=None) for number in range(7)]
    world = World(assets=assets)

    result = world.run()

    assert result.all_safe
    assert result.counts.states[AssetState.ARCHIVED] == 7
    told = result_json(result)
    assert json.loads(json.dumps(told)) == {
        "seen": 7,
        "states": {"archived": 7},
        "bytes": result.stored_bytes,
    }
    assert result.stored_bytes > 700


def test_a_second_run_copies_nothing() -> None:
    world = World()
    world.run()

    again = world.run()

    assert again.all_safe
    assert again.stored_bytes == 0


def test_without_a_manifest_in_the_bucket_the_ledgers_word_counts_for_nothing() -> None:
    world = World()
    world.run()
    assert isinstance(world.store, MemoryBackend)
    world.store.store.objects.clear()

    result = world.run()

    assert result.all_safe
    assert result.stored_bytes > 0


def test_a_bucket_that_cannot_be_listed_is_not_called_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.run()

    def unreachable(_prefix: str = "") -> object:
        raise TransientStorageError("list: 503")

    monkeypatch.setattr(world.store, "list", unreachable)

    assert not world.run().all_safe


def test_an_asset_that_waits_is_left_to_the_next_run_which_tries_it_at_once() -> None:
    world = World(failing_once())

    first = world.run(patience=timedelta(0))
    second = world.run(patience=timedelta(0))

    assert not first.all_safe
    assert first.counts.states[AssetState.WAITING] == 1
    assert second.all_safe, "it was not due yet"


def test_what_waits_for_longer_than_a_hold_keeps_to_its_time() -> None:
    world = World(failing_once())
    world.run()
    row = world.ledger.get(asset().id)
    assert row is not None
    assert row.next_attempt_at is not None
    world.bench.clock.now = row.next_attempt_at - HOLD - timedelta(hours=1)

    assert not world.run().all_safe


def test_holds_are_lifted_for_whoever_starts_a_run_may_have_mended_it() -> None:
    world = World()
    holds.put(world.ledger, world.store.name, "403", world.bench.clock(), HOLD)
    holds.put(world.ledger, holds.API, "401", world.bench.clock(), HOLD)

    assert world.run().all_safe


def test_a_sweep_that_fails_is_told_after_what_is_known_was_archived() -> None:
    world = World(failing_once(), assets=[asset(id="a", size=None), asset(id="b", size=None)])
    world.run()
    world.bench.api.fail_on_page = (0, HmsRefused("GET /recording-assets: 401"))

    with pytest.raises(HmsRefused):
        world.run()

    assert world.state("a") == world.state("b") == AssetState.ARCHIVED


def test_named_assets_alone_are_archived_without_a_sweep() -> None:
    world = World(assets=[asset(id="a", size=None), asset(id="b", size=None)])

    world.run(["b"])

    assert world.state("b") == AssetState.ARCHIVED
    assert world.ledger.get("a") is None
    assert world.bench.api.pages_read == 0


def test_a_run_that_is_told_to_stop_begins_nothing_more() -> None:
    world = World()
    world.stop.set()

    result = world.run()

    assert not result.all_safe
    assert world.state(asset().id) == AssetState.DISCOVERED


def test_an_account_with_nothing_in_it_is_safe() -> None:
    world = World()
    world.bench.api.assets.clear()

    result = world.run()

    assert result.all_safe
    assert result_json(result) == {"seen": 0, "states": {}, "bytes": 0}

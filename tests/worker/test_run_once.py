from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from archiver.core.attempt.outcomes import AlreadyArchived, NotOurs, Outcome, WillRetry, settlement
from archiver.core.destinations import breaker
from archiver.core.destinations.breaker import OPEN_FOR
from archiver.core.judging import Scope, as_known, judge
from archiver.core.machine import MOST_FAULTS, failing_machines
from archiver.core.replication.repairer import Repairer
from archiver.core.replication.replicator import Replicator
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.sweep import Sweeper
from archiver.hms.errors import HmsUnauthorized
from archiver.hms.models import Asset
from archiver.ledger.models import AssetState
from archiver.transfer.errors import SourceUnavailable
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.harness import ArchiverHarness, BytesSource, Tree, file
from worker.run_once import OneRun, RunResult, result_json


class Setup:
    """The harness, run as `archiver run --once` does."""

    def __init__(
        self, contents: Callable[[], Tree] = lambda: file(b"m" * 100), assets: list[Asset] | None = None
    ) -> None:
        self.harness = ArchiverHarness(contents, assets=assets or [asset(size=None)])
        self.ledger = self.harness.ledger
        self.store = self.harness.stores[0]
        self.cancelled = threading.Event()

    def run(
        self,
        asset_ids: list[str] | None = None,
        retry_wait: timedelta = timedelta(0),
        *,
        archiver: Any = None,
        concurrency: int = 2,
        pause: Callable[[float], None] | None = None,
    ) -> RunResult:
        scope = Scope(RETENTION)
        reconciler = Reconciler(
            ledger=self.ledger, destinations=self.harness.stores, scope=scope, clock=self.harness.clock
        )
        sweeper = Sweeper(
            api=self.harness.api,
            ledger=self.ledger,
            scope=scope,
            clock=self.harness.clock,
            rebuild=reconciler.reconcile,
        )
        return OneRun(
            reconciler=reconciler,
            replicator=Replicator(
                ledger=self.ledger,
                destinations=self.harness.stores,
                repairer=Repairer(
                    ledger=self.ledger,
                    destinations=self.harness.stores,
                    engine=self.harness.archiver.deps.engine,
                    lease=timedelta(minutes=2),
                    lease_renew=timedelta(seconds=30),
                    clock=self.harness.clock,
                ),
                clock=self.harness.clock,
            ),
            sweeper=sweeper,
            archiver=archiver or self.harness.archiver,
            ledger=self.ledger,
            concurrency=concurrency,
            retry_wait=retry_wait,
            clock=self._tick,
            cancelled=self.cancelled,
            pause=pause,
        ).run(asset_ids)

    def sweep(self, assets: list[Asset]) -> None:
        self.ledger.discover([judge(each, Scope(RETENTION)) for each in assets])

    def _tick(self) -> datetime:
        """Time passes, if only a little."""
        self.harness.clock.advance(timedelta(microseconds=1))
        return self.harness.clock()

    def state(self, asset_id: str) -> AssetState:
        row = self.ledger.get(asset_id)
        assert row is not None
        return row.state


def failing_once() -> Callable[[], Tree]:
    """Contents whose source is unreachable for the first attempt."""
    failures: list[Exception] = [SourceUnavailable("GET: answered 503")] * 100

    def contents() -> Tree:
        errors = list(failures)
        failures.clear()
        return Tree({"movie.mp4": BytesSource(b"m" * 100, errors)}, form="file")

    return contents


def test_everything_that_the_api_lists_is_archived_and_counted() -> None:
    assets = [asset(id=f"asset-{number}", size=None) for number in range(7)]
    setup = Setup(assets=assets)

    result = setup.run()

    assert result.all_safe
    assert result.counts.states[AssetState.ARCHIVED] == 7
    output = result_json(result)
    assert json.loads(json.dumps(output)) == {
        "seen": 7,
        "states": {"archived": 7},
        "bytes": result.stored_bytes,
    }
    assert result.stored_bytes == 700


def test_a_second_run_copies_nothing() -> None:
    setup = Setup()
    setup.run()

    again = setup.run()

    assert again.all_safe
    assert again.stored_bytes == 0


def test_what_is_archived_at_the_quorum_is_counted_as_copied_once() -> None:
    setup = Setup()
    away = MemoryBackend("two")
    setup.harness.stores += [MemoryBackend("three"), away]
    deps = setup.harness.archiver.deps
    setup.harness.archiver.deps = replace(
        deps, destinations=setup.harness.stores, rules=replace(deps.rules, quorum=2)
    )

    def refuse(*_: object, **__: object) -> None:
        raise TransientStorageError("503")

    with pytest.MonkeyPatch.context() as patched:
        for name in ("put", "begin", "stat", "list"):
            patched.setattr(away, name, refuse)
        assert setup.run().stored_bytes == 100
        assert setup.state(setup.harness.asset_id) is AssetState.ARCHIVED
        assert setup.run().stored_bytes == 0


def test_without_a_manifest_in_the_bucket_the_ledgers_word_counts_for_nothing() -> None:
    setup = Setup()
    setup.run()
    assert isinstance(setup.store, MemoryBackend)
    setup.store.store.objects.clear()

    result = setup.run()

    assert result.all_safe
    assert result.stored_bytes > 0


def test_a_bucket_that_cannot_be_listed_is_not_called_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()
    setup.run()

    def unreachable(_prefix: str = "") -> object:
        raise TransientStorageError("list: 503")

    monkeypatch.setattr(setup.store, "list", unreachable)

    assert not setup.run().all_safe


def test_an_asset_that_waits_is_left_to_the_next_run_which_tries_it_at_once() -> None:
    setup = Setup(failing_once())

    first = setup.run(retry_wait=timedelta(0))
    second = setup.run(retry_wait=timedelta(0))

    assert not first.all_safe
    assert first.counts.states[AssetState.WAITING] == 1
    assert second.all_safe, "it was not due yet"


def test_what_waits_for_longer_than_a_hold_keeps_to_its_time() -> None:
    setup = Setup(failing_once())
    setup.run()
    row = setup.ledger.get(asset().id)
    assert row is not None
    assert row.next_attempt_at is not None
    setup.harness.clock.now = row.next_attempt_at - OPEN_FOR - timedelta(hours=1)

    assert not setup.run().all_safe


def test_a_run_closes_the_circuit_breakers_first() -> None:
    setup = Setup()
    breaker.trip(setup.ledger, setup.store.name, "403", setup.harness.clock())
    breaker.trip(setup.ledger, breaker.API, "401", setup.harness.clock())

    assert setup.run().all_safe


def test_a_sweep_that_fails_is_told_after_what_is_known_was_archived() -> None:
    setup = Setup(failing_once(), assets=[asset(id="a", size=None), asset(id="b", size=None)])
    setup.run()
    setup.harness.api.fail_on_page = (0, HmsUnauthorized("GET /recording-assets: 401"))

    with pytest.raises(HmsUnauthorized):
        setup.run()

    assert setup.state("a") == setup.state("b") == AssetState.ARCHIVED


def test_named_assets_alone_are_archived_without_a_sweep() -> None:
    setup = Setup(assets=[asset(id="a", size=None), asset(id="b", size=None)])

    setup.run(["b"])

    assert setup.state("b") == AssetState.ARCHIVED
    assert setup.ledger.get("a") is None
    assert setup.harness.api.pages_read == 0


def test_a_run_that_is_told_to_stop_begins_nothing_more() -> None:
    setup = Setup()
    setup.cancelled.set()

    result = setup.run()

    assert not result.all_safe
    assert setup.state(asset().id) == AssetState.DISCOVERED


def test_an_account_with_nothing_in_it_is_safe() -> None:
    setup = Setup()
    setup.harness.api.assets.clear()

    result = setup.run()

    assert result.all_safe
    assert result_json(result) == {"seen": 0, "states": {}, "bytes": 0}


class Noting:
    """An archiver that notes the order and archives nothing but in the ledger."""

    def __init__(self, setup: Setup, fail: Callable[[], Outcome | None] = lambda: None) -> None:
        self.setup = setup
        self.fail = fail
        self.order: list[str] = []

    def archive(self, asset_id: str, holder: str) -> Outcome:
        self.order.append(asset_id)
        lease = self.setup.ledger.lease(asset_id, holder, timedelta(minutes=2))
        row = self.setup.ledger.get(asset_id)
        assert lease is not None
        assert row is not None
        outcome = self.fail() or AlreadyArchived(0, 0)
        assert not isinstance(outcome, NotOurs)
        self.setup.ledger.settle(lease, as_known(row), settlement(outcome))
        return outcome


def aged(asset_id: str, age: timedelta) -> Asset:
    return asset(id=asset_id, size=None, created_at=(NOW - age).isoformat())


def test_the_most_urgent_come_first_whatever_was_queued_before() -> None:
    assets = [aged(f"known-{days}", timedelta(days=days)) for days in range(10)]
    setup = Setup(assets=assets)
    setup.harness.api.assets.clear()
    setup.sweep(assets)
    setup.ledger.take_due(1000, timedelta(0))  # an earlier run was killed
    urgent = aged("an-hour-left", RETENTION - timedelta(hours=1))
    setup.harness.api.assets[:] = [*assets, urgent]
    noting = Noting(setup)

    setup.run(archiver=noting, concurrency=1)

    assert noting.order == ["an-hour-left", *(f"known-{days}" for days in range(9, -1, -1))]


def test_a_sick_machine_ends_the_run_before_it_went_through_the_queue() -> None:
    setup = Setup(assets=[asset(id=f"asset-{number:02}", size=None) for number in range(50)])
    sick = WillRetry("MemoryError", timedelta(seconds=30), costs_attempt=False, machine_fault=True)
    noting, slept = Noting(setup, lambda: sick), list[float]()

    result = setup.run(archiver=noting, concurrency=1, pause=slept.append)

    assert not result.all_safe
    assert len(noting.order) == MOST_FAULTS
    assert len(slept) == MOST_FAULTS - 1
    assert failing_machines(setup.ledger)
    assert all(row.attempts == 0 for row in setup.ledger.rows())


def test_a_machine_that_recovers_archives_the_rest() -> None:
    setup = Setup(assets=[asset(id=f"asset-{number:02}", size=None) for number in range(9)])
    faults = [WillRetry("no thread", timedelta(0), costs_attempt=False, machine_fault=True)] * 3
    noting = Noting(setup, lambda: faults.pop() if faults else None)

    result = setup.run(archiver=noting, concurrency=1, pause=lambda _: None)

    assert result.all_safe
    assert failing_machines(setup.ledger) == {}


def test_threads_that_cannot_start_leave_the_assets_to_a_later_run(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(assets=[asset(id=f"asset-{number}", size=None) for number in range(9)])

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as starved:
        starved.setattr(ThreadPoolExecutor, "submit", refuse)
        assert not setup.run(pause=lambda _: None).all_safe

    assert all(row.attempts == 0 for row in setup.ledger.rows())
    assert setup.run().all_safe


def test_a_destination_that_lacks_too_much_is_not_called_safe() -> None:
    assets = [asset(id=f"asset-{number:02d}", size=None) for number in range(30)]
    setup = Setup(assets=assets)
    assert setup.run().all_safe
    for info in list(setup.store.list("manifests/")):
        setup.store.delete(info.key)
    setup.harness.clock.advance(RETENTION)

    result = setup.run()

    assert result.counts.states[AssetState.ARCHIVED] == 30, "that is for a person to say"
    assert not result.all_safe


def test_an_empty_ledger_and_a_destination_that_does_not_answer_are_not_called_safe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup()
    setup.harness.api.assets.clear()

    def unreachable(_prefix: str) -> object:
        raise TransientStorageError("list: 503")

    monkeypatch.setattr(setup.store, "list", unreachable)

    result = setup.run()

    assert result.counts.seen == 0
    assert not result.all_safe

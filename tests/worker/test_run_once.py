from __future__ import annotations

import threading
from datetime import timedelta

from archiving.discovery import LOCK, LOCK_NAME, Sweeper
from archiving.judging import Scope
from archiving.reconcile import Reconciler
from hms.models import Page
from ledger.base import AssetState
from tests.archiving.bench import Bench, file
from tests.archiving.examples import RETENTION
from tests.archiving.fakes import Clock
from worker.run_once import OneRun, RunResult

VIDEO = bytes(range(256))


class Ticking(threading.Event):
    """A stop signal that nobody gives; waiting for it takes a minute of the clock and no time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timedelta(minutes=1))
        return False


def run(bench: Bench) -> RunResult:
    scope = Scope(RETENTION)
    reconciler = Reconciler(ledger=bench.ledger, destinations=bench.stores, scope=scope, clock=bench.clock)
    return OneRun(
        reconciler=reconciler,
        sweeper=Sweeper(
            api=bench.api,
            ledger=bench.ledger,
            scope=scope,
            clock=bench.clock,
            rebuild=reconciler.reconcile,
        ),
        archiver=bench.archiver,
        ledger=bench.ledger,
        concurrency=1,
        patience=timedelta(0),
        clock=bench.clock,
        stop=Ticking(bench.clock),
    ).run()


def test_everything_that_is_listed_is_archived() -> None:
    bench = Bench(lambda: file(VIDEO))

    result = run(bench)

    assert result.all_safe
    assert result.counts.states[AssetState.ARCHIVED] == 1


def test_a_run_sweeps_although_a_run_before_it_was_killed_in_its_sweep() -> None:
    bench = Bench(lambda: file(VIDEO))
    bench.ledger.lock(LOCK_NAME, LOCK)

    result = run(bench)

    assert result.all_safe
    assert result.counts.states[AssetState.ARCHIVED] == 1


def test_a_run_that_could_not_sweep_does_not_call_all_safe() -> None:
    bench = Bench(lambda: file(VIDEO))
    bench.ledger.lock(LOCK_NAME, timedelta(days=1))

    result = run(bench)

    assert result.counts.seen == 0
    assert not result.all_safe


def test_rows_that_cannot_be_named_are_not_safe() -> None:
    bench = Bench(lambda: file(VIDEO))
    bench.api.pages = lambda **_: iter(  # type: ignore[method-assign]
        [Page(assets=tuple(bench.api.assets), next_start=None, garbled_rows=1)]
    )

    result = run(bench)

    assert result.counts.states[AssetState.ARCHIVED] == 1
    assert not result.all_safe

"""A worker that dies at any step leaves an asset that the next one brings to the right end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.judging import Scope
from archiver.core.records import keys
from archiver.core.records.manifest import read_manifest
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.reconcile import Reconciler
from archiver.ledger.models import AssetState
from archiver.transfer.errors import SourceGone
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION
from tests.core.harness import ArchiverHarness, BytesSource, Tree
from tests.core.mortal import KilledHere, Life, Mortal

VIDEO = bytes(range(256)) * 3


LEDGER_CALLS = frozenset({"begin", "lease", "get", "renew", "settle", "add_stored", "recall_all", "discover"})
STORE_CALLS = frozenset({"put", "stat", "read", "delete"})


def tree() -> Tree:
    return Tree({"a.ts": BytesSource(VIDEO[:50]), "b.ts": BytesSource(VIDEO[50:90]), "m.m3u8": b"#EXTM3U"})


def run_until_killed(harness: ArchiverHarness, life: Life) -> bool:
    """Return whether it was."""
    mortal = harness.another_archiver(
        ledger=Mortal(harness.ledger, life, LEDGER_CALLS),
        destinations=[Mortal(store, life, STORE_CALLS) for store in harness.stores],
    )
    try:
        mortal.archive(harness.asset_id, "mortal")
    except KilledHere:
        return True
    return False


def next_worker(harness: ArchiverHarness) -> None:
    """What beat and another worker do, until nothing is due any more."""
    for _ in range(10):
        harness.clock.advance(timedelta(minutes=20))
        for row in harness.ledger.take_due(10, timedelta(minutes=15)):
            harness.archiver.archive(row.asset_id, "next")


@pytest.mark.parametrize("after", [False, True], ids=["before-the-call", "after-the-call"])
def test_killed_at_any_call_the_next_worker_archives_the_asset(after: bool) -> None:
    killed = step = 0
    alive = False
    while not alive:
        step += 1
        harness = ArchiverHarness(tree, stores=[MemoryBackend("one"), MemoryBackend("two")])
        alive = not run_until_killed(harness, Life(step, after=after))
        killed += not alive

        if harness.ledger.get(harness.asset_id) is None:
            harness.archive()  # killed before it entered the asset: a sweep's work
        next_worker(harness)

        row = harness.ledger.get(harness.asset_id)
        assert row, step
        assert row.state is AssetState.ARCHIVED, (step, row)
        for store in harness.stores:
            manifest = read_manifest(store, keys.manifest_key(row.asset_id, row.created_at))
            assert manifest, step
            assert verify_contents(store, manifest).ok, step
    assert killed >= 18


@pytest.mark.parametrize("after", [False, True], ids=["before-the-call", "after-the-call"])
def test_killed_at_any_call_of_a_bad_asset_its_end_is_recorded(after: bool) -> None:
    step, alive = 0, False
    while not alive:
        step += 1
        harness = ArchiverHarness(
            lambda: Tree({"a.ts": BytesSource(VIDEO), "b.ts": BytesSource(b"", [SourceGone("")] * 99)})
        )
        for _ in range(2):
            harness.archive()
            harness.clock.advance(timedelta(hours=2))
        alive = not run_until_killed(harness, Life(step, after=after))

        next_worker(harness)
        Reconciler(
            ledger=harness.ledger, destinations=harness.stores, scope=Scope(RETENTION), clock=harness.clock
        ).reconcile()

        row = harness.ledger.get(harness.asset_id)
        assert row, step
        assert row.state is AssetState.QUARANTINED, (step, row)
        assert harness.stores[0].stat(keys.end_record_key(row.asset_id, row.created_at)), step
        manifest = read_manifest(harness.stores[0], keys.manifest_key(row.asset_id, row.created_at))
        assert manifest, step
        assert (manifest.trusted, manifest.missing) == (False, ("b.ts",)), step
        assert verify_contents(harness.stores[0], manifest).ok, step
    assert harness.clock() > NOW

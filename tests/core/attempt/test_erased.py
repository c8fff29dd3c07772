"""An attempt that cannot know of an erasure, since it slept or the ledger was rolled back, leaves nothing behind."""

from __future__ import annotations

from datetime import timedelta

from archiver.core.attempt.decisions import LOST_AFTER
from archiver.core.judging import Scope, judge
from archiver.core.records import keys, tombstones
from archiver.core.records.tombstones import Tombstone
from archiver.core.upkeep.erasing import WORKER_STOPS, Eraser
from archiver.ledger.models import AssetState
from storage_backends.memory import MemoryBackend
from tests.core.attempt.stale_workers import Audit, Pauser, Worker
from tests.core.examples import NOW, RETENTION, asset
from tests.core.harness import TEMPLATE, ArchiverHarness, file

VIDEO = b"v" * 50


def state(harness: ArchiverHarness, asset_id: str) -> AssetState:
    row = harness.ledger.get(asset_id)
    assert row
    return row.state


def test_what_was_erased_is_not_called_lost_when_100ms_has_it_no_more() -> None:
    store = MemoryBackend("one")
    old = asset(size=None, created_at=(NOW - timedelta(days=16)).isoformat())
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store], assets=[old])
    harness.ledger.discover([judge(old, Scope(RETENTION), harness.clock())])  # rolled back
    tombstones.write(store, Tombstone(old.id, AssetState.ERASED, "GDPR-7", NOW).done(NOW))
    harness.api.assets.clear()

    until = harness.clock() + LOST_AFTER + timedelta(hours=2)
    while harness.clock() < until and state(harness, old.id) is not AssetState.ERASING:
        harness.archive(old.id)
        harness.clock.advance(timedelta(minutes=10))

    assert state(harness, old.id) is AssetState.ERASING
    assert list(store.store.objects) == [keys.tombstone_key(old.id)]


def test_what_a_worker_stored_when_it_woke_after_the_erasure_is_removed() -> None:
    store = MemoryBackend("one")
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store])
    stale = Worker(harness, [Audit()], "stale", lambda: file(VIDEO), Pauser("put recordings", 1, after=False))
    stale.start()
    eraser = Eraser(ledger=harness.ledger, destinations=[store], clock=harness.clock, key_template=TEMPLATE)
    list(eraser.erase([harness.asset_id], ticket="GDPR-7"))
    harness.clock.advance(WORKER_STOPS)
    (removal,) = eraser.resume([harness.asset_id])
    assert removal.is_done, "nobody knows of the worker that sleeps"

    stale.finish()
    assert state(harness, harness.asset_id) is AssetState.ERASING
    harness.clock.advance(WORKER_STOPS)
    (removal,) = eraser.resume([harness.asset_id])

    assert removal.is_done
    assert list(store.store.objects) == [keys.tombstone_key(harness.asset_id)]

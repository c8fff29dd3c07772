"""Retrying and skipping an asset, and the history that tells of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.errors import ReviewRefused
from archiver.core.judging import Scope, judge
from archiver.core.records import end_records, keys
from archiver.core.records.commit import committed
from archiver.core.records.manifest import read_manifest
from archiver.core.upkeep.retrying import RETRIED_STATES, retry
from archiver.core.upkeep.review import accept, skip
from archiver.ledger.models import OPEN_STATES, AssetState, Decision, Row
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec
from storage_backends.errors import AccessDenied, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, flip_a_bit
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

ASSET = asset()
RECORD = keys.end_record_key(ASSET.id, ASSET.created_at)
MANIFEST = keys.manifest_key(ASSET.id, ASSET.created_at)


class KeepsEverything(MemoryBackend):
    """A retention policy forbids to replace anything."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key in self.store.objects:
            raise AccessDenied("403: retained")
        return super().put(spec, data, crc32c)


class Harness(ReconcileHarness):
    def retry(self, why: str = "fixed", *, again: bool = False) -> Row:
        return retry(self.ledger, self.stores, ASSET.id, by="ann", why=why, now=self.clock(), again=again)

    def skip(self) -> Row:
        return skip(self.ledger, self.stores, ASSET.id, by="ann", why="a test", now=self.clock())

    def sweep(self) -> None:
        self.ledger.discover([judge(ASSET, Scope(RETENTION))])

    def is_due(self) -> bool:
        return [row.asset_id for row in self.ledger.take_due(10, timedelta(minutes=15))] == [ASSET.id]


@pytest.mark.parametrize("state", sorted(RETRIED_STATES))
def test_what_waits_or_ended_is_due_at_once_and_tells_who_asked(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state, "because")

    row = harness.retry("see https://x.test/a?token=MARKED")

    assert (row.state, row.attempts) == (AssetState.DISCOVERED, 0)
    assert row.history == (Decision("retried", "ann", "see https://x.test/a", NOW),)
    assert harness.is_due()


@pytest.mark.parametrize("state", sorted(OPEN_STATES - {AssetState.WAITING}))
def test_what_is_due_or_being_copied_stays_as_it_is(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state)
    before = harness.ledger.get(ASSET.id)

    assert harness.retry() == before


def test_retrying_twice_is_one_retry() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST, "because")

    assert harness.retry() == harness.retry()


def test_a_retry_after_another_failure_is_another_entry() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST, "because")
    harness.retry()
    enter(harness.ledger, ASSET, AssetState.LOST, "again")
    harness.clock.advance(timedelta(hours=1))

    assert len(harness.retry().history) == 2


def test_an_archived_asset_is_left_alone_unless_asked_for_again() -> None:
    harness = Harness()
    harness.archive([ASSET])
    with pytest.raises(ReviewRefused, match="--again"):
        harness.retry()
    assert harness.state(ASSET) is AssetState.ARCHIVED

    harness.retry(again=True)

    assert harness.state(ASSET) is AssetState.DISCOVERED
    assert all(committed(store, MANIFEST) is None for store in harness.stores)
    assert all(read_manifest(store, MANIFEST) for store in harness.stores), "the old copy stays"


def test_an_archived_asset_that_100ms_has_deleted_is_never_copied_again() -> None:
    harness = Harness()
    harness.archive([ASSET])
    harness.clock.advance(RETENTION)

    with pytest.raises(ReviewRefused, match="retention"):
        harness.retry(again=True)

    assert harness.state(ASSET) is AssetState.ARCHIVED
    assert all(committed(store, MANIFEST) for store in harness.stores)


@pytest.mark.parametrize("state", [AssetState.DAMAGED, AssetState.REJECTED])
def test_a_copy_that_is_whole_by_its_sizes_alone_is_marked_before_a_retry(state: AssetState) -> None:
    """Where the manifest cannot be marked, the retry is refused: it would be archived again as it is."""
    harness = Harness()
    enter(harness.ledger, ASSET, state)
    archive_at(harness.stores, ASSET)
    flip_a_bit(harness.two, MANIFEST)
    forbidden = KeepsEverything("two", store=harness.two.store)
    free, harness.stores = harness.stores, [harness.one, forbidden]
    with pytest.raises(AccessDenied):
        harness.retry()
    assert harness.state(ASSET) is state

    harness.stores = free
    harness.retry()

    assert harness.state(ASSET) is AssetState.DISCOVERED
    assert [committed(store, MANIFEST) is not None for store in harness.stores] == [True, False]


@pytest.mark.parametrize("state", [AssetState.SKIPPED, AssetState.EXTERNAL])
def test_what_a_setting_leaves_out_is_not_retried(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state, "room 'x' is not in ARCHIVER_ROOMS")

    with pytest.raises(ReviewRefused, match="ARCHIVER_ROOMS"):
        harness.retry()


def test_what_is_stored_with_doubts_is_not_at_risk_while_it_is_retried() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.QUARANTINED)

    assert harness.retry().stored_objects == 2


@pytest.mark.parametrize("state", [AssetState.DISCOVERED, AssetState.WAITING, AssetState.LOST])
def test_no_sweep_brings_back_what_is_skipped_and_a_retry_does(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state)

    row = harness.skip()
    harness.sweep()

    assert row.reason is not None
    assert row.reason.startswith("skipped by ann: a test")
    assert harness.state(ASSET) is AssetState.REJECTED
    assert not harness.is_due()
    assert [each.what for each in harness.retry().history] == ["skipped", "retried"]
    assert harness.is_due()


def test_skipping_twice_is_one_entry() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST)
    harness.skip()
    harness.clock.advance(timedelta(hours=1))

    assert harness.skip().history == (Decision("skipped", "ann", "a test", NOW),)


@pytest.mark.parametrize("state", [AssetState.ARCHIVED, AssetState.RUNNING])
def test_what_is_archived_or_being_copied_cannot_be_skipped(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state)

    with pytest.raises(ReviewRefused):
        harness.skip()

    assert harness.state(ASSET) is state


def test_a_lost_ledger_knows_again_what_was_skipped_and_by_whom() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST)
    history = harness.skip().history
    harness.ledger.clear()

    harness.reconcile()

    row = harness.ledger.get(ASSET.id)
    assert row is not None
    assert (row.state, row.history) == (AssetState.REJECTED, history)


def test_what_is_retried_is_not_skipped_again_by_a_lost_ledger() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST)
    harness.skip()
    harness.retry()
    harness.ledger.clear()

    harness.reconcile()
    harness.sweep()

    assert harness.state(ASSET) is AssetState.DISCOVERED


class Away(MemoryBackend):
    """Deletes nothing while it is away."""

    away = True

    def delete(self, key: str) -> None:
        if self.away:
            raise TransientStorageError("away")
        super().delete(key)  # type: ignore[arg-type]


def test_a_rejection_that_could_not_be_deleted_is_deleted_by_the_reconcile() -> None:
    away = Away("two")
    harness = Harness(MemoryBackend("one"), away)
    enter(harness.ledger, ASSET, AssetState.LOST)
    harness.skip()
    harness.retry()
    assert [end_records.read_state(store, RECORD) for store in harness.stores] == [None, "rejected"]

    away.away = False
    harness.reconcile()

    assert end_records.read_state(away, RECORD) is None


def test_the_reconcile_keeps_the_record_of_what_is_lost_while_it_is_retried() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST, "gone")
    harness.reconcile()
    harness.retry()

    harness.reconcile()

    assert end_records.read_state(harness.one, RECORD) == "lost"


def test_accepting_is_in_the_history_once() -> None:
    harness = Harness()
    archive_at(harness.stores, ASSET, doubts=("s7.ts: missing",))
    enter(harness.ledger, ASSET, AssetState.QUARANTINED)

    rows = [
        accept(harness.ledger, harness.stores, ASSET.id, by="ann", why=why, now=NOW) for why in ("a", "b")
    ]

    assert [row.history for row in rows] == [(Decision("accepted", "ann", "a", NOW),)] * 2


def test_an_unknown_asset_is_not_retried() -> None:
    with pytest.raises(ReviewRefused, match="not in the ledger"):
        Harness().retry()

"""What `archiver verify` finds damaged is marked at once, and a whole copy beside it never is."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from archiver.core.judging import Scope, as_known
from archiver.core.records import end_records, keys
from archiver.core.records.manifest import read_manifest
from archiver.core.upkeep.reconcile import Reconciler, Unidentified
from archiver.core.upkeep.retrying import copy_again
from archiver.core.upkeep.scrub_copy import CopyChecker
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.ledger.models import AssetState, CopyState
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, flip_a_bit
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness


@pytest.mark.parametrize("over", [True, False], ids=["source over", "source there"])
def test_a_damaged_copy_is_marked_and_its_asset_is_due_or_damaged(over: bool) -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    key = archive_at(harness.stores, asset())
    if over:
        harness.clock.advance(RETENTION + timedelta(days=1))
    harness.note_whole(asset())
    checker = CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules())
    assert not checker.mark(harness.one, key, in_full=True), "it is whole"
    flip_a_bit(harness.two, key)

    assert checker.mark(harness.two, key, in_full=True)
    assert checker.mark(harness.two, key, in_full=True), "a second person finds the same"

    manifests = [read_manifest(store, key) for store in harness.stores]
    assert [bool(each and each.damage) for each in manifests] == [False, True]
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is (AssetState.DAMAGED if over else AssetState.DISCOVERED)
    assert row.copies == {"memory://one": CopyState.WHOLE, "memory://two": CopyState.DAMAGED}


def test_each_damaged_copy_is_marked_although_the_first_has_made_its_asset_due() -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    key = archive_at(harness.stores, asset())
    harness.note_whole(asset())
    checker = CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules())
    for store in harness.stores:
        flip_a_bit(store, key)

    assert all(checker.mark(store, key, in_full=True) for store in harness.stores)

    manifests = [read_manifest(store, key) for store in harness.stores]
    assert [bool(each and each.damage) for each in manifests] == [True, True]
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert (row.state, set(row.copies.values())) == (AssetState.DISCOVERED, {CopyState.DAMAGED})


class Locked(MemoryBackend):
    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key.startswith("manifests/") and spec.key in self.store.objects:
            raise AccessDenied(f"storing {spec.key}: 403 retentionPolicyNotMet")
        return super().put(spec, data, crc32c)


@pytest.mark.parametrize("is_known", [True, False], ids=["copies known", "after a flush"])
def test_what_cannot_be_marked_of_an_asset_that_is_due_is_known_to_its_next_attempt(is_known: bool) -> None:
    harness = ReconcileHarness()
    harness.stores[1] = Locked("two")
    harness.archive([asset()])
    key = keys.manifest_key(asset().id, asset().created_at)
    if is_known:
        harness.note_whole(asset())
    harness.ledger.reopen(asset().id)
    flip_a_bit(harness.two, key)

    with pytest.raises(AccessDenied):
        CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules()).mark(
            harness.two, key, in_full=True
        )

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.copies["memory://two"] is CopyState.DAMAGED


@pytest.mark.parametrize("state", [AssetState.DAMAGED, AssetState.REJECTED])
@pytest.mark.parametrize("is_damaged", [True, False], ids=["damaged", "right all the same"])
def test_damage_that_an_end_record_alone_tells_of_is_known_after_a_flush(
    state: AssetState, is_damaged: bool
) -> None:
    harness = ReconcileHarness()
    harness.stores[1] = Locked("two")
    harness.archive([asset()])
    key = keys.manifest_key(asset().id, asset().created_at)
    harness.clock.advance(RETENTION + timedelta(days=1))
    row = harness.ledger.get(asset().id)
    assert row is not None
    end_records.write(harness.stores, as_known(row), state, "it differs", harness.clock())
    if is_damaged:
        flip_a_bit(harness.two, key)
    harness.ledger.clear()

    for _ in range(3):
        harness.clock.advance(timedelta(hours=8))
        harness.reconcile()

    assert harness.state(asset()) is (state if is_damaged else AssetState.ARCHIVED)


@pytest.mark.parametrize("recorded", [None, AssetState.DAMAGED, AssetState.REJECTED])
@pytest.mark.parametrize("is_damaged", [True, False], ids=["damaged", "right all the same"])
def test_what_is_due_and_was_found_damaged_is_not_archived_by_its_sizes(
    recorded: AssetState | None, is_damaged: bool
) -> None:
    """`recorded`: by an end record, the ledger was lost, and a sweep listed it again; None: the ledger knows it."""
    harness = ReconcileHarness()
    harness.stores[1] = Locked("two")
    harness.archive([asset()])
    row = harness.ledger.get(asset().id)
    assert row is not None
    if recorded is None:
        harness.ledger.reopen(asset().id)
        due = harness.ledger.get(asset().id)
        assert due is not None
        harness.ledger.note_copies(due, {"memory://one": CopyState.WHOLE, "memory://two": CopyState.DAMAGED})
    else:
        end_records.write(harness.stores, as_known(row), recorded, "it differs", harness.clock())
        harness.ledger.clear()
        enter(harness.ledger, asset(), AssetState.WAITING)
    due_as = harness.state(asset())
    if is_damaged:
        flip_a_bit(harness.two, keys.manifest_key(asset().id, asset().created_at))

    for _ in range(3):
        harness.clock.advance(timedelta(hours=8))
        harness.reconcile()

    assert harness.state(asset()) is (due_as if is_damaged else AssetState.ARCHIVED)


class TwoWasAdded(Unidentified):
    """Empty, after the source had ended."""

    def began_empty_at(self, name: str, /) -> datetime | None:
        return NOW + RETENTION + timedelta(days=1) if name == "memory://two" else None


@pytest.mark.parametrize("is_damaged", [True, False], ids=["damaged", "right all the same"])
def test_damage_of_the_only_copy_is_known_after_a_flush(is_damaged: bool) -> None:
    harness = ReconcileHarness()
    harness.stores[0] = Locked("one")
    harness.archive([asset()], [harness.one])
    harness.clock.advance(RETENTION + timedelta(days=2))
    row = harness.ledger.get(asset().id)
    assert row is not None
    end_records.write([harness.one], as_known(row), AssetState.DAMAGED, "it differs", harness.clock())
    if is_damaged:
        flip_a_bit(harness.one, keys.manifest_key(asset().id, asset().created_at))
    harness.ledger.clear()

    Reconciler(
        ledger=harness.ledger,
        destinations=harness.stores,
        scope=Scope(RETENTION),
        clock=harness.clock,
        identities=TwoWasAdded(),
    ).reconcile()

    assert harness.state(asset()) is (AssetState.DAMAGED if is_damaged else AssetState.ARCHIVED)


def test_a_copy_that_a_worker_may_replace_is_not_marked() -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    key = archive_at(harness.stores, asset())
    flip_a_bit(harness.two, key)
    harness.ledger.reopen(asset().id)
    assert harness.ledger.lease(asset().id, "worker", timedelta(minutes=2))
    checker = CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules())

    checker.mark(harness.two, key, in_full=True)

    manifest = read_manifest(harness.two, key)
    assert manifest is not None
    assert not manifest.damage


def test_a_manifest_that_is_gone_is_left_to_the_reconcile() -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    key = archive_at(harness.stores, asset())
    harness.two.delete(key)
    checker = CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules())

    assert not checker.mark(harness.two, key, in_full=True)
    assert harness.state(asset()) is AssetState.ARCHIVED


@pytest.mark.parametrize("known", ["damaged", "gone", "nothing"])
def test_asking_again_marks_no_whole_copy_beside_one_that_is_known_to_be_damaged(known: str) -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    key = archive_at(harness.stores, asset())
    if known == "damaged":
        flip_a_bit(harness.two, key)
        checker = CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules())
        assert checker.mark(harness.two, key, in_full=True)
    elif known == "gone":
        harness.two.delete(key)
    row = harness.ledger.get(asset().id)
    assert row is not None

    copy_again(harness.ledger, harness.stores, row, harness.clock())

    manifest = read_manifest(harness.one, key)
    assert manifest is not None
    assert bool(manifest.damage) is (known == "nothing")


def test_a_copy_with_doubts_beside_what_was_archived_at_the_quorum_is_not_called_whole() -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    key = archive_at([harness.one], asset())
    archive_at([harness.two], asset(), doubts=("a segment is missing",))
    harness.clock.advance(RETENTION + timedelta(days=1))
    flip_a_bit(harness.one, key)

    assert CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules()).mark(
        harness.one, key, in_full=True
    )

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is AssetState.DAMAGED
    assert list(row.copies.values()) == [CopyState.DAMAGED, CopyState.DAMAGED]
    assert "whole at no destination" in (row.reason or "")

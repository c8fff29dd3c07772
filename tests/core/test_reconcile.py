from __future__ import annotations

import json
from datetime import timedelta

import pytest

from archiver.core.judging import Scope
from archiver.core.records import keys
from archiver.core.records.commit import mark_damaged
from archiver.core.upkeep import review
from archiver.core.upkeep.reconcile import LOCK_NAME, LOCK_TTL, Reconciler
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.base import object_key
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock


class World:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.one, self.two = MemoryBackend("one"), MemoryBackend("two")
        self.stores = [self.one, self.two]

    def reconciler(self) -> Reconciler:
        return Reconciler(
            ledger=self.ledger, destinations=self.stores, scope=Scope(RETENTION), clock=self.clock
        )

    def state(self, asset: Asset) -> AssetState | None:
        row = self.ledger.get(asset.id)
        return row.state if row else None


def test_manifests_at_every_destination_rebuild_an_empty_ledger() -> None:
    world = World()
    assets = [asset(id=f"asset-{number}") for number in range(3)]
    for each in assets:
        archive_at(world.stores, each)

    result = world.reconciler().reconcile()

    assert result is not None
    assert (result.manifests, result.entered) == (3, 3)
    row = world.ledger.get("asset-1")
    assert row is not None
    assert row.state == AssetState.ARCHIVED
    assert (row.stored_bytes, row.stored_objects) == (102, 2)
    assert row.expires_at == assets[1].created_at + RETENTION if assets[1].created_at else False


def test_a_manifest_at_only_one_destination_proves_nothing_yet_and_is_not_forgotten() -> None:
    world = World()
    archive_at([world.one], asset())

    result = world.reconciler().reconcile()

    assert result is not None
    assert (result.entered, result.found) == (0, 1)
    assert world.state(asset()) is AssetState.DISCOVERED


def test_a_second_run_changes_nothing() -> None:
    world = World()
    archive_at(world.stores, asset())
    world.reconciler().reconcile()

    again = world.reconciler().reconcile()

    assert again is not None
    assert (again.entered, again.reopened, again.missing_copies, again.unreadable) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "state", [AssetState.DISCOVERED, AssetState.WAITING, AssetState.QUARANTINED, AssetState.LOST]
)
def test_a_manifest_everywhere_makes_an_asset_archived_whatever_the_ledger_says(state: AssetState) -> None:
    world = World()
    enter(world.ledger, asset(), state, "because")
    archive_at(world.stores, asset())

    world.reconciler().reconcile()

    assert world.state(asset()) == AssetState.ARCHIVED
    assert world.ledger.counts().balanced


KEPT = ("movie.mp4: it has 100 bytes, the API says 200",)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, AssetState.QUARANTINED),  # the ledger was lost
        (AssetState.LOST, AssetState.QUARANTINED),
        (AssetState.NEEDS_SOURCE_ACCESS, AssetState.QUARANTINED),
        (AssetState.QUARANTINED, AssetState.QUARANTINED),
        (AssetState.REJECTED, AssetState.REJECTED),
        (AssetState.WAITING, AssetState.WAITING),  # its next attempt finds the manifest
        (AssetState.DISCOVERED, AssetState.DISCOVERED),
    ],
)
def test_a_manifest_with_doubts_never_makes_an_asset_archived(
    before: AssetState | None, after: AssetState
) -> None:
    world = World()
    if before is not None:
        enter(world.ledger, asset(), before, "because")
    archive_at(world.stores, asset(), doubts=KEPT)

    world.reconciler().reconcile()

    assert world.state(asset()) == after
    assert world.ledger.counts().balanced


def test_what_one_destination_has_with_doubts_is_not_archived_when_the_ledger_is_rebuilt() -> None:
    world = World()
    archive_at([world.one], asset())
    archive_at([world.two], asset(), doubts=KEPT)

    world.reconciler().reconcile()

    row = world.ledger.get(asset().id)
    assert row
    assert (row.state, row.stored_objects) == (AssetState.QUARANTINED, 2)
    assert KEPT[0] in (row.reason or "")


def test_a_rejection_outlives_the_ledger() -> None:
    world = World()
    archive_at(world.stores, asset(), doubts=KEPT)
    enter(world.ledger, asset(), AssetState.QUARANTINED)
    review.reject(world.ledger, world.stores, asset().id, by="ann", why="a test", now=NOW)
    world.ledger.clear()

    world.reconciler().reconcile()

    assert world.state(asset()) is AssetState.REJECTED


def test_what_is_quarantined_and_gone_from_a_destination_is_due_again_and_at_risk() -> None:
    world = World()
    enter(world.ledger, asset(), AssetState.QUARANTINED)
    key = archive_at(world.stores, asset(), doubts=KEPT)
    world.two.delete(key)

    world.reconciler().reconcile()

    row = world.ledger.get(asset().id)
    assert row
    assert (row.state, row.stored_objects) == (AssetState.DISCOVERED, 0)


def test_an_asset_that_a_worker_holds_is_left_to_it() -> None:
    world = World()
    enter(world.ledger, asset(), AssetState.RUNNING)
    archive_at(world.stores, asset())

    world.reconciler().reconcile()

    assert world.state(asset()) == AssetState.RUNNING


def test_a_manifest_that_is_gone_makes_its_asset_due_again() -> None:
    world = World()
    enter(world.ledger, asset())
    key = archive_at(world.stores, asset())
    world.two.delete(key)

    result = world.reconciler().reconcile()

    assert result is not None
    assert result.reopened == 1
    assert world.state(asset()) == AssetState.DISCOVERED


def test_a_copy_that_is_gone_after_the_source_is_gone_needs_a_person_and_is_not_tried() -> None:
    world = World()
    enter(world.ledger, asset())
    world.two.delete(archive_at(world.stores, asset()))
    world.clock.advance(RETENTION)

    result = world.reconciler().reconcile()

    assert result is not None
    assert (result.reopened, result.missing_copies) == (0, 1)
    row = world.ledger.get(asset().id)
    assert row is not None
    assert row.state is AssetState.DAMAGED
    assert "not whole at memory://two" in (row.reason or "")
    assert "whole at memory://one" in (row.reason or "")


def test_a_copy_that_was_brought_back_makes_it_archived_again() -> None:
    world = World()
    enter(world.ledger, asset())
    key = archive_at(world.stores, asset())
    manifest = world.two.read(key)
    world.two.delete(key)
    world.clock.advance(RETENTION)
    world.reconciler().reconcile()

    put(world.two, key, manifest)
    world.reconciler().reconcile()

    assert world.state(asset()) is AssetState.ARCHIVED


def test_a_manifest_that_nobody_understands_is_counted_and_does_not_stop_the_others() -> None:
    world = World()
    archive_at(world.stores, asset(id="good"))
    for store in world.stores:
        put(store, keys.manifest_key("bad", asset().created_at), b"{not json")

    result = world.reconciler().reconcile()

    assert result is not None
    assert (result.entered, result.unreadable) == (1, 1)


def test_a_manifest_that_one_destination_cannot_read_or_took_back_enters_nothing() -> None:
    world = World()
    rubbish, damaged = asset(id="rubbish"), asset(id="damaged")
    for each in (rubbish, damaged):
        archive_at(world.stores, each)
    put(world.two, keys.manifest_key("rubbish", rubbish.created_at), b"{not json")
    mark_damaged(world.two, keys.manifest_key("damaged", damaged.created_at), ["movie.mp4: missing"])

    result = world.reconciler().reconcile()

    assert result is not None
    assert (result.entered, result.unreadable) == (0, 1)
    assert world.state(rubbish) is None
    assert world.state(damaged) is None


def test_nothing_is_concluded_when_a_destination_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    enter(world.ledger, asset())

    def unreachable(_prefix: str) -> object:
        raise TransientStorageError("list: 503")

    monkeypatch.setattr(world.two, "list", unreachable)

    with pytest.raises(TransientStorageError):
        world.reconciler().reconcile()

    assert world.state(asset()) == AssetState.ARCHIVED


def test_an_end_that_a_destination_has_no_record_of_is_written_there() -> None:
    world = World()
    enter(world.ledger, asset(), AssetState.LOST, "gone before it was saved")

    world.reconciler().reconcile()

    for store in world.stores:
        key = keys.end_record_key(asset().id, asset().created_at)
        record = json.loads(store.read(key, 0, 10_000))
        assert (record["state"], record["reason"]) == ("lost", "gone before it was saved")


def test_the_record_of_an_end_goes_when_its_asset_is_archived_after_all() -> None:
    world = World()
    enter(world.ledger, asset(), AssetState.QUARANTINED, "HTML")
    world.reconciler().reconcile()
    other = keys.end_record_key("other", asset().created_at)
    put(world.one, other, b"{}")
    archive_at(world.stores, asset())

    world.reconciler().reconcile()

    assert world.one.stat(keys.end_record_key(asset().id, asset().created_at)) is None
    assert world.one.stat(other) is not None, "only that of the archived one"


def test_while_another_run_is_at_it_nothing_is_done() -> None:
    world = World()
    archive_at(world.stores, asset())
    world.ledger.lock(LOCK_NAME, LOCK_TTL)

    assert world.reconciler().reconcile() is None
    assert world.state(asset()) is None

    world.clock.advance(LOCK_TTL + timedelta(seconds=1))
    assert world.reconciler().reconcile() is not None, "the lock of a run that died ends by itself"


def test_files_of_others_in_the_manifests_folder_are_left_alone() -> None:
    world = World()
    for store in world.stores:
        put(store, "manifests/readme.txt", b"hello")

    result = world.reconciler().reconcile()

    assert result is not None
    assert result.unreadable == 0
    assert world.one.stat(object_key("manifests/readme.txt")) is not None

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from archiver.core.records import keys, tombstones
from archiver.core.records.commit import mark_damaged
from archiver.core.records.tombstones import Tombstone
from archiver.core.upkeep import review
from archiver.core.upkeep.reconcile import LOCK_NAME, LOCK_TTL
from archiver.core.upkeep.reports import RECONCILE_FACT
from archiver.ledger.models import AssetState, CopyState
from storage_backends.base import ObjectKey, object_key
from storage_backends.errors import AccessDenied, TransientStorageError
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness


def test_manifests_at_every_destination_rebuild_an_empty_ledger() -> None:
    harness = ReconcileHarness()
    assets = [asset(id=f"asset-{number}") for number in range(3)]
    for each in assets:
        archive_at(harness.stores, each)

    result = harness.reconciler().reconcile()

    assert result is not None
    assert (result.manifests, result.entered) == (3, 3)
    row = harness.ledger.get("asset-1")
    assert row is not None
    assert row.state == AssetState.ARCHIVED
    assert (row.stored_bytes, row.stored_objects) == (102, 2)
    assert row.expires_at == assets[1].created_at + RETENTION if assets[1].created_at else False


def test_a_manifest_at_only_one_destination_does_not_archive_the_asset_and_is_not_forgotten() -> None:
    harness = ReconcileHarness()
    archive_at([harness.one], asset())

    result = harness.reconciler().reconcile()

    assert result is not None
    assert (result.entered, result.found) == (0, 1)
    assert harness.state(asset()) is AssetState.DISCOVERED


def test_a_second_run_changes_nothing() -> None:
    harness = ReconcileHarness()
    archive_at(harness.stores, asset())
    harness.reconciler().reconcile()

    again = harness.reconciler().reconcile()

    assert again is not None
    assert (again.entered, again.reopened, again.missing_copies, again.unreadable) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "state", [AssetState.DISCOVERED, AssetState.WAITING, AssetState.QUARANTINED, AssetState.LOST]
)
def test_a_manifest_everywhere_makes_an_asset_archived_whatever_the_ledger_says(state: AssetState) -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), state, "because")
    archive_at(harness.stores, asset())

    harness.reconciler().reconcile()

    assert harness.state(asset()) == AssetState.ARCHIVED
    assert harness.ledger.counts().balanced


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
    harness = ReconcileHarness()
    if before is not None:
        enter(harness.ledger, asset(), before, "because")
    archive_at(harness.stores, asset(), doubts=KEPT)

    harness.reconciler().reconcile()

    assert harness.state(asset()) == after
    assert harness.ledger.counts().balanced


def test_an_asset_with_doubts_at_one_destination_is_not_archived_when_the_ledger_is_rebuilt() -> None:
    harness = ReconcileHarness()
    archive_at([harness.one], asset())
    archive_at([harness.two], asset(), doubts=KEPT)

    harness.reconciler().reconcile()

    row = harness.ledger.get(asset().id)
    assert row
    assert (row.state, row.stored_objects) == (AssetState.QUARANTINED, 2)
    assert KEPT[0] in (row.reason or "")


def test_a_rejection_outlives_the_ledger() -> None:
    harness = ReconcileHarness()
    archive_at(harness.stores, asset(), doubts=KEPT)
    enter(harness.ledger, asset(), AssetState.QUARANTINED)
    review.reject(harness.ledger, harness.stores, asset().id, by="ann", why="a test", now=NOW)
    harness.ledger.clear()

    harness.reconciler().reconcile()

    assert harness.state(asset()) is AssetState.REJECTED


def test_what_is_quarantined_and_gone_from_a_destination_is_due_again_and_at_risk() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.QUARANTINED)
    key = archive_at(harness.stores, asset(), doubts=KEPT)
    harness.two.delete(key)

    harness.reconciler().reconcile()

    row = harness.ledger.get(asset().id)
    assert row
    assert (row.state, row.stored_objects) == (AssetState.DISCOVERED, 0)


def test_an_asset_that_a_worker_holds_is_left_to_it() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.RUNNING)
    archive_at(harness.stores, asset())

    harness.reconciler().reconcile()

    assert harness.state(asset()) == AssetState.RUNNING


def test_a_manifest_that_is_gone_makes_its_asset_due_again() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset())
    key = archive_at(harness.stores, asset())
    harness.note_whole(asset())
    harness.two.delete(key)

    result = harness.reconciler().reconcile()

    assert result is not None
    assert result.reopened == 1
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert (row.state, row.copies["memory://two"]) == (AssetState.DISCOVERED, CopyState.LACKING)


def test_a_copy_that_is_gone_after_the_source_is_gone_needs_a_person_and_is_not_tried() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset())
    harness.two.delete(archive_at(harness.stores, asset()))
    harness.clock.advance(RETENTION)

    result = harness.reconciler().reconcile()

    assert result is not None
    assert (result.reopened, result.missing_copies) == (0, 1)
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is AssetState.DAMAGED
    assert "not whole at memory://two" in (row.reason or "")
    assert "whole at memory://one" in (row.reason or "")


def test_a_copy_that_was_brought_back_makes_it_archived_again() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset())
    key = archive_at(harness.stores, asset())
    manifest = harness.two.read(key)
    harness.two.delete(key)
    harness.clock.advance(RETENTION)
    harness.reconciler().reconcile()

    put(harness.two, key, manifest)
    harness.reconciler().reconcile()

    assert harness.state(asset()) is AssetState.ARCHIVED


def test_an_invalid_manifest_is_counted_and_does_not_stop_the_others() -> None:
    harness = ReconcileHarness()
    archive_at(harness.stores, asset(id="good"))
    for store in harness.stores:
        put(store, keys.manifest_key("bad", asset().created_at), b"{not json")

    result = harness.reconciler().reconcile()

    assert result is not None
    assert (result.entered, result.unreadable) == (1, 1)


def test_a_manifest_that_is_unreadable_or_damaged_at_one_destination_makes_nothing_archived() -> None:
    harness = ReconcileHarness()
    rubbish, damaged = asset(id="rubbish"), asset(id="damaged")
    for each in (rubbish, damaged):
        archive_at(harness.stores, each)
    put(harness.two, keys.manifest_key("rubbish", rubbish.created_at), b"{not json")
    mark_damaged(harness.two, keys.manifest_key("damaged", damaged.created_at), ["movie.mp4: missing"])

    result = harness.reconciler().reconcile()

    assert result is not None
    assert (result.entered, result.unreadable) == (0, 1)
    assert harness.state(rubbish) is AssetState.DISCOVERED
    assert harness.state(damaged) is AssetState.DISCOVERED


def test_nothing_is_concluded_when_a_destination_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset())

    def unreachable(_prefix: str) -> object:
        raise TransientStorageError("list: 503")

    monkeypatch.setattr(harness.two, "list", unreachable)

    with pytest.raises(TransientStorageError):
        harness.reconciler().reconcile()

    assert harness.state(asset()) == AssetState.ARCHIVED


def test_an_end_that_a_destination_has_no_record_of_is_written_there() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.LOST, "gone before it was saved")

    harness.reconciler().reconcile()

    for store in harness.stores:
        key = keys.end_record_key(asset().id, asset().created_at)
        record = json.loads(store.read(key, 0, 10_000))
        assert (record["state"], record["reason"]) == ("lost", "gone before it was saved")


def test_the_end_record_of_an_asset_that_is_archived_later_is_deleted() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.QUARANTINED, "HTML")
    harness.reconciler().reconcile()
    other = keys.end_record_key("other", asset().created_at)
    put(harness.one, other, b"{}")
    archive_at(harness.stores, asset())

    harness.reconciler().reconcile()

    assert harness.one.stat(keys.end_record_key(asset().id, asset().created_at)) is None
    assert harness.one.stat(other) is not None, "only that of the archived one"


@pytest.mark.parametrize("prefix", [keys.ENDS, keys.MANIFESTS])
def test_what_is_outdated_or_came_back_is_deleted_in_order(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a set differs from one process to the next; the same run is to be the same."""
    harness = ReconcileHarness()
    assets = [asset(id=f"asset-{number}") for number in range(10)]
    for each in assets:
        if prefix == keys.ENDS:
            enter(harness.ledger, each, AssetState.LOST, "gone")
        else:
            tombstones.write(harness.one, Tombstone(each.id, AssetState.ERASED, "T-1", NOW))
    harness.reconcile()
    for each in assets:
        archive_at(harness.stores, each)
    deleted: list[ObjectKey] = []
    delete = harness.one.delete

    def note(key: ObjectKey) -> None:
        deleted.append(key)
        delete(key)

    monkeypatch.setattr(harness.one, "delete", note)
    harness.reconcile()

    found = [key for key in deleted if key.startswith(prefix) and not keys.is_tombstone(key)]
    assert len(set(found)) == len(assets)
    assert found == sorted(found)


def test_an_end_record_that_must_not_be_deleted_does_not_keep_the_reconcile_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.LOST, "gone")
    harness.reconcile()
    harness.ledger.forget(RECONCILE_FACT)
    archive_at(harness.stores, asset())

    def forbidden(_key: ObjectKey) -> None:
        raise AccessDenied("403: retained")

    monkeypatch.setattr(harness.one, "delete", forbidden)
    harness.reconcile()

    assert harness.state(asset()) is AssetState.ARCHIVED
    assert harness.ledger.recall(RECONCILE_FACT) is not None
    assert [list(store.list("ends/")) != [] for store in harness.stores] == [True, False]


def test_reconcile_does_nothing_while_another_one_is_running() -> None:
    harness = ReconcileHarness()
    archive_at(harness.stores, asset())
    harness.ledger.lock(LOCK_NAME, LOCK_TTL)

    assert harness.reconciler().reconcile() is None
    assert harness.state(asset()) is None

    harness.clock.advance(LOCK_TTL + timedelta(seconds=1))
    assert harness.reconciler().reconcile() is not None, "the lock of a run that died ends by itself"


def test_files_of_others_in_the_manifests_folder_are_left_alone() -> None:
    harness = ReconcileHarness()
    for store in harness.stores:
        put(store, "manifests/readme.txt", b"hello")

    result = harness.reconciler().reconcile()

    assert result is not None
    assert result.unreadable == 0
    assert harness.one.stat(object_key("manifests/readme.txt")) is not None


def test_what_each_destination_holds_is_noted() -> None:
    harness = ReconcileHarness()
    whole, lacked = asset(id="whole"), asset(id="lacked")
    harness.archive([whole, lacked])
    harness.two.delete(keys.manifest_key(lacked.id, lacked.created_at))

    harness.reconcile()

    row = harness.ledger.get("whole")
    assert row is not None
    assert row.copies == {"memory://one": CopyState.WHOLE, "memory://two": CopyState.WHOLE}
    assert harness.state(lacked) is AssetState.DISCOVERED, "100ms still has it"


@pytest.mark.parametrize(
    ("one", "two", "state"),
    [
        (CopyState.WHOLE, CopyState.LACKING, AssetState.ARCHIVED),
        (CopyState.WHOLE, CopyState.WHOLE, AssetState.DISCOVERED),
        (CopyState.DAMAGED, CopyState.LACKING, AssetState.DISCOVERED),
    ],
)
def test_what_was_archived_at_the_quorum_is_not_opened_again_but_replicated(
    one: CopyState, two: CopyState, state: AssetState
) -> None:
    """100ms may have deleted it early, and while it is open it is not replicated."""
    harness = ReconcileHarness()
    harness.archive([asset()])
    row = harness.ledger.get(asset().id)
    assert row is not None
    harness.ledger.note_copies(row, {"memory://one": one, "memory://two": two})
    harness.two.delete(keys.manifest_key(asset().id, asset().created_at))

    result = harness.reconcile()

    assert harness.state(asset()) is state
    assert (result.reopened, result.missing_copies) == ((0, 1) if state is AssetState.ARCHIVED else (1, 0))


def test_a_copy_that_never_was_is_replicated_and_one_that_vanished_is_damage() -> None:
    harness = ReconcileHarness()
    never, vanished = asset(id="never"), asset(id="vanished")
    harness.archive([never, vanished])
    row = harness.ledger.get("never")
    assert row is not None
    harness.ledger.note_copies(row, {"memory://one": CopyState.WHOLE, "memory://two": CopyState.LACKING})
    for each in (never, vanished):
        harness.two.delete(keys.manifest_key(each.id, each.created_at))
    harness.clock.now += RETENTION

    result = harness.reconcile()

    assert (result.missing_copies, result.damaged) == (2, 1)
    assert (harness.state(never), harness.state(vanished)) == (AssetState.ARCHIVED, AssetState.DAMAGED)
    damaged = harness.ledger.get("vanished")
    assert damaged is not None
    assert damaged.copies == {"memory://one": CopyState.WHOLE, "memory://two": CopyState.LACKING}


def _refuse(*_args: object, **_kwargs: object) -> bytes:
    raise TransientStorageError("memory://two: 503")


@pytest.mark.parametrize(
    ("there", "known"),
    [
        ("whole", CopyState.WHOLE),
        ("doubted", CopyState.DAMAGED),
        ("marked", CopyState.DAMAGED),
        ("without its objects", CopyState.DAMAGED),
        ("unreadable", CopyState.LACKING),
    ],
)
def test_a_copy_that_was_not_known_to_be_there_is_whole_only_if_its_manifest_shows_it(
    there: str, known: CopyState, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset())
    row = harness.ledger.get(asset().id)
    assert row is not None
    harness.ledger.note_copies(row, {"memory://one": CopyState.WHOLE, "memory://two": CopyState.LACKING})
    archive_at([harness.one], asset())
    key = archive_at([harness.two], asset(), doubts=("no moov",) if there == "doubted" else ())
    harness.ledger.remember(
        RECONCILE_FACT, {"at": (NOW + timedelta(days=2)).isoformat()}
    )  # nothing is suspect
    if there == "marked":
        mark_damaged(harness.two, key, ["it differs"])
    if there == "without its objects":
        for each in [name for name in harness.two.store.objects if name != key]:
            harness.two.delete(object_key(each))
    if there == "unreadable":
        monkeypatch.setattr(harness.two, "read", _refuse)

    harness.reconcile()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is AssetState.ARCHIVED
    assert row.copies == {"memory://one": CopyState.WHOLE, "memory://two": known}

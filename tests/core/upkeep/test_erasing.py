"""What is erased is gone everywhere, never comes back, and is not called erased before."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

import pytest

from archiver.core.health import find
from archiver.core.judging import Scope, as_known, judge
from archiver.core.records import end_records, keys, removal, tombstones
from archiver.core.records.check_records import Check, Records, read_records, write_records
from archiver.core.records.removal import Targets
from archiver.core.upkeep.catalogue import write_catalogue
from archiver.core.upkeep.erasing import ERASED, WORKER_STOPS, Eraser, Removal, locked_until
from archiver.core.upkeep.status import summarize
from archiver.hms.models import Asset
from archiver.ledger.models import AssetState, Decision, Seen
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, object_key
from storage_backends.errors import AccessDenied, TransientStorageError
from storage_backends.memory import MemoryBackend
from storage_backends.optional import NotDeleted, ObjectVersion
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

MANIFEST = keys.manifest_key(asset().id, asset().created_at)
TOMBSTONE = keys.tombstone_key(asset().id)
KEPT = asset(id="another")


class Harness(ReconcileHarness):
    """`asset()` and KEPT are archived at every store, with all that is kept of them."""

    def __init__(self, *stores: MemoryBackend) -> None:
        super().__init__(*stores)
        self.archive([asset(), KEPT])
        for store in self.stores:
            put(store, f"recordings/{asset().id}/!v2/movie.mp4", b"another version")
            put(store, f"recordings/{asset().id}/nobody-lists-this.mp4", b"?")
            put(store, keys.asset_folder(asset()) + "/unfinished.mp4", b"of an attempt before")
            put(store, f"recordings/{asset().id}-2/movie.mp4", b"of another asset")
            upload_key = object_key(f"recordings/{asset().id}/movie2.mp4")
            store.begin(ObjectSpec(upload_key, "video/mp4", 100, 10))
            store.begin(ObjectSpec(object_key(f"recordings/{KEPT.id}/movie2.mp4"), "video/mp4", 100, 10))
            write_catalogue(store, "2026-03")
            checks = Records(listed_at=NOW)
            for each in (asset(), KEPT):
                checks.checks.put(keys.manifest_key(each.id, each.created_at), Check(1, int(NOW.timestamp())))
            write_records(store, checks, NOW)
        end_records.write(
            self.stores, replace(self.seen(), verdict=AssetState.DISCOVERED), AssetState.DAMAGED, "Anna", NOW
        )

    def seen(self) -> Seen:
        row = self.ledger.get(asset().id)
        assert row is not None
        return as_known(row)

    def eraser(self) -> Eraser:
        return Eraser(ledger=self.ledger, destinations=self.stores, clock=self.clock)

    def erase(self, *assets: Asset, state: AssetState = AssetState.ERASED) -> list[Removal]:
        ids = [each.id for each in assets or (asset(),)]
        return list(self.eraser().erase(ids, ticket="GDPR-7", by="ann@desk", state=state))

    def check_all_gone(self) -> None:
        for store in self.stores:
            inside = {key: stored.data for key, stored in store.store.objects.items()}
            assert [key for key in inside if asset().id in key.split("/")] == []
            assert MANIFEST not in inside
            assert not [key for key in inside if key.startswith("ends/2026") and asset().id in key]
            uploads = [each.full_key for each in store.store.uploads.values()]
            assert uploads == [f"recordings/{KEPT.id}/movie2.mp4"]
            rows = csv.reader(io.StringIO(gzip.decompress(inside["catalogue/2026-03.csv.gz"]).decode()))
            assert [row[0] for row in rows] == ["asset_id", KEPT.id]
            checked = [key for key, _ in read_records(store, NOW).checks.items()]
            assert checked == [keys.manifest_key(KEPT.id, KEPT.created_at)]
            assert f"recordings/{asset().id}-2/movie.mp4" in inside
            assert keys.manifest_key(KEPT.id, KEPT.created_at) in inside
            record = json.loads(inside[TOMBSTONE])
            assert record.pop("done_at") is not None
            assert record == {
                "schema": "archiver.tombstone/1",
                "asset": asset().id,
                "state": "erased",
                "ticket": "GDPR-7",
                "at": record["at"],
            }
        row = self.ledger.get(asset().id)
        assert row is not None
        assert (row.state, row.reason) == (AssetState.ERASED, "GDPR-7")
        assert self.state(KEPT) is AssetState.ARCHIVED
        assert self.ledger.counts().balanced


def test_everything_of_an_asset_is_erased_at_every_destination_and_nothing_else() -> None:
    harness = Harness()

    (removal,) = harness.erase()

    assert removal == Removal(asset().id, AssetState.ERASED, "GDPR-7")
    harness.check_all_gone()
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert [(each.what, each.by, each.why) for each in row.history] == [(ERASED, "ann@desk", "GDPR-7")]


def test_erasing_again_changes_nothing() -> None:
    harness = Harness()
    first = harness.erase()
    before = harness.stores[0].store.objects[TOMBSTONE]

    assert harness.erase() == first
    assert harness.stores[0].store.objects[TOMBSTONE] == before


def test_an_asset_that_the_ledger_does_not_know_is_not_called_erased() -> None:
    harness = Harness()

    (removal,) = harness.erase(asset(id="unheard-of"))

    assert (removal.state, removal.is_done) == (None, False)


# -- it never comes back --------------------------------------------------------------------------------------
def test_no_reconcile_sweep_flush_or_new_destination_brings_it_back() -> None:
    harness = Harness()
    harness.erase()

    for day in range(30):
        harness.ledger.discover([harness.seen()])
        if day == 10:
            harness.ledger.clear()
        if day == 20:
            harness.stores.append(MemoryBackend("three"))
        harness.reconcile()
        assert harness.state(asset()) is AssetState.ERASED

    assert TOMBSTONE in harness.stores[2].store.objects
    assert harness.ledger.take_due(10, timedelta(hours=1)) == [] or all(
        row.asset_id != asset().id for row in harness.ledger.take_due(10, timedelta(hours=1))
    )


@pytest.mark.parametrize("flushed", [False, True])
def test_any_tombstone_beats_any_manifest(flushed: bool) -> None:
    harness = Harness()
    harness.erase()
    archive_at([harness.two], asset())  # an old bucket, a restored backup
    harness.one.delete(TOMBSTONE)
    if flushed:
        harness.ledger.clear()

    result = harness.reconcile()

    assert result.erased == 1
    assert harness.state(asset()) is AssetState.ERASED
    harness.two.store.uploads.clear()
    assert not [key for key in harness.two.store.objects if asset().id in key.split("/")]
    assert TOMBSTONE in harness.one.store.objects


def test_deleted_tombstones_are_written_again_as_long_as_the_ledger_knows() -> None:
    harness = Harness()
    harness.erase()
    for store in harness.stores:
        store.delete(TOMBSTONE)

    harness.reconcile()

    assert all(TOMBSTONE in store.store.objects for store in harness.stores)


def test_what_was_stored_while_a_rolled_back_ledger_had_it_open_is_removed() -> None:
    harness = Harness()
    harness.erase()
    harness.ledger.clear()
    enter(harness.ledger, KEPT)
    harness.ledger.discover([judge(asset(), Scope(RETENTION), NOW)])
    for store in harness.stores:  # by an attempt that was killed before it looked for a tombstone again
        put(store, keys.asset_folder(asset()) + "/movie.mp4", b"half of it")
        put(store, keys.end_record_key(asset().id, asset().created_at), b"{}")

    harness.reconcile()

    harness.check_all_gone()


def test_no_end_record_is_written_of_an_erased_asset() -> None:
    harness = Harness()
    seen = harness.seen()
    harness.erase()

    end_records.write(harness.stores, seen, AssetState.LOST, "gone", NOW)

    harness.check_all_gone()


def test_an_end_record_of_an_erased_asset_is_deleted_whatever_the_ledger_knew() -> None:
    harness = Harness()
    harness.erase()
    harness.ledger.clear()
    harness.reconcile()
    for store in harness.stores:
        put(store, keys.end_record_key(asset().id, asset().created_at), b"{}")

    harness.reconcile()

    for store in harness.stores:
        assert keys.end_record_key(asset().id, asset().created_at) not in store.store.objects


def test_only_a_person_un_erases_it() -> None:
    harness = Harness()
    harness.erase()

    row = harness.eraser().un_erase(asset().id, by="ann", why="the wrong one")

    assert row is not None
    assert row.state is AssetState.DISCOVERED
    assert row.history[-1].what == "un-erased"
    harness.reconcile()
    assert harness.state(asset()) is AssetState.DISCOVERED


# -- faults ---------------------------------------------------------------------------------------------------
class Killed(BaseException):
    pass


class Dies(MemoryBackend):
    """The process dies at the `left`-th call, before or after it took effect."""

    left = 10**9
    after = False

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if not self.after:
            self._count()
        info = super().put(spec, data, crc32c)
        if self.after:
            self._count()
        return info

    def delete(self, key: ObjectKey) -> None:
        if not self.after:
            self._count()
        super().delete(key)
        if self.after:
            self._count()

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self._count()
        return super().stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._count()
        return super().list(prefix)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("again", ["erase", "reconcile"])
def test_killed_at_any_step_it_ends_the_same(after: bool, flushed: bool, again: str) -> None:
    steps, killed = 0, True
    while killed:
        steps += 1
        store = Dies("two")
        harness = Harness(MemoryBackend("one"), store)
        store.left, store.after = steps, after
        try:
            harness.erase()
            killed = False
        except Killed:
            pass
        store.left = 10**9
        begun = any(TOMBSTONE in each.store.objects for each in harness.stores)
        if flushed:
            harness.ledger.clear()
            harness.reconcile()
        if again == "erase" or (flushed and not begun):
            harness.erase()
        harness.reconcile()
        harness.check_all_gone()
    assert steps > 15


def test_a_destination_that_fails_stops_everything_before_anything_is_removed() -> None:
    class Away(MemoryBackend):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            if away:
                raise TransientStorageError("503")
            return super().put(spec, data, crc32c)

    away = False
    harness = Harness(MemoryBackend("one"), Away("two"))
    away = True

    (removal,) = harness.erase()

    assert removal.state is AssetState.ERASING
    assert "503" in removal.reason
    assert MANIFEST in harness.one.store.objects
    away = False
    assert harness.reconcile().erased == 1
    harness.check_all_gone()


def test_a_destination_that_says_it_deleted_and_kept_is_found_out() -> None:
    class Liar(MemoryBackend):
        def delete(self, key: ObjectKey) -> None:
            if not lies:
                super().delete(key)

    lies = True
    harness = Harness(MemoryBackend("one"), Liar("two"))

    (removal,) = harness.erase()

    assert removal.state is AssetState.ERASING
    assert "memory://two" in removal.reason
    assert "still listed" in removal.reason
    result = harness.reconcile()
    assert (result.erased, result.erasing) == (0, 1)
    lies = False
    harness.reconcile()
    harness.check_all_gone()


def test_without_the_right_to_delete_it_says_what_is_left() -> None:
    class Refuses(MemoryBackend):
        def delete(self, key: ObjectKey) -> None:
            raise AccessDenied("not allowed to delete")

    harness = Harness(MemoryBackend("one"), Refuses("two"))

    (removal,) = harness.erase()

    assert removal.state is AssetState.ERASING
    assert "7 objects left at memory://two" in removal.reason
    assert "not allowed to delete" in removal.reason
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.reason is not None
    assert "not allowed to delete" in row.reason


class Versioned(MemoryBackend):
    """Keeps what is deleted as versions, some of which are locked."""

    locked: datetime | None = None
    clock_now: datetime = NOW
    secret = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.old: dict[str, ObjectKey] = {}

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        if self.secret:
            raise AccessDenied("s3:ListBucketVersions")
        for info in list(self.list(prefix)):
            yield ObjectVersion(info.key, f"now:{info.key}", True)
        for name, key in list(self.old.items()):
            if key.startswith(prefix):
                yield ObjectVersion(key, name, False)

    def delete_versions(self, chosen: Sequence[ObjectVersion]) -> list[NotDeleted]:
        refused = []
        for version in chosen:
            if self.locked and self.clock_now < self.locked and version.key.startswith("recordings/"):
                refused.append(NotDeleted(version, "AccessDenied", self.locked))
            elif version.is_current:
                super().delete(version.key)
            else:
                self.old.pop(version.id, None)
        return refused

    def delete(self, key: ObjectKey) -> None:
        self.old[f"{len(self.old)}"] = key
        super().delete(key)


def test_older_versions_are_erased_too() -> None:
    store = Versioned("two")
    harness = Harness(MemoryBackend("one"), store)
    store.old = {
        "a": MANIFEST,
        "b": object_key(f"recordings/{asset().id}/x.mp4"),
        "c": object_key("else.mp4"),
    }

    (removal,) = harness.erase()

    assert removal.is_done
    assert store.old == {"c": "else.mp4"}
    harness.check_all_gone()


def test_versions_that_may_not_be_listed_are_named_as_what_may_remain() -> None:
    store = Versioned("two")
    harness = Harness(MemoryBackend("one"), store)
    store.secret = True

    (removal,) = harness.erase()

    assert removal.state is AssetState.ERASING
    assert "older versions may be kept" in removal.reason
    assert "s3:ListBucketVersions" in removal.reason


def test_a_lock_is_told_with_its_date_remembered_and_erased_then() -> None:
    store = Versioned("two")
    harness = Harness(MemoryBackend("one"), store)
    store.locked = NOW + timedelta(days=10)

    (removal,) = harness.erase()

    assert removal.locked_until == store.locked
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert locked_until(row) == store.locked
    assert row.reason is not None
    assert "a lock lasts until 2026-03-11" in row.reason
    harness.ledger.clear()  # it is remembered in the bucket, too
    harness.reconcile()
    again = harness.ledger.get(asset().id)
    assert again is not None
    assert locked_until(again) == store.locked
    harness.clock.now = store.clock_now = NOW + timedelta(days=10)
    assert harness.reconcile().erased == 1
    assert [key for key in store.store.objects if asset().id in key.split("/")] == []
    assert harness.state(asset()) is AssetState.ERASED


def test_a_worker_that_copies_it_loses_its_lease_and_what_it_still_stored_is_removed() -> None:
    harness = Harness()
    harness.ledger.reopen(asset().id)
    lease = harness.ledger.lease(asset().id, "w1", timedelta(minutes=2))
    assert lease is not None

    (removal,) = harness.erase()

    assert removal.state is AssetState.ERASING
    assert "a worker was copying it" in removal.reason
    put(harness.one, keys.asset_folder(asset()) + "/late.mp4", b"the last request")
    harness.reconcile()
    assert harness.state(asset()) is AssetState.ERASING
    harness.clock.now += WORKER_STOPS
    harness.reconcile()
    harness.check_all_gone()


def test_two_who_erase_at_once_do_no_harm() -> None:
    harness = Harness()
    ended: list[Removal] = []
    threads = [threading.Thread(target=lambda: ended.extend(harness.erase())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    harness.reconcile()

    assert len(ended) == 4
    harness.check_all_gone()


def test_a_manifest_that_another_process_removes_while_it_is_read_is_gone() -> None:
    class Racing(MemoryBackend):
        def read(
            self,
            key: ObjectKey,
            start: int = 0,
            length_bytes: int | None = None,
            *,
            if_match: str | None = None,
        ) -> bytes:
            if key == MANIFEST:
                self.delete(key)
            return super().read(key, start, length_bytes, if_match=if_match)

    harness = ReconcileHarness(Racing("one"))
    harness.archive([asset()])
    eraser = Eraser(ledger=harness.ledger, destinations=harness.stores, clock=harness.clock)

    (removal,) = eraser.erase([asset().id], ticket="T-1")

    assert removal.state is AssetState.ERASED


def test_a_manifest_that_names_a_folder_of_others_erases_nothing_of_them() -> None:
    harness = ReconcileHarness()
    harness.archive([asset(), KEPT])
    for store in harness.stores:
        stored = json.loads(store.store.objects[MANIFEST].data)
        put(store, MANIFEST, json.dumps({**stored, "folder": "recordings"}).encode())

    list(
        Eraser(ledger=harness.ledger, destinations=harness.stores, clock=harness.clock).erase(
            [asset().id], ticket="T-1"
        )
    )

    assert f"recordings/{KEPT.id}/movie.mp4" in harness.one.store.objects


def test_an_asset_with_the_id_of_a_room_does_not_take_the_recordings_of_the_room_with_it() -> None:
    harness = ReconcileHarness()
    harness.archive([asset(), KEPT])
    room = f"recordings/{asset().id}"  # what the manifest names: not a folder that a template gives
    for store in harness.stores:
        put(store, f"{room}/{KEPT.id}/movie.mp4", b"of another asset")
    eraser = Eraser(ledger=harness.ledger, destinations=harness.stores, clock=harness.clock)

    (ended,) = eraser.erase([asset().id], ticket="T-1")

    assert ended.state is AssetState.ERASING
    assert f"{room} ({KEPT.id})" in ended.reason
    for store in harness.stores:
        assert f"{room}/{KEPT.id}/movie.mp4" in store.store.objects
        assert MANIFEST in store.store.objects, "nothing is removed"
        store.delete(MANIFEST)  # as the reason says

    (ended,) = eraser.resume([asset().id])

    assert ended.state is AssetState.ERASED
    assert f"{room}/{KEPT.id}/movie.mp4" in harness.one.store.objects


OLD = "b" * 24
"""An asset of an earlier layout, with a whole copy."""


@pytest.mark.parametrize("known", [True, False], ids=["in the ledger", "unknown to the ledger"])
@pytest.mark.parametrize(
    ("folder", "theirs", "template"),
    [
        ("recordings/room/ID", f"recordings/room/ID/composite/{OLD}", "recordings/{room_id}/{asset_id}"),
        ("recordings/ID", f"recordings/ID/session/composite/{OLD}", "recordings/{asset_id}"),
        ("ID", f"ID/room/{OLD}", "{asset_id}"),
        ("recordings/ID", f"recordings/ID/{OLD}", keys.DEFAULT_TEMPLATE),
        (f"recordings/room/{OLD}/ID", f"recordings/room/{OLD}", keys.DEFAULT_TEMPLATE),
    ],
)
def test_no_layout_makes_a_folder_of_others_one_that_is_erased(
    folder: str, theirs: str, template: str, known: bool
) -> None:
    harness = ReconcileHarness()
    hostile, other = asset(), asset(id=OLD)
    harness.archive([hostile])
    if known:
        enter(harness.ledger, other)
    folder, theirs = folder.replace("ID", hostile.id), theirs.replace("ID", hostile.id)
    for store in harness.stores:
        stored = json.loads(store.store.objects[MANIFEST].data)
        put(store, MANIFEST, json.dumps({**stored, "folder": folder}).encode())
        put(store, f"{theirs}/movie.mp4", b"of another asset")
        elsewhere = {**stored, "asset_id": OLD, "asset": other.raw, "folder": theirs}
        put(store, keys.manifest_key(OLD, other.created_at), json.dumps(elsewhere).encode())
    eraser = Eraser(
        ledger=harness.ledger, destinations=harness.stores, clock=harness.clock, key_template=template
    )

    (ended,) = eraser.erase([hostile.id], ticket="T-1")

    assert ended.state is AssetState.ERASING
    assert OLD in ended.reason
    assert all(f"{theirs}/movie.mp4" in store.store.objects for store in harness.stores)


@pytest.mark.parametrize(
    ("folder", "template", "fits"),
    [
        ("recordings/r/s/t/id", keys.DEFAULT_TEMPLATE, True),
        ("recordings/r/s/t/id/!v2", keys.DEFAULT_TEMPLATE, True),
        ("recordings/id", keys.DEFAULT_TEMPLATE, False),
        ("recordings/r/s/id", keys.DEFAULT_TEMPLATE, False),
        ("recordings/r/s/id/other", keys.DEFAULT_TEMPLATE, False),
        ("elsewhere/r/s/t/id", keys.DEFAULT_TEMPLATE, False),
        ("id/r", "{asset_id}/{room_id}", True),
        ("r/id", "{asset_id}/{room_id}", False),
    ],
)
def test_a_folder_fits_a_template_by_its_depth_and_where_the_id_is(
    folder: str, template: str, fits: bool
) -> None:
    assert keys.fits_template("id", folder, template) is fits


def test_thousands_are_erased_in_batches_and_only_asked_for_as_they_are_needed() -> None:
    harness = ReconcileHarness(MemoryBackend("one"))
    many = [asset(id=f"asset-{number:05}") for number in range(2500)]
    for each in many:
        enter(harness.ledger, each)
    archive_at(harness.stores, many[0])
    asked = 0

    def ids() -> Iterator[str]:
        nonlocal asked
        for each in many:
            asked += 1
            yield each.id

    eraser = Eraser(ledger=harness.ledger, destinations=harness.stores, clock=harness.clock)
    removals = eraser.erase(ids(), ticket="T-1")

    next(removals)
    assert asked < 2500
    assert sum(each.is_done for each in removals) == 2499
    assert harness.states() == {AssetState.ERASED: 2500}


def test_ids_that_nobody_knows_are_looked_for_together() -> None:
    listed: list[str] = []

    class Listing(MemoryBackend):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            listed.append(prefix)
            return super().list(prefix)

    harness = ReconcileHarness(Listing("one"))
    eraser = Eraser(ledger=harness.ledger, destinations=harness.stores, clock=harness.clock)

    removals = list(eraser.erase([f"unheard-of-{number}" for number in range(350)], ticket="T-1"))

    assert [each.state for each in removals] == [None] * 350
    assert listed == [keys.MANIFESTS]


@pytest.mark.parametrize("operation", ["list", "delete"])
def test_an_asset_that_fails_does_not_keep_those_beside_it(operation: str) -> None:
    many = [asset(id=f"asset-{number:05}") for number in range(20)]
    harness = ReconcileHarness(MemoryBackend("one"))
    harness.archive(many)

    class Failing(MemoryBackend):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            for info in super().list(prefix):
                if operation == "list" and "asset-00007/" in info.key:
                    raise TransientStorageError("503")
                yield info

        def delete(self, key: ObjectKey) -> None:
            if operation == "delete" and "asset-00007/" in key:
                raise TransientStorageError("503")
            super().delete(key)

    whole = harness.stores[0]
    harness.stores[0] = Failing("one", store=whole.store)
    eraser = Eraser(ledger=harness.ledger, destinations=harness.stores, clock=harness.clock)

    removals = list(eraser.erase([each.id for each in many], ticket="T-1"))

    (failed,) = [each for each in removals if not each.is_done]
    assert failed.asset_id == "asset-00007"
    assert "503" in failed.reason
    assert harness.states() == {AssetState.ERASED: 19, AssetState.ERASING: 1}
    harness.stores[0] = whole
    assert harness.reconcile().erased == 1


def test_a_server_that_loses_its_place_in_a_list_is_asked_again() -> None:
    class Forgetful(MemoryBackend):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            return islice(super().list(prefix), 1000)

    store = Forgetful("one")
    for number in range(2005):
        put(store, f"recordings/{asset().id}/{number}.ts", b"x")
    targets = Targets([object_key(f"recordings/{asset().id}")], [])

    why = removal.remove(store, targets)

    assert not removal.what_is_left(store, targets, why)
    assert store.store.objects == {}


def test_status_names_what_cannot_be_erased_and_only_notes_what_a_lock_keeps() -> None:
    store = Versioned("two")
    harness = Harness(MemoryBackend("one"), store)
    store.locked = NOW + timedelta(days=10)
    harness.erase()
    store.locked, store.secret = None, True
    harness.erase(KEPT)

    summary = summarize(
        harness.ledger, NOW, at_risk_within=timedelta(days=3), sweep_every=timedelta(minutes=5)
    )

    found = {each.id: each for each in find(summary)}
    assert found["erasure_unfinished"].is_problem
    assert f"1 not erased yet. {KEPT.id}: GDPR-7: " in found["erasure_unfinished"].text
    assert not found["erasure_waits"].is_problem
    assert "the first on 2026-03-11" in found["erasure_waits"].text


# -- tickets --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ticket", ["GDPR-123", "REQ20260117", "#4711", "privacy/2026-17", "T-1", "12345"])
def test_a_ticket_code_is_accepted(ticket: str) -> None:
    assert tombstones.is_ticket(ticket)


@pytest.mark.parametrize(
    "text",
    [
        "Anna",
        "Anna Smith",
        "anna@example.com",
        "anna.smith-7@x",
        "Smith-1",
        "SMITH",
        "asked by Anna 17",
        "",
        "A" * 50,
    ],
)
def test_a_name_or_an_address_is_not(text: str) -> None:
    assert not tombstones.is_ticket(text)


def test_an_unreadable_tombstone_is_a_tombstone() -> None:
    store = MemoryBackend("one")
    put(store, TOMBSTONE, b"{{{")

    found = tombstones.read(store, asset().id)

    assert found is not None
    assert (found.asset_id, found.is_done) == (asset().id, False)


def test_the_history_names_who_asked_and_the_tombstone_does_not() -> None:
    harness = Harness()
    harness.erase()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.history == (Decision(ERASED, "ann@desk", "GDPR-7", NOW),)
    assert b"ann" not in harness.one.store.objects[TOMBSTONE].data

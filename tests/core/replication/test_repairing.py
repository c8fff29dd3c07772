"""One asset is brought to the destinations that lack it or hold it damaged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from archiver.core.destinations.checked import CHECK_EVERY, Destinations
from archiver.core.destinations.guarded import guarded
from archiver.core.judging import as_known
from archiver.core.records import keys, tombstones
from archiver.core.records.commit import mark_damaged
from archiver.core.records.tombstones import Tombstone
from archiver.core.replication.repairer import Result
from archiver.ledger.models import AssetState, CopyState, Settlement
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import AccessDenied, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at
from tests.core.examples import asset
from tests.core.replication.harness import DAMAGED, FILES, LACKING, WHOLE, ReplicationHarness, Store, put


def key_of(store: Store, path: str) -> str:
    return next(key for key in store.store.objects if key.endswith(path))


def test_what_a_destination_lacks_is_copied_after_the_source_is_gone() -> None:
    harness = ReplicationHarness()
    made = harness.archive()
    one, two = harness.stores

    repaired = harness.repair(made)

    assert repaired.result is Result.COPIED
    assert (repaired.copied_objects, repaired.copied_bytes) == (3, sum(map(len, FILES.values())))
    assert harness.is_whole(two, made)
    assert harness.copies(made) == [WHOLE, WHOLE]
    assert harness.row(made).state is AssetState.ARCHIVED
    assert harness.row(made).leased_until is None
    assert two.writes[-1] == keys.manifest_key(made.id, made.created_at)
    assert two.writes[-2].endswith(".m3u8"), "playlists after what they name"
    assert not one.writes
    manifest = harness.manifest(two, made)
    assert manifest is not None
    assert manifest.rank > 0


def test_again_is_nothing_to_do() -> None:
    harness = ReplicationHarness()
    made = harness.archive()
    harness.repair(made)
    written = len(harness.stores[1].writes)

    assert harness.repair(made).result is Result.NOTHING_TO_DO
    assert len(harness.stores[1].writes) == written


def test_a_damaged_asset_with_a_whole_twin_repairs_itself() -> None:
    harness = ReplicationHarness()
    _one, two = harness.stores
    made = harness.archive(at=harness.stores, state=AssetState.DAMAGED)
    two.damage(key_of(two, "movie.mp4"))
    mark_damaged(two, keys.manifest_key(made.id, made.created_at), ["movie.mp4: CRC32C"])
    harness.ledger.keep_events(timedelta(days=100))

    repaired = harness.repair(made)

    assert repaired.result is Result.COPIED
    assert harness.is_whole(two, made)
    assert harness.row(made).state is AssetState.ARCHIVED
    assert harness.row(made).reason is None
    assert harness.copies(made) == [WHOLE, WHOLE]
    assert [event.row.state for event in harness.ledger.events(5)] == [AssetState.ARCHIVED]


def test_what_has_doubts_is_quarantined_again_not_archived() -> None:
    harness = ReplicationHarness()
    made = harness.archive(state=AssetState.DAMAGED, doubts=("a segment is missing",))

    harness.repair(made)

    assert harness.row(made).state is AssetState.QUARANTINED
    assert harness.copies(made) == [WHOLE, WHOLE]


def test_a_copy_that_turns_out_damaged_is_marked_and_another_one_is_read_and_both_are_repaired() -> None:
    harness = ReplicationHarness(Store("one"), Store("two"), Store("three"))
    one, _two, three = harness.stores
    made = harness.archive(at=[one, three])
    one.damage(key_of(one, "movie.mp4"))

    repaired = harness.repair(made, preferred=one.name)

    assert repaired.result is Result.COPIED
    assert all(harness.is_whole(store, made) for store in harness.stores)
    assert harness.copies(made) == [WHOLE, WHOLE, WHOLE]
    assert harness.row(made).state is AssetState.ARCHIVED


def test_the_only_copy_turns_out_damaged() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive()
    one.damage(key_of(one, "movie.mp4"))

    repaired = harness.repair(made)

    assert repaired.result is Result.FAILED
    assert "no destination holds it whole" in repaired.reason
    assert harness.row(made).state is AssetState.DAMAGED
    assert harness.copies(made) == [DAMAGED, LACKING]
    manifest = harness.manifest(one, made)
    assert manifest is not None
    assert manifest.damage
    assert harness.manifest(two, made) is None, "nothing is committed of a damaged copy"


def test_a_damaged_only_copy_is_copied_from_100ms_while_that_has_it() -> None:
    harness = ReplicationHarness()
    made = harness.archive(over=False)
    harness.stores[0].damage(key_of(harness.stores[0], "movie.mp4"))

    harness.repair(made)

    assert harness.row(made).state is AssetState.DISCOVERED


@pytest.mark.parametrize("over", [True, False], ids=["100ms has deleted it", "100ms has it"])
def test_what_is_whole_nowhere_is_not_archived(over: bool) -> None:
    harness = ReplicationHarness()
    one, _two = harness.stores
    made = harness.archive(over=over)
    del one.store.objects[key_of(one, "movie.mp4")]

    repaired = harness.repair(made)

    assert repaired.result is Result.FAILED
    assert harness.row(made).state is (AssetState.DAMAGED if over else AssetState.DISCOVERED)


def test_a_missing_object_is_damage_and_one_bad_answer_is_none() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive()
    whole = one.store.objects[key_of(one, "seg.ts")]
    one.damage(key_of(one, "seg.ts"))

    def once(key: str) -> None:
        if key.endswith("seg.ts") and one.reads.count(key) == 1:
            one.store.objects[key] = whole

    one.on_read = once

    assert harness.repair(made).result is Result.FAILED, "it is tried again by the next run"
    assert harness.row(made).state is AssetState.ARCHIVED
    assert harness.copies(made) == [WHOLE, LACKING]
    assert harness.repair(made).result is Result.COPIED
    assert harness.is_whole(two, made)


@pytest.mark.parametrize("error", [TransientStorageError("503"), AccessDenied("403: the wrong role")])
def test_a_destination_that_fails_half_way_keeps_its_work_for_the_next_run(error: StorageError) -> None:
    harness = ReplicationHarness()
    _one, two = harness.stores
    made = harness.archive()

    def vanish(key: str) -> None:
        if key.endswith("seg.ts"):
            raise error

    two.on_write = vanish

    failed = harness.repair(made)

    assert failed.result is Result.FAILED
    assert two.name in failed.reason
    assert type(error).__name__ in failed.reason
    assert harness.copies(made) == [WHOLE, LACKING]
    assert harness.manifest(two, made) is None
    assert harness.row(made).leased_until is None

    two.on_write = lambda _key: None
    assert harness.repair(made).result is Result.COPIED
    assert harness.is_whole(two, made)


def test_a_destination_that_does_not_answer_is_named_and_the_whole_copy_not_denied() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=[one, two])

    def refuse(_key: str) -> None:
        raise TransientStorageError("503")

    two.on_read = refuse

    failed = harness.repair(made)

    assert failed.result is Result.FAILED
    assert two.name in failed.reason
    assert "no destination holds it whole" not in failed.reason


@pytest.mark.parametrize("error", [TransientStorageError("503"), AccessDenied("403: the wrong role")])
def test_a_source_that_cannot_be_read_is_not_damage_and_another_one_is_read(error: StorageError) -> None:
    harness = ReplicationHarness(Store("one"), Store("two"), Store("three"))
    one, two, three = harness.stores
    made = harness.archive(at=[one, two])

    def refuse(key: str) -> None:
        if key.endswith("movie.mp4"):
            raise error

    manifest_before = harness.manifest(one, made)
    one.on_read = refuse

    assert harness.repair(made, preferred=one.name).result is Result.COPIED
    assert harness.is_whole(three, made)
    assert harness.copies(made) == [WHOLE, WHOLE, WHOLE]
    assert harness.manifest(one, made) == manifest_before


def test_nothing_that_another_manifest_lists_is_overwritten() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=[one], state=AssetState.DAMAGED)
    other = {"movie.mp4": b"another version", "gone.ts": b"x"}
    archive_at([two], made, other)
    key = keys.manifest_key(made.id, made.created_at)
    two.delete(key_of(two, "gone.ts"))  # type: ignore[arg-type]
    mark_damaged(two, key, ["gone.ts: missing"])
    before = two.store.objects[key_of(two, "movie.mp4")].data

    assert harness.repair(made).result is Result.COPIED

    manifest = harness.manifest(two, made)
    assert manifest is not None
    assert manifest.folder.endswith("/!v2")
    assert harness.is_whole(two, made)
    assert before in [stored.data for stored in two.store.objects.values()]


def test_what_a_worker_has_or_what_is_not_stored_is_left_alone() -> None:
    harness = ReplicationHarness()
    running, lost = asset(id="running"), asset(id="lost")
    harness.archive(running, state=AssetState.RUNNING)
    harness.archive(lost, at=[], state=AssetState.LOST)

    assert harness.repair(running).result is Result.BUSY
    assert harness.repair(lost).result is Result.NOT_STORED
    assert harness.repair(asset(id="unknown")).result is Result.NOT_STORED
    assert harness.row(lost).state is AssetState.LOST


def test_two_repairs_of_one_asset_are_one() -> None:
    harness = ReplicationHarness()
    made = harness.archive()
    results: list[Result] = []
    one = harness.stores[0]

    def meanwhile(_key: str) -> None:
        if len(results) == 0:
            results.append(Result.STOPPED)
            results.append(harness.repair(made).result)

    one.on_stat = meanwhile

    assert harness.repair(made).result is Result.COPIED
    assert results[1] is Result.BUSY


@pytest.mark.parametrize("own", [True, False], ids=["by the store", "through here"])
def test_a_store_that_copies_by_itself_is_verified_afterwards(own: bool) -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    if own:
        two.store = one.store
        two._prefix = "second/"
    made = harness.archive()

    assert harness.repair(made).result is Result.COPIED
    passed = [key for key in one.reads if key.endswith("movie.mp4")]
    assert bool(passed) is not own
    assert MemoryBackend.stat(two, keys.manifest_key(made.id, made.created_at)) is not None
    assert harness.copies(made) == [WHOLE, WHOLE]


def test_a_copy_by_the_store_of_a_damaged_object_is_found() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    two.store = one.store
    two._prefix = "second/"
    made = harness.archive()
    key = key_of(one, "movie.mp4")
    with_other_checksum = one.store.objects[key]
    one.damage(key)
    info = with_other_checksum.info
    one.store.objects[key] = type(with_other_checksum)(
        one.store.objects[key].data, type(info)(info.key, info.size_bytes, None, info.etag), {}, "x"
    )

    repaired = harness.repair(made)

    assert repaired.result is Result.FAILED
    assert harness.copies(made)[0] is DAMAGED
    assert harness.manifest(two, made) is None


@pytest.mark.parametrize("state", [AssetState.ERASED, AssetState.EXPIRED])
def test_a_tombstone_at_any_destination_beats_every_copy(state: AssetState) -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive()
    tombstones.write(one, Tombstone(made.id, state, "GDPR-1", harness.clock(), harness.clock()))

    assert harness.repair(made).result is Result.NOT_STORED
    assert not two.writes
    assert harness.row(made).state is AssetState.ERASING


def test_an_erasure_during_the_copy_wins_and_reconcile_removes_what_was_copied() -> None:
    harness = ReplicationHarness()
    _one, two = harness.stores
    made = harness.archive()

    def erase(_key: str) -> None:
        two.on_write = lambda _key: None
        tombstones.write(two, Tombstone(made.id, AssetState.ERASED, "GDPR-1", harness.clock()))
        harness.ledger.remove(as_known(harness.row(made)), Settlement(AssetState.ERASED))

    two.on_write = erase

    assert harness.repair(made).result in (Result.BUSY, Result.NOT_STORED)
    assert harness.manifest(two, made) is None
    assert harness.row(made).state is AssetState.ERASING


def test_what_was_copied_below_a_mount_point_is_copied_again() -> None:
    """Older objects of the same size, on the disk that was not mounted, are not taken for it."""
    harness = ReplicationHarness()
    two = harness.stores[1]
    harness.archive(asset(id="asset-0"), at=harness.stores)
    made = harness.archive()
    manifest = harness.manifest(harness.stores[0], made)
    assert manifest is not None
    for path, data in FILES.items():
        put(two, f"{manifest.folder}/{path}", b"?" * len(data))
    destinations = Destinations(
        ledger=harness.ledger,
        stores=harness.stores,
        workspace="ours",
        clock=harness.clock,
        machine="host",
        pause=lambda _seconds: None,
    )
    destinations.check_all()
    harness.repairer = harness.repairer_of(guarded(harness.stores, destinations))
    disk = dict(two.store.objects)

    def is_unmounted(key: str) -> None:
        if key.endswith(".m3u8"):  # all else is written, and not recorded yet
            two.store.objects.clear()
            raise TransientStorageError("no answer")
        two.store.objects.pop(key, None)

    two.on_write = is_unmounted
    assert harness.repair(made).result is Result.FAILED
    two.store.objects.clear()
    two.store.objects.update(disk)
    two.on_write = lambda _key: None
    harness.clock.advance(CHECK_EVERY)

    assert harness.repair(made).result is Result.COPIED
    assert harness.is_whole(two, made)


def test_damage_that_the_store_did_not_let_us_mark_is_not_forgotten() -> None:
    """A write-once store: the ledger alone knows that a copy is damaged, which is whole by its sizes."""
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=harness.stores, state=AssetState.DAMAGED)
    two.damage(key_of(two, "movie.mp4"))
    refusal = AccessDenied("the retention policy forbids to replace it")
    row = harness.row(made)

    def refuse(_key: str) -> None:
        raise refusal

    two.on_write = refuse
    for known in ({}, {one.name: WHOLE}, {one.name: WHOLE, two.name: DAMAGED}):
        harness.ledger.note_copies(row, known)

        assert harness.repair(made).result is Result.FAILED
        assert harness.row(made).state is AssetState.DAMAGED
        assert harness.copies(made) == [WHOLE, DAMAGED]

    two.on_write = lambda _key: None
    assert harness.repair(made).result is Result.COPIED
    assert harness.row(made).state is AssetState.ARCHIVED
    assert harness.is_whole(two, made)


class WriteOnce(Store):
    """As the real backends: what is refused counts as written if the checksum that the store keeps is right."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key in self.store.objects:
            refusal = AccessDenied("the retention policy forbids to replace it")
            return equal_or_raise(refusal, self, spec.key, len(data), crc32c)
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> Any:
        if spec.key in self.store.objects:
            return UploadOfEqual.instead(
                self, spec, AccessDenied("the retention policy forbids to replace it")
            )
        return super().begin(spec)


@pytest.mark.parametrize("path", ["movie.mp4", "seg.ts"], ids=["in parts", "in one request"])
def test_a_refused_write_is_no_repair_though_the_store_tells_the_right_checksum(path: str) -> None:
    harness = ReplicationHarness(Store("one"), WriteOnce("two"))
    one, two = harness.stores
    made = harness.archive(at=harness.stores, state=AssetState.DAMAGED)
    two.damage(key_of(two, path))
    harness.ledger.note_copies(harness.row(made), {one.name: WHOLE, two.name: DAMAGED})

    for _ in range(2):  # the second one resumes
        failed = harness.repair(made)

        assert failed.result is Result.FAILED
        assert f"memory://two did not replace what is damaged there: {path}" in failed.reason
        assert harness.copies(made) == [WHOLE, DAMAGED]
        assert harness.row(made).state is AssetState.DAMAGED


@pytest.mark.parametrize("hidden", [True, False], ids=["cannot be marked", "is marked"])
def test_what_an_attempt_would_take_for_whole_is_not_copied_again_from_100ms(hidden: bool) -> None:
    """Both copies have rotted, and 100ms still has the asset: an attempt goes by manifests and lists."""
    harness = ReplicationHarness(Store("one"), WriteOnce("two") if hidden else Store("two"))
    one, two = harness.stores
    made = harness.archive(at=harness.stores, state=AssetState.DAMAGED, over=False)
    for store in (one, two):
        store.damage(key_of(store, "movie.mp4"))
    if not hidden:
        mark_damaged(two, keys.manifest_key(made.id, made.created_at), ["it differs"])
    harness.ledger.note_copies(harness.row(made), {one.name: WHOLE, two.name: DAMAGED})

    assert harness.repair(made).result is Result.FAILED

    assert harness.row(made).state is (AssetState.DAMAGED if hidden else AssetState.DISCOVERED)
    assert harness.copies(made) == [DAMAGED, DAMAGED]


def test_damage_that_a_person_has_restored_is_known_by_every_byte() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=harness.stores, state=AssetState.DAMAGED)
    harness.ledger.note_copies(harness.row(made), {one.name: WHOLE, two.name: DAMAGED})

    assert harness.repair(made).result is Result.NOTHING_TO_DO
    assert harness.row(made).state is AssetState.ARCHIVED
    assert not one.writes + two.writes


def test_a_copy_with_doubts_beside_what_was_archived_at_the_quorum_is_replaced() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=[one])
    archive_at([two], made, {"movie.mp4": b"half of it"}, ("a segment is missing",))
    harness.ledger.note_copies(harness.row(made), {one.name: WHOLE, two.name: DAMAGED})

    assert harness.repair(made).result is Result.COPIED
    assert harness.copies(made) == [WHOLE, WHOLE]
    assert harness.is_whole(two, made)
    assert any(each.data == b"half of it" for each in two.store.objects.values()), "nothing is overwritten"


@pytest.mark.parametrize(
    ("archived", "known", "after"),
    [
        ("silent", {}, {}),
        ("silent", {"one": WHOLE, "two": DAMAGED}, {"one": WHOLE, "two": DAMAGED}),
        ("not mounted", {}, {"one": LACKING}),
        ("not mounted", {"one": WHOLE, "two": DAMAGED}, {"one": WHOLE, "two": DAMAGED}),
        ("damaged", {}, {"one": DAMAGED, "two": DAMAGED}),
        ("damaged", {"one": WHOLE, "two": DAMAGED}, {"one": DAMAGED, "two": DAMAGED}),
    ],
)
def test_a_copy_with_doubts_is_not_called_whole_while_the_one_that_was_archived_is_not_seen_to_be(
    archived: str, known: dict[str, CopyState], after: dict[str, CopyState]
) -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=[one])
    key = archive_at([two], made, {"movie.mp4": b"half of it"}, ("a segment is missing",))
    harness.ledger.note_copies(
        harness.row(made), {f"memory://{name}": state for name, state in known.items()}
    )
    if archived == "silent":
        one.fail(TransientStorageError("503"))
    elif archived == "not mounted":
        one.store.objects.clear()
    else:
        one.damage(key_of(one, "movie.mp4"))
        mark_damaged(one, key, ["it differs"])
    writes = list(one.writes)

    failed = harness.repair(made)

    assert failed.result is Result.FAILED
    assert "it has doubts, and no copy without is" in failed.reason
    assert harness.row(made).state is (AssetState.DAMAGED if archived == "damaged" else AssetState.ARCHIVED)
    assert harness.row(made).copies == {f"memory://{name}": state for name, state in after.items()}
    assert one.writes == writes, "nothing with doubts replaces it"


@pytest.mark.parametrize("over", [True, False], ids=["100ms has deleted it", "100ms has it"])
@pytest.mark.parametrize("silent", [True, False], ids=["one is silent", "both answer"])
def test_what_was_archived_beside_doubts_at_a_write_once_store_is_damaged_when_it_is_harmed(
    over: bool, silent: bool
) -> None:
    """It was archived at the quorum, and the copy with doubts could never be replaced."""
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=[one], over=over)
    archive_at([two], made, {"movie.mp4": b"half of it"}, ("a segment is missing",))
    harness.ledger.note_copies(harness.row(made), {one.name: WHOLE, two.name: DAMAGED})
    two.on_write = refusing(AccessDenied("the retention policy forbids to replace it"))
    assert harness.repair(made).result is Result.FAILED
    assert harness.row(made).state is AssetState.ARCHIVED
    del one.store.objects[key_of(one, "seg.ts")]
    if silent:
        two.fail(TransientStorageError("503"))

    failed = harness.repair(made)

    assert "no destination holds it whole" in failed.reason
    assert harness.row(made).state is (AssetState.DAMAGED if over else AssetState.DISCOVERED)
    assert harness.copies(made) == [DAMAGED, DAMAGED]


def refusing(error: StorageError) -> Callable[[str], None]:
    def refuse(_key: str) -> None:
        raise error

    return refuse

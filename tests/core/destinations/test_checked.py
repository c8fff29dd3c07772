"""A destination is used only while it is the one that the ledger knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from archiver.core.attempt.outcomes import Archived, WillRetry
from archiver.core.attempt.remaining_stores import RemainingStores
from archiver.core.attempt.stored_journal import StoredJournal
from archiver.core.destinations import breaker, failures
from archiver.core.destinations.checked import CHECK_EVERY, Destinations
from archiver.core.destinations.guarded import GuardedBackend, guarded
from archiver.core.destinations.identity import IdentityVerdict
from archiver.core.destinations.marker_check import LOCK_NAME
from archiver.core.destinations.registry import PREFIX
from archiver.core.errors import DestinationSilent, NotTheDestination
from archiver.core.machine import is_machine_fault
from archiver.core.records import keys
from archiver.core.records.keys import MARKER
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Lease, StoredObject
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.errors import AccessDenied, BucketMissing, StorageError, TransientStorageError
from storage_backends.filesystem import FilesystemBackend
from storage_backends.memory import MemoryBackend
from tests.contracts.storage_contract import abort_stale_uploads
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.core.harness import ArchiverHarness, file

OURS, STAGING = "workspace-ours", "workspace-staging"
VIDEO = bytes(range(256))


class Faulty(MemoryBackend):
    """`reads`, `writes`: what these raise now."""

    reads: Exception | None = None
    writes: Exception | None = None

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        if self.reads:
            raise self.reads
        return super().read(key, start, length_bytes, if_match=if_match)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.writes:
            raise self.writes
        return super().put(spec, data, crc32c)


class Harness:
    """A ledger, and processes that use destinations of these names."""

    def __init__(self, *names: str) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [Faulty(name) for name in names or ("one",)]

    @property
    def one(self) -> Faulty:
        return self.stores[0]

    @property
    def name(self) -> str:
        return self.one.name

    def process(
        self,
        workspace: str | None = OURS,
        stores: Sequence[StorageBackend] | None = None,
        machine: str = "host-1",
    ) -> Destinations:
        return Destinations(
            ledger=self.ledger,
            stores=self.stores if stores is None else stores,
            workspace=workspace,
            clock=self.clock,
            machine=machine,
            pause=lambda _seconds: None,
        )

    def archive(self, *stores: StorageBackend, ids: Sequence[str] = ("asset-1",)) -> None:
        for each in ids:
            enter(self.ledger, asset(id=each))
            archive_at(stores or self.stores, asset(id=each))

    def emptied(self) -> Faulty:
        """Another, empty store under the name of the first."""
        self.stores[0] = Faulty("one")
        return self.stores[0]


def marker_at(store: StorageBackend) -> dict[str, object]:
    found = json.loads(store.read(MARKER, 0, 10_000))
    assert isinstance(found, dict)
    return found


def test_a_fresh_destination_gets_a_marker_that_the_ledger_remembers() -> None:
    harness = Harness()

    harness.process().confirm(harness.name)

    marker = marker_at(harness.one)
    fact = harness.ledger.recall(PREFIX + harness.name)
    assert fact is not None
    assert (marker["id"], marker["created"]) == (fact["id"], NOW.isoformat())
    assert marker["workspaces"] == [OURS]
    assert marker["began_empty"] is True


def test_a_second_process_finds_the_marker_right_and_writes_nothing() -> None:
    harness = Harness()
    harness.process().confirm(harness.name)
    harness.one.writes = AssertionError("written again")

    later = harness.process()
    later.confirm(harness.name)

    assert later.is_identified(harness.name)


def test_an_existing_archive_is_adopted_by_its_manifests() -> None:
    harness = Harness()
    harness.archive()

    harness.process().confirm(harness.name)

    assert marker_at(harness.one)["began_empty"] is False


def test_a_lost_ledger_takes_the_marker_that_is_there() -> None:
    harness = Harness()
    harness.process().confirm(harness.name)
    before = marker_at(harness.one)
    harness.ledger.clear()

    harness.process().confirm(harness.name)

    assert marker_at(harness.one) == before
    assert (harness.ledger.recall(PREFIX + harness.name) or {})["id"] == before["id"]


def test_a_flush_while_a_disk_is_unmounted_does_not_make_the_mount_point_the_destination() -> None:
    harness = Harness()
    process = harness.process()
    process.confirm(harness.name)
    harness.ledger.clear()
    objects = dict(harness.one.store.objects)
    harness.one.store.objects.clear()

    harness.clock.advance(CHECK_EVERY)
    with pytest.raises(NotTheDestination):
        process.confirm(harness.name)

    harness.one.store.objects.update(objects)
    harness.clock.advance(CHECK_EVERY)
    process.confirm(harness.name)
    assert harness.ledger.recall(PREFIX + harness.name) is not None


def test_an_emptied_destination_is_refused_and_nothing_is_written_or_concluded() -> None:
    harness = Harness()
    harness.archive()
    harness.process().confirm(harness.name)
    empty = harness.emptied()
    process = harness.process()
    store = guarded([empty], process)[0]
    data = b"x"

    for use in (
        lambda: store.put(ObjectSpec(object_key("a.txt"), "text/plain", 1), data, 0),
        lambda: store.begin(ObjectSpec(object_key("a.txt"), "text/plain", 1, part_bytes=8)),
        lambda: store.stat(object_key("a.txt")),
        lambda: store.read(object_key("a.txt")),
        lambda: list(store.list("")),
        lambda: store.delete(object_key("a.txt")),
        lambda: abort_stale_uploads(store, timedelta(days=1)),
    ):
        with pytest.raises(NotTheDestination, match=r"archiver adopt 'memory://one'"):
            use()

    assert empty.store.objects == {}
    assert empty.store.uploads == {}


@pytest.mark.parametrize("ability", ["abort_stale_uploads", "abort_uploads"])
def test_no_upload_is_aborted_at_a_destination_that_is_not_the_right_one(
    monkeypatch: pytest.MonkeyPatch, ability: str
) -> None:
    harness = Harness()
    harness.archive()
    harness.process().confirm(harness.name)
    empty = harness.emptied()
    monkeypatch.setattr(empty, ability, lambda *_: pytest.fail("it was asked"), raising=False)
    (store,) = guarded([empty], harness.process())

    with pytest.raises(NotTheDestination):
        getattr(store, ability)(timedelta(days=1))


def test_what_a_backend_does_not_offer_a_guarded_one_does_not_either() -> None:
    harness = Harness()
    (store,) = guarded([harness.stores[0]], harness.process())

    assert not hasattr(store, "removes_stale_uploads")
    assert not hasattr(store, "send")


def test_a_disk_that_is_unmounted_just_before_a_manifest_is_written_holds_no_manifest() -> None:
    class Unmounting(Faulty):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            if spec.key.startswith(keys.MANIFESTS):
                self.store.objects.clear()  # what is there now is the folder below the mount point
            return super().put(spec, data, crc32c)

    harness = Harness()
    harness.stores[0] = Unmounting("one")
    harness.archive(ids=["asset-0"])
    harness.process().confirm(harness.name)
    store = guarded(harness.stores, harness.process())[0]
    key = keys.manifest_key("asset-1", asset().created_at)
    assert store.stat(key) is None  # and so it was checked just now

    with pytest.raises(NotTheDestination):
        put(store, key, b"{}")


def test_the_check_after_a_manifest_asks_the_destination_and_not_the_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness()
    harness.archive()
    store = guarded(harness.stores, harness.process())[0]
    key = keys.manifest_key("asset-1", asset().created_at)
    assert store.stat(key) is not None  # and so it was checked just now

    def unexpected(name: str) -> None:
        raise AssertionError(f"the ledger was asked for {name}")

    monkeypatch.setattr(harness.ledger, "recall", unexpected)
    put(store, key, b"{}")

    monkeypatch.undo()
    harness.one.reads = TransientStorageError("no answer")
    with pytest.raises(TransientStorageError):
        put(store, key, b"{}")


@pytest.mark.parametrize("is_unmounted", [False, True])
def test_what_was_written_below_a_mount_point_is_not_recorded_as_stored(is_unmounted: bool) -> None:
    """Where the store keeps no checksums, what an earlier attempt left there would be taken for it by its size."""
    harness = Harness()
    harness.archive(ids=["asset-0"])
    enter(harness.ledger, asset(id="asset-1"), AssetState.DISCOVERED)
    lease = harness.ledger.lease("asset-1", "worker", timedelta(minutes=5))
    assert isinstance(lease, Lease)
    stores = RemainingStores(guarded(harness.stores, harness.process()), "folder", {}, lambda _name: {})
    stores.drop({})
    put(stores.alive[0], object_key("folder/one.ts"), VIDEO)
    if is_unmounted:
        harness.one.store.objects.clear()
    journal = StoredJournal(harness.ledger, lease, "v1", stores)
    journal.add(StoredObject("one.ts", len(VIDEO), 1))
    journal.record()

    recorded = harness.ledger.stored_objects("asset-1", harness.name, "v1")

    assert set(recorded) == (set() if is_unmounted else {"one.ts"})


def test_what_was_recorded_too_early_is_taken_back_though_the_disk_is_unmounted() -> None:
    harness = Harness()
    harness.archive(ids=["asset-0"])
    enter(harness.ledger, asset(id="asset-1"), AssetState.DISCOVERED)
    lease = harness.ledger.lease("asset-1", "worker", timedelta(minutes=5))
    assert isinstance(lease, Lease)
    stores = RemainingStores(guarded(harness.stores, harness.process()), "folder", {}, lambda _name: {})
    stores.drop({})
    put(stores.alive[0], object_key("folder/one.ts"), VIDEO)
    journal = StoredJournal(harness.ledger, lease, "v1", stores)
    journal.add_early(StoredObject("one.ts", len(VIDEO), 1))
    journal.record()
    harness.one.store.objects.clear()
    journal.take_back("one.ts")

    recorded = harness.ledger.stored_objects("asset-1", harness.name, "v1")

    assert recorded["one.ts"].size_bytes != len(VIDEO)


def test_status_shows_an_unknown_destination_at_once_and_until_it_is_right_again() -> None:
    harness = Harness()
    harness.archive()
    harness.process().confirm(harness.name)
    right = harness.one
    harness.emptied()

    assert not harness.process().check_all()
    (hold,) = breaker.opened(harness.ledger, harness.clock()).values()
    assert "no marker" in hold.reason
    assert hold.code == "destination_unknown"

    harness.stores[0] = right
    assert harness.process().check_all()
    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_what_one_machine_has_not_mounted_does_not_stop_another() -> None:
    harness = Harness()
    harness.archive()
    harness.process(machine="host-1").confirm(harness.name)

    with pytest.raises(NotTheDestination):
        harness.process(machine="host-2", stores=[Faulty("one")]).confirm(harness.name)

    harness.process(machine="host-1").confirm(harness.name)
    shown = breaker.opened(harness.ledger, harness.clock())
    assert "host-2" in shown[harness.name].reason, "whoever fixes it must know where"
    assert breaker.parse(harness.ledger.recall_all(breaker.PREFIX), harness.clock()) == {}, (
        "attempts go on elsewhere"
    )


def test_production_refuses_a_staging_set_up() -> None:
    harness = Harness()
    harness.archive()
    harness.process(OURS).confirm(harness.name)
    before = dict(harness.one.store.objects)
    harness.ledger = MemoryLedger(harness.clock)

    with pytest.raises(NotTheDestination, match="another 100ms workspace"):
        harness.process(STAGING).confirm(harness.name)

    assert harness.one.store.objects == before


def test_another_access_key_of_the_same_installation_is_added_to_the_marker() -> None:
    harness = Harness()
    harness.process(OURS).confirm(harness.name)

    harness.process("workspace-after-rotation").confirm(harness.name)
    harness.ledger.clear()
    harness.process("workspace-after-rotation").confirm(harness.name)

    assert marker_at(harness.one)["workspaces"] == [OURS, "workspace-after-rotation"]


def test_a_marker_that_may_not_be_overwritten_is_logged_once_and_stops_nothing() -> None:
    harness = Harness()
    harness.process(OURS).confirm(harness.name)
    harness.one.writes = AccessDenied("storing: object is locked")
    process = harness.process("workspace-after-rotation")

    with capture_logs() as logs:
        for _ in range(3):
            process.confirm(harness.name)
            harness.clock.advance(CHECK_EVERY)

    assert process.is_identified(harness.name)
    assert [entry["event"] for entry in logs].count("destination_marker_not_written") == 1


def test_a_marker_that_is_gone_beside_our_manifests_is_restored_with_an_alarm() -> None:
    harness = Harness()
    harness.archive()
    harness.process().confirm(harness.name)
    before = marker_at(harness.one)["id"]
    harness.one.delete(MARKER)

    with capture_logs() as logs:
        harness.process().confirm(harness.name)

    assert marker_at(harness.one)["id"] == before
    assert [entry["log_level"] for entry in logs if entry["event"] == "destination_marker_restored"] == [
        "error"
    ]


def test_an_unreadable_marker_identifies_nothing_and_stops_nothing() -> None:
    harness = Harness()
    harness.archive()
    harness.process().confirm(harness.name)
    harness.one.reads = AccessDenied("reading: 403")
    process = harness.process()

    with capture_logs() as logs:
        for _ in range(3):
            process.confirm(harness.name)
            harness.clock.advance(CHECK_EVERY)

    assert not process.is_identified(harness.name)
    assert [entry["event"] for entry in logs] == ["destination_not_checked"], "said once"


@pytest.mark.parametrize("lists", [True, False])
def test_a_destination_that_refuses_reads_is_a_fault_until_it_allows_them(lists: bool) -> None:
    class Listed(Faulty):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            if self.reads and not lists:
                raise self.reads
            return super().list(prefix)

    harness = Harness()
    harness.stores[0] = Listed("one")
    harness.archive()
    process = harness.process()
    process.confirm(harness.name)
    harness.one.reads = AccessDenied("403")
    harness.clock.advance(CHECK_EVERY)

    process.check_all()
    reported = [hold.code for hold in breaker.opened(harness.ledger, harness.clock()).values()]
    assert reported == ([] if lists else ["destination_refuses"])

    harness.one.reads = None
    process.check_all()
    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_the_failure_of_a_removed_destination_is_forgotten() -> None:
    harness = Harness("one", "two")
    process = harness.process()
    process.check_all()
    failures.record(
        harness.ledger,
        harness.name,
        "host-1",
        failures.Kind.REFUSES,
        "403",
        harness.clock(),
        timedelta(minutes=30),
    )

    harness.process(stores=harness.stores[1:]).check_all()

    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_a_marker_that_may_not_be_written_stops_nothing() -> None:
    harness = Harness()
    harness.one.writes = AccessDenied("storing: 403")
    process = harness.process()

    process.confirm(harness.name)

    assert not process.is_identified(harness.name)


def test_a_marker_that_may_not_be_written_is_not_tried_at_every_check() -> None:
    harness = Harness()
    harness.archive()
    harness.one.writes = AccessDenied("storing: 403")
    process = harness.process()
    process.confirm(harness.name)
    harness.one.writes = AssertionError("tried again")

    for _ in range(20):
        harness.clock.advance(CHECK_EVERY)
        process.confirm(harness.name)

    harness.one.writes = None
    harness.clock.advance(timedelta(minutes=10))
    process.confirm(harness.name)
    assert process.is_identified(harness.name)


def test_the_oldest_manifests_may_be_gone_and_the_marker_with_them() -> None:
    """A lifecycle rule took both."""
    harness = Harness()
    ids = [f"asset-{number:03d}" for number in range(100)]
    for number, each in enumerate(ids):
        made = asset(id=each, created_at=(NOW - timedelta(days=100 - number)).isoformat())
        enter(harness.ledger, made)
        archive_at(harness.stores, made)
    harness.process().confirm(harness.name)
    for key in [key for key in harness.one.store.objects if "asset-00" in key or "asset-01" in key]:
        del harness.one.store.objects[key]
    harness.one.delete(MARKER)

    harness.process().confirm(harness.name)

    assert harness.process().is_identified(harness.name)


def test_a_bucket_that_is_gone_is_not_the_destination() -> None:
    harness = Harness()
    harness.archive()
    harness.process().confirm(harness.name)
    harness.one.reads = BucketMissing("NoSuchBucket")

    with pytest.raises(NotTheDestination, match="NoSuchBucket"):
        harness.process().confirm(harness.name)


def test_a_bucket_that_never_existed_is_reported_as_missing() -> None:
    harness = Harness()
    harness.one.reads = BucketMissing("NoSuchBucket")

    with pytest.raises(BucketMissing):
        harness.process().confirm(harness.name)


def test_a_check_holds_for_a_while_and_no_longer() -> None:
    harness = Harness()
    harness.archive()
    process = harness.process()
    process.confirm(harness.name)
    harness.one.store.objects.clear()

    process.confirm(harness.name)

    harness.clock.advance(CHECK_EVERY)
    with pytest.raises(NotTheDestination):
        process.confirm(harness.name)


@pytest.mark.parametrize("step", [timedelta(days=-3), timedelta(days=3)])
def test_a_clock_that_was_set_only_makes_it_look_again(step: timedelta) -> None:
    harness = Harness()
    harness.archive()
    process = harness.process()
    process.confirm(harness.name)
    harness.one.store.objects.clear()

    harness.clock.advance(step)

    with pytest.raises(NotTheDestination):
        process.confirm(harness.name)


def test_a_ledger_that_is_away_stops_no_destination_that_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    process = harness.process()
    process.confirm(harness.name)

    def away(*_: object, **__: object) -> None:
        raise LedgerUnavailable("no answer")

    for method in ("recall", "recall_all", "remember", "lock", "forget"):
        monkeypatch.setattr(harness.ledger, method, away)
    harness.clock.advance(CHECK_EVERY)

    process.confirm(harness.name)

    harness.one.store.objects.clear()
    harness.clock.advance(CHECK_EVERY)
    with pytest.raises(LedgerUnavailable):
        process.confirm(harness.name)


def test_while_another_process_decides_nothing_is_decided_here() -> None:
    harness = Harness()
    harness.ledger.lock(LOCK_NAME, timedelta(minutes=1))

    with pytest.raises(TransientStorageError):
        harness.process().confirm(harness.name)

    assert harness.one.store.objects == {}


# -- added, removed ------------------------------------------------------------------------------------------
def test_a_destination_that_is_added_is_new_and_not_emptied() -> None:
    harness = Harness("one", "two")
    one, two = harness.stores
    harness.archive(one)
    harness.process(stores=[one]).check_all()

    with capture_logs() as logs:
        process = harness.process()
        assert process.check_all()

    assert [(e["event"], e["store"]) for e in logs] == [("destination_added", two.name)]
    assert process.filling() == [two.name]
    assert process.began_empty_at(two.name) == NOW
    assert process.began_empty_at(one.name) is None


def test_a_marker_that_could_not_be_read_back_is_known_again_though_assets_were_archived_elsewhere_since() -> (
    None
):
    harness = Harness("one", "two")
    two = harness.stores[1]

    class Unread(Faulty):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            info = super().put(spec, data, crc32c)
            self.reads = TransientStorageError("503")
            return info

    harness.stores[0] = one = Unread("one")
    with pytest.raises(TransientStorageError):
        harness.process().confirm(one.name)
    harness.process().confirm(two.name)
    harness.archive(two)

    one.reads = None
    process = harness.process()

    process.confirm(one.name)
    fact = harness.ledger.recall(PREFIX + one.name)
    assert fact is not None
    assert fact["id"] == marker_at(one)["id"]
    assert process.filling() == [one.name], "what it lacks is copied there"


def test_of_two_destinations_the_one_that_is_unmounted_at_the_upgrade_is_not_taken_for_new() -> None:
    harness = Harness("one", "two")
    one, two = harness.stores
    harness.archive(one)

    process = harness.process()

    assert not process.check_all()
    with pytest.raises(NotTheDestination):
        process.confirm(two.name)
    assert two.store.objects == {}
    with pytest.raises(NotTheDestination):
        harness.process().confirm(two.name)


def test_a_removed_destination_is_logged_once_and_filled_when_it_comes_back() -> None:
    harness = Harness("one", "two")
    one, two = harness.stores
    harness.archive(one, two)
    harness.process().check_all()
    breaker.trip(harness.ledger, two.name, "403", harness.clock())

    with capture_logs() as logs:
        harness.process(stores=[one]).check_all()
        harness.process(stores=[one]).check_all()
    assert breaker.opened(harness.ledger, harness.clock()) == {}
    assert [(e["event"], e["store"]) for e in logs] == [("destination_removed", two.name)]

    again = harness.process()
    assert again.check_all()
    assert again.filling() == [two.name]
    again.filled(two.name)
    assert harness.process().filling() == []


# -- a person ------------------------------------------------------------------------------------------------
def test_a_person_adopts_what_is_there_as_it_is() -> None:
    harness = Harness()
    harness.archive()
    harness.process().confirm(harness.name)
    harness.emptied()
    assert not harness.process().check_all()
    harness.clock.advance(timedelta(days=1))

    adopted = harness.process().adopt(harness.name)

    process = harness.process()
    process.confirm(harness.name)
    assert marker_at(harness.one)["id"] == adopted.id
    assert process.filling() == [harness.name]
    assert process.began_empty_at(harness.name) == harness.clock()
    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_adopting_the_bucket_of_another_workspace_keeps_its_id() -> None:
    harness = Harness()
    harness.process(STAGING).confirm(harness.name)
    before = marker_at(harness.one)["id"]
    harness.ledger = MemoryLedger(harness.clock)

    harness.process(OURS).adopt(harness.name)
    harness.process(OURS).adopt(harness.name)

    assert marker_at(harness.one)["id"] == before
    assert marker_at(harness.one)["workspaces"] == [STAGING, OURS]


def test_looking_writes_nothing() -> None:
    harness = Harness()

    assert harness.process().look(harness.name).verdict is IdentityVerdict.ADOPT

    assert harness.one.store.objects == {}
    assert harness.ledger.recall(PREFIX + harness.name) is None


# -- it does not answer --------------------------------------------------------------------------------------
def test_a_destination_that_does_not_answer_for_minutes_is_a_fault() -> None:
    harness = Harness()
    process = harness.process()
    process.confirm(harness.name)
    harness.one.reads = TransientStorageError("503")

    found: list[type[Exception]] = []
    shown: list[bool] = []
    for _ in range(6):
        harness.clock.advance(timedelta(minutes=1))
        with pytest.raises((TransientStorageError, DestinationSilent)) as error:
            process.confirm(harness.name)
        found.append(error.type)
        shown.append(bool(breaker.opened(harness.ledger, harness.clock())))

    assert found == [TransientStorageError] * 5 + [DestinationSilent], "then it costs the assets no attempt"
    assert shown == [False] * 5 + [True]

    harness.one.reads = None
    harness.clock.advance(timedelta(minutes=1))
    process.confirm(harness.name)
    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_an_unmounted_disk_that_does_not_answer_for_a_moment_stays_unknown() -> None:
    harness = Harness()
    harness.archive()
    process = harness.process()
    process.confirm(harness.name)
    empty = harness.emptied()
    process = harness.process()
    with pytest.raises(NotTheDestination):
        process.confirm(harness.name)
    empty.reads = TransientStorageError("503")
    harness.clock.advance(timedelta(minutes=1))

    with pytest.raises(DestinationSilent, match=r"no marker.* and now it does not answer: 503"):
        process.confirm(harness.name)

    (hold,) = breaker.opened(harness.ledger, harness.clock()).values()
    assert hold.code == "destination_unknown"


def test_every_use_of_a_failing_destination_raises_the_error_of_the_check_with_its_fields() -> None:
    harness = Harness()
    process = harness.process()
    harness.one.reads = TransientStorageError("503", status=503, retry_after=timedelta(minutes=9))

    met = []
    for _ in range(2):
        with pytest.raises(TransientStorageError) as raised:
            process.confirm(harness.name)
        met.append(raised.value)

    assert met[0] is not met[1]
    assert [(error.status, error.retry_after) for error in met] == [(503, timedelta(minutes=9))] * 2


def test_a_success_in_between_makes_it_a_transient_failure() -> None:
    harness = Harness()
    process = harness.process()
    for _ in range(10):
        harness.one.reads = TransientStorageError("503")
        harness.clock.advance(timedelta(minutes=1))
        with pytest.raises(TransientStorageError):
            process.confirm(harness.name)
        harness.one.reads = None
        harness.clock.advance(timedelta(minutes=1))
        process.confirm(harness.name)

    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_one_failure_long_ago_is_no_fault() -> None:
    harness = Harness()
    process = harness.process()
    harness.one.reads = TransientStorageError("503")
    with pytest.raises(TransientStorageError):
        process.confirm(harness.name)

    harness.clock.advance(timedelta(minutes=20))

    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_a_destination_that_accepts_no_writes_is_a_fault_too() -> None:
    harness = Harness()
    process = harness.process()
    store = GuardedBackend(harness.one, process)
    process.confirm(harness.name)
    spec = ObjectSpec(object_key("a.txt"), "text/plain", 1)
    harness.one.writes = TransientStorageError("503 SlowDown")

    for _ in range(8):
        harness.clock.advance(timedelta(minutes=1))
        with pytest.raises(TransientStorageError):
            store.put(spec, b"x", 0)
    (hold,) = breaker.opened(harness.ledger, harness.clock()).values()
    assert "503 SlowDown" in hold.reason
    assert hold.code == "destination_silent"

    harness.one.writes = None
    put(store, "a.txt", b"x")
    harness.clock.advance(timedelta(minutes=1))
    process.confirm(harness.name)
    assert breaker.opened(harness.ledger, harness.clock()) == {}


# -- the whole -----------------------------------------------------------------------------------------------
class Mounted:
    """A disk at a mount point; unmounting leaves the empty directory, as `umount` does."""

    def __init__(self, base: Path) -> None:
        self.point, self._disk = base / "nas", base / "disk"
        self.point.mkdir()

    def unmount(self) -> None:
        self.point.rename(self._disk)
        self.point.mkdir()

    def mount(self) -> None:
        self.point.rename(self.point.with_name("under the mount point"))
        self._disk.rename(self.point)


@pytest.mark.parametrize("folder", ["", "archive"])
@pytest.mark.parametrize("fresh_process", [True, False])
def test_nothing_goes_to_an_unmounted_disk_and_all_goes_on_when_it_is_back(
    tmp_path: Path, fresh_process: bool, folder: str
) -> None:
    disk = Mounted(tmp_path)
    root = disk.point / folder
    stores: list[StorageBackend] = [FilesystemBackend(root)]
    made: list[Destinations] = []

    def behind(stores: Sequence[StorageBackend], ledger: Ledger, clock: Clock) -> list[StorageBackend]:
        made.append(
            Destinations(
                ledger=ledger,
                stores=stores,
                workspace=OURS,
                clock=clock,
                machine="host",
                pause=lambda _: None,
            )
        )
        return guarded(stores, made[-1])

    assets = [asset(id="first", size=None), asset(id="second", size=None)]
    harness = ArchiverHarness(lambda: file(VIDEO), stores=stores, assets=assets, behind=behind)
    assert isinstance(harness.archive("first"), Archived)

    disk.unmount()
    if fresh_process:
        made[0].__init__(  # type: ignore[misc]
            ledger=harness.ledger,
            stores=[FilesystemBackend(root)],
            workspace=OURS,
            clock=harness.clock,
            machine="host",
            pause=lambda _: None,
        )
    harness.clock.advance(CHECK_EVERY)
    outcome = harness.archive("second")

    assert isinstance(outcome, WillRetry)
    assert not outcome.costs_attempt
    assert "NotTheDestination" in outcome.reason
    assert [path for path in disk.point.rglob("*") if path.is_file()] == []
    assert set(breaker.opened(harness.ledger, harness.clock())) == {f"file://{root}"}
    assert breaker.parse(harness.ledger.recall_all(breaker.PREFIX), harness.clock()) == {}

    disk.mount()
    assert isinstance(harness.archive_until_settled(asset_id="second"), Archived)
    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_an_asset_is_never_lost_because_a_disk_that_may_have_it_is_unmounted(tmp_path: Path) -> None:
    disk = Mounted(tmp_path)

    def behind(stores: Sequence[StorageBackend], ledger: Ledger, clock: Clock) -> list[StorageBackend]:
        return guarded(
            stores,
            Destinations(
                ledger=ledger,
                stores=stores,
                workspace=OURS,
                clock=clock,
                machine="host",
                pause=lambda _: None,
            ),
        )

    harness = ArchiverHarness(lambda: file(VIDEO), stores=[FilesystemBackend(disk.point)], behind=behind)
    assert isinstance(harness.archive(), Archived)
    harness.ledger.reopen(harness.asset_id)
    harness.api.assets.clear()
    harness.clock.advance(RETENTION + timedelta(days=3))
    disk.unmount()

    for _ in range(10):
        harness.archive("6400c0d3e1b2a3c4d5e6f708")
        harness.clock.advance(timedelta(hours=13))

    row = harness.ledger.get("6400c0d3e1b2a3c4d5e6f708")
    assert row is not None
    assert row.state is not AssetState.LOST
    key = keys.manifest_key(row.asset_id, row.created_at)
    assert not (disk.point / key).exists()


@pytest.mark.parametrize(
    "refusal", [AccessDenied("403"), BucketMissing("NoSuchBucket"), StorageError("an answer cut short")]
)
def test_an_asset_is_never_lost_while_a_destination_refuses_to_tell_what_it_has(
    refusal: StorageError,
) -> None:
    store = Faulty("one")
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store])
    assert isinstance(harness.archive(), Archived)
    asset_id = harness.asset_id
    harness.ledger.reopen(asset_id)
    harness.api.assets.clear()
    harness.clock.advance(RETENTION + timedelta(days=3))
    store.reads = refusal

    for _ in range(10):
        harness.archive(asset_id)
        harness.clock.advance(timedelta(hours=13))
    waiting = harness.ledger.get(asset_id)
    store.reads = None
    harness.archive(asset_id)

    row = harness.ledger.get(asset_id)
    assert waiting is not None
    assert waiting.state is AssetState.WAITING
    assert row is not None
    assert row.state is AssetState.ARCHIVED


def test_a_machine_without_file_handles_blames_no_destination() -> None:
    harness = Harness()
    process = harness.process()
    process.confirm(harness.name)
    error = TransientStorageError("no answer")
    error.__cause__ = OSError(24, "Too many open files")

    harness.one.reads = error
    for _ in range(10):
        harness.clock.advance(max(CHECK_EVERY, timedelta(minutes=5)))
        with pytest.raises(TransientStorageError) as refused:
            process.confirm(harness.name)
        assert is_machine_fault(refused.value)
        process.wrote(harness.name, error)
    assert breaker.opened(harness.ledger, harness.clock()) == {}

    harness.one.reads = None
    process.confirm(harness.name)
    assert breaker.opened(harness.ledger, harness.clock()) == {}

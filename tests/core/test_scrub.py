from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from archiver.core.judging import Scope, judge
from archiver.core.records.commit import committed
from archiver.core.records.keys import CHECKS
from archiver.core.records.manifest import read_manifest
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.scrub import LOCK_NAME, LOCK_TTL, LONGEST_WAIT, STALE_UPLOAD, Scrubber, ScrubResult
from archiver.core.upkeep.sweep import FACT as SWEPT
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Row
from storage_backends.base import ObjectKey, ObjectSpec, object_key
from storage_backends.errors import AccessDenied, StorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import FILES, archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock


class World:
    def __init__(self, assets: int, destinations: int = 1) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [MemoryBackend(name) for name in ("one", "two")[:destinations]]
        self.store = self.stores[0]
        self.scrubber = Scrubber(ledger=self.ledger, destinations=self.stores, clock=self.clock)
        self.assets = [asset(id=f"asset-{number:03}") for number in range(assets)]
        self.keys: dict[str, ObjectKey] = {}
        for each in self.assets:
            self.keys[each.id] = archive_at(self.stores, each)
            enter(self.ledger, each)

    def spoil(self, asset_id: str, store: MemoryBackend | None = None) -> None:
        put(store or self.store, f"recordings/{asset_id}/movie.mp4", b"x" * 100)

    def restore(self, asset_id: str, store: MemoryBackend | None = None) -> None:
        put(store or self.store, f"recordings/{asset_id}/movie.mp4", FILES["movie.mp4"])

    def reconcile(self) -> None:
        Reconciler(
            ledger=self.ledger, destinations=self.stores, scope=Scope(RETENTION), clock=self.clock
        ).reconcile()

    def media(self) -> set[str]:
        """All that is stored, but for the records of the scrub."""
        return {info.key for info in self.store.list() if not info.key.startswith(CHECKS)}

    def scrub_daily(self, days: int = 30) -> list[ScrubResult]:
        results = []
        for _ in range(days):
            self.clock.advance(timedelta(days=1))
            result = self.scrubber.scrub()
            assert result is not None
            results.append(result)
        return results

    def healthy(self) -> bool:
        """As `archiver status` answers."""
        self.ledger.remember(SWEPT, {"started_at": self.clock().isoformat(), "assets": 1, "new": 0})
        watcher = Watcher(
            ledger=self.ledger,
            clock=self.clock,
            at_risk_within=timedelta(days=3),
            sweep_every=timedelta(minutes=5),
        )
        return watcher.summary().healthy

    def row(self, asset_id: str) -> Row:
        row = self.ledger.get(asset_id)
        assert row is not None
        return row

    def state(self, asset_id: str) -> AssetState:
        return self.row(asset_id).state


def test_a_whole_archive_is_found_whole() -> None:
    world = World(assets=1)

    result = world.scrubber.scrub()

    assert result is not None
    assert (result.manifests, result.read_bytes, result.damaged) == (1, 102, 0)
    assert world.state("asset-000") == AssetState.ARCHIVED


def test_a_flipped_byte_makes_the_asset_due_again_while_the_source_has_it() -> None:
    world = World(assets=1)
    world.spoil("asset-000")

    result = world.scrubber.scrub()

    assert result is not None
    assert result.damaged == 1
    assert world.state("asset-000") == AssetState.DISCOVERED
    assert committed(world.store, world.keys["asset-000"]) is None, "no longer proved"


def test_what_is_left_of_a_damaged_copy_and_what_its_manifest_says_stay_until_there_is_another() -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    before = world.media()

    world.scrubber.scrub()

    manifest = read_manifest(world.store, world.keys["asset-000"])
    assert world.media() == before
    assert manifest is not None
    assert {item.path for item in manifest.objects} == set(FILES)
    assert "movie.mp4: CRC32C" in str(manifest.damage)


def test_a_damaged_copy_is_not_called_archived_again_for_the_manifest_that_it_still_has() -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    world.scrubber.scrub()

    world.reconcile()
    assert world.state("asset-000") == AssetState.DISCOVERED

    world.ledger = MemoryLedger(world.clock)  # lost, and rebuilt from the bucket
    world.reconcile()
    assert world.ledger.get("asset-000") is None


def test_a_copy_that_is_whole_after_all_proves_its_asset_again() -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    world.scrubber.scrub()
    put(world.store, "recordings/asset-000/movie.mp4", FILES["movie.mp4"])

    world.scrubber.scrub()
    world.reconcile()

    assert committed(world.store, world.keys["asset-000"])
    assert world.state("asset-000") == AssetState.ARCHIVED


def test_a_manifest_that_cannot_be_understood_stays_too_and_the_asset_is_copied_again() -> None:
    world = World(assets=1)
    put(world.store, world.keys["asset-000"], b"{rubbish")

    world.scrubber.scrub()

    assert world.state("asset-000") == AssetState.DISCOVERED
    assert world.store.read(world.keys["asset-000"]) == b"{rubbish"


def test_what_is_found_damaged_when_the_source_is_gone_is_archived_no_more_and_needs_a_person() -> None:
    world = World(assets=1)
    world.clock.advance(RETENTION)
    assert world.healthy()
    world.spoil("asset-000")
    before = world.media()

    result = world.scrubber.scrub()

    assert result is not None
    assert result.damaged == 1
    row = world.row("asset-000")
    assert row.state == AssetState.DAMAGED
    assert row.reason is not None
    assert row.reason.startswith("not whole at memory://one: movie.mp4: CRC32C")
    assert "whole at no destination" in row.reason
    assert "archiver verify asset-000" in row.reason
    assert world.media() == before, "the rest of it is all there is"
    assert not world.healthy()
    assert world.ledger.counts().balanced


def test_a_damaged_asset_stays_damaged_whatever_sweeps_and_reconciles_until_it_is_restored() -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    world.clock.advance(RETENTION)
    world.scrubber.scrub()

    world.reconcile()
    world.ledger.discover([judge(world.assets[0], Scope(RETENTION))])
    world.scrubber.scrub()
    assert world.state("asset-000") == AssetState.DAMAGED

    world.restore("asset-000")
    world.scrubber.scrub()
    world.reconcile()
    assert world.state("asset-000") == AssetState.ARCHIVED
    assert world.row("asset-000").reason is None
    assert world.healthy()


def test_a_ledger_that_is_lost_learns_of_a_damaged_asset_from_the_bucket() -> None:
    world = World(assets=2)
    world.spoil("asset-000")
    world.clock.advance(RETENTION)
    world.scrubber.scrub()
    world.scrubber.scrub()
    world.ledger.clear()

    world.reconcile()

    assert world.state("asset-000") == AssetState.DAMAGED
    assert "movie.mp4: CRC32C" in str(world.row("asset-000").reason)
    assert world.state("asset-001") == AssetState.ARCHIVED
    assert world.ledger.counts().balanced


def test_of_two_copies_the_one_that_is_whole_is_named() -> None:
    world = World(assets=1, destinations=2)
    one, two = world.stores
    world.spoil("asset-000", one)
    world.clock.advance(RETENTION)

    world.scrubber.scrub()

    assert world.state("asset-000") == AssetState.DAMAGED
    assert "whole at memory://two;" in str(world.row("asset-000").reason)
    assert committed(two, world.keys["asset-000"])

    world.spoil("asset-000", two)
    world.scrubber.scrub()

    assert "not whole at memory://two: movie.mp4: CRC32C" in str(world.row("asset-000").reason)
    assert "whole at no destination" in str(world.row("asset-000").reason)


def test_a_copy_that_cannot_be_read_is_not_called_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(assets=1, destinations=2)
    one, two = world.stores
    world.spoil("asset-000", one)
    world.clock.advance(RETENTION)

    def away(_key: ObjectKey, _start: int = 0, _length: int | None = None) -> bytes:
        raise AccessDenied("read: 403")

    monkeypatch.setattr(two, "read", away)

    world.scrubber.scrub()

    assert "not whole at memory://two: it could not be read: read: 403" in str(world.row("asset-000").reason)


@pytest.mark.parametrize("passed", [timedelta(0), RETENTION])
def test_a_damaged_copy_whose_manifest_cannot_be_marked_is_not_taken_for_archived(
    passed: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    world.clock.advance(passed)

    def locked(*_put: object) -> None:
        raise StorageError("put: 403 RetentionPolicyNotMet")

    monkeypatch.setattr(world.store, "put", locked)

    world.scrubber.scrub()
    world.reconcile()  # by names and sizes it would be whole

    assert world.state("asset-000") == AssetState.DAMAGED
    assert "RetentionPolicyNotMet" in str(world.row("asset-000").reason)


def test_a_manifest_that_cannot_be_read_does_not_hold_up_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(assets=2)
    read = world.store.read

    def refusing(key: ObjectKey, start: int, size: int) -> bytes:
        if "asset-000" in key:
            raise AccessDenied("read: 403")
        return read(key, start, size)

    monkeypatch.setattr(world.store, "read", refusing)

    result = world.scrubber.scrub()

    assert result is not None
    assert (result.manifests, result.unreadable, result.read_bytes) == (2, 1, 102)


def test_uploads_that_nobody_goes_on_with_are_aborted_and_young_ones_left_to_their_workers() -> None:
    world = World(assets=0)
    old, young = (
        world.store.begin(ObjectSpec(object_key(f"recordings/{name}.mp4"), "video/mp4", 100))
        for name in ("old", "young")
    )
    world.store.store.uploads[old.token].began_at -= STALE_UPLOAD

    result = world.scrubber.scrub()

    assert result is not None
    assert result.stale_uploads == 1
    assert set(world.store.store.uploads) == {young.token}


def test_while_another_run_is_at_it_nothing_is_read() -> None:
    world = World(assets=1)
    world.ledger.lock(LOCK_NAME, LOCK_TTL)

    assert world.scrubber.scrub() is None


def test_what_a_worker_mends_while_it_is_read_keeps_its_new_manifest() -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    key = world.keys["asset-000"]
    read = world.store.read

    def mended_meanwhile(wanted: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        found = read(wanted, start, length_bytes)
        if wanted.endswith("movie.mp4") and world.state("asset-000") is AssetState.ARCHIVED:
            world.clock.advance(timedelta(seconds=1))
            world.ledger.reopen("asset-000")
            archive_at([world.store], world.assets[0])
            enter(world.ledger, world.assets[0])
            world.store.read = read  # type: ignore[method-assign]
        return found

    world.store.read = mended_meanwhile  # type: ignore[method-assign, assignment]

    world.scrubber.scrub()

    assert world.store.stat(key) is not None
    assert world.state("asset-000") is AssetState.ARCHIVED


def test_a_damaged_asset_that_a_worker_has_in_hand_is_left_to_it() -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    world.ledger.reopen("asset-000")
    world.ledger.lease("asset-000", "worker", timedelta(minutes=2))

    world.scrubber.scrub()

    assert world.store.stat(world.keys["asset-000"]) is not None
    assert world.state("asset-000") is AssetState.RUNNING


def test_what_is_kept_with_doubts_is_read_back_too_and_due_again_when_it_is_damaged() -> None:
    world = World(0)
    kept = asset(id="kept")
    archive_at(world.stores, kept, doubts=("movie.mp4: it has 100 bytes, the API says 200",))
    enter(world.ledger, kept, AssetState.QUARANTINED)

    whole = world.scrubber.scrub()
    assert whole
    assert (whole.manifests, whole.damaged) == (1, 0)

    key = archive_at(world.stores, kept, doubts=("movie.mp4: it has another frame",))
    world.spoil("kept")
    damaged = world.scrubber.scrub()
    assert damaged
    assert damaged.damaged == 1
    manifest = read_manifest(world.store, key)
    assert manifest
    assert (manifest.damage is not None, manifest.trusted) == (True, False)
    row = world.row("kept")
    assert (row.state, row.stored_objects) == (AssetState.DISCOVERED, 0), "at risk again"


def test_what_is_kept_with_doubts_and_damaged_after_its_deadline_is_damaged() -> None:
    world = World(0)
    kept = asset(id="kept")
    archive_at(world.stores, kept, doubts=("no ENDLIST",))
    enter(world.ledger, kept, AssetState.QUARANTINED)
    world.spoil("kept")
    world.clock.advance(2 * RETENTION)

    world.scrubber.scrub()

    assert world.row("kept").state is AssetState.DAMAGED


class Noted:
    """Something to be called in the middle of a scrub."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.paused = 0.0

    def pause(self, seconds: float) -> None:
        self.paused += seconds
        self.world.clock.advance(timedelta(seconds=seconds))


def urgent(world: World) -> None:
    """A copy under way that has a day left."""
    one = asset(id="urgent", created_at=(NOW - timedelta(days=14)).isoformat())
    enter(world.ledger, one, AssetState.RUNNING)


def test_reading_back_waits_while_an_urgent_asset_is_copied() -> None:
    world = World(assets=1)
    urgent(world)
    noted = Noted(world)

    def until_it_is_copied(seconds: float) -> None:
        noted.pause(seconds)
        if noted.paused >= 120:
            world.ledger.reopen("urgent")

    scrubber = Scrubber(
        ledger=world.ledger, destinations=world.stores, clock=world.clock, pause=until_it_is_copied
    )
    result = scrubber.scrub()

    assert result is not None
    assert noted.paused == 120
    assert result.read_bytes == 102


def test_but_not_for_ever() -> None:
    world = World(assets=1)
    urgent(world)
    noted = Noted(world)

    result = Scrubber(
        ledger=world.ledger, destinations=world.stores, clock=world.clock, pause=noted.pause
    ).scrub()

    assert result is not None
    assert noted.paused == LONGEST_WAIT.total_seconds()
    assert result.read_bytes == 102


def test_a_run_whose_turn_another_has_taken_ends_and_records_what_it_checked() -> None:
    world = World(assets=3)
    read = world.store.read

    def slow(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        found = read(key, start, length_bytes)
        if "asset-001/movie" in key:
            world.clock.advance(2 * LOCK_TTL)
            world.ledger.lock(LOCK_NAME, LOCK_TTL)
        return found

    world.store.read = slow  # type: ignore[method-assign]

    result = world.scrubber.scrub()

    assert result is not None
    assert result.manifests == 2
    world.store.read = read  # type: ignore[method-assign]
    world.clock.advance(LOCK_TTL)
    again = world.scrubber.scrub()
    assert again is not None
    assert again.manifests == 2, "the first one was checked, and recorded"


def test_a_run_whose_turn_a_flushed_ledger_forgot_goes_on() -> None:
    world = World(assets=3)
    read = world.store.read

    def flushed(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if "asset-001/movie" in key:
            world.clock.advance(timedelta(minutes=1))
            world.ledger.clear()
        return read(key, start, length_bytes)

    world.store.read = flushed  # type: ignore[method-assign]

    result = world.scrubber.scrub()

    assert result is not None
    assert result.manifests == 3


def test_a_run_that_is_stopped_in_the_middle_records_what_it_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeIsUp(Exception):
        pass

    world = World(assets=3)
    read = world.store.read

    def stopped(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if "asset-002/movie" in key:
            raise TimeIsUp
        return read(key, start, length_bytes)

    monkeypatch.setattr(world.store, "read", stopped)
    with pytest.raises(TimeIsUp):
        world.scrubber.scrub()
    monkeypatch.setattr(world.store, "read", read)

    result = world.scrubber.scrub()

    assert result is not None
    assert result.manifests == 1


def test_no_copy_is_begun_after_the_longest_run_and_each_destination_has_its_share() -> None:
    world = World(assets=5, destinations=2)
    for store in world.stores:
        read = store.read

        def slow(
            key: ObjectKey,
            start: int = 0,
            length_bytes: int | None = None,
            read: Callable[..., bytes] = read,
        ) -> bytes:
            if key.endswith("movie.mp4") and start == 0:
                world.clock.advance(timedelta(hours=1))
            return read(key, start, length_bytes)

        store.read = slow  # type: ignore[method-assign]

    result = world.scrubber.scrub()

    assert result is not None
    assert result.manifests == 6
    again = world.scrubber.scrub()
    assert again is not None
    assert again.manifests == 4


def test_one_bad_answer_is_no_damage() -> None:
    world = World(assets=1)
    read = world.store.read
    answers: list[bytes] = []

    def bad_at_first(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        found = read(key, start, length_bytes)
        if key.endswith("movie.mp4") and start == 0:
            answers.append(found)
            return found if len(answers) > 1 else b"x" * len(found)
        return found

    world.store.read = bad_at_first  # type: ignore[method-assign]

    result = world.scrubber.scrub()

    assert result is not None
    assert result.damaged == 0
    assert len(answers) == 2
    assert world.state("asset-000") is AssetState.ARCHIVED


def test_many_that_cannot_be_read_hold_up_none_of_the_others_on_any_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(assets=40)
    read = world.store.read
    refused: list[ObjectKey] = []

    def refusing(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if int(key.split("asset-")[1][:3] if "asset-" in key else 99) < 20:
            refused.append(key)
            raise AccessDenied("read: 403")
        return read(key, start, length_bytes)

    monkeypatch.setattr(world.store, "read", refusing)

    results = world.scrub_daily(2)

    assert [(each.manifests, each.unreadable) for each in results] == [(40, 20), (20, 20)]
    assert {world.state(each.id) for each in world.assets} == {AssetState.ARCHIVED}


def test_uploads_that_cannot_be_listed_keep_nothing_from_being_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(assets=1)

    def refused(_older_than: timedelta) -> int:
        raise AccessDenied("list uploads: 403")

    monkeypatch.setattr(world.store, "abort_stale_uploads", refused)

    result = world.scrubber.scrub()

    assert result is not None
    assert (result.manifests, result.stale_uploads) == (1, 0)


def test_in_a_bucket_of_several_programs_only_uploads_of_known_assets_are_aborted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(assets=1)
    uploads = {
        "recordings/room/session/stream/asset-000/movie.mp4": True,
        "a-key-of-another-template/asset-000/_zip/x.zip": True,
        "doctor/probe-0123.bin": True,
        "backups/database.dump": False,
        "recordings/by-another-program/movie.mp4": False,
        "backups/asset-000": False,
        "asset-000.mp4": False,
    }

    def abort_uploads(older_than: timedelta, ours: Callable[[str], bool]) -> int:
        assert older_than == STALE_UPLOAD
        assert {key: ours(key) for key in uploads} == uploads
        return 3

    monkeypatch.setattr(world.store, "abort_uploads", abort_uploads, raising=False)

    result = world.scrubber.scrub()

    assert result is not None
    assert result.stale_uploads == 3


def test_a_manifest_that_was_replaced_is_read_in_full_again() -> None:
    world = World(assets=1)
    assert world.scrub_daily(2)[-1].manifests == 0
    archive_at([world.store], world.assets[0])

    (result,) = world.scrub_daily(1)

    assert (result.manifests, result.read_bytes) == (1, 102)


class AwayLedger(MemoryLedger):
    away = False

    def get(self, asset_id: str) -> Row | None:
        if self.away:
            raise LedgerUnavailable("nothing listens there")
        return super().get(asset_id)


def test_a_ledger_that_is_away_for_a_while_keeps_no_whole_copy_from_being_checked() -> None:
    world = World(assets=3)
    ledger = AwayLedger(world.clock)
    ledger.away = True

    result = Scrubber(ledger=ledger, destinations=world.stores, clock=world.clock).scrub()

    assert result is not None
    assert result.manifests == 3


def test_damage_that_cannot_be_told_to_the_ledger_ends_the_run_and_is_found_again() -> None:
    world = World(assets=1)
    ledger = AwayLedger(world.clock)
    enter(ledger, world.assets[0])
    world.spoil("asset-000")
    scrubber = Scrubber(ledger=ledger, destinations=world.stores, clock=world.clock)
    ledger.away = True
    with pytest.raises(LedgerUnavailable):
        scrubber.scrub()
    ledger.away = False

    result = scrubber.scrub()

    assert result is not None
    assert result.damaged == 1
    row = ledger.get("asset-000")
    assert row is not None
    assert row.state is AssetState.DISCOVERED


def test_a_copy_that_stays_damaged_is_marked_once() -> None:
    world = World(assets=1)
    world.spoil("asset-000")
    world.clock.advance(RETENTION)
    world.scrubber.scrub()
    marked = world.store.stat(world.keys["asset-000"])

    (again,) = world.scrub_daily(1)

    assert again.damaged == 1
    assert world.store.stat(world.keys["asset-000"]) == marked
    assert world.state("asset-000") is AssetState.DAMAGED

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


class Harness:
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
    harness = Harness(assets=1)

    result = harness.scrubber.scrub()

    assert result is not None
    assert (result.manifests, result.read_bytes, result.damaged) == (1, 102, 0)
    assert harness.state("asset-000") == AssetState.ARCHIVED


def test_a_flipped_byte_makes_the_asset_due_again_while_the_source_has_it() -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.damaged == 1
    assert harness.state("asset-000") == AssetState.DISCOVERED
    assert committed(harness.store, harness.keys["asset-000"]) is None, "no longer proved"


def test_a_damaged_copy_and_its_manifest_stay_until_there_is_a_new_copy() -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    before = harness.media()

    harness.scrubber.scrub()

    manifest = read_manifest(harness.store, harness.keys["asset-000"])
    assert harness.media() == before
    assert manifest is not None
    assert {item.path for item in manifest.objects} == set(FILES)
    assert "movie.mp4: CRC32C" in str(manifest.damage)


def test_a_damaged_copy_is_not_archived_by_the_manifest_that_it_still_has() -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    harness.scrubber.scrub()

    harness.reconcile()
    assert harness.state("asset-000") == AssetState.DISCOVERED

    harness.ledger = MemoryLedger(harness.clock)  # lost, and rebuilt from the bucket
    harness.reconcile()
    assert harness.state("asset-000") == AssetState.DISCOVERED


def test_the_damage_of_a_copy_that_is_whole_is_cleared() -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    harness.scrubber.scrub()
    put(harness.store, "recordings/asset-000/movie.mp4", FILES["movie.mp4"])

    harness.scrubber.scrub()
    harness.reconcile()

    assert committed(harness.store, harness.keys["asset-000"])
    assert harness.state("asset-000") == AssetState.ARCHIVED


def test_a_manifest_that_cannot_be_understood_stays_too_and_the_asset_is_copied_again() -> None:
    harness = Harness(assets=1)
    put(harness.store, harness.keys["asset-000"], b"{rubbish")

    harness.scrubber.scrub()

    assert harness.state("asset-000") == AssetState.DISCOVERED
    assert harness.store.read(harness.keys["asset-000"]) == b"{rubbish"


def test_damage_found_after_the_source_ended_needs_a_person() -> None:
    harness = Harness(assets=1)
    harness.clock.advance(RETENTION)
    assert harness.healthy()
    harness.spoil("asset-000")
    before = harness.media()

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.damaged == 1
    row = harness.row("asset-000")
    assert row.state == AssetState.DAMAGED
    assert row.reason is not None
    assert row.reason.startswith("not whole at memory://one: movie.mp4: CRC32C")
    assert "whole at no destination" in row.reason
    assert "archiver verify asset-000" in row.reason
    assert harness.media() == before, "the rest of it is all there is"
    assert not harness.healthy()
    assert harness.ledger.counts().balanced


def test_a_damaged_asset_stays_damaged_whatever_sweeps_and_reconciles_until_it_is_restored() -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    harness.clock.advance(RETENTION)
    harness.scrubber.scrub()

    harness.reconcile()
    harness.ledger.discover([judge(harness.assets[0], Scope(RETENTION))])
    harness.scrubber.scrub()
    assert harness.state("asset-000") == AssetState.DAMAGED

    harness.restore("asset-000")
    harness.scrubber.scrub()
    harness.reconcile()
    assert harness.state("asset-000") == AssetState.ARCHIVED
    assert harness.row("asset-000").reason is None
    assert harness.healthy()


def test_a_ledger_that_is_lost_learns_of_a_damaged_asset_from_the_bucket() -> None:
    harness = Harness(assets=2)
    harness.spoil("asset-000")
    harness.clock.advance(RETENTION)
    harness.scrubber.scrub()
    harness.scrubber.scrub()
    harness.ledger.clear()

    harness.reconcile()

    assert harness.state("asset-000") == AssetState.DAMAGED
    assert "movie.mp4: CRC32C" in str(harness.row("asset-000").reason)
    assert harness.state("asset-001") == AssetState.ARCHIVED
    assert harness.ledger.counts().balanced


def test_of_two_copies_the_one_that_is_whole_is_named() -> None:
    harness = Harness(assets=1, destinations=2)
    one, two = harness.stores
    harness.spoil("asset-000", one)
    harness.clock.advance(RETENTION)

    harness.scrubber.scrub()

    assert harness.state("asset-000") == AssetState.DAMAGED
    assert "whole at memory://two;" in str(harness.row("asset-000").reason)
    assert committed(two, harness.keys["asset-000"])

    harness.spoil("asset-000", two)
    harness.scrubber.scrub()

    assert "not whole at memory://two: movie.mp4: CRC32C" in str(harness.row("asset-000").reason)
    assert "whole at no destination" in str(harness.row("asset-000").reason)


def test_an_unreadable_copy_is_not_called_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(assets=1, destinations=2)
    one, two = harness.stores
    harness.spoil("asset-000", one)
    harness.clock.advance(RETENTION)

    def away(_key: ObjectKey, _start: int = 0, _length: int | None = None) -> bytes:
        raise AccessDenied("read: 403")

    monkeypatch.setattr(two, "read", away)

    harness.scrubber.scrub()

    assert "not whole at memory://two: it could not be read: read: 403" in str(
        harness.row("asset-000").reason
    )


@pytest.mark.parametrize("passed", [timedelta(0), RETENTION])
def test_a_damaged_copy_whose_manifest_cannot_be_marked_does_not_count_as_archived(
    passed: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    harness.clock.advance(passed)

    def locked(*_put: object) -> None:
        raise StorageError("put: 403 RetentionPolicyNotMet")

    monkeypatch.setattr(harness.store, "put", locked)

    harness.scrubber.scrub()
    harness.reconcile()  # by names and sizes it would be whole

    assert harness.state("asset-000") == AssetState.DAMAGED
    assert "RetentionPolicyNotMet" in str(harness.row("asset-000").reason)


def test_an_unreadable_manifest_does_not_delay_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(assets=2)
    read = harness.store.read

    def refusing(key: ObjectKey, start: int, size: int) -> bytes:
        if "asset-000" in key:
            raise AccessDenied("read: 403")
        return read(key, start, size)

    monkeypatch.setattr(harness.store, "read", refusing)

    result = harness.scrubber.scrub()

    assert result is not None
    assert (result.manifests, result.unreadable, result.read_bytes) == (2, 1, 102)


def test_stale_uploads_are_aborted_and_recent_ones_are_left_to_their_workers() -> None:
    harness = Harness(assets=0)
    old, young = (
        harness.store.begin(ObjectSpec(object_key(f"recordings/{name}.mp4"), "video/mp4", 100))
        for name in ("old", "young")
    )
    harness.store.store.uploads[old.token].began_at -= STALE_UPLOAD

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.stale_uploads == 1
    assert set(harness.store.store.uploads) == {young.token}


def test_scrub_reads_nothing_while_another_one_is_running() -> None:
    harness = Harness(assets=1)
    harness.ledger.lock(LOCK_NAME, LOCK_TTL)

    assert harness.scrubber.scrub() is None


def test_a_copy_that_a_worker_replaces_during_the_check_keeps_its_new_manifest() -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    key = harness.keys["asset-000"]
    read = harness.store.read

    def replaced_meanwhile(wanted: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        found = read(wanted, start, length_bytes)
        if wanted.endswith("movie.mp4") and harness.state("asset-000") is AssetState.ARCHIVED:
            harness.clock.advance(timedelta(seconds=1))
            harness.ledger.reopen("asset-000")
            archive_at([harness.store], harness.assets[0])
            enter(harness.ledger, harness.assets[0])
            harness.store.read = read  # type: ignore[method-assign]
        return found

    harness.store.read = replaced_meanwhile  # type: ignore[method-assign, assignment]

    harness.scrubber.scrub()

    assert harness.store.stat(key) is not None
    assert harness.state("asset-000") is AssetState.ARCHIVED


def test_a_damaged_asset_that_a_worker_is_copying_is_left_to_it() -> None:
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    harness.ledger.reopen("asset-000")
    harness.ledger.lease("asset-000", "worker", timedelta(minutes=2))

    harness.scrubber.scrub()

    assert harness.store.stat(harness.keys["asset-000"]) is not None
    assert harness.state("asset-000") is AssetState.RUNNING


def test_an_asset_with_doubts_is_read_back_too_and_reopened_when_it_is_damaged() -> None:
    harness = Harness(0)
    kept = asset(id="kept")
    archive_at(harness.stores, kept, doubts=("movie.mp4: it has 100 bytes, the API says 200",))
    enter(harness.ledger, kept, AssetState.QUARANTINED)

    whole = harness.scrubber.scrub()
    assert whole
    assert (whole.manifests, whole.damaged) == (1, 0)

    key = archive_at(harness.stores, kept, doubts=("movie.mp4: it has another frame",))
    harness.spoil("kept")
    damaged = harness.scrubber.scrub()
    assert damaged
    assert damaged.damaged == 1
    manifest = read_manifest(harness.store, key)
    assert manifest
    assert (manifest.damage is not None, manifest.trusted) == (True, False)
    row = harness.row("kept")
    assert (row.state, row.stored_objects) == (AssetState.DISCOVERED, 0), "at risk again"


def test_an_asset_with_doubts_that_is_damaged_after_its_deadline_is_damaged() -> None:
    harness = Harness(0)
    kept = asset(id="kept")
    archive_at(harness.stores, kept, doubts=("no ENDLIST",))
    enter(harness.ledger, kept, AssetState.QUARANTINED)
    harness.spoil("kept")
    harness.clock.advance(2 * RETENTION)

    harness.scrubber.scrub()

    assert harness.row("kept").state is AssetState.DAMAGED


class Noted:
    """Something to be called in the middle of a scrub."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.paused = 0.0

    def pause(self, seconds: float) -> None:
        self.paused += seconds
        self.harness.clock.advance(timedelta(seconds=seconds))


def urgent(harness: Harness) -> None:
    """A copy under way that has a day left."""
    one = asset(id="urgent", created_at=(NOW - timedelta(days=14)).isoformat())
    enter(harness.ledger, one, AssetState.RUNNING)


def test_reading_back_waits_while_an_urgent_asset_is_copied() -> None:
    harness = Harness(assets=1)
    urgent(harness)
    noted = Noted(harness)

    def until_it_is_copied(seconds: float) -> None:
        noted.pause(seconds)
        if noted.paused >= 120:
            harness.ledger.reopen("urgent")

    scrubber = Scrubber(
        ledger=harness.ledger, destinations=harness.stores, clock=harness.clock, pause=until_it_is_copied
    )
    result = scrubber.scrub()

    assert result is not None
    assert noted.paused == 120
    assert result.read_bytes == 102


def test_reading_back_waits_for_urgent_assets_only_so_long() -> None:
    harness = Harness(assets=1)
    urgent(harness)
    noted = Noted(harness)

    result = Scrubber(
        ledger=harness.ledger, destinations=harness.stores, clock=harness.clock, pause=noted.pause
    ).scrub()

    assert result is not None
    assert noted.paused == LONGEST_WAIT.total_seconds()
    assert result.read_bytes == 102


def test_a_run_that_loses_its_lock_ends_and_records_what_it_checked() -> None:
    harness = Harness(assets=3)
    read = harness.store.read

    def slow(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        found = read(key, start, length_bytes)
        if "asset-001/movie" in key:
            harness.clock.advance(2 * LOCK_TTL)
            harness.ledger.lock(LOCK_NAME, LOCK_TTL)
        return found

    harness.store.read = slow  # type: ignore[method-assign,assignment]

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.manifests == 2
    harness.store.read = read  # type: ignore[method-assign]
    harness.clock.advance(LOCK_TTL)
    again = harness.scrubber.scrub()
    assert again is not None
    assert again.manifests == 2, "the first one was checked, and recorded"


def test_a_run_whose_lock_a_flushed_ledger_forgot_continues() -> None:
    harness = Harness(assets=3)
    read = harness.store.read

    def flushed(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if "asset-001/movie" in key:
            harness.clock.advance(timedelta(minutes=1))
            harness.ledger.clear()
        return read(key, start, length_bytes)

    harness.store.read = flushed  # type: ignore[method-assign,assignment]

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.manifests == 3


def test_a_run_that_is_cancelled_records_what_it_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeIsUp(Exception):
        pass

    harness = Harness(assets=3)
    read = harness.store.read

    def stopped(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if "asset-002/movie" in key:
            raise TimeIsUp
        return read(key, start, length_bytes)

    monkeypatch.setattr(harness.store, "read", stopped)
    with pytest.raises(TimeIsUp):
        harness.scrubber.scrub()
    monkeypatch.setattr(harness.store, "read", read)

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.manifests == 1


def test_no_copy_is_begun_after_the_longest_run_and_each_destination_has_its_share() -> None:
    harness = Harness(assets=5, destinations=2)
    for store in harness.stores:
        read = store.read

        def slow(
            key: ObjectKey,
            start: int = 0,
            length_bytes: int | None = None,
            read: Callable[..., bytes] = read,
        ) -> bytes:
            if key.endswith("movie.mp4") and start == 0:
                harness.clock.advance(timedelta(hours=1))
            return read(key, start, length_bytes)

        store.read = slow  # type: ignore[method-assign,assignment]

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.manifests == 6
    again = harness.scrubber.scrub()
    assert again is not None
    assert again.manifests == 4


def test_one_bad_answer_is_no_damage() -> None:
    harness = Harness(assets=1)
    read = harness.store.read
    answers: list[bytes] = []

    def bad_at_first(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        found = read(key, start, length_bytes)
        if key.endswith("movie.mp4") and start == 0:
            answers.append(found)
            return found if len(answers) > 1 else b"x" * len(found)
        return found

    harness.store.read = bad_at_first  # type: ignore[method-assign,assignment]

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.damaged == 0
    assert len(answers) == 2
    assert harness.state("asset-000") is AssetState.ARCHIVED


def test_damage_is_reported_though_another_object_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a second fault of the copy hides the first until the next run that both reads."""
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    read = harness.store.read

    def refusing(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if key.endswith("asset.json"):
            raise AccessDenied("read: 403")
        return read(key, start, length_bytes)

    monkeypatch.setattr(harness.store, "read", refusing)

    result = harness.scrubber.scrub()

    assert result is not None
    assert (result.damaged, result.unreadable) == (1, 0)
    assert harness.state("asset-000") is AssetState.DISCOVERED
    manifest = read_manifest(harness.store, harness.keys["asset-000"])
    assert manifest is not None
    assert [problem.split(":")[0] for problem in manifest.damage or ()] == ["movie.mp4", "asset.json"]


def test_many_unreadable_copies_never_delay_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(assets=40)
    read = harness.store.read
    refused: list[ObjectKey] = []

    def refusing(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if int(key.split("asset-")[1][:3] if "asset-" in key else 99) < 20:
            refused.append(key)
            raise AccessDenied("read: 403")
        return read(key, start, length_bytes)

    monkeypatch.setattr(harness.store, "read", refusing)

    results = harness.scrub_daily(2)

    assert [(each.manifests, each.unreadable) for each in results] == [(40, 20), (20, 20)]
    assert {harness.state(each.id) for each in harness.assets} == {AssetState.ARCHIVED}


def test_uploads_that_cannot_be_listed_keep_nothing_from_being_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(assets=1)

    def refused(_older_than: timedelta) -> int:
        raise AccessDenied("list uploads: 403")

    monkeypatch.setattr(harness.store, "abort_stale_uploads", refused)

    result = harness.scrubber.scrub()

    assert result is not None
    assert (result.manifests, result.stale_uploads) == (1, 0)


def test_in_a_bucket_of_several_programs_only_uploads_of_known_assets_are_aborted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(assets=1)
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

    monkeypatch.setattr(harness.store, "abort_uploads", abort_uploads, raising=False)

    result = harness.scrubber.scrub()

    assert result is not None
    assert result.stale_uploads == 3


def test_a_manifest_that_was_replaced_is_read_in_full_again() -> None:
    harness = Harness(assets=1)
    assert harness.scrub_daily(2)[-1].manifests == 0
    archive_at([harness.store], harness.assets[0])

    (result,) = harness.scrub_daily(1)

    assert (result.manifests, result.read_bytes) == (1, 102)


class UnavailableLedger(MemoryLedger):
    away = False

    def get(self, asset_id: str) -> Row | None:
        if self.away:
            raise LedgerUnavailable("nothing listens there")
        return super().get(asset_id)


def test_whole_copies_are_checked_while_the_ledger_is_unavailable() -> None:
    harness = Harness(assets=3)
    ledger = UnavailableLedger(harness.clock)
    ledger.away = True

    result = Scrubber(ledger=ledger, destinations=harness.stores, clock=harness.clock).scrub()

    assert result is not None
    assert result.manifests == 3


def test_damage_that_cannot_be_recorded_ends_the_run_and_is_found_again() -> None:
    harness = Harness(assets=1)
    ledger = UnavailableLedger(harness.clock)
    enter(ledger, harness.assets[0])
    harness.spoil("asset-000")
    scrubber = Scrubber(ledger=ledger, destinations=harness.stores, clock=harness.clock)
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
    harness = Harness(assets=1)
    harness.spoil("asset-000")
    harness.clock.advance(RETENTION)
    harness.scrubber.scrub()
    marked = harness.store.stat(harness.keys["asset-000"])

    (again,) = harness.scrub_daily(1)

    assert again.damaged == 1
    assert harness.store.stat(harness.keys["asset-000"]) == marked
    assert harness.state("asset-000") is AssetState.DAMAGED

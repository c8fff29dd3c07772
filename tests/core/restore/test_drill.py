"""The drill restores copies as a test, finds what does not come back or does not play, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from archiver.core.attempt import urgency
from archiver.core.records import keys
from archiver.core.records.drill_records import Drilled, DrillRecord, read_drills, write_drills
from archiver.core.records.keys import manifest_key
from archiver.core.records.manifest import read_manifest
from archiver.core.restore import drill as drill_module
from archiver.core.restore.decoding import Decoder, Played
from archiver.core.restore.drill import Driller, DrillRules
from archiver.core.restore.folder import RestoreFolder
from archiver.core.upkeep import drill_report
from archiver.core.upkeep.drill_report import DRILL_FACT, DrillReport, drill_findings
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.errors import AccessDenied, ObjectCold, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, flip_a_bit
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

MEDIA = Path(__file__).parents[3] / "archiver/simulator/media"
DAY = timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> Any:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend("one")


@pytest.fixture
def build(ledger: MemoryLedger, clock: Clock, tmp_path: Path) -> Callable[..., Driller]:
    def built(*stores: Any, decode: Any = lambda _path: (Played.YES, ""), **rules: Any) -> Driller:
        return Driller(
            ledger=ledger,
            destinations=stores,
            clock=clock,
            rules=DrillRules(scratch=tmp_path / "scratch", **rules),
            decode=decode,
        )

    return built


def number(of: int, **fields: Any) -> Any:
    return asset(id=f"{of:024x}", **fields)


def findings(ledger: MemoryLedger, clock: Clock) -> list[str]:
    return [each.id for each in drill_findings(ledger.recall(DRILL_FACT), clock.now)]


def test_the_longest_undrilled_copies_of_each_destination_come_first_and_nothing_is_left(
    build: Callable[..., Driller], store: MemoryBackend, clock: Clock, tmp_path: Path
) -> None:
    other = MemoryBackend("two")
    archived = [archive_at([store, other], number(each)) for each in range(5)]
    drilled: list[list[str]] = []
    for _ in range(3):
        report = build(store, other).drill(2)
        assert report is not None
        assert (report.copies, report.decoded, report.failed, report.errors) == (4, 4, (), ())
        at = int(clock.now.timestamp())
        for each in (store, other):
            record = read_drills(each, clock.now)
            drilled.append([key for key, value in record.drilled.items() if value.at == at])
        clock.now += 7 * DAY

    assert drilled[0] == drilled[1] == archived[:2]
    assert drilled[2] == archived[2:4]
    assert sorted(drilled[4]) == sorted([archived[4], archived[0]])
    assert list(tmp_path.iterdir()) == []


def test_a_planted_copy_with_the_right_checksum_that_does_not_play_is_found(
    build: Callable[..., Driller], store: MemoryBackend, ledger: MemoryLedger, clock: Clock
) -> None:
    video = (MEDIA / "composite.mp4").read_bytes()
    at = video.index(b"mdat") + 4
    archive_at([store], number(1), {"movie.mp4": video})
    archive_at([store], number(2), {"movie.mp4": video[:at] + bytes(len(video) - at)})
    archive_at([store], number(3), {"chat.csv": b"a,b\n"})
    decode = Decoder(imageio_ffmpeg.get_ffmpeg_exe())

    report = build(store, decode=decode).drill(3)

    assert report is not None
    (failed,) = report.failed
    assert failed.startswith(f"{2:024x} from memory://one: does not play: ")
    assert (report.copies, report.decoded, report.not_decoded) == (3, 1, 0)
    assert findings(ledger, clock) == ["drill_failed", "drilled"]
    (text, _) = (each.text for each in drill_findings(ledger.recall(DRILL_FACT), clock.now))
    assert f"{2:024x}" in text
    assert "archiver restore ID DIR" in text
    assert "archive --again ID" in text
    assert "archiver verify" not in text  # which would call it whole


def test_what_failed_is_drilled_again_first_and_is_forgotten_once_it_is_whole(
    build: Callable[..., Driller], store: MemoryBackend, ledger: MemoryLedger, clock: Clock
) -> None:
    for each in range(4):
        archive_at([store], number(each))
    repair = flip_a_bit(store, keys.manifest_key(number(0).id, number(0).created_at))
    first = build(store).drill(1)
    clock.now += DAY
    repair()

    second = build(store).drill(1)

    assert first is not None
    assert second is not None
    assert "CRC32C" in first.failed[0]
    assert (second.copies, second.failed) == (2, ())
    assert findings(ledger, clock) == ["drilled"]


def test_what_stays_damaged_never_takes_the_place_of_the_others(
    build: Callable[..., Driller], store: MemoryBackend, clock: Clock
) -> None:
    archived = [archive_at([store], number(each)) for each in range(6)]
    for each in range(3):
        flip_a_bit(store, archived[each])
    reports = []
    for _ in range(6):
        reports.append(build(store).drill(1))
        clock.now += 7 * DAY

    results = {key: each.result for key, each in read_drills(store, clock.now).drilled.items()}
    assert results == {key: "failed" if key in archived[:3] else "whole" for key in archived}
    assert all(report is not None and report.failed for report in reports), "each run tells of one of them"


def test_without_ffmpeg_a_copy_is_compared_and_the_report_says_that_it_was_not_decoded(
    build: Callable[..., Driller],
    store: MemoryBackend,
    ledger: MemoryLedger,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    archive_at([store], number(1))

    report = build(store, decode=Decoder()).drill(1)

    assert report is not None
    assert (report.ok, report.not_decoded) == (True, 1)
    (note,) = drill_findings(ledger.recall(DRILL_FACT), clock.now)
    assert "1 not decoded: there is no ffmpeg on PATH" in note.text


def test_what_a_killed_drill_left_is_removed_by_the_next_one_due_or_not(
    build: Callable[..., Driller], store: MemoryBackend, tmp_path: Path
) -> None:
    archive_at([store], number(1))
    driller = build(store)
    for run in (driller.drill_if_due, driller.drill_if_due):  # the second is not due
        (tmp_path / "scratch/a/b").mkdir(parents=True)
        (tmp_path / "scratch/a/b/movie.mp4").write_bytes(b"left")
        (tmp_path / "scratch/.archiver-restore").mkdir()
        (tmp_path / "scratch/.archiver-restore/x.partial").write_bytes(b"left")

        run()

        assert list(tmp_path.iterdir()) == []


def test_a_drill_runs_once_in_its_interval_and_not_while_urgent_assets_wait(
    build: Callable[..., Driller], store: MemoryBackend, ledger: MemoryLedger, clock: Clock
) -> None:
    archive_at([store], number(1))
    driller = build(store, every=7 * DAY)
    urgency.publish(ledger, ["urgent"], clock.now)
    assert driller.drill_if_due() is None
    clock.now += timedelta(minutes=2)

    due = []
    for _ in range(15):
        due.append(driller.drill_if_due() is not None)
        clock.now += DAY

    assert [day for day, ran in enumerate(due) if ran] == [0, 7, 14]
    assert build(store, assets=0).drill_if_due() is None
    assert ledger.recall(DRILL_FACT) is None


@pytest.mark.parametrize("over", [True, False], ids=["source over", "source there"])
@pytest.mark.parametrize("rot", ["a bit", "an object gone"])
def test_a_copy_with_rot_is_marked_and_copied_again_at_once(tmp_path: Path, rot: str, over: bool) -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    key = manifest_key(asset().id, asset().created_at)
    if over:
        harness.clock.advance(RETENTION + DAY)
    if rot == "a bit":
        flip_a_bit(harness.two, key)
    else:
        manifest = read_manifest(harness.two, key)
        assert manifest is not None
        harness.two.delete(manifest.key_of(manifest.objects[0]))
    driller = Driller(
        ledger=harness.ledger,
        destinations=harness.stores,
        clock=harness.clock,
        rules=DrillRules(scratch=tmp_path / "scratch"),
        decode=lambda _path: (Played.YES, ""),
    )

    reports = [driller.drill(3) for _ in range(2)]

    for report in reports:
        assert report is not None
        (failed,) = report.failed
        assert failed.endswith("; it is marked as damaged")
    damage = [bool(each and each.damage) for each in (read_manifest(store, key) for store in harness.stores)]
    assert damage == [False, True]
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is (AssetState.DAMAGED if over else AssetState.DISCOVERED)


def test_what_does_not_play_and_has_the_right_bytes_is_not_marked(tmp_path: Path) -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    driller = Driller(
        ledger=harness.ledger,
        destinations=harness.stores,
        clock=harness.clock,
        rules=DrillRules(scratch=tmp_path / "scratch"),
        decode=lambda _path: (Played.NO, "no picture"),
    )

    report = driller.drill(1)

    assert report is not None
    assert len(report.failed) == 2
    assert "marked" not in report.failed[0]
    assert harness.state(asset()) is AssetState.ARCHIVED


def test_a_copy_that_cannot_be_marked_is_told_and_the_drill_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = ReconcileHarness()
    harness.archive([asset(), number(2)])
    flip_a_bit(harness.one, manifest_key(asset().id, asset().created_at))
    driller = Driller(
        ledger=harness.ledger,
        destinations=harness.stores,
        clock=harness.clock,
        rules=DrillRules(scratch=tmp_path / "scratch"),
        decode=lambda _path: (Played.YES, ""),
    )

    def away(_asset_id: str) -> None:
        raise LedgerUnavailable("no answer")

    monkeypatch.setattr(harness.ledger, "get", away)

    report = driller.drill(2)

    assert report is not None
    assert report.copies == 4
    (failed,) = report.failed
    assert failed.endswith("; it could not be marked as damaged (no answer)")


def test_what_is_cold_or_too_large_is_passed_over_for_others(
    build: Callable[..., Driller], store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([store], number(1), {"movie.mp4": b"m" * 2000})
    archive_at([store], number(2), {"cold.mp4": b"c"})
    archive_at([store], number(3))
    read = store.read

    def cold(key: Any, *arguments: Any, **more: Any) -> bytes:
        if key.endswith("cold.mp4"):
            raise ObjectCold("it is in Glacier")
        return read(key, *arguments, **more)

    monkeypatch.setattr(store, "read", cold)

    report = build(store, scratch_bytes=1000).drill(1)

    assert report is not None
    assert (report.copies, report.passed_over, report.ok) == (1, 2, True)


@pytest.mark.parametrize("error", [TransientStorageError("503"), AccessDenied("403")])
def test_a_destination_that_cannot_be_read_fails_no_copy(
    build: Callable[..., Driller],
    store: MemoryBackend,
    ledger: MemoryLedger,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    archive_at([store], number(1))
    build(store).drill_if_due()
    read = store.read

    def away(key: Any, *arguments: Any, **more: Any) -> bytes:
        if key.endswith("movie.mp4"):
            raise error
        return read(key, *arguments, **more)

    monkeypatch.setattr(store, "read", away)
    clock.now += 8 * DAY

    report = build(store).drill_if_due()
    clock.now += 2 * DAY

    assert report is not None
    assert (report.failed, report.copies, len(report.errors)) == ((), 0, 1)
    assert findings(ledger, clock) == ["drill_is_late", "drilled"]


def test_a_scratch_folder_that_is_full_or_cannot_be_written_is_an_error_and_no_damage(
    build: Callable[..., Driller], store: MemoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([store], number(1))
    (tmp_path / "scratch").write_bytes(b"a file")

    report = build(store).drill(1)

    assert report is not None
    assert (report.failed, report.copies) == ((), 0)
    assert "cannot be written" in report.errors[0]
    monkeypatch.undo()


def test_a_run_that_passes_everything_over_is_no_drill(
    build: Callable[..., Driller], store: MemoryBackend, ledger: MemoryLedger, clock: Clock
) -> None:
    archive_at([store], number(1), {"movie.mp4": b"m" * 2000})
    driller = build(store, scratch_bytes=1000)
    driller.drill_if_due()
    clock.now += 10 * DAY

    report = driller.drill_if_due()

    assert report is not None
    assert not report.ok
    (late,) = drill_findings(ledger.recall(DRILL_FACT), clock.now)
    assert (late.id, "ARCHIVER_DRILL_BYTES" in late.text) == ("drill_is_late", True)


def test_of_two_drills_one_runs(
    build: Callable[..., Driller], store: MemoryBackend, ledger: MemoryLedger
) -> None:
    archive_at([store], number(1))
    token = ledger.lock(drill_module.LOCK_NAME, drill_module.LOCK_TTL)
    assert token is not None

    assert build(store).drill(1) is None
    ledger.unlock(drill_module.LOCK_NAME, token)
    assert build(store).drill(1) is not None


def test_no_object_of_an_asset_that_the_ledger_does_not_know_changes(
    build: Callable[..., Driller], store: MemoryBackend
) -> None:
    key = archive_at([store], number(1))
    flip_a_bit(store, key)
    before = dict(store.store.objects)

    for _ in range(5):
        build(store).drill(1)

    after = {key: value for key, value in store.store.objects.items() if not key.startswith(keys.DRILLS)}
    assert after == before
    assert sum(key.startswith(keys.DRILLS) for key in store.store.objects) <= 3


def test_a_drill_that_was_expected_and_never_ended_is_late(ledger: MemoryLedger, clock: Clock) -> None:
    drill_report.expect_drill(ledger, clock.now, 7 * DAY)
    clock.now += 8 * DAY
    assert findings(ledger, clock) == []
    clock.now += 2 * DAY

    assert findings(ledger, clock) == ["drill_is_late"]


def test_the_note_says_how_long_a_gib_takes(ledger: MemoryLedger, clock: Clock) -> None:
    report = DrillReport(copies=3, size_bytes=2**29, seconds=90.0, decoded=2)
    drill_report.record_drill(ledger, report, 7 * DAY, clock.now)

    (note,) = drill_findings(ledger.recall(DRILL_FACT), clock.now + 3 * DAY)

    assert note.text == "Last drill 3 days ago: 3 copies restored and compared, 3.0 minutes a GiB, 2 decoded."


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        (timedelta(seconds=20), "0 minutes"),
        (timedelta(seconds=61), "1 minute"),
        (timedelta(minutes=59), "59 minutes"),
        (timedelta(minutes=61), "1 hour"),
        (timedelta(hours=47), "47 hours"),
        (-timedelta(minutes=5), "0 minutes"),  # by a clock that was ahead
    ],
)
def test_the_note_says_how_long_ago_it_was(
    ledger: MemoryLedger, clock: Clock, ago: timedelta, shown: str
) -> None:
    drill_report.record_drill(ledger, DrillReport(copies=1), 7 * DAY, clock.now)

    (note,) = drill_findings(ledger.recall(DRILL_FACT), clock.now + ago)

    assert note.text.startswith(f"Last drill {shown} ago: 1 copy")


def test_a_record_that_is_cut_or_of_a_clock_that_was_ahead_is_passed_over(store: MemoryBackend) -> None:
    record = DrillRecord({"manifests/2026/03/01/a.json": Drilled(int(NOW.timestamp()), "whole", "decoded")})
    write_drills(store, record, NOW - DAY)
    newest = write_drills(store, DrillRecord(), NOW)
    write_drills(store, DrillRecord(), NOW + 30 * DAY)
    whole = store.store.objects[newest]
    from dataclasses import replace

    store.store.objects[newest] = replace(whole, data=whole.data[:-9])

    assert read_drills(store, NOW).drilled == record.drilled


def test_a_scratch_folder_in_use_is_left_alone(
    build: Callable[..., Driller], store: MemoryBackend, tmp_path: Path
) -> None:
    with RestoreFolder(tmp_path / "scratch") as used:
        used.write("a/b.mp4", b"in use")
        report = build(store).drill(1)
        assert (tmp_path / "scratch/a/b.mp4").read_bytes() == b"in use"

    assert report is not None
    assert "another restore is writing" in report.errors[0]

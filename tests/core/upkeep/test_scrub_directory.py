"""The scrub on a real directory, which keeps no checksums."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.core.records.check_records import KEPT
from archiver.core.records.keys import CHECKS
from archiver.core.upkeep import reports
from archiver.core.upkeep.scrub import Scrubber, ScrubResult
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.registry import open_destination
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock


class Harness:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.store = open_destination(f"file://{path}")
        self.scrubber = Scrubber(ledger=self.ledger, destinations=[self.store], clock=self.clock)
        archive_at([self.store], asset())
        enter(self.ledger, asset())

    def scrub(self, days: float) -> ScrubResult:
        self.clock.advance(timedelta(days=days))
        result = self.scrubber.scrub()
        assert result is not None
        return result


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    (tmp_path / "archive").mkdir()
    return Harness(tmp_path / "archive")


def test_each_check_reads_everything_and_the_record_stays_small(harness: Harness) -> None:
    read = [harness.scrub(days=9).read_bytes for _ in range(12)]

    assert read == [102, 0, 0] * 4
    assert len(list((harness.path / CHECKS).rglob("*.jsonl.gz"))) == KEPT
    assert reports.scrub_problems(harness.ledger.recall(reports.SCRUB_FACT), harness.clock()) == []


def test_damage_is_found_once_and_cleared_when_the_copy_is_restored(harness: Harness) -> None:
    harness.scrub(days=1)
    (media,) = harness.path.rglob("movie.mp4")
    good = media.read_bytes()
    media.write_bytes(b"x" + good[1:])
    harness.clock.advance(RETENTION)

    assert harness.scrub(days=27).damaged == 1
    (manifest,) = (harness.path / "manifests").rglob("*.json")
    marked = manifest.stat()
    assert harness.scrub(days=1).damaged == 1
    assert manifest.stat() == marked
    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is AssetState.DAMAGED

    media.write_bytes(good)
    assert harness.scrub(days=1).damaged == 0
    assert b"damage" not in manifest.read_bytes()
    assert [harness.scrub(days=1).manifests for _ in range(3)] == [1, 0, 0], "its new manifest, once"


def test_a_drive_that_is_mounted_again_is_not_read_again(harness: Harness, tmp_path: Path) -> None:
    harness.scrub(days=1)
    (manifest,) = (harness.path / "manifests").rglob("*.json")
    times = manifest.stat()
    other = tmp_path / "other"
    other.write_bytes(manifest.read_bytes())  # another inode

    other.replace(manifest)

    os.utime(manifest, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert manifest.stat().st_ino != times.st_ino
    assert harness.scrub(days=1).manifests == 0

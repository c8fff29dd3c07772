"""Copies in a storage class that must be restored before they can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.records.keys import manifest_key
from archiver.core.records.manifest import read_manifest
from archiver.core.records.verify import verify_in_full
from archiver.core.upkeep import reports
from archiver.core.upkeep.scrub import Scrubber, ScrubResult
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.errors import ObjectCold
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock

RULES = ScrubRules(retention=RETENTION)


class FreezingStore(MemoryBackend):
    """Answers reads of what is `cold` as S3 does for GLACIER and DEEP_ARCHIVE. Notes every request. `tells`: `stat` and
    `list` say so, as those of S3 and GCS do."""

    def __init__(self, name: str = "one") -> None:
        super().__init__(name)
        self.cold: set[str] = set()
        self.tells = False
        self.requests: list[tuple[str, str]] = []

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self.requests.append(("HEAD", key))
        info = super().stat(key)
        return replace(info, cold=True) if info is not None and self.tells and key in self.cold else info

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        self.requests.append(("GET", key))
        if key in self.cold:
            raise ObjectCold(f"reading {key!r} in {self.name}: 403 InvalidObjectState")
        return super().read(key, start, length_bytes, if_match=if_match)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.requests.append(("LIST", prefix))
        for info in super().list(prefix):
            yield replace(info, cold=self.tells and info.key in self.cold)


class Harness:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.store = FreezingStore()
        self.scrubber = Scrubber(ledger=self.ledger, destinations=[self.store], clock=self.clock, rules=RULES)
        self.keys = {}
        for name in ("cold", "warm"):
            one = asset(id=name)
            self.keys[name] = archive_at([self.store], one, {"movie.mp4": b"m" * 100})
            enter(self.ledger, one)

    def scrub(self, days: float = 1) -> ScrubResult:
        self.clock.advance(timedelta(days=days))
        self.store.requests.clear()
        result = self.scrubber.scrub()
        assert result is not None
        return result

    def requests(self, name: str, key: str = "movie.mp4") -> list[str]:
        return [method for method, at in self.store.requests if name in at and at.endswith(key)]

    def problems(self) -> list[str]:
        return reports.scrub_problems(self.ledger.recall(reports.SCRUB_FACT), self.clock())

    def words(self) -> str:
        return " ".join(reports.scrub_notes(self.ledger.recall(reports.SCRUB_FACT), self.clock()))


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_cold_copy_costs_one_head_and_is_reported_with_the_day_of_its_last_read(
    harness: Harness,
) -> None:
    harness.scrub()  # on the 2nd both are read
    harness.store.cold.add("recordings/cold/movie.mp4")
    harness.clock.advance(timedelta(days=330))
    yearly = harness.scrub(days=40)
    assert (yearly.manifests, yearly.unreadable, yearly.damaged) == (2, 0, 0)
    assert harness.requests("warm") == ["HEAD", "GET", "GET"]
    assert harness.problems() == []
    assert "1 cold (last read on 2026-03-02 or later)" in harness.words()

    monthly = harness.scrub(days=28)

    assert (monthly.manifests, monthly.read_bytes) == (2, 0)
    assert harness.requests("cold") == ["HEAD"]
    assert harness.problems() == []
    assert {row.state for row in harness.ledger.rows()} == {AssetState.ARCHIVED}


def test_a_copy_that_became_cold_before_it_was_read_is_reported_as_such(harness: Harness) -> None:
    harness.store.cold.add("recordings/cold/movie.mp4")

    result = harness.scrub()

    assert (result.unreadable, result.damaged) == (0, 0)
    assert "1 cold (not all were ever read)" in harness.words()
    assert harness.scrub().manifests == 0, "it is not asked for again each day"


def test_a_cold_manifest_is_present_and_its_objects_are_unknown(harness: Harness) -> None:
    harness.store.cold.add(harness.keys["cold"])

    result = harness.scrub()

    assert (result.manifests, result.unreadable, result.damaged) == (2, 0, 0)
    assert harness.requests("cold", ".json") == ["HEAD", "GET"]
    assert harness.requests("cold") == []
    assert "1 cold" in harness.words()


def test_a_cold_copy_of_which_an_object_is_gone_is_damaged_all_the_same(harness: Harness) -> None:
    harness.store.cold.add("recordings/cold/movie.mp4")
    harness.scrub()
    harness.store.delete(ObjectKey("recordings/cold/movie.mp4"))

    result = harness.scrub(days=28)

    assert result.damaged == 1
    row = harness.ledger.get("cold")
    assert row is not None
    assert row.state is AssetState.DAMAGED


def test_a_copy_that_was_restored_is_read_when_it_would_be_due_again(harness: Harness) -> None:
    harness.store.cold.add("recordings/cold/movie.mp4")
    harness.scrub()
    harness.store.cold.clear()

    for _ in range(14):
        harness.scrub(days=26)

    assert "cold" not in harness.words()


def test_a_copy_that_its_store_calls_cold_costs_one_head_and_no_read(harness: Harness) -> None:
    harness.store.tells = True
    harness.store.cold.add("recordings/cold/movie.mp4")

    for days in (1, 28, 400):  # in full, by checksum, in full again
        result = harness.scrub(days)

        assert harness.requests("cold") == ["HEAD"]
        assert result.damaged == 0
    assert "1 cold (not all were ever read)" in harness.words()
    assert harness.problems() == []


def test_a_restored_copy_is_read_again(harness: Harness) -> None:
    harness.store.tells = True
    harness.store.cold.add("recordings/cold/movie.mp4")
    harness.scrub()
    harness.store.cold.clear()
    harness.scrub(400)

    assert "GET" in harness.requests("cold")
    assert "cold" not in harness.words()


def test_many_cold_objects_cost_one_list(harness: Harness) -> None:
    files = {f"{n}.ts": b"s" for n in range(9)}
    one = asset(id="tree")
    archive_at([harness.store], one, files)
    harness.store.tells = True
    harness.store.cold |= {f"recordings/tree/{name}" for name in files}
    manifest = read_manifest(harness.store, manifest_key("tree", one.created_at))
    assert manifest is not None
    harness.store.requests.clear()

    verified = verify_in_full(harness.store, manifest)

    assert verified.ok
    assert verified.cold > 0
    assert sorted(method for method, _ in harness.store.requests) == ["HEAD", "LIST"]

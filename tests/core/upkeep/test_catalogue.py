"""The monthly table equals the manifests, row for row."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, datetime

import pytest

from archiver.core.records import keys
from archiver.core.records.commit import mark_damaged
from archiver.core.upkeep.catalogue import (
    COLUMNS,
    is_month,
    months_of,
    recent_months,
    write_catalogue,
)
from archiver.hms.models import Asset
from storage_backends.base import object_key
from storage_backends.memory import MemoryBackend
from tests.core.archived import FILES, archive_at, put
from tests.core.examples import NOW, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

KEY = object_key("catalogue/2026-03.csv.gz")


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend("one")


def table(store: MemoryBackend, key: str = KEY) -> list[dict[str, str]]:
    packed = store.read(object_key(key), 0, 10**9)
    return list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode())))


def on(day: str, asset_id: str) -> Asset:
    return asset(id=asset_id, created_at=f"{day}T10:00:00Z")


def test_a_row_says_what_a_manifest_says(store: MemoryBackend) -> None:
    key = archive_at([store], asset(room_id='room, "one"\nof é'))

    made = write_catalogue(store, "2026-03")

    assert (made.key, made.rows, made.written) == (KEY, 1, True)
    assert table(store) == [
        {
            "asset_id": asset().id,
            "type": "room-composite",
            "room_id": 'room, "one"\nof é',
            "session_id": "session-1",
            "created_at": "2026-03-01T07:44:27.010516+00:00",
            "archived_at": NOW.isoformat(),
            "state": "archived",
            "form": "file",
            "objects": "2",
            "size_bytes": str(sum(map(len, FILES.values()))),
            "folder": f"recordings/{asset().id}",
            "manifest": key,
        }
    ]


def test_there_is_a_row_for_each_manifest_of_the_month_and_no_other(store: MemoryBackend) -> None:
    wanted = [on(f"2026-03-{1 + number % 31:02}", f"a{number}") for number in range(1500)]
    manifests = [archive_at([store], each) for each in wanted]
    for day in ("2026-02-28", "2026-04-01", "2025-03-01"):
        archive_at([store], on(day, f"other-{day}"))

    made = write_catalogue(store, "2026-03")

    assert made.rows == 1500
    assert [row["manifest"] for row in table(store)] == sorted(manifests)
    assert set(table(store)[0]) == set(COLUMNS)


def test_doubts_damage_and_what_cannot_be_read_are_told(store: MemoryBackend) -> None:
    archive_at([store], on("2026-03-01", "a"))
    archive_at([store], on("2026-03-01", "b"), doubts=("s7.ts: missing",))
    mark_damaged(store, archive_at([store], on("2026-03-01", "c")), ["gone"])
    put(store, "manifests/2026/03/01/d.json", b"{")

    write_catalogue(store, "2026-03")

    assert {row["asset_id"]: row["state"] for row in table(store)} == {
        "a": "archived",
        "b": "quarantined",
        "c": "damaged",
        "d": "unreadable",
    }


def test_the_same_manifests_give_the_same_bytes_and_are_written_once(store: MemoryBackend) -> None:
    other = MemoryBackend("two")
    for each in ("b", "a", "c"):
        archive_at([store], on("2026-03-01", each))
    for each in ("c", "b", "a"):
        archive_at([other], on("2026-03-01", each))

    made = [write_catalogue(each, "2026-03") for each in (store, store, other)]

    assert [each.written for each in made] == [True, False, True]
    assert store.read(KEY, 0, 10**9) == other.read(KEY, 0, 10**9)


def test_a_new_manifest_renews_the_table(store: MemoryBackend) -> None:
    archive_at([store], on("2026-03-01", "a"))
    write_catalogue(store, "2026-03")
    archive_at([store], on("2026-03-09", "b"))

    assert write_catalogue(store, "2026-03").written
    assert [row["asset_id"] for row in table(store)] == ["a", "b"]


def test_a_table_outlives_its_manifests(store: MemoryBackend) -> None:
    key = archive_at([store], on("2026-03-01", "a"))
    write_catalogue(store, "2026-03")
    store.delete(key)

    assert not write_catalogue(store, "2026-03").written
    assert len(table(store)) == 1
    assert not write_catalogue(store, "2026-02").written
    assert store.stat(object_key("catalogue/2026-02.csv.gz")) is None


def test_undated_assets_have_a_table_too(store: MemoryBackend) -> None:
    archive_at([store], asset(id="a", created_at=None))
    archive_at([store], on("2026-03-01", "b"))

    write_catalogue(store, "undated")

    assert [row["asset_id"] for row in table(store, "catalogue/undated.csv.gz")] == ["a"]
    assert months_of(store) == ["2026-03", "undated"]


def test_a_reconcile_neither_reads_nor_removes_it() -> None:
    harness = ReconcileHarness()
    harness.archive([on("2026-03-01", "a")])
    for each in harness.stores:
        write_catalogue(each, "2026-03")
    harness.ledger.clear()

    result = harness.reconcile()

    assert (result.manifests, result.entered, result.unreadable) == (1, 1, 0)
    assert all(each.stat(KEY) for each in harness.stores)


def test_no_asset_has_the_key_of_a_catalogue() -> None:
    template = "catalogue/{asset_id}"

    assert keys.asset_folder(asset(id="2026-03.csv.gz"), template) != KEY


@pytest.mark.parametrize(
    ("now", "months"), [("2026-03-31", ["2026-02", "2026-03"]), ("2026-01-01", ["2025-12", "2026-01"])]
)
def test_each_night_needs_two_months(now: str, months: list[str]) -> None:
    assert recent_months(datetime.fromisoformat(now).replace(tzinfo=UTC)) == months


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("2026-03", True),
        ("undated", True),
        ("2026-13", False),
        ("2026-3", False),
        ("../x", False),
        ("", False),
    ],
)
def test_a_month_is_written_as_in_the_key(text: str, known: bool) -> None:
    assert is_month(text) is known

"""DuckDB, which knows nothing of us, reads the catalogue, and it equals the manifests row for row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from archiver.core.records import keys
from archiver.core.records.commit import mark_damaged
from archiver.core.upkeep.catalogue import COLUMNS, write_catalogue
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at
from tests.core.examples import asset

_FROM_MANIFESTS = """
    SELECT asset_id, asset.type AS type, asset.room_id AS room_id, asset.session_id AS session_id,
           CAST(asset.created_at AS TIMESTAMPTZ) AS created_at, CAST(archived_at AS TIMESTAMPTZ) AS archived_at,
           CASE WHEN len(damage) > 0 THEN 'damaged' WHEN len(doubts) > 0 THEN 'quarantined' ELSE 'archived' END
           AS state,
           form, len(objects) AS objects, total_size AS size_bytes, folder,
           substr(filename, position('manifests/' IN filename)) AS manifest
    FROM read_json('{archive}/manifests/2026/03/*/*.json', filename = true, union_by_name = true,
                   maximum_object_size = 100000000)
"""
_FROM_CATALOGUE = (
    "SELECT * FROM read_csv('{archive}/catalogue/2026-03.csv.gz', header = true, sample_size = -1)"
)


@dataclass
class Archive:
    folder: Path
    database: duckdb.DuckDBPyConnection

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.database.execute(query.format(archive=self.folder)).fetchall()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder, store = tmp_path_factory.mktemp("archive"), MemoryBackend("one")
    rooms = [
        "plain",
        'a "quoted", one',
        "two\nlines",
        "été 中文 🎥",
        "'; DROP TABLE x; --",
        "trailing space ",
    ]
    for number in range(240):
        doubts = ("s7.ts: missing",) if number % 40 == 7 else ()
        files = {f"{n}.ts": b"x" * (number + n) for n in range(1 + number % 5)}
        day = f"2026-03-{1 + number % 28:02}"
        one = asset(
            id=f"{number:024x}",
            room_id=rooms[number % len(rooms)],
            session_id=f"session-{number % 9}",
            created_at=f"{day}T10:{number % 60:02}:00.123456789Z",
            type=("room-composite", "chat", "a-type-of-tomorrow")[number % 3],
        )
        key = archive_at([store], one, files, doubts)
        if number % 50 == 11:
            mark_damaged(store, key, ["0.ts is gone"])
    write_catalogue(store, "2026-03")
    for path, stored in store.store.objects.items():
        if path.startswith((keys.MANIFESTS, keys.CATALOGUE)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(stored.data)
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        yield Archive(folder, database)


def test_the_catalogue_equals_the_manifests_row_for_row(archive: Archive) -> None:
    catalogue, manifests = _FROM_CATALOGUE, _FROM_MANIFESTS

    assert archive.ask(f"SELECT count(*) FROM ({catalogue})") == [(240,)]
    assert archive.ask(f"({catalogue}) EXCEPT ALL ({manifests})") == []
    assert archive.ask(f"({manifests}) EXCEPT ALL ({catalogue})") == []


def test_its_columns_have_types_without_being_told(archive: Archive) -> None:
    described = {name: kind for name, kind, *_ in archive.ask(f"DESCRIBE {_FROM_CATALOGUE}")}

    assert list(described) == list(COLUMNS)
    assert described["created_at"] == described["archived_at"] == "TIMESTAMP WITH TIME ZONE"
    assert described["objects"] == described["size_bytes"] == "BIGINT"


def test_it_answers_which_recordings_a_room_has_of_a_day(archive: Archive) -> None:
    room = 'a "quoted", one'
    found = archive.ask(
        "SELECT asset_id, folder FROM read_csv('{archive}/catalogue/*.csv.gz') "
        f"WHERE room_id = '{room}' AND created_at::DATE = '2026-03-02' ORDER BY asset_id"
    )

    ids = [f"{number:024x}" for number in range(240) if number % 6 == 1 and number % 28 == 1]
    assert found == [(each, f"recordings/{each}") for each in ids]
    assert len(found) == 3

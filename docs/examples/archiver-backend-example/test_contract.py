"""The archiver's contract over this backend. From a checkout of the archiver, with this package installed beside it:

pytest docs/examples/archiver-backend-example/test_contract.py
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import ClassVar

import pytest

from storage_backends.registry import open_destination
from tests.contracts.storage_contract import Destination, StorageContract


class DatabaseSideDoor:
    """The database, seen without the backend."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stored_keys(self) -> set[str]:
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            return {key for (key,) in database.execute("select key from objects")}

    def read(self, key: str) -> bytes:
        query = "select data from pieces join objects using (id) where key = ? order by number"
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            return b"".join(data for (data,) in database.execute(query, (key,)))

    def write(self, key: str, data: bytes) -> None:
        identity = f"by hand {key}"
        with contextlib.closing(sqlite3.connect(self.path)) as database, database:
            database.execute(
                "insert or replace into pieces values (?, 1, ?, 0, ?)", (identity, len(data), data)
            )
            database.execute(
                "insert or replace into objects values (?, ?, ?, 0, 'a/b', '2026-01-01T00:00:00+00:00')",
                (key, identity, len(data)),
            )


class TestSqlite(StorageContract):
    cannot: ClassVar = {
        "test_a_refusal_to_write_is_named_as_such": "the tests may run as root, who may write anywhere",
    }

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, tmp_path_factory: pytest.TempPathFactory) -> Destination:
        folder = tmp_path_factory.mktemp("sqlite")
        list(open_destination(f"sqlite://{folder}/archive.db").list())  # the side door needs its tables
        return Destination(
            f"sqlite://{folder}/archive.db",
            DatabaseSideDoor(folder / "archive.db"),
            missing_url=f"sqlite://{folder}/not/there.db",
            sibling_url=f"sqlite://{folder}/archive.db.other",
        )

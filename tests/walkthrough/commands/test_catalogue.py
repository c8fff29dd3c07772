"""`archiver catalogue`."""

from __future__ import annotations

import csv
import gzip
from typing import Any

from tests.walkthrough.user import User


def test_what_is_archived_is_found_in_a_table(user: User, archived: dict[str, Any]) -> None:
    month = archived["asset"]["created_at"][:7]

    first = user.types("catalogue", "--month", month, "--json")
    second = user.types("catalogue", "--all", COLUMNS=None)

    assert first.exit_code == 0, first.stderr
    assert (first.json["rows"], first.json["written"]) == (1, True)
    assert f"catalogue/{month}.csv.gz: 1 rows" in second.text
    assert "as it was" in second.text
    with gzip.open(user.folder / f"archive/catalogue/{month}.csv.gz", "rt", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["asset_id"], row["state"]) == (archived["asset_id"], "archived")
    assert (user.folder / "archive" / row["folder"] / archived["objects"][0]["path"]).is_file()
    assert user.types("verify").exit_code == 0
    assert user.types("reconcile").exit_code == 0


def test_a_month_that_is_none_is_2(user: User) -> None:
    assert user.types("catalogue", "--month", "March").exit_code == 2
    assert user.types("catalogue", "--month", "2026-03", "--all").exit_code == 2

"""`archiver scrub`."""

from __future__ import annotations

from typing import Any

from tests.walkthrough.user import User


def test_a_scrub_reads_what_is_new_and_then_has_nothing_to_do(user: User, archived: dict[str, Any]) -> None:
    first = user.types("scrub", "--now", "--json")
    second = user.types("scrub", "--now")

    assert first.exit_code == 0, first.stderr
    assert (first.json["manifests"], first.json["read_bytes"]) == (1, archived["total_size"])
    assert "0 copies were due and checked" in second.text


def test_a_damaged_copy_is_1(user: User, archived: dict[str, Any]) -> None:
    path = user.media_of(archived)
    path.write_bytes(b"x" * path.stat().st_size)

    said = user.types("scrub", "--now")

    assert said.exit_code == 1
    assert "1 damaged" in said.text
    assert user.row(archived["asset_id"])["state"] == "discovered", "it is copied again"


def test_nothing_happens_by_accident(user: User) -> None:
    said = user.types("scrub")

    assert said.exit_code == 2
    assert "--now" in said.text

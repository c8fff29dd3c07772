"""A disk is not mounted when somebody types a command: each says so, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.walkthrough.user import User

NOT_KNOWN = "is not the destination that the ledger knows"


@pytest.fixture
def unmounted(user: User, archived: dict[str, Any]) -> str:
    """The id of an asset at a destination whose folder is empty now."""
    archive = user.folder / "archive"
    archive.rename(user.folder / "disk")
    archive.mkdir()
    return str(archived["asset_id"])


def test_each_command_says_that_it_is_another_destination(user: User, unmounted: str) -> None:
    for command, exit_code in (
        (("verify", unmounted), 1),
        (("doctor",), 1),
        (("archive", "--again", unmounted), 3),
        (("scrub", "--now"), 3),
        (("status",), 1),
        (("show", unmounted), 0),
    ):
        said = user.types(*command)

        assert said.exit_code == exit_code, (command, said.text)
        assert NOT_KNOWN in " ".join(said.text.split()), (command, said.text)
        assert "archiver adopt" in said.text, (command, said.text)
        assert "archive --again" not in said.text, "it would copy everything"
        assert "no manifest" not in said.text.replace("holds no manifest at all", ""), "it is somewhere else"
    assert [path for path in (user.folder / "archive").rglob("*") if path.is_file()] == []


def test_verify_without_the_ledger_names_the_destination_that_holds_nothing(
    user: User, unmounted: str
) -> None:
    disk, archive = user.folder / "disk", user.folder / "archive"

    said = user.types("verify", "--without-ledger", ARCHIVER_DESTINATIONS=f"{disk},{archive}")

    assert unmounted
    assert said.exit_code == 1
    assert "1 of 1 copies are whole" in said.text
    assert f"There is no manifest at file://{archive}: nothing is archived there." in said.text

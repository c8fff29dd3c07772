"""`archiver erase` and `archiver expire`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulator.process import Simulator
from tests.walkthrough.terminal import in_terminal
from tests.walkthrough.user import User


@pytest.fixture
def archived(user: User, empty_simulator: Simulator) -> list[str]:
    """Two assets."""
    ids = [str(empty_simulator.add_asset(kind)["id"]) for kind in ("composite", "chat")]
    assert user.runs_once("--wait", "0").states == {"archived": 2}
    return ids


def files_of(user: User, asset_id: str) -> list[Path]:
    return [path for path in (user.folder / "archive").rglob("*") if asset_id in path.name]


def test_what_is_erased_is_gone_and_stays_away_until_it_is_un_erased(user: User, archived: list[str]) -> None:
    erased, kept = archived

    result = user.types("erase", erased, "--reason", "GDPR-17", "--by", "ann", "--yes")

    assert result.exit_code == 0, result.stderr
    assert "1 erased." in result.text
    (tombstone,) = files_of(user, erased)
    assert json.loads(tombstone.read_text())["state"] == "erased"
    assert files_of(user, kept)
    row = user.row(erased)
    assert (row["state"], row["reason"]) == ("erased", "GDPR-17")
    assert [(each["what"], each["by"]) for each in row["history"]] == [("erased", "ann")]
    assert user.runs_once("--wait", "0").states == {"archived": 1, "erased": 1}
    refused = user.types("archive", erased)
    assert refused.exit_code == 1
    assert "was erased, by GDPR-17" in refused.text
    assert "--un-erase" in refused.text
    assert user.types("retry", erased).exit_code == 1
    assert user.types("status").exit_code == 0
    assert user.types("archive", "--un-erase", erased).exit_code == 0
    assert user.row(erased)["state"] == "archived"


def test_the_assets_of_a_list_are_erased(user: User, archived: list[str]) -> None:
    (user.folder / "ids.txt").write_text("".join(f"{each}\n" for each in archived))

    result = user.types("erase", "--ids-from", "ids.txt", "--reason", "GDPR-17", "--yes")

    assert result.exit_code == 0, result.stderr
    assert "2 erased." in result.text
    assert [user.row(each)["state"] for each in archived] == ["erased", "erased"]


def test_a_rebuilt_ledger_knows_what_was_erased(user: User, archived: list[str]) -> None:
    user.types("erase", archived[0], "--reason", "GDPR-17", "--yes")

    assert user.runs_once("--wait", "0", ARCHIVER_REDIS_URL=None).states == {"archived": 1, "erased": 1}


def test_many_are_listed_and_erased_once_somebody_confirms(user: User, archived: list[str]) -> None:
    room = user.row(archived[0])["room_id"]
    for answer, exit_code, state in (("n", 1, "archived"), ("y", 0, "erased")):
        typed = ["erase", "--room", room, "--reason", "T-1"]
        with in_terminal(typed, folder=user.folder, env=user.full_environment) as terminal:
            terminal.wait_for("for good, at every destination?", seconds=60)
            assert archived[0] in terminal.shown
            terminal.types(answer)
            assert terminal.wait(seconds=60) == exit_code
        assert user.row(archived[0])["state"] == state


def test_a_ledger_that_was_lost_since_is_not_asked_which_assets_there_are(
    user: User, empty_simulator: Simulator, archived: list[str]
) -> None:
    room = user.row(archived[0])["room_id"]
    found = user.types("erase", "--room", room, "--reason", "T-1")
    assert (found.exit_code, archived[0] in found.text, "add --yes" in found.text) == (2, True, True)
    assert user.row(archived[0])["state"] == "archived"
    empty = user.types("erase", "--room", room, "--reason", "T-1", "--yes", ARCHIVER_REDIS_URL=None)
    other = str(empty_simulator.add_asset("chat")["id"])
    user.types("archive", other, ARCHIVER_REDIS_URL=None)
    partial = user.types("erase", "--room", room, "--reason", "T-1", "--yes", ARCHIVER_REDIS_URL=None)

    assert (empty.exit_code, "archiver rebuild" in empty.text) == (1, True)
    assert (partial.exit_code, "archiver reconcile" in partial.text) == (1, True)
    assert files_of(user, archived[0])


def test_an_unknown_asset_is_not_called_erased(user: User, archived: list[str]) -> None:
    result = user.types("erase", "0000", "--reason", "T-1", "--yes", "--json")

    assert result.exit_code == 1
    assert result.json == {
        "asset_id": "0000",
        "state": None,
        "reason": "the ledger does not know it, and no destination has a manifest of it",
        "locked_until": None,
    }
    assert archived


def test_a_first_term_is_accepted_by_a_person(user: User, archived: list[str]) -> None:
    withheld = user.types("expire", ARCHIVER_KEEP_DAYS="365,chat=30")
    status = user.types("status", "--json", ARCHIVER_KEEP_DAYS="365,chat=30")
    accepted = user.types("expire", "--yes", ARCHIVER_KEEP_DAYS="365,chat=30")
    due = user.types("expire", "--dry-run", ARCHIVER_KEEP_DAYS="365,chat=30")
    without = user.types("expire", "--dry-run")

    assert (withheld.exit_code, "365 days instead of for ever" in withheld.text) == (1, True)
    assert "expiry_unconfirmed" in [each["code"] for each in status.json["problems"]]
    assert (accepted.exit_code, "0 assets expired" in accepted.text) == (0, True)
    assert "The term of 0 assets is over" in due.text
    assert "is not set" not in due.text
    assert "ARCHIVER_KEEP_DAYS is not set: everything is kept for ever." in without.text
    assert user.row(archived[0])["state"] == "archived"


def test_a_ledger_that_was_never_compared_expires_nothing_and_says_so(user: User) -> None:
    held = user.types("expire", "--yes", ARCHIVER_KEEP_DAYS="30")

    assert held.exit_code == 1
    assert "Nothing was deleted: the ledger was not compared with the destinations yet." in held.text


def test_of_a_user_what_is_shared_is_spared_unless_asked_for(user: User, empty_simulator: Simulator) -> None:
    track, chat = (str(empty_simulator.add_asset(kind)["id"]) for kind in ("track-audio", "chat"))
    assert user.runs_once("--wait", "0").states == {"archived": 2}
    sessions = {each: str(user.row(each)["session_id"]) for each in (track, chat)}

    def record(asset_id: str) -> Path:
        return user.folder / "archive/sessions" / sessions[asset_id] / "session.json"

    in_track, in_chat = (
        [each["user_id"] for each in json.loads(record(of).read_text())["peers"]] for of in (track, chat)
    )
    of_track = in_track[0]
    of_chat = next(each for each in in_chat if each != of_track)

    spared = user.types("erase", "--user", of_chat, "--reason", "T-1", "--yes")
    assert user.row(chat)["state"] == "archived"
    assert "spared: others are, or may be, in" in spared.text
    assert f"No recording of {of_chat} alone: nothing to erase." in spared.text
    assert user.types("erase", "--user", of_track, "--reason", "T-1", "--yes").exit_code == 0
    assert (user.row(track)["state"], record(track).exists()) == ("erased", False)
    assert user.types("erase", "--user", of_chat, "--shared", "--reason", "T-1", "--yes").exit_code == 0
    assert (user.row(chat)["state"], record(chat).exists()) == ("erased", False)
    assert user.types("erase", "--shared", "--session", "s", "--reason", "T-1", "--yes").exit_code == 2

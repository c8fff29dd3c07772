"""`archiver show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.walkthrough.user import User


def test_locations_can_be_opened_as_they_are_printed(user: User, archived: dict[str, Any]) -> None:
    asset_id = archived["asset_id"]

    shown = user.types("show", asset_id, COLUMNS=None)
    places = user.types("show", asset_id, "--json").json["locations"]

    ((_, place),) = places.items()
    assert json.loads(Path(place["manifest"]).read_text())["asset_id"] == asset_id
    assert (Path(place["folder"]) / archived["objects"][0]["path"]).is_file()
    assert f"manifest  {place['manifest']}\n" in shown.stdout
    assert "archived" in shown.text


def test_a_session_shows_each_of_its_assets_with_what_was_decided(
    user: User, archived: dict[str, Any]
) -> None:
    asset_id, session = archived["asset_id"], user.row(archived["asset_id"])["session_id"]
    user.types("retry", "--again", asset_id, "--why", "to be sure", "--by", "ann")

    result = user.types("show", "--session", session, COLUMNS=None)
    (line,) = user.types("show", "--session", session, "--json").stdout.splitlines()

    assert f"{asset_id}  room-composite  discovered" in result.stdout
    assert "UTC  retried by ann: to be sure" in result.stdout
    found = json.loads(line)
    assert found["row"]["asset_id"] == asset_id
    assert [(each["what"], each["by"]) for each in found["history"]] == [("retried", "ann")]


def test_what_is_unknown_is_1_and_a_wrong_choice_2(user: User) -> None:
    assert user.types("show", "--session", "unheard").exit_code == 1
    assert user.types("show", "unheard").exit_code == 1
    assert user.types("show", "a", "--session", "b").exit_code == 2

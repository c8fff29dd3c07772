"""`archiver backfill`."""

from __future__ import annotations

import pytest

from tests.simulator.process import Simulator
from tests.walkthrough.user import User


def test_a_room_that_was_filtered_out_is_entered_and_archived(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("composite")
    assert user.runs_once(ARCHIVER_ROOMS="another").states == {"skipped": 1}
    room = user.row(asset["id"])["room_id"]

    filtered = user.types("backfill", "--room", room, ARCHIVER_ROOMS="another")
    said = user.types("backfill", "--room", room)

    assert (filtered.exit_code, "Change the setting" in filtered.text) == (0, True)
    assert "1 assets found, 0 new; 1 discovered." in said.text
    assert user.types("backfill", "--room", "nobody", "--json").json["found"] == 0
    assert user.runs_once().states == {"archived": 1}


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["--room", "r", "--since", "yesterday"],
        ["--room", "r", "--since", "2026-03-02", "--until", "2026-03-01"],
    ],
    ids=" ".join,
)
def test_a_wrong_choice_is_2(user: User, typed: list[str]) -> None:
    assert user.types("backfill", *typed).exit_code == 2

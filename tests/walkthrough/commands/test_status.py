"""`archiver status` and `archiver show`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.simulator.process import Simulator
from tests.walkthrough.user import User


def test_status_answers_whether_everything_is_saved(user: User, archived: dict[str, Any]) -> None:
    result = user.types("status")
    counted = user.types("status", "--json").json

    assert result.exit_code == 0
    assert "The only asset is safe." in result.text
    assert counted["healthy"]
    assert counted["balanced"]
    assert counted["seen"] == 1
    assert counted["states"]["archived"] == 1


def test_status_says_what_waits_and_why_what_needs_a_person_and_what_is_at_risk(
    user: User, empty_simulator: Simulator
) -> None:
    waiting = empty_simulator.add_asset("composite")
    bad = empty_simulator.add_asset("hostile-html")
    risky = empty_simulator.add_asset("chat", age=timedelta(days=13))
    empty_simulator.fault("server-error", on="storage", asset=waiting["id"], times=None)
    empty_simulator.fault("server-error", on="storage", asset=risky["id"], times=None)
    user.runs_once("--wait", "6")

    result = user.types("status")
    counted = user.types("status", "--json").json

    assert result.exit_code == 1
    assert (
        "Needs attention: 0 of 3 known assets are archived; 2 not saved yet, 1 stored with doubts."
        in result.text
    )
    for problem in ("1 asset is at risk: not saved", "1 asset is stored with doubts: look"):
        assert problem in result.text
    for title, asset, why in (
        ("At risk", risky, "answered 503"),
        ("Will be retried", waiting, "answered 503"),
        ("Need a person", bad, "stored, with doubts"),
    ):
        _, _, section = result.text.partition(title)
        assert asset["id"] in section
        assert why in section
    assert [row["asset_id"] for row in counted["at_risk"]] == [risky["id"]]
    assert {row["asset_id"] for row in counted["waiting"]} == {waiting["id"], risky["id"]}
    assert [row["asset_id"] for row in counted["needs_attention"]] == [bad["id"]]
    assert not counted["healthy"]


def test_status_before_the_first_sweep_says_so(user: User) -> None:
    assert "Needs attention: nothing is known yet." in user.types("status").text


def test_show_prints_everything_known_of_one_asset(user: User, archived: dict[str, Any]) -> None:
    result = user.types("show", archived["asset_id"])
    outcome = user.types("show", archived["asset_id"], "--json").json

    assert result.exit_code == 0
    for item in archived["objects"]:
        assert item["crc32c"] in result.text
    assert outcome["row"]["state"] == "archived"
    (manifest,) = outcome["manifests"].values()
    assert manifest == archived


def test_lines_are_neither_wrapped_nor_cut_in_a_pipe(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("hostile-html")
    user.runs_once("--wait", "6")

    lines = user.types("status", COLUMNS=None).stdout.splitlines()

    (line,) = [line for line in lines if line.startswith(asset["id"])]
    (why,) = [line for line in lines if "expected an MP4 file" in line]
    assert "quarantined" in line
    assert len(why) > 80
    assert max(map(len, lines)) < 1000, "not filled up with spaces"


def test_show_of_an_unknown_asset_says_how_to_ask_for_it(user: User) -> None:
    result = user.types("show", "6400c0d3e1b2a3c4d5e6f708")

    assert result.exit_code == 1
    assert "archiver archive 6400c0d3e1b2a3c4d5e6f708" in result.text

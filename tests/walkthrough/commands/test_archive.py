"""`archiver archive` and `archiver sweep`."""

from __future__ import annotations

from tests.simulator.process import Simulator
from tests.walkthrough.user import User


def test_archive_retries_at_once_what_waits(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("composite")
    empty_simulator.fault("html", on="storage", asset=asset["id"], times=None)
    assert user.runs_once("--wait", "3").json["states"] == {"waiting": 1}
    empty_simulator.clear_faults()
    assert user.runs_once("--wait", "0").json["states"] == {"waiting": 1}, "not by itself, so soon"

    result = user.types("archive", asset["id"], "--json")

    assert result.exit_code == 0
    assert result.json[0]["state"] == "archived"
    assert user.types("verify").exit_code == 0


def test_archive_takes_an_asset_that_no_sweep_has_seen(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("composite")

    result = user.types("archive", asset["id"])

    assert result.exit_code == 0
    assert f"{asset['id']} room-composite archived" in result.text


def test_archive_of_an_unknown_asset_says_so_and_does_the_others(
    user: User, empty_simulator: Simulator
) -> None:
    asset = empty_simulator.add_asset("composite")

    result = user.types("archive", "6400c0d3e1b2a3c4d5e6f708", asset["id"])

    assert result.exit_code == 1
    assert "6400c0d3e1b2a3c4d5e6f708: 100ms does not know it." in result.text
    assert f"{asset['id']} room-composite archived" in result.text


def test_sweep_enters_what_is_new_and_copies_nothing(user: User, empty_simulator: Simulator) -> None:
    empty_simulator.add_asset("composite")

    first = user.types("sweep", "--json").json
    second = user.types("sweep")

    assert (first["assets"], first["new"]) == (1, 1)
    assert "1 assets" in second.text
    assert "0 new" in second.text
    assert empty_simulator.requests(on="storage") == []
    assert user.types("status", "--json").json["states"]["discovered"] == 1

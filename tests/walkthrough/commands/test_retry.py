"""`archiver retry` and `archiver skip`."""

from __future__ import annotations

import json

import pytest

from tests.simulator.process import Simulator
from tests.walkthrough.terminal import in_terminal
from tests.walkthrough.user import User


@pytest.fixture
def waiting(user: User, empty_simulator: Simulator) -> str:
    """An asset whose source answers 503."""
    asset = empty_simulator.add_asset("composite")
    empty_simulator.fault("server-error", on="storage", asset=asset["id"], times=None)
    assert user.runs_once("--wait", "0", ARCHIVER_RETRY_BASE_SECONDS="3600").states == {"waiting": 1}
    asset_id: str = asset["id"]
    return asset_id


def test_what_is_skipped_stays_out_until_it_is_retried(
    user: User, empty_simulator: Simulator, waiting: str
) -> None:
    result = user.types("skip", waiting, "--why", "a test call", "--by", "ann")
    assert result.exit_code == 0, result.stderr
    assert "skipped by ann: a test call" in result.text
    empty_simulator.clear_faults()
    assert user.runs_once("--wait", "0").states == {"rejected": 1}

    retried = user.types("retry", waiting, "--why", "it was none", "--by", "bob")

    assert f"{waiting} room-composite discovered" in retried.text
    assert user.runs_once("--wait", "0").states == {"archived": 1}
    history = user.row(waiting)["history"]
    assert [(each["what"], each["by"], each["why"]) for each in history] == [
        ("skipped", "ann", "a test call"),
        ("retried", "bob", "it was none"),
    ]
    assert user.types("retry", waiting).exit_code == 1


def test_many_are_retried_by_a_filter_once_somebody_confirms(user: User, waiting: str) -> None:
    unasked = user.types("retry", "--state", "waiting")
    none = user.types("retry", "--state", "waiting", "--reason", "no such reason", "--yes")
    still = user.row(waiting)["state"]
    result = user.types("retry", "--state", "waiting", "--type", "room-composite", "--yes", "--json")

    assert (unasked.exit_code, "--yes" in unasked.text) == (2, True)
    assert (none.exit_code, none.text, still) == (0, "No such asset.", "waiting")
    assert [row["asset_id"] for row in json.loads(result.stdout)["assets"]] == [waiting]
    assert user.row(waiting)["state"] == "discovered"


@pytest.mark.parametrize(("answer", "exit_code", "state"), [("n", 1, "waiting"), ("y", 0, "discovered")])
def test_many_are_retried_in_a_terminal_once_their_number_is_confirmed(
    user: User, waiting: str, answer: str, exit_code: int, state: str
) -> None:
    with in_terminal(
        ["retry", "--state", "waiting"], folder=user.folder, env=user.full_environment
    ) as terminal:
        terminal.wait_for("Retry 1 assets?", seconds=60)
        terminal.types(answer)
        assert terminal.wait(seconds=60) == exit_code

    assert user.row(waiting)["state"] == state


@pytest.mark.parametrize(
    "typed",
    [
        ["--state", "unheard"],
        ["--state", "archived", "--yes"],
        ["ID", "--state", "lost"],
        ["ID", "--room", "r"],
        [],
    ],
    ids=" ".join,
)
def test_a_wrong_choice_is_2(user: User, typed: list[str]) -> None:
    assert user.types("retry", *typed).exit_code == 2

"""Every command says with its exit code what is the matter: 0 well, 1 not saved or a problem found, 2 a wrong command
line or setting, 3 something needed cannot be reached."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from archiver.core import machine
from archiver.ledger.redis.ledger import RedisLedger
from tests.ledger.harnesses import SEAL
from tests.simulator.process import Simulator
from tests.walkthrough.user import TRACEBACK, User, user_of

ID = "6400c0d3e1b2a3c4d5e6f708"
NOWHERE = "http://127.0.0.1:1"
NO_BROKER: dict[str, Any] = {"ARCHIVER_REDIS_URL": "redis://127.0.0.1:1/0"}
NO_API: dict[str, Any] = {"HMS_API_URL": f"{NOWHERE}/v2"}
NO_CREDENTIALS: dict[str, Any] = {"HMS_ACCESS_KEY": None, "HMS_SECRET": None}
WRONG_SECRET: dict[str, Any] = {"HMS_SECRET": "an-app-secret-of-somebody-else-altogether"}
NO_DESTINATION: dict[str, Any] = {
    "ARCHIVER_DESTINATIONS": f"s3://bucket?endpoint_url={NOWHERE}&region=us-east-1",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_MAX_ATTEMPTS": "1",
}

RUN = ("run", "--once", "--wait", "0")
NEED_THE_API = (RUN, ("sweep",), ("plan",), ("backfill", "--room", ID), ("archive", ID))
NEED_THE_BROKER = (
    *NEED_THE_API,
    ("status",),
    ("status", "--json"),
    ("show", ID),
    ("accept", ID),
    ("reject", ID),
    ("ack", ID),
    ("catalogue",),
    ("scrub", "--now"),
    ("drill",),
    ("retry", ID),
    ("skip", ID),
    ("alerts",),
    ("events",),
    ("erase", ID, "--reason", "T-1", "--yes"),
    ("reconcile",),
    ("pause",),
    ("resume",),
    ("webhook", "event.json"),
)
ALL = (*NEED_THE_BROKER, ("verify",), ("doctor",), ("restore", ID, "out"), ("url", ID))
EVENT = '{"version":"2.0","id":"1","type":"hls.recording.success","data":{"recording_presigned_url":"x"}}'


@pytest.fixture
def user(tmp_path: Path, empty_simulator: Simulator, redis_url: str) -> User:
    (tmp_path / "event.json").write_text(EVENT)
    return user_of(tmp_path, empty_simulator, redis_url)


def named(command: tuple[str, ...]) -> str:
    return " ".join(command)


@pytest.mark.parametrize("command", ALL, ids=named)
def test_a_wrong_setting_is_2_whatever_is_typed(user: User, command: tuple[str, ...]) -> None:
    result = user.types(*command, ARCHIVER_SWEEP_SECONDS="often")

    assert result.exit_code == 2
    assert "ARCHIVER_SWEEP_SECONDS" in result.stderr
    assert TRACEBACK not in result.stderr


@pytest.mark.parametrize("command", [*NEED_THE_API, ("up",)], ids=named)
def test_missing_credentials_are_2_where_they_are_needed(user: User, command: tuple[str, ...]) -> None:
    result = user.types(*command, **NO_CREDENTIALS)

    assert result.exit_code == 2
    assert "Set HMS_ACCESS_KEY and HMS_SECRET" in result.text


def test_missing_credentials_are_a_problem_that_doctor_finds(user: User) -> None:
    result = user.types("doctor", **NO_CREDENTIALS)

    assert result.exit_code == 1
    assert "no credentials" in result.text


@pytest.mark.parametrize("command", NEED_THE_BROKER, ids=named)
def test_a_broker_that_is_away_is_3(user: User, command: tuple[str, ...]) -> None:
    result = user.types(*command, **NO_BROKER)

    assert result.exit_code == 3
    assert "nothing listens there" in result.text
    assert TRACEBACK not in result.stderr


@pytest.mark.parametrize("command", NEED_THE_API, ids=named)
@pytest.mark.parametrize("trouble", [NO_API, WRONG_SECRET], ids=["away", "refuses"])
def test_an_api_that_is_away_or_refuses_is_3(
    user: User, command: tuple[str, ...], trouble: dict[str, Any]
) -> None:
    result = user.types(*command, **trouble)

    assert result.exit_code == 3, result.text
    assert TRACEBACK not in result.stderr


def test_a_destination_that_is_away_is_3(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("chat")

    for command in (RUN, ("archive", asset["id"]), ("verify",)):
        result = user.types(*command, **NO_DESTINATION)

        assert result.exit_code == 3, result.text
        assert "s3://bucket" in result.text
        assert TRACEBACK not in result.stderr


def test_a_destination_that_is_away_is_a_problem_that_doctor_finds(user: User) -> None:
    result = user.types("doctor", **NO_DESTINATION)

    assert result.exit_code == 1
    assert "s3://bucket" in result.text


def test_what_is_well_is_0_and_what_is_not_saved_is_1(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("chat")
    codes = {
        "before": user.types("status").exit_code,
        "run": user.types(*RUN).exit_code,
        "status": user.types("status").exit_code,
        "show": user.types("show", asset["id"]).exit_code,
        "show nobody": user.types("show", ID).exit_code,
        "verify": user.types("verify").exit_code,
        "archive": user.types("archive", asset["id"]).exit_code,
        "archive nobody": user.types("archive", ID).exit_code,
        "sweep": user.types("sweep").exit_code,
        "ack what is archived": user.types("ack", asset["id"]).exit_code,
        "ack nobody": user.types("ack", ID).exit_code,
        "ack what": user.types("ack").exit_code,
        "ack a state that is none": user.types("ack", "--all", "archived").exit_code,
        "reject what is archived": user.types("reject", asset["id"]).exit_code,
    }

    assert codes == {
        "before": 1,
        "run": 0,
        "status": 0,
        "show": 0,
        "show nobody": 1,
        "verify": 0,
        "archive": 0,
        "archive nobody": 1,
        "sweep": 0,
        "ack what is archived": 1,
        "ack nobody": 1,
        "ack what": 2,
        "ack a state that is none": 2,
        "reject what is archived": 1,
    }


def test_a_failed_recording_is_1_until_somebody_acknowledges_it(
    user: User, empty_simulator: Simulator
) -> None:
    asset = empty_simulator.add_asset("failed")
    before = (user.types(*RUN).exit_code, user.types("status").exit_code)

    result = user.types("ack", asset["id"], "--why", "the room was empty", "--by", "ann")

    assert before == (1, 1)
    assert result.exit_code == 0, result.text
    assert "acknowledged by ann" in result.text
    status = user.types("status")
    assert status.exit_code == 0
    assert "Acknowledged, and not counted as problems: 1 source_failed." in status.text
    assert user.types(*RUN).exit_code == 0
    assert "acknowledged by ann" in user.types("show", asset["id"]).text


def test_a_run_that_saved_all_is_not_well_while_status_is_not(
    user: User, empty_simulator: Simulator, redis_url: str
) -> None:
    empty_simulator.add_asset("chat")
    with closing(RedisLedger(redis_url, SEAL)) as ledger:
        ledger.remember(f"{machine.FACTS}archive@elsewhere", {"reason": "no memory"}, timedelta(minutes=9))

    result = user.types(*RUN)

    assert result.exit_code == user.types("status").exit_code == 1
    assert "The machine of archive@elsewhere fails: no memory" in result.text


def test_all_of_a_state_can_be_acknowledged_at_once(user: User, empty_simulator: Simulator) -> None:
    for _ in range(3):
        empty_simulator.add_asset("failed")
    user.types(*RUN)

    result = user.types("ack", "--all", "source_failed", "--json")

    assert len(result.json["assets"]) == 3
    assert user.types("status").exit_code == 0


def test_what_is_typed_or_comes_in_an_event_does_nothing_to_the_terminal(user: User) -> None:
    evil = "x\x1b[2J\x07y"
    (user.folder / "event.json").write_text(EVENT.replace("hls.recording.success", r"x\u001b[2J\u0007y"))

    result = [
        user.types("webhook", "event.json"),
        user.types("show", evil),
        user.types("archive", evil),
        user.types("ack", evil),
        user.types("accept", evil),
        user.types("verify", evil, ARCHIVER_DESTINATIONS="./nothing"),
    ]

    for each in result:
        assert each.exit_code == 1, each.text
        assert "\x1b" not in each.stdout + each.stderr
        assert r"x\x1b[2J\x07y" in each.text


def test_a_pause_is_shown_until_it_is_resumed_and_a_run_copies_nothing_meanwhile(
    tmp_path: Path, simulator: Simulator, redis_url: str
) -> None:
    user = user_of(tmp_path, simulator, redis_url)
    assert user.types("pause", "--why", "moving the bucket").exit_code == 0
    user.types(*RUN)
    during = user.types("status")
    drained = user.types("drain", "--wait", "5")
    resumed = user.types("resume")

    assert "moving the bucket" in during.text
    assert not any(tmp_path.glob("**/manifests/**/*.json"))
    assert drained.exit_code == 0, "nothing is being copied"
    assert resumed.text.strip().endswith("Resumed: all.")
    assert "or `archiver resume`" not in user.types("status").text
    assert user.types("pause", "s3://nowhere").exit_code == 2

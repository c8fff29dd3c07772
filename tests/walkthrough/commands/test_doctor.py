"""`archiver doctor`."""

from __future__ import annotations

from datetime import timedelta

from tests.simulator.process import Simulator
from tests.walkthrough.user import TRACEBACK, User


def test_doctor_finds_a_sound_installation_sound_but_for_what_does_not_run(
    user: User, empty_simulator: Simulator
) -> None:
    user.environment.pop("ARCHIVER_REDIS_URL")

    result = user.types("doctor", "--json")

    assert result.exit_code == 0, result.stdout
    verdicts = {finding["subject"]: finding["verdict"] for finding in result.json}
    assert {s for s, verdict in verdicts.items() if verdict != "ok"} == {
        "beat",
        "control worker",
        "archive worker",
    }
    assert not [path for path in (user.folder / "archive").rglob("*") if path.is_file()], "nothing is left"


def test_doctor_prints_how_to_fix_each_problem(user: User, empty_simulator: Simulator) -> None:
    (user.folder / "notes.txt").write_text("mine")
    empty_simulator.skew_api_clock(timedelta(minutes=20))

    result = user.types(
        "doctor",
        "--json",
        HMS_SECRET="an-app-secret-of-somebody-else-altogether",
        ARCHIVER_REDIS_URL="redis://:sesame-sesame@127.0.0.1:1/0",
        ARCHIVER_DESTINATIONS="./notes.txt",
    )

    assert result.exit_code == 1
    problems = {f["subject"].split(" at ")[0]: f for f in result.json if f["verdict"] == "problem"}
    assert set(problems) >= {"100ms API", "clock", "broker and ledger"}
    assert any("notes.txt" in subject for subject in problems)
    assert all(finding["remedy"] for finding in problems.values())
    assert "sesame" not in result.text
    assert TRACEBACK not in result.stderr


def test_doctor_speaks_in_lines_that_fit_the_terminal(user: User) -> None:
    result = user.types("doctor", COLUMNS="80")

    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert "persistence" in result.text

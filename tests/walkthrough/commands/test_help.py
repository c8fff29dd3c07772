"""`archiver --help`, `--version`, completion, and hints for mistyped commands."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import worker.cli
from tests.walkthrough.user import TRACEBACK, User, until

COMMANDS = [worker.cli.name_of(command) for section in worker.cli.COMMANDS.values() for command in section]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_says_what_it_does_with_an_example(command: str, tmp_path: Path) -> None:
    result = User(tmp_path, {"COLUMNS": "80"}).types(command, "-h")

    assert result.exit_code == 0
    assert "Examples:" in result.text
    assert f"archiver {command}" in result.text.split("Examples:")[1]
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_the_help_lists_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    result = User(tmp_path, {}).types("--help")

    assert all(command in result.text for command in (*COMMANDS, "simulator"))
    assert "Exit codes: 0 all is well" in result.text
    assert "or refuses the credentials" in " ".join(result.text.split())


def test_version_is_that_of_the_installed_package(tmp_path: Path) -> None:
    result = User(tmp_path, {}).types("--version")

    assert result.exit_code == 0
    assert result.stdout == f"archiver {metadata.version('recording-archiver')}\n"


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    user = User(tmp_path, {"_ARCHIVER_COMPLETE": "complete_bash"})

    commands = user.types(COMP_WORDS="archiver re", COMP_CWORD="1").stdout.split()
    options = user.types(COMP_WORDS="archiver verify --qui", COMP_CWORD="2").stdout.split()

    assert sorted(commands) == sorted(name for name in COMMANDS if name.startswith("re"))
    assert options == ["--quick"]


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("--help", {"celery", "boto3", "google.cloud.storage", "httpx", "redis", "pydantic", "structlog"}),
        ("status", {"celery", "boto3", "google.cloud.storage", "httpx", "jwt", "cryptography.fernet"}),
    ],
)
def test_a_command_that_copies_nothing_imports_no_sdk(user: User, command: str, unneeded: set[str]) -> None:
    result = user.types(command, PYTHONPROFILEIMPORTTIME="1")

    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "typer" in imported
    assert imported & unneeded == set()


def test_the_simulators_own_options_are_taken_and_explained(tmp_path: Path) -> None:
    user = User(tmp_path, {})

    assert "--chaos-seed" in user.types("simulator", "--help").stdout
    assert user.types("simulator", "--set", "nonsense").exit_code == 2
    with user.starts("simulator", "--set", "minimal") as process:
        until(lambda: "api_url" in (user.folder / "out.txt").read_text(), seconds=30, what="the simulator")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["runn"], "Did you mean 'run'?"),
        (["status", "--jsn"], "--json"),
        (["run"], "archiver run --once"),
        (["show"], "Missing argument"),
        (["archive"], "Missing argument"),
    ],
)
def test_a_mistyped_command_gets_a_hint(typed: list[str], hint: str, tmp_path: Path) -> None:
    result = User(tmp_path, {"COLUMNS": "80"}).types(*typed)

    assert result.exit_code == 2
    assert hint in result.text
    assert TRACEBACK not in result.stderr

"""The lock files: complete, pinned by hash, agreeing with each other, and naming no registry."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent
RUNS, BUILDS, DEVELOPS = "requirements.lock", "requirements-build.lock", "requirements-dev.lock"


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", [RUNS, BUILDS, DEVELOPS, "benchmarks/requirements.lock"])
def test_every_package_is_pinned_by_hash_and_no_registry_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    requirements = [line for line in text.replace("\\\n", " ").splitlines() if line and line[0] != "#"]

    assert requirements
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)
    assert "://" not in text
    assert "--index-url" not in text


@pytest.mark.parametrize("name", [RUNS, BUILDS])
def test_tests_run_with_the_versions_that_are_installed_in_production(name: str) -> None:
    assert locked(name).items() <= locked(DEVELOPS).items()


def test_the_tools_of_tests_are_not_installed_in_production() -> None:
    assert not {"pytest", "mypy", "ruff", "moto", "ministack", "pip-audit"} & locked(RUNS).keys()


def test_known_bad_versions_are_not_locked() -> None:
    versions = {name: Version(version) for name, version in locked(RUNS).items()}

    # lets urllib3's ProtocolError through when the body of an error response is cut
    assert versions["botocore"] > Version("1.43.106")
    # dies when the broker restarts while a task runs (docs/decisions/0002-celery-pin.md)
    assert versions["celery"] < Version("5.7")


def would_run(target: str, venv: Path) -> str:
    command = ["make", "--dry-run", f"VENV={venv}", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["install", "demo"])
def test_what_runs_is_installed_without_the_tools_of_tests(target: str, tmp_path: Path) -> None:
    commands = would_run(target, tmp_path)

    assert f"--require-hashes -r {RUNS}\n" in commands
    assert f"/build -r {BUILDS}\n" in commands, "what builds it is removed afterwards"
    assert DEVELOPS not in commands


@pytest.mark.parametrize("target", ["test", "check", "simulate"])
def test_the_tools_of_tests_come_on_top_with_what_needs_them(target: str, tmp_path: Path) -> None:
    commands = would_run(target, tmp_path)

    assert commands.index(f"-r {RUNS}") < commands.index(f"-r {DEVELOPS}")


def test_ci_runs_the_commands_that_people_run() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()

    assert lines[-2:] == ["make check", "make test"]

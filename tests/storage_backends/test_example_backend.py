"""The example in the documentation is a package that installs, opens by its URL, and keeps the contract."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "archiver-backend-example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder holding the example as pip installs it. Built from a copy: a build leaves files beside its source."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    run([*pip, "--no-deps", "--no-build-isolation", "--target", str(target), str(source)], None)
    return target


def run(command: list[str], site: Path | None) -> str:
    path = os.pathsep.join(str(folder) for folder in (site, ROOT) if folder)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_an_installed_backend_is_opened_by_its_url(installed: Path, tmp_path: Path) -> None:
    program = (
        "from storage_backends.registry import open_destination\n"
        f"backend = open_destination('sqlite://{tmp_path}/archive.db')\n"
        "print(type(backend).__module__, backend.name)\n"
    )

    reported = run([sys.executable, "-c", program], installed)

    assert reported.split() == ["archiver_sqlite", f"sqlite://{tmp_path}/archive.db"]


def test_an_installed_backend_keeps_the_contract(installed: Path) -> None:
    options = ["-n", "0", "-q", "-p", "no:cacheprovider"]

    reported = run([sys.executable, "-m", "pytest", str(EXAMPLE / "test_contract.py"), *options], installed)

    assert " passed" in reported
    assert "skipped" not in reported

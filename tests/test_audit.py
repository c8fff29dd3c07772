"""`make audit` never calls well what was not looked up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
KNOWN = {"name": "a", "version": "1", "vulns": []}
VULNERABLE = {
    "name": "a",
    "version": "1",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"], "aliases": [], "description": ""}],
}
SKIPPED = {"name": "a", "skip_reason": "not found"}
OTHER = {"name": "b", "version": "1", "vulns": []}


@pytest.mark.parametrize(
    ("dependencies", "status", "expected", "message"),
    [
        ([KNOWN, OTHER], 0, 0, "2 versions audited, 0 known vulnerabilities"),
        ([VULNERABLE, OTHER], 1, 1, "a 1: PYSEC-1, fixed in 2"),
        ([SKIPPED, OTHER], 0, 3, "NOT AUDITED. 1 of 2 versions could not be looked up: no network"),
        ([VULNERABLE], 1, 3, "NOT AUDITED. 1 of 2"),
        (None, 1, 3, "NOT AUDITED. 2 of 2"),
        (None, 0, 3, "NOT AUDITED. 2 of 2"),
    ],
)
def test_exit_codes(
    tmp_path: Path, dependencies: list[dict[str, Any]] | None, status: int, expected: int, message: str
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/audit", tmp_path / ".ci/audit")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (tmp_path / lock).write_text(
            "a==1 \\\n    --hash=sha256:0\nb==1 \\\n    --hash=sha256:0\nw==1 ; sys_platform == 'win32' \\\n"
        )
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    report = "" if dependencies is None else json.dumps({"dependencies": dependencies, "fixes": []})
    for name, script in {
        "pip-audit": f"echo '{report}'; echo 'no network' >&2; exit {status}",
        "cyclonedx-py": "exit 0",
    }.items():
        (binaries / name).write_text(f"#!/bin/sh\n{script}\n")
        (binaries / name).chmod(0o755)

    audit = subprocess.run([tmp_path / ".ci/audit"], capture_output=True, text=True, check=False)

    assert audit.returncode == expected, audit.stderr
    assert f"requirements.lock: {message}" in audit.stdout

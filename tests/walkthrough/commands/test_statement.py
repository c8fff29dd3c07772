"""`archiver statement`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage_backends.registry import open_destination
from tests.core.archived import archive_at
from tests.core.examples import asset
from tests.walkthrough.user import User

SCRIPT = Path(__file__).parents[3] / "docs" / "verify_statements.py"


def test_a_user_makes_a_key_states_what_is_due_and_an_auditor_verifies_it(
    user: User, archived: dict[str, Any]
) -> None:
    created = (datetime.now(UTC) - timedelta(days=80)).isoformat()
    with contextlib.closing(open_destination(str(user.folder / "archive"))) as store:
        archive_at([store], asset(id="of-three-months-ago", created_at=created))
    refused = user.types("statement")
    made = user.types("statement", "new-key", "--json").json
    user.environment["ARCHIVER_STATEMENT_KEY"] = made["statement_key"]

    first = user.types("statement")
    again = user.types("statement")

    assert refused.exit_code == 2
    assert "archiver statement new-key" in refused.text
    assert first.exit_code == 0, first.stderr
    assert "1 assets, 0 ends, written" in first.text
    assert "written" not in again.text
    assert "none is lacking" in again.text
    assert made["statement_key"] not in first.text + first.stderr
    (user.folder / "public.pem").write_text(made["public_key_pem"])
    command = [sys.executable, "-I", str(SCRIPT), "archive", "--key", "public.pem"]
    ran = subprocess.run(command, cwd=user.folder, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, "0 faults" in ran.stdout) == (0, True), ran.stdout + ran.stderr
    assert user.types("verify").exit_code == 0
    assert user.types("reconcile").exit_code == 0
    assert "statement_missing" not in user.types("status", "--json").text


def test_a_key_that_is_none_is_2(user: User) -> None:
    user.environment["ARCHIVER_STATEMENT_KEY"] = "my-secret-password"

    result = user.types("statement")

    assert result.exit_code == 2
    assert "ARCHIVER_STATEMENT_KEY" in result.text + result.stderr
    assert "my-secret-password" not in result.text + result.stderr

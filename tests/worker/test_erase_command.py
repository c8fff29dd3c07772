"""`archiver erase` and the terms of `archiver expire`: what is refused before anything is opened."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from archiver.core.upkeep.terms import Terms
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.archived import enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock
from worker.cli import app
from worker.cli.cmd_erase import _chosen, _ids_from
from worker.settings import Settings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reason", "GDPR-1", "--yes"], "give one or more IDs"),
        (["x", "--ids-from", "y", "--reason", "GDPR-1", "--yes"], "give one or more IDs"),
        (["x", "--room", "y", "--reason", "GDPR-1", "--yes"], "give one or more IDs"),
        (["x", "--reason", "Anna Smith", "--yes"], "ticket code"),
        (["x", "--reason", "anna@example.com", "--yes"], "ticket code"),
        (["x", "--yes"], "ticket code"),
        (["x", "--reason", "GDPR-1"], "--yes"),
        (["--since", "yesterday", "--reason", "GDPR-1", "--yes"], "--since"),
    ],
)
def test_a_wrong_command_line_erases_nothing(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["erase", *arguments], env={"COLUMNS": "200"})

    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_ids_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeffone\r\n\n# of room 7\n  two \nthree".encode())

    assert _ids_from(str(file)) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no id"),
        (b"# nothing\n", "holds no id"),
        (b"one\ntwo,three\n", "line 2 of"),
        (b"one two\n", "line 1 of"),
        (b"\xff\xfe", "no text in UTF-8"),
    ],
)
def test_a_file_that_holds_no_ids_erases_nothing(tmp_path: Path, data: bytes | None, words: str) -> None:
    if data is not None:
        (tmp_path / "ids").write_bytes(data)
    arguments = ["erase", "--ids-from", str(tmp_path / "ids"), "--reason", "GDPR-1", "--yes"]

    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})

    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


def test_an_asset_that_changes_its_state_while_the_rows_are_read_is_erased_once() -> None:
    ledger = MemoryLedger(Clock(NOW))
    enter(ledger, asset())
    twice = Mock(ledger, rows=lambda states: [*ledger.rows(states), *ledger.rows(states)])

    assert _chosen(twice, "", "", "", None, None) == [asset().id]


@pytest.mark.parametrize(
    ("value", "terms"),
    [
        ("365", Terms(365)),
        ("365, chat=30,summary=0", Terms(365, {"chat": 30, "summary": 0})),
        ("chat=30", Terms(0, {"chat": 30})),
        ("0", Terms()),
        (None, Terms()),
    ],
)
def test_terms_are_read(value: str | None, terms: Terms) -> None:
    assert Settings(_env_file=None, keep_days=value).keep_terms == terms


@pytest.mark.parametrize(
    "value", ["a year", "365,365", "chat=", "=3", "-1", "365,chat=x", "1e3", "chat=1,chat=2"]
)
def test_terms_that_cannot_be_read_are_refused(value: str) -> None:
    with pytest.raises(ValidationError, match=r"write days|given twice"):
        Settings(_env_file=None, keep_days=value)

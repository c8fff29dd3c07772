"""`archiver alerts resolve`: for what nobody looks at any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from typer.testing import CliRunner, Result

from archiver.core.alerts import BOOK_FACT, AlertBook, Channel
from archiver.core.health_rules import Severity, finding
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock
from worker.cli import app, cmd_alerts
from worker.cli.shared import out

CHAT = Channel("slack 1", Severity.WARNING)
LATE = finding("drill_is_late", "No drill has ended for 40 days.")
FULL = [finding("disk_nearly_full", f"{host} is full.", cause=host) for host in ("old-host", "new-host")]


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> MemoryLedger:
    """All of these alerts were sent. Since a minute only new-host is still found."""
    ledger = MemoryLedger(Clock(NOW))
    book = AlertBook().observe([LATE, *FULL], NOW, lambda _: False)
    message = book.message(CHAT, NOW)
    assert message is not None
    book = book.delivered(CHAT, message, NOW)
    book = book.observe(FULL[1:], NOW + timedelta(minutes=1), lambda _: False)
    ledger.remember(BOOK_FACT, book.as_fact())

    @contextmanager
    def opened(_settings: object) -> Iterator[MemoryLedger]:
        yield ledger

    monkeypatch.setattr(cmd_alerts, "open_ledger", opened)
    return ledger


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["alerts", *arguments], env={"COLUMNS": "200"})


def firing(ledger: MemoryLedger) -> list[str]:
    alerts = AlertBook.from_fact(ledger.recall(BOOK_FACT)).firing()
    return sorted(f"{alert.rule_id} {alert.cause}".strip() for alert in alerts)


def test_an_alert_that_is_not_found_any_more_is_resolved_and_its_channels_are_told(
    ledger: MemoryLedger,
) -> None:
    results = [run("resolve", "drill_is_late") for _ in range(2)]

    assert [result.exit_code for result in results] == [0, 0]
    assert firing(ledger) == ["disk_nearly_full new-host", "disk_nearly_full old-host"]
    note = AlertBook.from_fact(ledger.recall(BOOK_FACT)).message(CHAT, NOW)
    assert note is not None
    assert [alert.rule_id for alert in note.resolved] == ["drill_is_late"]


def test_what_is_still_found_fires_on(ledger: MemoryLedger) -> None:
    result = run("resolve", "disk_nearly_full")

    assert result.exit_code == 1
    assert "Still found, so it fires on: new-host is full." in result.output
    assert firing(ledger) == ["disk_nearly_full new-host", "drill_is_late"]


def test_one_of_several_causes_is_chosen(ledger: MemoryLedger) -> None:
    assert run("resolve", "disk_nearly_full", "--cause", "old-host").exit_code == 0
    assert firing(ledger) == ["disk_nearly_full new-host", "drill_is_late"]


def test_while_alerts_are_looked_at_nothing_is_done(ledger: MemoryLedger) -> None:
    assert ledger.lock("alerts", timedelta(minutes=5)) is not None
    result = run("resolve", "drill_is_late")

    assert result.exit_code == 1
    assert "try again in a minute" in result.output
    assert "drill_is_late" in firing(ledger)


def test_the_list_says_what_is_not_known(ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", 200)  # it took its width from the first test that imported it
    shown = run()

    assert shown.exit_code == 1
    assert shown.output.count("fires until it is known to be over") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resolve"], "archiver alerts resolve RULE"),
        (["test", "lost"], "archiver alerts resolve RULE"),
        (["--cause", "x"], "archiver alerts resolve RULE"),
        (["resolve", "unknown"], "there is no alert 'unknown'"),
    ],
)
def test_a_wrong_command_line_is_refused(ledger: MemoryLedger, arguments: list[str], words: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())

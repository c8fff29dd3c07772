"""Credentials are re-read after SIGHUP and when they are refused, and running tasks keep theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from archiver.core.destinations import breaker
from archiver.hms.auth import FixedToken
from archiver.hms.errors import HmsUnauthorized
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW
from tests.core.fakes import Clock
from worker.credentials import LOOK_EVERY, Credentials
from worker.logs.redaction import redact
from worker.services import ServicesPerProcess
from worker.settings import Settings, load_settings
from worker.tokens import NoCredentials, ReportedTokens

MINUTE = LOOK_EVERY.total_seconds()


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory and a home of its own, and an environment without credentials, restored after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in list(os.environ):
        if name.upper().startswith(("ARCHIVER_", "HMS_", "AWS_", "GOOGLE_")):
            del os.environ[name]
    os.environ["HOME"] = str(tmp_path)


def write_env(secret: str, *lines: str) -> None:
    Path(".env").write_text("\n".join(["HMS_ACCESS_KEY=key", f"HMS_SECRET={secret}", *lines]))


@dataclass
class Used:
    """The credentials as one process uses them."""

    seconds: float = 0
    credentials: Credentials = field(init=False)

    def __post_init__(self) -> None:
        self.credentials = Credentials(load_settings(), elapsed=lambda: self.seconds)

    def renewed(self, *, refused: bool = False) -> Settings | None:
        return self.credentials.renewed(lambda: refused)


def secret_of(settings: Settings | None) -> str:
    assert settings is not None
    assert settings.hms_secret is not None
    return settings.hms_secret.get_secret_value()


def test_what_is_not_refused_is_not_read_again() -> None:
    write_env("first-secret")
    used = Used()
    write_env("second-secret")

    assert used.renewed() is None


def test_after_sighup_the_file_counts_and_nothing_happens_twice() -> None:
    write_env("first-secret")
    used = Used()
    write_env("second-secret")
    used.credentials.ask()

    assert secret_of(used.renewed()) == "second-secret"
    assert used.renewed() is None
    assert redact("with second-secret") == "with [redacted]", "what was read again is a secret too"


def test_a_refusal_reads_the_file_again_once_a_minute() -> None:
    write_env("first-secret")
    used = Used()
    used.credentials.note_refusal()
    assert used.renewed() is None, "nothing else is known"
    write_env("second-secret")
    used.credentials.note_refusal()

    used.seconds = MINUTE - 1
    assert used.renewed() is None
    used.seconds = MINUTE
    assert secret_of(used.renewed()) == "second-secret"
    used.seconds = 2 * MINUTE
    assert used.renewed() is None


def test_a_refusal_that_the_ledger_knows_of_is_one_too() -> None:
    write_env("first-secret")
    used = Used()
    write_env("second-secret")

    assert secret_of(used.renewed(refused=True)) == "second-secret"


def test_other_settings_stay_until_a_restart() -> None:
    write_env("first-secret", "ARCHIVER_DESTINATIONS=/srv/a")
    used = Used()
    write_env("second-secret", "ARCHIVER_DESTINATIONS=/srv/b", "ARCHIVER_CONNECTIONS=3")
    used.credentials.ask()

    settings = used.renewed()

    assert settings is not None
    assert settings.destinations == ("/srv/a",)
    assert settings.connections != 3


def test_a_file_with_a_mistake_in_it_changes_nothing() -> None:
    write_env("first-secret")
    used = Used()
    Path(".env").write_text("HMS_ACCESS_KEY=key\nHMS_SECRET=two words\n")
    used.credentials.ask()

    assert used.renewed() is None
    assert secret_of(used.credentials.current()) == "first-secret"


def test_the_cloud_sdks_get_the_new_keys_of_the_file_and_keep_those_of_the_environment() -> None:
    os.environ["AWS_SESSION_TOKEN"] = "from-outside"
    write_env("s-e-c-r-e-t", "AWS_ACCESS_KEY_ID=old", "AWS_REGION=here", "AWS_SESSION_TOKEN=from-file")
    used = Used()
    write_env("s-e-c-r-e-t", "AWS_ACCESS_KEY_ID=new", "AWS_SESSION_TOKEN=from-file")
    used.credentials.note_refusal()

    assert used.renewed() is not None
    assert os.environ["AWS_ACCESS_KEY_ID"] == "new"
    assert "AWS_REGION" not in os.environ
    assert os.environ["AWS_SESSION_TOKEN"] == "from-outside"


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        (None, ".aws/credentials"),
        ("AWS_SHARED_CREDENTIALS_FILE", "elsewhere"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "key.json"),
    ],
)
def test_a_changed_file_of_a_cloud_sdk_is_a_change(tmp_path: Path, variable: str | None, path: str) -> None:
    if variable:
        os.environ[variable] = str(tmp_path / path)
    write_env("first-secret")
    used = Used()
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("aws_secret_access_key = x")

    assert used.renewed(refused=True) is not None


def test_who_asks_reaches_the_children_and_what_a_child_found_its_siblings() -> None:
    write_env("first-secret")
    used = Used()
    write_env("second-secret")

    def in_child() -> bool:
        used.credentials.note_refusal()
        return used.renewed() is not None

    assert exit_code_of_child(in_child) == 0
    assert secret_of(used.renewed()) == "second-secret", "asked by the child, whose own copy it is not"


def exit_code_of_child(check: Any) -> int:
    child = os.fork()
    if child == 0:
        os._exit(0 if check() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_every_refusal_by_the_api_is_reported() -> None:
    reports: list[str] = []
    now = datetime(2026, 1, 1, tzinfo=UTC)
    tokens = ReportedTokens(FixedToken(SecretStr("t")), lambda: reports.append("refused"))

    assert tokens.token(now).get_secret_value() == "t"
    assert reports == []
    assert tokens.replacement(SecretStr("t"), now) is None
    with pytest.raises(HmsUnauthorized):
        ReportedTokens(NoCredentials(), lambda: reports.append("none")).token(now)
    assert reports == ["refused", "none"]


# ---- the services of a process


@dataclass
class Built:
    """As much of AppServices as the wiring touches."""

    settings: Settings
    ledger: MemoryLedger
    closed: bool = False

    def __post_init__(self) -> None:
        self.clock = self.ledger.now
        self.stores = [MemoryBackend("a")]
        self.tallies = SimpleNamespace(start=lambda: None)

    def close(self) -> None:
        self.closed = True


class Process:
    def __init__(self) -> None:
        self.ledger = MemoryLedger(Clock(NOW))
        self.used = Used()
        build: Any = lambda settings: Built(settings, self.ledger)  # noqa: E731
        self.services = ServicesPerProcess(build, self.used.credentials)

    def get(self) -> Built:
        found: Any = self.services.get()
        assert isinstance(found, Built)
        return found

    @contextmanager
    def task(self) -> Iterator[Built]:
        self.services.begin_task()
        try:
            yield self.get()
        finally:
            self.services.end_task()


def test_a_running_task_keeps_its_services_and_the_next_one_has_new_ones() -> None:
    write_env("first-secret")
    process = Process()
    with process.task() as first:
        write_env("second-secret")
        process.used.credentials.ask()
        assert process.get() is first, "in the middle of a task nothing changes"

        with process.task() as second:  # in another thread
            assert secret_of(second.settings) == "second-secret"
            assert not first.closed
        assert not first.closed, "a copy with it runs"

    assert first.closed
    assert not second.closed
    with process.task() as third:
        assert third is second


def test_a_process_that_starts_later_begins_with_the_credentials_of_then() -> None:
    write_env("first-secret")
    process = Process()
    write_env("second-secret")

    with process.task() as first:
        assert secret_of(first.settings) == "second-secret"


def test_new_credentials_close_the_breakers_of_this_machine_and_no_pause() -> None:
    machine = os.uname().nodename
    write_env("first-secret")
    process = Process()
    ledger = process.ledger
    with process.task():
        breaker.trip_on(ledger, breaker.API, machine, "401", NOW)
        breaker.trip_on(ledger, "memory://a", "elsewhere", "403", NOW)
        breaker.pause(ledger, "memory://a", by="me", why="", now=NOW)
    write_env("second-secret")

    with process.task() as second:
        assert secret_of(second.settings) == "second-secret"

    assert set(breaker.opened(ledger, NOW)) == {"memory://a", "memory://a (on elsewhere)"}


def test_a_pause_is_no_refusal() -> None:
    write_env("first-secret")
    process = Process()
    with process.task():
        breaker.pause(process.ledger, breaker.EVERYTHING, by="me", why="", now=NOW)
    write_env("second-secret")

    with process.task() as second:
        assert secret_of(second.settings) == "first-secret"

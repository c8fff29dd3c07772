"""`archiver init`, in a terminal and without one."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.simulator.process import Simulator
from tests.walkthrough.terminal import in_terminal
from tests.walkthrough.user import TRACEBACK, User

NAMES = {"HMS_ACCESS_KEY", "HMS_SECRET"}


@pytest.fixture
def newcomer(tmp_path: Path, simulator: Simulator) -> User:
    """Has an account, and has set nothing yet but where the simulated API is."""
    given = simulator.environment
    return User(tmp_path, {name: value for name, value in given.items() if name not in NAMES})


@contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A server that takes alerts and heartbeats: its URL, and the paths that were called."""
    called: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            called.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", called
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_in_a_terminal_it_asks_tests_each_answer_and_writes_what_works(
    newcomer: User, simulator: Simulator
) -> None:
    key, secret = (simulator.environment[name] for name in ("HMS_ACCESS_KEY", "HMS_SECRET"))
    file = newcomer.folder / ".env"
    file.write_text("# mine\nARCHIVER_CONNECTIONS=3\nARCHIVER_DESTINATIONS=./elsewhere\n")
    file.chmod(0o644)
    with (
        receiver() as (address, called),
        in_terminal(["init"], folder=newcomer.folder, env=newcomer.full_environment, columns=200) as terminal,
    ):
        terminal.wait_for("100ms access key", seconds=20)
        terminal.types(key)
        terminal.wait_for("100ms app secret", seconds=20)
        terminal.types_hidden("CANARY-this-is-not-the-secret-of-the-account", seconds=20)
        terminal.wait_for("Use it all the same?", seconds=30)
        terminal.types("n")
        terminal.wait_for(f"100ms access key [{key}]", seconds=20)
        terminal.types("")
        terminal.types_hidden(secret, seconds=20)
        terminal.wait_for("accepts the credentials", seconds=30)
        terminal.wait_for("Destination, such as s3://bucket/prefix [./elsewhere]", seconds=20)
        terminal.types("nosuch://bucket")
        terminal.wait_for("s3://bucket/prefix [nosuch://bucket]", seconds=20)
        terminal.types("./archive")
        terminal.wait_for("writes and reads", seconds=20)
        terminal.wait_for("Alert URL", seconds=20)
        terminal.types_hidden(f"json://{address}/CANARY-alert", seconds=20)
        terminal.wait_for("a test message was delivered", seconds=30)
        terminal.wait_for("Heartbeat URL", seconds=20)
        terminal.types_hidden(f"http://{address}/CANARY-beat", seconds=20)
        terminal.wait_for("was called, and answered", seconds=30)
        terminal.wait_for("Replace ARCHIVER_DESTINATIONS in .env?", seconds=20)
        terminal.types("y")

        assert terminal.wait(seconds=20) == 0
        shown = terminal.shown

    assert called == ["/CANARY-alert", "/CANARY-beat"]
    assert file.read_text().startswith("# mine\nARCHIVER_CONNECTIONS=3\nARCHIVER_DESTINATIONS='./archive'\n")
    assert dotenv_values(file) == {
        "ARCHIVER_CONNECTIONS": "3",
        "ARCHIVER_DESTINATIONS": "./archive",
        "HMS_ACCESS_KEY": key,
        "HMS_SECRET": secret,
        "ARCHIVER_ALERT_URLS": f"json://{address}/CANARY-alert",
        "ARCHIVER_HEARTBEAT_URL": f"http://{address}/CANARY-beat",
    }
    assert mode_of(file) == 0o600
    assert "archiver run --once" in shown
    assert TRACEBACK not in shown
    for hidden in ("CANARY", secret):
        assert hidden not in shown
    assert newcomer.types("run", "--once").exit_code in (0, 1), "the next command works as typed"
    assert (newcomer.folder / "archive" / "manifests").is_dir()


def test_ctrl_c_writes_nothing(newcomer: User) -> None:
    with in_terminal(["init"], folder=newcomer.folder, env=newcomer.full_environment) as terminal:
        terminal.wait_for("100ms access key", seconds=20)

        assert terminal.interrupt_prompt(seconds=60) == 130
        assert "Nothing was written." in terminal.shown
    assert not (newcomer.folder / ".env").exists()


def initialise(
    newcomer: User, simulator: Simulator, *more: str, secret: str | None = None
) -> tuple[int, str]:
    said = newcomer.types(
        "init",
        *("--access-key", simulator.environment["HMS_ACCESS_KEY"], "--destination", "./archive", *more),
        HMS_SECRET=secret or simulator.environment["HMS_SECRET"],
    )
    assert TRACEBACK not in said.stderr
    return said.exit_code, said.text


def test_without_a_terminal_options_and_the_environment_are_enough(
    newcomer: User, simulator: Simulator
) -> None:
    code, text = initialise(newcomer, simulator)

    assert code == 0, text
    assert set(dotenv_values(newcomer.folder / ".env")) == {*NAMES, "ARCHIVER_DESTINATIONS"}
    assert mode_of(newcomer.folder / ".env") == 0o600
    assert simulator.environment["HMS_SECRET"] not in text
    assert initialise(newcomer, simulator)[0] == 0, "idempotent: nothing is replaced by another value"


def test_without_a_terminal_nothing_is_replaced_unless_it_is_said(
    newcomer: User, simulator: Simulator
) -> None:
    file = newcomer.folder / ".env"
    file.write_text("ARCHIVER_DESTINATIONS=./elsewhere\n")

    code, text = initialise(newcomer, simulator)
    assert code == 2
    assert "has another ARCHIVER_DESTINATIONS; --yes replaces it" in text
    assert file.read_text() == "ARCHIVER_DESTINATIONS=./elsewhere\n"

    assert initialise(newcomer, simulator, "--yes")[0] == 0
    assert dotenv_values(file)["ARCHIVER_DESTINATIONS"] == "./archive"


def test_without_a_terminal_what_does_not_work_is_not_written(newcomer: User, simulator: Simulator) -> None:
    wrong = "CANARY-this-is-not-the-secret-of-the-account"

    code, text = initialise(newcomer, simulator, secret=wrong)
    assert code == 3
    assert "Compare HMS_ACCESS_KEY and HMS_SECRET with the dashboard" in text
    assert not (newcomer.folder / ".env").exists()
    assert wrong not in text

    assert initialise(newcomer, simulator, "--no-check", secret=wrong)[0] == 0
    assert dotenv_values(newcomer.folder / ".env")["HMS_SECRET"] == wrong


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {}, "HMS_ACCESS_KEY: is missing, and there is no terminal to ask on; give --access-key"),
        (
            ["--access-key", "k"],
            {},
            "HMS_SECRET: is missing, and there is no terminal to ask on; set HMS_SECRET",
        ),
        (
            ["--access-key", "k", "--no-check", "--destination", "s3://key:MARKED@bucket"],
            {"HMS_SECRET": "s" * 32},
            "a destination URL holds no credentials",
        ),
        (
            ["--access-key", "k", "--no-check", "--destination", "./a"],
            {"HMS_SECRET": "s" * 32, "ARCHIVER_HEARTBEAT_URL": "ftp://MARKED"},
            "ARCHIVER_HEARTBEAT_URL: is not an http(s) URL",
        ),
    ],
)
def test_bad_answers_are_explained(
    newcomer: User, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    newcomer.environment |= environment

    answer = newcomer.types("init", *arguments)

    assert answer.exit_code == 2
    assert said in answer.text
    assert "MARKED" not in answer.text
    assert not (newcomer.folder / ".env").exists()


def test_a_heartbeat_that_is_refused_is_told_without_its_url(newcomer: User, simulator: Simulator) -> None:
    with receiver(404) as (address, _):
        newcomer.environment["ARCHIVER_HEARTBEAT_URL"] = f"http://{address}/CANARY"
        code, text = initialise(newcomer, simulator)

    assert code == 3
    assert "the service answered 404" in text
    assert "CANARY" not in text

"""Live views and Ctrl-C, in a terminal."""

from __future__ import annotations

import pytest

from tests.simulator.process import Simulator
from tests.walkthrough.terminal import in_terminal
from tests.walkthrough.user import TRACEBACK, User


@pytest.mark.parametrize("columns", [80, 120])
def test_run_once_shows_in_a_terminal_what_is_being_copied(
    user: User, empty_simulator: Simulator, columns: int
) -> None:
    asset = empty_simulator.add_asset("large", size_bytes=3_000_000)
    empty_simulator.fault("slow", on="storage", times=None, bytes_per_second=600_000)

    with in_terminal(
        ["run", "--once"], folder=user.folder, env=user.full_environment, columns=columns
    ) as terminal:
        terminal.wait_for("Being copied", seconds=60)
        terminal.wait_for(" of 2.9 MiB", seconds=60)
        exit_code = terminal.wait(seconds=60)

    assert exit_code == 0
    assert asset["id"] in terminal.shown
    assert "The only asset is safe." in terminal.shown
    assert "[info" not in terminal.shown, "events are for logs"
    assert all(len(line) <= columns for line in terminal.shown.replace("\r", "\n").splitlines())


def test_ctrl_c_shuts_down_a_run_and_the_next_one_resumes_it(user: User, empty_simulator: Simulator) -> None:
    empty_simulator.add_asset("large", size_bytes=20_000_000)
    empty_simulator.fault("slow", on="storage", times=None, bytes_per_second=1_000_000)

    with in_terminal(["run", "--once"], folder=user.folder, env=user.full_environment) as terminal:
        terminal.wait_for(" of 19.1 MiB", seconds=60)
        terminal.interrupt()
        terminal.wait_for("Stopping", seconds=20)
        exit_code = terminal.wait(seconds=40)
    empty_simulator.clear_faults()
    result = user.runs_once()

    assert exit_code == 130
    assert TRACEBACK not in terminal.shown
    assert result.json["states"] == {"archived": 1}, result.stderr
    assert user.types("verify").exit_code == 0


def test_status_watch_refreshes_until_ctrl_c(user: User, empty_simulator: Simulator) -> None:
    with in_terminal(["status", "--watch"], folder=user.folder, env=user.full_environment) as terminal:
        terminal.wait_for("nothing is known yet.", seconds=30)
        empty_simulator.add_asset("composite")
        user.runs_once()
        terminal.wait_for("The only asset is safe.", seconds=30)
        terminal.interrupt()
        exit_code = terminal.wait(seconds=20)

    assert exit_code == 130
    assert TRACEBACK not in terminal.shown


def test_ctrl_c_ends_status_watch_though_sigint_was_ignored_when_it_began(user: User) -> None:
    watch = in_terminal(
        ["status", "--watch"], folder=user.folder, env=user.full_environment, in_background=True
    )
    with watch as terminal:
        terminal.wait_for("nothing is known yet.", seconds=30)
        terminal.interrupt()

        assert terminal.wait(seconds=20) == 130


@pytest.mark.parametrize(
    "dies",
    [
        pytest.param("type('Dies', (), {'__del__': lambda self: ctrl_c()})()", id="in a destructor"),
        pytest.param(
            "(lambda dying: weakref.finalize(dying, ctrl_c))(threading.Event())", id="in a weakref callback"
        ),
    ],
)
def test_ctrl_c_ends_status_watch_even_while_python_drops_exceptions(user: User, dies: str) -> None:
    """The garbage collector may call destructors anywhere; what they raise is printed and forgotten."""
    (user.folder / "sitecustomize.py").write_text(
        "import signal, threading, weakref\n"
        "from rich.live import Live\n"
        "ctrl_c = lambda: signal.raise_signal(signal.SIGINT)\n"
        "draw = Live.update\n"
        f"Live.update = lambda *args, **options: (draw(*args, **options), {dies})\n"
    )
    env = user.full_environment | {"PYTHONPATH": str(user.folder)}

    with in_terminal(["status", "--watch"], folder=user.folder, env=env) as terminal:
        terminal.wait_for("nothing is known yet.", seconds=30)

        assert terminal.wait(seconds=20) == 130

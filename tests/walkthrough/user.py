"""The product as its user has it: the `archiver` command in a directory, settings from the environment alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import program
from tests.simulator.process import Simulator
from tests.walkthrough.forked import run_forked

_INHERITED = ("PATH", "HOME", "TMPDIR", "LANG")
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Said:
    """What one command answered."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def text(self) -> str:
        """Both outputs on one line, for what a person would read whatever the width."""
        return " ".join((self.stdout + self.stderr).split())

    @property
    def states(self) -> dict[str, int]:
        """By state, of `run --once --json`."""
        states: dict[str, int] = self.json["states"]
        return states


@dataclass
class User:
    """`folder` is where the commands are typed. Everything ever said is kept, for who looks for secrets."""

    folder: Path
    environment: dict[str, str]
    heard: list[str] = field(default_factory=list, repr=False)

    def types(
        self,
        *arguments: str,
        seconds: float = 100,
        stdin: str | None = None,
        **more: str | None,
    ) -> Said:
        """`archiver` with these arguments, and with `more` in its environment (None: without that variable)."""
        environment = self._env(more)
        if _is_first(arguments) or any(name.startswith("PYTHON") for name in more):
            done = subprocess.run(
                [program("archiver"), *arguments],
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=seconds,
                input=stdin or "",
                check=False,
            )
        else:
            done = run_forked(
                arguments, folder=self.folder, environment=environment, stdin=stdin or "", seconds=seconds
            )
        self.heard += [done.stdout, done.stderr]
        return Said(done.returncode, done.stdout, done.stderr)

    def runs_once(self, *arguments: str, seconds: float = 100, **more: str | None) -> Said:
        return self.types("run", "--once", "--json", *arguments, seconds=seconds, **more)

    def row(self, asset_id: str) -> dict[str, Any]:
        """The asset's row in the ledger, as `show --json` prints it."""
        row: dict[str, Any] = self.types("show", asset_id, "--json").json["row"]
        return row

    def media_of(self, manifest: Mapping[str, Any]) -> Path:
        """The one object of an asset in ./archive."""
        (item,) = manifest["objects"]
        return self.folder / "archive" / str(manifest["folder"]) / str(item["path"])

    @contextlib.contextmanager
    def starts(self, *arguments: str, **more: str | None) -> Iterator[subprocess.Popen[bytes]]:
        """A command that stays; interrupted at the end, as by Ctrl-C. Its output is in `out.txt`."""
        out = self.folder / "out.txt"
        with (
            out.open("ab") as file,
            subprocess.Popen(
                [program("archiver"), *arguments],
                cwd=self.folder,
                env=self._env(more),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
                self.heard.append(out.read_text())

    @property
    def full_environment(self) -> dict[str, str]:
        return self._env({})

    def _env(self, more: Mapping[str, str | None]) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        together = {**inherited, "COLUMNS": "100", **self.environment, **more}
        return {name: value for name, value in together.items() if value is not None}


_typed: set[str] = set()


def _is_first(arguments: tuple[str, ...]) -> bool:
    """Return whether this process of the tests has not typed the command yet. Then it is started as a user starts it,
    with imports of its own: what was imported before a fork would hide one that is missing."""
    if not arguments or arguments[0] in _typed:
        return not arguments
    _typed.add(arguments[0])
    return True


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Fails the test when `condition` does not come true in time; `what` completes "waited for"."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def user_of(folder: Path, simulator: Simulator, redis_url: str | None, **settings: str) -> User:
    """Somebody with an account at `simulator`, archiving to ./archive unless `settings` say otherwise."""
    environment = {
        **simulator.environment,
        "ARCHIVER_RETRY_BASE_SECONDS": "1",
        "ARCHIVER_MISMATCH_ATTEMPTS": "2",
        **({"ARCHIVER_REDIS_URL": redis_url} if redis_url else {}),
        **settings,
    }
    return User(folder, environment)

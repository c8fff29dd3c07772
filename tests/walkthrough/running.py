"""`archiver up` as its user runs it, looked at through its terminal, Flower and the process table."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from tests.walkthrough.user import User, until

FLOWER_AUTH = ("operator", "CANARY-flower-password")


@dataclass(frozen=True)
class Up:
    """All that `archiver up` started."""

    user: User
    process_id: int
    flower_url: str
    metrics_url: str

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return what Flower's API tells of `archive_asset`, by task id."""
        answer = self.flower("/api/tasks", taskname="archiver.archive_asset", limit="10000")
        tasks: dict[str, dict[str, Any]] = answer.json()
        return tasks

    def flower(
        self, path: str, *, auth: tuple[str, str] | None = FLOWER_AUTH, **params: str
    ) -> httpx.Response:
        return httpx.get(f"{self.flower_url}{path}", auth=auth, params=params, timeout=30, trust_env=False)

    def metrics(self) -> str:
        return httpx.get(self.metrics_url, timeout=30, trust_env=False).text

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process_id).children(recursive=True)

    def process(self, words: str) -> psutil.Process:
        """The process started by `archiver up` itself whose command line has these words."""
        (found,) = (
            each for each in psutil.Process(self.process_id).children() if words in " ".join(each.cmdline())
        )
        return found

    def wait_for_states(self, *, seconds: float, **states: int) -> None:
        """Until the account has exactly these numbers."""
        self.user.environment.setdefault("COLUMNS", "100")

        def reached() -> bool:
            result = self.user.types("status", "--json")
            if not result.stdout:
                return False
            counted = {state: number for state, number in result.json["states"].items() if number}
            return counted == states

        until(reached, seconds=seconds, what=f"the states {states}")


@contextlib.contextmanager
def up(user: User, *arguments: str, port: int = 0) -> Iterator[Up]:
    """Stopped at the end, as by Ctrl-C. `port`: the one that Flower is asked to take."""
    user.environment |= {
        "ARCHIVER_FLOWER_PORT": str(port),
        "ARCHIVER_SERVE_PORT": "0",
        "ARCHIVER_METRICS_PORT": "0",
        "ARCHIVER_FLOWER_BASIC_AUTH": ":".join(FLOWER_AUTH),
        "ARCHIVER_SWEEP_SECONDS": "1",
        "ARCHIVER_DISPATCH_SECONDS": "1",
        "ARCHIVER_LEASE_SECONDS": "3",
    }
    with user.starts("up", *arguments) as process:
        out = user.folder / "out.txt"

        def ready() -> bool:
            assert process.poll() is None, out.read_text()
            return "Stop:" in out.read_text()

        until(ready, seconds=90, what="`archiver up` to say that it is up")
        found = re.search(r"Flower: +(http://\S+)", out.read_text())
        assert found, out.read_text()
        metrics = re.search(r"Metrics: +(http://\S+)", out.read_text())
        assert metrics, out.read_text()
        yield Up(user, process.pid, found[1], metrics[1])

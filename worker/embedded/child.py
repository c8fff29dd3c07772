"""One child process: in its own session, killed with its parent, its output in a file, restarted with backoff."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from archiver.retry_policy import RESTART

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
RECOVERED_AFTER = timedelta(minutes=1)
"""The backoff starts over after a process ran for this long."""
LOG_LIMIT_BYTES = 20 * 1024 * 1024
"""At most two files of this size per process: days of a busy worker."""


class ProcessState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"  # it exited; the next start waits for the backoff
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    name: str
    state: ProcessState
    pid: int | None
    restarts: int
    crashes: int  # unexpected exits
    last_exit: str | None  # how it last crashed, for people
    log: Path


class Child:
    """Not thread-safe. Start it from a thread that lives as long as the child should: on Linux a child is killed with
    the *thread* that started it (prctl(2), PR_SET_PDEATHSIG)."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._state = ProcessState.STOPPED
        self._restarts = 0
        self._crashes = 0
        self._crashes_in_a_row = 0
        self._last_exit: str | None = None
        self._started_at = 0.0
        self._restart_at = 0.0

    def start(self) -> None:
        """Start the process; its state is `starting` until `mark_ready`. Raises OSError when this machine is out of
        processes, file handles or memory; on a full disk it runs without a log."""
        self.trim_log()
        # -I -S: it needs nothing of the virtualenv, and so starts in 10 ms.
        wrapper = [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid())]
        # A file, not a pipe: a pipe that is not read would block the child. O_APPEND makes trim_log safe.
        log = self._open_log()
        try:
            self._process = subprocess.Popen(
                [*wrapper, *self.command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches only the supervisor, which then shuts down all in order.
                start_new_session=True,
            )
        finally:
            os.close(log)
        self._started_at = time.monotonic()
        self._state = ProcessState.STARTING

    def _open_log(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._log, flags, 0o600)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def mark_ready(self) -> None:
        if self._state is ProcessState.STARTING:
            self._state = ProcessState.RUNNING

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def check(self) -> bool:
        """Restart the process after a crash, once its backoff is over. True when it has just crashed or could not be
        started. Call this a few times a second."""
        now = time.monotonic()
        if self._state is ProcessState.RESTARTING:
            if now >= self._restart_at:
                self._restarts += 1
                try:
                    self.start()
                except OSError as error:  # out of processes or file handles for now
                    self._record_crash(now, f"it could not be started: {error.strerror}")
                    return True
                self.mark_ready()
        elif self._state is not ProcessState.STOPPED and not self.is_alive():
            self._record_crash(now)
            return True
        return False

    def restart(self) -> None:
        """Kill a process that runs but hangs; `check` restarts it."""
        self._signal_group(signal.SIGKILL)

    def ask_to_stop(self) -> None:
        """Send SIGTERM. The process is not restarted."""
        self._state = ProcessState.STOPPED
        if self.is_alive() and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its children, and wait until it is gone."""
        self._state = ProcessState.STOPPED
        self._signal_group(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(timeout=30)

    def trim_log(self) -> None:
        """Rotate the log to `*.log.1` when it is over its limit. Lines written meanwhile may be lost."""
        try:
            if self._log.stat().st_size < LOG_LIMIT_BYTES:
                return
        except OSError:
            return
        old = self._log.with_name(f"{self._log.name}.1")
        try:
            shutil.copyfile(self._log, old)
        except OSError:  # the disk is full: drop the old log first
            old.unlink(missing_ok=True)
        os.truncate(self._log, 0)

    def last_lines(self, count: int = 20) -> str:
        """The end of the log, for an error message."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - 8192))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-count:])

    def exit_description(self) -> str | None:
        """Return how the process ended; None while it runs."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def status(self) -> ProcessStatus:
        pid = self._process.pid if self._process is not None and self.is_alive() else None
        return ProcessStatus(
            self.name, self._state, pid, self._restarts, self._crashes, self._last_exit, self._log
        )

    def _record_crash(self, now: float, why: str | None = None) -> None:
        self._last_exit = why or self.exit_description()
        self._crashes += 1
        # Its children may have survived (a pool's child between fork and its own parent-death signal).
        self._signal_group(signal.SIGKILL)
        if why is None and now - self._started_at > RECOVERED_AFTER.total_seconds():
            self._crashes_in_a_row = 0
        self._crashes_in_a_row += 1
        self._restart_at = now + RESTART.pause(self._crashes_in_a_row).total_seconds()
        self._state = ProcessState.RESTARTING

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # the group is empty (macOS answers "not permitted" for a group of zombies)

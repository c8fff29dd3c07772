"""One supervised process: in its own session, on a leash, its output in a file, started again when it falls over."""

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

LEASH = Path(__file__).with_name("leash.py")
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(seconds=30)
STEADY_AFTER = timedelta(minutes=1)
"""A process that ran this long has recovered: its next fall is a first one again."""
LOG_LIMIT_BYTES = 20 * 1024 * 1024
"""Two files of this size a process at most: days of a busy worker, and no filled disk."""


class ProcessState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"  # it fell over; the next start waits for its pause to end
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    name: str
    state: ProcessState
    pid: int | None
    restarts: int
    falls: int
    last_exit: str | None  # of the last fall, in words
    log: Path


class Child:
    """Not thread-safe. All starts must come from one thread that lives as long as the child should: on Linux a child
    dies with the *thread* that started it (prctl(2), PR_SET_PDEATHSIG)."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._state = ProcessState.STOPPED
        self._restarts = 0
        self._falls = 0
        self._falls_in_a_row = 0
        self._last_exit: str | None = None
        self._started_at = 0.0
        self._start_again_at = 0.0

    def start(self) -> None:
        """Starts the process. It is `starting` until `mark_ready`. Raises OSError when this machine has no process,
        file handle or memory for it; a disk that is full costs its log alone."""
        self.trim_log()
        # -I -S: the leash needs nothing of the virtualenv, and so starts in 10 ms.
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        # A file, not a pipe: nobody has to read it for the child to go on. Appending is what makes trim_log safe.
        log = self._open_log()
        try:
            self._process = subprocess.Popen(
                [*leash, *self.command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches the supervisor alone, which then stops all in order.
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

    def tend(self) -> bool:
        """Notices a fall and starts the process again once its pause is over; whether it has just fallen, or could not
        be started. Call it a few times a second."""
        now = time.monotonic()
        if self._state is ProcessState.RESTARTING:
            if now >= self._start_again_at:
                self._restarts += 1
                try:
                    self.start()
                except OSError as error:  # this machine has no process or file handle for it now
                    self._note_fall(now, f"it could not be started: {error.strerror}")
                    return True
                self.mark_ready()
        elif self._state is not ProcessState.STOPPED and not self.is_alive():
            self._note_fall(now)
            return True
        return False

    def restart(self) -> None:
        """Ends a process that runs but does no work, in order to have it started again."""
        self._signal_group(signal.SIGKILL)

    def ask_to_stop(self) -> None:
        """SIGTERM, once. The process is not started again."""
        self._state = ProcessState.STOPPED
        if self.is_alive() and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process and all it started, at once, and waits for it to be gone."""
        self._state = ProcessState.STOPPED
        self._signal_group(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(timeout=30)

    def trim_log(self) -> None:
        """Keeps the log bounded: over its limit it becomes `*.log.1`. Lines written during the copy may be lost."""
        try:
            if self._log.stat().st_size < LOG_LIMIT_BYTES:
                return
        except OSError:
            return
        old = self._log.with_name(f"{self._log.name}.1")
        try:
            shutil.copyfile(self._log, old)
        except OSError:  # the disk is full: what is old goes first
            old.unlink(missing_ok=True)
        os.truncate(self._log, 0)

    def last_lines(self, count: int = 20) -> str:
        """The end of its log, for an error message."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - 8192))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-count:])

    def exit_in_words(self) -> str | None:
        """How the process that last ran ended; None while it runs."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def status(self) -> ProcessStatus:
        pid = self._process.pid if self._process is not None and self.is_alive() else None
        return ProcessStatus(
            self.name, self._state, pid, self._restarts, self._falls, self._last_exit, self._log
        )

    def _note_fall(self, now: float, why: str | None = None) -> None:
        self._last_exit = why or self.exit_in_words()
        self._falls += 1
        # What it started may have survived it (a pool's child between fork and its own leash).
        self._signal_group(signal.SIGKILL)
        if why is None and now - self._started_at > STEADY_AFTER.total_seconds():
            self._falls_in_a_row = 0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._falls_in_a_row)
        self._falls_in_a_row = min(self._falls_in_a_row + 1, 10)
        self._start_again_at = now + pause.total_seconds()
        self._state = ProcessState.RESTARTING

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # nobody is left in it (macOS says "not permitted" of a group of zombies)

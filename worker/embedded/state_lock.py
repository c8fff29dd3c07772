"""The lock that keeps a second supervisor off a state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from worker.embedded.errors import AlreadyRunning


class StateLock:
    """Held until `release`, or until this process ends: the kernel releases it, so it is never stale."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._file: int | None = None

    def acquire(self) -> None:
        """Create the directory if needed. Raises AlreadyRunning."""
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._state_dir / "supervisor.lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 32).decode().strip() or "unknown"
            os.close(file)
            raise AlreadyRunning(
                f"An archiver (process {holder}) already runs on the state directory {self._state_dir}. "
                "Stop it first, or give this one another ARCHIVER_STATE_DIR."
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

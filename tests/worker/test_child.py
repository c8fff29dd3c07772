"""A supervised process on a machine that is short of disk, processes or file handles."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.embedded.child import LOG_LIMIT_BYTES, Child, ProcessState


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    command = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
    made = Child("sleeper", command, dict(os.environ), tmp_path / "logs" / "sleeper.log")
    yield made
    made.kill()


def lacking(number: int) -> Callable[..., object]:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_a_process_that_cannot_be_started_now_is_started_later(
    child: Child, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    child.start()
    child.restart()
    until_dead = child._process
    assert until_dead is not None
    until_dead.wait(20)
    assert child.check(), "it crashed"

    with monkeypatch.context() as starved:
        starved.setattr(subprocess, "Popen", lacking(number))
        for _ in range(3):
            clock[0] += 60
            assert child.check(), "and could not be started"
    status = child.status()
    assert status.state is ProcessState.RESTARTING
    assert status.last_exit == f"it could not be started: {os.strerror(number)}"

    clock[0] += 60
    assert not child.check()
    assert child.is_alive()


def test_a_full_disk_costs_the_log_and_not_the_process(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: object, flags: int, *mode: int) -> int:
        if str(path).endswith("sleeper.log"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *mode)  # type: ignore[arg-type]

    with monkeypatch.context() as no_space:
        no_space.setattr(os, "open", full)
        child.start()

    assert child.is_alive()


def test_a_log_that_cannot_be_kept_is_shortened_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "full.log"
    with log.open("wb") as file:
        file.truncate(LOG_LIMIT_BYTES)
    log.with_name("full.log.1").write_bytes(b"half of a copy")
    made = Child("full", ["true"], {}, log)

    monkeypatch.setattr(shutil, "copyfile", lacking(errno.ENOSPC))
    made.trim_log()

    assert log.stat().st_size == 0
    assert not log.with_name("full.log.1").exists()

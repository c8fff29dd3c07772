"""The `archiver` command without the second that its imports take: a process that has imported what commands use,
without a thread or a client, and forks one command after the other. Each is a process of its own, with its own
environment and folder, and ends as any other does.

python -m tests.walkthrough.forked SOCKET    reads commands from the socket with this file descriptor
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

import archiver
import storage_backends
import worker
from storage_backends.registry import schemes
from tests.servers import program

_ROOT = Path(__file__).parents[2]
_BYTES = 2**20  # the most that a command and its environment take
# they look at the environment, or start something, when they are imported
_NOT_LOADED = ("worker.cli", "worker.app", "worker.celery_setup", "archiver.simulator")


def run_forked(
    arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], stdin: str, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run` does. Raises TimeoutExpired."""
    ours, theirs = os.pipe()
    with (
        os.fdopen(ours, "rb", buffering=0) as told,  # unbuffered: `select` sees what is not read yet
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as errors,
    ):
        try:
            given.write(stdin)
            given.seek(0)
            command = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
            files = [given.fileno(), out.fileno(), errors.fileno(), theirs]
            socket.send_fds(_server()[1], [json.dumps(command).encode()], files)
        finally:
            os.close(theirs)
        process_id = int(told.readline())
        if not select.select([told], [], [], seconds)[0]:
            os.kill(process_id, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(arguments), seconds)
        code = int(told.readline())
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), errors.read())


@cache
def _server() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Started at the first command; it ends when this process has ended, and its socket with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.walkthrough.forked", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=_ROOT,
            env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return process, ours


def main() -> None:
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for a command are reaped
    server = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, files, _, _ = socket.recv_fds(server, _BYTES, 4)
        if not data:
            return
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(json.loads(data), files)
            return
        for file in files:
            os.close(file)


def _run(command: Mapping[str, object], files: Sequence[int]) -> None:
    *standard, pipe = files
    process_id = os.fork()
    if process_id:  # this process waits, and tells how it ended
        os.write(pipe, f"{process_id}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
        with suppress(BrokenPipeError):  # nobody waits any more
            os.write(pipe, f"{code}\n".encode())
        os._exit(0)
    os.close(pipe)
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    os.chdir(str(command["folder"]))
    os.environ.clear()
    os.environ.update(command["environment"])  # type: ignore[call-overload]
    sys.argv = [program("archiver"), *command["arguments"]]  # type: ignore[misc]
    from worker.cli import main as archiver_main

    archiver_main()


def _load() -> None:
    for package in (archiver, storage_backends, worker):
        _import_all_of(package)
    for entry_point in schemes().values():
        entry_point.load()
    assert threading.active_count() == 1, "a thread does not survive a fork"
    gc.collect()
    gc.freeze()  # else each command's collections copy the pages of all this


def _import_all_of(package: ModuleType) -> None:
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name not in _NOT_LOADED:
            loaded = importlib.import_module(module.name)
            if module.ispkg:
                _import_all_of(loaded)


if __name__ == "__main__":
    main()

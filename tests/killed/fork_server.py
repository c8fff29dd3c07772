"""Fork server of workers: a process that has imported everything, without a thread or a client, and forks one worker
after the other. A worker is ready in milliseconds; it is a real process, and SIGKILL ends it.

python -m tests.killed.fork_server    reads jobs as lines of JSON; for each it writes the worker's pid, and its end
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import botocore.session
from botocore.loaders import create_loader

from storage_backends.registry import schemes
from tests.killed.worker import Job, Report, work
from tests.valkey import die_with_parent

_ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL


class Worker:
    """One worker, as its test sees it."""

    def __init__(self, pid: int, fork_server: ForkServer) -> None:
        self._pid = pid
        self._fork_server = fork_server
        self._lock = Lock()
        self._end: dict[str, Any] | None = None

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        os.kill(
            self._pid, signal.SIGKILL
        )  # not another's pid: it is nobody's before the fork server asked for its end
        self._wait()

    def killed(self) -> bool:
        """Wait for its end, and tell whether that was by SIGKILL."""
        return bool(self._wait()["status"] == KILLED)

    def report(self) -> Report:
        """Wait for its end, which must be a good one."""
        end = self._wait()
        assert end["status"] == 0, self._fork_server.log.read_text()[-4000:]
        return Report(**end["report"])

    def _wait(self) -> dict[str, Any]:
        with self._lock:
            if self._end is None:
                self._end = self._fork_server.read()
            return self._end


class ForkServer:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self.log = log

    def start(self, job: Job) -> Worker:
        """One at a time: the last one has ended."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        return Worker(self.read()["pid"], self)

    def read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-4000:]
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def fork_server(folder: Path) -> Iterator[ForkServer]:
    log = folder / "workers.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.killed.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=_ROOT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 # one call into libc, looked up before
        ) as process,
    ):
        try:
            yield ForkServer(process, log)
        finally:
            process.kill()


def main() -> None:
    load_libraries()
    for line in sys.stdin:
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            be_a_worker(Job(**json.loads(line)), theirs)
        os.close(theirs)
        tell({"pid": pid})
        with os.fdopen(ours) as pipe:
            report = pipe.read()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        tell({"status": code, "report": json.loads(report) if code == 0 else None})


def be_a_worker(job: Job, pipe: int) -> None:
    """Never returns."""
    die_with_parent()
    code = 1
    try:
        reported = json.dumps(asdict(work(job)))
        with os.fdopen(pipe, "w") as out:
            out.write(reported)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def load_libraries() -> None:
    """The stores' libraries, and boto3's models, which it reads again for each session: a third of a second. Code and
    data alone; clients are made after the fork."""
    for entry_point in schemes().values():
        entry_point.load()
    botocore.session.create_loader = lru_cache(create_loader)
    session = botocore.session.get_session()
    session.create_client("s3", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b").close()


def tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

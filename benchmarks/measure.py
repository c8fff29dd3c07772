"""One client process: how long, how much of the processors, how much memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_seconds`: user and system, of the process and all it started. `startup_*`: the part of it before a Python
    client said that it was ready: its interpreter, imports and SDK clients; a worker pays that once in its life."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_mib: float  # of the process and those it started, each at its own peak
    startup_wall_seconds: float = 0.0
    startup_cpu_seconds: float = 0.0

    @property
    def job_wall_seconds(self) -> float:
        return self.wall_seconds - self.startup_wall_seconds

    @property
    def job_cpu_seconds(self) -> float:
        return self.cpu_seconds - self.startup_cpu_seconds


class ClientFailed(Exception):
    """A client ended with an error, or not at all."""


def run(command: Sequence[str], env: Mapping[str, str], stdin: str, timeout_seconds: float) -> Usage:
    """Run `command` to its end. The last line of its output may tell of its start-up, as `ready()` prints it."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as output:
        given.write(stdin)
        given.seek(0)
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=dict(env), stdin=given, stdout=output, stderr=subprocess.STDOUT
        )
        pid = status = peak_kib = 0
        while not pid:
            peak_kib = max(peak_kib, _high_water_kib(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not pid:
                if time.monotonic() - started > timeout_seconds:
                    process.kill()
                    process.wait()
                    raise ClientFailed(f"{command[0]} did not end within {timeout_seconds:.0f} s")
                time.sleep(0.005)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        reported = output.read()
    if process.returncode:
        raise ClientFailed(f"{command[0]} ended with {process.returncode}: {reported[-2000:]}")
    ready = _ready(reported)
    return Usage(
        wall,
        usage.ru_utime + usage.ru_stime,
        peak_kib / 1024,
        max(0.0, ready["monotonic"] - started) if ready else 0.0,
        ready["cpu"] if ready else 0.0,
    )


def _high_water_kib(pid: int) -> int:
    """`ru_maxrss` would not do: it begins with what the harness itself had when it forked."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return (int(peak[1]) if peak else 0) + sum(_high_water_kib(int(child)) for child in children)


def ready() -> None:
    """Say that the imports are done and the work begins."""
    print(json.dumps({"ready": {"monotonic": time.monotonic(), "cpu": time.process_time()}}), flush=True)  # noqa: T201


def _ready(reported: str) -> dict[str, float] | None:
    for line in reported.splitlines():
        if line.startswith('{"ready"'):
            found: dict[str, float] = json.loads(line)["ready"]
            return found
    return None

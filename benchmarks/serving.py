"""The source or the sink as a process of its own: `python -m benchmarks.serving`, told all by JSON on its input."""

from __future__ import annotations

import json
import mmap
import resource
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gcs_sink import GcsSink
from benchmarks.network import NETWORKS
from benchmarks.s3_sink import S3Sink
from benchmarks.server import serve
from benchmarks.source import Source
from benchmarks.workloads import JOBS

SINKS = {"s3": S3Sink, "gcs": GcsSink}


@dataclass(frozen=True, slots=True)
class Serving:
    role: str  # source, s3 or gcs
    network: str
    pattern: str
    scale: float = 1.0
    jobs: tuple[str, ...] = ()
    certificate: str | None = None  # PEM with its key, for TLS
    verify: bool = False


@contextmanager
def started(serving: Serving) -> Iterator[int]:
    """The port where it listens, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.serving"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(serving)) + "\n")
            process.stdin.flush()
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def ask(url: str, context: ssl.SSLContext | None) -> Any:
    with urllib.request.urlopen(url, timeout=30, context=context) as answer:  # noqa: S310 - our own server
        body = answer.read()
    return json.loads(body) if body else None


def main() -> None:
    options = json.loads(sys.stdin.readline())
    serving = Serving(**{**options, "jobs": tuple(options["jobs"])})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = None
    if serving.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(serving.certificate)
    if serving.role in SINKS:
        handle = SINKS[serving.role](serving.verify).handle
    else:
        with Path(serving.pattern).open("rb") as file:
            pattern = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        jobs = [JOBS[name](serving.scale, pattern) for name in serving.jobs]
        files = {f"{job.name}/{path}": body for job in jobs for path, body in job.files.items()}
        handle = Source(Path(serving.pattern), files).handle
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)  # noqa: T201
    serve(listener, NETWORKS[serving.network], context, handle)


if __name__ == "__main__":
    main()

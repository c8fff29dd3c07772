"""The exact command of every process. The supervisor runs these; `docker-compose.yml` has the same ones, which a test
compares.

No command holds a secret: every user of a machine can read command lines. Secrets are passed in the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

APP = "worker.app"
ARCHIVE_NODE = "archive"
CONTROL_NODE = "control"

URGENT_QUEUE = "urgent"
ARCHIVE_QUEUE = "archive"
CONTROL_QUEUE = "control"

FLOWER_COLUMNS = "name,kwargs,state,result,exception,received,runtime,worker"
"""kwargs: asset id and type; result: bytes, objects, seconds; exception: why an asset is not archived. None holds a
secret (tests/walkthrough)."""

CONTROL_SLOTS = 5
"""Sweep, reconcile, scrub and drill may each take long, and usually run once at a time; the fifth slot is for dispatch
and watch, which take seconds (docs/decisions/0003-control-worker.md)."""


def archive_worker(*, app: str = APP, soft_shutdown: timedelta | None = None) -> list[str]:
    """The worker that copies. Run any number, on any number of machines. `soft_shutdown` overrides how long running
    tasks may continue after SIGTERM."""
    return _worker(app, ARCHIVE_NODE, (URGENT_QUEUE, ARCHIVE_QUEUE), slots=None, soft_shutdown=soft_shutdown)


def control_worker(*, app: str = APP, soft_shutdown: timedelta | None = None) -> list[str]:
    """The worker for sweep, dispatch, watch, reconcile and scrub. Run one; more do no harm."""
    return _worker(app, CONTROL_NODE, (CONTROL_QUEUE,), slots=CONTROL_SLOTS, soft_shutdown=soft_shutdown)


def beat(*, app: str = APP) -> list[str]:
    """The scheduler. Run exactly one; a second one doubles the messages, which the ledger tolerates."""
    # In memory: a PersistentScheduler fires early after a kill, and RedBeat gives up in a short outage.
    return ["celery", "-A", app, "beat", "--scheduler", "celery.beat:Scheduler", "--loglevel", "INFO"]


def flower(*, address: str, port: int, app: str = APP) -> list[str]:
    """The web page, read-only: nobody who reaches it can shut down a worker. The password is in FLOWER_BASIC_AUTH."""
    return [
        "celery",
        "-A",
        app,
        "flower",
        f"--address={address}",
        f"--port={port}",
        "--read_only=True",
        f"--tasks_columns={FLOWER_COLUMNS}",
    ]


def serve() -> list[str]:
    """The process for alerts, health, webhooks and metrics. Its addresses are settings."""
    return ["archiver", "serve"]


def valkey(config: Path, *, server: str = "valkey-server") -> list[str]:
    """The embedded broker and ledger. Everything else, including the password, is in `config`."""
    return [server, str(config)]


def ping(node: str, *, app: str = APP) -> list[str]:
    """Exits with 0 when the worker `node` of this host answers over the broker."""
    return ["celery", "-A", app, "inspect", "ping", "--destination", node, "--timeout", "10"]


def runnable(command: Sequence[str]) -> list[str]:
    """The same command with this interpreter, so that it works without the virtualenv on PATH, and in a folder with
    Python modules."""
    if command[0] == "celery":
        return [sys.executable, "-P", "-m", "worker.celery_setup.command", *command[1:]]
    if command[0] == "archiver":
        return [sys.executable, "-P", "-m", "worker.cli", *command[1:]]
    return list(command)


def _worker(
    app: str, node: str, queues: Sequence[str], *, slots: int | None, soft_shutdown: timedelta | None
) -> list[str]:
    command = ["celery", "-A", app, "worker", "--hostname", f"{node}@%h", "--queues", ",".join(queues)]
    if slots is not None:
        command += ["--concurrency", str(slots)]
    # Gossip and mingle cost messages per worker at the start, and are of no use here; prefork is the only pool that
    # honours time limits and a cold shutdown.
    command += ["--pool", "prefork", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    if soft_shutdown is not None:
        command += ["--", f"worker.soft_shutdown_timeout={soft_shutdown.total_seconds()}"]
    return command

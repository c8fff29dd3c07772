"""The exact command of every process of the archiver. The supervisor starts these, `docker-compose.yml` names the same
(a test compares them), and a person may type them.

No command holds a secret: command lines are readable by every user of a machine. Secrets travel in the environment.
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

FLOWER_COLUMNS = "name,kwargs,state,result,received,runtime,worker"
"""kwargs: asset id and type; result: bytes, objects, seconds. Neither holds a secret (tests/walkthrough)."""

CONTROL_SLOTS = 4
"""Sweep, reconcile and scrub may each run for long, each once at a time as a rule; the fourth slot is free
for dispatch and watch, which take seconds (docs/decisions/0003-control-worker.md)."""


def archive_worker(*, app: str = APP, soft_shutdown: timedelta | None = None) -> list[str]:
    """The worker that copies. As many as wanted, on as many machines as wanted. `soft_shutdown` overrides
    how long running tasks may go on after SIGTERM."""
    return _worker(app, ARCHIVE_NODE, (URGENT_QUEUE, ARCHIVE_QUEUE), slots=None, soft_shutdown=soft_shutdown)


def control_worker(*, app: str = APP, soft_shutdown: timedelta | None = None) -> list[str]:
    """The worker for sweep, dispatch, watch, reconcile and scrub: one is enough, more are harmless."""
    return _worker(app, CONTROL_NODE, (CONTROL_QUEUE,), slots=CONTROL_SLOTS, soft_shutdown=soft_shutdown)


def beat(*, app: str = APP) -> list[str]:
    """The clock. Exactly one should run; a second one doubles messages, which the ledger makes harmless."""
    # In memory: a PersistentScheduler fires early after a kill, RedBeat gives up in a short outage (celery.md).
    return ["celery", "-A", app, "beat", "--scheduler", "celery.beat:Scheduler", "--loglevel", "INFO"]


def flower(*, address: str, port: int, app: str = APP) -> list[str]:
    """The web page. Its password comes in FLOWER_BASIC_AUTH. It shows, and cannot change, anything: whoever
    reaches it cannot stop a worker."""
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


def valkey(config: Path, *, server: str = "valkey-server") -> list[str]:
    """The embedded broker and ledger; everything else, its password too, is in `config`."""
    return [server, str(config)]


def ping(node: str, *, app: str = APP) -> list[str]:
    """Exits 0 when the worker `node` of this host answers over the broker, which a worker that lost it cannot."""
    return ["celery", "-A", app, "inspect", "ping", "--destination", node, "--timeout", "10"]


def runnable(command: Sequence[str]) -> list[str]:
    """The same command with this very interpreter, so that it works when the virtualenv is not on PATH, and in a folder
    that has Python modules of its own."""
    if command[0] == "celery":
        return [sys.executable, "-P", "-m", "worker.celery_setup.command", *command[1:]]
    return list(command)


def _worker(
    app: str, node: str, queues: Sequence[str], *, slots: int | None, soft_shutdown: timedelta | None
) -> list[str]:
    command = ["celery", "-A", app, "worker", "--hostname", f"{node}@%h", "--queues", ",".join(queues)]
    if slots is not None:
        command += ["--concurrency", str(slots)]
    # Gossip and mingle cost messages at start for each other worker and give us nothing; prefork is the only pool that
    # honours time limits and a cold shutdown (celery.md).
    command += ["--pool", "prefork", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    if soft_shutdown is not None:
        command += ["--", f"worker.soft_shutdown_timeout={soft_shutdown.total_seconds()}"]
    return command

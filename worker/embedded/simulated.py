"""A simulated 100ms beside the supervisor, kept apart from what is real."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from worker.embedded.supervisor import Companion
from worker.embedded.valkey import LOOPBACK
from worker.settings import Settings

# The simulator's own credentials; public, and of no use elsewhere.
SIMULATED_ACCESS_KEY = "simulated-access-key"
SIMULATED_SECRET = "simulated-app-secret-of-nobody-at-all"  # noqa: S105


DESTINATION = Path("archive-simulated")
STATE = Path(".archiver-simulated")


def separated(settings: Settings) -> Settings:
    """Replace destination, state directory and ledger, whatever is configured, so that simulated recordings never mix
    with real ones."""
    return settings.model_copy(
        update={
            "destinations": (str(DESTINATION.resolve()),),
            "state_dir": STATE.resolve(),
            "redis_url": None,
        }
    )


def simulator_of(settings: Settings) -> tuple[list[Companion], dict[str, str]]:
    """The simulator as a companion of the supervisor, and the environment in which every process uses it."""
    port = _free_port()
    state = settings.state_dir / "simulator"
    command = [sys.executable, "-P", "-m", "archiver.simulator", "--port", str(port), "--state", str(state)]
    environment = {
        **os.environ,
        "ARCHIVER_DESTINATIONS": ",".join(settings.destinations),
        "HMS_API_URL": f"http://{LOOPBACK}:{port}/v2",
        "HMS_ACCESS_KEY": SIMULATED_ACCESS_KEY,
        "HMS_SECRET": SIMULATED_SECRET,
        "ARCHIVER_ALLOW_PRIVATE_SOURCES": "true",
    }
    environment.pop("HMS_MANAGEMENT_TOKEN", None)
    # not empty: that would let .env's stand
    environment |= dict.fromkeys(("ARCHIVER_ALERT_URLS", "ARCHIVER_EVENT_URL", "ARCHIVER_HEARTBEAT_URL"), " ")
    return [Companion("simulator", command, f"http://{LOOPBACK}:{port}/simulator")], environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port

"""`python -m tests.worker.supervise STATE_DIR [COMPANION COMMAND...]`: a supervisor in a process of its own, for the
tests that end it by a signal. Prints a line of JSON when all is up. The companion gets a free port as last argument."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from worker.embedded.supervisor import Companion, Supervisor


def companions(command: list[str]) -> list[Companion]:
    if not command:
        return []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [Companion("companion", [*command, str(port)], f"http://127.0.0.1:{port}/")]


if __name__ == "__main__":
    # The signal may come between the line below and the wait.
    with (
        suppress(KeyboardInterrupt),
        Supervisor(
            Path(sys.argv[1]),
            environment=os.environ,
            companions=companions(sys.argv[2:]),
            app="tests.chaos.app",
        ) as supervisor,
    ):
        supervisor.start()
        up = {
            "redis_url": supervisor.redis_url,
            "pids": {each.name: each.pid for each in supervisor.status()},
        }
        print(json.dumps(up), flush=True)  # noqa: T201
        supervisor.wait()

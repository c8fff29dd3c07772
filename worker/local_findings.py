"""What a process finds of its machine and of the ledger's server, for `status` and alerts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from archiver.core.health_rules import Finding, finding
from archiver.ledger.redis.ledger import RedisLedger
from worker.views.text import size

NEARLY_FULL_BYTES = 256 * 2**20
NEARLY_FULL_SHARE = 20
"""Of a small disk, such as a container's memory: a 20th."""


def local_findings(ledger: object, state_dir: Path) -> Iterator[Finding]:
    """Raises LedgerError."""
    if isinstance(ledger, RedisLedger):
        yield from _of_server(ledger)
    yield from _of_disk(state_dir)


def _of_server(ledger: RedisLedger) -> Iterator[Finding]:
    """What it does not tell is no finding: `archiver doctor` warns of that."""
    found = ledger.persistence()
    if found.kept is False:
        yield finding("ledger_not_persistent", f"The ledger's Redis: {found.explanation}.")
    if found.losing is not None:
        yield finding("ledger_may_lose_rows", f"The ledger's Redis may lose rows: {found.losing}.")
    elif found.kept is None and found.sound is False:
        yield finding(
            "ledger_weakly_persistent",
            f"The ledger's Redis: {found.explanation}. Whether it has save points cannot be checked.",
        )
    elif found.kept and found.sound is False:
        yield finding("ledger_weakly_persistent", f"The ledger's Redis: {found.explanation}.")


def _of_disk(folder: Path) -> Iterator[Finding]:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if existing is None:
        return
    disk = os.statvfs(existing)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if total and free < min(NEARLY_FULL_BYTES, total // NEARLY_FULL_SHARE):
        host = socket.gethostname()
        yield finding(
            "disk_nearly_full",
            f"Only {size(free)} of {size(total)} are free for the state directory on {host} ({folder}).",
            cause=host,
        )

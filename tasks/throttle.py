"""Skip the messages of beat that piled up while the control worker was down: one of each kind runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from archiver.ledger.base import Facts

EVERY_HEADER = "every"
"""Header of each message of beat: seconds between two messages of this task."""

SKIPPED: dict[str, Any] = {"skipped": "it ran a moment ago: messages had piled up, or two beats are running"}


def comes_too_soon(task: Any, ledger: Facts) -> bool:
    """Whether a task of this name began less than half of its interval ago, by the ledger's clock. False for a task
    that beat did not send, and for one redelivered because its worker died. Raises LedgerError."""
    request = task.request
    every = (request.headers or {}).get(EVERY_HEADER)
    redelivered = (request.delivery_info or {}).get("redelivered")
    if redelivered or not isinstance(every, int | float) or every <= 0:
        return False
    return ledger.lock(f"begun:{task.name}", timedelta(seconds=every / 2)) is None

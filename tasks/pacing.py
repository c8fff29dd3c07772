"""Beat's messages pile up while the control worker is away. One of each kind is run, the rest is skipped."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from archiver.ledger.base import Facts

EVERY_HEADER = "every"
"""Travels with each message of beat: the seconds between two of its kind."""

SKIPPED: dict[str, Any] = {"skipped": "it ran a moment ago: messages had piled up, or there are two beats"}


def comes_too_soon(task: Any, ledger: Facts) -> bool:
    """Whether a task of this name began less than half of its interval ago, by the ledger's clock. Never for a task
    that was not sent by beat, nor for one that comes back because its worker died. Raises LedgerError."""
    request = task.request
    every = (request.headers or {}).get(EVERY_HEADER)
    came_back = (request.delivery_info or {}).get("redelivered")
    if came_back or not isinstance(every, int | float) or every <= 0:
        return False
    return ledger.lock(f"begun:{task.name}", timedelta(seconds=every / 2)) is None

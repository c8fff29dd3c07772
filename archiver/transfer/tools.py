"""Shared by all copies of an engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from archiver.http.runtime import Runs
from archiver.http.waiting import blocking
from archiver.retry_policy import RetryPolicy
from archiver.transfer.bandwidth import Bandwidth
from archiver.transfer.errors import SourceUnavailable
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.storing import StoreTools
from archiver.transfer.tasks import Slots
from storage_backends.base import ObjectKey

T = TypeVar("T")
InReader = Callable[[Callable[[], T]], Awaitable[T]]
"""Where a body may be read, which blocks: a thread for it, or the one that gave the chunks."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Of one engine."""

    runs: Runs
    stores: StoreTools
    memory: MemoryBudget
    connections: Slots  # requests to sources at once
    policy: RetryPolicy
    part_bytes: int
    on_bytes: Callable[[ObjectKey, int], None]
    should_yield: Callable[[], bool]  # whether to begin no more parts
    bandwidth: Bandwidth

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether the source may answer if it is asked again. One that throttles gets fewer connections."""
        if not isinstance(error, SourceUnavailable):
            return False
        if error.throttled:  # 429 or 503
            self.connections.narrow()
        return True


class Cancelled(Exception):
    """Raised in a copy that is to end at once. `cause`: what is in its future."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


def in_source_thread(call: Callable[[], T]) -> Awaitable[T]:
    """An `InReader`."""
    return blocking(call, "source")

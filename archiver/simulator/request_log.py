"""What was asked and answered: for tests that count requests and bytes. Never a query."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

# Enough for the largest tree twice over; about 300 bytes each.
_KEPT = 200_000
_access = logging.getLogger("simulator.access")


@dataclass(frozen=True, slots=True)
class Request:
    """`bytes` of the body were given to the socket. `seconds` is when it began, on the simulator's monotonic clock;
    `took_seconds` how long the answer took. `fault` is the name of the fault it met, if any."""

    on: str
    method: str
    path: str
    range: str | None
    status: int
    bytes: int
    asset: str | None
    fault: str | None
    seconds: float
    took_seconds: float
    connection: int


class RequestLog:
    def __init__(self) -> None:
        self._requests: deque[Request] = deque(maxlen=_KEPT)
        self._totals: dict[str, dict[str, int]] = {}

    def add(self, request: Request) -> None:
        self._requests.append(request)
        total = self._totals.setdefault(request.on, {"requests": 0, "bytes": 0})
        total["requests"] += 1
        total["bytes"] += request.bytes
        _access.info(
            "%s %s %s %d %d", request.on, request.method, request.path, request.status, request.bytes
        )

    def clear(self) -> None:
        self._requests.clear()
        self._totals.clear()

    def totals(self) -> dict[str, dict[str, int]]:
        """Requests and bytes by origin, of all requests since the last clear."""
        return self._totals

    def rows(self) -> Iterator[dict[str, Any]]:
        """The latest requests, oldest first, in the order in which their answers ended."""
        return map(asdict, self._requests)

    @staticmethod
    def now_seconds() -> float:
        return time.monotonic()

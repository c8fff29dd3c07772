"""Log of requests and responses, for tests that count them. Without queries."""

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
    """`bytes`: of the body, given to the socket. `seconds`: its start, by the simulator's monotonic clock;
    `took_seconds`: duration of the response. `fault`: name of its fault, if any."""

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
        """Return requests and bytes by origin since the last clear."""
        return self._totals

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return the latest requests in the order in which their responses ended."""
        return map(asdict, self._requests)

    @staticmethod
    def now_seconds() -> float:
        return time.monotonic()

"""Random faults from a seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

# All are transient: a retry succeeds, with a new URL if needed.
_ANYWHERE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("too-many-requests", {}),
    ("too-many-requests", {"retry_after": 1}),
    ("server-error", {"status": 500}),
    ("server-error", {"status": 503}),
    ("cut", {}),
    ("cut", {"at_byte": 1}),
    ("reset", {"at_byte": -1}),
    ("html", {}),
    ("empty", {}),
    ("stall", {"seconds": 1.0}),
)
_AT_STORAGE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("short-body", {}),
    ("other-etag", {}),
    ("range-ignored", {}),
    ("early-expiry", {}),
)
_AT_API: tuple[tuple[str, Mapping[str, Any]], ...] = (("invalid-json", {}), ("token-refused", {}))
# Three attempts must succeed, or a test with chaos could fail by bad luck.
_MOST_IN_A_ROW = 2
# Dates and epochs in paths differ between runs; the faults must not.
_WHEN = re.compile(r"\b(\d{8}|\d{10})\b")


class Chaos:
    """Draws by seed, request and number of repetitions, so that the order of requests does not matter."""

    def __init__(self, seed: int | None, rate: float) -> None:
        self.seed = seed if seed is not None else random.SystemRandom().randrange(1 << 32)
        self._rate = rate
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._in_a_row: Counter[tuple[str, ...]] = Counter()

    def stop(self) -> None:
        self._rate = 0.0

    def draw(
        self, on: str, method: str, path: str, range_: str | None
    ) -> tuple[str, Mapping[str, Any]] | None:
        """Return the fault for this request, if any."""
        if self._rate <= 0:
            return None
        request = (on, method, _WHEN.sub("", path), range_ or "")
        self._seen[request] += 1
        dice = random.Random(f"{self.seed}/{'/'.join(request)}/{self._seen[request]}")
        if dice.random() >= self._rate or self._in_a_row[request] >= _MOST_IN_A_ROW:
            self._in_a_row[request] = 0
            return None
        self._in_a_row[request] += 1
        return dice.choice((*_ANYWHERE, *(_AT_API if on == "api" else _AT_STORAGE)))

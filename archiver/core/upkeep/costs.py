"""How many requests it takes to archive assets, and what they cost: the formula of docs/costs.md. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.core.records.verify import STAT_UP_TO

SEGMENT_BYTES = 250 * 1024
"""Size of a segment of an HLS tree, of which only the size of the whole is known in advance."""

PRICES = "S3 Standard, us-east-1, January 2025"
"""An example: each store and region has its own prices, and they change."""
DOLLARS_PER_1000_PUT = 0.005
DOLLARS_PER_1000_GET = 0.0004
DOLLARS_PER_GB_MONTH = 0.023

_GB = 10**9
_LISTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to one destination. `put`: PUT, POST and LIST, which are billed alike; `get`: GET and HEAD."""

    put: int = 0
    get: int = 0

    def __add__(self, other: Requests) -> Requests:
        return Requests(self.put + other.put, self.get + other.get)

    def __mul__(self, times: int) -> Requests:
        return Requests(self.put * times, self.get * times)

    @property
    def dollars(self) -> float:
        """Return what they cost at PRICES."""
        return self.put / 1000 * DOLLARS_PER_1000_PUT + self.get / 1000 * DOLLARS_PER_1000_GET


def requests_of(size_bytes: int, part_bytes: int, *, is_tree: bool) -> Requests:
    """Return the requests for one asset at one S3 destination. `is_tree`: it becomes an HLS tree of segments."""
    objects = max(1, _ceil(size_bytes, SEGMENT_BYTES)) if is_tree else 1
    whole = 1 if is_tree or size_bytes <= part_bytes else _ceil(size_bytes, part_bytes) + 2
    stored = objects if is_tree else whole
    if objects <= STAT_UP_TO:
        return Requests(stored + 1, 4 + objects)
    return Requests(stored + 1 + 2 * _ceil(objects, _LISTED_AT_ONCE), 4)


def dollars_a_month(size_bytes: int) -> float:
    """Return what it costs to store so much, at PRICES."""
    return size_bytes / _GB * DOLLARS_PER_GB_MONTH


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)

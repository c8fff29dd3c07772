"""Choose the parts of an object: fixed sizes, the same at all its stores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from storage_backends.base import StorageBackend

PART_BYTES = 5 * 2**20
"""Default size of one part (ARCHIVER_PART_BYTES): the least that S3 takes. So most parts fit into the memory budget,
and each keeps a connection busy. Larger objects get larger parts (`part_size`)."""

_MOST_PARTS = 9000
"""Of the 10,000 that S3 allows: part sizes are rounded, and nobody should meet the last one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Part n, from 1, covers `[(n - 1) * part_bytes, ...)`."""

    size_bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        return -(-self.size_bytes // self.part_bytes)

    @property
    def numbers(self) -> range:
        return range(1, self.count + 1)

    def start_of(self, number: int) -> int:
        return (number - 1) * self.part_bytes

    def size_of(self, number: int) -> int:
        """0 past the end."""
        return max(0, min(self.part_bytes, self.size_bytes - self.start_of(number)))


def part_size(size_bytes: int | None, at_least_bytes: int, stores: Sequence[StorageBackend]) -> int:
    """The size of parts for an object of `size_bytes` (None: unknown) that suits every one of `stores`."""
    most, wanted, multiple = _MOST_PARTS, at_least_bytes, 1
    for store in stores:
        limits = store.limits
        most = min(most, limits.max_parts)
        wanted = max(wanted, limits.min_part_bytes)
        multiple = math.lcm(multiple, limits.part_multiple_bytes)
    wanted = max(wanted, -(-(size_bytes or 0) // most))
    return -(-wanted // multiple) * multiple


def unsuitable(store: StorageBackend, size_bytes: int | None, part_bytes: int) -> str | None:
    """Return why `store` cannot hold such an object; None when it can. `part_bytes` is 0 for one request."""
    limits = store.limits
    if size_bytes is not None and size_bytes > limits.max_object_bytes:
        return f"its {size_bytes} bytes are more than the {limits.max_object_bytes} that one object may have there"
    if part_bytes > limits.max_part_bytes:
        return f"its parts of {part_bytes} bytes are larger than the {limits.max_part_bytes} allowed there"
    return None

"""Into which parts an object is cut: fixed slots, the same at all its stores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from storage_backends.base import StorageBackend

_MOST_PARTS = (
    9000  # of the 10,000 that S3 allows; part sizes are rounded, and nobody should meet the last one
)


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
    limits = [store.limits for store in stores]
    most = min([_MOST_PARTS, *(limit.max_parts for limit in limits)])
    wanted = max([at_least_bytes, *(limit.min_part_bytes for limit in limits), -(-(size_bytes or 0) // most)])
    multiple = math.lcm(*(limit.part_multiple_bytes for limit in limits))
    return -(-wanted // multiple) * multiple


def unsuitable(store: StorageBackend, size_bytes: int | None, part_bytes: int) -> str | None:
    """Why `store` cannot hold such an object; None when it can. `part_bytes` is 0 for one request."""
    limits = store.limits
    if size_bytes is not None and size_bytes > limits.max_object_bytes:
        return f"its {size_bytes} bytes are more than the {limits.max_object_bytes} that one object may have there"
    if part_bytes > limits.max_part_bytes:
        return f"its parts of {part_bytes} bytes are larger than the {limits.max_part_bytes} allowed there"
    return None

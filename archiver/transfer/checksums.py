"""CRC32C, the one checksum: of bytes, of a stream, of an object from its parts.

The arithmetic is `storage_backends.crc32c`, which the stores need as well.
"""

from __future__ import annotations

from collections.abc import Callable

from google_crc32c import extend

from storage_backends.base import Buffer
from storage_backends.crc32c import combine
from storage_backends.crc32c import crc32c_of as crc32c

__all__ = ["Crc32c", "combine", "crc32c"]


class Crc32c:
    """The CRC32C of what was given to `update` so far, in order."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: Buffer) -> None:
        self.value = crc32c(data, self.value)

    def along(self, write: Callable[[bytes], object]) -> Callable[[bytes], None]:
        """`write`, and `update`."""

        def both(data: bytes) -> None:
            write(data)
            self.value = extend(self.value, data)

        return both

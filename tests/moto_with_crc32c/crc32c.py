"""On the path of the moto server only: without a module of this name what it calls CRC32C is CRC32 (storage.md)."""

import google_crc32c


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(bytes(data)))

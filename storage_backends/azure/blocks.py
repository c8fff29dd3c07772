"""Ids of blocks: 16 bytes that identify the upload, the part's number, and the CRC32C of its bytes, in base64.

The service keeps the ids of the blocks that a blob consists of. So the CRC32C of a committed blob follows from its
block list, without reading it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from storage_backends import crc32c as crc
from storage_backends.base import Part

_BYTES = 24


def block_id(identity: str, number: int, crc32c: int) -> str:
    """`identity`: 32 hexadecimal digits. All ids have one length, as the service demands."""
    raw = bytes.fromhex(identity) + number.to_bytes(4, "big") + crc32c.to_bytes(4, "big")
    return base64.b64encode(raw).decode()


def crc32c_of_blocks(identity: str, blocks: Sequence[Any], size_bytes: int) -> int | None:
    """Return the CRC32C of a blob of these committed blocks; None when they are not those of the upload, in order."""
    parts: list[Part] = []
    for place, block in enumerate(blocks, start=1):
        try:
            raw = base64.b64decode(block.id, validate=True)
        except (binascii.Error, ValueError):
            return None
        number, crc32c = int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:], "big")
        if len(raw) != _BYTES or raw[:16].hex() != identity or number != place:
            return None
        parts.append(Part(number, block.size, crc32c, ""))
    return crc.of_parts(parts) if parts and sum(part.size_bytes for part in parts) == size_bytes else None

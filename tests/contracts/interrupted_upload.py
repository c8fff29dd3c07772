"""A worker to be killed: it begins an upload, sends three parts, records what it has done, and waits.

python -m tests.contracts.interrupted_upload URL KEY SIZE_BYTES PART_BYTES
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from functools import lru_cache

from storage_backends.base import ObjectSpec, Part, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.registry import open_destination

PARTS = 3


@lru_cache(maxsize=8)
def content(size_bytes: int) -> bytes:
    """The same incompressible bytes in every process."""
    return random.Random(size_bytes).randbytes(size_bytes)


def read_journal(lines: Iterable[str]) -> tuple[str, dict[int, Part]]:
    """Return what the worker recorded: the token, and the parts. Returns after the third."""
    source = iter(lines)
    token: str = json.loads(next(source))
    parts: dict[int, Part] = {}
    for _ in range(PARTS):
        number, size_bytes, crc32c, tag = json.loads(next(source))
        parts[number] = Part(number, size_bytes, crc32c, tag)
    return token, parts


def main(url: str, key: str, size_bytes: int, part_bytes: int) -> None:
    data = content(size_bytes)
    store = open_destination(url)
    upload = store.begin(ObjectSpec(object_key(key), "video/mp4", size_bytes, part_bytes, {"room": "r1"}))
    _write(upload.token)
    for number in range(1, PARTS + 1):
        piece = data[(number - 1) * part_bytes : number * part_bytes]
        part = upload.put_part(number, piece, crc32c_of(piece))
        _write([part.number, part.size_bytes, part.crc32c, part.tag])
    sys.stdin.read()  # until it is killed


def _write(entry: object) -> None:
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

"""Files of objects: written, read back, described."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from storage_backends import crc32c as crc
from storage_backends.base import Buffer, ObjectInfo, ObjectKey
from storage_backends.errors import (
    ChecksumRejected,
)

_READ_BACK_BYTES = 2**20  # for each concurrent call
_CONTENT_TYPES = {  # a directory keeps none: those of recordings, the same on every machine
    ".aac": "audio/aac",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4s": "video/iso.segment",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".srt": "application/x-subrip",
    ".ts": "video/mp2t",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".webm": "video/webm",
    ".zip": "application/zip",
}


@contextlib.contextmanager
def opened_file(name: str, flags: int, folder: int) -> Iterator[int]:
    file = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        yield file
    finally:
        os.close(file)


def write_all(file: int, data: Buffer, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view = view[written:]
        offset += written


def check_file(file: int, size_bytes: int, crc32c: int, doing: object) -> None:
    """Read the file back and raise ChecksumRejected unless it has this size and CRC32C."""
    actual, offset = 0, 0
    piece_bytes = min(
        _READ_BACK_BYTES, size_bytes + 1
    )  # a whole buffer for a few KiB costs more than reading them
    while piece := os.pread(file, piece_bytes, offset):
        actual = crc.crc32c_of(piece, actual)
        offset += len(piece)
    if (offset, actual) != (size_bytes, crc32c):
        raise ChecksumRejected(
            f"{doing}: the file holds {offset} bytes with CRC32C {actual:08x}, not {size_bytes} with {crc32c:08x}"
        )


def described(key: ObjectKey, status: os.stat_result) -> ObjectInfo:
    suffix = os.path.splitext(key)[1].lower()  # noqa: PTH122 - a tenth of a Path's cost, and asked of each object
    return ObjectInfo(
        key,
        status.st_size,
        None,
        f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}",
        _CONTENT_TYPES.get(suffix),
        datetime.fromtimestamp(status.st_mtime, UTC),
    )

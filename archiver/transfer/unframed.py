"""Bodies that end with their connection, without a length: a cut looks like the end. Such a body is whole only when a
second read is identical."""

from __future__ import annotations

from archiver.transfer.base import Source, SourceInfo
from archiver.transfer.bodies import measure
from archiver.transfer.errors import SourceUnavailable
from archiver.transfer.tools import in_source_thread


class SecondRead:
    """Of one copy, which may try several times."""

    def __init__(self, source: Source, first_bytes: int) -> None:
        self._source = source
        self._first_bytes = first_bytes
        self._longest_bytes = 0  # that the body was seen to have

    async def confirm(self, info: SourceInfo, size_bytes: int, crc: int) -> None:
        """Read the body once more and keep nothing of it. Raises SourceUnavailable when it is another one, and always
        when a longer one was seen."""
        if self._longest_bytes <= size_bytes:
            found_bytes, same = await in_source_thread(lambda: self._read(info, crc))
            self._longest_bytes = max(self._longest_bytes, size_bytes, found_bytes)
            if same and found_bytes == size_bytes:
                return
        raise SourceUnavailable(
            f"{self._source.name} gives no length, and what was read of it differs: {size_bytes} bytes, then others"
        )

    def _read(self, info: SourceInfo, crc: int) -> tuple[int, bool]:
        """Its length, and whether it is the same. Blocks."""
        opened, reader = self._source.open(self._first_bytes)
        if opened.ranges and opened.size_bytes is not None and opened.size_bytes > self._first_bytes:
            reader.close()  # this time the length is told, and that is enough
            return opened.size_bytes, opened.etag == info.etag
        found_bytes, found_crc = measure(reader)
        return found_bytes, found_crc == crc

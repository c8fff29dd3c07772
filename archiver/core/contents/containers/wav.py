"""Check that a WAV file (RIFF, RF64, BW64: ITU-R BS.2088) is whole by its chunks.

The chunks must reach the end of the RIFF chunk, which must not be longer than the file. A chunk of size 0 or 0xFFFFFFFF
(the file was streamed) reaches to the end of the file. What follows the RIFF chunk is ignored, as by players.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from archiver.core.contents.containers.walk import TO_END, Broken

_CHUNK = struct.Struct("<4sI")
_LARGE_SIZES = struct.Struct("<QQ")  # of the RIFF chunk and of `data`, in `ds64`
_STREAMED = (0, 0xFFFFFFFF)


def is_streamed(start: bytes) -> bool:
    """Tell whether the file does not say how long it is."""
    return start[:4] == b"RIFF" and _CHUNK.unpack_from(start)[1] in _STREAMED


class Wav:
    """`containers.walk.Format` of WAV."""

    header_bytes = 8 + _LARGE_SIZES.size

    def __init__(self) -> None:
        self._riff_end = TO_END
        self._large_data: int | None = None
        self._data_from: int | None = None
        self._data_end = 0

    @property
    def is_open_ended(self) -> bool:
        return False

    @property
    def scan_bytes(self) -> int:
        return 0

    def walk(self, data: memoryview, base: int, at: int) -> int:
        end = base + len(data)
        while at < self._riff_end and end - at >= (8 if at else 12):
            name, size = _CHUNK.unpack_from(data, at - base)
            if at == 0:
                if name not in (b"RIFF", b"RF64", b"BW64") or bytes(data[8:12]) != b"WAVE":
                    raise Broken("it does not begin as a WAV file")
                self._riff_end = TO_END if size in _STREAMED else 8 + size
                at = 12
                continue
            content = at + 8
            if name == b"ds64":
                if end - at < self.header_bytes:
                    return at
                riff_size, self._large_data = _LARGE_SIZES.unpack_from(data, content - base)
                self._riff_end = 8 + riff_size if riff_size else TO_END
            at = self._data(content, size) if name == b"data" else content + size + size % 2
        return at if at < self._riff_end else TO_END

    def _data(self, content: int, size: int) -> int:
        self._data_from = content
        if size == 0xFFFFFFFF and self._large_data:
            size = self._large_data
        if size == 0xFFFFFFFF or (size == 0 and self._riff_end == TO_END):
            self._data_end = 0
            return TO_END
        self._data_end = content + size
        return content + size + size % 2

    def finish(self, at: int, size_bytes: int, rest: bytes) -> None:
        allowed = size_bytes + (self._data_end == size_bytes)  # the padding of the last chunk may be missing
        ends = max(each for each in (self._data_end, self._riff_end, at) if each != TO_END)
        if ends > allowed:
            raise Broken(f"its chunks end at byte {ends}, and the file at byte {size_bytes}")
        if rest:
            raise Broken(f"its last chunk begins at byte {at} and is cut at byte {size_bytes}")
        if self._data_from is None or self._data_from >= size_bytes or self._data_from == self._data_end:
            raise Broken("it has no sound: no data chunk, or an empty one")

    # -- parts out of order ----------------------------------------------------------------------------------
    def island(self) -> Wav:
        return Wav()

    def join(self, island: Wav) -> None:
        """Do nothing: chunks are few, and bytes not shown are read again."""

    def entries(self, data: memoryview) -> Iterator[Sequence[int]]:  # noqa: ARG002 - of Format
        return iter(())

"""A request body made of several buffers in memory: a part, and what surrounds it."""

from __future__ import annotations

from typing import Any

import pycurl


class Pieces:
    """Read by libcurl, from the beginning once more where it sends the request again."""

    __slots__ = ("_pieces", "_position")

    def __init__(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        self._pieces = pieces
        self._position = 0

    def attach(self, easy: Any) -> None:
        """Have `easy` send them as the body of a request, whatever its method."""
        easy.setopt(pycurl.UPLOAD, 1)
        easy.setopt(pycurl.INFILESIZE_LARGE, sum(map(len, self._pieces)))
        easy.setopt(pycurl.READFUNCTION, self._read)
        easy.setopt(pycurl.SEEKFUNCTION, self._seek)

    def _read(self, most_bytes: int) -> bytes:
        """The next bytes of one piece; none at the end. A piece of bytes that fits is not copied."""
        start = self._position
        for piece in self._pieces:
            if start < len(piece):
                part = piece[start : start + most_bytes]
                self._position += len(part)
                return bytes(part)
            start -= len(piece)
        return b""

    def _seek(self, offset: int, _origin: int) -> int:
        """libcurl seeks from the beginning alone."""
        self._position = offset
        return int(pycurl.SEEKFUNC_OK)

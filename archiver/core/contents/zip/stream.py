"""Inflate the members of a zip in one pass, checking each against its size and CRC-32."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

from archiver.core.contents.read_ahead import WINDOWS, RangeReader, ReadAhead
from archiver.core.contents.zip.directory import STORED, Member, data_offset, local_header_bytes
from archiver.core.errors import BadContents
from archiver.transfer.errors import UnexpectedContent
from archiver.transfer.memory import MemoryBudget

_MIB = 1024 * 1024
_START_BYTES = 4096  # of a member, to tell its kind
_EXTRA_BYTES = 1024  # read ahead for the extra fields of a local header


class MemberBroken(UnexpectedContent):
    """One member is damaged in the zip: its size, CRC-32 or compressed data is wrong. Others are not affected."""


class ZipPass:
    """One pass over the zip, in order, without what is skipped. Use as a context manager.

    A broken member does not end it; an error of the source (`RangeReader.read`) does.
    """

    def __init__(
        self, reader: RangeReader, stop: int, window_bytes: int, memory: MemoryBudget | None = None
    ) -> None:
        self._reader = reader
        self._stop = stop
        self._window_bytes = window_bytes
        self._memory = memory
        self._open = ExitStack()
        self._ahead: ReadAhead | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def chunks(self, member: Member) -> Iterator[bytes | memoryview]:
        """Yield the inflated bytes of `member`, which must not be before the last one read. Raises MemberBroken."""
        # within this distance the bytes between are in flight already
        if self._ahead is None or member.offset - self._ahead.position > WINDOWS * self._window_bytes:
            self._open.close()
            self._ahead = self._open.enter_context(
                ReadAhead(
                    self._reader,
                    member.offset,
                    self._stop,
                    window_bytes=self._window_bytes,
                    memory=self._memory,
                )
            )
        self._ahead.skip_to(member.offset)
        header = self._ahead.read(local_header_bytes(member))
        self._ahead.skip_to(_data_offset(member, header))
        yield from _checked(member, self._ahead.pieces(member.packed_bytes))

    def whole(self, member: Member) -> bytes:
        """Return a small member, out of order. Raises MemberBroken."""
        packed = self._data(member, member.packed_bytes)
        pieces = (packed[at : at + _MIB] for at in range(0, len(packed), _MIB))
        return b"".join(_checked(member, pieces))

    def start(self, member: Member) -> bytes:
        """Return the first 4 KiB or less of a member, out of order and unchecked. Raises MemberBroken."""
        data = self._data(member, min(member.packed_bytes, _START_BYTES))
        if member.method == STORED:
            return bytes(data)
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _START_BYTES)
        except zlib.error as error:
            raise MemberBroken(f"zip member {member.name!r} cannot be inflated: {error}") from None

    def _data(self, member: Member, length: int) -> memoryview:
        """Return the first `length` compressed bytes."""
        header_bytes = local_header_bytes(member)
        room = member.end_bound - member.offset
        seen = self._reader.read(member.offset, min(room, header_bytes + _EXTRA_BYTES + length))
        at = _data_offset(member, bytes(seen[:header_bytes]))
        start = at - member.offset
        if start + length <= len(seen):
            return seen[start : start + length]
        return self._reader.read(at, length)


class MemberChunks:
    """The inflated bytes of one member, to be read once or skipped. Raises MemberBroken, and what the source raises."""

    def __init__(self, zip_pass: ZipPass, member: Member) -> None:
        self.broken: MemberBroken | None = None
        self._pass = zip_pass
        self._member = member
        self._finished = False
        self._source_failed: Exception | None = None
        self._chunks = self._read()

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return self._chunks

    def skip(self) -> None:
        """Skip the member instead of reading it; nothing is fetched."""
        self._finished = True

    def finish(self) -> None:
        """Check that the member was read or skipped before the next item. Raises RuntimeError if not; raises an error
        of the source again, since it ends the pass."""
        if self._source_failed is not None:
            raise self._source_failed
        if not self._finished:
            raise RuntimeError(
                f"zip member {self._member.name!r} was not read to its end before the next one"
            )

    def _read(self) -> Iterator[bytes | memoryview]:
        try:
            yield from self._pass.chunks(self._member)
        except MemberBroken as error:
            self.broken = error
            self._finished = True
            raise
        except Exception as error:
            self._source_failed = error
            raise
        self._finished = True


def _data_offset(member: Member, header: bytes) -> int:
    try:
        return data_offset(member, header)
    except BadContents as error:
        raise MemberBroken(f"zip member {member.name!r} is broken: {error}") from None


def _checked(member: Member, packed: Iterator[memoryview]) -> Iterator[bytes | memoryview]:
    crc = size = 0
    for chunk in packed if member.method == STORED else _inflated(packed, member.name):
        size += len(chunk)
        if size > member.size_bytes:
            raise MemberBroken(
                f"zip member {member.name!r} is larger than the {member.size_bytes} bytes it says"
            )
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size != member.size_bytes or crc != member.crc32:
        raise MemberBroken(
            f"zip member {member.name!r} is damaged: {size} bytes with CRC-32 {crc:08x}, the zip says"
            f" {member.size_bytes} with {member.crc32:08x}"
        )


def _inflated(packed: Iterator[memoryview], name: str) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in packed:
            chunk = inflate.decompress(piece, _MIB)
            while chunk:
                yield chunk
                chunk = inflate.decompress(inflate.unconsumed_tail, _MIB)
    except zlib.error as error:
        raise MemberBroken(f"zip member {name!r} cannot be inflated: {error}") from None
    if not inflate.eof or inflate.unused_data:
        raise MemberBroken(f"zip member {name!r} does not end where the zip says")

"""Check that a WebM or Matroska file is whole by its EBML elements (RFC 8794, RFC 9559).

The last element must end exactly at the end of the file, and there must be a cluster with a block. Segments and
clusters of unknown size, as live recorders write them, are walked block by block; if both are of unknown size, a cut
exactly between two blocks cannot be detected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from archiver.core.contents.containers.walk import TO_END, Broken

_EBML, _SEGMENT, _CLUSTER, _VOID = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xEC
_SIMPLE_BLOCK, _BLOCK_GROUP = 0xA3, 0xA0
_BLOCKS = frozenset({_SIMPLE_BLOCK, _BLOCK_GROUP, 0xAF})  # AF: EncryptedBlock, long deprecated
_OF_A_CLUSTER = _BLOCKS | {0xE7, 0xAB, 0xA7, 0x5854}  # Timestamp, PrevSize, Position, SilentTracks
_OF_A_SEGMENT = frozenset(
    {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367}
)  # SeekHead, Info, Tracks, Cues, Chapters, Attachments, Tags
_ANYWHERE = frozenset({_VOID, 0xBF})  # BF: CRC-32

_CLUSTER_ID = re.compile(rb"\x1f\x43\xb6\x75")
_BLOCK_ID = re.compile(rb"[\xa3\xa0]")
_BEFORE_BYTES = 4 * 1024 * 1024
_ALL = 1 << 40

# bytes of a variable-size integer by its first byte (RFC 8794, section 4); 0: invalid
_LENGTHS = bytes(9 - byte.bit_length() if byte else 0 for byte in range(256))


class Ebml:
    """`containers.walk.Format` of EBML."""

    header_bytes = 12

    def __init__(self) -> None:
        self._is_island = False
        self._segment_end: int | None = None  # TO_END: unknown; None: not in a segment
        self._cluster_end: int | None = None  # while its first block is searched
        self._has_segment = False
        self._has_block = False

    @property
    def is_open_ended(self) -> bool:
        return self._segment_end == TO_END

    @property
    def scan_bytes(self) -> int:
        return _ALL

    def walk(self, data: memoryview, base: int, at: int) -> int:
        end = base + len(data)
        while True:
            if self._cluster_end is not None and at >= self._cluster_end:
                if at > self._cluster_end:
                    raise Broken("an element is longer than the cluster that it is in")
                self._cluster_end = None
            if self._segment_end is not None and at >= self._segment_end:
                if at > self._segment_end:
                    raise Broken("an element is longer than the segment that it is in")
                self._segment_end = None
            if at >= end:
                return at
            header = _header(data, at - base)
            if header is None:
                return at
            kind, size, content = header
            at = self._element(kind, at, base + content, size)

    def _element(self, kind: int, at: int, content: int, size: int | None) -> int:
        """Handle an element; return where the walk continues."""
        if kind in _BLOCKS and size and self._segment_end is not None:
            self._has_block = True
            if self._cluster_end is not None:
                after, self._cluster_end = self._cluster_end, None
                if content + size > after:
                    raise Broken("a block is longer than the cluster that it is in")
                return after
        elif kind == _CLUSTER and self._segment_end is not None:
            if size is None:
                return content
            if not self._has_block:
                self._cluster_end = content + size
                return content
        elif kind == _SEGMENT and self._segment_end is None:
            self._has_segment = True
            self._segment_end = TO_END if size is None else content + size
            return content
        elif not self._may_be_here(kind):
            raise Broken(f"there is no element of such a file at byte {at}")
        if size is None:
            raise Broken(f"the element at byte {at} has no size")
        return content + size

    def _may_be_here(self, kind: int) -> bool:
        if kind in _ANYWHERE:
            return True
        if self._segment_end is None:
            return kind == _EBML  # at the start; another one begins a second file behind the first
        known = kind in _OF_A_CLUSTER or kind in _OF_A_SEGMENT
        return known or (not self._is_island and kind not in (_EBML, _SEGMENT))

    def finish(self, at: int, size_bytes: int, rest: bytes) -> None:
        ends = self._segment_end if self._segment_end not in (None, TO_END) else at
        if rest or ends != size_bytes or at != size_bytes:
            raise Broken(
                f"its last element begins or ends at byte {max(ends or 0, at)}, the file at {size_bytes}"
            )
        if not self._has_segment:
            raise Broken("it has no segment")
        if not self._has_block:
            raise Broken("it has no media: no cluster with a block")

    # -- parts out of order ----------------------------------------------------------------------------------
    def island(self) -> Ebml:
        made = Ebml()
        made._is_island = True
        made._segment_end = self._segment_end if self._segment_end is not None else TO_END
        return made

    def join(self, island: Ebml) -> None:
        self._cluster_end = island._cluster_end
        self._has_block |= island._has_block
        if island._segment_end is None:
            self._segment_end = None

    def entries(self, data: memoryview) -> Iterator[Sequence[int]]:
        return (_leading_to(found.start(), data) for found in _CLUSTER_ID.finditer(data))


def _leading_to(cluster: int, data: memoryview) -> Sequence[int]:
    """Return the offsets of a cluster and of the blocks before it, if clusters are of unknown size."""
    header = _header(data, cluster)
    leads = {cluster}
    if header is not None and header[1] is None and cluster <= _BEFORE_BYTES:
        for found in reversed(list(_BLOCK_ID.finditer(data[:cluster]))):
            if _block_end(data, found.start()) in leads:
                leads.add(found.start())
    return sorted(leads)


def _block_end(data: memoryview, at: int) -> int | None:
    """Return where the block at `at` ends; None if there is none."""
    try:
        header = _header(data, at)
    except Broken:
        return None
    return header[2] + header[1] if header and header[1] is not None else None


def _header(data: memoryview, at: int) -> tuple[int, int | None, int] | None:
    """Read the element header at `at` (RFC 8794, section 4): ID, size (None: unknown), start of the content; None when
    `data` ends before."""
    length = _LENGTHS[data[at]]
    if not 1 <= length <= 4:
        raise Broken("something that is no element stands in it")
    size_at = at + length
    if size_at >= len(data):
        return None
    first = data[size_at]
    size_length = _LENGTHS[first]
    if not size_length:
        raise Broken("something that is no element stands in it")
    content = size_at + size_length
    if content > len(data):
        return None
    size = int.from_bytes(data[size_at:content], "big") & ((1 << (7 * size_length)) - 1)
    known = size != (1 << (7 * size_length)) - 1
    return int.from_bytes(data[at:size_at], "big"), size if known else None, content

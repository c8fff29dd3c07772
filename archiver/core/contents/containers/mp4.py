"""Check that an MP4 file (mov, m4a, 3gp) is whole by its boxes (ISO/IEC 14496-12, section 4.2).

The top-level boxes must end exactly at the end of the file, and there must be a `moov` with a track and an `mdat`
with content. In a fragmented file every `moof` must be followed by its `mdat`.

Tolerated, as by players: unknown boxes; a last box of size 0, which reaches to the end of the file; and after the last
box of a file that is not fragmented and complete, fewer than 8 bytes or zeros. In a fragmented file zeros may stand for
lost fragments, so nothing may follow its last box.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from archiver.core.contents.containers.walk import TO_END, Broken

_HEADER = struct.Struct(">I4s")
_LARGE_SIZE = struct.Struct(">Q")
_MOOF = re.compile(rb"moof\0\0\0\x10mfhd")  # `mfhd` is the first box of a fragment
_LEADS_A_FRAGMENT = re.compile(rb"styp|sidx|ssix|prft|emsg|uuid|free|skip|mdat")
_BEFORE_BYTES = 64 * 1024
_ALL = 1 << 40
_SCAN_BYTES = 2 * 1024 * 1024  # of a part, while it is not known whether the file is fragmented


class Mp4:
    """`containers.walk.Format` of MP4."""

    header_bytes = 16

    def __init__(self) -> None:
        self._is_island = False
        self._moov_end: int | None = None  # while the walk is in it
        self._has_moov = False
        self._has_track = False
        self._media_from: int | None = None  # content of an `mdat` of size 0: must begin before the file ends
        self._has_media = False
        self._is_fragmented = False
        self._awaits_mdat = False  # the last relevant box was a `moof`

    @property
    def is_open_ended(self) -> bool:
        return self._moov_end == TO_END

    @property
    def scan_bytes(self) -> int:
        if self._is_fragmented:
            return _ALL
        return 0 if self._has_moov or self._has_media else _SCAN_BYTES

    def walk(self, data: memoryview, base: int, at: int) -> int:
        end = base + len(data)
        while True:
            if self._moov_end is not None and at >= self._moov_end - 7:  # fewer than 8 bytes are no box
                if at > self._moov_end:
                    raise Broken("a box is longer than the moov box that it is in")
                at, self._moov_end = self._moov_end, None
            if end - at < 8:
                return at
            size, kind = _HEADER.unpack_from(data, at - base)
            content = at + 8
            if size == 1:
                if end - at < 16:
                    return at
                (size,) = _LARGE_SIZE.unpack_from(data, at - base + 8)
                content = at + 16
            if size == 0:
                at = self._last_box(kind, content)
            elif size < content - at:
                raise Broken(f"there is no box at byte {at}")
            elif kind == b"moov" and self._moov_end is None:
                self._has_moov, self._moov_end = True, at + size
                at = content
            else:
                at += size
                self._found(kind, at > content)

    def _found(self, kind: bytes, has_content: bool) -> None:
        if self._moov_end is not None:
            # cmov: a compressed moov, of QuickTime
            self._has_track |= kind in (b"trak", b"cmov") and has_content
            self._is_fragmented |= kind == b"mvex"
        elif kind == b"mdat":
            self._has_media |= has_content
            self._awaits_mdat = False
        elif kind == b"moof":
            self._is_fragmented = self._awaits_mdat = True

    def _last_box(self, kind: bytes, content: int) -> int:
        """Handle a box of size 0; return where the walk continues."""
        if self._moov_end is not None:
            self._found(kind, has_content=True)
            return self._moov_end
        if kind == b"moov":
            self._has_moov, self._moov_end = True, TO_END
            return content
        if kind == b"mdat":
            self._media_from, self._awaits_mdat = content, False
        elif kind == b"\0\0\0\0" and (self._is_island or self._is_fragmented or not self._is_complete):
            raise Broken(f"zeros begin at byte {content - 8}, before its content ends")
        elif kind == b"moof":
            self._awaits_mdat = True
        return TO_END

    @property
    def _is_complete(self) -> bool:
        return self._has_moov and self._has_track and self._has_media

    def finish(self, at: int, size_bytes: int, rest: bytes) -> None:
        if self._media_from is not None:
            self._has_media |= self._media_from < size_bytes
        ends_in_moov = self._moov_end is not None and self._moov_end != TO_END
        if ends_in_moov or TO_END > at > size_bytes:
            raise Broken(
                f"its last box ends at byte {self._moov_end or at}, and the file at byte {size_bytes}"
            )
        if not self._has_moov:
            raise Broken("it has no moov box, without which nothing can play it")
        if not self._has_track:
            raise Broken("its moov box has no track")
        if not self._has_media:
            raise Broken("it has no media: no mdat box, or an empty one")
        if self._awaits_mdat:
            raise Broken("its last fragment has no mdat box")
        if rest and (self._is_fragmented or len(rest) >= 8):
            raise Broken(f"its last box begins at byte {at} and is cut at byte {size_bytes}")

    # -- parts out of order ----------------------------------------------------------------------------------
    def island(self) -> Mp4:
        made = Mp4()
        made._is_island = True
        return made

    def join(self, island: Mp4) -> None:
        self._moov_end = island._moov_end
        self._has_moov |= island._has_moov
        self._has_track |= island._has_track
        self._has_media |= island._has_media
        self._media_from = island._media_from or self._media_from
        self._is_fragmented |= island._is_fragmented
        self._awaits_mdat = island._awaits_mdat

    def entries(self, data: memoryview) -> Iterator[Sequence[int]]:
        return (_leading_to(found.start() - 4, data) for found in _MOOF.finditer(data) if found.start() >= 4)


def _leading_to(moof: int, data: memoryview) -> Sequence[int]:
    """Return the offsets of a `moof` and of the small boxes before it, as in CMAF."""
    leads = {moof}
    for found in reversed(list(_LEADS_A_FRAGMENT.finditer(data[:moof], max(moof - _BEFORE_BYTES, 0)))):
        start = found.start() - 4
        if start >= 0 and start + _HEADER.unpack_from(data, start)[0] in leads:
            leads.add(start)
    return sorted(leads)

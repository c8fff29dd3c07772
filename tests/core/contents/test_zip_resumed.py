"""A zip whose first members are stored already: what of it is read again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import cast

import pytest

from archiver.core.contents.zip.stream import MemberChunks
from archiver.core.contents.zip.zipped import ZipContents
from archiver.transfer.base import SourceInfo
from tests.core.contents.zips import DEFLATED, STORED, InMemory, zipped

SEGMENT = 1000
WINDOW = 500  # of which eight are read ahead
LAYERS, SEGMENTS = 2, 20


def tree() -> dict[str, bytes]:
    """Two layers, each with its playlist behind its segments; the master first."""
    chaos = random.Random(5)
    files = {
        "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0/s.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n1/s.m3u8\n"
    }
    for layer in range(LAYERS):
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2"]
        for number in range(SEGMENTS):
            files[f"{layer}/{number}.ts"] = b"G" + chaos.randbytes(SEGMENT - 1)
            lines += ["#EXTINF:2,", f"{number}.ts"]
        files[f"{layer}/s.m3u8"] = "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()
    return files


FILES = tree()


class Counting(InMemory):
    """Counts the bytes of its members; the directory at the end is looked at apart."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.read: list[range] = []

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        self.read.append(range(start, start + len(into)))
        super().read_range(start, into, info)

    @property
    def read_bytes(self) -> int:
        return sum(len(one) for one in self.read)


def unpack(source: Counting, stored: set[str]) -> dict[str, bytes]:
    """Read as the copier does: skip what is stored, read the rest."""
    contents = ZipContents(source, source.info, name="x.zip", version="v", window_bytes=WINDOW)
    source.read.clear()
    made: dict[str, bytes] = {}
    for item in contents.items():
        if item.path in stored:
            cast(MemberChunks, item.chunks).skip()
        elif item.chunks is not None:
            made[item.path] = b"".join(bytes(chunk) for chunk in item.chunks)
        else:
            assert item.data is not None
            made[item.path] = item.data
    return made


def media(first: int, last: int) -> set[str]:
    names = [name for name in FILES if name.endswith(".ts")]
    return set(names[first:last])


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("done", range(0, LAYERS * SEGMENTS + 1, 4))
def test_members_that_are_stored_are_not_read_again(done: int, method: int) -> None:
    stored = media(0, done)
    source = Counting(zipped(FILES, method))

    made = unpack(source, stored)

    assert made == {name: body for name, body in FILES.items() if name not in stored}
    assert source.read_bytes <= len(source.data) - done * SEGMENT


def test_members_skipped_in_the_middle_are_not_read_beyond_what_was_on_its_way() -> None:
    stored = media(10, 35)
    source = Counting(zipped(FILES, STORED))

    made = unpack(source, stored)

    assert made == {name: body for name, body in FILES.items() if name not in stored}
    assert source.read_bytes <= len(source.data) - len(stored) * SEGMENT + 8 * WINDOW + SEGMENT


def test_a_single_member_skipped_does_not_break_the_stream() -> None:
    stored = media(7, 8)
    source = Counting(zipped(FILES, STORED))

    unpack(source, stored)

    starts = sorted(one.start for one in source.read)
    assert len(starts) == len(set(starts))
    assert source.read_bytes <= len(source.data)


def test_of_a_zip_that_is_all_there_only_the_playlists_are_read() -> None:
    source = Counting(zipped(FILES, STORED))

    made = unpack(source, media(0, LAYERS * SEGMENTS))

    assert set(made) == {"master.m3u8", "0/s.m3u8", "1/s.m3u8"}
    assert source.read_bytes < 3 * SEGMENT


def test_a_member_half_read_is_neither_read_nor_skipped() -> None:
    source = Counting(zipped(FILES, STORED))
    items = ZipContents(source, source.info, name="x.zip", version="v", window_bytes=WINDOW).items()
    chunks = next(items).chunks
    assert chunks is not None
    next(cast(Iterator[bytes], iter(chunks)))

    with pytest.raises(RuntimeError, match=r"0/0\.ts"):
        next(items)

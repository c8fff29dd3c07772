"""Made bytes, read in any pieces."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.simulator.recordings import zips
from archiver.simulator.recordings.content import MP4_HEAD, Content, Held, Joined, Synthetic, digests
from archiver.simulator.recordings.trees import SyntheticTree
from archiver.simulator.recordings.zips import streamed_zip, zipped

SIZE = 600_001  # a little over two blocks
SYNTHETIC = (
    Synthetic(SIZE, "seed", head=MP4_HEAD),
    Synthetic(SIZE, "seed", transport_stream=True),
    Held(bytes(range(256)) * 2344),
    Joined([Held(b"a" * 1000), Synthetic(300_000, "x"), Held(b""), Held(b"b" * 299_001)], "etag"),
)


def _all(content: Content) -> bytes:
    return b"".join(content.read(0, content.size_bytes))


@pytest.mark.parametrize("content", SYNTHETIC, ids=lambda content: type(content).__name__)
@given(ends=st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)))
def test_any_part_is_the_same_bytes_as_in_the_whole(content: Content, ends: tuple[int, int]) -> None:
    start, stop = sorted(min(end, content.size_bytes) for end in ends)

    assert b"".join(content.read(start, stop)) == _all(content)[start:stop]


@pytest.mark.parametrize("content", SYNTHETIC, ids=lambda content: type(content).__name__)
def test_it_is_as_long_as_it_says(content: Content) -> None:
    assert len(_all(content)) == content.size_bytes


def test_digests_are_those_of_the_bytes() -> None:
    content = Synthetic(SIZE, "seed")
    data = _all(content)

    reported = digests(content)

    assert (reported.sha256, reported.crc32c) == (hashlib.sha256(data).hexdigest(), google_crc32c.value(data))


def test_no_two_blocks_and_no_two_seeds_are_alike() -> None:
    block = 188 * 1394
    one, other = _all(Synthetic(block * 3, "one")), _all(Synthetic(block * 3, "other"))

    blocks = {data[start : start + block] for data in (one, other) for start in range(0, block * 3, block)}

    assert len(blocks) == 6


def test_an_etag_is_an_md5_only_where_it_is_the_md5() -> None:
    data = b"some bytes"

    assert Held(data).etag == hashlib.md5(data).hexdigest()
    assert "-" in Synthetic(10, "seed").etag


@pytest.mark.parametrize("deflate", [False, True])
def test_a_zip_of_a_tree_is_whole(deflate: bool) -> None:
    files = {"a.txt": Held(b"a" * 1000), "b/c.bin": Held(bytes(range(256)))}

    _assert_holds(_all(zipped(files, deflate=deflate)), files)


@given(sizes=st.lists(st.integers(0, 5000), max_size=8))
def test_a_streamed_zip_is_whole(sizes: list[int]) -> None:
    files = {f"m/{number}.ts": Synthetic(size, str(number)) for number, size in enumerate(sizes)}

    _assert_holds(_all(streamed_zip(files)), files)


def test_a_streamed_zip_of_many_members_is_a_zip64() -> None:
    files = {f"{number}": Held(b"x") for number in range(66_000)}

    with zipfile.ZipFile(io.BytesIO(_all(streamed_zip(files)))) as archive:
        assert len(archive.namelist()) == 66_000
        assert archive.read("65999") == b"x"


def test_members_behind_4_gib_have_their_offset_in_the_zip64_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "FARTHEST", 3000)
    files = {f"m/{number}.ts": Synthetic(1000, str(number)) for number in range(8)}

    _assert_holds(_all(streamed_zip(files)), files)


def test_a_streamed_zip_has_the_crc_of_each_member() -> None:
    files = {"a.ts": Synthetic(300_000, "a")}

    with zipfile.ZipFile(io.BytesIO(_all(streamed_zip(files)))) as archive:
        assert zlib.crc32(_all(files["a.ts"])) == archive.getinfo("a.ts").CRC


def test_a_tree_is_a_mapping_of_what_its_playlists_name() -> None:
    tree = SyntheticTree("seed", layers=2, segments=3, segment_bytes=1000)

    names = list(tree)
    playlist = _all(tree["stream_1/stream.m3u8"]).decode()

    assert len(names) == len(set(names)) == len(tree) == 9
    assert sum(tree[name].size_bytes for name in names) == tree.total_bytes
    assert [line for line in playlist.splitlines() if line.endswith(".ts")] == [
        name.partition("/")[2] for name in names if name.startswith("stream_1/segment")
    ]


@pytest.mark.parametrize("name", ["stream_2/stream.m3u8", "stream_0/segment_00003.ts", "nothing", "stream_0"])
def test_a_tree_has_nothing_else(name: str) -> None:
    assert name not in SyntheticTree("seed", layers=2, segments=3, segment_bytes=1000)


def _assert_holds(data: bytes, files: Mapping[str, Content]) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: _all(content) for name, content in files.items()
        }

"""Small playlists that would expand to more than any memory holds, or keep a worker busy for hours."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from archiver.core.contents.hls.playlist import MAX_STEERING, Playlist
from archiver.core.contents.hls.variables import MAX_DEFINITIONS
from archiver.core.errors import BadContents

BOMBS = {
    "a variable used ten thousand times in one URI": (
        b'#EXTM3U\n#EXT-X-DEFINE:NAME="x",VALUE="'
        + b"a" * 100_000
        + b'"\n#EXTINF:2,\n'
        + b"{$x}" * 10_000
        + b"\n"
    ),
    "a variable used ten thousand times in an attribute": (
        b'#EXTM3U\n#EXT-X-DEFINE:NAME="x",VALUE="'
        + b"a" * 100_000
        + b'"\n#EXT-X-MAP:URI="'
        + b"{$x}" * 10_000
        + b'"\n'
    ),
    "variables without end": b"#EXTM3U\n" + b'#EXT-X-DEFINE:QUERYPARAM="x"\n' * (MAX_DEFINITIONS + 1),
    "variables that double each other": b'#EXTM3U\n#EXT-X-DEFINE:NAME="v0",VALUE="aaaaaaaa"\n'
    + b"".join(
        b'#EXT-X-DEFINE:NAME="v%d",VALUE="{$v%d}{$v%d}"\n' % (number + 1, number, number)
        for number in range(40)
    ),
    "pathways without end": b"#EXTM3U\n"
    + b"".join(
        b'#EXT-X-STREAM-INF:PATHWAY-ID="%d"\na.m3u8\n' % number for number in range(MAX_DEFINITIONS + 1)
    ),
    "a pathway without end": b'#EXTM3U\n#EXT-X-STREAM-INF:PATHWAY-ID="' + b"p" * 1_000_000 + b'"\na.m3u8\n',
    "steering servers without end": b"#EXTM3U\n"
    + b'#EXT-X-CONTENT-STEERING:SERVER-URI="s"\n' * (MAX_STEERING + 1),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=[name.replace(" ", "-") for name in BOMBS])
def test_a_playlist_that_is_a_bomb_is_refused_in_little_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadContents):
            list(Playlist(data, query="x=1").references())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 20 * 2**20


def test_variables_that_name_each_other_without_end_cost_no_time() -> None:
    filler = b"".join(b"{$f%d}" % number for number in range(400))
    data = (
        b"#EXTM3U\n"
        + b"".join(b'#EXT-X-DEFINE:NAME="f%d",VALUE=""\n' % number for number in range(400))
        + b'#EXT-X-DEFINE:NAME="v0",VALUE="a"\n'
        + b"".join(
            b'#EXT-X-DEFINE:NAME="v%d",VALUE="{$v%d}%s"\n' % (number + 1, number, filler)
            for number in range(500)
        )
        + b"#EXTINF:2,\na.ts?{$v500}\n"
    )
    before = time.process_time()

    list(Playlist(data).references())

    assert time.process_time() - before < 5


def test_variables_as_people_use_them_are_expanded() -> None:
    data = b'#EXTM3U\n#EXT-X-DEFINE:NAME="base",VALUE="media/v1"\n#EXTINF:2,\n{$base}/{$base}/a.ts\n'

    assert [reference.uri for reference in Playlist(data).references()] == ["media/v1/media/v1/a.ts"]

"""Hostile references and trees without end: they are not followed, and cost nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archiver.core.contents.hls.tree import HlsLimits
from archiver.transfer.errors import SourceNotAllowed
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Origin, Request, vod
from tests.core.contents.trees import TS, media, segments, variants, walk

# -- hostile -------------------------------------------------------------------------------------------------
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a file of this machine": (segments("file:///etc/passwd", "a.ts"), "by file:"),
    "another scheme": (segments("ftp://example.org/a.ts", "a.ts"), "by ftp:"),
    "a script": (segments("javascript:x", "a.ts"), "by javascript:"),
    "a user name": (segments("http://me:secret@example.org/a.ts", "a.ts"), "address that is never read"),
    "port 0": (segments("http://example.org:0/a.ts", "a.ts"), "address that is never read"),
    "a host that is none": (segments("http://[::1/a.ts", "a.ts"), "address that is never read"),
    "an init segment of this machine": (
        media('#EXT-X-MAP:URI="file:///etc/passwd"', "#EXTINF:2,\na.ts"),
        "an init segment by file:".removeprefix("an "),
    ),
    "a variant of this machine": (variants("file:///etc/passwd", "b.m3u8"), "a variant playlist by file:"),
}


@pytest.mark.parametrize(("body", "says"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_reference_is_never_fetched_and_costs_nothing_else(
    client: HttpClient, origin: Origin, body: bytes, says: str
) -> None:
    origin.files = {"/vod/master.m3u8": body, "/vod/b.m3u8": segments("a.ts"), "/vod/a.ts": TS}

    walked = walk(client, origin)

    assert walked.copy.files["a.ts"] == TS
    (doubt,) = walked.doubts
    assert says in doubt
    assert "master.m3u8" in doubt
    assert "secret" not in doubt
    assert b"secret" not in walked.copy.files["master.m3u8"]


def test_a_thousand_hostile_references_of_one_kind_are_one_doubt(client: HttpClient, origin: Origin) -> None:
    hostile = [f"file:///{number}" for number in range(1000)]
    origin.files = {"/vod/master.m3u8": segments(*hostile, "a.ts"), "/vod/a.ts": TS}

    assert len(walk(client, origin).doubts) == 1


@pytest.mark.parametrize(
    "line",
    ['#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://k",KEYFORMAT="x"', "#EXTINF:2,\ndata:video/mp2t;base64,R0"],
)
def test_what_is_no_file_at_the_source_is_no_doubt(client: HttpClient, origin: Origin, line: str) -> None:
    origin.files = {"/vod/master.m3u8": media(line, "#EXTINF:2,\na.ts"), "/vod/a.ts": TS}

    walked = walk(client, origin)

    assert walked.doubts == []
    assert line.encode() in walked.copy.files["master.m3u8"]


def test_a_playlist_cannot_send_us_to_another_private_host(
    client: HttpClient, origin: Origin, elsewhere: Origin
) -> None:
    elsewhere.files = {"/a.ts": TS, "/b.m3u8": segments("b.ts")}
    origin.files = {
        "/vod/master.m3u8": variants("s.m3u8", f"{elsewhere.url}/b.m3u8"),
        "/vod/s.m3u8": segments(f"{elsewhere.url}/a.ts", "c.ts"),
        "/vod/c.ts": TS,
    }

    walked = walk(client, origin)

    assert walked.paths == {"master.m3u8", "s.m3u8", "c.ts"}
    assert [type(failed) for failed in walked.copy.failures.values()] == [SourceNotAllowed]
    assert len(walked.missing) == 1
    assert elsewhere.requests == []


# -- limits --------------------------------------------------------------------------------------------------
def test_a_variant_that_names_the_master_ends(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": variants("s.m3u8"),
        "/vod/s.m3u8": variants("master.m3u8", "s.m3u8") + b"#EXTINF:2.0,\na.ts\n#EXT-X-ENDLIST\n",
        "/vod/a.ts": TS,
    }

    walked = walk(client, origin)

    assert walked.paths == {"master.m3u8", "s.m3u8", "a.ts"}
    assert walked.doubts == []


def deeper(request: Request) -> Answer | None:
    """Each playlist names a deeper one and a segment."""
    if request.path.endswith(".ts"):
        return Answer(200, TS)
    name = request.path.rpartition("/")[2].removesuffix(".m3u8")
    return Answer(200, variants(f"{name}x.m3u8") + segments(f"{name}.ts").removeprefix(b"#EXTM3U\n"))


LIMITS: dict[str, tuple[HlsLimits, Callable[[Request], Answer | None], str, set[str]]] = {
    "depth": (
        HlsLimits(depth=2),
        deeper,
        "masterxx.m3u8: is a playlist more than 2 levels deep, and was not followed",
        {"master.m3u8", "master.ts", "masterx.m3u8", "masterx.ts"},
    ),
    "playlists": (
        HlsLimits(playlists=3),
        deeper,
        "masterxxx.m3u8: was not followed: the tree has more than 3 playlists",
        {"master.m3u8", "master.ts", "masterx.m3u8", "masterx.ts", "masterxx.m3u8", "masterxx.ts"},
    ),
    "references": (
        HlsLimits(references=3),
        lambda request: (
            Answer(200, segments(*(f"{number}.ts" for number in range(6))))
            if request.path.endswith("m3u8")
            else Answer(200, TS)
        ),
        "beyond the tree's first 3 references, which was not followed",
        {"master.m3u8", "0.ts", "1.ts", "2.ts"},
    ),
    "bytes of all playlists": (
        HlsLimits(all_playlists_bytes=200),
        lambda request: {
            "/vod/master.m3u8": Answer(200, variants("a.m3u8", "b.m3u8")),
            "/vod/a.m3u8": Answer(200, segments("a.ts")),
            "/vod/b.m3u8": Answer(200, segments("b.ts")),
        }.get(request.path, Answer(200, TS)),
        "b.m3u8: was not followed to its end: the playlists hold more than 200 bytes together",
        {"master.m3u8", "a.m3u8", "a.ts"},
    ),
}


@pytest.mark.parametrize(("limits", "rule", "says", "paths"), LIMITS.values(), ids=LIMITS)
def test_what_exceeds_a_limit_is_not_followed(
    client: HttpClient,
    origin: Origin,
    limits: HlsLimits,
    rule: Callable[[Request], Answer | None],
    says: str,
    paths: set[str],
) -> None:
    origin.rule = rule

    walked = walk(client, origin, limits=limits)

    assert walked.paths == paths
    assert any(says in doubt for doubt in walked.doubts)


def test_doubts_themselves_are_bounded(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": variants("a.m3u8", *(f"{number}.m3u8" for number in range(50))),
        "/vod/a.m3u8": segments("a.ts"),
        "/vod/a.ts": TS,
    }

    walked = walk(client, origin, limits=HlsLimits(doubts=10))

    assert len(walked.doubts) == 11
    assert "more than 10 doubts" in walked.doubts[-1]


def test_a_file_that_is_media_and_a_playlist_is_kept_as_media(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    origin.files["/vod/stream_0/stream.m3u8"] += b"#EXT-X-STREAM-INF:BANDWIDTH=1\nsegment_00000.ts\n"

    walked = walk(client, origin)

    assert len(walked.paths) == len(origin.files)
    assert walked.doubts == [
        "stream_0/segment_00000.ts: is named as media and as a playlist, and was not followed"
    ]

"""Files of a tree that are missing, not what they should be, or optional."""

from __future__ import annotations

import pytest

from archiver.core.contents.hls.tree import HlsLimits
from archiver.transfer.errors import (
    ErrorPage,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceUnavailable,
    UnexpectedContent,
)
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Origin
from tests.core.contents.trees import BUSY, PAGE, PNG, TS, media, variants, walk, whole


# -- files ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "answer", "error"),
    [
        ("low.ts", Answer(404), SourceGone),
        ("low.ts", Answer(403), SourceForbidden),
        ("low.ts", BUSY, SourceUnavailable),
        ("low.ts", Answer(200, PAGE, {"Content-Type": "text/html"}), ErrorPage),
        ("low.ts", Answer(200), UnexpectedContent),
        ("low.ts", Answer(200, PNG), UnexpectedContent),
        ("low.ts", Answer(200, b'{"chapters": []}'), SourceMismatch),
        ("0.vtt", Answer(404), SourceGone),
        ("0.vtt", Answer(200, PAGE, {"Content-Type": "text/html"}), ErrorPage),
        ("0.vtt", Answer(200, PNG), UnexpectedContent),
    ],
)
def test_a_file_that_cannot_be_had_is_still_an_item_and_costs_nothing_else(
    client: HttpClient, origin: Origin, path: str, answer: Answer, error: type[SourceError]
) -> None:
    origin.files = whole()
    origin.rule = lambda request: answer if request.path == f"/vod/{path}" else None

    walked = walk(client, origin)

    assert walked.paths == {name.removeprefix("/vod/") for name in origin.files} - {path}
    assert [(name, isinstance(failed, error)) for name, failed in walked.copy.failures.items()] == [
        (path, True)
    ]


CAPTIONS = {
    "is empty": b"",
    "has no header": b"00:00.000 --> 00:01.000\nhello\n",
    "has a byte order mark": b"\xef\xbb\xbfWEBVTT\n",
}


@pytest.mark.parametrize("name", ["0.vtt", "0", "0.txt"])
@pytest.mark.parametrize("body", CAPTIONS.values(), ids=CAPTIONS)
def test_captions_may_be_empty_or_without_a_header(
    client: HttpClient, origin: Origin, body: bytes, name: str
) -> None:
    origin.files = whole() | {
        "/vod/subs.m3u8": media('#EXT-X-MAP:URI="header.vtt"', f"#EXTINF:2,\n{name}"),
        "/vod/header.vtt": b"WEBVTT\n",
        f"/vod/{name}": body,
    }

    walked = walk(client, origin)

    assert walked.copy.failures == {}
    assert walked.doubts == []
    assert body in walked.copy.files.values()


@pytest.mark.parametrize(
    ("method", "size", "fits"),
    [
        ("AES-128", 16, True),
        ("AES-128", 15, False),
        ("AES-128", 32, False),
        ("AES-256", 32, True),
        ("AES-256", 16, False),
        ("SAMPLE-AES", 16, True),
        ("AES-128", 0, False),
    ],
)
def test_a_key_has_the_length_of_its_method(
    client: HttpClient, origin: Origin, method: str, size: int, fits: bool
) -> None:
    origin.files = whole() | {
        "/vod/low.m3u8": media(f'#EXT-X-KEY:METHOD={method},URI="k.key"', "#EXTINF:2,\nlow.ts"),
        "/vod/k.key": bytes(range(100, 100 + size)),
    }

    walked = walk(client, origin)

    assert ("k.key" in walked.paths) == fits
    assert set(walked.copy.failures) == (set() if fits else {"k.key"})


# -- files that are optional in one place --------------------------------------------------------------------
PART = '#EXT-X-PART:DURATION=1,URI="a.ts"'
SEGMENT = "#EXTINF:2,\na.ts"
INIT = '#EXT-X-MAP:URI="a.ts"'
OTHER = "#EXTINF:2,\nb.ts"


@pytest.mark.parametrize(
    ("lines", "optional"),
    [
        ([PART, OTHER], True),
        ([PART, SEGMENT, OTHER], False),
        ([SEGMENT, PART, OTHER], False),
        ([PART, OTHER, INIT], False),
        ([INIT, PART, OTHER], False),
        ([PART, PART, OTHER], True),
    ],
    ids=["part", "part, segment", "segment, part", "part, init", "init, part", "part twice"],
)
def test_a_file_is_optional_only_where_nothing_needs_it(
    client: HttpClient, origin: Origin, lines: list[str], optional: bool
) -> None:
    origin.files = {"/vod/master.m3u8": media(*lines), "/vod/b.ts": TS}

    walked = walk(client, origin)

    assert len(walked.copy.optional_failures) == optional
    assert set(walked.copy.failures) == (set() if optional else {"a.ts"})


def test_a_part_in_one_playlist_is_a_segment_in_a_later_one(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": variants("a.m3u8", "b.m3u8"),
        "/vod/a.m3u8": media(PART, OTHER),
        "/vod/b.m3u8": media(SEGMENT),
        "/vod/a.ts": TS,
        "/vod/b.ts": TS,
    }

    walked = walk(client, origin)

    assert not walked.copy.items["a.ts"].optional
    assert walked.doubts == []


def test_a_preload_hint_is_never_waited_for(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": media('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="/next.ts"', "#EXTINF:2.0,\na.ts"),
        "/vod/a.ts": TS,
    }

    walked = walk(client, origin)

    assert walked.paths == {"master.m3u8", "a.ts"}
    assert origin.asked("/next.ts") == 0
    assert b'URI="/' not in walked.copy.files["master.m3u8"]


def test_more_optional_files_than_are_remembered_are_left_out(client: HttpClient, origin: Origin) -> None:
    parts = [f'#EXT-X-PART:DURATION=1,URI="{number}.ts"' for number in range(5)]
    origin.files = {"/vod/master.m3u8": media(*parts, OTHER), "/vod/b.ts": TS}
    origin.files |= {f"/vod/{number}.ts": TS for number in range(5)}

    walked = walk(client, origin, limits=HlsLimits(optional_files=3))

    assert walked.paths == {"master.m3u8", "b.ts", "0.ts", "1.ts", "2.ts"}
    assert walked.notes.warnings == ["2 optional files were too many to copy"]

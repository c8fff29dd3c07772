"""Trees with playlists that are missing or broken: the rest is copied, and a doubt names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from archiver.core.contents.hls.facts import Expected
from archiver.core.contents.hls.tree import HlsLimits
from archiver.core.errors import BadContents
from archiver.transfer.errors import (
    ErrorPage,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    UnexpectedContent,
)
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Origin, copy
from tests.core.contents.trees import (
    BUSY,
    ENDED,
    PAGE,
    RENDITIONS,
    TS,
    Naps,
    media,
    numbered,
    open_tree,
    segments,
    variants,
    walk,
    whole,
)


def test_a_tree_with_every_kind_of_playlist_is_whole(client: HttpClient, origin: Origin) -> None:
    origin.files = whole()

    walked = walk(client, origin, expected=Expected(layers=2, duration_seconds=2.0))

    assert walked.paths == {path.removeprefix("/vod/") for path in origin.files}
    assert walked.doubts == walked.notes.warnings == []


# -- playlists that cannot be had ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Instead:
    """What the source has in place of a playlist."""

    answer: Answer
    says: str
    unready: bool = False


PLAYLISTS = {
    "is gone": Instead(Answer(404), "it is missing at the source"),
    "was removed for good": Instead(Answer(410), "it is missing at the source"),
    "is refused": Instead(Answer(403), "the source refuses it"),
    "wants a login": Instead(Answer(401), "the source refuses it"),
    "is busy": Instead(BUSY, "does not answer", unready=True),
    "is an error page": Instead(Answer(200, PAGE, {"Content-Type": "text/html"}), "error page"),
    "is too large": Instead(Answer(200, segments(*["a.ts"] * 3000)), "larger than the 40000 bytes"),
    "is empty": Instead(Answer(200), "empty body"),
    "redirects for ever": Instead(Answer(302, b"", {"Location": "?"}), "redirects more than"),
    "redirects to another private host": Instead(
        Answer(302, b"", {"Location": "http://10.0.0.1/low.m3u8"}), "refused by the address policy"
    ),
    "uses an undefined variable": Instead(Answer(200, segments("{$nobody}.ts")), "not followed to its end"),
    "is a bomb of variables": Instead(
        Answer(200, b"#EXTM3U\n" + b'#EXT-X-DEFINE:QUERYPARAM="x"\n' * 1001), "more than 1000 variables"
    ),
}


@pytest.mark.parametrize("path", ["low.m3u8", "audio.m3u8", "subs.m3u8", "frames.m3u8"])
@pytest.mark.parametrize("case", PLAYLISTS.values(), ids=PLAYLISTS)
def test_a_playlist_that_cannot_be_had_costs_nothing_but_itself(
    client: HttpClient, origin: Origin, case: Instead, path: str
) -> None:
    origin.files = whole()
    origin.rule = lambda request: case.answer if request.path == f"/vod/{path}" else None

    walked = walk(client, origin, limits=HlsLimits(playlist_bytes=40_000))

    lost = {path, {"subs.m3u8": "0.vtt"}.get(path, path.replace("m3u8", "ts"))}
    assert walked.paths == {name.removeprefix("/vod/") for name in origin.files} - lost
    (doubt,) = walked.notes.doubts
    assert case.says in doubt.what
    assert (doubt.path, doubt.missing, doubt.unready) == (path, True, case.unready)


@pytest.mark.parametrize(
    "body",
    [
        TS * 100,
        b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n",
        b"no playlist, but somebody's words",
        bytes(9000),
    ],
    ids=["media", "captions", "text", "bytes"],
)
def test_what_is_there_in_place_of_a_playlist_is_offered_and_refused_by_its_check(
    client: HttpClient, origin: Origin, body: bytes
) -> None:
    origin.files = whole() | {"/vod/low.m3u8": body}

    walked = walk(client, origin, limits=HlsLimits(playlist_bytes=4000))

    (path,) = walked.copy.failures
    assert path == "low.m3u8"
    assert type(walked.copy.failures[path]) is UnexpectedContent
    assert walked.doubts == []


def test_doubts_are_the_same_at_every_attempt_and_hold_no_query(client: HttpClient, origin: Origin) -> None:
    numbers = iter(range(100))
    origin.files = whole() | {
        "/vod/master.m3u8": RENDITIONS.replace(b"low.m3u8", b"low.m3u8?Signature=secret&Key-Pair-Id=k")
    }
    origin.rule = lambda request: (
        Answer(200, PAGE + str(next(numbers)).encode()) if request.path == "/vod/low.m3u8" else None
    )

    first, second = walk(client, origin).notes.doubts, walk(client, origin).notes.doubts

    assert first == second
    assert first
    assert "secret" not in str(first)


def test_a_source_that_answers_nothing_any_more_is_not_asked_for_each_playlist(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {
        "/vod/master.m3u8": variants("a.m3u8", *(f"{number}.m3u8" for number in range(100))),
        "/vod/a.m3u8": segments("a.ts"),
        "/vod/a.ts": TS,
    }
    origin.rule = lambda request: None if request.path in origin.files else BUSY

    walked = walk(client, origin, limits=HlsLimits(busy=3))

    assert walked.paths == {"master.m3u8", "a.m3u8", "a.ts"}
    assert walked.missing == walked.unready == {f"{number}.m3u8" for number in range(100)}
    assert len(origin.requests) == 1 + 1 + 3 + 1


# -- when there is nothing at all ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404), SourceGone),
        (Answer(403), SourceForbidden),
        (BUSY, SourceUnavailable),
        (Answer(200, PAGE, {"Content-Type": "text/html"}), ErrorPage),
        (Answer(302, b"", {"Location": "http://10.0.0.1/a"}), SourceNotAllowed),
        (Answer(200, b"#EXTM3U\n"), BadContents),
        (Answer(200, segments()), BadContents),
        (Answer(200, segments(end="")), BadContents),
        (Answer(200, b"#EXTM3U\n#EXT-X-ERROR:no recording\n"), BadContents),
        (Answer(200, media("#EXTINF:2,\n#EXT-X-GAP\na.ts")), BadContents),
    ],
    ids=[
        "gone",
        "refused",
        "busy",
        "page",
        "not allowed",
        "bare",
        "empty",
        "live and empty",
        "error",
        "gaps",
    ],
)
def test_a_tree_without_any_media_is_an_error(
    client: HttpClient, origin: Origin, answer: Answer, error: type[Exception]
) -> None:
    origin.files = {"/vod/master.m3u8": variants("a.m3u8", "b.m3u8")}
    origin.rule = lambda request: None if request.path == "/vod/master.m3u8" else answer

    with pytest.raises(error):
        copy(open_tree(client, origin))


@pytest.mark.parametrize(
    "body", [b"#EXTM3U\n", segments(), b"#EXTM3U\n#EXT-X-ERROR:x\n"], ids=["bare", "empty", "error"]
)
def test_a_master_that_names_no_media_is_an_error(client: HttpClient, origin: Origin, body: bytes) -> None:
    origin.files = {"/vod/master.m3u8": body}

    with pytest.raises(BadContents, match="names no media"):
        copy(open_tree(client, origin))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404), SourceGone),
        (Answer(403), SourceForbidden),
        (BUSY, SourceUnavailable),
        (Answer(200, PAGE, {"Content-Type": "text/html"}), SourceMismatch),
        (Answer(200, segments(*["a.ts"] * 500)), SourceMismatch),
    ],
    ids=["gone", "refused", "busy", "page", "too large"],
)
def test_without_its_master_there_is_no_tree(
    client: HttpClient, origin: Origin, answer: Answer, error: type[Exception]
) -> None:
    origin.rule = lambda request: answer

    with pytest.raises(error):
        open_tree(client, origin, limits=HlsLimits(playlist_bytes=1000))


# -- playlists that are broken, and were called a recording --------------------------------------------------
@dataclass(frozen=True)
class Broken:
    files: Mapping[str, bytes]
    says: str | None
    unready: bool = False
    expected: Expected = field(default_factory=Expected)


MINUTE = segments(*(f"{number}.ts" for number in range(30)))
TWO_SEGMENTS = {"/vod/master.m3u8": variants("a.m3u8", "b.m3u8"), "/vod/a.m3u8": segments("a.ts")}
BROKEN = {
    "an empty variant among full ones": Broken({"/vod/low.m3u8": segments()}, "low.m3u8: names neither"),
    "a variant that is no more than #EXTM3U": Broken(
        {"/vod/low.m3u8": b"#EXTM3U\n"}, "low.m3u8: names neither"
    ),
    "a variant of gaps": Broken(
        {"/vod/low.m3u8": media("#EXTINF:2,\n#EXT-X-GAP\nx.ts")}, "low.m3u8: all its segments are gaps"
    ),
    "a variant that tells of an error": Broken(
        {"/vod/low.m3u8": segments("low.ts", end="#EXT-X-ERROR:disk full\n" + ENDED)},
        "low.m3u8: its packager",
    ),
    "an empty audio rendition": Broken({"/vod/audio.m3u8": segments()}, "audio.m3u8: names neither"),
    "an empty list of subtitles": Broken({"/vod/subs.m3u8": segments()}, None),
    "a list of subtitles that is no more than #EXTM3U": Broken({"/vod/subs.m3u8": b"#EXTM3U\n"}, None),
    "an empty list of I-frames": Broken({"/vod/frames.m3u8": segments()}, None),
    "a master of renditions alone": Broken(
        {"/vod/master.m3u8": RENDITIONS.partition(b"#EXT-X-STREAM-INF")[0]}, "master.m3u8: names neither"
    ),
    "a variant without ENDLIST": Broken(
        {"/vod/low.m3u8": segments("low.ts", end="")}, "low.m3u8: has no EXT-X-ENDLIST", unready=True
    ),
    "a variant of type VOD without ENDLIST": Broken(
        {"/vod/low.m3u8": media("#EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF:2,\nlow.ts", end="")},
        "low.m3u8: has no EXT-X-ENDLIST",
        unready=True,
    ),
    "a variant of bare lines, which no ENDLIST ends": Broken(
        {"/vod/low.m3u8": b"#EXTM3U\nlow.ts\n"}, "low.m3u8: has no EXT-X-ENDLIST", unready=True
    ),
    "subtitles without ENDLIST": Broken(
        {"/vod/subs.m3u8": segments("0.vtt", end="")}, "subs.m3u8: has no EXT-X-ENDLIST", unready=True
    ),
    "a variant much shorter than the other": Broken(
        {"/vod/high.m3u8": MINUTE, "/vod/audio.m3u8": MINUTE}, "low.m3u8: lasts 2 s, another stream 60 s"
    ),
    "audio much shorter than the video": Broken(
        {"/vod/low.m3u8": MINUTE, "/vod/high.m3u8": MINUTE}, "audio.m3u8: lasts 2 s, another stream 60 s"
    ),
    "subtitles shorter than the video": Broken(
        {f"/vod/{name}.m3u8": MINUTE for name in ("low", "high", "audio")}, None
    ),
    "fewer layers than the API says": Broken({}, "2 layers were found, the API says 4", expected=Expected(4)),
    "a fraction of what the API says": Broken(
        {}, "the segments last 2 s, the API says 2000 s", expected=Expected(None, 2000.0)
    ),
    "much longer than the API says": Broken(
        {f"/vod/{name}.m3u8": MINUTE for name in ("low", "high", "audio")},
        "the segments last 60 s, the API says 40 s",
        expected=Expected(None, 40.0),
    ),
    "a little shorter than the API says": Broken(
        {f"/vod/{name}.m3u8": MINUTE for name in ("low", "high", "audio")},
        None,
        expected=Expected(None, 62.9),
    ),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_a_tree_that_is_not_what_it_should_be_is_copied_with_a_doubt(
    client: HttpClient, origin: Origin, case: Broken
) -> None:
    origin.files = (
        whole() | {f"/vod/{number}.ts": numbered(number) for number in range(30)} | dict(case.files)
    )

    walked = walk(client, origin, expected=case.expected)

    assert walked.copy.failures == {}
    assert "master.m3u8" in walked.paths
    if case.says is None:
        assert walked.doubts == []
    else:
        (doubt,) = walked.notes.doubts
        assert case.says in str(doubt)
        assert doubt.unready == case.unready
        assert not doubt.missing


def test_playlists_that_do_not_say_how_long_they_last_are_worth_a_warning(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {"/vod/master.m3u8": b"#EXTM3U\na.ts\n#EXT-X-ENDLIST\n", "/vod/a.ts": TS}

    walked = walk(client, origin, expected=Expected(duration_seconds=60.0))

    assert walked.doubts == []
    assert "do not say how long" in walked.notes.warnings[-1]


def test_a_playlist_is_asked_for_again_until_it_has_an_end(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": segments("a.ts", end=""), "/vod/a.ts": TS, "/vod/b.ts": TS}
    naps = Naps(then=lambda: origin.files.update({"/vod/master.m3u8": segments("a.ts", "b.ts")}))

    walked = walk(client, origin, sleep=naps)

    assert walked.paths == {"master.m3u8", "a.ts", "b.ts"}
    assert walked.doubts == []
    assert len(naps.taken) == 1


@pytest.mark.parametrize("grows", [False, True], ids=["it stands still", "it grows"])
def test_playlists_without_end_are_asked_for_a_few_times_all_together(
    client: HttpClient, origin: Origin, grows: bool
) -> None:
    length = iter(range(2, 1000))
    origin.files = {"/vod/master.m3u8": variants("a.m3u8", "b.m3u8", "c.m3u8")}
    origin.files |= {f"/vod/{number}.ts": TS for number in range(100)}
    origin.rule = lambda request: (
        Answer(200, segments(*(f"{number}.ts" for number in range(next(length) if grows else 2)), end=""))
        if request.path in ("/vod/a.m3u8", "/vod/b.m3u8", "/vod/c.m3u8")
        else None
    )
    naps = Naps()

    walked = walk(client, origin, sleep=naps)

    assert walked.unready == {"a.m3u8", "b.m3u8", "c.m3u8"}
    assert len(naps.taken) == HlsLimits().polls
    assert {"0.ts", "1.ts", "a.m3u8", "b.m3u8", "c.m3u8", "master.m3u8"} <= walked.paths
    assert not walked.missing


def test_a_playlist_that_is_a_page_when_it_is_asked_for_again_is_kept_as_it_was(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {"/vod/master.m3u8": segments("a.ts", end=""), "/vod/a.ts": TS}

    walked = walk(client, origin, sleep=Naps(then=lambda: origin.files.update({"/vod/master.m3u8": PAGE})))

    assert walked.paths == {"master.m3u8", "a.ts"}
    assert walked.unready == {"master.m3u8"}

"""Trees with something missing, broken or hostile in them: the rest is copied, and a doubt names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from archiving.contents.hls import HlsLimits
from archiving.contents.tree_facts import Expected
from archiving.errors import BadContents
from tests.archiving.contents.origin import Answer, Origin, Request, copy, vod
from tests.archiving.contents.trees import (
    ENDED,
    TS,
    Naps,
    master,
    media,
    numbered,
    open_tree,
    segments,
    variants,
    walk,
)
from transfer.errors import (
    ErrorPage,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    UnexpectedContent,
)
from transfer.http import HttpClient

HTML = b"<!DOCTYPE html><html><body>Sorry</body></html>"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
BUSY = Answer(503, b"", {"Retry-After": "3600"})  # longer than a walk waits
RENDITIONS = master(
    '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="audio.m3u8"',
    '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="s",URI="subs.m3u8"',
    '#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a",SUBTITLES="s"\nlow.m3u8',
    '#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO="a",SUBTITLES="s"\nhigh.m3u8',
    '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="frames.m3u8"',
)


def whole() -> dict[str, bytes]:
    """A tree of each kind of playlist, with one segment each."""
    files = {
        "/vod/master.m3u8": RENDITIONS,
        "/vod/subs.m3u8": segments("0.vtt"),
        "/vod/0.vtt": b"WEBVTT\n",
    }
    for name in ("audio", "low", "high", "frames"):
        files |= {f"/vod/{name}.m3u8": segments(f"{name}.ts"), f"/vod/{name}.ts": TS}
    return files


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
    "is gone": Instead(Answer(404), "not found at the source"),
    "was removed for good": Instead(Answer(410), "not found at the source"),
    "is refused": Instead(Answer(403), "refused by the source"),
    "wants a login": Instead(Answer(401), "refused by the source"),
    "is busy": Instead(BUSY, "did not answer", unready=True),
    "is an error page": Instead(Answer(200, HTML, {"Content-Type": "text/html"}), "error page"),
    "is too large": Instead(Answer(200, segments(*["a.ts"] * 3000)), "larger than the 40000 bytes"),
    "is empty": Instead(Answer(200), "empty body"),
    "redirects for ever": Instead(Answer(302, b"", {"Location": "?"}), "redirects more than"),
    "redirects to another private host": Instead(
        Answer(302, b"", {"Location": "http://10.0.0.1/low.m3u8"}), "not one that may be read"
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
        Answer(200, HTML + str(next(numbers)).encode()) if request.path == "/vod/low.m3u8" else None
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
        (Answer(200, HTML, {"Content-Type": "text/html"}), ErrorPage),
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
        (Answer(200, HTML, {"Content-Type": "text/html"}), SourceMismatch),
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
    origin.files = whole() | {f"/vod/{number}.ts": numbered(number) for number in range(30)} | case.files

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


def test_a_playlist_that_is_gone_when_it_is_asked_for_again_is_kept_as_it_was(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {"/vod/master.m3u8": segments("a.ts", end=""), "/vod/a.ts": TS}

    walked = walk(client, origin, sleep=Naps(then=lambda: origin.files.pop("/vod/master.m3u8", None)))

    assert walked.paths == {"master.m3u8", "a.ts"}
    assert walked.unready == {"master.m3u8"}


# -- files ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "answer", "error"),
    [
        ("low.ts", Answer(404), SourceGone),
        ("low.ts", Answer(403), SourceForbidden),
        ("low.ts", BUSY, SourceUnavailable),
        ("low.ts", Answer(200, HTML, {"Content-Type": "text/html"}), ErrorPage),
        ("low.ts", Answer(200), UnexpectedContent),
        ("low.ts", Answer(200, PNG), UnexpectedContent),
        ("low.ts", Answer(200, b'{"chapters": []}'), SourceMismatch),
        ("0.vtt", Answer(404), SourceGone),
        ("0.vtt", Answer(200, HTML, {"Content-Type": "text/html"}), ErrorPage),
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

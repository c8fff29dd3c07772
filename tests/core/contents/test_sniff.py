"""What a name promises and what the first bytes are, as a table of cases."""

from __future__ import annotations

import json

import pytest

from archiver.core.contents.sniff import (
    MEDIA,
    SNIFF_BYTES,
    Kind,
    check_for,
    check_for_path,
    content_type,
    content_type_of,
    describe,
    extension_of,
    sniff,
)
from archiver.transfer.base import SourceInfo
from archiver.transfer.errors import ErrorPage, SourceMismatch, UnexpectedContent
from tests.core.contents.containers import files
from tests.core.contents.media import single, tree

HTML = b"\n <!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
XML = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
JSON_ERROR = b'{"error": "AccessDenied"}'


def info(content_type: str | None = None, size: int | None = None) -> SourceInfo:
    return SourceInfo(size_bytes=size, ranges=True, content_type=content_type)


# -- errors --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HTML])
@pytest.mark.parametrize(
    ("page", "content_type", "called"),
    [
        (HTML, "text/html", "HTML page"),
        (XML, "application/xml", "XML error"),
        (JSON_ERROR, None, "JSON error"),
    ],
)
def test_an_error_page_is_no_file_of_any_kind(
    kind: Kind, page: bytes, content_type: str, called: str
) -> None:
    with pytest.raises(ErrorPage, match=called):
        check_for(kind, "a")(page, info(content_type))


def test_a_page_out_of_a_container_that_is_called_one_passes() -> None:
    check_for_path("player/index.html")(HTML, None)
    check_for(Kind.ANY, "player/index.html")(HTML, None)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HTML])
@pytest.mark.parametrize("page", [HTML, XML, JSON_ERROR])
def test_an_error_page_out_of_a_container_is_no_answer_and_no_file_either(kind: Kind, page: bytes) -> None:
    with pytest.raises(UnexpectedContent):
        check_for(kind, "a")(page, None)


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.JSON, Kind.CAPTIONS, Kind.ANY])
def test_what_resembles_an_error_and_has_the_apis_size_is_doubtful(kind: Kind) -> None:
    with pytest.raises(UnexpectedContent):
        check_for(kind, "a", len(JSON_ERROR))(JSON_ERROR, info("application/json", len(JSON_ERROR)))


@pytest.mark.parametrize(
    ("line", "size", "api_size", "passes"),
    [
        ("of the API's size", 400, 400, True),
        ("larger than any error page", 50_000_000, None, True),
        ("of another size than the API's", 400, 500, False),
        ("of a size that the API does not say", 400, None, False),
    ],
)
def test_a_page_that_is_called_one_is_doubtful_where_it_may_be_an_error(
    line: str, size: int, api_size: int | None, passes: bool
) -> None:
    check = check_for(Kind.HTML, "report.html", api_size)
    if passes:
        check(HTML, info("text/html", size))
    else:
        with pytest.raises(UnexpectedContent):
            check(HTML, info("text/html", size))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.CAPTIONS])
def test_an_empty_body_is_no_file_of_any_kind(kind: Kind) -> None:
    with pytest.raises(UnexpectedContent, match="empty"):
        check_for(kind, "a")(b"", None)


# -- what agrees ---------------------------------------------------------------------------------------------
def test_real_media_passes_the_check_of_its_own_name() -> None:
    media = {
        **tree("vod-ts"),
        **tree("vod-fmp4"),
        **files(),
        **{name: single(name) for name in ("a.mp4", "a.webm", "a.png")},
    }

    for name, body in media.items():
        check_for_path(name)(body[:SNIFF_BYTES], info())


LONG_JSON = json.dumps(
    {"sections": [{"title": "café ☕", "n": [1.5e3, True, None]}] * 400}, ensure_ascii=False
)

PASSES = [
    ("JSON", "a.json", b' {"a": [1, 2]}\n'),
    ("JSON that is a list", "a.json", b"[]"),
    ("JSON that is a number", "a.json", b"17"),
    ("JSON that is null", "a.json", b"null"),
    ("JSON that is a string", "a.json", b'"hello"'),
    ("JSON with a mark", "a.json", b'\xef\xbb\xbf{"a": 1}'),
    ("JSON in UTF-16", "a.json", '{"a": "é"}'.encode("utf-16")),
    ("JSON in UTF-16 without a mark", "a.json", '{"a": "é"}'.encode("utf-16-be")),
    ("JSON in UTF-32", "a.json", '{"a": "é"}'.encode("utf-32")),
    ("JSON lines in .json", "a.json", b'{"a": 1}\n{"a": 2}\n'),
    ("the beginning of long JSON", "a.json", LONG_JSON.encode()[:SNIFF_BYTES]),
    ("the beginning of long JSON in UTF-16", "a.json", LONG_JSON.encode("utf-16")[:SNIFF_BYTES]),
    ("the beginning of one long string", "a.json", json.dumps("word " * 2000).encode()[:SNIFF_BYTES]),
    ("the beginning of many digits", "a.json", (b"[" + b"1, " * 2000)[:SNIFF_BYTES]),
    ("text in UTF-16", "a.txt", "hello".encode("utf-16")),
    ("text in another 8-bit encoding", "a.txt", "déjà vu".encode("latin-1")),
    ("text that begins as a comment", "a.txt", b"<!-- 10:00 --> hello"),
    ("text that begins as a tag", "a.txt", b"<headline>News</headline>"),
    ("text that begins as TS, AAC or a box would", "a.txt", b"Good morning, " * 30),
    ("text that names a box", "a.txt", b"The free market"),
    ("TTML", "a.ttml", b'<?xml version="1.0"?><tt xmlns="http://www.w3.org/ns/ttml"/>'),
    ("TTML in .txt", "a.txt", b'<tt xmlns="http://www.w3.org/ns/ttml"/>'),
    ("Markdown", "a.md", b"# Summary\n\n* one"),
    ("Markdown in .txt", "a.txt", b"# Summary"),
    ("captions", "a.vtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\nhi\n"),
    ("captions without a header", "a.vtt", b"00:00.000 --> 00:01.000\nhi\n"),
    ("captions of a moment when nobody spoke", "a.webvtt", b""),
    ("captions in UTF-16", "a.vtt", "WEBVTT".encode("utf-16")),
    ("an image of an image stream", "a.jpg", single("a.png")[:SNIFF_BYTES]),
    ("WebP", "a.webp", b"RIFF\0\0\1\0WEBPVP8 "),
]  # fmt: skip


@pytest.mark.parametrize(("line", "name", "start"), PASSES, ids=[each[0] for each in PASSES])
def test_what_agrees_with_its_name_passes(line: str, name: str, start: bytes) -> None:
    check_for_path(name)(start, info("application/octet-stream"))


PNG = single("a.png")[:SNIFF_BYTES]

REFUSED = [
    ("a.mp4", b"G" + bytes(600)),
    ("a.webm", b"\0\0\0\x18ftypmp42"),
    ("a.ogg", b"RIFF\0\0\0\0WAVE"),
    ("a.wav", b"RIFF\0\0\0\0AVI "),
    ("a.flac", b"ID3\4"),
    ("a.ts", b"GET / HTTP/1.1" + b" " * 300),
    ("a.ts", b"Gateway timed out"),
    ("a.ts", PNG),
    ("a.m4s", PNG),
    ("a.aac", b"RIFF\0\0\1\0WEBPVP8 "),
    ("a.ts", b"\xff\xd8\xff\xe0" + bytes(300)),
    ("a.m4s", b"{}"),
    ("a.ts", b""),
    ("a.vtt", PNG),
    ("a.vtt", b"\0\0\0\x18ftypmp42"),
    ("a.vtt", b"G" + bytes(187)),
    ("a.png", b"GIF89a"),
    ("a.json", b"a,b\n"),
    ("a.json", b"# Summary\n"),
    ("a.json", b"Today we spoke about"),
    ("a.json", b"1. We spoke about"),
    ("a.json", b"[Ann](mailto:ann) said"),
    ("a.json", b'"Hello" said Ann'),
    ("a.json", b"true story"),
    ("a.json", b'{"a": 1'),
    ("a.json", b"   "),
    ("a.json", b'{"a": oops}' + b" " * SNIFF_BYTES),
    ("a.json", b"\0\0\0\x18ftypmp42"),
    ("a.csv", b"a\0b"),
    ("a.txt", b"\0\0\0\x18ftypmp42"),
    ("a.txt", b"PK\3\4"),
    ("a.txt", "a\0b".encode("utf-16")),
    ("a.zip", b"\x1f\x8b"),
    ("a.m3u8", b"WEBVTT"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "start"), REFUSED)
def test_other_bytes_than_the_name_says_are_refused(name: str, start: bytes) -> None:
    with pytest.raises(UnexpectedContent, match=r"^a\..*: expected"):
        check_for_path(name)(start[:SNIFF_BYTES], info("application/octet-stream"))


@pytest.mark.parametrize(
    "start",
    [
        b"\xef\xbb\xbfWEBVTT\n\n",
        b"\0\0\0\x18styp",
        b"\0\0\0\x18sidx",
        b"\0\0\0\x18moof",
        b"ID3\x04",
        b"\xff\xf1\x50\x80",
        bytes(4) + (b"G" + bytes(191)) * 2,
    ],
)
def test_the_container_counts_not_the_extension_of_a_segment(start: bytes) -> None:
    check_for_path("segment.ts")(start, None)


@pytest.mark.parametrize(("kind", "right"), [(Kind.KEY, 16), (Kind.KEY_256, 32)])
@pytest.mark.parametrize("size", [0, 15, 16, 17, 24, 32, 33])
def test_a_key_has_16_or_32_bytes(kind: Kind, right: int, size: int) -> None:
    if size == right:
        check_for(kind, "a")(bytes(size), None)
    else:
        with pytest.raises(SourceMismatch):
            check_for(kind, "a")(bytes(size), None)


# -- what it is ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x/a.ts", "video/mp2t"),
        ("a.key", "application/octet-stream"),
        ("A.MP4", "video/mp4"),
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("key!", "application/octet-stream"),
        (".ts", "application/octet-stream"),
        ("a.html", "application/octet-stream"),
        ("a.svg", "application/octet-stream"),
    ],
)
def test_content_types_are_those_of_media_not_of_the_operating_system(path: str, expected: str) -> None:
    assert content_type(path) == expected


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("a.webm", "faststart.mp4", "video/mp4"),
        ("a.mov", "faststart.mp4", "video/quicktime"),
        ("a.mp4", "a.mkv", "video/x-matroska"),
        ("a.mp4", "a.ts", "video/mp2t"),
        ("a.csv", "a.wav", "audio/wav"),
        ("a.bin", "a.flac", "audio/flac"),
        ("a.ts", "a.aac", "video/mp2t"),
        ("a.txt", b"hello", "text/plain"),
        ("a.txt", b"<headline>", "text/plain"),
        ("a.txt", b"\xef\xbb\xbf <!-- x --><html><script>", "application/octet-stream"),
        ("a.txt", b"<svg onload=x>", "application/octet-stream"),
        ("a.txt", b"<x:y xmlns:x='http://www.w3.org/1999/xhtml'>", "application/octet-stream"),
        ("a.json", "<script>".encode("utf-16"), "application/octet-stream"),
        ("a.mp4", b"<!doctype html>", "application/octet-stream"),
    ],
)
def test_the_content_type_follows_the_bytes_of_media_and_of_markup(
    name: str, body: bytes | str, expected: str
) -> None:
    start = files()[body] if isinstance(body, str) else body

    assert content_type_of(name, start[:SNIFF_BYTES]) == expected


def test_a_kind_is_recognised_by_its_first_bytes() -> None:
    reported = {name: sniff(body[:SNIFF_BYTES]) for name, body in files().items()}

    assert {name: extension_of(kind) for name, kind in reported.items()} == {
        name: {"mov": "mp4", "m4a": "mp4", "opus": "ogg"}.get(
            name.rpartition(".")[2], name.rpartition(".")[2]
        )
        for name in files()
    }
    assert set(reported.values()) < MEDIA
    assert sniff(b"PK\x03\x04") is Kind.ZIP
    assert sniff(b"\xef\xbb\xbf#EXTM3U\n") is Kind.PLAYLIST
    assert sniff(PNG) is Kind.IMAGE


@pytest.mark.parametrize(
    "start", [b"", HTML, b"hello", b"Good morning", b"The free market", "hé".encode("utf-16")]
)
def test_text_is_no_form_of_a_recording(start: bytes) -> None:
    assert sniff(start) is None


@pytest.mark.parametrize(
    ("start", "called"),
    [
        (HTML, "what looks like an HTML page"),
        (JSON_ERROR, "what looks like a JSON error answer"),
        (PNG, "an image"),
        (b"", "an empty body"),
        (b'{"a": 1}', "JSON"),
        (b"hello", "text"),
        (b"\0\1\2", "binary data that begins with b'\\x00\\x01\\x02'"),
    ],
)
def test_what_was_found_is_described(start: bytes, called: str) -> None:
    assert describe(start) == called

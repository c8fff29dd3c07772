from __future__ import annotations

import pytest

from archiving.contents.sniff import Kind, check_for, check_for_path, content_type, sniff
from tests.archiving.contents.media import single, tree
from transfer.errors import SourceMismatch

HTML = b"\n <!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
XML = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(("page", "called"), [(HTML, "HTML page"), (XML, "XML error")])
def test_an_error_page_is_no_file_of_any_kind(kind: Kind, page: bytes, called: str) -> None:
    with pytest.raises(SourceMismatch, match=called):
        check_for(kind, "a")(page, None)


@pytest.mark.parametrize("kind", list(Kind))
def test_an_empty_body_is_no_file_of_any_kind(kind: Kind) -> None:
    with pytest.raises(SourceMismatch, match="empty"):
        check_for(kind, "a")(b"", None)


def test_real_media_passes_the_check_of_its_own_name() -> None:
    files = {
        **tree("vod-ts"),
        **tree("vod-fmp4"),
        **{name: single(name) for name in ("a.mp4", "a.webm", "a.png")},
    }

    for name, body in files.items():
        check_for_path(name)(body[:512], None)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.mp4", b"G" + bytes(600)),
        ("a.webm", b"\0\0\0\x18ftypmp42"),
        ("a.ts", b"GET / HTTP/1.1" + b" " * 300),
        ("a.m4s", b"{}"),
        ("a.vtt", b"1\n00:00 --> 00:01\n"),
        ("a.png", b"GIF89a"),
        ("a.json", b"a,b\n"),
        ("a.csv", b"a\0b"),
        ("a.zip", b"\x1f\x8b"),
        ("a.m3u8", b"WEBVTT"),
    ],
)
def test_other_bytes_than_the_name_says_are_refused(name: str, start: bytes) -> None:
    with pytest.raises(SourceMismatch, match=r"^a\..*: expected"):
        check_for_path(name)(start[:512], None)


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


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_key_has_16_bytes(size: int) -> None:
    check_for(Kind.KEY, "a")(bytes(16), None)

    with pytest.raises(SourceMismatch):
        check_for(Kind.KEY, "a")(bytes(size), None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x/a.ts", "video/mp2t"),
        ("a.key", "application/octet-stream"),
        ("A.MP4", "video/mp4"),
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("key!", "application/octet-stream"),
        (".ts", "application/octet-stream"),
    ],
)
def test_content_types_are_those_of_media_not_of_the_operating_system(path: str, expected: str) -> None:
    assert content_type(path) == expected


def test_a_form_is_told_by_its_first_bytes() -> None:
    assert sniff(b"PK\x03\x04") is Kind.ZIP
    assert sniff(b"\xef\xbb\xbf#EXTM3U\n") is Kind.PLAYLIST
    assert sniff(HTML) is None
    assert sniff(b"hello") is None

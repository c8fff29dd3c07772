"""One file over HTTP: what it is called, what its bytes are, what the API says of it, and what comes of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from archiver.core.contents.base import Item
from archiver.core.contents.opening import ContentsOpener
from archiver.core.contents.sniff import SNIFF_BYTES
from archiver.hms.models import Asset
from archiver.transfer.base import SourceInfo
from archiver.transfer.errors import ErrorPage, UnexpectedContent
from archiver.transfer.http import HttpClient
from tests.core.contents.containers import files
from tests.core.contents.origin import Answer, Origin
from tests.core.contents.test_opening import CSV, HTML, STORAGE, Api, asset


class Received:
    """One file, fetched and held to its check and its structure."""

    def __init__(self, client: HttpClient, url: str, wanted: Asset) -> None:
        contents = ContentsOpener(Api(url), client)(wanted)
        (self.item,) = contents.items()
        self.warnings, self.doubts = contents.notes.warnings, list(map(str, contents.notes.doubts))
        info, self.body = fetched(self.item)
        for judge in self._judges(info):
            try:
                judge()
            except UnexpectedContent as error:
                self.doubts.append(str(error))

    def _judges(self, info: SourceInfo) -> Iterator[Callable[[], None]]:
        body, check, structure = self.body, self.item.check, self.item.structure
        if check is not None:
            yield lambda: check(body[:SNIFF_BYTES], info)
        if structure is not None:
            structure.saw(0, memoryview(body))
            yield lambda: structure.finish(len(body), None)


def fetched(item: Item) -> tuple[SourceInfo, bytes]:
    assert item.source is not None
    info, reader = item.source.open(100_000_000)
    body, piece = bytearray(), memoryview(bytearray(1_000_000))
    while count := reader.readinto(piece):
        body += piece[:count]
    reader.close()
    return info, bytes(body)


def media(name: str) -> bytes:
    return files()[name]


PNG = b"\x89PNG\r\n\x1a\n123"

# of a length that nobody knows: no structure shows whether it is whole
STREAMED = b"RIFF\xff\xff\xff\xffWAVE" + files()["a.wav"][12:]

# type, path, body, API size off by; stored as, content type, words of the warning, words of the doubt
CASES = [
    ("a composite", "room-composite", "r.mp4", "faststart.mp4", 0, "r.mp4", "video/mp4", "", ""),
    ("the API says a byte more", "room-composite", "r.mp4", "faststart.mp4", 1, "r.mp4", "video/mp4", "", ""),
    ("a track in mp4", "track", "t.webm", "fragmented.mp4", 0, "t.webm", "video/mp4",
     "named .webm, but it is an MP4 file", ""),
    ("a track in mkv", "track", "t.webm", "a.mkv", 0, "t.webm", "video/x-matroska",
     "named .webm, but it is a Matroska file", ""),
    ("a track in Ogg", "track", "t.webm", "a.opus", 0, "t.webm", "audio/ogg", "but it is an Ogg file", ""),
    ("a track in WAV", "track", "t.webm", "a.wav", 0, "t.webm", "audio/wav", "but it is a WAV file", ""),
    ("a track in FLAC", "track", "t.webm", "a.flac", 0, "t.webm", "audio/flac", "", "got a FLAC file"),
    ("a composite in TS", "room-composite", "r.mp4", "a.ts", 0, "r.mp4", "video/mp2t", "", "got an MPEG transport"),
    ("a composite in AVI", "room-composite", "r.mp4", "a.avi", 0, "r.mp4", "video/x-msvideo", "", "got an AVI file"),
    ("a track without an extension in mp4", "track", "t", "faststart.mp4", 0, "t.mp4", "video/mp4",
     "", ""),
    ("a track without an extension in FLAC", "track", "t", "a.flac", 0, "t.webm", "audio/flac", "", "got a FLAC"),
    ("mkv by name and bytes", "room-composite", "r.mkv", "a.mkv", 0, "r.mkv", "video/x-matroska", "", ""),
    ("Ogg by name and bytes", "track", "t.ogg", "vorbis.ogg", 0, "t.ogg", "audio/ogg", "", ""),
    ("WAV by name and bytes", "track", "t.wav", "rf64.wav", 0, "t.wav", "audio/wav", "", ""),
    ("WAV that was streamed, by name and bytes", "track", "t.wav", STREAMED, 0, "t.wav", "audio/wav", "", ""),
    ("a track in WAV that was streamed", "track", "t.webm", STREAMED, 0, "t.webm", "audio/wav", "", "got a WAV file"),
    ("FLAC by name and bytes", "track", "t.flac", "a.flac", 0, "t.flac", "audio/flac", "", ""),
    ("AAC by name and bytes", "track", "t.aac", "a.aac", 0, "t.aac", "audio/aac", "", ""),
    ("MP3 by name and bytes", "track", "t.mp3", "a.mp3", 0, "t.mp3", "audio/mpeg", "", ""),
    ("TS by name and bytes", "stream", "s.ts", "a.ts", 0, "s.ts", "video/mp2t", "", ""),
    ("QuickTime by name and bytes", "stream", "s.mov", "a.mov", 0, "s.mov", "video/quicktime", "", ""),
    ("an unknown type in mp4", "hologram", "h", "a.m4a", 0, "h.mp4", "video/mp4", "'hologram' is not known", ""),
    ("an image of a composite", "room-composite", "r.mp4", PNG, 0, "r.mp4", "image/png", "", "an image"),
    ("text in the place of media", "room-composite", "r.mp4", b"hello", 0, "r.mp4", "video/mp4", "", "got text"),
    ("a zip in the place of media", "track", "t.webm", b"PK\3\4", 0, "t.webm", "video/webm", "", "got a zip"),
    ("media in the place of text", "chat", "c.csv", "faststart.mp4", 0, "c.csv", "video/mp4", "", "got an MP4 file"),
    ("binary data in the place of text", "chat", "c.csv", b"a\0b", 0, "c.csv", "text/csv", "", "got binary data"),
    ("a cut mp4", "room-composite", "r.mp4", media("faststart.mp4")[:-1], 0, "r.mp4", "video/mp4", "", "last box"),
    ("an mp4 without moov", "stream", "r.mp4", media("moov-at-end.mp4")[:-2000], 0, "r.mp4", "video/mp4", "", "box"),
    ("a webm cut in a cluster", "track", "t.webm", media("a.webm")[:20000], 0, "t.webm", "video/webm", "", "element"),
    ("a cut mp4 under another name", "track", "t.webm", media("faststart.mp4")[:-1], 0, "t.webm", "video/mp4",
     "but it is an MP4 file", "last box"),
    ("a summary", "summary", "s.json", b'{"summary": "x", "error": null}', 0, "s.json", "application/json", "", ""),
    ("a summary in UTF-16", "summary", "s.json", '{"a": 1}'.encode("utf-16"), 0, "s.json", "application/json", "", ""),
    ("a summary in Markdown", "summary", "s.json", b"# Summary", 0, "s.json", "application/json", "", "got text"),
    ("a summary in prose", "summary", "s.json", b"We met.", 0, "s.json", "application/json", "", "got text"),
    ("a summary in Markdown by its name", "summary", "s.md", b"# Summary", 0, "s.md", "text/markdown", "", ""),
    ("a transcript that begins as a tag", "transcript", "t.txt", b"<headline>", 0, "t.txt", "text/plain", "", ""),
    ("a transcript behind a comment", "transcript", "t.txt", b"<!-- 1 --> hi", 0, "t.txt", "text/plain", "", ""),
    ("a transcript in TTML", "transcript", "t.txt", b"<?xml version='1.0'?><tt xmlns='x'/>", 0, "t.txt",
     "application/octet-stream", "", ""),
    ("a transcript in XML by its name", "transcript", "t.xml", b"<words/>", 0, "t.xml",
     "application/octet-stream", "", ""),
    ("an error of just the size that the API says", "transcript", "t.txt", HTML, 0, "t.txt",
     "application/octet-stream", "", "HTML page"),
    ("a JSON error of just that size", "summary", "s.json", b'{"error": "x"}', 0, "s.json", "application/json",
     "", "JSON error"),
    ("a page by its name, of the API's size", "report", "r.html", HTML, 0, "r.html", "application/octet-stream",
     "'report' is not known", ""),
    ("a page by its name, of another size", "report", "r.html", HTML, 9, "r.html", "application/octet-stream",
     "'report' is not known", "HTML page"),
    ("a query in the path", "chat", "c.csv?X-Amz-Signature=s/ecret&a=b", CSV, 0, "c.csv", "text/csv", "", ""),
    ("a question mark in the name", "chat", "why?.csv", CSV, 0, "why!3F.csv", "text/csv", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "kind", "path", "body", "off", "stored_as", "content_type", "warning", "doubt"),
    CASES,
    ids=[each[0] for each in CASES],
)
def test_a_file_is_stored_as_the_source_has_it_with_what_is_odd_about_it(
    client: HttpClient,
    origin: Origin,
    line: str,
    kind: str,
    path: str,
    body: str | bytes,
    off: int,
    stored_as: str,
    content_type: str,
    warning: str,
    doubt: str,
) -> None:
    data = media(body) if isinstance(body, str) else body
    origin.files = {"/f": data}

    got = Received(client, f"{origin.url}/f?sig=1", asset(kind, f"{STORAGE}/{path}", size=len(data) + off))

    assert got.body == data
    assert (got.item.path, got.item.content_type) == (stored_as, content_type)
    assert got.item.size_bytes is None, "the API's size is never a reason to have nothing"
    assert got.item.api_size_bytes == len(data) + off
    assert warning in "".join(got.warnings)
    assert bool(got.warnings) == bool(warning)
    assert doubt in "".join(got.doubts)
    assert bool(got.doubts) == bool(doubt)


@pytest.mark.parametrize("size", [None, 0, 12345])
@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("summary", "s.json", b'{"error":"AccessDenied","code":403}'),
        ("transcript", "t.txt", b'{"message":"rate limited"}'),
        ("transcript", "t.json", b'{"code":404,"message":"not found","details":[]}'),
        ("chat", "c.csv", b"<Error><Code>ExpiredToken</Code></Error>"),
        ("track", "t.webm", b'{"success":false}'),
        ("room-composite", "r.mp4", HTML),
        ("report", "r.xml", b"<Error><Code>ExpiredToken</Code></Error>"),
    ],
)
def test_an_error_answer_is_refused_before_anything_is_copied(
    client: HttpClient, origin: Origin, kind: str, path: str, body: bytes, size: int | None
) -> None:
    origin.files = {"/f": body}

    with pytest.raises(ErrorPage):
        Received(client, f"{origin.url}/f", asset(kind, f"{STORAGE}/{path}", size=size))


def test_a_file_that_does_not_say_how_long_it_is_has_no_structure(client: HttpClient, origin: Origin) -> None:
    """So that another size than the API's is a doubt, not a warning."""
    origin.files = {"/streamed": STREAMED, "/wav": media("a.wav")}

    assert (
        Received(client, f"{origin.url}/streamed", asset("track", f"{STORAGE}/t.wav")).item.structure is None
    )
    assert (
        Received(client, f"{origin.url}/wav", asset("track", f"{STORAGE}/t.wav")).item.structure is not None
    )


def test_an_error_answer_that_comes_only_when_it_is_copied_is_refused(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {"/f": CSV}
    contents = ContentsOpener(Api(f"{origin.url}/f"), client)(
        asset("chat", f"{STORAGE}/c.csv", size=len(CSV))
    )
    (item,) = contents.items()
    origin.rule = lambda _: Answer(200, HTML, {"Content-Type": "text/html"})
    info, body = fetched(item)
    assert item.check is not None

    with pytest.raises(ErrorPage):
        item.check(body, info)


@pytest.mark.parametrize(("kind", "path"), [("chat", "c.csv"), ("transcript", "t.txt")])
def test_an_empty_text_that_nothing_proves_empty_is_doubtful(
    client: HttpClient, origin: Origin, kind: str, path: str
) -> None:
    origin.files = {"/f": b""}

    got = Received(client, f"{origin.url}/f", asset(kind, f"{STORAGE}/{path}"))

    assert "empty body" in "".join(got.doubts)

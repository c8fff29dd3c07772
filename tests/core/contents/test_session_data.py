"""Session data and the images that its chapters name, over HTTP."""

from __future__ import annotations

import json

import pytest

from archiver.core.contents.hls.tree import HlsLimits
from archiver.transfer.errors import UnexpectedContent
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Origin
from tests.core.contents.trees import TS, copy_tree, master, segments, walk

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
JSON_ERROR = b'{"error": "AccessDenied", "message": "the link has expired"}'


def with_data(name: str, body: bytes | None = None, **more: bytes) -> dict[str, bytes]:
    files = {
        "/vod/master.m3u8": master(
            f'#EXT-X-SESSION-DATA:DATA-ID="com.apple.hls.chapters",URI="{name}"',
            "#EXT-X-STREAM-INF:BANDWIDTH=1\ns.m3u8",
        ),
        "/vod/s.m3u8": segments("a.ts"),
        "/vod/a.ts": TS,
    }
    return files | ({} if body is None else {f"/vod/{name}": body})


VIDEO = {"master.m3u8", "s.m3u8", "a.ts"}


def test_chapters_bring_their_images(client: HttpClient, origin: Origin) -> None:
    png = b"\x89PNG\r\n\x1a\n"
    chapters = json.dumps(
        [{"chapter": 1, "images": [{"url": "img/1.png"}, {"url": f"{origin.url}/other/2.png?sig=1"}]}]
    )
    origin.files = {
        "/vod/master.m3u8": master(
            '#EXT-X-SESSION-DATA:DATA-ID="com.apple.hls.chapters",URI="meta/chapters.json"',
            "#EXT-X-STREAM-INF:BANDWIDTH=1\ns.m3u8",
        ),
        "/vod/meta/chapters.json": chapters.encode(),
        "/vod/meta/img/1.png": png,
        "/other/2.png": png,
        "/vod/s.m3u8": segments("a.ts"),
        "/vod/a.ts": TS,
    }

    made = copy_tree(client, origin)

    first, second = json.loads(made.files["meta/chapters.json"])[0]["images"]
    assert first == {"url": "img/1.png"}
    assert made.files["meta/img/1.png"] == png
    assert made.files[second["url"].removeprefix("../")] == png


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("chapters.json", b'[{"chapter": 1}]'),
        ("chapters", b'{"title": "a talk"}'),
        ("data.txt", b"some words"),
        ("data", b"\x00\x01\x02"),
    ],
    ids=["JSON", "JSON by no name", "text", "bytes by no name"],
)
def test_session_data_is_copied_as_it_is(client: HttpClient, origin: Origin, name: str, body: bytes) -> None:
    origin.files = with_data(name, body)

    walked = walk(client, origin)

    assert walked.copy.failures == {}
    assert walked.doubts == []
    assert walked.paths == VIDEO | {path for path, stored in walked.copy.files.items() if stored == body}
    assert body in walked.copy.files.values()


def test_no_query_stays_in_any_url_of_the_chapters(client: HttpClient, origin: Origin) -> None:
    body = (
        b'{"more":"https://h/x?token=CANARY","less":"https:\\/\\/h\\/y?a=CANARY\\u0026b=CANARY","url":"1.png?sig=CANARY",'
        b'"src":"http://h/2.png?sig=CANARY","why":"is it so? yes"}'
    )
    origin.files = with_data("chapters.json", body)

    walked = walk(client, origin)

    stored = walked.copy.files["chapters.json"]
    assert b"CANARY" not in stored
    assert json.loads(stored)["more"] == "https://h/x"
    assert json.loads(stored)["less"] == "https://h/y"
    assert json.loads(stored)["why"] == "is it so? yes"


@pytest.mark.parametrize("name", ["chapters.json", "chapters"])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(404), "missing at the source"),
        (Answer(403), "refuses it"),
        (Answer(503, b"", {"Retry-After": "3600"}), "does not answer"),
        (Answer(200, HTML, {"Content-Type": "text/html"}), "error page"),
        (Answer(200, JSON_ERROR, {"Content-Type": "application/json"}), "error page"),
        (Answer(200, b"[" + b" " * 5000 + b"]"), "larger than"),
    ],
    ids=["gone", "refused", "busy", "login page", "JSON error", "too large"],
)
def test_session_data_that_cannot_be_had_is_a_doubt_and_costs_nothing_else(
    client: HttpClient, origin: Origin, name: str, answer: Answer, says: str
) -> None:
    origin.files = with_data(name)
    origin.rule = lambda request: answer if request.path == f"/vod/{name}" else None

    walked = walk(client, origin, limits=HlsLimits(playlist_bytes=4000))

    assert walked.paths == VIDEO
    (doubt,) = walked.notes.doubts
    assert says in doubt.what
    assert doubt.missing
    assert doubt.unready == ("does not answer" in says)


def test_session_data_that_is_empty_is_refused_by_its_own_check(client: HttpClient, origin: Origin) -> None:
    origin.files = with_data("chapters.json", b"")

    walked = walk(client, origin)

    assert walked.paths == VIDEO
    assert [type(error) for error in walked.copy.failures.values()] == [UnexpectedContent]


IMAGES = json.dumps(
    [
        {
            "images": [
                {"url": "1.png"},
                {"url": "file:///2.png"},
                {"url": "http://[/3.png"},
                {"url": "http://a:0/4.png"},
            ]
        }
    ]
).encode()


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (Answer(200, PNG), True),
        (Answer(404), False),
        (Answer(200, HTML, {"Content-Type": "text/html"}), False),
    ],
    ids=["there", "gone", "a page"],
)
def test_an_image_of_the_chapters_is_optional(
    client: HttpClient, origin: Origin, answer: Answer, stored: bool
) -> None:
    origin.files = with_data("chapters.json", IMAGES)
    origin.rule = lambda request: answer if request.path == "/vod/1.png" else None

    walked = walk(client, origin)

    assert ("1.png" in walked.paths) == stored
    assert len(walked.copy.optional_failures) == (not stored)
    assert walked.doubts == []


def test_an_image_of_the_chapters_that_is_a_segment_too_is_mandatory(
    client: HttpClient, origin: Origin
) -> None:
    chapters = json.dumps([{"images": [{"url": "a.ts"}, {"url": "s.m3u8"}]}]).encode()
    origin.files = with_data("chapters.json", chapters)

    walked = walk(client, origin)

    assert walked.paths == VIDEO | {"chapters.json"}
    assert not walked.copy.items["a.ts"].optional


def test_images_are_read_with_the_cookies_that_open_the_tree(client: HttpClient, origin: Origin) -> None:
    """They are asked for last, when whatever opened the tree at the start may have ended."""
    origin.files = with_data("chapters.json", IMAGES) | {"/vod/1.png": PNG}
    origin.headers = lambda request: Answer(0, b"", {"Set-Cookie": "session=1"})
    origin.rule = lambda request: (
        None if "master" in request.path or request.headers.get("cookie") == "session=1" else Answer(403)
    )

    assert walk(client, origin).paths == VIDEO | {"chapters.json", "1.png"}

"""Which thumbnails an asset has, where each is read, under which name it is stored, and what is fetched later."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import pytest
from pydantic import SecretStr

from archiver.core.contents.base import Contents, Item, Notes
from archiver.core.contents.opening import ContentsOpener
from archiver.core.contents.thumbnails.names import MAX_THUMBNAILS
from archiver.core.contents.thumbnails.sources import FirstAvailable, image_check
from archiver.core.contents.thumbnails.thumbnails import WithThumbnails, missing_thumbnails
from archiver.hms.models import Asset
from archiver.transfer.base import Reader, Source, SourceInfo
from archiver.transfer.errors import (
    ErrorPage,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceNotAllowed,
    SourceUnavailable,
    UnexpectedContent,
)
from archiver.transfer.http import HttpClient
from archiver.transfer.source import plain
from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.memory import MemoryBackend
from tests.core.contents.media import single, tree
from tests.core.contents.origin import Answer, Origin, copy, read_source
from tests.core.contents.test_opening import Api

STORAGE = "s3://bucket/pre/x"
PNG = b"\x89PNG\r\n\x1a\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
HTML = b"<!DOCTYPE html><html><title>503</title>Sorry</html>"
SIGNED_ALONE = "?X-Amz-Signature=CANARY"


def zipped(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, body in tree(name).items():
            archive.writestr(path, body)
    return packed.getvalue()


class Harness:
    """A room-vod at `/x/vod/` of an origin whose storage root is `s3://bucket/pre`."""

    def __init__(self, client: HttpClient, origin: Origin, form: str = "tree", query: str = "") -> None:
        self.client = client
        self.origin = origin
        files = {"zip": lambda: {"a.zip": zipped("vod-ts")}, "file": lambda: {"a.mp4": single("a.mp4")}}
        held = files[form]() if form in files else dict(tree("vod-ts"))
        self.name = next(iter(held)) if form in files else "master.m3u8"
        origin.files = {f"/x/vod/{path}": body for path, body in held.items()}
        self.query = query

    def opened(
        self, thumbnails: Sequence[object], webhook: Mapping[str, str] | None = None
    ) -> WithThumbnails:
        stored = {path: SecretStr(url) for path, url in (webhook or {}).items()}
        opener = ContentsOpener(
            Api(f"{self.origin.url}/x/vod/{self.name}{self.query}"),
            self.client,
            webhook_thumbnails=lambda _: stored,
            sleep=lambda _: None,
        )
        contents = opener(vod_asset(thumbnails, f"{STORAGE}/vod/{self.name}"))
        assert isinstance(contents, WithThumbnails)
        return contents


def vod_asset(thumbnails: Sequence[object], path: str = f"{STORAGE}/vod/master.m3u8") -> Asset:
    fields = {"id": "a1", "type": "room-vod", "status": "completed", "path": path}
    return Asset.parse({**fields, "thumbnails": list(thumbnails)})


@pytest.fixture
def harness(client: HttpClient, origin: Origin) -> Harness:
    return Harness(client, origin)


def thumbnails_of(contents: Contents) -> dict[str, bytes]:
    return {path: body for path, body in copy(contents).files.items() if path.startswith("thumbnails/")}


# -- where they are read -------------------------------------------------------------------------------------
def behind_cookies(origin: Origin) -> None:
    """The asset's own file answers all and sets a cookie; everything else wants it."""
    own = (".m3u8", ".zip", ".mp4")
    origin.headers = lambda request: (
        Answer(0, b"", {"Set-Cookie": "CloudFront-Policy=p; Path=/; Secure"})
        if request.path.endswith(own)
        else None
    )
    origin.rule = lambda request: (
        None
        if request.path.endswith(own) or request.headers.get("cookie") == "CloudFront-Policy=p"
        else Answer(403)
    )


@pytest.mark.parametrize("form", ["tree", "zip", "file"])
@pytest.mark.parametrize("given", ["a storage path", "a URL", "a webhook"])
def test_a_thumbnail_behind_a_cookie_cdn_is_asked_with_the_cookies_of_the_asset(
    client: HttpClient, origin: Origin, form: str, given: str
) -> None:
    harness = Harness(client, origin, form)
    origin.files["/x/t/1.png"] = PNG
    behind_cookies(origin)
    url = f"{origin.url}/x/t/1.png"
    listed, webhook = {
        "a storage path": ([f"{STORAGE}/t/1.png"], {}),
        "a URL": ([url], {}),
        "a webhook": ([], {f"{STORAGE}/t/1.png": url}),
    }[given]

    contents = harness.opened(listed, webhook)

    assert thumbnails_of(contents) == {"thumbnails/1.png": PNG}


@pytest.mark.parametrize("form", ["tree", "zip", "file"])
def test_the_cookies_go_to_no_other_host(
    client: HttpClient, origin: Origin, elsewhere: Origin, form: str
) -> None:
    harness = Harness(client, origin, form)
    behind_cookies(origin)
    elsewhere.rule = lambda _: Answer(403)

    contents = harness.opened([f"{elsewhere.url}/1.png"], {f"{STORAGE}/t/2.png": f"{elsewhere.url}/2.png"})
    made = copy(contents)

    assert len(made.optional_failures) == 2
    assert elsewhere.requests
    assert not any("cookie" in request.headers for request in elsewhere.requests)


def test_a_tree_that_is_redirected_has_its_thumbnails_beside_where_it_led(harness: Harness) -> None:
    origin = harness.origin
    origin.files = {f"/cdn{path}": body for path, body in origin.files.items()}
    origin.files["/cdn/x/t/1.png"] = PNG
    behind_cookies(origin)
    locked = origin.rule
    origin.rule = lambda request: (
        locked(request)
        if request.path.startswith("/cdn/")
        else Answer(302, b"", {"Location": f"{origin.url}/cdn{request.path}"})
    )

    contents = harness.opened([f"{STORAGE}/t/1.png"])

    assert thumbnails_of(contents) == {"thumbnails/1.png": PNG}
    assert origin.asked("/x/t/1.png") == 0


def test_the_thumbnails_of_a_tree_are_read_with_our_own_credentials_where_the_tree_is(
    client: HttpClient, origin: Origin
) -> None:
    store = MemoryBackend("customer")
    in_bucket = {f"pre/x/vod/{path}": body for path, body in tree("vod-ts").items()}
    for key, body in {**in_bucket, "pre/x/t/1.png": PNG}.items():
        store.put(ObjectSpec(object_key(key), "application/octet-stream"), body, crc32c_of(body))
    origin.files = {f"/{key}": body for key, body in in_bucket.items()}
    origin.rule = lambda request: None if request.query else Answer(403)
    opener = ContentsOpener(
        Api(f"{origin.url}/pre/x/vod/master.m3u8{SIGNED_ALONE}"),
        client,
        sleep=lambda _: None,
        source_store=lambda path: (store, object_key(path.removeprefix("s3://bucket/"))),
    )

    contents = opener(vod_asset([f"{STORAGE}/t/1.png"]))

    assert thumbnails_of(contents) == {"thumbnails/1.png": PNG}


# -- what is gone, and what is only refused or busy ----------------------------------------------------------
@pytest.mark.parametrize(
    ("says", "expected"),
    [
        pytest.param(Answer(404), SourceGone, id="404: gone"),
        pytest.param(Answer(410), SourceGone, id="410: gone"),
        pytest.param(Answer(403), SourceForbidden, id="403: perhaps open again at the next attempt"),
        pytest.param(Answer(503), SourceUnavailable, id="503: busy"),
        pytest.param(Answer(429), SourceUnavailable, id="429: busy"),
        pytest.param(
            Answer(200, PNG, {"Content-Length": "20", "Connection": "close"}),
            SourceUnavailable,
            id="a body that ends early: it did not arrive whole",
        ),
        pytest.param(Answer(200, HTML, {"Content-Type": "text/html"}), ErrorPage, id="an error page: gone"),
        pytest.param(
            Answer(200, HTML, {"Content-Type": "image/png"}),
            ErrorPage,
            id="an error page that says it is one",
        ),
        pytest.param(Answer(200, b""), UnexpectedContent, id="nothing: no image"),
    ],
)
@pytest.mark.parametrize("form", ["tree", "zip", "file"])
def test_what_a_thumbnail_answers_is_passed_on_as_it_is(
    client: HttpClient, origin: Origin, form: str, says: Answer, expected: type[SourceError]
) -> None:
    harness = Harness(client, origin, form)
    origin.rule = lambda request: says if request.path.endswith(".png") else None

    item = next(harness.opened([f"{STORAGE}/t/1.png"]).items())

    assert item.optional
    with pytest.raises(expected):
        _read_and_check(item)


@pytest.mark.parametrize(
    ("first", "second", "third", "expected"),
    [
        (200, 200, 200, "first"),
        (403, 200, 200, "second"),
        (404, 404, 200, "third"),
        (503, 404, 200, "third"),
        (403, 503, 200, "third"),
        (404, 403, 404, SourceForbidden),
        (503, 403, 404, SourceUnavailable),
        (404, 410, 404, SourceGone),
    ],
)
def test_all_places_of_a_thumbnail_are_tried_and_the_one_that_leaves_hope_speaks_for_them(
    harness: Harness, first: int, second: int, third: int, expected: str | type[SourceError]
) -> None:
    places = {"/url/1.png": (first, b"first"), "/x/t/1.png": (second, b"second"), "/hook": (third, b"third")}
    harness.origin.rule = lambda request: (
        Answer(places[request.path][0], PNG + places[request.path][1]) if request.path in places else None
    )
    thumbnail = {"url": f"{harness.origin.url}/url/1.png", "path": f"{STORAGE}/t/1.png"}
    contents = harness.opened([thumbnail], {f"{STORAGE}/t/1.png": f"{harness.origin.url}/hook"})

    source = next(contents.items()).source

    assert source is not None
    for each in (source, plain(source)):
        if isinstance(expected, str):
            assert read_source(each) == PNG + expected.encode()
        else:
            with pytest.raises(expected):
                read_source(each)


def test_a_place_that_is_never_read_does_not_stop_the_others() -> None:
    class Says(Source):
        name = "it"

        def __init__(self, error: SourceError) -> None:
            self.error = error

        def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
            raise self.error

        def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
            raise NotImplementedError

    source = FirstAvailable([Says(SourceNotAllowed("a private host")), Says(SourceUnavailable("busy"))])

    with pytest.raises(SourceUnavailable):
        source.open(1)


def test_a_signature_for_the_asset_alone_asks_for_no_thumbnail_and_is_a_warning(
    client: HttpClient, origin: Origin
) -> None:
    harness = Harness(client, origin, "file", query=SIGNED_ALONE)

    contents = harness.opened([f"{STORAGE}/t/1.png"])

    assert thumbnails_of(contents) == {}
    assert len(contents.notes.warnings) >= 1
    assert not any(request.path.endswith(".png") for request in origin.requests)


# -- names ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("thumbnails", "webhook", "expected"),
    [
        pytest.param(["a/1.png", "a/2.png"], [], ["1.png", "2.png"], id="by their file names"),
        pytest.param(
            ["a/1.png", "b/1.png"], [], ["1.png", "1-1.png"], id="the number of a second one before it"
        ),
        pytest.param(
            ["a/1.png", "b/1.png", "c/1.png"], [], ["1.png", "1-1.png", "2-1.png"], id="and of a third"
        ),
        pytest.param(
            ["a/1-x.png", "a/x.png", "b/x.png"],
            [],
            ["1-x.png", "x.png", "2-x.png"],
            id="a name with a number",
        ),
        pytest.param(
            ["a/2-x.png", "a/x.png", "b/x.png"],
            [],
            ["2-x.png", "x.png", "2-2-x.png"],
            id="a numbered name that is taken already",
        ),
        pytest.param(
            ["a/1.png", "a/1.png", "b/2.png"], [], ["1.png", "2.png"], id="one that is listed twice"
        ),
        pytest.param(["a/1.png"], ["b/1.png", "a/1.png"], ["1.png", "1-1.png"], id="one of a webhook alone"),
        pytest.param(["a/", "b/"], [], ["thumbnail.png", "1-thumbnail.png"], id="no file names"),
        pytest.param([None, 7, {}, "a/1.png"], [], ["1.png"], id="entries that name nothing"),
        pytest.param(["a/1.png?X-Amz-Signature=CANARY"], [], ["1.png"], id="a signature in a storage path"),
        pytest.param(["a/what?.png"], [], ["what!3F.png"], id="a question mark in a file name"),
        pytest.param(["a/ü 1.svg"], [], ["!C3!BC!201.svg"], id="letters that a key does not hold"),
    ],
)
def test_thumbnails_are_named_by_the_listing_alone(
    harness: Harness, thumbnails: list[object], webhook: list[str], expected: list[str]
) -> None:
    listed = [f"{STORAGE}/{each}" if isinstance(each, str) else each for each in thumbnails]
    signed = {f"{STORAGE}/{each}": f"{harness.origin.url}/hook/{n}" for n, each in enumerate(webhook)}
    paths = [f"thumbnails/{name}" for name in expected]
    contents = harness.opened(listed, signed)

    items = [item.path for item in contents.items() if item.optional]

    assert items == paths
    assert missing_thumbnails(set(), vod_asset(listed), dict.fromkeys(signed, SecretStr(""))) == paths
    assert not any("CANARY" in warning for warning in contents.notes.warnings)


def test_a_name_stays_when_another_thumbnail_of_that_name_cannot_be_had(
    client: HttpClient, origin: Origin
) -> None:
    harness = Harness(client, origin, "file", query=SIGNED_ALONE)
    listed = [f"{STORAGE}/a/1.png", f"{STORAGE}/b/1.png"]
    origin.files |= {"/hook/a": PNG + b"a", "/hook/b": PNG + b"b"}
    a, b = ({path: f"{origin.url}/hook/{path[-7]}"} for path in listed)

    only_second = thumbnails_of(harness.opened(listed, b))
    both = thumbnails_of(harness.opened(listed, a | b))

    assert only_second == {"thumbnails/1-1.png": PNG + b"b"}
    assert both == {"thumbnails/1.png": PNG + b"a", **only_second}


def test_a_signature_in_a_storage_path_is_in_no_warning(client: HttpClient, origin: Origin) -> None:
    harness = Harness(client, origin, "file", query=SIGNED_ALONE)

    contents = harness.opened([f"{STORAGE}/t/1.png{SIGNED_ALONE}", "https://[x/1.png?sig=CANARY"])
    items = list(contents.items())

    assert len(contents.notes.warnings) >= 2
    assert "CANARY" not in str(contents.notes.warnings) + str([item.path for item in items])


def test_no_more_than_so_many_are_copied(harness: Harness) -> None:
    contents = harness.opened([f"{STORAGE}/t/{n}.png" for n in range(MAX_THUMBNAILS + 3)])

    assert sum(item.optional for item in contents.items()) == MAX_THUMBNAILS
    assert f"3 thumbnails beyond the first {MAX_THUMBNAILS} were left out" in contents.notes.warnings


# -- what is stored ------------------------------------------------------------------------------------------
INFO = SourceInfo(size_bytes=None, ranges=False)


@pytest.mark.parametrize(
    ("name", "start", "warned"),
    [
        ("1.png", PNG, False),
        ("1.png", b"\xff\xd8\xff\xe0", False),
        ("1.webp", b"RIFF\0\0\0\0WEBPVP8 ", False),
        ("1.gif", b"GIF89a" + bytes(9), False),
        ("1.avif", b"\0\0\0\x20ftypavif", False),
        ("1.svg", SVG, False),
        ("1.svg", b'<?xml version="1.0"?>\n' + SVG, False),
        ("1", SVG, False),
        ("1.png", b"\x00\x01\x02 some other picture format", True),
        ("1.png", b"a caption in the place of a picture, in plain words", True),
    ],
)
def test_what_arrives_whole_is_stored_and_what_is_no_image_warned_of(
    name: str, start: bytes, warned: bool
) -> None:
    notes = Notes()
    check = image_check(f"thumbnails/{name}", notes)

    check(start, INFO)
    check(start, INFO)  # another attempt finds it again

    assert notes.warnings == [f"thumbnails/{name} is stored as it came, and is no image"] * warned


@pytest.mark.parametrize(
    ("name", "start", "content_type", "expected"),
    [
        ("1.png", HTML, "text/html", ErrorPage),
        ("1.svg", HTML, "text/html", ErrorPage),
        ("1.png", HTML, "image/png", ErrorPage),
        (
            "1.png",
            b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
            "application/xml",
            ErrorPage,
        ),
        ("1.png", b'{"error": "forbidden"}', "application/json", ErrorPage),
        ("1.png", b"Service Unavailable", "text/plain", UnexpectedContent),
        ("1.png", b"", None, UnexpectedContent),
        ("1.png", SVG, "image/svg+xml", UnexpectedContent),  # a browser may run what is in it
        ("1.jpg", b"<?xml version='1.0'?><a/>", None, UnexpectedContent),
    ],
)
def test_what_is_an_error_answer_or_could_harm_is_not_stored(
    name: str, start: bytes, content_type: str | None, expected: type[SourceError]
) -> None:
    info = SourceInfo(size_bytes=len(start), ranges=False, content_type=content_type)

    with pytest.raises(expected):
        image_check(f"thumbnails/{name}", Notes())(start, info)


def test_an_svg_is_stored_as_octets(harness: Harness) -> None:
    harness.origin.files["/x/t/1.svg"] = SVG

    made = copy(harness.opened([f"{STORAGE}/t/1.svg"]))

    assert made.files["thumbnails/1.svg"] == SVG
    assert made.items["thumbnails/1.svg"].content_type == "application/octet-stream"


# -- later ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["tree", "zip", "file"])
def test_only_what_is_missing_is_fetched_later_under_the_same_name(
    client: HttpClient, origin: Origin, form: str
) -> None:
    harness = Harness(client, origin, form)
    listed = [f"{STORAGE}/a/1.png", f"{STORAGE}/b/1.png", f"{STORAGE}/b/2.png"]
    bodies = {"/x/a/1.png": PNG + b"1", "/x/b/1.png": PNG + b"2", "/x/b/2.png": PNG + b"3"}
    origin.files |= bodies
    origin.rule = lambda request: Answer(503) if request.path in list(bodies)[1:] else None
    whole = harness.opened(listed)
    first = copy(whole)
    origin.rule = lambda _: None
    missing = missing_thumbnails(first.files.keys(), vod_asset(listed))
    origin.requests.clear()

    later = harness.opened(listed).only_missing(first.files.keys())
    second = copy(later)

    assert missing == ["thumbnails/1-1.png", "thumbnails/2.png"]
    assert second.files == {"thumbnails/1-1.png": PNG + b"2", "thumbnails/2.png": PNG + b"3"}
    assert later.form == whole.form
    assert later.version == whole.version
    assert not later.version_is_exact
    assert later.notes == Notes()
    asked = {request.path for request in origin.requests}
    assert asked == {"/x/vod/" + harness.name, *list(bodies)[1:]}
    stored = first.files.keys() | second.files.keys()
    assert missing_thumbnails(stored, vod_asset(listed)) == []


def test_the_version_with_thumbnails_is_that_of_the_asset(client: HttpClient, origin: Origin) -> None:
    contents = Harness(client, origin, "zip").opened([f"{STORAGE}/a/1.png"])

    assert contents.version_is_exact


def _read_and_check(item: Item) -> None:
    assert item.source is not None
    assert item.check is not None
    info, reader = item.source.open(4096)
    start, piece = bytearray(), memoryview(bytearray(4096))
    try:
        while count := reader.readinto(piece):
            start += piece[:count]
    finally:
        reader.close()
    item.check(bytes(start), info)

"""The walk of an HLS tree, over HTTP, against origins that behave in every way the real ones were seen to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from archiving.contents.base import Phase
from archiving.contents.hls import HlsContents, HlsLimits
from archiving.contents.tree_facts import Expected
from archiving.errors import BadContents, NeedsSourceAccess
from tests.archiving.contents.origin import Answer, Copy, Origin, Request, copy, signed, vod
from transfer.errors import (
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
)
from transfer.http import HttpClient
from transfer.source import RenewableUrl, SecretUrl

TS = b"G" + bytes(187)
ENDED = "#EXT-X-ENDLIST\n"


def numbered(number: int) -> bytes:
    return b"G" + bytes([number]) * 187


def master(*lines: str) -> bytes:
    return "\n".join(["#EXTM3U", *lines, ""]).encode()


def variants(*uris: str) -> bytes:
    return master(*(f"#EXT-X-STREAM-INF:BANDWIDTH=1\n{uri}" for uri in uris))


def media(*lines: str, end: str = ENDED) -> bytes:
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", *lines, end]).encode()


def segments(*uris: str, end: str = ENDED) -> bytes:
    return media(*(f"#EXTINF:2.0,\n{uri}" for uri in uris), end=end)


class Naps:
    """Sleeping without time passing; `then` runs after each."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.taken: list[float] = []
        self._then = then

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self._then()


def open_tree(
    client: HttpClient, origin: Origin, path: str = "/vod/master.m3u8", **options: object
) -> HlsContents:
    return HlsContents(client, signed(origin.url + path), **{"sleep": Naps(), **options})  # type: ignore[arg-type]


def copy_tree(client: HttpClient, origin: Origin, path: str = "/vod/master.m3u8") -> Copy:
    return copy(open_tree(client, origin, path))


# -- the plain case ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tree", ["vod-ts", "vod-fmp4"])
def test_a_tree_with_relative_names_is_copied_byte_for_byte(
    client: HttpClient, origin: Origin, tree: str
) -> None:
    origin.files = vod(tree)

    contents = open_tree(client, origin)
    made = copy(contents)

    assert {f"/vod/{path}": body for path, body in made.files.items()} == origin.files
    assert all(item.rewritten is None for item in made.items.values())
    assert contents.form == "hls"
    assert contents.notes.warnings == []


def test_what_was_found_is_told_in_numbers(client: HttpClient, origin: Origin) -> None:
    origin.files = vod("vod-fmp4")

    contents = open_tree(client, origin)
    copy(contents)

    assert contents.notes.facts == {
        "layers": 2,
        "playlists": 4,
        "segments": 9,
        "files": 11,
        "duration_seconds": 6.0,
    }


def test_another_number_of_layers_or_another_length_than_the_api_says_is_a_warning(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = vod()

    contents = open_tree(client, origin, expected=Expected(layers=4, duration_seconds=60.0))
    copy(contents)

    assert contents.notes.warnings == [
        "2 layers were found, the API says 4",
        "the segments last 6 s, the API says 60 s",
    ]


def test_media_comes_first_and_the_master_last(client: HttpClient, origin: Origin) -> None:
    origin.files = vod("vod-fmp4")

    items = list(open_tree(client, origin).items())

    assert [item.phase for item in items] == [Phase.MEDIA] * 11 + [Phase.PLAYLIST] * 3 + [Phase.MASTER]
    assert items[-1].path == "master.m3u8"


def test_media_is_found_while_playlists_are_read(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()

    first = next(iter(open_tree(client, origin).items()))

    assert first.path == "stream_0/segment_00000.ts"
    assert origin.asked("/vod/stream_1/stream.m3u8") == 0


def test_a_single_media_playlist_is_a_tree_too(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/x/index.m3u8": segments("a.ts", "b.ts"), "/x/a.ts": TS, "/x/b.ts": TS}

    contents = open_tree(client, origin, "/x/index.m3u8")
    made = copy(contents)

    assert set(made.files) == {"index.m3u8", "a.ts", "b.ts"}
    assert made.items["index.m3u8"].phase is Phase.MASTER
    assert contents.notes.facts["layers"] == 1


def test_content_types_are_those_of_hls(client: HttpClient, origin: Origin) -> None:
    origin.files = vod("vod-fmp4")

    items = copy_tree(client, origin).items

    assert {path.rsplit(".", 1)[1]: item.content_type for path, item in items.items()} == {
        "m3u8": "application/vnd.apple.mpegurl",
        "mp4": "video/mp4",
        "m4s": "video/iso.segment",
        "vtt": "text/vtt",
    }


def test_a_gzip_encoded_playlist_is_stored_plain(client: HttpClient, origin: Origin) -> None:
    files = vod()
    origin.files = files
    origin.rule = lambda request: (
        Answer(200, gzip.compress(files[request.path]), {"Content-Encoding": "gzip"})
        if request.path.endswith(".m3u8")
        else None
    )

    assert copy_tree(client, origin).files["master.m3u8"] == files["/vod/master.m3u8"]


# -- where references lead -----------------------------------------------------------------------------------
def test_references_that_lead_out_are_stored_inside_and_rewritten(
    client: HttpClient, origin: Origin, elsewhere: Origin
) -> None:
    origin.files = {
        "/vod/a/master.m3u8": variants("low/s.m3u8"),
        "/vod/a/low/s.m3u8": segments(
            "1.ts", "../../shared/2.ts", f"{origin.url}/vod/a/low/3.ts", "/root/4.ts"
        ),
        "/vod/a/low/1.ts": numbered(1),
        "/vod/shared/2.ts": numbered(2),
        "/vod/a/low/3.ts": numbered(3),
        "/root/4.ts": numbered(4),
    }

    made = copy_tree(client, origin, "/vod/a/master.m3u8")

    assert set(made.files) > {"master.m3u8", "low/s.m3u8", "low/1.ts", "low/3.ts"}
    written = [line for line in made.files["low/s.m3u8"].decode().split("\n") if line.endswith(".ts")]
    outside = sorted(path for path in made.files if path.startswith("_ext/"))
    assert written[0] == "1.ts"
    assert written[2] == "3.ts"
    assert sorted([written[1], written[3]]) == sorted(f"../{path}" for path in outside)
    assert {made.files[path] for path in outside} == {numbered(2), numbered(4)}
    assert made.items["low/s.m3u8"].rewritten is not None
    assert made.items["low/s.m3u8"].rewritten["references"] == 3
    assert made.items["master.m3u8"].rewritten is None


def test_a_signature_is_no_part_of_a_name_and_never_stays_in_the_copy(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {
        "/vod/master.m3u8": variants("s.m3u8?Policy=p1&Signature=secret1&Key-Pair-Id=k"),
        "/vod/s.m3u8": segments(
            "a.ts?Signature=secret2&Expires=1", "a.ts?Signature=secret3", "b.ts?part=1", "b.ts?part=2"
        ),
        "/vod/a.ts": TS,
        "/vod/b.ts": TS,
    }

    made = copy_tree(client, origin)

    assert {"master.m3u8", "s.m3u8", "a.ts"} < set(made.files)
    assert len([path for path in made.files if path.startswith("_ext/")]) == 2
    assert origin.asked("/vod/a.ts") == 1
    assert origin.asked("/vod/b.ts") == 2
    assert not any(
        b"?" in body or b"secret" in body for path, body in made.files.items() if path.endswith("m3u8")
    )


def test_many_byte_ranges_of_one_file_are_one_object(client: HttpClient, origin: Origin) -> None:
    lines = [f"#EXTINF:2.0,\n#EXT-X-BYTERANGE:188@{188 * number}\nall.ts" for number in range(10)]
    origin.files = {"/vod/master.m3u8": media(*lines), "/vod/all.ts": TS * 10}

    made = copy_tree(client, origin)

    assert made.files["all.ts"] == TS * 10
    assert origin.asked("/vod/all.ts") == 1


def test_children_are_resolved_against_the_redirected_address(client: HttpClient, origin: Origin) -> None:
    origin.files = vod(below="/cdn/v7")
    origin.rule = lambda request: (
        Answer(302, b"", {"Location": "/cdn/v7/master.m3u8"}) if request.path == "/vod/latest" else None
    )

    made = copy_tree(client, origin, "/vod/latest")

    assert {f"/cdn/v7/{path}": body for path, body in made.files.items()} == origin.files


def test_a_child_playlist_that_is_redirected_has_its_files_from_there(
    client: HttpClient, origin: Origin
) -> None:
    files = vod()
    moved = {path: body for path, body in files.items() if path.startswith("/vod/stream_0/")}
    origin.files = {path: body for path, body in files.items() if path not in moved} | {
        path.replace("/vod/stream_0/", "/moved/"): body for path, body in moved.items()
    }
    origin.rule = lambda request: (
        Answer(301, b"", {"Location": "/moved/stream.m3u8"})
        if request.path == "/vod/stream_0/stream.m3u8"
        else None
    )

    made = copy_tree(client, origin)

    lines = made.files["stream_0/stream.m3u8"].decode().split("\n")
    first = next(line for line in lines if line.endswith("segment_00000.ts"))
    assert first.startswith("../_ext/")
    assert made.files[first.removeprefix("../")] == files["/vod/stream_0/segment_00000.ts"]


@pytest.mark.parametrize(
    "name",
    [
        "two words.ts",
        "caf\u00e9.ts",
        "a%2Fb.ts",
        "noextension",
        "video.mp4/1.ts",
        "x!y.ts",
        "a:b.ts",
    ],
)
def test_a_name_that_not_every_store_takes_is_replaced_and_still_found(
    client: HttpClient, origin: Origin, name: str
) -> None:
    written = name.replace("a:b", "./a:b")
    path = "/vod/a/b.ts" if name == "a%2Fb.ts" else f"/vod/{name}"
    origin.files = {"/vod/master.m3u8": segments(written), path: TS}

    made = copy_tree(client, origin)

    (reference,) = [
        line for line in made.files["master.m3u8"].decode().split("\n") if line and line[0] != "#"
    ]
    assert reference in made.files
    assert reference.startswith("_ext/")
    assert made.files[reference] == TS


def test_variables_are_written_out_and_a_signed_one_is_gone(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": master(
            '#EXT-X-DEFINE:QUERYPARAM="token"',
            '#EXT-X-DEFINE:NAME="layer",VALUE="stream_0"',
            "#EXT-X-STREAM-INF:BANDWIDTH=1",
            "{$layer}/s.m3u8?token={$token}",
        ),
        "/vod/stream_0/s.m3u8": media('#EXT-X-DEFINE:IMPORT="token"', "#EXTINF:2.0,", "a.ts?token={$token}"),
        "/vod/stream_0/a.ts": TS,
    }
    origin.rule = lambda request: None if request.query.get("token") == ["s3cret"] else Answer(403)

    made = copy_tree(client, origin, "/vod/master.m3u8?token=s3cret")

    assert set(made.files) == {"master.m3u8", "stream_0/s.m3u8", "stream_0/a.ts"}
    assert b'NAME="token",VALUE=""' in made.files["master.m3u8"]
    assert not any(b"s3cret" in body for body in made.files.values())


def test_keys_are_copied_and_those_of_other_systems_left(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": media(
            '#EXT-X-KEY:METHOD=AES-128,URI="/keys/1.key"',
            "#EXTINF:2.0,\nencrypted.ts",
            '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://key-2",KEYFORMAT="com.apple.streamingkeydelivery"',
            "#EXTINF:2.0,\nplain.ts",
        ),
        "/keys/1.key": b"0123456789abcdef",
        "/vod/encrypted.ts": bytes(range(256)),
        "/vod/plain.ts": TS,
    }

    made = copy_tree(client, origin)

    assert b"0123456789abcdef" in made.files.values()
    assert b'URI="skd://key-2"' in made.files["master.m3u8"]


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


def test_a_partial_segment_that_is_gone_is_no_loss(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": media(
            '#EXT-X-PART:DURATION=1,URI="part.ts"',
            '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="/next.ts"',
            "#EXTINF:2.0,\na.ts",
        ),
        "/vod/a.ts": TS,
    }

    made = copy_tree(client, origin)

    assert len(made.optional_failures) == 1
    assert set(made.files) == {"master.m3u8", "a.ts"}
    assert origin.asked("/next.ts") == 0
    assert b'URI="/' not in made.files["master.m3u8"]


def test_ads_are_noted_and_do_not_fail_the_asset(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": media(
            '#EXT-X-DATERANGE:ID="1",X-ASSET-LIST="https://ads.example/list?u=me"', "#EXTINF:2.0,\na.ts"
        ),
        "/vod/a.ts": TS,
    }

    contents = open_tree(client, origin)
    copy(contents)

    (warning,) = contents.notes.warnings
    assert "https://ads.example/list" in warning
    assert "u=me" not in warning


# -- what is missing or wrong --------------------------------------------------------------------------------
def test_a_gap_is_not_fetched(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": media("#EXTINF:2.0,\n#EXT-X-GAP\nlost.ts", "#EXTINF:2.0,\na.ts"),
        "/vod/a.ts": TS,
    }

    contents = open_tree(client, origin)
    made = copy(contents)

    assert set(made.files) == {"master.m3u8", "a.ts"}
    assert contents.notes.facts["gaps"] == 1


def test_a_missing_segment_is_an_error(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    del origin.files["/vod/stream_1/segment_00001.ts"]

    with pytest.raises(SourceGone):
        copy_tree(client, origin)


@pytest.mark.parametrize(
    "path", ["/vod/stream_0/segment_00001.ts", "/vod/stream_0/stream.m3u8", "/vod/master.m3u8"]
)
def test_a_web_page_in_place_of_a_file_is_an_error(client: HttpClient, origin: Origin, path: str) -> None:
    origin.files = vod() | {path: b"<!DOCTYPE html><html>Sorry</html>"}

    with pytest.raises(SourceMismatch, match="HTML page"):
        copy_tree(client, origin)


def test_a_playlist_that_still_grows_is_read_to_its_end(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": segments("a.ts", end=""), "/vod/a.ts": TS, "/vod/b.ts": TS}
    naps = Naps(then=lambda: origin.files.update({"/vod/master.m3u8": segments("a.ts", "b.ts")}))

    contents = open_tree(client, origin, sleep=naps)
    made = copy(contents)

    assert set(made.files) == {"master.m3u8", "a.ts", "b.ts"}
    assert contents.notes.warnings == []
    assert len(naps.taken) == 1


def test_a_playlist_that_is_never_ended_is_archived_with_a_warning(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {"/vod/master.m3u8": segments("a.ts", end=""), "/vod/a.ts": TS}

    contents = open_tree(client, origin)
    made = copy(contents)

    assert set(made.files) == {"master.m3u8", "a.ts"}
    assert "no EXT-X-ENDLIST" in contents.notes.warnings[0]
    assert origin.asked("/vod/master.m3u8") == 3


def test_a_playlist_that_grows_without_end_is_tried_again_later(client: HttpClient, origin: Origin) -> None:
    numbers = iter(range(1000))
    origin.rule = lambda request: Answer(200, segments(*[f"{n}.ts" for n in range(next(numbers))], end=""))

    with pytest.raises(SourceUnavailable, match="still growing"):
        copy_tree(client, origin)


def test_a_variant_that_names_the_master_ends(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": variants("s.m3u8"),
        "/vod/s.m3u8": variants("master.m3u8", "s.m3u8") + b"#EXTINF:2.0,\na.ts\n#EXT-X-ENDLIST\n",
        "/vod/a.ts": TS,
    }

    assert set(copy_tree(client, origin).files) == {"master.m3u8", "s.m3u8", "a.ts"}


def test_playlists_that_lead_ever_deeper_are_refused(client: HttpClient, origin: Origin) -> None:
    origin.rule = lambda request: Answer(200, variants(f"{request.path.rsplit('/', 1)[1][:-5]}x.m3u8"))

    with pytest.raises(BadContents, match="levels deep"):
        copy_tree(client, origin)


def test_too_many_playlists_are_refused(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": variants(*[f"{number}.m3u8" for number in range(501)])}

    with pytest.raises(BadContents, match="more than 500 playlists"):
        copy_tree(client, origin)


def test_too_many_references_are_refused(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": segments(*[f"{number}.ts" for number in range(11)])}
    contents = open_tree(client, origin, limits=HlsLimits(references=10))

    with pytest.raises(BadContents, match="more than 10 references"):
        list(contents.items())


def test_a_playlist_without_end_is_refused(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": segments(*["a.ts"] * 100)}

    with pytest.raises(SourceMismatch, match="larger than"):
        open_tree(client, origin, limits=HlsLimits(playlist_bytes=1000))


def test_playlists_that_fill_the_memory_are_refused(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()

    with pytest.raises(BadContents, match="bytes together"):
        copy(open_tree(client, origin, limits=HlsLimits(all_playlists_bytes=600)))


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "ftp://example.org/a.ts", "javascript:x"])
def test_only_http_is_followed(client: HttpClient, origin: Origin, uri: str) -> None:
    origin.files = {"/vod/master.m3u8": segments(uri)}

    with pytest.raises(BadContents, match="never followed"):
        copy_tree(client, origin)


def test_a_playlist_cannot_send_us_to_another_private_host(
    client: HttpClient, origin: Origin, elsewhere: Origin
) -> None:
    elsewhere.files = {"/a.ts": TS}
    origin.files = {"/vod/master.m3u8": segments(f"{elsewhere.url}/a.ts")}

    with pytest.raises(SourceNotAllowed):
        copy_tree(client, origin)
    assert elsewhere.requests == []


def test_a_playlist_that_names_nothing_is_no_recording(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/vod/master.m3u8": b"#EXTM3U\n"}

    with pytest.raises(BadContents, match="names no files"):
        copy_tree(client, origin)


# -- who may read the children (trap 7) ----------------------------------------------------------------------
def cookie_of(request: Request) -> str | None:
    return request.headers.get("cookie")


def test_cookies_of_the_master_open_its_children(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    origin.headers = lambda request: Answer(
        0, b"", {"Set-Cookie": "CloudFront-Policy=p; Path=/; Secure; HttpOnly"}
    )
    origin.rule = lambda request: (
        None if "master" in request.path or cookie_of(request) == "CloudFront-Policy=p" else Answer(403)
    )

    made = copy_tree(client, origin)

    assert len(made.files) == len(origin.files)
    refused = [request for request in origin.requests if cookie_of(request) is None]
    assert len(refused) == 2, "the master, and the first child once"


def test_a_folder_token_is_carried_over_only_where_it_is_needed(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    origin.rule = lambda request: None if request.query.get("hdnts") == ["t~acl=/*"] else Answer(403)

    made = copy_tree(client, origin, "/vod/master.m3u8?hdnts=t~acl=/*")

    assert {f"/vod/{path}": body for path, body in made.files.items()} == origin.files


def test_children_that_are_open_get_neither_cookie_nor_token(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    origin.headers = lambda request: Answer(0, b"", {"Set-Cookie": "session=1"})

    copy_tree(client, origin, "/vod/master.m3u8?token=t")

    children = [request for request in origin.requests if "master" not in request.path]
    assert not any(cookie_of(request) or request.query for request in children)


def test_neither_cookie_nor_token_goes_to_another_host(
    origin: Origin, elsewhere: Origin, client: HttpClient
) -> None:
    """Both origins are handed out by the API here, or the policy would refuse the other one at once."""
    elsewhere.rule = lambda request: Answer(403)
    origin.files = {"/vod/master.m3u8": segments("a.ts", f"{elsewhere.url}/b.ts"), "/vod/a.ts": TS}
    origin.headers = lambda request: Answer(0, b"", {"Set-Cookie": "session=1"})
    origin.rule = lambda request: None if "master" in request.path or cookie_of(request) else Answer(403)
    trusted = frozenset({SecretUrl(origin.url).origin, SecretUrl(elsewhere.url).origin})

    class Both(RenewableUrl):
        def current(self):  # type: ignore[no-untyped-def]
            return replace(super().current(), handed_out=trusted)

    address = Both(lambda: SecretUrl(f"{origin.url}/vod/master.m3u8?token=t"))
    with pytest.raises(SourceForbidden):
        copy(HlsContents(client, address, sleep=Naps()))

    assert elsewhere.requests
    assert not any(cookie_of(request) or request.query for request in elsewhere.requests)


@pytest.mark.parametrize("kind", ["variants", "media"])
@pytest.mark.parametrize("signature", ["X-Amz-Signature=abc&X-Amz-Credential=k", "X-Goog-Signature=abc"])
def test_a_signature_for_the_master_alone_needs_access_to_the_source(
    client: HttpClient, origin: Origin, signature: str, kind: str
) -> None:
    files = vod()
    files["/vod/master.m3u8"] = files["/vod/master.m3u8"] if kind == "variants" else segments("a.ts")
    origin.files = files
    origin.rule = lambda request: Answer(403) if "master" not in request.path else None

    with pytest.raises(NeedsSourceAccess, match=r"only .*/vod/master.m3u8 is signed") as caught:
        copy_tree(client, origin, f"/vod/master.m3u8?{signature}")

    assert "abc" not in str(caught.value)
    assert not any(request.query for request in origin.requests if "master" not in request.path)


def test_children_that_are_refused_without_such_a_signature_are_forbidden(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = vod()
    origin.rule = lambda request: Answer(403) if "master" not in request.path else None

    with pytest.raises(SourceForbidden):
        copy_tree(client, origin)


class Signer:
    """An API that signs the master anew, and an origin that believes only the newest signature of all files,
    which its playlists carry."""

    def __init__(self, origin: Origin, in_playlists: bool) -> None:
        self.origin = origin
        self.valid = 0
        self.signed = 0
        self._in_playlists = in_playlists
        origin.rule = self._rule

    def sign(self) -> SecretUrl:
        self.signed += 1
        self.valid = self.signed
        return SecretUrl(f"{self.origin.url}/vod/master.m3u8?token=t{self.valid}")

    def expire(self) -> None:
        self.valid = -1

    def _rule(self, request: Request) -> Answer | None:
        if request.query.get("token") != [f"t{self.valid}"]:
            return Answer(403)
        body = self.origin.files.get(request.path, b"")
        if not (self._in_playlists and request.path.endswith(".m3u8")):
            return None
        lines = body.decode().split("\n")
        return Answer(
            200,
            "\n".join(
                f"{line}?token=t{self.valid}" if line and line[0] != "#" else line for line in lines
            ).encode(),
        )


@pytest.mark.parametrize(
    "in_playlists", [False, True], ids=["one token for the folder", "each child is signed"]
)
def test_a_signature_that_expires_in_the_middle_is_renewed(
    client: HttpClient, origin: Origin, in_playlists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiving.contents.access.MIN_RENEWAL_AGE", timedelta())
    origin.files = vod("vod-fmp4")
    signer = Signer(origin, in_playlists)
    contents = HlsContents(client, RenewableUrl(signer.sign), sleep=Naps())
    seen = []

    def watched():  # type: ignore[no-untyped-def]
        for item in contents.items():
            seen.append(item.path)
            if len(seen) in (3, 6):
                signer.expire()
            yield item

    class Watched:
        items = staticmethod(watched)

    made = copy(Watched())  # type: ignore[arg-type]

    assert signer.signed == 3
    assert {path: body for path, body in made.files.items() if not path.endswith("m3u8")} == {
        path.removeprefix("/vod/"): body for path, body in origin.files.items() if not path.endswith("m3u8")
    }
    assert not any(b"token" in body for body in made.files.values())


def test_a_file_that_stays_forbidden_does_not_cost_a_signature_each_time(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {"/vod/master.m3u8": segments(*[f"{number}.ts" for number in range(50)])}
    signatures = []

    def sign() -> SecretUrl:
        signatures.append(1)
        return SecretUrl(f"{origin.url}/vod/master.m3u8")

    origin.rule = lambda request: None if "master" in request.path else Answer(403)
    refused = 0
    for item in HlsContents(client, RenewableUrl(sign), sleep=Naps()).items():
        if item.source is not None:
            with pytest.raises(SourceForbidden):
                item.source.open(1)
            refused += 1

    assert refused == 50
    assert len(signatures) <= 3


# -- naming versions -----------------------------------------------------------------------------------------
def test_another_signature_is_not_another_version(client: HttpClient, origin: Origin) -> None:
    origin.files = {
        "/vod/master.m3u8": variants("s.m3u8?Signature=one"),
        "/vod/t/master.m3u8": variants("s.m3u8?Signature=two"),
    }

    one, two = open_tree(client, origin), open_tree(client, origin, "/vod/t/master.m3u8")

    assert one.version == two.version
    origin.files["/vod/master.m3u8"] = variants("other.m3u8")
    assert open_tree(client, origin).version != one.version

"""The walk of an HLS tree with which nothing is wrong, over HTTP."""

from __future__ import annotations

import gzip

import pytest

from archiver.core.contents.base import Phase
from archiver.core.contents.hls.facts import Expected
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Origin, copy, vod
from tests.core.contents.trees import (
    TS,
    copy_tree,
    master,
    media,
    numbered,
    open_tree,
    segments,
    variants,
)


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
    assert contents.notes.doubts == []
    assert not contents.version_is_exact


def test_what_was_found_is_counted(client: HttpClient, origin: Origin) -> None:
    origin.files = vod("vod-fmp4")

    contents = open_tree(client, origin)
    copy(contents)

    assert contents.notes.facts.pop("playlists_sha256")
    assert contents.notes.facts == {
        "layers": 2,
        "playlists": 4,
        "segments": 9,
        "files": 11,
        "duration_seconds": 6.0,
    }


@pytest.mark.parametrize(
    "expected",
    [
        Expected(layers=2, duration_seconds=6.0),
        Expected(layers=0, duration_seconds=0.0),
        Expected(duration_seconds=9.0),
        Expected(duration_seconds=3.0),
    ],
    ids=["the same", "nothing", "rounded up by a segment and a second", "rounded down"],
)
def test_what_the_api_says_of_a_tree_and_agrees_is_not_worth_a_word(
    client: HttpClient, origin: Origin, expected: Expected
) -> None:
    origin.files = vod()

    contents = open_tree(client, origin, expected=expected)
    copy(contents)

    assert contents.notes.warnings == []
    assert contents.notes.doubts == []


def test_more_layers_than_the_api_says_are_a_warning(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()

    contents = open_tree(client, origin, expected=Expected(layers=1))
    copy(contents)

    assert contents.notes.warnings == ["2 layers were found, the API says 1"]
    assert contents.notes.doubts == []


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
            "a.ts?Signature=secret2&Key-Pair-Id=k&Expires=1",
            "a.ts?Signature=secret3&Key-Pair-Id=k",
            "b.ts?part=1",
            "b.ts?part=2",
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


def test_the_digest_of_all_playlists_is_that_of_the_tree_whatever_its_signature(
    client: HttpClient, origin: Origin
) -> None:
    def digest(signature: str, *names: str) -> tuple[str, object]:
        origin.files = {
            "/vod/master.m3u8": variants(f"s.m3u8?Signature={signature}&Key-Pair-Id=k"),
            "/vod/s.m3u8": segments(*(f"{name}?Signature={signature}&Key-Pair-Id=k" for name in names)),
            "/vod/a.ts": TS,
            "/vod/b.ts": TS,
        }
        contents = open_tree(client, origin)
        copy(contents)
        return contents.version, contents.notes.facts["playlists_sha256"]

    first = digest("one", "a.ts")

    assert digest("two", "a.ts") == first
    version, playlists = digest("two", "a.ts", "b.ts")
    assert version == first[0], "the master is the same"
    assert playlists != first[1]


# -- `//` in paths (RFC 3986 keeps empty segments) -----------------------------------------------------------
def test_children_are_asked_for_where_empty_segments_of_the_path_lead(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = {
        "/f//x//master.m3u8": variants("v//s.m3u8", "w/s.m3u8"),
        "/f//x//v//s.m3u8": segments("a.ts", "b//c.ts", "..//d.ts", "../e.ts"),
        "/f//x//w/s.m3u8": segments("x/a.ts", "x//a.ts", "/f//g.ts"),
        "/f//x//v//a.ts": numbered(1),
        "/f//x//v//b//c.ts": numbered(2),
        "/f//x//v//d.ts": numbered(3),
        "/f//x//v/e.ts": numbered(4),
        "/f//x//w/x/a.ts": numbered(5),
        "/f//x//w/x//a.ts": numbered(6),
        "/f//g.ts": numbered(7),
    }

    made = copy_tree(client, origin, "/f//x//master.m3u8")

    media_files = [body for path, body in made.files.items() if path.endswith(".ts")]
    assert {request.path for request in origin.requests} == set(origin.files)
    assert sorted(media_files) == sorted(map(numbered, range(1, 8)))

"""From an asset of the API to its contents, over HTTP: the bytes decide, and names and checks follow."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from archiver.core.contents.base import Contents
from archiver.core.contents.opening import ContentsOpener, OpeningRules
from archiver.core.contents.thumbnails.thumbnails import map_path
from archiver.core.contents.zip.zipped import ZipMode
from archiver.hms.models import Asset, Page, SignedUrl
from archiver.transfer.errors import ErrorPage, SourceForbidden, SourceMismatch, SourceUnavailable
from archiver.transfer.http import HttpClient
from archiver.transfer.urls import SecretUrl
from tests.core.contents.media import single, tree
from tests.core.contents.origin import Answer, Origin, copy, vod

CSV = b"SenderPeerID,SenderName,SenderUserID,Roles,SentAt,Type,Message\n1,Ann,u,host,now,chat,hello\n"
HTML = b"<!DOCTYPE html><html>Sorry</html>"
STORAGE = "s3://bucket/pre/beam/r1/20260301"


class Api:
    """`hms.base.RecordingAssets` that hands out one URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.signed = 0

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        self.signed += 1
        return SignedUrl(id=asset_id, url=SecretStr(self.url), expiry=int(duration.total_seconds()))

    def asset(self, asset_id: str) -> Asset:
        raise NotImplementedError

    def pages(self, **_: str | None) -> Any:
        return iter([Page(assets=(), next_start=None)])


def asset(kind: str, path: str | None, **fields: object) -> Asset:
    return Asset.parse({"id": "a1", "type": kind, "status": "completed", "path": path, **fields})


def opened(
    client: HttpClient,
    url: str,
    wanted: Asset,
    webhook: Mapping[str, str] | None = None,
    **rules: Any,
) -> Contents:
    stored = {path: SecretStr(each) for path, each in (webhook or {}).items()}
    opener = ContentsOpener(Api(url), client, OpeningRules(**rules), lambda _: stored, sleep=lambda _: None)
    return opener(wanted)


# -- single files --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "path", "body", "stored_as", "content_type"),
    [
        ("room-composite", f"{STORAGE}/Rec-r1-17.mp4", "a.mp4", "Rec-r1-17.mp4", "video/mp4"),
        ("room-composite-legacy", None, "a.mp4", "room-composite-legacy.mp4", "video/mp4"),
        ("stream", f"{STORAGE}/stream", "a.mp4", "stream.mp4", "video/mp4"),
        ("track", f"{STORAGE}/t 1.webm", "a.webm", "t!201.webm", "video/webm"),
        ("chat", f"{STORAGE}/Rec-r1-17.csv", CSV, "Rec-r1-17.csv", "text/csv"),
        (
            "transcript",
            f"{STORAGE}/t.srt",
            b"1\n00:00:00,000 --> 00:00:01,000\nhi\n",
            "t.srt",
            "application/x-subrip",
        ),
        ("transcript", f"{STORAGE}/t.txt", b"hello", "t.txt", "text/plain"),
        ("transcript", f"{STORAGE}/t", b'{"a": 1}', "t.json", "application/json"),
        ("summary", f"{STORAGE}/asset.json", b"[]", "!61sset.json", "application/json"),
        ("hologram", f"{STORAGE}/x.holo", b"\1\2\3", "x.holo.bin", "application/octet-stream"),
        ("hologram", None, "a.webm", "hologram.webm", "video/webm"),
    ],
)
def test_a_file_is_named_by_its_path_and_its_type(
    client: HttpClient,
    origin: Origin,
    kind: str,
    path: str | None,
    body: bytes | str,
    stored_as: str,
    content_type: str,
) -> None:
    data = single(body) if isinstance(body, str) else body
    origin.files = {"/f": data}

    contents = opened(client, f"{origin.url}/f?sig=1", asset(kind, path, size=len(data)))
    made = copy(contents)

    assert contents.form == "file"
    assert made.files == {stored_as: data}
    assert made.items[stored_as].content_type == content_type
    assert made.items[stored_as].api_size_bytes == len(data)
    assert contents.notes.warnings == ([] if kind != "hologram" else [contents.notes.warnings[0]])
    assert contents.notes.doubts == []


EMPTY_BY = {
    "an S3 ETag": {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'},
    "an OSS ETag": {"ETag": '"D41D8CD98F00B204E9800998ECF8427E"'},
    "GCS's hashes": {"x-goog-hash": "crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg=="},
}


@pytest.mark.parametrize("proof", EMPTY_BY)
@pytest.mark.parametrize("path", ["Rec-r1-17.csv", "t.txt", "t.srt"])
def test_a_chat_or_transcript_with_the_checksum_of_nothing_is_archived_with_a_warning(
    client: HttpClient, origin: Origin, path: str, proof: str
) -> None:
    origin.rule = lambda _: Answer(200, b"", EMPTY_BY[proof])
    kind = "chat" if path.endswith("csv") else "transcript"

    contents = opened(client, f"{origin.url}/f", asset(kind, f"{STORAGE}/{path}", size=0))
    made = copy(contents)

    assert made.files == {path: b""}
    assert "is empty at the source" in contents.notes.warnings[0]


@pytest.mark.parametrize(
    ("kind", "path", "size", "headers"),
    [
        ("room-composite", "a.mp4", None, EMPTY_BY["an S3 ETag"]),
        ("summary", "a.json", None, EMPTY_BY["an S3 ETag"]),
        ("chat", "a.csv", 100, EMPTY_BY["an S3 ETag"]),
        ("chat", "a.csv", None, {"ETag": '"of-a-file-that-was-not-empty"'}),
        ("chat", "a.csv", None, {}),
    ],
)
def test_another_empty_body_is_no_file(
    client: HttpClient, origin: Origin, kind: str, path: str, size: int | None, headers: dict[str, str]
) -> None:
    origin.rule = lambda _: Answer(200, b"", headers)

    with pytest.raises(SourceMismatch, match="empty body"):
        copy(opened(client, f"{origin.url}/f", asset(kind, f"{STORAGE}/{path}", size=size)))


def test_a_page_in_the_place_of_a_file_that_was_empty_a_moment_ago_is_no_chat(
    client: HttpClient, origin: Origin
) -> None:
    origin.rule = lambda _: Answer(200, b"", EMPTY_BY["an S3 ETag"])
    contents = opened(client, f"{origin.url}/f", asset("chat", f"{STORAGE}/c.csv"))
    origin.rule = lambda _: Answer(200, HTML)

    with pytest.raises(SourceMismatch, match="HTML page"):
        copy(contents)


def test_an_unknown_type_is_kept_with_a_warning(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/f": b"\1"}

    contents = opened(client, f"{origin.url}/f", asset("hologram", None))

    assert "'hologram' is not known" in contents.notes.warnings[0]


@pytest.mark.parametrize("kind", ["room-composite", "chat", "transcript", "summary", "track", "hologram"])
def test_a_web_page_is_no_recording(client: HttpClient, origin: Origin, kind: str) -> None:
    origin.files = {"/f": HTML}

    with pytest.raises(SourceMismatch, match="HTML page"):
        copy(opened(client, f"{origin.url}/f", asset(kind, None)))


def test_a_size_of_zero_is_the_api_saying_nothing(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/f": CSV}

    (item,) = opened(client, f"{origin.url}/f", asset("chat", None, size=0)).items()

    assert item.api_size_bytes is None


def test_a_version_follows_the_validator_of_the_file(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/f": CSV}
    one = opened(client, f"{origin.url}/f?sig=1", asset("chat", None)).version
    again = opened(client, f"{origin.url}/f?sig=2", asset("chat", None)).version
    origin.files = {"/f": CSV + b"more"}
    changed = opened(client, f"{origin.url}/f", asset("chat", None)).version

    assert one == again
    assert changed != one


# -- VODs ----------------------------------------------------------------------------------------------------
def test_a_vod_is_a_tree_when_its_bytes_are_a_playlist(client: HttpClient, origin: Origin) -> None:
    origin.files = vod()
    wanted = asset("room-vod", f"{STORAGE}/vod/master.zip", duration=6, metadata={"num_layers": "2"})

    contents = opened(client, f"{origin.url}/vod/master.m3u8", wanted)

    assert contents.form == "hls"
    assert len(copy(contents).files) == len(origin.files)
    assert contents.notes.warnings == []


def test_a_vod_is_a_zip_when_its_bytes_are(client: HttpClient, origin: Origin) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for path, body in tree("vod-ts").items():
            archive.writestr(path, body)
    origin.files = {"/vod.m3u8": held.getvalue()}
    wanted = asset("room-vod", f"{STORAGE}/vod/Rec-r1-17", metadata={"num_layers": "3"}, size=1)

    unpacked = opened(client, f"{origin.url}/vod.m3u8", wanted)
    kept = opened(client, f"{origin.url}/vod.m3u8", wanted, zip_mode=ZipMode.KEEP)

    assert unpacked.form == kept.form == "zip"
    assert copy(unpacked).files == dict(tree("vod-ts"))
    assert [doubt.what for doubt in unpacked.notes.doubts] == ["2 layers were found, the API says 3"]
    assert set(copy(kept).files) == {"Rec-r1-17.zip"}


@pytest.mark.parametrize(
    ("path", "body", "called"), [("v.mp4", "a.mp4", "MP4"), ("v.m3u8", "a.webm", "WebM")]
)
def test_a_vod_that_is_one_media_file_is_archived_with_a_warning(
    client: HttpClient, origin: Origin, path: str, body: str, called: str
) -> None:
    origin.files = {"/f": single(body)}

    contents = opened(client, f"{origin.url}/f", asset("room-vod", f"{STORAGE}/{path}", size=99))
    (item,) = contents.items()

    assert item.path == path
    assert item.structure is not None
    assert item.api_size_bytes is None, "it is not said whether the API means this file"
    assert contents.notes.doubts == []
    (warning,) = contents.notes.warnings
    assert f"{called} file, neither a playlist nor a zip: stored as a single file" in warning


VODS_WITH_DOUBTS = [
    ("text", b"hello", "text"),
    ("an image", single("a.png"), "an image"),
    (
        "a transport stream, of which nobody can tell whether it is whole",
        b"G" + bytes(187),
        "transport stream",
    ),
    ("JSON", b'{"segments": []}', "JSON"),
    ("binary data", b"\0\1\2", "binary data"),
    ("something packed that is no playlist", gzip.compress(b"hello"), "binary data"),
    ("a page as large as no error page", HTML + b" " * 2_000_000, "HTML page"),
]


@pytest.mark.parametrize(
    ("line", "body", "called"), VODS_WITH_DOUBTS, ids=[each[0] for each in VODS_WITH_DOUBTS]
)
def test_a_vod_that_is_nothing_of_the_kind_is_kept_with_a_doubt(
    client: HttpClient, origin: Origin, line: str, body: bytes, called: str
) -> None:
    origin.files = {"/f": body}

    contents = opened(client, f"{origin.url}/f", asset("room-vod", f"{STORAGE}/v.zip"))

    (doubt,) = contents.notes.doubts
    assert called in doubt.what
    assert "neither a playlist nor a zip" in doubt.what
    assert [item.path for item in contents.items()] == ["v.zip"]
    if not body.startswith(b"<"):
        assert copy(opened(client, f"{origin.url}/f", asset("room-vod", None))).files


def test_a_page_that_has_the_size_of_the_vod_is_kept_with_a_doubt(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/f": HTML}

    contents = opened(client, f"{origin.url}/f", asset("room-vod", None, size=len(HTML)))

    assert "what looks like an HTML page" in contents.notes.doubts[0].what


@pytest.mark.parametrize("body", [HTML, b"", b'{"error": "gone"}', b"<Error><Code>NoSuchKey</Code></Error>"])
@pytest.mark.parametrize("kind", ["room-vod", "room-composite", "track", "stream", "summary"])
def test_an_error_answer_is_never_stored(client: HttpClient, origin: Origin, kind: str, body: bytes) -> None:
    origin.files = {"/f": body}

    with pytest.raises(ErrorPage):
        opened(client, f"{origin.url}/f", asset(kind, None, size=100))


def test_a_packed_playlist_is_a_tree(client: HttpClient, origin: Origin) -> None:
    files = vod()
    origin.files = files | {"/vod/master.m3u8": gzip.compress(files["/vod/master.m3u8"])}
    origin.headers = lambda request: (
        Answer(200, b"", {"Content-Encoding": "gzip"}) if request.path.endswith("master.m3u8") else None
    )

    assert opened(client, f"{origin.url}/vod/master.m3u8", asset("room-vod", None)).form == "hls"


def test_an_unknown_content_coding_is_stored_as_sent(client: HttpClient, origin: Origin) -> None:
    origin.files = {"/f": b"packed"}
    origin.headers = lambda _: Answer(200, b"", {"Content-Encoding": "zstd"})

    contents = opened(client, f"{origin.url}/f", asset("room-composite", f"{STORAGE}/v.mp4"))

    assert copy(contents).files == {"v.mp4": b"packed"}
    assert "zstd" in contents.notes.doubts[0].what


@pytest.mark.parametrize(("etag", "is_exact"), [('"a"', True), ('W/"a"', False), (None, False)])
def test_a_version_is_exact_by_a_strong_etag(
    client: HttpClient, origin: Origin, etag: str | None, is_exact: bool
) -> None:
    origin.rule = lambda _: Answer(200, CSV, {"ETag": etag} if etag else {})

    assert opened(client, f"{origin.url}/f", asset("chat", None)).version_is_exact is is_exact


def test_a_playlist_is_never_stored_alone_whatever_its_asset_is_called(
    client: HttpClient, origin: Origin
) -> None:
    origin.files = vod()

    contents = opened(client, f"{origin.url}/vod/master.m3u8", asset("hologram", None))

    assert contents.form == "hls"


def test_a_refused_url_is_signed_again_once(client: HttpClient, origin: Origin) -> None:
    origin.rule = lambda request: Answer(403)
    api = Api(f"{origin.url}/f?sig=secret")

    with pytest.raises(SourceForbidden) as caught:
        ContentsOpener(api, client)(asset("chat", None))

    assert api.signed == 2
    assert "secret" not in str(caught.value)


def test_a_source_that_is_away_for_a_moment_is_asked_again(
    client: HttpClient, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.retry_policy.random.uniform", lambda low, high: 0.0)
    origin.files = {"/f": CSV}
    answers = iter([Answer(503), Answer(500)])
    origin.rule = lambda request: next(answers, None)

    assert copy(opened(client, f"{origin.url}/f", asset("chat", None))).files
    origin.rule = lambda request: Answer(503)
    with pytest.raises(SourceUnavailable):
        opened(client, f"{origin.url}/f", asset("chat", None))


# -- thumbnails ----------------------------------------------------------------------------------------------
PNG = b"\x89PNG\r\n\x1a\n"
OWN = f"{STORAGE}/vod/master.m3u8"


def with_thumbnails(*thumbnails: object) -> Asset:
    return asset("room-vod", OWN, thumbnails=list(thumbnails))


def vod_in_storage(origin: Origin) -> None:
    origin.files = vod(below="/x/pre/beam/r1/20260301/vod")


def test_a_thumbnail_path_is_found_beside_the_asset(client: HttpClient, origin: Origin) -> None:
    vod_in_storage(origin)
    origin.files |= {
        "/x/pre/beam/r1/20260301/thumbs/1.png": PNG + b"1",
        "/x/pre/beam/r1/other/1.png": PNG + b"2",
    }
    wanted = with_thumbnails(f"{STORAGE}/thumbs/1.png", "s3://bucket/pre/beam/r1/other/1.png")

    contents = opened(client, f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8", wanted)
    made = copy(contents)

    assert made.files["thumbnails/1.png"] == PNG + b"1"
    assert made.files["thumbnails/1-1.png"] == PNG + b"2"
    assert made.items["thumbnails/1.png"].optional
    assert contents.notes.warnings == []


def test_a_token_for_the_folder_opens_its_thumbnails(client: HttpClient, origin: Origin) -> None:
    vod_in_storage(origin)
    origin.files |= {"/x/pre/beam/r1/20260301/1.png": PNG}
    origin.rule = lambda request: None if request.query.get("hdnts") == ["t"] else Answer(403)

    contents = opened(
        client,
        f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8?hdnts=t",
        with_thumbnails(f"{STORAGE}/1.png"),
    )

    assert copy(contents).files["thumbnails/1.png"] == PNG


def test_a_signature_for_the_asset_is_not_tried_on_its_thumbnails(client: HttpClient, origin: Origin) -> None:
    vod_in_storage(origin)
    url = f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8?X-Amz-Signature=secret"

    contents = opened(client, url, with_thumbnails(f"{STORAGE}/1.png"))
    made = copy(contents)

    (warning,) = contents.notes.warnings
    assert warning.startswith(f"thumbnail {STORAGE}/1.png could not be fetched: ")
    assert "one file alone" in warning
    assert not any("thumbnails" in path for path in made.files)
    assert not any(request.path.endswith("png") for request in origin.requests)


def test_a_thumbnail_is_had_from_a_webhook_where_the_signature_is_for_one_file(
    client: HttpClient, origin: Origin
) -> None:
    vod_in_storage(origin)
    origin.files |= {"/hook/1.png": PNG}
    url = f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8?X-Goog-Signature=secret"

    contents = opened(
        client,
        url,
        with_thumbnails(f"{STORAGE}/1.png"),
        webhook={f"{STORAGE}/1.png": f"{origin.url}/hook/1.png?s=1"},
    )

    assert copy(contents).files["thumbnails/1.png"] == PNG
    assert contents.notes.warnings == []


def test_a_thumbnail_that_only_the_webhook_knows_is_had_too(client: HttpClient, origin: Origin) -> None:
    vod_in_storage(origin)
    origin.files |= {"/hook/9.png": PNG}

    contents = opened(
        client,
        f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8",
        with_thumbnails(),
        webhook={f"{STORAGE}/9.png": f"{origin.url}/hook/9.png?s=1"},
    )

    assert copy(contents).files["thumbnails/9.png"] == PNG


def test_a_webhook_helps_where_the_place_beside_the_asset_is_closed(
    client: HttpClient, origin: Origin
) -> None:
    vod_in_storage(origin)
    origin.files |= {"/hook/1.png": PNG}

    contents = opened(
        client,
        f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8",
        with_thumbnails(f"{STORAGE}/1.png"),
        webhook={f"{STORAGE}/1.png": f"{origin.url}/hook/1.png?s=1"},
    )

    assert copy(contents).files["thumbnails/1.png"] == PNG
    assert origin.asked("/x/pre/beam/r1/20260301/1.png") == 1


def test_a_thumbnail_that_is_a_url_is_fetched(client: HttpClient, origin: Origin) -> None:
    vod_in_storage(origin)
    origin.files |= {"/t/1.png": PNG, "/t/2.png": PNG}
    wanted = with_thumbnails(f"{origin.url}/t/1.png?s=1", {"url": f"{origin.url}/t/2.png?s=1", "offset": 3})

    made = copy(opened(client, f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8", wanted))

    assert {"thumbnails/1.png", "thumbnails/2.png"} < set(made.files)


@pytest.mark.parametrize("body", [HTML, None])
def test_a_thumbnail_that_cannot_be_had_costs_nothing_else(
    client: HttpClient, origin: Origin, body: bytes | None
) -> None:
    vod_in_storage(origin)
    files = len(origin.files)
    if body:
        origin.files["/x/pre/beam/r1/20260301/1.png"] = body

    made = copy(
        opened(
            client,
            f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8",
            with_thumbnails(f"{STORAGE}/1.png"),
        )
    )

    assert len(made.files) == files
    assert len(made.optional_failures) == 1


@pytest.mark.parametrize(
    "thumbnail", [None, 7, {}, "", {"offset": 1}, ["x"], "gs://elsewhere/1.png", "https://"]
)
def test_a_thumbnail_that_names_nothing_we_can_find_is_a_warning(
    client: HttpClient, origin: Origin, thumbnail: object
) -> None:
    vod_in_storage(origin)

    contents = opened(
        client, f"{origin.url}/x/pre/beam/r1/20260301/vod/master.m3u8", with_thumbnails(thumbnail)
    )
    copy(contents)

    assert len(contents.notes.warnings) == 1
    assert "could not be fetched" in contents.notes.warnings[0]


@pytest.mark.parametrize(
    ("location", "own_path", "own_url", "expected"),
    [
        ("s3://b/p/t/1.png", "s3://b/p/v/m.m3u8", "https://cdn/p/v/m.m3u8", "https://cdn/p/t/1.png"),
        (
            "s3://b/p/t/1 a.png",
            "s3://b/p/v/m.m3u8",
            "https://cdn/q%20q/v/m.m3u8",
            "https://cdn/q%20q/t/1%20a.png",
        ),
        ("s3://b/p/v/1.png", "s3://b/p/v/m.m3u8", "https://cdn/m.m3u8?token=t", "https://cdn/1.png?token=t"),
        ("s3://b/p/v/1.png", "s3://b/p/v/m.m3u8", "https://cdn/m.m3u8?x=1", "https://cdn/1.png"),
        ("s3://b/p/t/1.png", "s3://b/p/v/m.m3u8", "https://cdn/v/other.m3u8", None),
        ("s3://other/p/t/1.png", "s3://b/p/v/m.m3u8", "https://cdn/p/v/m.m3u8", None),
        ("s3://b/p/v/../../x.png", "s3://b/p/v/m.m3u8", "https://cdn/p/v/m.m3u8", None),
    ],
)
def test_a_storage_path_is_mapped_by_the_assets_own_pair(
    location: str, own_path: str, own_url: str, expected: str | None
) -> None:
    mapped = map_path(location, own_path, SecretUrl(own_url))

    assert (mapped.reveal() if mapped else None) == expected

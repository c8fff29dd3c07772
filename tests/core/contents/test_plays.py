"""The proof: what was copied decodes to the very frames of the source, and asks for nothing outside itself.

(What ffmpeg does not read, such as WebVTT renditions, is held by the closure test; hls.js is tried by
test_url_in_browser.py of the walkthrough.)
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from archiver.core.contents.hls.playlist import Playlist
from archiver.core.contents.hls.tree import HlsContents
from archiver.core.contents.zip.zipped import ZipContents
from archiver.transfer.http import HttpClient
from archiver.transfer.source import HttpSource
from tests.core.contents.media import ffmpeg
from tests.core.contents.origin import Answer, Copy, Origin, copy, signed, vod

LAYERS = ["stream_0/stream.m3u8", "stream_1/stream.m3u8"]


def frames(url: str) -> list[str]:
    """The MD5 of every decoded frame of a layer."""
    text = ffmpeg("-xerror", "-i", url, "-map", "0", "-f", "framemd5", "-").decode()
    return [line for line in text.split("\n") if line and line[0] != "#"]


def references(made: Copy) -> list[tuple[str, str]]:
    return [
        (path, reference.uri)
        for path, body in made.files.items()
        if path.endswith(".m3u8")
        for reference in Playlist(body).references()
    ]


def assert_closed(made: Copy) -> None:
    found = references(made)
    assert found
    for path, uri in found:
        target = urlsplit(urljoin(f"http://copy/{path}", uri))
        assert target.netloc == "copy", f"{path} leads out: {uri}"
        assert target.query == "", f"{path} carries a query"
        assert target.path.removeprefix("/") in made.files, f"{path} names what is not there: {uri}"


def assert_plays_as(source: Origin, made: Copy, below: str = "/vod") -> None:
    with Origin({f"/copy/{path}": body for path, body in made.files.items()}) as served:
        master = made.files["master.m3u8"].decode()
        layers = [line for line in re.split("[\r\n]+", master) if line and line[0] != "#"]
        assert len(layers) == len(LAYERS)
        for original, copied in zip(LAYERS, layers, strict=True):
            expected = frames(f"{source.url}{below}/{original}")
            assert len(expected) > 80, "six seconds at 15 frames and sound"
            assert frames(f"{served.url}/copy/{copied}") == expected
        assert not any(request.query for request in served.requests)


@pytest.mark.parametrize("tree", ["vod-ts", "vod-fmp4"])
def test_a_copied_tree_plays_frame_by_frame_as_its_source(
    client: HttpClient, origin: Origin, tree: str
) -> None:
    origin.files = vod(tree)

    made = copy(HlsContents(client, signed(f"{origin.url}/vod/master.m3u8")))

    assert_closed(made)
    assert_plays_as(origin, made)


def test_a_tree_of_absolute_and_signed_references_plays_from_its_copy(
    client: HttpClient, origin: Origin
) -> None:
    """Each reference of the master is absolute, each segment lies elsewhere and is signed."""
    plain = vod("vod-fmp4")
    origin.files = {
        **plain,
        **{
            path.replace("/vod/", "/media store/"): body
            for path, body in plain.items()
            if not path.endswith("m3u8")
        },
    }

    def disguise(path: str, body: bytes) -> bytes:
        folder = path.rpartition("/")[0].replace("/vod", "/media%20store")
        base = f"{origin.url}{path}" if path.endswith("master.m3u8") else f"{origin.url}{folder}/"

        def absolute(match: re.Match[str]) -> str:
            return f"{match[1]}{urljoin(base, match[2])}?Signature=secret{match[3]}"

        return re.sub(r'(?m)(^|URI=")([^#"\n]+\.(?:m3u8|mp4|m4s|vtt))("?)$', absolute, body.decode()).encode()

    origin.rule = lambda request: (
        Answer(200, disguise(request.path, plain[request.path]))
        if request.path.endswith("m3u8") and request.path in plain and request.query.get("plain") is None
        else None
    )

    made = copy(HlsContents(client, signed(f"{origin.url}/vod/master.m3u8?Signature=secret")))

    origin.rule = lambda request: None
    assert_closed(made)
    assert any(path.startswith("_ext/") for path in made.files)
    assert not any(b"secret" in body for body in made.files.values())
    assert_plays_as(origin, made)


@pytest.mark.parametrize("tree", ["vod-ts", "vod-fmp4"])
def test_an_unpacked_zip_plays_frame_by_frame_as_its_source(
    client: HttpClient, origin: Origin, tree: str
) -> None:
    origin.files = vod(tree)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in origin.files.items():
            archive.writestr(path.removeprefix("/vod/"), body)
    origin.files["/rec.zip"] = held.getvalue()
    source = HttpSource(client, signed(f"{origin.url}/rec.zip"))
    info, reader = source.open(512)
    reader.close()

    made = copy(ZipContents(source, info, name="rec.zip", version="v"))

    assert_closed(made)
    assert_plays_as(origin, made)


def test_a_tree_of_byte_ranges_plays_from_its_copy(client: HttpClient, origin: Origin) -> None:
    """All segments of a layer in one file, as `-hls_flags single_file` writes it."""
    files = vod("vod-ts")
    for layer in ("stream_0", "stream_1"):
        lines = files[f"/vod/{layer}/stream.m3u8"].decode().split("\n")
        whole, written = b"", []
        for line in lines:
            if line.endswith(".ts"):
                body = files.pop(f"/vod/{layer}/{line}")
                written += [f"#EXT-X-BYTERANGE:{len(body)}@{len(whole)}", "all.ts"]
                whole += body
            else:
                written.append(line)
        files[f"/vod/{layer}/all.ts"] = whole
        files[f"/vod/{layer}/stream.m3u8"] = "\n".join(written).encode()
    origin.files = files

    made = copy(HlsContents(client, signed(f"{origin.url}/vod/master.m3u8")))

    assert set(made.files) == {path.removeprefix("/vod/") for path in files}
    assert_plays_as(origin, made)


def with_lone_cr(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        path: body.replace(b"\n", b"\r") if path.endswith("m3u8") else body for path, body in files.items()
    }


def encrypted(files: dict[str, bytes]) -> dict[str, bytes]:
    """Each layer under a key of its own, with an explicit IV."""
    made = dict(files)
    for number, layer in enumerate(["stream_0", "stream_1"]):
        key, iv = bytes([number + 1]) * 16, bytes(range(16))
        made[f"/vod/{layer}/my.key"] = key
        tag = f'#EXT-X-KEY:METHOD=AES-128,URI="my.key",IV=0x{iv.hex()}\n#EXTINF'.encode()
        playlist = f"/vod/{layer}/stream.m3u8"
        made[playlist] = files[playlist].replace(b"#EXTINF", tag, 1)
        for path in files:
            if path.startswith(f"/vod/{layer}/") and path.endswith(".ts"):
                left = 16 - len(files[path]) % 16
                cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
                made[path] = cipher.update(files[path] + bytes([left]) * left) + cipher.finalize()
    return made


@pytest.mark.parametrize("disguise", [with_lone_cr, encrypted], ids=["lone CR", "AES-128"])
def test_a_form_that_players_read_is_copied_whole_and_plays(
    client: HttpClient, origin: Origin, disguise: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    origin.files = disguise(vod("vod-ts"))
    contents = HlsContents(client, signed(f"{origin.url}/vod/master.m3u8"))

    made = copy(contents)

    assert contents.notes.doubts == []
    assert {f"/vod/{path}": body for path, body in made.files.items()} == origin.files
    assert_closed(made)
    assert_plays_as(origin, made)


def test_what_remains_of_a_tree_plays_when_one_layer_is_gone(client: HttpClient, origin: Origin) -> None:
    files = vod("vod-ts")
    origin.files = {path: body for path, body in files.items() if not path.startswith("/vod/stream_1/")}
    contents = HlsContents(client, signed(f"{origin.url}/vod/master.m3u8"))

    made = copy(contents)

    assert [doubt.path for doubt in contents.notes.doubts] == ["stream_1/stream.m3u8"]
    with Origin({f"/copy/{path}": body for path, body in made.files.items()}) as served:
        assert frames(f"{served.url}/copy/{LAYERS[0]}") == frames(f"{origin.url}/vod/{LAYERS[0]}")

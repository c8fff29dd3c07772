"""Zips over HTTP that are unpacked: what is stored, in which order, and what the playlists say afterwards."""

from __future__ import annotations

import io
import json
import random
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.core.contents.base import Phase
from archiver.core.contents.hls.facts import Expected
from archiver.core.contents.zip.zipped import ZipContents, ZipMode
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.base import CHECKED_BYTES
from archiver.transfer.errors import SourceUnavailable
from archiver.transfer.http import HttpClient
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl
from tests.core.contents import media as real
from tests.core.contents.origin import Answer, Origin, Request
from tests.core.contents.zips import (
    DEFLATED,
    STORED,
    TS,
    Taken,
    in_memory,
    media,
    open_zip,
    patched,
    take,
    tree,
    zipped,
)

FILES = real.tree("vod-fmp4")


def unpack(client: HttpClient, origin: Origin, data: bytes) -> Taken:
    return take(open_zip(client, origin, data))


def references(playlist: bytes) -> list[str]:
    return [line for line in playlist.decode().split("\n") if line and line[0] != "#"]


# -- what is unpacked ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("zip64", [False, True], ids=["", "zip64"])
@pytest.mark.parametrize("descriptors", [False, True], ids=["", "data descriptors"])
def test_a_zip_is_unpacked_byte_for_byte(
    client: HttpClient, origin: Origin, method: int, zip64: bool, descriptors: bool
) -> None:
    data = zipped(FILES, method, zip64=zip64, descriptors=descriptors)

    contents = open_zip(client, origin, data, expected=Expected(layers=2, duration_seconds=6))
    made = take(contents)

    assert made.files == FILES
    assert (made.doubtful, made.warnings) == ("", [])
    assert contents.notes.facts == {
        "zip_size": len(data),
        "layers": 2,
        "playlists": 4,
        "segments": 9,
        "files": 11,
        "duration_seconds": 6.0,
    }


def test_playlists_come_after_the_media_wherever_they_lie(client: HttpClient, origin: Origin) -> None:
    playlists_first = dict(sorted(FILES.items(), key=lambda entry: not entry[0].endswith("m3u8")))

    items = unpack(client, origin, zipped(playlists_first)).items

    assert [item.phase for item in items.values()] == [Phase.MEDIA] * 11 + [Phase.PLAYLIST] * 3 + [
        Phase.MASTER
    ]
    assert list(items)[-1] == "master.m3u8"


def test_folders_comments_and_names_below_one_folder_are_no_obstacle(
    client: HttpClient, origin: Origin
) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.comment = b"PK\x05\x06 is in this comment" + bytes(20)
        archive.mkdir("Rec-1")
        for name, body in FILES.items():
            archive.writestr(f"./Rec-1/{name}", body)

    made = unpack(client, origin, held.getvalue())

    assert made.files == {f"Rec-1/{name}": body for name, body in FILES.items()}
    assert made.doubtful == ""


def test_a_zip_of_more_members_than_16_bits_count_is_unpacked_without_zip64() -> None:
    """As packers do that know no Zip64: the end record holds the number modulo 65,536."""
    one = zipped({"a": b""}, STORED)
    directory = one.index(b"PK\x01\x02")
    local, entry = one[:directory], one[directory : one.index(b"PK\x05\x06")]
    count = 65_540
    named = [b"%07d" % number for number in range(count)]

    def renamed(record: bytes, at: int, name: bytes, offset: int | None = None) -> bytes:
        made = bytearray(record.replace(b"a", name))
        made[at : at + 2] = struct.pack("<H", len(name))
        if offset is not None:
            made[42:46] = struct.pack("<L", offset)
        return bytes(made)

    locals_ = b"".join(renamed(local, 26, name) for name in named)
    step = len(locals_) // count
    entries = b"".join(renamed(entry, 28, name, number * step) for number, name in enumerate(named))
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), len(locals_), 0
    )

    contents = in_memory(locals_ + entries + end)

    assert "kept packed" not in str(contents.notes.doubts)
    assert contents.version.endswith("unpack")


def test_equal_versions_are_equal_bytes_when_whoever_opens_says_so() -> None:
    data = zipped(tree())

    assert in_memory(data, version_is_exact=True).version_is_exact
    assert not in_memory(data).version_is_exact


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?\.(ts|vtt)", fullmatch=True),
        st.tuples(st.integers(0, 70_000), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([STORED, DEFLATED]),
    st.booleans(),
    st.integers(1, 30_000),
)
@settings(max_examples=60, deadline=None)
def test_any_zip_read_through_windows_of_any_size_gives_the_same_files(
    sizes: dict[str, tuple[int, bool]],
    method: int,
    descriptors: bool,
    window: int,
) -> None:
    files = {
        name: random.Random(name).randbytes(size) if noisy else bytes(size)
        for name, (size, noisy) in sizes.items()
    }
    data = zipped(files, method, descriptors=descriptors)

    assert take(in_memory(data, window_bytes=window), keeping=True).files == files


# -- names ---------------------------------------------------------------------------------------------------
def _unflagged(name: str, encoding: str) -> bytes:
    """A zip with a member whose name is `encoding`, without saying so."""
    raw = name.encode(encoding)
    stand_in = ("x" * (len(raw) - 3)).encode() + b".ts"
    playlist = media([name])
    return patched(zipped({"m.m3u8": playlist, stand_in.decode(): TS}), stand_in, raw)


def _with_unicode_path(name: str) -> bytes:
    held = io.BytesIO()
    stand_in = "caf?.ts"
    info = zipfile.ZipInfo(stand_in)
    value = b"\x01" + struct.pack("<L", zlib.crc32(stand_in.encode())) + name.encode()
    info.extra = struct.pack("<HH", 0x7075, len(value)) + value
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("m.m3u8", media([name]))
        archive.writestr(info, TS)
    return held.getvalue()


NAMES: dict[str, Callable[[], bytes]] = {
    "UTF-8 with its flag": lambda: zipped({"m.m3u8": media(["caf\u00e9.ts"]), "caf\u00e9.ts": TS}),
    "UTF-8 without its flag": lambda: _unflagged("caf\u00e9.ts", "utf-8"),
    "cp437, as the standard says": lambda: _unflagged("caf\u00e9.ts", "cp437"),
    "UTF-8 in an extra field": lambda: _with_unicode_path("caf\u00e9.ts"),
    "decomposed, as macOS writes it": lambda: zipped(
        {"m.m3u8": media(["caf\u00e9.ts"]), unicodedata.normalize("NFD", "caf\u00e9.ts"): TS}
    ),
    "percent-encoded in the playlist": lambda: zipped(
        {"m.m3u8": media(["caf%C3%A9.ts"]), "caf\u00e9.ts": TS}
    ),
}


@pytest.mark.parametrize("how", NAMES)
def test_a_name_beyond_ascii_is_found_by_its_playlist(client: HttpClient, origin: Origin, how: str) -> None:
    made = unpack(client, origin, NAMES[how]())

    assert made.doubtful == ""
    assert set(references(made.files["m.m3u8"])) == set(made.files) - {"m.m3u8"}
    if how != "decomposed, as macOS writes it":
        assert set(made.files) == {"m.m3u8", "caf!C3!A9.ts"}


def test_a_member_whose_name_is_changed_is_still_found_by_its_playlist(
    client: HttpClient, origin: Origin
) -> None:
    names = ["two words.ts", "query.ts", "sub/video.mp4/x.ts", "noextension", "a/b.ts"]
    written = [
        "two%20words.ts",
        "query.ts?token=secret",
        "sub/video.mp4/x.ts",
        "/noextension",
        "a//b.ts",
    ]

    made = unpack(client, origin, zipped({"m.m3u8": media(written), **dict.fromkeys(names, TS)}))

    assert set(references(made.files["m.m3u8"])) == set(made.files) - {"m.m3u8"}
    assert {"query.ts", "a/b.ts"} <= set(references(made.files["m.m3u8"]))
    assert made.items["m.m3u8"].rewritten is not None
    assert made.doubtful == ""


def test_what_macos_adds_beside_each_file_is_stored_and_raises_no_doubt() -> None:
    beside = b"\x00\x05\x16\x07" + bytes(100)
    files = tree({"__MACOSX/v/._v.m3u8": beside, "v/._0.ts": beside, "._cover.png": beside})

    made = take(in_memory(zipped(files)))

    assert made.doubtful == ""
    assert sorted(made.files.values()) == sorted(files.values())


# -- playlists under other names -----------------------------------------------------------------------------
MASTER = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n%s\n"
PLAYLIST_NAMES: dict[str, dict[str, bytes]] = {
    "the master has no extension": {"index": MASTER % b"v.m3u8", "v.m3u8": media(["a.ts"]), "a.ts": TS},
    "the layer has no extension": {"m.m3u8": MASTER % b"layer", "layer": media(["a.ts"]), "a.ts": TS},
    "neither has": {"index": MASTER % b"layer", "layer": media(["a"]), "a": TS},
    "they are called .txt": {"i.txt": MASTER % b"v.txt", "v.txt": media(["a.ts"]), "a.ts": TS},
    "the layer is called as media": {"m.m3u8": MASTER % b"v.mp4", "v.mp4": media(["a.ts"]), "a.ts": TS},
    "the only playlist is called as media": {"v.mp4": media(["a.ts"]), "a.ts": TS},
    "it has a byte order mark": {"index": b"\xef\xbb\xbf" + media(["a.ts"]), "a.ts": TS},
}


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("what", PLAYLIST_NAMES)
def test_a_playlist_is_known_by_its_first_bytes(what: str, method: int) -> None:
    files = PLAYLIST_NAMES[what]

    contents = in_memory(zipped(files, method))
    made = take(contents)

    playlists = {path for path, item in made.items.items() if item.phase is not Phase.MEDIA}
    assert made.doubtful == ""
    assert len(playlists) == sum(b"#EXTM3U" in body for body in files.values())
    assert contents.notes.facts["segments"] == 1
    assert {made.items[path].content_type for path in playlists} == {"application/vnd.apple.mpegurl"}


def test_files_that_a_playlist_names_are_not_looked_into_for_playlists(
    client: HttpClient, origin: Origin
) -> None:
    """Segments without an extension: a request for each would cost more than the recording."""
    names = [f"{number:03}" for number in range(300)]
    data = zipped({"m.m3u8": media(names), **dict.fromkeys(names, TS)})

    made = unpack(client, origin, data)

    assert made.doubtful == ""
    assert origin.asked("/rec.zip") < 10


# -- session data --------------------------------------------------------------------------------------------
def test_chapters_name_their_images_where_they_lie_in_the_copy() -> None:
    master = (
        b'#EXTM3U\n#EXT-X-SESSION-DATA:DATA-ID="chapters",URI="data/c.json"\n'
        b"#EXT-X-STREAM-INF:BANDWIDTH=1\nv/v.m3u8\n"
    )
    chapters = json.dumps([{"url": "one.jpg"}, {"url": "two words.jpg"}, {"url": "no.jpg?sig=secret"}])
    image = b"\xff\xd8\xff\xe0" + bytes(20)
    files = tree({"data/c.json": chapters.encode(), "data/one.jpg": image, "data/two words.jpg": image})

    made = take(in_memory(zipped({**files, "master.m3u8": master})))

    stored = [chapter["url"] for chapter in json.loads(made.files["data/c.json"])]
    assert stored[:2] == ["one.jpg", "two!20words.jpg"]
    assert {f"data/{name}" for name in stored[:2]} <= set(made.files)
    assert made.doubtful == ""
    assert made.warnings == ["data/c.json names no.jpg, which is not in the zip"]


# -- encryption and secrets ----------------------------------------------------------------------------------
def test_encrypted_segments_are_taken_as_they_are(client: HttpClient, origin: Origin) -> None:
    playlist = media(["a.ts"], tags='#EXT-X-KEY:METHOD=AES-128,URI="k.key"\n')

    made = unpack(client, origin, zipped({"m.m3u8": playlist, "k.key": bytes(16), "a.ts": bytes(range(256))}))

    assert set(made.files) == {"m.m3u8", "k.key", "a.ts"}
    assert made.doubtful == ""


def test_no_signature_is_left_in_a_playlist() -> None:
    playlist = media(
        [
            "a.ts?X-Amz-Signature=SECRET",
            "{$base}a.ts?{$q}",
            "https://cdn.example/gone.ts?sig=SECRET",
            "../x?SECRET",
        ],
        tags='#EXT-X-DEFINE:NAME="q",VALUE="token=SECRET"\n#EXT-X-DEFINE:NAME="base",VALUE=""\n',
    )

    made = take(in_memory(zipped({"m.m3u8": playlist, "a.ts": TS})))

    assert b"SECRET" not in made.files["m.m3u8"]
    assert references(made.files["m.m3u8"])[:2] == ["a.ts", "a.ts"]
    assert "SECRET" not in made.doubtful
    assert len(made.doubts) >= 2


# -- keeping the zip -----------------------------------------------------------------------------------------
def test_a_zip_may_be_kept_as_it_is(client: HttpClient, origin: Origin) -> None:
    data = zipped(FILES)

    made = take(open_zip(client, origin, data, mode=ZipMode.KEEP))

    assert made.files == {"rec.zip": data}
    assert made.doubtful == ""


def test_a_zip_may_be_kept_beside_what_was_in_it(client: HttpClient, origin: Origin) -> None:
    data = zipped(FILES)

    made = take(open_zip(client, origin, data, mode=ZipMode.BOTH))

    assert made.files == {**FILES, "_zip/rec.zip": data}
    assert made.doubtful == ""


def test_other_modes_are_other_versions(client: HttpClient, origin: Origin) -> None:
    data = zipped(FILES)

    versions = {open_zip(client, origin, data, mode=mode).version for mode in ZipMode}

    assert len(versions) == 3


# -- the pass over it ----------------------------------------------------------------------------------------
def test_a_member_must_be_read_before_the_next_one_is_asked_for() -> None:
    items = in_memory(zipped({"a.ts": TS, "b.ts": TS})).items()
    next(items)

    with pytest.raises(RuntimeError, match=r"a\.ts"):
        next(items)


def test_a_cut_line_costs_one_window(client: HttpClient, origin: Origin) -> None:
    """Every third window fails once; only it is asked for again."""
    seen: dict[str, int] = {}

    def cut_once(request: Request) -> Answer | None:
        asked = request.headers.get("range", "")
        seen[asked] = seen.get(asked, 0) + 1
        return Answer(503) if seen[asked] == 1 and len(seen) % 3 == 0 else None

    contents = open_zip(client, origin, zipped(FILES, STORED), window_bytes=20_000)
    origin.rule = cut_once

    assert take(contents).files == FILES
    assert max(seen.values()) == 2


def test_a_signature_that_expires_in_the_middle_is_renewed(client: HttpClient, origin: Origin) -> None:
    signatures = iter(range(1, 100))
    valid = [0]

    def sign() -> SecretUrl:
        valid[0] = next(signatures)
        return SecretUrl(f"{origin.url}/rec.zip?sig={valid[0]}")

    origin.files["/rec.zip"] = zipped(FILES)
    origin.rule = lambda request: None if request.query["sig"] == [str(valid[0])] else Answer(403)
    source = HttpSource(client, RenewableUrl(sign))
    info, reader = source.open(CHECKED_BYTES)
    reader.close()
    contents = ZipContents(source, info, name="rec.zip", version="v")
    valid[0] = -1

    assert take(contents).files == FILES
    assert valid[0] == 2


def test_leaving_half_way_ends_the_fetching(client: HttpClient, origin: Origin) -> None:
    items = open_zip(client, origin, zipped(FILES)).items()
    assert isinstance(items, Iterator)
    next(items)

    items.close()  # type: ignore[attr-defined]

    with pytest.raises(StopIteration):
        next(items)


def test_an_unavailable_source_is_retried_and_then_raised(client: HttpClient, origin: Origin) -> None:
    contents = open_zip(client, origin, zipped(FILES))
    asked = origin.asked("/rec.zip")
    origin.rule = lambda request: Answer(503)

    with pytest.raises(SourceUnavailable):
        take(contents)

    assert origin.asked("/rec.zip") > asked + 1

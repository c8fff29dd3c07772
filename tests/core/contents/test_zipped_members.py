"""What is wrong inside of a zip: one bad member costs no other, and nothing broken is called archived."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest

from archiver.core.contents.hls.facts import Expected
from archiver.core.contents.zip.zipped import ZipMode
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Origin
from tests.core.contents.zips import (
    DEFLATED,
    STORED,
    TS,
    damaged,
    in_memory,
    media,
    open_zip,
    patched,
    take,
    tree,
    zipped,
)

NOISE = b"G" + random.Random(0).randbytes(4999)
OTHER_NOISE = b"G" + random.Random(1).randbytes(4999)
MASTER = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv/v.m3u8\n"
SUBTITLES = '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="E",URI="s/s.m3u8"\n'
WITH_SUBTITLES = f'#EXTM3U\n{SUBTITLES}#EXT-X-STREAM-INF:BANDWIDTH=1,SUBTITLES="s"\nv/v.m3u8\n'.encode()
VTT = b"WEBVTT\n\n00:00.000 --> 00:01.000\nword\n"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
HTML = b"<!DOCTYPE html><html><body>403 Forbidden</body></html>"


# -- damaged members -----------------------------------------------------------------------------------------
def _layer(body: bytes) -> dict[str, bytes]:
    """A layer whose segment in the middle is `body`, stored or deflated as the rest."""
    return {**tree(segments=3), "v/1.ts": body}


def _with_wrong_crc(data: bytes, name: bytes) -> bytes:
    entry = data.index(name, data.index(b"PK\x01\x02")) - 46
    return data[: entry + 16] + struct.pack("<L", 12345) + data[entry + 20 :]


DAMAGE = {
    "a bit of a stored member": lambda: damaged(zipped(_layer(NOISE), STORED), NOISE),
    "its CRC-32": lambda: _with_wrong_crc(zipped(_layer(NOISE)), b"v/1.ts"),
    "its deflate stream": lambda: (
        (data := zipped(_layer(NOISE))).replace(NOISE[1000:1100], bytes(100)) or data
    ),
    "its local header": lambda: patched(
        zipped(_layer(NOISE), STORED), b"PK\x03\x04" + _local(NOISE), b"PK\x03\x05" + _local(NOISE)
    ),
    "a size that is too small": lambda: patched(
        zipped(_layer(NOISE + bytes(3_000_000))), struct.pack("<L", 3_005_000), struct.pack("<L", 2_000_000)
    ),
    "a size that is too large": lambda: patched(
        zipped(_layer(NOISE + bytes(3_000_000))), struct.pack("<L", 3_005_000), struct.pack("<L", 4_000_000)
    ),
}


def _local(body: bytes) -> bytes:
    """Return what follows the magic in the local header of the segment that is `body`."""
    data = zipped(_layer(body), STORED)
    at = data.index(b"v/1.ts", data.index(b"v/0.ts")) - 30
    return data[at + 4 : at + 36]


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_segment_costs_no_other_and_the_packed_zip_is_stored_beside(
    client: HttpClient, origin: Origin, what: str
) -> None:
    data = DAMAGE[what]()

    made = take(open_zip(client, origin, data, window_bytes=700))

    whole = {name: body for name, body in tree(segments=3).items() if name != "v/1.ts"}
    assert made.files == {**whole, "_zip/rec.zip": data}
    assert set(made.refused) == {"v/1.ts"}
    assert "v/1.ts" in made.refused["v/1.ts"]
    [doubt] = made.doubts
    assert (doubt.path, doubt.missing) == ("_zip/rec.zip", False)
    assert "1 members are damaged" in doubt.what


def test_many_damaged_members_are_each_named() -> None:
    files = {**tree(segments=3), "v/0.ts": NOISE, "v/2.ts": OTHER_NOISE}
    data = damaged(damaged(zipped(files, STORED), NOISE), OTHER_NOISE)

    made = take(in_memory(data))

    assert set(made.refused) == {"v/0.ts", "v/2.ts"}
    assert set(made.files) == {"master.m3u8", "v/v.m3u8", "v/1.ts", "_zip/rec.zip"}


def test_a_zip_that_is_kept_beside_is_stored_once_when_a_member_is_damaged() -> None:
    data = damaged(zipped(_layer(NOISE), STORED), NOISE)

    made = take(in_memory(data, mode=ZipMode.BOTH))

    assert made.files["_zip/rec.zip"] == data
    assert set(made.refused) == {"v/1.ts"}
    assert "damaged" in made.doubtful


@pytest.mark.parametrize("name", ["master.m3u8", "v/v.m3u8"])
def test_a_damaged_playlist_costs_no_other_file(name: str) -> None:
    files = tree()
    data = damaged(zipped(files, STORED), files[name])

    made = take(in_memory(data))

    assert made.files == {
        **{each: body for each, body in files.items() if each != name},
        "_zip/rec.zip": data,
    }
    assert made.missing == {name}
    assert f"zip member '{name}' is damaged" in made.doubtful


def test_damaged_session_data_costs_no_other_file() -> None:
    chapters = b'[{"title": "a chapter with a long name"}]'
    master = b'#EXTM3U\n#EXT-X-SESSION-DATA:DATA-ID="c",URI="c.json"\n' + MASTER.partition(b"\n")[2]
    data = damaged(zipped(tree({"c.json": chapters, "master.m3u8": master}), STORED), chapters)

    made = take(in_memory(data))

    assert set(made.files) == {"master.m3u8", "v/v.m3u8", "v/0.ts", "v/1.ts", "_zip/rec.zip"}
    assert made.missing == {"c.json"}


# -- what is missing -----------------------------------------------------------------------------------------
def test_every_missing_file_is_named_and_all_others_are_stored(client: HttpClient, origin: Origin) -> None:
    files = tree(segments=100)
    gone = {f"v/{number}.ts" for number in range(3, 100)}
    there = {name: body for name, body in files.items() if name not in gone}

    made = take(open_zip(client, origin, zipped(there)))

    assert made.files == there
    assert made.missing == gone
    assert not any(doubt.unready for doubt in made.doubts)


MISSING: dict[str, tuple[dict[str, bytes], set[str | None]]] = {
    "a subtitle segment": (
        {"master.m3u8": WITH_SUBTITLES, "s/s.m3u8": media(["0.vtt", "1.vtt"]), "s/0.vtt": VTT},
        {"s/1.vtt"},
    ),
    "a subtitle playlist": ({"master.m3u8": WITH_SUBTITLES}, {"s/s.m3u8"}),
    "a layer": ({"master.m3u8": MASTER + b"#EXT-X-STREAM-INF:BANDWIDTH=2\nw/w.m3u8\n"}, {"w/w.m3u8"}),
    "an init segment": ({"v/v.m3u8": media(["0.ts"], tags='#EXT-X-MAP:URI="i.mp4"\n')}, {"v/i.mp4"}),
    "a key": ({"v/v.m3u8": media(["0.ts"], tags='#EXT-X-KEY:METHOD=AES-128,URI="k"\n')}, {"v/k!"}),
    "session data": (
        {"master.m3u8": MASTER + b'#EXT-X-SESSION-DATA:DATA-ID="d",URI="d.json"\n'},
        {"d.json"},
    ),
    "a segment that is first named as optional": (
        {"v/v.m3u8": media(["0.ts", "2.ts"], tags='#EXT-X-PART:DURATION=1,URI="2.ts"\n')},
        {"v/2.ts"},
    ),
    "a segment on a server": ({"v/v.m3u8": media(["0.ts", "https://cdn.example/1.ts?sig=S"])}, {None}),
    "a segment on a server, by its host": ({"v/v.m3u8": media(["0.ts", "//cdn.example/1.ts"])}, {None}),
    "a segment above the zip": ({"v/v.m3u8": media(["0.ts", "../../1.ts"])}, {None}),
    "a segment of another scheme": ({"v/v.m3u8": media(["0.ts", "file:///etc/passwd"])}, {None}),
    "a segment named with a query": ({"v/v.m3u8": media(["0.ts", "no.ts?token=S"])}, {"v/no.ts"}),
}
NOT_MISSING: dict[str, dict[str, bytes]] = {
    "a gap": {"v/v.m3u8": media(["0.ts", "1.ts"], end="#EXT-X-GAP\n#EXTINF:2,\n9.ts\n#EXT-X-ENDLIST\n")},
    "a partial segment": {"v/v.m3u8": media(["0.ts", "1.ts"], tags='#EXT-X-PART:DURATION=1,URI="9.ts"\n')},
    "a hint": {"v/v.m3u8": media(["0.ts", "1.ts"], tags='#EXT-X-PRELOAD-HINT:TYPE=PART,URI="9.ts"\n')},
    "a key of another system": {
        "v/v.m3u8": media(["0.ts", "1.ts"], tags='#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://key"\n')
    },
    "an init segment in the playlist": {
        "v/v.m3u8": media(["0.ts", "1.ts"], tags='#EXT-X-MAP:URI="data:video/mp4;base64,AAAA"\n')
    },
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_doubted_and_costs_no_other_file(
    client: HttpClient, origin: Origin, what: str
) -> None:
    others, missing = MISSING[what]
    files = tree(others)

    made = take(open_zip(client, origin, zipped(files)))

    assert set(made.files) == set(files)
    assert made.missing == missing
    assert made.refused == {}
    assert all(b"token=S" not in body and b"sig=S" not in body for body in made.files.values())


@pytest.mark.parametrize("what", NOT_MISSING)
def test_what_need_not_be_there_raises_no_doubt(what: str) -> None:
    made = take(in_memory(zipped(tree(NOT_MISSING[what]))))

    assert made.doubtful == ""


# -- broken, and never called archived -----------------------------------------------------------------------
@dataclass
class Case:
    """`files` and what is said of them. `refused`: what is stored only by an attempt that keeps doubtful files."""

    files: dict[str, bytes]
    doubt: str
    refused: set[str] = field(default_factory=set)


BROKEN: dict[str, Case] = {
    "no playlist": Case({"a.ts": TS, "b.ts": TS}, "holds no playlist"),
    "nothing but text": Case({"readme.txt": b"hello"}, "holds no playlist"),
    "no media": Case({"master.m3u8": b"#EXTM3U\n"}, "holds no recording"),
    "a master without variants": Case({"master.m3u8": b"#EXTM3U\n", "a.ts": TS}, "holds no recording"),
    "an empty layer": Case({"v.m3u8": media([])}, "holds no recording"),
    "an empty layer among full ones": Case(
        tree({"master.m3u8": MASTER + b"#EXT-X-STREAM-INF:BANDWIDTH=2\nw.m3u8\n", "w.m3u8": media([])}),
        "w.m3u8: names neither a segment nor a variant",
    ),
    "subtitles alone": Case(
        {
            "master.m3u8": f"#EXTM3U\n{SUBTITLES}".encode(),
            "s/s.m3u8": media(["0.vtt"]),
            "s/0.vtt": VTT,
        },
        "holds no recording",
    ),
    "an error of the packager": Case(
        tree({"v/v.m3u8": media(["0.ts", "1.ts"], tags="#EXT-X-ERROR:failed\n")}), "reports an error"
    ),
    "no ENDLIST": Case(tree({"v/v.m3u8": media(["0.ts", "1.ts"], end="")}), "no EXT-X-ENDLIST"),
    "an empty segment": Case(tree({"v/1.ts": b""}), "v/1.ts: is empty, and needed as a segment"),
    "an empty init segment": Case(
        tree({"v/v.m3u8": media(["0.ts"], tags='#EXT-X-MAP:URI="i.mp4"\n'), "v/i.mp4": b""}),
        "v/i.mp4: is empty",
    ),
    "an empty key": Case(
        tree({"v/v.m3u8": media(["0.ts"], tags='#EXT-X-KEY:METHOD=AES-128,URI="k.key"\n'), "v/k.key": b""}),
        "v/k.key: is empty",
    ),
    "a page as a segment": Case(tree({"v/1.ts": HTML}), "v/1.ts: expected", {"v/1.ts"}),
    "JSON as a segment": Case(tree({"v/1.ts": b'{"error": "expired"}'}), "v/1.ts: expected", {"v/1.ts"}),
    "an image as a segment": Case(tree({"v/1.ts": PNG}), "v/1.ts: expected", {"v/1.ts"}),
    "a page as a subtitle segment": Case(
        tree({"master.m3u8": WITH_SUBTITLES, "s/s.m3u8": media(["0.vtt"]), "s/0.vtt": HTML}),
        "s/0.vtt: expected",
        {"s/0.vtt"},
    ),
    "a key of another length": Case(
        tree(
            {"v/v.m3u8": media(["0.ts"], tags='#EXT-X-KEY:METHOD=AES-128,URI="k.key"\n'), "v/k.key": b"short"}
        ),
        "v/k.key: expected a key of 16 bytes",
        {"v/k.key"},
    ),
    "a page as chapters": Case(
        tree(
            {
                "master.m3u8": MASTER + b'#EXT-X-SESSION-DATA:DATA-ID="d",URI="d.json"\n',
                "d.json": HTML,
            }
        ),
        "d.json: expected",
        {"d.json"},
    ),
    "a page as a playlist": Case(tree({"v/v.m3u8": HTML}), "v/v.m3u8: is stored as it is"),
    "a playlist of undefined variables": Case(
        tree({"v/v.m3u8": media(["{$no}.ts"])}), "v/v.m3u8: is stored as it is"
    ),
    "an image that is a page": Case(tree({"thumb.jpg": HTML}), "thumb.jpg: expected", {"thumb.jpg"}),
}


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_recording_is_stored_with_a_doubt(
    client: HttpClient, origin: Origin, what: str, method: int
) -> None:
    case = BROKEN[what]
    data = zipped(case.files, method)

    strict = take(open_zip(client, origin, data))
    keeping = take(open_zip(client, origin, data), keeping=True)

    assert case.doubt in strict.doubtful
    assert not any(doubt.unready for doubt in strict.doubts), "a zip cannot be completed by its source"
    packed = {} if any(not _is_playlist(body) for body in case.files.values()) else {"_zip/rec.zip": data}
    assert set(strict.files) == set(case.files) - case.refused | set(packed)
    assert set(strict.refused) == case.refused
    assert keeping.files == {**case.files, **packed}, "every byte is kept in the end"


def _is_playlist(body: bytes) -> bool:
    return body.startswith(b"#EXTM3U")


@pytest.mark.parametrize("others", [{}, {"c.json": b"[]"}], ids=["playlists", "playlists and chapters"])
def test_a_zip_without_media_is_kept_packed_as_well(
    client: HttpClient, origin: Origin, others: dict[str, bytes]
) -> None:
    """What we rewrite is no proof of what the source had."""
    master = MASTER + b'#EXT-X-SESSION-DATA:DATA-ID="c",URI="c.json"\n' if others else MASTER
    files = {"master.m3u8": master, "v/v.m3u8": media(["0.ts", "1.ts"]), **others}
    data = zipped(files)

    for mode in (ZipMode.UNPACK, ZipMode.BOTH):
        made = take(open_zip(client, origin, data, mode=mode))

        assert made.files == {**files, "_zip/rec.zip": data}
        assert made.missing == {"v/0.ts", "v/1.ts"}


FINE: dict[str, dict[str, bytes]] = {
    "empty captions": tree({"master.m3u8": WITH_SUBTITLES, "s/s.m3u8": media(["0.vtt"]), "s/0.vtt": b""}),
    "an empty list of captions": tree({"master.m3u8": WITH_SUBTITLES, "s/s.m3u8": media([])}),
    "an encrypted segment that looks like nothing": tree(
        {
            "v/v.m3u8": media(["0.ts"], tags='#EXT-X-KEY:METHOD=AES-128,URI="k.key"\n'),
            "v/0.ts": bytes(range(256)),
            "v/k.key": bytes(16),
        }
    ),
    "a page that nobody names": tree(
        {"player/index.html": HTML, "player/p.js": b"<!-- x -->", "empty.txt": b""}
    ),
    "another master beside it": tree({"other.m3u8": MASTER}),
}


@pytest.mark.parametrize("what", FINE)
def test_a_whole_recording_raises_no_doubt(what: str) -> None:
    made = take(in_memory(zipped(FINE[what])))

    assert made.doubtful == ""
    assert made.files == FINE[what]


def test_fewer_layers_and_another_duration_than_the_api_says_are_doubted() -> None:
    data = zipped(tree(segments=4))

    made = take(in_memory(data, expected=Expected(layers=2, duration_seconds=2000)))

    assert "1 layers were found, the API says 2" in made.doubtful
    assert "the segments last 8 s, the API says 2000 s" in made.doubtful
    assert take(in_memory(data, expected=Expected(layers=1, duration_seconds=8))).doubtful == ""


# -- limits --------------------------------------------------------------------------------------------------
def test_a_playlist_that_is_too_large_is_stored_and_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    files = tree(segments=50)
    monkeypatch.setattr("archiver.core.contents.zip.playlists.MAX_PLAYLIST_BYTES", 500)

    made = take(in_memory(zipped(files)))

    assert made.files == files
    assert "v/v.m3u8: is too large for a playlist" in made.doubtful


def test_more_playlists_than_a_recording_has_are_stored_and_not_looked_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = tree({f"x/{number}.m3u8": media(["../v/0.ts"]) for number in range(5)})
    monkeypatch.setattr("archiver.core.contents.zip.playlists.MAX_PLAYLISTS", 4)

    made = take(in_memory(zipped(files)))

    assert set(made.files) == set(files)
    assert "more than 4 playlists; 3 of them" in made.doubtful


def test_a_playlist_that_was_not_looked_into_is_no_file_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.core.contents.zip.playlists.MAX_PEEKS", 2)
    files = tree({"a": b"1", "b": b"22", "c": media(["v/0.ts"])})

    made = take(in_memory(zipped(files)))

    assert set(made.refused) == {"c!"}
    assert "was not looked into" in made.refused["c!"]

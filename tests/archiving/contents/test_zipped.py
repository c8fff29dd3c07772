"""Zips over HTTP: what is unpacked, what is refused before anything is written, what happens when the line is cut."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import Buffer

from archiving.contents.base import Phase
from archiving.contents.tree_facts import Expected
from archiving.contents.zip_directory import ZipLimits, read_directory
from archiving.contents.zipped import ZipContents, ZipMode
from archiving.errors import BadContents, IncompleteContents
from tests.archiving.contents.media import tree
from tests.archiving.contents.origin import Answer, Copy, Origin, Request, copy, signed
from transfer.base import Reader, SourceInfo
from transfer.errors import SourceChanged, SourceMismatch, SourceUnavailable
from transfer.http import HttpClient
from transfer.source import HttpSource, RenewableUrl, SecretUrl

FILES = tree("vod-fmp4")
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


class Unseekable(io.RawIOBase):
    """What makes `zipfile` write data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        self.data += memoryview(data)
        return memoryview(data).nbytes


def zipped(
    files: Mapping[str, bytes], method: int = DEFLATED, *, zip64: bool = False, descriptors: bool = False
) -> bytes:
    held: io.BytesIO | Unseekable = Unseekable() if descriptors else io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, body in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(body)
    return bytes(held.data) if isinstance(held, Unseekable) else held.getvalue()


def patched(data: bytes, what: bytes, by: bytes) -> bytes:
    assert data.count(what) >= 1
    return data.replace(what, by)


def open_zip(client: HttpClient, origin: Origin, data: bytes, **options: object) -> ZipContents:
    origin.files["/rec.zip"] = data
    source = HttpSource(client, signed(f"{origin.url}/rec.zip?sig=1"))
    info, reader = source.open(512)
    reader.close()
    values = {"name": "rec.zip", "version": "v1", **options}
    return ZipContents(source, info, **values)  # type: ignore[arg-type]


def unpack(client: HttpClient, origin: Origin, data: bytes) -> Copy:
    return copy(open_zip(client, origin, data))


class InMemory:
    """`transfer.base.Source` over bytes, for what needs many zips quickly."""

    name = "memory://zip"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.info = SourceInfo(size_bytes=len(data), ranges=True)

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        raise NotImplementedError

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        assert start + len(into) <= len(self.data)
        into[:] = self.data[start : start + len(into)]


# -- what is unpacked ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("zip64", [False, True], ids=["", "zip64"])
@pytest.mark.parametrize("descriptors", [False, True], ids=["", "data descriptors"])
def test_a_zip_is_unpacked_byte_for_byte(
    client: HttpClient, origin: Origin, method: int, zip64: bool, descriptors: bool
) -> None:
    data = zipped(FILES, method, zip64=zip64, descriptors=descriptors)

    contents = open_zip(client, origin, data, expected=Expected(layers=2, duration_seconds=6))
    made = copy(contents)

    assert made.files == FILES
    assert contents.notes.warnings == []
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


def test_a_member_whose_name_is_changed_is_still_found_by_its_playlist(
    client: HttpClient, origin: Origin
) -> None:
    segment = b"G" + bytes(187)
    names = ["two words.ts", "caf\u00e9.ts", "query.ts", "sub/video.mp4/x.ts", "noextension"]
    written = [
        "two%20words.ts",
        "caf\u00e9.ts",
        "query.ts?token=secret",
        "sub/video.mp4/x.ts",
        "/noextension",
    ]
    playlist = "#EXTM3U\n" + "".join(f"#EXTINF:2,\n{name}\n" for name in written) + "#EXT-X-ENDLIST\n"

    made = unpack(client, origin, zipped({"m.m3u8": playlist.encode(), **dict.fromkeys(names, segment)}))

    references = [line for line in made.files["m.m3u8"].decode().split("\n") if line and line[0] != "#"]
    assert set(references) == set(made.files) - {"m.m3u8"}
    assert "query.ts" in references
    assert made.items["m.m3u8"].rewritten is not None


def test_a_zip_without_a_playlist_is_stored_with_a_warning(client: HttpClient, origin: Origin) -> None:
    contents = open_zip(client, origin, zipped({"a.mp4": b"\0\0\0\x18ftyp"}))

    assert set(copy(contents).files) == {"a.mp4"}
    assert "no playlist" in contents.notes.warnings[0]


def test_an_empty_zip_holds_nothing(client: HttpClient, origin: Origin) -> None:
    assert unpack(client, origin, zipped({})).files == {}


def test_encrypted_segments_are_taken_as_they_are(client: HttpClient, origin: Origin) -> None:
    playlist = b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k.key"\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n'

    made = unpack(client, origin, zipped({"m.m3u8": playlist, "k.key": bytes(16), "a.ts": bytes(range(256))}))

    assert set(made.files) == {"m.m3u8", "k.key", "a.ts"}


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?\.(ts|vtt)", fullmatch=True),
        st.tuples(st.integers(0, 70_000), st.booleans()),
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
    source = InMemory(data)

    made = copy(ZipContents(source, source.info, name="x.zip", version="v", window_bytes=window))

    assert made.files == files


# -- keeping the zip -----------------------------------------------------------------------------------------
def test_a_zip_may_be_kept_as_it_is(client: HttpClient, origin: Origin) -> None:
    data = zipped(FILES)

    made = copy(open_zip(client, origin, data, mode=ZipMode.KEEP))

    assert made.files == {"rec.zip": data}


def test_a_zip_may_be_kept_beside_what_was_in_it(client: HttpClient, origin: Origin) -> None:
    data = zipped(FILES)

    made = copy(open_zip(client, origin, data, mode=ZipMode.BOTH))

    assert made.files == {**FILES, "_zip/rec.zip": data}


def test_a_zip_that_cannot_be_read_by_range_is_kept_with_a_warning(
    client: HttpClient, origin: Origin
) -> None:
    data = zipped(FILES)
    origin.ranges = False

    contents = open_zip(client, origin, data)

    assert copy(contents).files == {"rec.zip": data}
    assert "kept as it is" in contents.notes.warnings[0]


def test_other_modes_are_other_versions(client: HttpClient, origin: Origin) -> None:
    data = zipped(FILES)

    versions = {open_zip(client, origin, data, mode=mode).version for mode in ZipMode}

    assert len(versions) == 3


# -- what is refused before anything is written --------------------------------------------------------------
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name that climbs": (lambda: zipped({"a/../../etc/x.ts": b"x"}), "leads out"),
    "an absolute name": (lambda: zipped({"/etc/x.ts": b"x"}), "absolute"),
    "a drive letter": (lambda: zipped({"C:/x.ts": b"x"}), "absolute"),
    "a backslash": (lambda: patched(zipped({"..|x.ts": b"x"}), b"..|x", b"..\\x"), "leads out"),
    "a control character": (lambda: zipped({"a\x1b[2J.ts": b"x"}), "no plain path"),
    "an empty segment": (lambda: zipped({"a//x.ts": b"x"}), "no plain path"),
    "a name twice": (lambda: patched(zipped({"a1.ts": b"x", "a2.ts": b"y"}), b"a2.ts", b"a1.ts"), "twice"),
    "encryption": (lambda: _with_flags(zipped({"a.ts": b"x"}), 1), "encrypted"),
    "an unknown method": (lambda: _lzma("a.ts"), "method 14"),
    "a symbolic link": (lambda: _symlink("a.ts"), "symbolic link"),
    "two members in one place": (lambda: _overlapping("a.ts", "b.ts"), "overlaps"),
    "a bomb": (lambda: zipped({"a.ts": bytes(80 * 2**20)}), "bomb"),
    "a cut end": (lambda: zipped(FILES)[:-30], "end record is missing"),
    "a cut start": (lambda: zipped(FILES)[100:], "does not end where"),
    "another count": (lambda: _with_count(zipped({"a.ts": b"x"}), 2), "ends after 1 of 2"),
    "one of several disks": (lambda: _with_disk(zipped({"a.ts": b"x"})), "split zip"),
    "no zip at all": (lambda: b"PK\x03\x04" + bytes(1000), "end record is missing"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_zip_is_refused_by_name(client: HttpClient, origin: Origin, name: str) -> None:
    make, complaint = HOSTILE[name]

    with pytest.raises(BadContents, match=complaint):
        open_zip(client, origin, make())


def test_limits_are_settings() -> None:
    data = zipped({"a.ts": bytes(1000), "b.ts": bytes(1000)})
    source = InMemory(data)

    for limits, complaint in [
        (ZipLimits(members=1), "2 members"),
        (ZipLimits(directory_bytes=10), "directory of"),
        (ZipLimits(total_bytes=1999), "inflates to 2000"),
        (ZipLimits(ratio_from_bytes=100), "bomb"),
        (ZipLimits(ratio_from_bytes=100, total_ratio=1000, member_ratio=10), "'a.ts' inflates"),
    ]:
        with pytest.raises(BadContents, match=complaint):
            read_directory(source, source.info, limits)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_zip_is_refused_or_gives_what_was_in_it(data: st.DataObject) -> None:
    files = {"a.ts": b"G" * 400, "b/c.ts": random.Random(1).randbytes(300)}
    whole = bytearray(zipped(files, data.draw(st.sampled_from([STORED, DEFLATED]))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    source = InMemory(bytes(whole))

    try:
        made = copy(ZipContents(source, source.info, name="x.zip", version="v"))
    except (BadContents, SourceMismatch):
        return

    assert sorted(made.files.values()) in (sorted(files.values()), [b"G" * 400], [files["b/c.ts"]], [])


# -- what is found on the way --------------------------------------------------------------------------------
def test_a_reference_to_what_is_not_in_the_zip_makes_it_incomplete(
    client: HttpClient, origin: Origin
) -> None:
    files = {name: body for name, body in FILES.items() if not name.endswith("segment_00001.vtt")}

    with pytest.raises(IncompleteContents, match=r"1 files .* segment_00001.vtt \(named in subtitles"):
        unpack(client, origin, zipped(files))


@pytest.mark.parametrize("uri", ["https://cdn.example/a.ts", "../outside.ts", "//cdn.example/a.ts"])
def test_a_reference_that_leads_out_of_the_zip_makes_it_incomplete(
    client: HttpClient, origin: Origin, uri: str
) -> None:
    playlist = f"#EXTM3U\n#EXTINF:2,\n{uri}\n#EXT-X-ENDLIST\n".encode()

    with pytest.raises(IncompleteContents):
        unpack(client, origin, zipped({"m.m3u8": playlist, "a.ts": b"G"}))


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_a_member_whose_bytes_are_damaged_is_a_mismatch(
    client: HttpClient, origin: Origin, method: int
) -> None:
    body = random.Random(0).randbytes(5000)
    data = bytearray(zipped({"a.ts": body}, method))
    data[2500] ^= 1

    with pytest.raises(SourceMismatch, match=r"a\.ts"):
        unpack(client, origin, bytes(data))


def test_a_member_that_inflates_to_more_than_it_says_is_stopped() -> None:
    data = zipped({"a.ts": random.Random(0).randbytes(100) + bytes(3_000_000)})
    size = struct.pack("<L", 3_000_100)
    source = InMemory(patched(data, size, struct.pack("<L", 2_000_000)))

    with pytest.raises(BadContents, match="larger than the 2000000"):
        copy(ZipContents(source, source.info, name="x.zip", version="v"))


def test_a_member_must_be_read_before_the_next_one_is_asked_for() -> None:
    source = InMemory(zipped({"a.ts": b"G", "b.ts": b"G"}))
    items = ZipContents(source, source.info, name="x.zip", version="v").items()
    next(items)

    with pytest.raises(RuntimeError, match=r"a\.ts"):
        next(items)


def test_a_zip_that_changes_while_it_is_read_is_noticed(client: HttpClient, origin: Origin) -> None:
    contents = open_zip(client, origin, zipped(FILES, STORED))
    origin.files["/rec.zip"] = zipped({**FILES, "more.ts": b"G"}, STORED)

    with pytest.raises(SourceChanged):
        copy(contents)


def test_a_cut_line_costs_one_window(client: HttpClient, origin: Origin) -> None:
    """Every third window fails once; only it is asked for again."""
    seen: dict[str, int] = {}

    def cut_once(request: Request) -> Answer | None:
        asked = request.headers.get("range", "")
        seen[asked] = seen.get(asked, 0) + 1
        return Answer(503) if seen[asked] == 1 and len(seen) % 3 == 0 else None

    data = zipped(FILES, STORED)
    contents = open_zip(client, origin, data, window_bytes=20_000)
    origin.rule = cut_once

    assert copy(contents).files == FILES
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
    info, reader = source.open(512)
    reader.close()
    contents = ZipContents(source, info, name="rec.zip", version="v")
    valid[0] = -1

    assert copy(contents).files == FILES
    assert valid[0] == 2


def test_leaving_half_way_ends_the_fetching(client: HttpClient, origin: Origin) -> None:
    items = open_zip(client, origin, zipped(FILES)).items()
    assert isinstance(items, Iterator)
    next(items)

    items.close()  # type: ignore[attr-defined]

    with pytest.raises(StopIteration):
        next(items)


def test_a_source_that_is_away_is_tried_again_and_then_handed_up(
    client: HttpClient, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer.stopping.sleep", lambda seconds: None)
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    contents = open_zip(client, origin, zipped(FILES))
    origin.rule = lambda request: Answer(503)

    with pytest.raises(SourceUnavailable):
        copy(contents)


# -- making hostile zips -------------------------------------------------------------------------------------
def _with_flags(data: bytes, flags: int) -> bytes:
    return _set(_set(data, b"PK\x03\x04", 6, flags), b"PK\x01\x02", 8, flags)


def _with_count(data: bytes, count: int) -> bytes:
    return _set(_set(data, b"PK\x05\x06", 8, count), b"PK\x05\x06", 10, count)


def _with_disk(data: bytes) -> bytes:
    return _set(data, b"PK\x05\x06", 4, 1)


def _set(data: bytes, record: bytes, offset: int, value: int) -> bytes:
    at = data.index(record) + offset
    return data[:at] + struct.pack("<H", value) + data[at + 2 :]


def _lzma(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(name, b"x" * 100)
    return held.getvalue()


def _symlink(name: str) -> bytes:
    held = io.BytesIO()
    link = zipfile.ZipInfo(name)
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    return held.getvalue()


def _overlapping(one: str, other: str) -> bytes:
    """The second entry of the directory points at the first member's data."""
    data = zipped({one: bytes(100), other: bytes(100)}, STORED)
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    return data[: entry + 42] + struct.pack("<L", 0) + data[entry + 46 :]

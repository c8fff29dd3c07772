"""A container is whole when its elements lead exactly to the end of the file, in whatever order its parts arrive."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.core.contents.containers import structure_of
from archiver.core.contents.sniff import Kind, sniff
from archiver.transfer.base import Structure
from archiver.transfer.errors import SourceUnavailable, UnexpectedContent
from tests.core.contents.containers import (
    CLUSTER,
    NO_SIZE,
    SEGMENT,
    box,
    boxes,
    elements,
    files,
    large_box,
)

WITH_STRUCTURE = [
    "moov-at-end.mp4", "faststart.mp4", "fragmented.mp4", "every-frame.mp4", "cmaf.mp4", "large-size.mp4", "a.mov",
    "a.m4a", "a.webm", "live.webm", "no-sizes.webm", "a.mkv", "a.wav", "rf64.wav", "vorbis.ogg", "a.opus",
]  # fmt: skip
MIB = 1024 * 1024


def structure(body: bytes, name: str = "a") -> Structure:
    made = structure_of(sniff(body[:4096]), name)
    assert made is not None
    return made


def shown_at_once(body: bytes, like: bytes | None = None) -> str | None:
    """Return what is wrong with `body`, shown as one stream from a source without ranges."""
    made = structure(like or body)
    made.saw(0, memoryview(body))
    return verdict(made, len(body), None)


def verdict(made: Structure, size: int, read: Callable[[int, memoryview], None] | None) -> str | None:
    try:
        made.finish(size, read)
    except UnexpectedContent as error:
        return str(error)
    return None


class Reads:
    """The source, read again."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.count = 0
        self.bytes = 0

    def __call__(self, start: int, into: memoryview) -> None:
        assert len(into) > 0
        assert 0 <= start <= start + len(into) <= len(self.body)
        self.count += 1
        self.bytes += len(into)
        into[:] = self.body[start : start + len(into)]


def split(body: bytes, size: int) -> list[tuple[int, bytes]]:
    return [(at, body[at : at + size]) for at in range(0, len(body), size)]


@pytest.mark.parametrize("name", WITH_STRUCTURE)
def test_a_file_that_is_whole_passes(name: str) -> None:
    assert shown_at_once(files()[name]) is None


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.aac", "a.avi", "a.ts"])
def test_other_media_have_no_structure_that_could_be_checked(name: str) -> None:
    assert structure_of(sniff(files()[name][:4096]), name) is None


def borders(name: str, body: bytes) -> list[int]:
    """Return where its top-level elements end, for webm those of its segment, too."""
    if name == "large-size.mp4":
        return [len(body)]
    if sniff(body[:4096]) is Kind.MP4:
        return list(accumulate(len(whole) for _, whole in boxes(body)))
    if name in ("a.webm", "a.mkv"):
        (_, _, head), (_, segment, whole) = elements(body)
        start = len(head) + len(whole) - len(segment)
        return [len(head), *accumulate((len(each) for _, _, each in elements(segment)), initial=start)]
    return [len(body)]


@pytest.mark.parametrize("name", WITH_STRUCTURE)
def test_a_file_that_is_cut_within_its_last_element_is_broken(name: str) -> None:
    body = files()[name]
    ends = borders(name, body)
    last = ends[-2] if len(ends) > 1 else len(body) - 100
    cuts = {*range(last + 1, min(last + 40, len(body))), *range(len(body) - 12, len(body))}

    assert {cut for cut in cuts if shown_at_once(body[:cut], like=body) is None} == set()


@pytest.mark.parametrize(
    "name", ["moov-at-end.mp4", "faststart.mp4", "a.mov", "a.m4a", "a.webm", "a.mkv", "a.wav"]
)
def test_a_file_that_says_how_long_it_is_is_broken_wherever_it_is_cut(name: str) -> None:
    body = files()[name]
    near = {each + offset for each in borders(name, body) for offset in (-9, -8, -1, 0, 1, 4, 8, 9)}
    cuts = {cut for cut in (*near, *range(13, len(body), 997)) if 12 < cut < len(body)}

    assert {cut for cut in cuts if shown_at_once(body[:cut], like=body) is None} == set()


@pytest.mark.parametrize("name", ["fragmented.mp4", "every-frame.mp4", "cmaf.mp4"])
def test_a_fragmented_file_may_end_only_behind_the_media_of_a_fragment(name: str) -> None:
    body = files()[name]
    ends = dict(zip(borders(name, body), (kind for kind, _ in boxes(body)), strict=True))
    near = {each + offset for each in ends for offset in (-1, 0, 1, 7, 8, 9)}

    passed = {cut for cut in near if 8 < cut < len(body) and shown_at_once(body[:cut], like=body) is None}

    assert passed
    assert passed <= set(ends)
    assert {ends[cut] for cut in passed} <= {b"mdat", b"styp", b"sidx", b"prft"}


FTYP, TRAK = box(b"ftyp", b"isom"), box(b"trak", b"\0" * 8)
MOOV, MDAT = box(b"moov", box(b"mvhd", b"\0" * 100) + TRAK), box(b"mdat", b"film")
MOOF = box(b"moof", box(b"mfhd", bytes(8)))
FRAGMENTED = FTYP + box(b"moov", TRAK + box(b"mvex", box(b"trex", bytes(24))))

MP4_CASES = [
    ("mdat first, as a recorder writes it", FTYP + MDAT + MOOV, None),
    ("no ftyp, as old QuickTime files", box(b"wide") + MDAT + MOOV, None),
    ("boxes that nobody knows", FTYP + MOOV + box(b"\xa9abc", b"x") + MDAT + box(b"beam", b"123"), None),
    ("an mdat to the end of the file", FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + b"film", None),
    ("a moov to the end of the file", FTYP + MDAT + struct.pack(">I4s", 0, b"moov") + MOOV[8:], None),
    ("a 64-bit size", FTYP + MOOV + large_box(b"mdat", b"film"), None),
    ("one empty mdat beside a full one", FTYP + MOOV + box(b"mdat") + MDAT, None),
    ("a few bytes behind the last box", FTYP + MOOV + MDAT + b"\r\n", None),
    ("zeros behind the last box", FTYP + MOOV + MDAT + bytes(5000), None),
    ("a compressed moov", FTYP + box(b"moov", box(b"cmov", b"zlib")) + MDAT, None),
    ("fragments", FRAGMENTED + (MOOF + MDAT) * 3, None),
    ("fragments with boxes before each", FRAGMENTED + (box(b"styp", b"msdh") + MOOF + MDAT) * 3, None),
    ("a recorder that died before it wrote the moov", FTYP + MDAT, "no moov"),
    ("an mdat that was cut", FTYP + MOOV + MDAT[:-1], "last box ends at byte"),
    ("an mdat that was cut, without moov", FTYP + box(b"mdat", bytes(500))[:99], "last box ends at byte"),
    ("a 64-bit mdat that was cut", FTYP + MOOV + large_box(b"mdat", b"film")[:-1], "last box ends at byte"),
    ("a 64-bit size that was cut", FTYP + MOOV + large_box(b"mdat", b"film")[:12], "no media"),
    ("a moov that was cut", FTYP + MDAT + MOOV[:-1], "last box ends at byte"),
    ("a moov that was cut within a header in it", FTYP + MDAT + MOOV[:120], "last box ends at byte"),
    ("no mdat", FTYP + MOOV, "no media"),
    ("an empty mdat", FTYP + MOOV + box(b"mdat"), "no media"),
    ("an empty mdat to the end of the file", FTYP + MOOV + struct.pack(">I4s", 0, b"mdat"), "no media"),
    ("an empty 64-bit mdat", FTYP + MOOV + large_box(b"mdat", b""), "no media"),
    ("an empty moov", FTYP + box(b"moov") + MDAT, "no track"),
    ("a moov without a track", FTYP + box(b"moov", box(b"mvhd", bytes(100))) + MDAT, "no track"),
    ("a track longer than the moov", FTYP + box(b"moov", TRAK + b"\0\0\1\0trak") + MDAT, "longer than the moov"),
    ("zeros in the place of the media", FTYP + MOOV + bytes(5000), "zeros begin"),
    ("zeros in the place of fragments", FRAGMENTED + MOOF + MDAT + bytes(5000), "zeros begin"),
    ("a fragment without its media", FRAGMENTED + MOOF + MDAT + MOOF, "last fragment"),
    ("a fragmented file cut within a header", FRAGMENTED + MOOF + MDAT + MOOF[:5], "is cut at byte"),
    ("no fragment at all", FRAGMENTED, "no media"),
    ("media segments without their moov", (box(b"styp", b"msdh") + MOOF + MDAT) * 3, "no moov"),
    ("a size that cannot be", FTYP + MOOV + MDAT + struct.pack(">I4s", 5, b"free"), "no box at byte"),
    ("text behind it", FTYP + MOOV + MDAT + b"Bad Gateway, sorry", "ends at byte"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "body", "reason"), MP4_CASES, ids=[each[0] for each in MP4_CASES])
def test_an_mp4_is_judged_by_its_boxes(line: str, body: bytes, reason: str | None) -> None:
    assert_judged(body, reason)


def element(name: bytes, content: bytes = b"") -> bytes:
    return name + (0x10000000 | len(content)).to_bytes(4, "big") + content


HEAD = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"webm"))
BLOCK, TIME = element(b"\xa3", b"frame"), element(b"\xe7", b"\0")
WEBM_CLUSTER, CUES = element(CLUSTER, TIME + BLOCK * 2), element(b"\x1c\x53\xbb\x6b", b"cues")
LIVE_CLUSTER = CLUSTER + NO_SIZE + TIME + BLOCK * 2
LIVE = HEAD + SEGMENT + NO_SIZE + element(b"\x16\x54\xae\x6b", b"tracks")

WEBM_CASES = [
    ("a segment and clusters of known size", HEAD + element(SEGMENT, WEBM_CLUSTER * 2 + CUES), None),
    ("a segment of unknown size", LIVE + WEBM_CLUSTER * 2, None),
    ("clusters of unknown size", LIVE + LIVE_CLUSTER * 3, None),
    ("an index behind clusters of unknown size", LIVE + LIVE_CLUSTER * 3 + CUES, None),
    ("padding", LIVE + element(b"\xec", bytes(50)) + WEBM_CLUSTER + element(b"\xec"), None),
    ("a new element that nobody knows", LIVE + element(b"\x1b\x53\x86\x67", b"new") + WEBM_CLUSTER, None),
    ("a block group", LIVE + element(CLUSTER, TIME + element(b"\xa0", b"group")), None),
    ("one recording behind the other", (HEAD + element(SEGMENT, WEBM_CLUSTER)) * 2, None),
    ("a block that was cut", LIVE + LIVE_CLUSTER[:-1], "last element"),
    ("the header of a block that was cut", LIVE + LIVE_CLUSTER + BLOCK[:3], "last element"),
    ("a cluster that was cut", LIVE + WEBM_CLUSTER + WEBM_CLUSTER[:-1], "last element"),
    ("a cluster that was cut between two blocks", LIVE + WEBM_CLUSTER[: -len(BLOCK)], "last element"),
    ("a segment that was cut between two clusters",
     HEAD + element(SEGMENT, WEBM_CLUSTER * 2)[: -len(WEBM_CLUSTER)], "last element"),
    ("no segment", HEAD, "no segment"),
    ("no cluster", LIVE, "no media"),
    ("a cluster without a block", LIVE + element(CLUSTER, TIME), "no media"),
    ("empty clusters of unknown size", LIVE + (CLUSTER + NO_SIZE + TIME) * 3, "no media"),
    ("an empty block", LIVE + CLUSTER + NO_SIZE + TIME + element(b"\xa3"), "no media"),
    ("a block that is longer than its cluster", LIVE + element(CLUSTER, TIME + BLOCK[:-1]) + CUES, "longer than the"),
    ("a cluster that is longer than its segment", HEAD + element(SEGMENT, WEBM_CLUSTER[:-1]) + CUES, "longer than the"),
    ("zeros behind it", LIVE + WEBM_CLUSTER + bytes(100), "no element"),
    ("text in the place of a cluster", LIVE + WEBM_CLUSTER + b"<html>Bad Gateway</html>", ""),
]  # fmt: skip


@pytest.mark.parametrize(("line", "body", "reason"), WEBM_CASES, ids=[each[0] for each in WEBM_CASES])
def test_a_webm_is_judged_by_its_elements(line: str, body: bytes, reason: str | None) -> None:
    assert_judged(body, reason)


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    padding = b"\0" * (len(content) % 2)
    return name + struct.pack("<I", len(content) if size is None else size) + content + padding


def riff(content: bytes, size: int | None = None, name: bytes = b"RIFF") -> bytes:
    return name + struct.pack("<I", 4 + len(content) if size is None else size) + b"WAVE" + content


FMT = chunk(b"fmt ", bytes(16))
DS64 = chunk(b"ds64", struct.pack("<QQQI", 12 + 36 + 24 + 8 + 6 - 8, 6, 0, 0))

WAV_CASES = [
    ("as every recorder writes it", riff(FMT + chunk(b"data", b"sound!")), None),
    ("a padded chunk at the end", riff(FMT + chunk(b"data", b"sound")), None),
    ("a padded chunk at the end without its padding", riff(FMT + chunk(b"data", b"sound"))[:-1], None),
    ("a chunk behind the sound", riff(FMT + chunk(b"data", b"sound!") + chunk(b"LIST", b"name")), None),
    ("a streamed file", riff(FMT + chunk(b"data", b"sound!", 0xFFFFFFFF), 0xFFFFFFFF), None),
    ("a streamed file with sizes of 0", riff(FMT + chunk(b"data", b"sound!", 0), 0), None),
    ("64-bit sizes", riff(DS64 + FMT + chunk(b"data", b"sound!", 0xFFFFFFFF), 0xFFFFFFFF, b"RF64"), None),
    ("something behind the RIFF chunk", riff(FMT + chunk(b"data", b"sound!")) + b"something", None),
    ("sound that was cut", riff(FMT + chunk(b"data", b"sound!"))[:-1], "chunks end at byte"),
    ("a last chunk that was cut", riff(FMT + chunk(b"data", b"sound!") + chunk(b"LIST", b"name"))[:-1], "chunks end"),
    ("a last chunk that is missing",
     riff(FMT + chunk(b"data", b"sound!") + chunk(b"LIST", b"name"))[:-12], "chunks end at byte"),
    ("sound that was cut, by 64-bit sizes",
     riff(DS64 + FMT + chunk(b"data", b"sound", 0xFFFFFFFF), 0xFFFFFFFF, b"RF64")[:-1], "chunks end at byte"),
    ("no sound", riff(FMT), "no sound"),
    ("an empty data chunk", riff(FMT + chunk(b"data", b"")), "no sound"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "body", "reason"), WAV_CASES, ids=[each[0] for each in WAV_CASES])
def test_a_wav_is_judged_by_its_chunks(line: str, body: bytes, reason: str | None) -> None:
    assert_judged(body, reason)


def test_an_ogg_must_end_with_the_last_page_of_a_stream() -> None:
    body = files()["a.opus"]
    last_page = body.rindex(b"OggS")

    assert "not the end of a stream" in (shown_at_once(body[:last_page]) or "")
    assert "ends at byte" in (shown_at_once(body[:-1]) or "")
    assert "no page" in (shown_at_once(body + bytes(100)) or "")


def assert_judged(body: bytes, reason: str | None) -> None:
    """At once, and in parts of a few bytes in any order, by a source that can be read again."""
    found = shown_at_once(body)
    assert (found is None) == (reason is None), found
    assert (reason or "") in (found or "")
    for seed, size in enumerate((1, 3, 8, 50)):
        parts = split(body, size)
        random.Random(seed).shuffle(parts)
        made = structure(body)
        for start, part in parts:
            made.saw(start, memoryview(part))
        found = verdict(made, len(body), Reads(body))
        assert (found is None) == (reason is None), f"in parts of {size} bytes: {found}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(WITH_STRUCTURE),
    kept=st.one_of(st.just(1.0), st.floats(0.2, 1.0)),
    part_bytes=st.integers(500, 100_000),
    seed=st.integers(0, 2**32),
    share_shown=st.sampled_from([1.0, 1.0, 0.5, 0.0]),
)
def test_the_order_of_parts_and_what_was_not_shown_change_no_verdict(
    name: str, kept: float, part_bytes: int, seed: int, share_shown: float
) -> None:
    whole = files()[name]
    body = whole[: max(int(len(whole) * kept), 1)]
    chance = random.Random(seed)
    parts = split(body, part_bytes)
    chance.shuffle(parts)
    made = structure(whole)

    for start, part in parts:
        if chance.random() < share_shown:
            made.saw(start, memoryview(part))

    assert (verdict(made, len(body), Reads(body)) is None) == (shown_at_once(body, like=whole) is None)


def out_of_order(body: bytes, part_bytes: int, in_flight: int = 16) -> list[tuple[int, bytes]]:
    """As the engine's connections bring them: any of those in flight comes next."""
    chance, waiting, order = random.Random(3), split(body, part_bytes), []
    while waiting:
        order.append(waiting.pop(chance.randrange(min(in_flight, len(waiting)))))
    return order


@pytest.mark.parametrize("name", ["fragmented.mp4", "every-frame.mp4", "cmaf.mp4", "no-sizes.webm", "a.opus"])
def test_parts_out_of_order_are_not_read_again(name: str) -> None:
    body = many_times(name, 6 * MIB)
    made, reads = structure(body), Reads(body)

    for start, part in out_of_order(body, MIB // 4):
        made.saw(start, memoryview(part))

    assert verdict(made, len(body), reads) is None
    assert reads.bytes < len(body) / 10


def test_of_an_ordinary_mp4_nothing_is_read_again_and_hardly_anything_is_looked_at() -> None:
    body = FTYP + MOOV + large_box(b"mdat", random.Random(1).randbytes(20 * MIB))
    made, reads = structure(body), Reads(body)

    for start, part in out_of_order(body, MIB):
        made.saw(start, memoryview(part))

    assert verdict(made, len(body), reads) is None
    assert reads.count == 0


def test_what_an_earlier_attempt_stored_is_read_again_in_few_and_large_pieces() -> None:
    body = many_times("every-frame.mp4", 6 * MIB)
    made, reads = structure(body), Reads(body)
    made.saw(0, memoryview(body[:MIB]))

    assert verdict(made, len(body), reads) is None
    assert reads.count < 15


def many_times(name: str, at_least: int) -> bytes:
    """A long recording: the fragments, clusters or streams of a short one again and again."""
    body = files()[name]
    if name.endswith("mp4"):
        found = [(kind, whole) for kind, whole in boxes(body) if kind != b"mfra"]
        head = b"".join(whole for kind, whole in found if kind in (b"ftyp", b"moov"))
        rest = b"".join(whole for kind, whole in found if kind not in (b"ftyp", b"moov"))
    elif name.endswith("webm"):
        at = body.index(CLUSTER)
        head, rest = body[:at], body[at:]
    else:
        head, rest = b"", body
    return head + rest * (at_least // len(rest) + 1)


def test_a_restarted_copy_is_judged_again() -> None:
    body = FTYP + MOOV + MDAT
    made = structure(body)
    made.saw(0, memoryview(FTYP + box(b"mdat", bytes(5000))))

    made.saw(0, memoryview(body))

    assert verdict(made, len(body), None) is None


def test_a_source_that_cannot_be_read_again_is_not_the_fault_of_the_file() -> None:
    body = FTYP + MOOV + MDAT
    made = structure(body)

    def read(start: int, into: memoryview) -> None:
        raise SourceUnavailable("503")

    with pytest.raises(SourceUnavailable):
        made.finish(len(body), read)


def test_the_message_names_the_file_and_what_is_wrong_with_it() -> None:
    made = structure(FTYP, name="Rec-1.mp4")
    made.saw(0, memoryview(FTYP + MDAT))

    with pytest.raises(
        UnexpectedContent, match=r"^Rec-1.mp4: it has no moov box, without which nothing can play it$"
    ):
        made.finish(len(FTYP + MDAT), None)

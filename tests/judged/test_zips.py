"""Zipped VODs: unpacked if they can be, else kept packed with doubts, and never archived if they are no recording."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from archiver.core.contents.zip.zipped import ZipMode
from archiver.ledger.models import AssetState
from tests.core.contents.media import single
from tests.core.contents.origin import Answer, Origin
from tests.judged.harness import Harness, judged
from tests.judged.test_trees import drop, nothing, put, tree

ARCHIVED, QUARANTINED, LOST = AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.LOST
NAME = "Rec.zip"


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, body in files.items():
            archive.writestr(zipfile.ZipInfo(name), body, compress_type=method)
    return held.getvalue()


def damaged(data: bytes, body: bytes) -> bytes:
    """One byte of a stored member flipped."""
    at = data.index(body) + len(body) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@dataclass
class Case:
    what: str
    make: Callable[[], bytes]
    state: AssetState
    unpacked: bool
    missing: tuple[str, ...] = ()


def of(change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_DEFLATED) -> Callable[[], bytes]:
    def make() -> bytes:
        files = tree()
        change(files)
        return packed(files, method)

    return make


def renamed(old: str, new: str) -> Callable[[], bytes]:
    """The bytes of a zip with a name in it replaced by one as long."""
    assert len(old) == len(new)
    return lambda: of(nothing)().replace(old.encode(), new.encode())


CASES = [
    Case("a whole tree", of(nothing), ARCHIVED, True),
    Case("stored, not deflated", of(nothing, zipfile.ZIP_STORED), ARCHIVED, True),
    Case("bzip2", of(nothing, zipfile.ZIP_BZIP2), QUARANTINED, False),
    Case("lzma", of(nothing, zipfile.ZIP_LZMA), QUARANTINED, False),
    Case("bytes before the zip", lambda: b"#!/bin/sh\n" + of(nothing)(), QUARANTINED, False),
    Case("bytes after the zip", lambda: of(nothing)() + b"\0" * 64, QUARANTINED, False),
    Case("a name with backslashes", renamed("low/s0.ts", "low\\s0.ts"), QUARANTINED, False),
    Case("a name that leads out of it", renamed("low/s0.ts", "../../.ts"), QUARANTINED, False),
    Case("a zip that is cut at the source", lambda: of(nothing)()[:-200], QUARANTINED, False),
    Case(
        "no playlist in it",
        of(drop("master.m3u8", "high/stream.m3u8", "low/stream.m3u8", "subs/subs.m3u8")),
        QUARANTINED,
        True,
    ),
    Case(
        "no media in it",
        of(drop(*(name for name in tree() if name.endswith((".ts", ".vtt"))))),
        QUARANTINED,
        False,
    ),
    Case("an empty segment", of(put("low/s1.ts", b"")), QUARANTINED, True),
    Case("a picture where a segment should be", of(put("low/s1.ts", single("a.png"))), QUARANTINED, True),
    Case("an empty variant", of(put("low/stream.m3u8", b"#EXTM3U\n#EXT-X-ENDLIST\n")), QUARANTINED, True),
    Case("a missing segment", of(drop("low/s1.ts")), QUARANTINED, True, ("low/s1.ts",)),
    Case("a missing caption", of(drop("subs/c1.vtt")), QUARANTINED, True, ("subs/c1.vtt",)),
    Case("empty captions", of(put("subs/c1.vtt", b"")), ARCHIVED, True),
    Case(
        "a member whose CRC-32 is wrong",
        lambda: damaged(of(nothing, zipfile.ZIP_STORED)(), tree()["low/s1.ts"]),
        QUARANTINED,
        True,
        ("low/s1.ts",),
    ),
    Case("no member at all", lambda: packed({}), QUARANTINED, False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_zip_is_judged_rightly(case: Case) -> None:
    data = case.make()
    with Origin({f"/z/{NAME}": data}) as origin:
        outcome = judged(origin, f"/z/{NAME}", type="room-vod")

    assert outcome.state is case.state, outcome
    assert set(case.missing) <= set(outcome.missing), outcome
    assert bool(outcome.doubts) is (case.state is QUARANTINED)
    kept_packed = [body for path, body in outcome.stored.items() if path.endswith(NAME)]
    if case.unpacked:
        assert outcome.stored["high/s1.ts"] == tree()["high/s1.ts"]
    else:
        assert kept_packed == [data], "the zip itself, as the source has it"


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.state is QUARANTINED], ids=lambda case: case.what
)
def test_kept_packed_nobody_judges_members_that_nobody_unpacks(case: Case) -> None:
    data = case.make()
    with Origin({f"/z/{NAME}": data}) as origin:
        outcome = judged(origin, f"/z/{NAME}", type="room-vod", zip_mode=ZipMode.KEEP)

    assert outcome.stored[NAME] == data
    broken_as_a_zip = {
        "a zip that is cut at the source",
        "bytes before the zip",
        "bytes after the zip",
        "no member at all",
    }
    if case.what not in broken_as_a_zip:
        assert outcome.state is ARCHIVED, outcome


def test_one_passing_200_to_a_range_does_not_decide_that_a_zip_stays_packed() -> None:
    data = of(nothing)()
    with Origin({f"/z/{NAME}": data}) as origin:
        answers = iter([True])
        origin.rule = lambda _request: Answer(200, data) if next(answers, False) else None

        outcome = judged(origin, f"/z/{NAME}", type="room-vod")

    assert outcome.state is ARCHIVED, outcome
    assert outcome.stored["high/s1.ts"] == tree()["high/s1.ts"]


def test_a_source_without_ranges_has_its_zip_kept_packed_with_a_doubt() -> None:
    data = of(nothing)()
    with Origin({f"/z/{NAME}": data}) as origin:
        origin.ranges = False

        outcome = judged(origin, f"/z/{NAME}", type="room-vod")

    assert outcome.state is QUARANTINED, outcome
    assert outcome.stored[NAME] == data


def test_a_zip_that_gets_whole_is_archived_at_a_later_look() -> None:
    with Origin({f"/z/{NAME}": of(drop("low/s1.ts"))()}) as origin:
        harness = Harness(origin, f"/z/{NAME}", type="room-vod")
        assert harness.until_settled().state is QUARANTINED
        origin.files[f"/z/{NAME}"] = of(nothing)()

        row = harness.until_deadline()

    assert row.state is ARCHIVED
    assert harness.stored["low/s1.ts"] == tree()["low/s1.ts"]
    harness.close()

"""Zips at servers whose ranges fail: for once, at some length, in the middle, or always."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count

import pytest

from archiver.core.contents.zip.zipped import ZipMode
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Origin, Request
from tests.core.contents.zips import STORED, open_zip, take, tree, zipped

FILES = {
    **tree(segments=40),
    **{
        f"v/{number}.ts": b"".join(b"G" + random.Random(number).randbytes(187) for _ in range(160))
        for number in range(40)
    },
}
DATA = zipped(FILES, STORED)
NOT_BY_RANGE = "cannot be read by range, so it is kept packed and was not looked into"


def whole(request: Request, etag: str = '"one"') -> Answer | None:
    return Answer(200, DATA, {"ETag": etag})


def length(request: Request) -> int:
    first, last = request.headers["range"].removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def test_one_passing_answer_without_ranges_does_not_decide(client: HttpClient, origin: Origin) -> None:
    origin.ranges = False
    answers = count()

    def once(request: Request) -> Answer | None:
        origin.ranges = next(answers) > 1
        return None

    origin.rule = once

    made = take(open_zip(client, origin, DATA))

    assert made.files == FILES
    assert made.doubtful == ""


@pytest.mark.parametrize("mode", [ZipMode.UNPACK, ZipMode.BOTH])
def test_a_zip_that_is_never_read_by_range_is_kept_packed_with_a_doubt(
    client: HttpClient, origin: Origin, mode: ZipMode
) -> None:
    origin.ranges = False

    made = take(open_zip(client, origin, DATA, mode=mode))

    assert made.files == {"rec.zip": DATA}
    assert [doubt.what for doubt in made.doubts] == [f"the zip {NOT_BY_RANGE}"]
    assert origin.asked("/rec.zip") > 3, "it was asked several times"


PASSING: dict[str, Callable[[Request], Answer | None]] = {
    "a whole body for a range": whole,
    "an answer without Content-Range": lambda request: Answer(206, bytes(length(request))),
    "another range": lambda request: Answer(
        206, bytes(10), {"Content-Range": f"bytes 0-9/{len(DATA)}", "ETag": '"one"'}
    ),
}


@pytest.mark.parametrize("what", PASSING)
def test_a_range_that_is_answered_wrongly_for_once_is_asked_for_again(
    client: HttpClient, origin: Origin, what: str
) -> None:
    origin.headers = lambda request: Answer(200, b"", {"ETag": '"one"'})
    contents = open_zip(client, origin, DATA, window_bytes=100_000)
    seen: set[str] = set()

    def once(request: Request) -> Answer | None:
        asked = request.headers.get("range", "")
        if asked in seen:
            return None
        seen.add(asked)
        return PASSING[what](request)

    origin.rule = once

    made = take(contents)

    assert made.files == FILES
    assert made.doubtful == ""


def test_a_server_that_caps_its_ranges_is_asked_for_less(client: HttpClient, origin: Origin) -> None:
    """At 600 kB, of which a server must allow 512 KiB."""

    def capped(request: Request) -> Answer | None:
        if "range" not in request.headers or length(request) <= 600_000:
            return None
        first = int(request.headers["range"].removeprefix("bytes=").split("-")[0])
        piece = DATA[first : first + 600_000]
        return Answer(
            206,
            piece,
            {"ETag": '"one"', "Content-Range": f"bytes {first}-{first + len(piece) - 1}/{len(DATA)}"},
        )

    origin.headers = lambda request: Answer(200, b"", {"ETag": '"one"'})
    origin.rule = capped

    made = take(open_zip(client, origin, DATA))

    assert made.files == FILES
    assert made.doubtful == ""


LASTING: dict[str, Callable[[Request], Answer | None]] = {
    "whole bodies for ranges": whole,
    "another ETag by each server": lambda request: whole(request, '"two"'),
    "another file": lambda request: Answer(412, b"precondition failed"),
}


@pytest.mark.parametrize("mode", [ZipMode.UNPACK, ZipMode.BOTH])
@pytest.mark.parametrize("what", LASTING)
def test_ranges_that_fail_for_good_in_the_middle_leave_the_packed_zip(
    client: HttpClient, origin: Origin, what: str, mode: ZipMode
) -> None:
    origin.headers = lambda request: Answer(200, b"", {"ETag": '"one"'})
    contents = open_zip(client, origin, DATA, window_bytes=100_000, mode=mode)
    asked: list[str] = []

    def later(request: Request) -> Answer | None:
        if "range" not in request.headers or request.headers["range"].startswith("bytes=0-65535"):
            return whole(request)  # the core reads it as one plain stream
        asked.append(request.headers["range"])
        return LASTING[what](request) if len(asked) > 12 else None

    origin.rule = later

    made = take(contents)

    assert made.files["_zip/rec.zip"] == DATA
    assert f"_zip/rec.zip: the zip {NOT_BY_RANGE}" in made.doubtful
    assert 0 < len(made.files) - 1 < len(FILES)
    assert "master.m3u8" not in made.files


@pytest.mark.parametrize("what", LASTING)
def test_ranges_that_fail_for_good_from_the_start_leave_the_packed_zip(
    client: HttpClient, origin: Origin, what: str
) -> None:
    origin.headers = lambda request: Answer(200, b"", {"ETag": '"one"'})

    def later(request: Request) -> Answer | None:
        first = request.headers.get("range", "").startswith("bytes=0-4095")
        return None if first else LASTING[what](request)

    origin.rule = later
    contents = open_zip(client, origin, DATA)
    origin.rule = whole

    made = take(contents)

    assert made.files == {"rec.zip": DATA}
    assert NOT_BY_RANGE in made.doubtful

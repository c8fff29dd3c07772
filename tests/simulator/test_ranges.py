"""Ranges and preconditions, at the storage and at the CDN alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from tests.simulator.process import Simulator

Opened = Callable[..., httpx.Response]


@pytest.fixture(params=["composite", "vod-ts"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(simulator: Simulator, client: httpx.Client, kind: str) -> Opened:
    url = simulator.signed_url(simulator.asset(kind)["id"])
    return lambda **headers: client.get(url, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
def whole(opened: Opened) -> httpx.Response:
    return opened()


def test_the_whole_says_its_length_its_etag_and_that_it_has_ranges(whole: httpx.Response) -> None:
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert whole.headers["etag"] == f'"{hashlib.md5(whole.content).hexdigest()}"'
    assert whole.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("range_", "wanted"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=50-99999999", slice(50, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_a_range_is_answered_with_206_and_exactly_its_bytes(
    opened: Opened, whole: httpx.Response, range_: str, wanted: slice
) -> None:
    answer = opened(range=range_)

    start, stop, _ = wanted.indices(len(whole.content))
    assert answer.status_code == 206
    assert answer.content == whole.content[wanted]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole.content)}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["etag"] == whole.headers["etag"]


def test_a_range_past_the_end_is_416_and_names_the_length(opened: Opened, whole: httpx.Response) -> None:
    answer = opened(range=f"bytes={len(whole.content)}-")

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(whole.content)}"


@pytest.mark.parametrize("range_", ["bytes=0-1,5-6", "chapters=1-2", "bytes=-", "bytes=a-b"])
def test_a_range_that_s3_does_not_know_is_answered_with_the_whole(
    opened: Opened, whole: httpx.Response, range_: str
) -> None:
    answer = opened(range=range_)

    assert answer.status_code == 200
    assert answer.content == whole.content


def test_if_match_lets_the_same_file_through_and_no_other(opened: Opened, whole: httpx.Response) -> None:
    same = opened(range="bytes=0-9", if_match=whole.headers["etag"])
    other = opened(range="bytes=0-9", if_match='"another"')

    assert (same.status_code, other.status_code) == (206, 412)


def test_if_range_gets_the_part_of_the_same_file_and_the_whole_of_another(
    opened: Opened, whole: httpx.Response
) -> None:
    same = opened(range="bytes=0-9", if_range=whole.headers["etag"])
    other = opened(range="bytes=0-9", if_range='"another"')

    assert (same.status_code, len(same.content)) == (206, 10)
    assert (other.status_code, len(other.content)) == (200, len(whole.content))


def test_if_none_match_saves_the_body(opened: Opened, whole: httpx.Response) -> None:
    answer = opened(if_none_match=whole.headers["etag"])

    assert (answer.status_code, answer.content) == (304, b"")


def test_an_empty_file_is_served_and_has_no_ranges(scratch: Simulator, client: httpx.Client) -> None:
    url = scratch.signed_url(scratch.add_asset("file", name="empty.mp4", data_base64="")["id"])

    whole, ranged = client.get(url), client.get(url, headers={"Range": "bytes=0-9"})

    assert (whole.status_code, whole.content, whole.headers["content-length"]) == (200, b"", "0")
    assert ranged.status_code == 416


def test_a_connection_is_kept_for_the_next_request(simulator: Simulator, client: httpx.Client) -> None:
    asset = simulator.asset("composite")["id"]
    simulator.clear_requests()

    for _ in range(3):
        client.get(simulator.signed_url(asset))

    assert len({request["connection"] for request in simulator.requests(on="storage")}) == 1


def test_any_part_of_a_large_file_is_the_same_at_any_time(scratch: Simulator, client: httpx.Client) -> None:
    asset = scratch.add_asset("large", size_bytes=8 << 30, age=timedelta(hours=1))
    url = scratch.signed_url(asset["id"])

    def part(start: int, length: int) -> bytes:
        return client.get(url, headers={"Range": f"bytes={start}-{start + length - 1}"}).content

    middle = 5 << 30
    assert part(middle, 1 << 20) == part(middle, 700_000) + part(middle + 700_000, (1 << 20) - 700_000)
    assert part(0, 12)[4:8] == b"ftyp"
    assert part(middle, 1 << 20) != part(middle + (8 << 20), 1 << 20)
    assert len(part((8 << 30) - 100, 1000)) == 100

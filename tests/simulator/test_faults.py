"""Each fault as a client meets it, and that it passes."""

from __future__ import annotations

import gzip
import http.client
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from archiver.simulator.faults.behaviours import FAULTS
from tests.simulator.process import Simulator


@dataclass(frozen=True)
class File:
    """A recording of the demo, its URL and its bytes."""

    id: str
    url: str
    data: bytes


@pytest.fixture
def file(simulator: Simulator) -> File:
    asset = simulator.asset("composite")
    data = simulator.content(asset["id"], asset["objects"][0]["path"])
    return File(asset["id"], simulator.signed_url(asset["id"]), data)


def _until_the_end(url: str, range_: str | None = None) -> tuple[http.client.HTTPResponse, bytes, bool]:
    """The answer, the bytes that came, and whether they were all that Content-Length promised."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Range": range_} if range_ else {})
        answer = connection.getresponse()
        try:
            return answer, answer.read(), True
        except http.client.IncompleteRead as error:
            return answer, error.partial, False
    finally:
        connection.close()


def _passes(client: httpx.Client, file: File) -> bool:
    answer = client.get(file.url)
    return (answer.status_code, answer.content) == (200, file.data)


# --- instead of the proper answer


@pytest.mark.parametrize("retry_after", [None, 7])
def test_too_many_requests_with_and_without_retry_after(
    simulator: Simulator, client: httpx.Client, file: File, retry_after: int | None
) -> None:
    simulator.fault("too-many-requests", on="storage", retry_after=retry_after)

    answer = client.get(file.url)

    assert answer.status_code == 429
    assert answer.headers.get("retry-after") == (None if retry_after is None else "7")
    assert _passes(client, file)


def test_the_api_says_too_many_requests_in_its_own_words(simulator: Simulator) -> None:
    simulator.fault("too-many-requests", on="api", retry_after=45)

    answer = simulator.get("/recording-assets")

    assert answer.status_code == answer.json()["code"] == 429
    assert simulator.get("/recording-assets").status_code == 200


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_of_any_number(
    simulator: Simulator, client: httpx.Client, file: File, status: int
) -> None:
    simulator.fault("server-error", status=status)

    assert client.get(file.url).status_code == status
    assert _passes(client, file)


def test_gone_is_404(simulator: Simulator, client: httpx.Client, file: File) -> None:
    simulator.fault("gone", asset=file.id, on="storage")

    assert client.get(file.url).status_code == 404
    assert _passes(client, file)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_is_refused_once(simulator: Simulator, status: int) -> None:
    simulator.fault("token-refused", status=status)

    assert [simulator.get("/recording-assets").status_code for _ in range(2)] == [status, 200]


@pytest.mark.parametrize("kind", ["composite", "vod-ts"])
def test_a_url_that_expired_early_stays_dead_and_a_new_one_works(
    simulator: Simulator, client: httpx.Client, kind: str
) -> None:
    asset = simulator.asset(kind)["id"]
    old, new = simulator.signed_url(asset), simulator.signed_url(asset)
    simulator.fault("early-expiry", on="storage", skip=1)

    first = client.get(old).status_code
    then = [client.get(old).status_code for _ in range(3)]

    assert (first, then) == (200, [403, 403, 403])
    assert client.get(new).status_code == 200


def test_cookies_that_expired_early_are_renewed_by_the_master(
    simulator: Simulator, client: httpx.Client
) -> None:
    url = simulator.signed_url(simulator.asset("vod-cookies")["id"])
    child = url.partition("?")[0].replace("master.m3u8", "stream_0/stream.m3u8")
    client.get(url)
    simulator.fault("early-expiry", path="stream_0")

    dead = [client.get(child).status_code for _ in range(2)]
    client.get(url)

    assert dead == [403, 403]
    assert client.get(child).status_code == 200


def test_html_with_a_200(simulator: Simulator, client: httpx.Client, file: File) -> None:
    simulator.fault("html", asset=file.id, on="storage")

    answer = client.get(file.url, headers={"Range": "bytes=0-99"})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith("<!DOCTYPE html>")
    assert _passes(client, file)


def test_nothing_with_a_200(simulator: Simulator, client: httpx.Client, file: File) -> None:
    simulator.fault("empty", asset=file.id, on="storage")

    answer = client.get(file.url)

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert _passes(client, file)


def test_json_that_is_none(simulator: Simulator) -> None:
    simulator.fault("invalid-json", on="api")

    answer = simulator.get("/recording-assets")

    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Unterminated"):
        answer.json()
    assert simulator.get("/recording-assets").json()["limit"] == 10


def test_json_of_the_tests_own_choice(simulator: Simulator) -> None:
    simulator.fault("invalid-json", on="api", body='{"data": "no list"}')

    assert simulator.get("/recording-assets").json() == {"data": "no list"}


# --- the proper answer, ended early or late


@pytest.mark.parametrize("at_byte", [0, 1, 1000, 79_000])
def test_a_body_is_cut_at_this_byte(
    simulator: Simulator, client: httpx.Client, file: File, at_byte: int
) -> None:
    simulator.fault("cut", asset=file.id, on="storage", at_byte=at_byte)

    answer, data, complete = _until_the_end(file.url)

    assert answer.headers["content-length"] == str(len(file.data))
    assert (data, complete) == (file.data[:at_byte], False)
    assert _passes(client, file)


def test_a_range_is_cut_too(simulator: Simulator, file: File) -> None:
    simulator.fault("cut", asset=file.id, on="storage", at_byte=10)

    answer, data, complete = _until_the_end(file.url, "bytes=100-199")

    assert (answer.status, data, complete) == (206, file.data[100:110], False)


def test_half_a_body_is_cut_when_no_byte_is_named(simulator: Simulator, file: File) -> None:
    simulator.fault("cut", asset=file.id, on="storage")

    assert len(_until_the_end(file.url)[1]) == len(file.data) // 2


def test_a_large_body_is_cut_at_a_byte_far_in(scratch: Simulator) -> None:
    asset = scratch.add_asset("large", size_bytes=20_000_000)
    scratch.fault("cut", asset=asset["id"], on="storage", at_byte=12_345_678)

    _, data, complete = _until_the_end(scratch.signed_url(asset["id"]))

    assert (len(data), complete) == (12_345_678, False)


@pytest.mark.parametrize("at_byte", [-1, 0])
def test_a_connection_is_reset(simulator: Simulator, client: httpx.Client, file: File, at_byte: int) -> None:
    simulator.fault("reset", asset=file.id, on="storage", at_byte=at_byte)

    with pytest.raises(httpx.TransportError):
        client.get(file.url)
    assert _passes(client, file)


def test_a_body_stalls_and_what_came_before_is_right(simulator: Simulator, file: File) -> None:
    simulator.fault("stall", asset=file.id, on="storage", at_byte=500)
    parts = urlsplit(file.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=0.5)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()

    assert answer.read(500) == file.data[:500]
    with pytest.raises(TimeoutError):
        answer.read(1)
    connection.close()


def test_a_stall_may_come_before_the_status_and_has_an_end(simulator: Simulator, file: File) -> None:
    simulator.fault("stall", asset=file.id, on="storage", at_byte=-1, seconds=0.3)

    with pytest.raises(http.client.RemoteDisconnected):
        _until_the_end(file.url)


def test_a_delayed_answer_is_whole(simulator: Simulator, client: httpx.Client, file: File) -> None:
    simulator.fault("delay", asset=file.id, on="storage", seconds=0.3)
    began = time.monotonic()

    assert _passes(client, file)
    assert time.monotonic() - began >= 0.3


def test_a_slow_body_keeps_its_pace_on_each_connection(simulator: Simulator, file: File) -> None:
    simulator.fault("slow", asset=file.id, on="storage", times=2, bytes_per_second=160_000)
    bodies: list[bytes] = []
    began = time.monotonic()

    threads = [threading.Thread(target=lambda: bodies.append(_until_the_end(file.url)[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    took = time.monotonic() - began
    assert bodies == [file.data, file.data]
    assert took >= len(file.data) / 160_000


# --- the proper answer with something wrong about it


def test_a_short_body_may_agree_with_its_content_length(
    simulator: Simulator, client: httpx.Client, file: File
) -> None:
    simulator.fault("short-body", asset=file.id, on="storage", missing_bytes=10)

    answer, data, complete = _until_the_end(file.url)

    assert answer.headers["content-length"] == str(len(file.data) - 10)
    assert (data, complete) == (file.data[:-10], True)
    assert _passes(client, file)


def test_a_short_range_still_claims_the_whole_range(simulator: Simulator, file: File) -> None:
    simulator.fault("short-body", asset=file.id, on="storage", missing_bytes=10)

    answer, data, complete = _until_the_end(file.url, "bytes=0-99")

    assert answer.headers["content-range"] == f"bytes 0-99/{len(file.data)}"
    assert (data, complete) == (file.data[:90], True)


@pytest.mark.parametrize("on", ["storage", "api"])
def test_a_short_body_may_break_its_promise(simulator: Simulator, file: File, on: str) -> None:
    if on == "api":
        simulator.fault("short-body", on="api", content_length="full")
        with pytest.raises(httpx.RemoteProtocolError):
            simulator.get("/recording-assets")
        return
    simulator.fault("short-body", asset=file.id, on="storage", missing_bytes=10, content_length="full")

    answer, data, complete = _until_the_end(file.url)

    assert answer.headers["content-length"] == str(len(file.data))
    assert (data, complete) == (file.data[:-10], False)


def test_a_long_body_may_agree_with_its_content_length(simulator: Simulator, file: File) -> None:
    simulator.fault("long-body", asset=file.id, on="storage", extra_bytes=5)

    answer, data, _ = _until_the_end(file.url)

    assert answer.headers["content-length"] == str(len(file.data) + 5)
    assert data == file.data + bytes(5)


def test_a_long_body_may_follow_a_proper_answer(simulator: Simulator, file: File) -> None:
    simulator.fault("long-body", asset=file.id, on="storage", extra_bytes=5, content_length="original")
    parts = urlsplit(file.url)

    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as raw:
        raw.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = b"".join(iter(lambda: raw.recv(65536), b""))

    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(file.data)}".encode() in head
    assert body == file.data + bytes(5)


def test_each_answer_has_another_etag(simulator: Simulator, client: httpx.Client, file: File) -> None:
    simulator.fault("other-etag", asset=file.id, on="storage", times=2)

    answers = [client.get(file.url, headers={"Range": f"bytes={n}0-{n}9"}) for n in range(3)]

    assert [answer.status_code for answer in answers] == [206, 206, 206]
    assert len({answer.headers["etag"] for answer in answers}) == 3


def test_a_replaced_file_fails_if_match_and_if_range_gets_it_whole(
    simulator: Simulator, client: httpx.Client, file: File
) -> None:
    etag = client.get(file.url).headers["etag"]
    simulator.fault("other-etag", asset=file.id, on="storage", times=2)

    matched = client.get(file.url, headers={"Range": "bytes=0-9", "If-Match": etag})
    ranged = client.get(file.url, headers={"Range": "bytes=0-9", "If-Range": etag})

    assert (matched.status_code, ranged.status_code) == (412, 200)


def test_a_server_may_know_no_preconditions(simulator: Simulator, client: httpx.Client, file: File) -> None:
    etag = client.get(file.url).headers["etag"]
    simulator.fault("other-etag", asset=file.id, on="storage", ignore_preconditions=True)

    answer = client.get(file.url, headers={"Range": "bytes=0-9", "If-Match": etag})

    assert answer.status_code == 206
    assert answer.headers["etag"] != etag


def test_a_range_is_answered_with_200_and_everything(
    simulator: Simulator, client: httpx.Client, file: File
) -> None:
    simulator.fault("range-ignored", asset=file.id, on="storage")

    answer = client.get(file.url, headers={"Range": "bytes=100-199"})

    assert (answer.status_code, answer.content) == (200, file.data)
    assert client.get(file.url, headers={"Range": "bytes=100-199"}).status_code == 206


def test_a_body_has_no_length_and_no_ranges(simulator: Simulator, client: httpx.Client, file: File) -> None:
    simulator.fault("no-length", asset=file.id, on="storage")

    answer = client.get(file.url, headers={"Range": "bytes=100-199"})

    assert (answer.status_code, answer.content) == (200, file.data)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert not {"content-length", "accept-ranges", "content-range"} & set(answer.headers)


@pytest.mark.parametrize("header", ["x-goog-hash", "x-amz-checksum-crc32c", "etag"])
def test_a_checksum_header_is_wrong(
    simulator: Simulator, client: httpx.Client, file: File, header: str
) -> None:
    right = client.get(file.url)
    simulator.fault("wrong-checksum", asset=file.id, on="storage", header=header)

    answer = client.get(file.url)

    assert answer.content == right.content
    assert answer.headers[header] != right.headers.get(header)


def test_a_playlist_may_come_gzip_encoded(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("vod-fmp4")["id"])
    plain = client.get(url).content
    simulator.fault("gzip", path="master", times=None)

    accepted = client.get(url, headers={"Accept-Encoding": "gzip"})
    refused = client.get(url, headers={"Accept-Encoding": "identity"})

    assert accepted.headers["content-encoding"] == "gzip"
    assert accepted.content == plain
    assert "content-encoding" not in refused.headers


def test_gzip_may_be_forced_on_a_client_that_did_not_ask(simulator: Simulator, file: File) -> None:
    simulator.fault("gzip", asset=file.id, on="storage", force=True)

    answer, data, _ = _until_the_end(file.url)

    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(data) == file.data


# --- which request meets which fault


def test_a_fault_fires_as_often_as_asked_and_after_what_it_skips(
    simulator: Simulator, client: httpx.Client, file: File
) -> None:
    simulator.fault("server-error", asset=file.id, on="storage", times=2, skip=1)

    statuses = [client.get(file.url).status_code for _ in range(4)]

    assert statuses == [200, 503, 503, 200]
    assert [fault["fired"] for fault in simulator.faults()] == [2]


def test_a_fault_without_end_stays_until_it_is_cleared(
    simulator: Simulator, client: httpx.Client, file: File
) -> None:
    simulator.fault("server-error", asset=file.id, times=None, on="storage")
    before = {client.get(file.url).status_code for _ in range(5)}

    simulator.clear_faults()

    assert before == {503}
    assert _passes(client, file)


@pytest.mark.parametrize(
    ("match", "met"),
    [
        ({"on": "api"}, ["api"]),
        ({"on": "storage"}, ["storage", "cdn"]),
        ({"on": "cdn"}, ["cdn"]),
        ({"path": r"\.mp4$"}, ["storage"]),
        ({"type": "room-vod"}, ["api", "cdn"]),
        ({"type": "room-composite"}, ["storage"]),
        ({"method": "POST"}, []),
    ],
    ids=str,
)
def test_a_fault_meets_only_what_it_matches(
    simulator: Simulator, client: httpx.Client, file: File, match: dict[str, Any], met: list[str]
) -> None:
    vod = simulator.asset("vod-ts")["id"]
    master = simulator.signed_url(vod)
    simulator.fault("server-error", times=None, **match)

    statuses = {
        "api": simulator.get(f"/recording-assets/{vod}").status_code,
        "storage": client.get(file.url).status_code,
        "cdn": client.get(master).status_code,
    }

    assert [on for on, status in statuses.items() if status == 503] == met


def test_an_asset_is_matched_by_its_id_on_every_origin(
    simulator: Simulator, client: httpx.Client, file: File
) -> None:
    simulator.fault("server-error", asset=file.id, times=None)

    assert simulator.get(f"/recording-assets/{file.id}/presigned-url").status_code == 503
    assert client.get(file.url).status_code == 503
    assert simulator.get("/recording-assets").status_code == 200


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("nonsense", {}), ("cut", {"nonsense": 1}), ("cut", {"path": "("})],
    ids=str,
)
def test_a_fault_that_does_not_exist_is_refused_with_the_reason(
    simulator: Simulator, name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=name):
        simulator.fault(name, **arguments)


def test_no_fault_is_without_a_test() -> None:
    tested = set(re.findall(r'\.fault\(\s*"([a-z-]+)"', Path(__file__).read_text()))

    assert tested - {"nonsense"} == set(FAULTS)

from __future__ import annotations

import base64
import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import md5

import pytest

from archiver.http.waiting import complete
from archiver.transfer.addresses import FixedAddress, RenewableUrl
from archiver.transfer.base import Reader, SourceInfo
from archiver.transfer.checksums import crc32c
from archiver.transfer.documents import fetch_bytes
from archiver.transfer.errors import (
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceUnavailable,
)
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.source import HttpSource, as_sent, plain
from archiver.transfer.urls import SecretUrl
from tests.transfer.builders import (
    CANARY,
    HURRIED,
    Signer,
    client,
    expired_before,
    some_bytes,
    source,
    told_by,
)
from tests.transfer.origin import (
    Fault,
    Origin,
    Reply,
    Request,
    chunked,
    cut_at,
    empty,
    gzipped,
    none,
    redirect,
    status,
)

CONTENT = some_bytes(3000)
PLAYLIST = b"#EXTM3U\n" + b"seg.ts\n" * 5000


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = client()
    yield made
    made.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin({"/file": CONTENT, "/list.m3u8": PLAYLIST, "/empty": b""}) as running:
        yield running


# -- measuring -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [none, chunked, gzipped], ids=["with a length", "chunked", "packed"])
@pytest.mark.parametrize("first_bytes", [len(CONTENT), 2 * len(CONTENT)])
def test_a_file_is_measured_as_it_is_opened(
    first_bytes: int, how: Fault, origin: Origin, http: HttpClient
) -> None:
    origin.always = how

    assert complete(source(http, origin).measure(first_bytes)) == (len(CONTENT), crc32c(CONTENT))


def test_of_a_larger_file_as_much_is_measured_as_was_asked_for(origin: Origin, http: HttpClient) -> None:
    assert complete(source(http, origin).measure(100)) == (100, crc32c(CONTENT[:100]))


@pytest.mark.parametrize("asked_bytes", [100, len(CONTENT)])
def test_a_file_that_is_cut_has_no_measure(asked_bytes: int, origin: Origin, http: HttpClient) -> None:
    origin.always = cut_at(10)

    with pytest.raises(SourceUnavailable):
        complete(source(http, origin).measure(asked_bytes))


# -- renewal -------------------------------------------------------------------------------------------------
def test_a_url_is_signed_at_its_first_use_and_not_before(origin: Origin) -> None:
    signer = Signer(origin)
    url = RenewableUrl(signer)

    assert signer.signed == 0
    assert url.current() is url.current()
    assert signer.signed == 1


def test_many_threads_with_the_same_dead_url_sign_once(origin: Origin) -> None:
    signer = Signer(origin)
    url = RenewableUrl(signer)
    dead = url.current()
    together = threading.Barrier(16)

    def renew(_: int) -> Address:
        together.wait()
        return url.renew(dead)

    with ThreadPoolExecutor(16) as threads:
        renewed = set(map(id, threads.map(renew, range(16))))

    assert len(renewed) == 1
    assert signer.signed == 2


def test_a_whole_crowd_of_ranges_renews_an_expired_url_once(origin: Origin, http: HttpClient) -> None:
    signer = Signer(origin)
    file = HttpSource(http, RenewableUrl(signer))
    info, reader = file.open(10)
    reader.close()
    origin.always = expired_before(2)

    def read(number: int) -> bytes:
        buffer = bytearray(100)
        file.read_range(number * 100, memoryview(buffer), info)
        return bytes(buffer)

    with ThreadPoolExecutor(16) as threads:
        assert b"".join(threads.map(read, range(30))) == CONTENT
    assert signer.signed == 2


def test_a_fixed_address_is_asked_once(origin: Origin, http: HttpClient) -> None:
    origin.always = status(403)
    url = SecretUrl(f"{origin.url}/file?{CANARY}")
    fixed = FixedAddress(Address(url, {}, frozenset({url.origin})))

    with pytest.raises(SourceForbidden):
        HttpSource(http, fixed).open(10)
    assert len(origin.requests) == 1


def test_what_signing_raises_is_passed_on(http: HttpClient) -> None:
    class ApiDown(Exception):
        pass

    def sign() -> SecretUrl:
        raise ApiDown

    with pytest.raises(ApiDown):
        HttpSource(http, RenewableUrl(sign)).open(10)


def test_an_address_shows_no_secret() -> None:
    shown = repr(Address(SecretUrl(f"https://h/p?{CANARY}"), {"Cookie": CANARY}))

    assert CANARY not in shown


# -- small documents -----------------------------------------------------------------------------------------
def fetch(http: HttpClient, origin: Origin, max_bytes: int = 100_000) -> bytes:
    return fetch_bytes(http, RenewableUrl(Signer(origin, "/list.m3u8")), max_bytes, HURRIED).body


def two_members(_: Request, reply: Reply) -> Reply:
    half = len(reply.body) // 2
    body = gzip.compress(reply.body[:half]) + gzip.compress(reply.body[half:])
    return replace(reply, body=body).header("Content-Encoding", "gzip")


@pytest.mark.parametrize(
    "how", [gzipped, chunked, two_members, cut_at(100), status(503), status(404), status(403)]
)
def test_a_document_is_fetched_whole(how: Fault, origin: Origin, http: HttpClient) -> None:
    origin.script([how])

    assert fetch(http, origin) == PLAYLIST


def test_the_final_url_is_known_after_redirects(origin: Origin, http: HttpClient) -> None:
    origin.script([redirect("/deep/../list.m3u8?token=2")])

    fetched = fetch_bytes(http, RenewableUrl(Signer(origin, "/start")), 100_000)

    assert fetched.url.reveal() == f"{origin.url}/list.m3u8?token=2"
    assert fetched.body == PLAYLIST


@pytest.mark.parametrize("packed", [True, False])
def test_a_document_larger_than_allowed_is_refused_in_little_memory(
    packed: bool, origin: Origin, http: HttpClient
) -> None:
    bomb = bytes(5_000_000)
    origin.files["/list.m3u8"] = gzip.compress(bomb, 1) if packed else bomb
    origin.script([lambda _, p: p.header("Content-Encoding", "gzip")] if packed else [])

    with pytest.raises(SourceMismatch, match="larger than the 100000 bytes"):
        fetch(http, origin)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (lambda _, p: replace(gzipped(_, p), body=gzip.compress(p.body)[:-9]), SourceMismatch),
        (lambda _, p: p.header("Content-Encoding", "br"), SourceMismatch),
        (status(410), SourceGone),
        (status(206), SourceMismatch),
    ],
)
def test_a_document_that_does_not_arrive_properly_is_an_error(
    how: Fault, error: type[SourceError], origin: Origin, http: HttpClient
) -> None:
    origin.always = how

    with pytest.raises(error) as raised:
        fetch(http, origin)
    assert CANARY not in told_by(raised.value)


def test_an_empty_document_is_empty(origin: Origin, http: HttpClient) -> None:
    origin.script([empty])

    assert fetch(http, origin) == b""


# -- one plain stream ----------------------------------------------------------------------------------------
def test_a_plain_source_asks_for_no_range_and_has_none(origin: Origin, http: HttpClient) -> None:
    info, reader = plain(source(http, origin)).open(100)
    body = bytearray(len(CONTENT))
    filled = 0
    while count := reader.readinto(memoryview(body)[filled:]):
        filled += count
    reader.close()

    assert (info.size_bytes, info.ranges, info.etag) == (len(CONTENT), False, '"v1"')
    assert body == CONTENT
    assert [request.range for request in origin.requests] == [None]


def test_a_plain_source_renews_its_url(origin: Origin, http: HttpClient) -> None:
    origin.always = expired_before(2)

    info, reader = plain(source(http, origin)).open(100)
    reader.close()

    assert info.size_bytes == len(CONTENT)


def test_what_is_plain_and_as_it_is_sent_stays_so(origin: Origin, http: HttpClient) -> None:
    origin.always = gzipped
    for both in (plain(as_sent(source(http, origin))), as_sent(plain(source(http, origin)))):
        info, reader = both.open(100)
        reader.close()

        assert (info.ranges, info.coding) == (False, "gzip")
        assert info.size_bytes == len(gzip.compress(CONTENT))


def test_a_source_that_knows_nothing_of_it_is_plain_as_it_is() -> None:
    class Other:
        name = "other"

        def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
            raise NotImplementedError

        def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
            raise NotImplementedError

    other = Other()

    assert plain(other) is other
    assert as_sent(other) is other


# -- what a source says of itself ----------------------------------------------------------------------------
@pytest.mark.parametrize("ranges", [True, False])
def test_an_empty_file_is_a_file_of_no_bytes(ranges: bool, origin: Origin, http: HttpClient) -> None:
    origin.ranges = ranges

    info, reader = source(http, origin, "/empty").open(100)

    assert info.size_bytes == 0
    assert reader.readinto(memoryview(bytearray(9))) == 0
    reader.close()


def test_the_length_is_learnt_from_the_first_range(origin: Origin, http: HttpClient) -> None:
    info, reader = source(http, origin).open(100)
    reader.close()

    assert (info.size_bytes, info.ranges, info.etag) == (len(CONTENT), True, '"v1"')
    assert origin.requests[0].headers["accept-encoding"] == "identity"


def test_ranges_of_an_unknown_total_are_not_used(origin: Origin, http: HttpClient) -> None:
    origin.script([lambda _, p: p.header("Content-Range", "bytes 0-99/*")])

    info, reader = source(http, origin).open(100)
    reader.close()

    assert (info.ranges, info.size_bytes) == (False, len(CONTENT))


def test_only_a_strong_etag_is_a_precondition(origin: Origin, http: HttpClient) -> None:
    file = source(http, origin)
    for etag, sent in (('"strong"', '"strong"'), ('W/"weak"', None), (None, None)):
        origin.etag = etag
        info, reader = file.open(10)
        reader.close()

        file.read_range(10, memoryview(bytearray(10)), info)

        assert origin.requests[-1].headers.get("if-match") == sent


def test_without_an_etag_another_date_is_another_file(origin: Origin, http: HttpClient) -> None:
    origin.etag = None
    dates = iter(["Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT"])
    origin.always = lambda _, p: p.header("Last-Modified", next(dates))
    file = source(http, origin)
    info, reader = file.open(10)
    reader.close()

    with pytest.raises(SourceMismatch, match="date"):
        file.read_range(10, memoryview(bytearray(10)), info)


CRC = base64.b64encode(crc32c(CONTENT).to_bytes(4, "big")).decode()
MD5 = md5(CONTENT).digest()
MD5_ETAG = {"ETag": f'"{MD5.hex()}"', "Server": "AmazonS3"}


@pytest.mark.parametrize(
    ("headers", "first_bytes", "crc", "md5_sum"),
    [
        ({"x-goog-hash": f"crc32c={CRC},md5={base64.b64encode(MD5).decode()}"}, 10, crc32c(CONTENT), MD5),
        (
            {"x-goog-hash": f"crc32c={CRC}", "x-goog-stored-content-encoding": "identity"},
            10,
            crc32c(CONTENT),
            None,
        ),
        ({"x-goog-hash": f"crc32c={CRC}", "x-goog-stored-content-encoding": "gzip"}, 10, None, None),
        ({"x-goog-hash": "crc32c=not base64,md5"}, 10, None, None),
        ({"x-amz-checksum-crc32c": CRC, "x-amz-checksum-type": "FULL_OBJECT"}, 10, crc32c(CONTENT), None),
        ({"x-amz-checksum-crc32c": CRC, "x-amz-checksum-type": "COMPOSITE"}, 10, None, None),
        ({"x-amz-checksum-crc32c": CRC}, 10, None, None),
        ({"x-amz-checksum-crc32c": CRC}, 5000, crc32c(CONTENT), None),
        ({"x-amz-checksum-crc32c": f"{CRC}-3"}, 5000, None, None),
        (MD5_ETAG, 10, None, MD5),
        (MD5_ETAG | {"x-amz-server-side-encryption": "AES256"}, 10, None, MD5),
        (MD5_ETAG | {"x-amz-server-side-encryption": "aws:kms"}, 10, None, None),
        (MD5_ETAG | {"x-amz-server-side-encryption-customer-algorithm": "AES256"}, 10, None, None),
        (MD5_ETAG | {"ETag": f'"{MD5.hex()}-4"'}, 10, None, None),
        (MD5_ETAG | {"Server": "nginx"}, 10, None, None),
    ],
)
def test_a_checksum_counts_only_where_it_is_of_the_whole_file(
    headers: dict[str, str],
    first_bytes: int,
    crc: int | None,
    md5_sum: bytes | None,
    origin: Origin,
    http: HttpClient,
) -> None:
    def told(_: object, reply: Reply) -> Reply:
        for name, value in headers.items():
            reply = reply.header(name, value)
        return reply

    origin.always = told

    info, reader = source(http, origin).open(first_bytes)
    reader.close()

    assert (info.crc32c, info.md5) == (crc, md5_sum)

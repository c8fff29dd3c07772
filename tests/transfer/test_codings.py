"""Content codings as servers really send them: a table of labels and bodies, and what must be stored of each."""

# ruff: noqa: E501 - a table is read by its rows
from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.base import CopyResult, Source
from archiver.transfer.documents import fetch_bytes
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import SourceError, SourceMismatch, StillEncoded
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import as_sent
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, QUICK, Signer, request, some_bytes, source
from tests.transfer.origin import Fault, Origin, Reply, Request, capped_at, chunked, until_closed
from tests.transfer.stores import stored_in

CONTENT = b"#EXTM3U\n" + some_bytes(2500)
LIMIT = 100_000
PACKED = gzip.compress(CONTENT)
HALF = len(CONTENT) // 2


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@dataclass(frozen=True)
class Case:
    line: str
    labels: tuple[str, ...]  # of Content-Encoding, a header each
    body: bytes
    ends: type[SourceError] | None = None
    encoded: bool = False


CASES = [
    Case("no label", (), CONTENT),
    Case("an empty label", ("",), CONTENT),
    *[
        Case(f"{label!r} is no coding", (label,), CONTENT)
        for label in ("identity", "none", "binary", "utf-8", "UTF-8", "8bit", "aws-chunked", "base64", "video/mp4", "aws-chunked,utf-8", " , ")
    ],
    Case("gzip", ("gzip",), PACKED, encoded=True),
    Case("gzip by its old name, in capitals", ("X-GZIP",), PACKED, encoded=True),
    Case("gzip after what S3 keeps of an upload", ("aws-chunked,gzip",), PACKED, encoded=True),
    Case("gzip in a header of its own", ("aws-chunked", "gzip"), PACKED, encoded=True),
    Case("gzip and a charset", ("gzip, utf-8",), PACKED, encoded=True),
    Case("gzip in several members", ("gzip",), gzip.compress(CONTENT[:HALF]) + gzip.compress(CONTENT[HALF:]), encoded=True),
    Case("gzip with zeros behind it", ("gzip",), PACKED + bytes(500), encoded=True),
    Case("gzip twice", ("gzip, gzip",), gzip.compress(PACKED), encoded=True),
    Case("gzip twice, in two headers", ("gzip", "gzip"), gzip.compress(PACKED), encoded=True),
    Case("gzip twice by its label, once in truth", ("gzip, gzip",), PACKED, encoded=True),
    Case("gzip by its label alone", ("gzip",), CONTENT),
    Case("gzip by its label, and empty", ("gzip",), b""),
    Case("gzip by its label, and a single byte", ("gzip",), b"\x1f"),
    Case("gzip of nothing", ("gzip",), gzip.compress(b""), encoded=True),
    Case("deflate", ("deflate",), zlib.compress(CONTENT), encoded=True),
    Case("deflate without its header", ("deflate",), raw_deflate(CONTENT), encoded=True),
    Case("deflate by its label alone", ("deflate",), CONTENT),
    Case("deflate, then gzip", ("deflate, gzip",), gzip.compress(zlib.compress(CONTENT)), encoded=True),
    Case("gzip cut short", ("gzip",), PACKED[:-9], StillEncoded),
    Case("gzip cut short in its trailer", ("gzip",), PACKED[:-1], StillEncoded),
    Case("gzip cut short in its header", ("gzip",), PACKED[:5], StillEncoded),
    Case("a second member cut short", ("gzip",), PACKED + PACKED[:20], StillEncoded),
    Case("deflate cut short", ("deflate",), zlib.compress(CONTENT)[:-1], StillEncoded),
    Case("gzip with something behind it", ("gzip",), PACKED + b"and more", StillEncoded),
    Case("gzip with zeros and something behind it", ("gzip",), PACKED + bytes(9) + b"and more", StillEncoded),
    Case("deflate with something behind it", ("deflate",), zlib.compress(CONTENT) + b"!", StillEncoded),
    Case("gzip with a byte changed", ("gzip",), PACKED[:40] + bytes([PACKED[40] ^ 1]) + PACKED[41:], StillEncoded),
    Case("gzip with another checksum", ("gzip",), PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], StillEncoded),
    Case("brotli", ("br",), CONTENT, StillEncoded),
    Case("zstd within gzip", ("zstd, gzip",), PACKED, StillEncoded),
    Case("a bomb", ("gzip",), gzip.compress(bytes(5_000_000)), StillEncoded),
    Case("a bomb in a bomb", ("gzip, gzip",), gzip.compress(gzip.compress(bytes(50_000_000), 1)), StillEncoded),
]  # fmt: skip


def stored_of(case: Case) -> bytes:
    if "twice by its label" in case.line or (case.encoded and case.line != "gzip of nothing"):
        return CONTENT
    return b"" if case.line == "gzip of nothing" else case.body


def saying(case: Case) -> Fault:
    labels = tuple(("Content-Encoding", label) for label in case.labels)
    return lambda _, reply: replace(reply, headers=(*reply.headers, *labels))


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = HttpClient(AddressPolicy(allow_private=True), timeouts=QUICK, max_unknown_bytes=LIMIT)
    yield made
    made.close()


def copied(
    http: HttpClient, origin: Origin, how: Callable[[Source], Source] = lambda source: source, **ask: object
) -> tuple[CopyResult | None, BaseException | None, dict[str, bytes]]:
    store, memory = MemoryBackend("store"), MemoryBudget(1 << 20)
    with TransferEngine(memory, part_bytes=1000, connections=2, policy=HURRIED) as engine:
        future = engine.submit(how(source(http, origin)), request(**ask), [store])
        error = future.exception(timeout=20)
    assert memory.in_use_bytes == 0
    return (None if error else future.result()), error, stored_in(store)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_a_file_is_stored_without_its_coding(case: Case, ranges: bool, http: HttpClient) -> None:
    with Origin({"/file": case.body}, ranges=ranges, always=saying(case)) as origin:
        result, error, stored = copied(http, origin)

    assert type(error) is (case.ends or type(None)), error
    if result is None:
        assert stored == {}
        return
    assert stored == {KEY: stored_of(case)}
    assert result.source is not None
    reported = (result.source.size_bytes, result.source.encoded_bytes, result.source.coding is not None)
    assert reported == ((None, len(case.body), True) if case.encoded else (len(case.body), None, False))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_a_document_is_fetched_without_its_coding(case: Case, http: HttpClient) -> None:
    with Origin({"/file": case.body}, always=saying(case)) as origin:
        address = RenewableUrl(Signer(origin))
        if case.ends:
            expected = SourceMismatch if case.ends is StillEncoded else case.ends
            with pytest.raises(SourceError) as raised:
                fetch_bytes(http, address, LIMIT, HURRIED)
            assert type(raised.value) is expected
        else:
            assert fetch_bytes(http, address, LIMIT, HURRIED).body == stored_of(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_a_file_can_be_kept_as_it_is_sent(case: Case, http: HttpClient) -> None:
    """Whatever its coding: brotli, a bomb, or gzip that is damaged."""
    with Origin({"/file": case.body}, always=saying(case)) as origin:
        result, error, stored = copied(http, origin, as_sent)

    assert error is None
    assert stored == {KEY: case.body}
    assert result is not None
    assert result.source is not None
    assert (result.source.size_bytes, result.source.encoded_bytes) == (len(case.body), None)


@pytest.mark.parametrize("framing", [chunked, until_closed])
@pytest.mark.parametrize("packed", [True, False])
def test_a_body_without_length_ends_at_the_limit(packed: bool, framing: Fault, http: HttpClient) -> None:
    endless = bytes(3_000_000)

    def answer(_: Request, reply: Reply) -> Reply:
        return framing(_, reply.header("Content-Encoding", "gzip" if packed else None))

    with Origin(
        {"/file": gzip.compress(endless) if packed else endless}, ranges=False, always=answer
    ) as origin:
        _, error, stored = copied(http, origin)

    assert type(error) is (StillEncoded if packed else SourceMismatch)
    assert str(LIMIT) in str(error)
    assert stored == {}


def test_a_large_file_of_a_known_length_has_no_limit(http: HttpClient) -> None:
    content = some_bytes(3 * LIMIT)
    with Origin({"/file": content}, ranges=False) as origin:
        _, error, stored = copied(http, origin)

    assert error is None
    assert stored == {KEY: content}


@pytest.mark.parametrize("first", ["br", "zstd"])
def test_a_coding_that_cannot_be_undone_is_asked_away_once(first: str, http: HttpClient) -> None:
    with Origin({"/file": CONTENT}) as origin:
        origin.script([lambda _, reply: reply.header("Content-Encoding", first)])
        _, error, stored = copied(http, origin)
        origin.script([lambda _, reply: reply.header("Content-Encoding", first)])
        fetched = fetch_bytes(http, RenewableUrl(Signer(origin)), LIMIT, HURRIED)

    assert error is None
    assert stored == {KEY: CONTENT}
    assert fetched.body == CONTENT
    assert origin.requests[-1].headers["accept-encoding"] == "identity"


def test_the_unpacked_size_is_the_one_that_is_expected(http: HttpClient) -> None:
    packed = replace(CASES[0], labels=("gzip",), body=PACKED)
    with Origin({"/file": PACKED}, always=saying(packed)) as origin:
        assert copied(http, origin, size_bytes=len(CONTENT))[1] is None
        assert type(copied(http, origin, size_bytes=len(PACKED))[1]) is SourceMismatch


def test_ranges_of_a_packed_form_are_capped_and_the_whole_is_unpacked_all_the_same(http: HttpClient) -> None:
    def answer(asked: Request, reply: Reply) -> Reply:
        return capped_at(100)(asked, reply).header("Content-Encoding", "gzip")

    with Origin({"/file": PACKED}, always=answer) as origin:
        assert copied(http, origin)[2] == {KEY: CONTENT}

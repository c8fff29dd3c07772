"""Bodies that end when their connection closes: a cut in the middle looks like the end, so that an end means nothing."""

# ruff: noqa: E501 - a table is read by its rows
from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from archiver.retry_policy import REQUEST
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.checksums import crc32c
from archiver.transfer.documents import fetch_bytes
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import SourceError, SourceMismatch, SourceUnavailable
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from storage_backends.memory import MemoryBackend
from tests.transfer import origin as fault
from tests.transfer.builders import HURRIED, KEY, Signer, client, request, some_bytes, source
from tests.transfer.origin import Fault, Origin, Reply, Request, until_closed
from tests.transfer.stores import open_uploads, stored_in

SMALL, LARGE = some_bytes(700), some_bytes(4500)
OTHER = some_bytes(4500, seed=8)


def cut(count: int) -> Fault:
    """A clean end of the connection, `count` bytes before the end of the body."""
    return lambda _, reply: replace(reply, body=reply.body[: len(reply.body) - count], announce=None)


def other(_: Request, reply: Reply) -> Reply:
    """Another body of the same length."""
    return replace(reply, body=OTHER[: len(reply.body)], announce=None)


def with_crc(content: bytes) -> Fault:
    value = base64.b64encode(crc32c(content).to_bytes(4, "big")).decode()
    return lambda _, reply: until_closed(_, reply).header("x-goog-hash", f"crc32c={value}")


def with_md5(content: bytes) -> Fault:
    tag = f'"{hashlib.md5(content).hexdigest()}"'
    return lambda _, reply: until_closed(_, reply).header("Server", "AmazonS3").header("ETag", tag)


@dataclass(frozen=True)
class Case:
    line: str
    content: bytes
    faults: Sequence[Fault] = ()
    ends: type[SourceError] | None = None
    asked: int | None = None
    always: Fault = until_closed
    ask: dict[str, object] | None = None
    ranges: bool = False


CASES = [
    Case("a small body is read twice", SMALL, asked=2),
    Case("a large body is read twice", LARGE, asked=2),
    Case("an empty body is read twice", b"", asked=2),
    Case("a packed body is read twice", SMALL, always=lambda r, p: until_closed(r, fault.gzipped(r, p)), asked=2),
    Case("a small body that is cut once is read again until two reads agree", SMALL, [cut(1)], asked=4),
    Case("a small body whose second read is cut", SMALL, [until_closed, cut(300)], asked=4),
    Case("a large body whose second read is cut", LARGE, [until_closed, cut(300)], asked=3),
    Case("a large body that is cut waits for the next attempt", LARGE, [cut(1)], SourceUnavailable),
    Case("a large body cut twice at the same place, and once not", LARGE, [cut(9), until_closed, cut(9), cut(9), cut(9)], SourceUnavailable),
    Case("a small body cut nearly always, but not always at the same place", SMALL, [cut(n) for n in range(9)], SourceUnavailable),
    Case("a small body cut at the same place in all reads but one", SMALL, [until_closed, cut(9), *[cut(9)] * 6], SourceUnavailable),
    Case("a small body that is another at the second read", SMALL, [until_closed, other], asked=4),
    Case("a large body that is another at each read", LARGE, [until_closed, *[other] * 4], SourceUnavailable),
    Case("a small body whose checksum is announced", SMALL, always=with_crc(SMALL), asked=1),
    Case("a large body whose checksum is announced", LARGE, always=with_crc(LARGE), asked=1),
    Case("a cut body whose checksum is announced", SMALL, always=fault.each(with_crc(SMALL), cut(1)), ends=SourceMismatch),
    Case("a small body whose MD5 is announced", SMALL, always=with_md5(SMALL), asked=1),
    Case("a large body whose MD5 is announced is read twice: its parts' MD5s verify nothing", LARGE, always=with_md5(LARGE), asked=2),
    Case("a small body of the expected size", SMALL, ask={"size_bytes": 700}, asked=1),
    Case("a large body of the expected size", LARGE, ask={"size_bytes": 4500}, asked=1),
    Case("a body of the expected checksum", LARGE, ask={"crc32c": crc32c(LARGE)}, asked=1),
    Case("a small body is cut once before its expected size", SMALL, [cut(1)], ask={"size_bytes": 700}, asked=2),
    Case("a large body is cut before its expected size", LARGE, [cut(1)], SourceUnavailable, ask={"size_bytes": 4500}),
    Case("a body is longer than expected", SMALL, ask={"size_bytes": 699}, ends=SourceMismatch),
    Case("the second answer has a length", SMALL, [until_closed, fault.none], asked=2),
    Case("the second answer has ranges", LARGE, [lambda r, p: Reply(200, (("ETag", fault.ETAG),), LARGE, announce=None), fault.none], always=fault.none, ranges=True, asked=2),
    Case("the second answer has ranges, and the first was cut", LARGE, [lambda r, p: Reply(200, (("ETag", fault.ETAG),), LARGE[:-1], announce=None)], SourceUnavailable, always=fault.none, ranges=True),
    Case("ranges whose bodies end with their connection are framed by their Content-Range", LARGE, ranges=True, asked=5),
    Case("a range whose body ends too early is asked for again", LARGE, [until_closed, cut(5)], ranges=True, asked=6),
]  # fmt: skip


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = client()
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_an_end_counts_only_when_verified(case: Case, http: HttpClient) -> None:
    store, memory = MemoryBackend("store"), MemoryBudget(1 << 20)
    with Origin({"/file": case.content}, ranges=case.ranges, always=case.always) as origin:
        origin.script(case.faults)
        with TransferEngine(memory, part_bytes=1000, connections=1, policy=HURRIED) as engine:
            future = engine.submit(source(http, origin), request(**(case.ask or {})), [store])
            error = future.exception(timeout=20)

    assert type(error) is (case.ends or type(None)), error
    assert stored_in(store) == ({KEY: case.content} if case.ends is None else {})
    assert memory.in_use_bytes == 0
    assert open_uploads(store) == 0
    if case.asked is not None:
        assert len(origin.requests) == case.asked
    if error is None:
        reported = future.result().source
        assert reported is not None
        assert reported.framed == case.ranges or "second answer has ranges" in case.line


DOCUMENTS = [
    Case("a document is read twice", SMALL, asked=2),
    Case("an empty document is read twice", b"", asked=2),
    Case("a packed document is read twice", SMALL, always=lambda r, p: until_closed(r, fault.gzipped(r, p)), asked=2),
    Case("a document that is cut is read again until two reads agree", SMALL, [cut(1)], asked=4),
    Case("a document whose second read is cut", SMALL, [until_closed, cut(1)], asked=4),
    Case("a document cut at the same place in all reads but one", SMALL, [until_closed, *[cut(9)] * 7], SourceUnavailable),
    Case("a document that is another each time", SMALL, [until_closed, other, until_closed, other, until_closed, other, until_closed, other], SourceUnavailable),
    Case("a document that says its checksum", SMALL, always=with_crc(SMALL), asked=1),
    Case("a document that says its MD5", SMALL, always=with_md5(SMALL), asked=1),
    Case("a document whose second answer has a length", SMALL, [cut(1), fault.none], asked=2),
    Case("a document with a length is read once", SMALL, always=fault.none, asked=1),
    Case("a document in chunks is read once", SMALL, always=fault.chunked, asked=1),
]  # fmt: skip


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: case.line)
def test_the_end_of_a_document_counts_only_when_verified(case: Case, http: HttpClient) -> None:
    with Origin({"/file": case.content}, always=case.always) as origin:
        origin.script(case.faults)
        address = RenewableUrl(Signer(origin))
        if case.ends:
            with pytest.raises(case.ends, match="differs"):
                fetch_bytes(http, address, 10_000, HURRIED)
        else:
            assert fetch_bytes(http, address, 10_000, HURRIED).body == case.content

    if case.asked is not None:
        assert len(origin.requests) == case.asked


def test_what_differs_is_said_without_a_signature(http: HttpClient) -> None:
    once = replace(REQUEST, attempts=1)
    with Origin({"/file": SMALL}, always=until_closed) as origin:
        origin.script([cut(1)])
        with pytest.raises(SourceUnavailable) as raised:
            fetch_bytes(http, RenewableUrl(Signer(origin)), 10_000, once)

    assert "Sig" not in str(raised.value)
    assert "699 bytes" in str(raised.value)

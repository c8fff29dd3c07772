"""What every store holds already is not copied again, when the source still has the same: a table of answers."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from archiver.transfer.base import CHECKED_BYTES, KnownCopy
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import SourceGone
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, Journal, client, request, some_bytes, source
from tests.transfer.origin import (
    ETAG,
    Fault,
    Origin,
    chunked,
    cut_at,
    each,
    gzipped,
    none,
    status,
    until_closed,
)
from tests.transfer.stores import BrokenStore, Wrapped, stored_in

PART = 10_000
LARGE, MIDDLE, SMALL = some_bytes(25_000), some_bytes(7000), some_bytes(700)


def etag(value: str | None) -> Fault:
    return lambda _, reply: reply.header("ETag", value)


@dataclass(frozen=True)
class Case:
    line: str
    content: bytes = LARGE
    known_bytes: int | None = None  # of the content, when None
    known_etag: str | None = ETAG
    always: Fault = none
    ranges: bool = True
    unchanged: bool = False


CASES = [
    Case("a large file is the same", unchanged=True),
    Case("a file of one part is the same", MIDDLE, unchanged=True),
    Case("a small file is the same", SMALL, unchanged=True),
    Case("an empty file is the same", b"", unchanged=True),
    Case("a file without ranges is the same", ranges=False, unchanged=True),
    Case("a small file without ranges is the same", SMALL, ranges=False, unchanged=True),
    Case("a packed file has the same ETag", SMALL, always=gzipped, unchanged=True),
    Case("a packed file in chunks has the same ETag", always=each(gzipped, chunked), unchanged=True),
    Case("a packed file has another ETag", always=each(gzipped, etag('"v2"'))),
    Case("another ETag", known_etag='"v0"'),
    Case("another ETag of a file of one part", MIDDLE, known_etag='"v0"'),
    Case("another ETag of a small file", SMALL, always=etag('"v2"')),
    Case("another length", known_bytes=24_999),
    Case("another length of a small file", SMALL, known_bytes=701),
    Case("a weak ETag, as before", always=etag('W/"v1"'), known_etag='W/"v1"'),
    Case("a weak ETag of the same name", always=etag('W/"v1"')),
    Case("no ETag", always=etag(None)),
    Case("no ETag now, and none then", always=etag(None), known_etag=None),
    Case("an empty ETag, as before", always=etag(""), known_etag=""),
    Case("no ETag was known", known_etag=None),
    Case("a length that is not told", always=chunked, ranges=False),
    Case("a body that ends with its connection", always=until_closed, ranges=False),
]


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = client()
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_what_is_unchanged_is_neither_read_nor_written(case: Case, http: HttpClient) -> None:
    store, memory, looked = Wrapped(MemoryBackend("store")), MemoryBudget(1 << 24), list[bytes]()
    size = len(case.content) if case.known_bytes is None else case.known_bytes
    ask = request(known=KnownCopy(size, 77, case.known_etag), check=lambda first, _: looked.append(first))
    with Origin({"/file": case.content}, ranges=case.ranges, always=case.always) as origin:
        with TransferEngine(memory, part_bytes=PART, journal=Journal(), policy=HURRIED) as engine:
            result = engine.submit(source(http, origin), ask, [store]).result(timeout=20)
        asked = origin.requests[0].range

    assert result.unchanged == case.unchanged
    assert asked == (0, CHECKED_BYTES - 1)
    assert memory.in_use_bytes == 0
    assert result.source is not None
    if case.unchanged:
        assert (result.size_bytes, result.crc32c) == (size, 77)
        assert (dict(result.stored), dict(result.failed)) == ({}, {})
        assert store.calls.total() == 0
        assert looked == []
        assert len(origin.requests) <= 2
    else:
        assert stored_in(store) == {KEY: case.content}
        assert result.stored.keys() == {store.name}
        assert looked == [case.content[:CHECKED_BYTES]]


def test_a_store_that_would_fail_is_not_touched(http: HttpClient) -> None:
    store = BrokenStore(MemoryBackend("broken"), "put", AccessDenied("403"))
    budget = MemoryBudget(1 << 20)
    ask = request(known=KnownCopy(len(SMALL), 1, ETAG))
    with (
        Origin({"/file": SMALL}) as origin,
        TransferEngine(budget, part_bytes=PART, policy=HURRIED) as engine,
    ):
        result = engine.submit(source(http, origin), ask, [store]).result(timeout=20)

    assert result.unchanged
    assert result.failed == {}


@pytest.mark.parametrize("fault", [status(503), cut_at(0), cut_at(10)])
def test_the_look_is_tried_again(fault: Fault, http: HttpClient) -> None:
    with Origin({"/file": LARGE}) as origin:
        origin.script([fault])
        with TransferEngine(MemoryBudget(1 << 24), part_bytes=PART, policy=HURRIED) as engine:
            ask = request(known=KnownCopy(len(LARGE), 1, ETAG))
            future = engine.submit(source(http, origin), ask, [MemoryBackend("store")])

            assert future.result(timeout=20).unchanged


def test_what_is_gone_is_not_unchanged(http: HttpClient) -> None:
    ask = request(known=KnownCopy(len(SMALL), 1, ETAG))
    with Origin({}) as origin, TransferEngine(MemoryBudget(1 << 20), policy=HURRIED) as engine:
        error = engine.submit(source(http, origin), ask, [MemoryBackend("store")]).exception(timeout=20)

    assert isinstance(error, SourceGone)


def test_thousands_that_are_unchanged_leave_room_for_each_other(http: HttpClient) -> None:
    packed = gzip.compress(SMALL)
    with Origin({"/file": packed}) as origin:
        with TransferEngine(
            MemoryBudget(1 << 20), part_bytes=PART, connections=2, uploads=1, policy=HURRIED
        ) as engine:
            ask = request(known=KnownCopy(len(packed), 1, ETAG))
            futures = [engine.submit(source(http, origin), ask, [MemoryBackend("store")]) for _ in range(200)]

            assert all(future.result(timeout=20).unchanged for future in futures)
        assert origin.connections <= 2

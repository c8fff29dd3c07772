"""A table of conversations with a source, each in an English line, and how it must end.

`whole`: the very object, once. Otherwise the error that the future raises; then nothing is visible, no upload is
left open and the signature is in no text of the error.
"""

# ruff: noqa: E501 - a table is read by its rows
from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from archiver.transfer.base import CopyRequest, SourceInfo
from archiver.transfer.checksums import crc32c
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import (
    RangesUnreliable,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    UnexpectedContent,
)
from archiver.transfer.memory import MemoryBudget
from storage_backends.memory import MemoryBackend
from tests.transfer import origin as fault
from tests.transfer.builders import (
    CANARY,
    HURRIED,
    KEY,
    client,
    expired_before,
    request,
    some_bytes,
    source,
    told_by,
)
from tests.transfer.origin import Fault, Origin, Reply, Request
from tests.transfer.stores import open_uploads, stored_in

PART = 1000
LARGE = some_bytes(4500)  # five parts; with one connection they are asked for in order
SMALL = some_bytes(600)

Faults = Callable[[Origin], Sequence[Fault]]


def media(first: bytes, _: SourceInfo | None) -> None:
    if first[:4] not in (LARGE[:4], SMALL[:4]):
        raise UnexpectedContent(f"the first bytes {first[:4]!r} are not those of a video")


A_VIDEO = request(check=media)


def saying(**headers: str) -> Fault:
    """The proper reply, with these headers as well."""

    def fault(_: Request, reply: Reply) -> Reply:
        for name, value in headers.items():
            reply = reply.header(name.replace("_", "-"), value)
        return reply

    return fault


def goog_hash(content: bytes) -> Fault:
    return saying(x_goog_hash=f"crc32c={base64.b64encode(crc32c(content).to_bytes(4, 'big')).decode()}")


def amazon_md5(content: bytes) -> Fault:
    return saying(server="AmazonS3", etag=f'"{hashlib.md5(content).hexdigest()}"')


@dataclass(frozen=True)
class Case:
    line: str
    content: bytes
    faults: Faults
    ends: type[SourceError] | None = None
    ask: CopyRequest = A_VIDEO
    ranges: bool = True
    always: Faults = lambda _: ()  # what is done once the faults are used up
    asked: int | None = None  # requests in all


def same(*faults: Fault) -> Faults:
    return lambda _: faults


def large(line: str, *faults: Fault, ends: type[SourceError] | None = None, **more: object) -> Case:
    return Case(line, LARGE, same(*faults), ends, **more)  # type: ignore[arg-type]


def small(line: str, *faults: Fault, ends: type[SourceError] | None = None, **more: object) -> Case:
    return Case(line, SMALL, same(*faults), ends, **more)  # type: ignore[arg-type]


OK = fault.none

CASES = [
    # -- all is well
    large("a large file is asked for once a part", asked=5),
    small("a small file is asked for once", asked=1),
    large("a source without ranges is read straight through", ranges=False, asked=1),
    small("a small file without ranges", ranges=False, asked=1),
    large("a chunked body without a length", fault.chunked, ranges=False, asked=1),
    small("a small chunked body without a length", fault.chunked, ranges=False, asked=1),
    large("a body that ends with its connection", *[fault.until_closed] * 2, ranges=False, asked=2),
    large("ranges that come chunked", *[fault.chunked] * 5, asked=5),
    small("a body packed with gzip is stored unpacked", fault.gzipped, ranges=False),
    large("a packed file's ranges are not used", *[fault.gzipped] * 2, asked=2),
    large("the server closes each connection without a word", *[fault.silent_close] * 5),
    # -- ranges that are of no use: one plain stream instead
    large("several ranges in one answer from the start", fault.multipart, asked=2),
    large("the first range is short", fault.short, asked=2),
    large("the first range is long", fault.too_long, asked=2),
    large("ranges come without Content-Range", always=same(fault.without_content_range), asked=2),
    small("a small file comes as a range without Content-Range", always=same(fault.without_content_range), asked=2),
    large("ranges come with an unknown total", always=same(fault.total_unknown), asked=2),
    large("ranges come with another Content-Range", always=same(fault.for_ranges(fault.other_range)), asked=2),
    large("ranges are capped", always=same(fault.capped_at(400)), asked=2),
    large("a range is said to be as long as the file", always=same(fault.for_ranges(lambda r, p: replace(p, announce=4500))), asked=2),
    large("a range is refused as a bad request", always=same(fault.for_ranges(fault.status(400))), asked=3),
    large("a range is not implemented", always=same(fault.for_ranges(fault.status(501))), asked=2),
    large("a range fails a precondition that nobody set", always=same(fault.for_ranges(fault.status(412))), asked=2),
    large("the whole comes as the range that it is", fault.without_content_range, lambda r, p: replace(p, status=206).header("Content-Range", "bytes 0-4499/4500"), asked=2),
    large("ranges are capped and the whole has no length", always=same(fault.capped_at(400), fault.until_closed), asked=2),
    large("later ranges come without Content-Range", always=same(fault.for_later_ranges(fault.without_content_range)), ends=RangesUnreliable),
    large("later ranges are capped", always=same(fault.for_later_ranges(fault.capped_at(400))), ends=RangesUnreliable),
    large("later ranges are packed", always=same(fault.for_later_ranges(fault.gzipped)), ends=RangesUnreliable),
    large("later ranges are several", always=same(fault.for_later_ranges(fault.multipart)), ends=RangesUnreliable),
    large("later ranges come without an ETag", always=same(fault.for_later_ranges(fault.without_etag)), ends=RangesUnreliable),
    large("later ranges are a byte long", always=same(fault.for_later_ranges(fault.too_long)), ends=RangesUnreliable),
    large("later ranges bring more than they announce, chunked", always=same(fault.for_later_ranges(fault.too_long), fault.chunked), ends=RangesUnreliable),
    large("later ranges bring the whole file", always=lambda o: [fault.for_later_ranges(fault.whole_file(o))], ends=RangesUnreliable),
    large("later ranges bring HTML", always=same(fault.for_later_ranges(fault.html)), ends=RangesUnreliable),
    large("another edge has another ETag", always=same(fault.for_later_ranges(fault.other_etag)), ends=SourceChanged, asked=2),
    large("another edge has a weak ETag", always=same(fault.for_later_ranges(lambda _, p: p.header("ETag", 'W/"v1"'))), ends=SourceChanged, asked=2),
    # -- what passes
    large("the first range is cut within the part", fault.cut_at(300)),
    large("the first range is cut at once", fault.cut_at(0)),
    large("a later range is cut", OK, fault.cut_at(1)),
    large("a later range is cut at its last byte", OK, fault.cut_at(999)),
    large("a range is cut again and again, but not too often", OK, *[fault.cut_at(500)] * 3),
    large("a range is reset", OK, OK, fault.reset_at(10)),
    large("a range stalls", OK, fault.stall_at(400)),
    large("the first range stalls", fault.stall_at(400)),
    large("the origin asks to wait", OK, fault.status(429, Retry_After="1"), fault.status(503)),
    large("the origin breaks down and recovers", fault.status(500), OK, fault.status(502)),
    large("the answer makes no sense", OK, fault.raw(b"\x16\x03\x01 what?\r\n\r\n")),
    large("one edge answers a range with the whole file", OK, lambda r, p: fault.Reply(200, (("ETag", fault.ETAG),), LARGE)),
    large("one edge sends another range than asked", OK, fault.other_range, ends=SourceChanged),
    large("one range is a byte short", OK, fault.short),
    large("one range is a byte long", OK, fault.too_long),
    large("one range comes as multipart", OK, fault.multipart),
    small("a small file is cut", fault.cut_at(100)),
    small("a small file stalls", fault.stall_at(100)),
    small("a small file without ranges is cut", fault.cut_at(100), ranges=False),
    small("a small file is unavailable three times", *[fault.status(503)] * 3, asked=4),
    # -- what does not pass
    large("a range is cut each time", OK, *[fault.cut_at(500)] * 4, ends=SourceUnavailable),
    small("unavailable each time", *[fault.status(503)] * 4, ends=SourceUnavailable, asked=4),
    large("it asks to wait for longer than a thread may", fault.status(429, Retry_After="3600"), ends=SourceUnavailable, asked=1),
    large("a straight read that is cut half-way restarts at the next attempt", fault.cut_at(2500), ranges=False, ends=SourceUnavailable, asked=1),
    large("a chunked body is cut", fault.cut_at(2500), ranges=False, ends=SourceUnavailable),
    large("the file is another in the middle", OK, OK, fault.other_etag, ends=SourceChanged),
    large("the file has another length in the middle", OK, fault.other_total, ends=SourceChanged),
    large("the file is gone in the middle", OK, *[fault.status(404)] * 2, ends=SourceGone),
    large("the precondition fails in the middle", OK, fault.status(412), ends=SourceChanged),
    large("the file is shorter than the range by now", OK, fault.status(416), ends=SourceChanged),
    large("another file answers a range with a 200", OK, lambda r, p: fault.html(r, p).header("ETag", '"v2"'), ends=SourceChanged),
    large("HTML with a 200 from the start", fault.html, ends=UnexpectedContent, asked=1),
    small("HTML with a 200", fault.html, ends=UnexpectedContent),
    small("nothing with a 200", fault.empty, ends=UnexpectedContent),
    small("no content", fault.status(204), ends=SourceMismatch),
    small("not there", *[fault.status(404)] * 2, ends=SourceGone),
    small("gone for good", fault.status(410), ends=SourceGone),
    small("an unheard-of status", fault.status(418), ends=SourceMismatch),
    # -- what the caller knows
    large("the size is as expected", ask=request(size_bytes=4500)),
    large("the source has another size than the API said", ask=request(size_bytes=4499), ends=SourceMismatch, asked=1),
    large("a body of unknown length is longer than expected", fault.chunked, ranges=False, ask=request(size_bytes=4499), ends=SourceMismatch),
    small("a body of unknown length is shorter than expected", fault.chunked, ranges=False, ask=request(size_bytes=601), ends=SourceMismatch),
    large("the whole has another checksum than expected", ask=request(crc32c=1), ends=SourceMismatch),
    small("a small file has another checksum than expected", ask=request(crc32c=1), ends=SourceMismatch),
    # -- what the source says of the whole
    large("the source's own checksum is right", goog_hash(LARGE)),
    large("the source's own checksum is of other bytes", goog_hash(SMALL), ends=SourceMismatch),
    small("a small file's own checksum is right", goog_hash(SMALL)),
    small("a small file's own checksum is of other bytes", goog_hash(LARGE), ends=SourceMismatch),
    small("Amazon's MD5 of a small file is right", amazon_md5(SMALL)),
    small("Amazon's MD5 of a small file is of other bytes", amazon_md5(LARGE), ends=SourceMismatch),
    # -- signatures
    Case("the signature expired before the start", SMALL, same(), always=lambda _: [expired_before(2)], asked=2),
    Case("the signature expires in the middle", LARGE, same(OK, OK), always=lambda _: [expired_before(2)], asked=6),
    Case("a fresh signature is refused, too", LARGE, same(OK), SourceForbidden, always=lambda _: [fault.status(403)], asked=3),
    Case("refused from the start", SMALL, same(), SourceForbidden, always=lambda _: [fault.status(401)], asked=2),
    Case("an expiry that looks like a 404", SMALL, same(fault.status(404))),
    Case("an expiry that looks like a 400", SMALL, same(fault.status(400))),
    # -- redirects
    Case("a redirect to the same origin", SMALL, lambda o: [fault.redirect("/file?moved=1")], asked=2),
    Case("a redirect in a circle", SMALL, same(), SourceMismatch, always=lambda _: [fault.redirect("/file")], asked=6),
    Case("a redirect to another private port", SMALL, same(fault.redirect("http://127.0.0.1:9/file")), SourceNotAllowed, asked=1),
    Case("a redirect into the cloud's metadata", SMALL, same(fault.redirect("http://169.254.169.254/latest")), SourceNotAllowed, asked=1),
    Case("a redirect to a file", SMALL, same(fault.redirect("file:///etc/passwd")), SourceNotAllowed, asked=1),
    Case("a redirect in the middle, to another private host", LARGE, same(OK, fault.redirect("https://10.0.0.1/file")), SourceNotAllowed),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_a_conversation_ends_as_it_must(case: Case) -> None:
    store = MemoryBackend("here")
    http = client()
    memory = MemoryBudget(10 * 1024 * 1024)
    with Origin({"/file": case.content}, ranges=case.ranges) as origin:
        origin.script(case.faults(origin))
        origin.always = fault.each(*case.always(origin))

        with TransferEngine(memory, part_bytes=PART, connections=1, uploads=2, policy=HURRIED) as engine:
            future = engine.submit(source(http, origin), case.ask, [store])
            error = future.exception(timeout=20)
        http.close()

    assert type(error) is (case.ends or type(None)), error
    if error is None:
        assert stored_in(store) == {KEY: case.content}
        assert future.result().stored.keys() == {store.name}
    else:
        assert stored_in(store) == {}
        assert CANARY not in told_by(error)
    assert open_uploads(store) == 0
    assert memory.in_use_bytes == 0
    if case.asked is not None:
        assert len(origin.requests) == case.asked

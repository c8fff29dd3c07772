"""Sources over HTTP: read by range, under a URL that is renewed when it stops working."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from archiver.http.errors import HttpError
from archiver.http.session import Session
from archiver.http.transfer import Transfer
from archiver.http.waiting import blocking, complete
from archiver.transfer.addresses import SourceAddress, fetch
from archiver.transfer.announced import source_info
from archiver.transfer.base import CHECKED_BYTES, Reader, Source, SourceInfo
from archiver.transfer.bodies import Body, Bounded, measure
from archiver.transfer.checksums import Crc32c
from archiver.transfer.codings import can_undo, codings_in, undo
from archiver.transfer.errors import (
    RangesUnreliable,
    SourceMismatch,
    SourceUnavailable,
    StillEncoded,
)
from archiver.transfer.http import UNWANTED_BYTES, HttpClient, Response, Transfers, refusal
from archiver.transfer.ranges import check_range, first_range, is_whole, total_bytes_of

_IDENTITY = {"Accept-Encoding": "identity"}
_PERHAPS_WITHOUT_RANGE = frozenset({400, 405, 412, 416, 501})
"""Answers to a range that a GET of the whole may not get: an empty file (416), a server that knows no ranges."""


@runtime_checkable
class _OverHttp(Protocol):
    def plain(self) -> Source: ...

    def as_sent(self) -> Source: ...


def plain(source: Source) -> Source:
    """`source`, read as one stream without ranges; `source` itself where ranges cannot go wrong (a store)."""
    return source.plain() if isinstance(source, _OverHttp) else source


def as_sent(source: Source) -> Source:
    """`source`, read as one stream with its content codings left on it; `source` itself where there are none."""
    return source.as_sent() if isinstance(source, _OverHttp) else source


@dataclass(slots=True)
class Opened:
    """The first response of a source. Exactly one of `body` (all of it is here), `rest` (it is on its way) and `reader`
    (it is read while it comes) is not None."""

    info: SourceInfo
    body: bytes | None = None
    rest: Transfer | None = None
    reader: Reader | None = None


class Intake(Protocol):
    """How the engine takes the bodies of responses. In the loop's thread."""

    def admit(self, transfer: Transfer, size_bytes: int) -> None:
        """A body of so many bytes is coming: let it wait until there is memory for it."""
        ...


class HttpSource:
    """`transfer.base.Source` over HTTP. The engine reads it by `fetch` and `fetch_range`, everybody else by `open` and
    `read_range`, which block."""

    def __init__(
        self, client: HttpClient, address: SourceAddress, *, ranges: bool = True, decode: bool = True
    ) -> None:
        self.client = client
        self._address = address
        self._ranges = ranges
        self._decode = decode
        self._name = ""
        self._held: tuple[Opened, Transfers] | None = None  # the response that `peek` had

    @property
    def name(self) -> str:
        if not self._name:
            self._name = self._address.current().url.name
        return self._name

    def plain(self) -> HttpSource:
        return HttpSource(self.client, self._address, ranges=False, decode=self._decode)

    def as_sent(self) -> HttpSource:
        return HttpSource(self.client, self._address, ranges=False, decode=False)

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        """As `Source.open`. Raises StillEncoded for a coding that cannot be undone."""
        opened = complete(self.fetch(first_bytes))[0]
        assert opened.reader is not None, "without an intake every body is read while it comes"
        return opened.info, opened.reader

    def peek(self, first_bytes: int) -> tuple[SourceInfo, bytes]:
        """As `open`, and the first bytes: CHECKED_BYTES at least, where there are so many. When they are all, the next
        `fetch` of so many gives this response and sends no request: over a new connection it is certainly its own.
        Blocks; this thread carries the request itself."""
        with self.client.direct() as direct:
            return direct.complete(self._peek(first_bytes, direct.session))

    async def _peek(self, first_bytes: int, session: Session) -> tuple[SourceInfo, bytes]:
        opened, transfers = await self.fetch(first_bytes, session, _Unbudgeted())
        if opened.rest is not None:
            return opened.info, await self.rest(opened.rest)
        if opened.body is not None:
            if len(opened.body) == opened.info.size_bytes:  # else it is the first part of a larger one
                self._held = (opened, transfers)
            return opened.info, opened.body
        assert opened.reader is not None
        first = bytearray(min(first_bytes, CHECKED_BYTES))
        try:
            body = Body(opened.reader, None, self, SourceUnavailable)
            return opened.info, bytes(first[: body.fill(memoryview(first))])
        finally:
            opened.reader.close()

    def holds(self, first_bytes: int) -> bool:
        """Return whether the next `fetch` of so many bytes gives a response that is here, whole."""
        return self._held is not None and len(self._held[0].body or b"") <= first_bytes

    async def measure(self, first_bytes: int) -> tuple[int, int]:
        """The length and CRC32C of what `open` gives, read over a new connection."""
        self._held = None
        measured = _Measuring()
        opened, _ = await self.fetch(first_bytes, intake=measured)
        if (reader := opened.reader) is not None:
            return await blocking(lambda: measure(reader), "source")
        if opened.rest is not None:
            await self.rest(opened.rest)
        return measured.size_bytes, measured.crc.value

    async def rest(self, transfer: Transfer) -> bytes:
        """The body of a transfer whose head has come. Raises SourceUnavailable."""
        try:
            await transfer.rest()
        except HttpError as error:
            raise SourceUnavailable(f"reading {self.name}: {error}") from error
        return transfer.take_body()

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        into[:] = complete(self.fetch_range(start, len(into), info))[0]

    async def fetch(
        self, first_bytes: int, session: Session | None = None, intake: Intake | None = None
    ) -> tuple[Opened, Transfers]:
        """As `open`, and the transfers that brought it. Where the answer to the range is of no use, the whole is asked
        for without one. With an `intake`, a body of at most `first_bytes` is taken whole."""
        is_here = self.holds(first_bytes)
        held, self._held = self._held, None
        if held is not None and is_here and intake is not None:
            return held
        if not self._ranges:
            return await self._whole(await self._get(first_bytes, session, intake))
        response = await self._get(first_bytes, session, intake, f"bytes=0-{first_bytes - 1}")
        status = response.status
        total_bytes: int | None = None
        if status == 206:
            try:
                info = response.info or first_range(response, first_bytes, self)
                return self._opened(response, info), response.transfers
            except RangesUnreliable:
                total_bytes = total_bytes_of(response)
                response.close()
            except BaseException:
                response.close()
                raise
        elif status in _PERHAPS_WITHOUT_RANGE:
            response.close()
        elif status == 200 and not can_undo(codings_in(response.headers)):
            response.close()  # the next answer may come without that coding
        else:
            return await self._whole(response)
        whole = await self._get(first_bytes, session, intake)
        same = whole.headers.get("etag") == response.headers.get("etag")
        return await self._whole(whole, total_bytes if same else None)

    async def fetch_range(
        self,
        start: int,
        size_bytes: int,
        info: SourceInfo,
        session: Session | None = None,
        intake: Intake | None = None,
    ) -> tuple[bytes, Transfers]:
        """The bytes from `start`, exactly, of the very file that `info` describes, and the transfers that brought them.
        Without a `session`, over the client's own connections."""
        end = start + size_bytes - 1
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end}"}
        if info.strong_etag is not None:
            headers["If-Match"] = info.strong_etag

        def decide(response: Response) -> None:
            if response.status not in (200, 206):
                response.transfer.limit(UNWANTED_BYTES)
                return
            check_range(response, start, size_bytes, info, self)
            response.transfer.limit(size_bytes)
            if intake is not None:
                intake.admit(response.transfer, size_bytes)

        try:
            wanted = (start, end, info.size_bytes) if session is None else None
            response = await fetch(self.client, self._address, headers, decide, session, wanted=wanted)
        except SourceMismatch as error:
            if type(error) is SourceMismatch:
                raise RangesUnreliable(f"{self.name} sent more than the range it was asked for") from error
            raise
        check_range(response, start, size_bytes, info, self)
        body = response.transfer.take_body()
        if len(body) < size_bytes:
            raise SourceUnavailable(f"{self.name}: the body ended {size_bytes - len(body)} bytes early")
        return body, response.transfers

    def _get(
        self, first_bytes: int, session: Session | None, intake: Intake | None, byte_range: str | None = None
    ) -> Awaitable[Response]:
        headers = _IDENTITY if byte_range is None else {**_IDENTITY, "Range": byte_range}

        def decide(response: Response) -> None:
            transfer, head = response.transfer, response.head
            if head.status not in (200, 206):
                transfer.limit(UNWANTED_BYTES)
                return
            size_bytes, whole = head.length_bytes, head.status == 200
            if head.status == 206:
                try:
                    info = first_range(response, first_bytes, self)
                except RangesUnreliable:
                    size_bytes = None
                else:
                    response.info = info
                    size_bytes = min(first_bytes, info.size_bytes or 0)
                    whole = size_bytes == info.size_bytes
            if intake is None or size_bytes is None or size_bytes > first_bytes or codings_in(head.headers):
                transfer.stream()
                return
            intake.admit(transfer, size_bytes)
            transfer.limit(size_bytes)
            if not whole:
                transfer.announce()

        return fetch(self.client, self._address, headers, decide, session)

    def _opened(self, response: Response, info: SourceInfo, reader: Reader | None = None) -> Opened:
        transfer = response.transfer
        if reader is not None or transfer.streamed is not None:
            return Opened(info, reader=reader or response)
        if not transfer.done or transfer.error is not None:  # which is raised when the rest is waited for
            return Opened(info, rest=transfer)
        return Opened(info, body=transfer.take_body())

    # -- the whole -----------------------------------------------------------------------------------------
    async def _whole(self, response: Response, total_bytes: int | None = None) -> tuple[Opened, Transfers]:
        """Of a response to a GET without a range. `total_bytes`: its length by the answer to a range."""
        try:
            size_bytes = response.head.length_bytes
            if response.status == 206 and is_whole(response):
                size_bytes = total_bytes = total_bytes_of(response)
            elif response.status != 200:
                raise refusal(response)
            codings = codings_in(response.headers)
            if codings and self._decode:
                # it looks at the first bytes, and so waits for them
                decoded = await blocking(lambda: self._decoded(response, codings), "source")
                return decoded, response.transfers
            if size_bytes is None:
                size_bytes = total_bytes
            framed = response.head.framed or size_bytes is not None
            info = source_info(response, size_bytes, framed=framed, coding=", ".join(codings) or None)
            reader = None if size_bytes is not None else self._bounded(response, info)
            return self._opened(response, info, reader), response.transfers
        except BaseException:
            response.close()
            raise

    def _decoded(self, response: Response, codings: tuple[str, ...]) -> Opened:
        if not can_undo(codings):
            raise StillEncoded(self.name, f"is encoded as {', '.join(codings)}, which was not asked for")
        reader, undone = undo(response, codings, self.name)
        sent_bytes = response.head.length_bytes
        info = source_info(
            response,
            None if undone else sent_bytes,
            framed=response.head.framed,
            coding=", ".join(undone) or None,
            encoded_bytes=sent_bytes if undone else None,
        )
        return Opened(info, reader=self._bounded(reader, info, unpacked=bool(undone)))

    def _bounded(self, reader: Reader, info: SourceInfo, *, unpacked: bool = False) -> Reader:
        if info.size_bytes is not None:
            return reader
        return Bounded(reader, self.client.max_unknown_bytes, self.name, unpacked=unpacked)


class _Unbudgeted:
    """An `Intake` of a few bytes, which nobody counts."""

    def admit(self, transfer: Transfer, size_bytes: int) -> None:  # noqa: ARG002 - as the Protocol has them
        return


class _Measuring:
    """An `Intake` that keeps nothing of a body but its length and CRC32C."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.crc = Crc32c()

    def admit(self, transfer: Transfer, size_bytes: int) -> None:  # noqa: ARG002 - as the Protocol has them
        transfer.consume(self._take)

    def _take(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        self.crc.update(piece)

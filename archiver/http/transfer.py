"""One request and its response."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from archiver.http import cancellation
from archiver.http.errors import TooLong
from archiver.http.head import Head, parse_head
from archiver.http.waiting import Ended, Wait

if TYPE_CHECKING:
    from archiver.http.connections import Connection, Name
    from archiver.http.session import Session

_SMALL_BYTES = 1024 * 1024  # a body of more is written to one piece of memory; of less, joined in the end
WINDOW_BYTES = 1024 * 1024
"""Of a streamed body, read ahead of its reader."""


@dataclass(slots=True)  # frozen, it would take three times as long to make
class Request:
    """`url` is a SECRET, and `headers` may hold one.

    `admits` is asked for each address before it is connected to, and for a kept connection before the request is sent
    over it; what it raises ends the transfer. `fresh`: over a new connection, whatever is kept. `alone`: nothing else
    follows on it. A `body` of several pieces is sent as one, and never joined in memory.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "GET"
    body: bytes | tuple[bytes | memoryview, ...] | None = field(default=None, repr=False)
    admits: Callable[[str], None] | None = field(default=None, repr=False)
    fresh: bool = False
    alone: bool = False
    lines: tuple[bytes, ...] = field(default=(), repr=False)  # more headers, ready to be sent: a signer's

    @property
    def body_bytes(self) -> int:
        body = self.body or b""
        return sum(map(len, body)) if isinstance(body, tuple) else len(body)


Write = Callable[[bytes], object]
Writer = Callable[[Write], Write]

Decide = Callable[["Transfer"], None]
"""Asked once, in the loop's thread, when the head of the response is there: may call `stream`, `hold`, `limit`; what it
raises ends the transfer."""


class Transfer(Wait["Transfer"]):
    """Awaited, it gives itself: with the whole body, or, when `stream` was called, as soon as the head is there.

    Raises HttpError, what `decide` and `admits` raise, and faults of this machine as themselves.
    """

    # as they are until something comes; a tree has tens of thousands of transfers, so they are not set one by one
    head: Head | None = None
    size_bytes = 0  # of the body, so far
    error: BaseException | None = None
    connection: Connection | None = None  # that brought the response; before, a kept one
    ordinal = 0  # of this response on its connection, from 1
    done = False
    resubmitted = False  # it was sent again, over a new connection
    easy: object | None = None  # libcurl's handle, while it has one
    name: Name | None = None  # of the connection it was sent over
    opened = False  # a socket of its own
    stale = False  # the kept connection that it was to be sent over may not be used
    overtaken = False  # its connection was ended because another transfer came too early
    answered = False  # a line of a response came
    written: BytesIO | None = None
    append: Write | None = None
    _limit: int | None = None
    _file: BytesIO | None = None  # instead of chunks, for a body of known length
    _memory: Callable[[], BytesIO | None] | None = None  # where that comes from
    _writer: Writer | None = None
    _take: Callable[[bytes], None] | None = None  # instead of both
    _held = False
    _announced = False
    _streaming: Streamed | None = None
    _ended: Ended | None = None

    def __init__(
        self,
        session: Session,
        request: Request | Callable[[], Request],
        decide: Decide | None = None,
        max_bytes: int = 2**31,
    ) -> None:
        """`request` may be made when it is sent, in the loop's thread: signatures have an age. `max_bytes` bounds a
        body that is buffered."""
        self._session = session
        self._make: Callable[[], Request] | None = None if isinstance(request, Request) else request
        self._request: Request | None = request if isinstance(request, Request) else None
        self.decide = decide
        self._max_bytes = max_bytes
        self.lines: list[bytes] = []
        self._chunks: list[bytes] = []

    # -- waited for ----------------------------------------------------------------------------------------
    def start(self, ended: Ended) -> None:
        self._ended = ended
        self._session.submit(self)

    def cancel(self) -> None:
        self._session.cancel(self)

    def rest(self) -> Wait[Transfer]:
        """After `announce`: what ends when the body is whole."""
        return _Rest(self)

    def on_finish(self, ended: Ended) -> None:
        """Only for `rest`."""
        self._session.in_loop(lambda: self._on_finish(ended))

    def _on_finish(self, ended: Ended) -> None:
        if self.done:
            ended(None if self.error is not None else self, self.error)
        else:
            self._ended = ended

    def take_body(self) -> bytes:
        """The whole body, once; the transfer no longer holds it afterwards."""
        if self._file is not None:
            self.written, self._file = self._file, None
            self.written.truncate()  # nothing, where all came that was to come
            return self.written.getvalue()  # no copy
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @property
    def request(self) -> Request:
        if self._request is None:
            assert self._make is not None
            self._request = self._make()
        return self._request

    @property
    def streamed(self) -> Streamed | None:
        """Return where the body is read while it comes; None when it is buffered."""
        return self._streaming

    @property
    def status(self) -> int:
        assert self.head is not None, "a transfer that ended well has a head"
        return self.head.status

    # -- for `decide`, in the loop's thread ------------------------------------------------------------------
    def stream(self) -> None:
        """Let the body be read while it comes, however long it is."""
        self._streaming = Streamed(self, self._session)

    def announce(self) -> None:
        """Let whoever awaits it go on as soon as the head is there; the body is taken whole: await `rest`."""
        self._announced = True

    def limit(self, size_bytes: int) -> None:
        """Fail with TooLong when the body has more bytes."""
        self._limit = size_bytes

    def into(self, memory: Callable[[], BytesIO | None], writer: Writer | None = None) -> None:
        """Have the body written to what `memory` gives when it comes, where nobody else writes meanwhile; `written` is
        that after `take_body`. None: to memory of its own. `writer` is asked what to write to that memory with, and so
        sees each piece while it is in the processor's cache."""
        self._memory, self._writer = memory, writer

    def consume(self, take: Callable[[bytes], None]) -> None:
        """Give the body to `take`, piece by piece as it comes, and keep nothing of it."""
        self._take = take

    def hold(self) -> None:
        """Let nothing of the body come before `release` is called."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self._session.unpause(self)

    # -- for the session, in the loop's thread ---------------------------------------------------------------
    def reset(self) -> None:
        """Be sent again: nothing came."""
        if self._make is not None:
            self._request = None
        self.easy = self.name = self.connection = None

    def on_line(self, line: bytes) -> None:
        """Take a line of a head, the empty one at its end included. Raises InvalidResponse and what `decide` raises."""
        self.answered = True
        if self.head is not None:  # a trailer
            return
        self.lines.append(line)
        if line in (b"\r\n", b"\n"):
            lines, self.lines = self.lines, []
            self.head = parse_head(lines)
            if self.head is not None:
                self._look_at_head(self.head)

    def _look_at_head(self, head: Head) -> None:
        # `decide` may hold who made this transfer: bodies must not wait for the garbage collector
        decide, self.decide = self.decide, None
        if decide is not None:
            decide(self)
        limit, length = self._bytes_allowed(), head.length_bytes
        if limit is not None and length is not None and length > limit and self.request.method != "HEAD":
            raise _too_long(limit)
        if self._streaming is not None or self._announced:
            self._inform(None)

    def _bytes_allowed(self) -> int | None:
        return self._max_bytes if self._limit is None and self._streaming is None else self._limit

    def on_data(self, chunk: bytes) -> bool:
        """Take a piece of the body; False: not now. Raises. Where `append` is set, it takes the rest."""
        if self._held:
            return False
        size_bytes, limit = self.size_bytes + len(chunk), self._bytes_allowed()
        if limit is not None and size_bytes > limit:
            raise _too_long(limit)
        if self._streaming is not None:
            if not self._streaming.feed(chunk):
                return False
        elif self._take is not None:
            self._take(chunk)
        else:
            self._buffer(chunk)
        self.size_bytes = size_bytes
        return True

    def _buffer(self, chunk: bytes) -> None:
        length = self.head.length_bytes if self.head else None
        if length is not None and not self._chunks:  # to which libcurl holds it
            file = self._memory() if self._memory is not None else None
            writer = self._writer if file is not None else None
            if file is None and length > _SMALL_BYTES:
                file = BytesIO(bytes(length))
            if file is not None:
                self._file = file
                self.append = file.write if writer is None else writer(file.write)
                self.append(chunk)
                return
            self.append = self._chunks.append
        self._chunks.append(chunk)

    def finish(self, error: BaseException | None) -> None:
        """The session is done with it. Idempotent."""
        if self.done:
            self._inform(self.error)
            return
        self.done = True
        if self.append is not None:
            self.append = None
            self.size_bytes = self._file.tell() if self._file is not None else sum(map(len, self._chunks))
        self.easy = self.decide = self._make = self._memory = self._writer = self._take = None
        self.error = error
        if self._streaming is not None:
            self._streaming.end(error)
        if error is not None:
            self._chunks, self._file = [], None
        self._inform(error)

    def _inform(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(None if error is not None else self, error)


def _too_long(limit: int) -> TooLong:
    return TooLong(f"it has more than the {limit} bytes that were expected")


class _Rest(Wait[Transfer]):
    __slots__ = ("_transfer",)

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    def start(self, ended: Ended) -> None:
        self._transfer.on_finish(ended)

    def cancel(self) -> None:
        self._transfer.cancel()


class Streamed:
    """A body that is read while it comes, in bounded memory. Read by one thread at a time."""

    def __init__(self, transfer: Transfer, session: Session) -> None:
        self._transfer = transfer
        self._session = session
        self._changed = session.condition()
        self._chunks: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._over = False
        self._closed = False
        self._error: BaseException | None = None

    def feed(self, chunk: bytes) -> bool:
        """In the loop's thread: take `chunk`, or refuse it while enough is waiting."""
        with self._changed:
            if self._waiting_bytes >= WINDOW_BYTES:
                self._paused = True
                return False
            if not self._closed:
                self._chunks.append(memoryview(chunk))
                self._waiting_bytes += len(chunk)
                self._changed.notify()
        return True

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify_all()

    def readinto(self, into: memoryview) -> int:
        """Some of the body; 0 at its proper end and there alone. Raises HttpError, and the cancellation signal."""
        if not len(into):
            return 0
        with self._changed:
            while not self._chunks:
                if self._closed:
                    raise ValueError("the body was closed")
                if self._over:
                    if self._error is not None:
                        raise self._error
                    return 0
                self._changed.wait(cancellation.POLL_SECONDS)
                cancellation.check()
            chunk = self._chunks[0]
            count = min(len(chunk), len(into))
            into[:count] = chunk[:count]
            if count < len(chunk):
                self._chunks[0] = chunk[count:]
            else:
                self._chunks.popleft()
            self._waiting_bytes -= count
            go_on = self._paused and self._waiting_bytes < WINDOW_BYTES // 2
            if go_on:
                self._paused = False
        if go_on:
            self._session.unpause(self._transfer)
        return count

    @property
    def at_end(self) -> bool:
        """Return whether all of it came, and was read."""
        with self._changed:
            return self._over and self._error is None and not self._chunks

    def close(self) -> None:
        """What has not come yet is not wanted. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._chunks.clear()
            self._waiting_bytes = 0
            self._changed.notify_all()
            over = self._over
        if not over:
            self._session.cancel(self._transfer)

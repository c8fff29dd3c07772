"""Framing, read strictly: a table of answers byte by byte."""

# ruff: noqa: E501 - a table is read by its rows
from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from net.stream import Buffer, Stream
from transfer import stopping, wire
from transfer.wire import ClosedBeforeAnswer, Wire, WireError


@contextmanager
def answering(*pieces: bytes, silence_seconds: float = 0.2, closed: bool = True) -> Iterator[Wire]:
    """A connection on which `pieces` are ready to be read; `closed` after them by the other side."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for piece in pieces:
            theirs.sendall(piece)
        if closed:
            theirs.shutdown(socket.SHUT_WR)
        yield Wire(ours, "127.0.0.1", silence_seconds)


def body_of(wire: Wire, piece_bytes: int = 7) -> bytes:
    body, piece = bytearray(), memoryview(bytearray(piece_bytes))
    while got := wire.readinto(piece):
        body += piece[:got]
    return bytes(body)


def exchange(connection: Wire) -> bytes:
    connection.request("/", {})
    return body_of(connection)


@pytest.mark.parametrize(
    ("answer", "body", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200\r\ncontent-length:5  \r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n000\r\nT: 1\r\n\r\n", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", False),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    ],
)  # fmt: skip
def test_a_proper_answer_is_read_to_its_end(answer: bytes, body: bytes, reusable: bool) -> None:
    with answering(answer) as connection:
        connection.request("/", {})

        assert body_of(connection) == body
        assert connection.at_end
        assert connection.reusable == reusable


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5;" + b"x" * 9000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Go on\r\n\r\n" * 5,
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"",
    ],
)
def test_framing_that_does_not_add_up_is_an_error(answer: bytes) -> None:
    with answering(answer) as connection, pytest.raises(WireError):
        exchange(connection)


def test_an_answer_that_never_began_is_told_from_one_that_broke_off() -> None:
    with answering(b"") as connection, pytest.raises(ClosedBeforeAnswer):
        connection.request("/", {})
    with answering(b"HTTP/1.1 2") as connection, pytest.raises(WireError) as broken:
        connection.request("/", {})
    assert not isinstance(broken.value, ClosedBeforeAnswer)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"])
def test_silence_ends_the_wait(begun: bytes) -> None:
    with (
        answering(begun, closed=False, silence_seconds=0.1) as connection,
        pytest.raises(WireError, match="nothing came"),
    ):
        exchange(connection)


class Trickle(Stream):
    """A server that gives what is `ready`, then a byte each time it is asked."""

    def __init__(self, ready: bytes) -> None:
        self._ready = ready

    def send(self, head: bytes, body: Buffer = b"") -> None:
        return

    def receive(self, into: memoryview) -> int:
        given, self._ready = self._ready or b"x", b""
        into[: len(given)] = given
        return len(given)

    receive_all = receive


@pytest.mark.parametrize(
    ("ready", "why"),
    [(b"", "no whole head"), (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", "only \\d+ bytes came in")],
)
def test_a_trickle_ends_the_wait(ready: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0, 10)  # every look at it is ten seconds later
    monkeypatch.setattr(wire, "monotonic", lambda: next(clock))
    monkeypatch.setattr(wire, "Stream", lambda *_: Trickle(ready))

    with socket.socket() as unused, pytest.raises(WireError, match=why):
        exchange(Wire(unused, "127.0.0.1", silence_seconds=100))


def test_a_stop_ends_the_wait_for_a_silent_server() -> None:
    class Told(Exception):
        pass

    def told() -> None:
        raise Told

    with (
        answering(closed=False, silence_seconds=60) as connection,
        stopping.watched(told),
        pytest.raises(Told),
    ):
        connection.request("/", {})


@pytest.mark.parametrize("headers", [{"Cookie": "a=b\r\nHost: evil"}, {"Cookie": "\u20ac"}])
def test_a_header_that_could_not_be_one_line_is_not_sent(headers: dict[str, str]) -> None:
    with (
        answering(b"HTTP/1.1 200 OK\r\n\r\n") as connection,
        pytest.raises(WireError, match="request would hold"),
    ):
        connection.request("/", headers)


def chunks(body: bytes, sizes: list[int]) -> bytes:
    out, at = b"", 0
    for size in [*sizes, len(body)]:
        piece = body[at : at + size]
        if piece:
            out += b"%X\r\n%b\r\n" % (len(piece), piece)
        at += size
    return out + b"0\r\n\r\n"


@given(
    body=st.binary(max_size=3000),
    sizes=st.lists(st.integers(1, 500), max_size=8),
    piece=st.integers(1, 900),
    framing=st.sampled_from(["length", "chunked"]),
    more=st.binary(max_size=50),
)
@settings(deadline=None)
def test_any_body_in_any_chunks_into_any_buffers_is_the_same_body(
    body: bytes, sizes: list[int], piece: int, framing: str, more: bytes
) -> None:
    head: dict[str, Callable[[], bytes]] = {
        "length": lambda: b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        "chunked": lambda: b"Transfer-Encoding: chunked\r\n\r\n" + chunks(body, sizes),
    }
    with answering(b"HTTP/1.1 200 OK\r\n" + head[framing]() + more) as connection:
        connection.request("/", {})

        assert body_of(connection, piece) == body
        assert connection.idle_and_silent() is False  # closed, or more came than was asked for


@given(
    body=st.binary(min_size=1, max_size=300), sizes=st.lists(st.integers(1, 50), max_size=4), data=st.data()
)
@settings(deadline=None)
def test_no_cut_of_a_chunked_body_passes_for_the_whole(
    body: bytes, sizes: list[int], data: st.DataObject
) -> None:
    whole = chunks(body, sizes)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + whole[:cut]) as connection:
        connection.request("/", {})

        with pytest.raises(WireError):
            body_of(connection)

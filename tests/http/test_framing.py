"""Where a response ends (RFC 9112, section 6): a table of responses byte by byte, plain and over TLS."""

# ruff: noqa: E501 - a table is read by its rows
from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.http.errors import BrokenOff, HttpError, InvalidResponse, TooSlow
from archiver.http.head import parse_head
from tests.http.serving import (
    Client,
    Exchange,
    Transport,
    answer,
    bit_by_bit,
    read,
    says,
    says_and,
    streamed,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PROPER = [
    ("a length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    ("no reason phrase, names in any case, no space", b"HTTP/1.1 200\r\ncontent-length:5  \r\n\r\nhello", b"hello", True),
    ("the same length twice", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    ("an empty body", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    ("a status that has no body", b"HTTP/1.1 204 No\r\n\r\n", b"", True),
    ("not modified, with the length of what is not sent", b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", b"", True),
    ("a connection that is to be closed", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    ("HTTP/1.0 that is kept", b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    ("an early hint first", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    ("two hints and a `continue` first", b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 100 C\r\n\r\n" + answer(), b"hello", True),
    ("an error with a body", answer(b"gone", status="404 Not Found"), b"gone", True),
    ("a misdirected request", answer(b"no", status="421 Misdirected Request"), b"no", True),
    # nothing follows a chunked response: libcurl does not say whether more came with the last chunk
    ("chunks", CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello", False),
    ("chunks in capitals, with a trailer", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n000\r\nT: 1\r\n\r\n", b"hello", False),
    ("no chunk", CHUNKED + b"0\r\n\r\n", b"", False),
    ("both framings", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", False),
]  # fmt: skip
IMPROPER: list[tuple[str, bytes, type[HttpError]]] = [
    ("a body shorter than its length", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", BrokenOff),
    ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", InvalidResponse),
    ("two lengths in a line", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", InvalidResponse),
    ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", InvalidResponse),
    ("a length with a sign", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", InvalidResponse),
    ("a length in hexadecimal", b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", InvalidResponse),
    ("a length that is a word", b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", InvalidResponse),
    ("no length where one is named", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello", InvalidResponse),
    ("a length of forty digits", b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\nhello", InvalidResponse),
    ("another coding", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", InvalidResponse),
    ("chunked twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", InvalidResponse),
    ("no last chunk", CHUNKED + b"5\r\nhello\r\n", BrokenOff),
    ("half of the last chunk", CHUNKED + b"5\r\nhello\r\n0\r\n", BrokenOff),
    ("half a chunk", CHUNKED + b"5\r\nhel", BrokenOff),
    ("a chunk longer than it says", CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", InvalidResponse),
    ("a chunk of no number", CHUNKED + b"x\r\nhello\r\n0\r\n\r\n", InvalidResponse),
    ("a chunk of a negative number", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", InvalidResponse),
    ("a chunk of forty digits", CHUNKED + b"f" * 40 + b"\r\n", InvalidResponse),
    ("trailers without end", CHUNKED + b"0\r\n" + b"A: b\r\n" * 100_000 + b"\r\n", InvalidResponse),
    ("a folded line", b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", InvalidResponse),
    ("a space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", InvalidResponse),
    ("no colon", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", InvalidResponse),
    ("a line feed alone", b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\r\nhello", InvalidResponse),
    ("a head that is too long", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000 + b"\r\n\r\n", InvalidResponse),
    ("too many lines in a head", b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000 + b"\r\n", InvalidResponse),
    ("hints without end", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 20_000, InvalidResponse),
    ("HTTP/2", b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n", InvalidResponse),
    ("HTTP/3.7", b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n", InvalidResponse),
    ("HTTP/0.9", b"hello", InvalidResponse),
    ("a status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", InvalidResponse),
    ("a switch of protocols", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello", InvalidResponse),
    ("another protocol", b"ICY 200 OK\r\n\r\n", InvalidResponse),
    ("another protocol's greeting", b"SSH-2.0-OpenSSH_9.6\r\n", InvalidResponse),
    ("`continue` and nothing else", b"HTTP/1.1 100 Go on\r\n\r\n" * 5, BrokenOff),
    ("a head that is cut", b"HTTP/1.1 200 OK\r\nContent-Len", BrokenOff),
    ("a status line that is cut", b"HTTP/1.1 2", BrokenOff),
    ("nothing", b"", BrokenOff),
]  # fmt: skip


def names(
    table: list[tuple[str, bytes, type[HttpError]]] | list[tuple[str, bytes, bytes, bool]],
) -> list[str]:
    return [row[0] for row in table]


@pytest.mark.parametrize(("_", "response", "body", "kept"), PROPER, ids=names(PROPER))
def test_a_proper_response_is_read_to_its_end(
    _: str, response: bytes, body: bytes, kept: bool, over: Transport, client: Client
) -> None:
    with over.server(says(response), bit_by_bit(response)) as server:
        for _way in ("at once", "in the smallest pieces"):
            transfer = client.get(server)
            assert transfer.take_body() == body
            assert transfer.connection is not None
            assert not transfer.connection.tainted

        assert client.body(server) == b"hello"
        assert server.connections == (1 if kept else 3)


@pytest.mark.parametrize(("_", "response", "body", "kept"), PROPER, ids=names(PROPER))
def test_a_proper_response_is_streamed_to_its_end(
    _: str, response: bytes, body: bytes, kept: bool, over: Transport, client: Client
) -> None:
    with over.server(says(response)) as server:
        transfer = client.get(server, decide=streamed)

        assert read(transfer) == body
        assert transfer.streamed is not None
        assert transfer.streamed.at_end


@pytest.mark.parametrize(("_", "response", "error"), IMPROPER, ids=names(IMPROPER))
def test_framing_that_does_not_add_up_is_an_error(
    _: str, response: bytes, error: type[HttpError], over: Transport, client: Client
) -> None:
    with over.server(says_and(Exchange.close, response)) as server:
        assert type(client.fails(server)) is error

        assert client.body(server) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize(("_", "response", "error"), IMPROPER, ids=names(IMPROPER))
def test_framing_that_does_not_add_up_never_ends_a_stream_well(
    _: str, response: bytes, error: type[HttpError], over: Transport, client: Client
) -> None:
    with over.server(says_and(Exchange.close, response)) as server, pytest.raises(error):
        read(client.get(server, decide=streamed))


def test_a_body_until_the_connection_closes_says_that_it_is_one(over: Transport, client: Client) -> None:
    with over.server(says_and(Exchange.close, b"HTTP/1.1 200 OK\r\n\r\nhello")) as server:
        transfer = client.get(server)

        assert transfer.take_body() == b"hello"
        assert transfer.head is not None
        assert not transfer.head.framed
        assert client.body(server) == b"hello"
        assert server.connections == 2


def test_over_tls_such_a_body_is_cut_unless_tls_ends_properly(tls: Transport, client: Client) -> None:
    with tls.server(says_and(Exchange.cut, b"HTTP/1.1 200 OK\r\n\r\nhello")) as server:
        assert type(client.fails(server)) is BrokenOff


def test_a_body_arrives_as_it_was_packed(over: Transport, client: Client) -> None:
    packed = gzip.compress(b"hello" * 100)
    with over.server(says(answer(packed, "Content-Encoding: gzip"))) as server:
        assert client.body(server) == packed


@pytest.mark.parametrize(
    "response",
    [answer(b"", "X: y"), b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"],
    ids=["an empty one", "that of a GET", "none"],
)
def test_the_response_to_head_has_no_body_whatever_its_length(
    response: bytes, over: Transport, client: Client
) -> None:
    with over.server(says(response)) as server:
        transfer = client.get(server, method="HEAD", max_bytes=10)

        assert transfer.take_body() == b""
        assert server.exchanges[0].line.startswith("HEAD /file")


def test_a_chunk_with_an_endless_extension_is_too_slow(
    plain: Transport, new_client: Callable[..., Client]
) -> None:
    """Of what it skips libcurl counts nothing."""

    def endless(exchange: Exchange) -> None:
        exchange.send(CHUNKED + b"5;")
        while True:
            exchange.send(b"x" * 10_000)

    with plain.server(endless) as server:
        assert type(new_client(silence=1).fails(server)) is TooSlow


def chunks(body: bytes, sizes: list[int]) -> bytes:
    out, at = b"", 0
    for size in [*sizes, len(body)]:
        piece = body[at : at + size]
        if piece:
            out += b"%X\r\n%b\r\n" % (len(piece), piece)
        at += size
    return out + b"0\r\n\r\n"


PROPERTY = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@given(
    body=st.binary(max_size=3000),
    sizes=st.lists(st.integers(1, 500), max_size=8),
    piece=st.integers(1, 900),
    chunked=st.booleans(),
)
@PROPERTY
def test_any_body_in_any_chunks_into_any_buffers_is_the_same_body(
    plain: Transport, client: Client, body: bytes, sizes: list[int], piece: int, chunked: bool
) -> None:
    response = CHUNKED + chunks(body, sizes) if chunked else answer(body)
    with plain.server(says(response), says(response)) as server:
        assert client.body(server) == body
        assert read(client.get(server, decide=streamed), piece) == body


@given(
    body=st.binary(min_size=1, max_size=300), sizes=st.lists(st.integers(1, 50), max_size=4), data=st.data()
)
@PROPERTY
def test_no_cut_of_a_chunked_body_passes_for_the_whole(
    plain: Transport, client: Client, body: bytes, sizes: list[int], data: st.DataObject
) -> None:
    whole = chunks(body, sizes)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with plain.server(says_and(Exchange.cut, CHUNKED + whole[:cut])) as server:
        assert isinstance(client.fails(server), HttpError)


# -- heads ---------------------------------------------------------------------------------------------------
def lines(head: bytes) -> list[bytes]:
    return head.splitlines(keepends=True)


def test_a_header_that_comes_several_times_is_known_first_and_in_full() -> None:
    head = parse_head(lines(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nETag:  x \r\nset-cookie: b=2\r\n\r\n"))

    assert head is not None
    assert head.headers.get("set-cookie") == "a=1"
    assert head.headers.all("set-cookie") == ["a=1", "b=2"]
    assert head.headers.all("etag") == ["x"]
    assert head.headers.all("x") == []
    assert head.headers.get("x") is None


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_head_is_understood_or_refused(rest: list[bytes]) -> None:
    try:
        head = parse_head([b"HTTP/1.1 200 OK\r\n", *rest, b"\r\n"])
    except InvalidResponse:
        return
    assert head is not None
    assert head.status == 200

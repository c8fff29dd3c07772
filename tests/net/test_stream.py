"""A stream's waits end, whatever the other side does; over TCP and over TLS alike."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trustme

from net.stream import Stream

WAIT_SECONDS = 0.2
HEAD = b"PUT /key HTTP/1.1\r\n\r\n"

Pair = Callable[[], contextlib.AbstractContextManager[tuple[Stream, socket.socket]]]


@contextmanager
def tcp() -> Iterator[tuple[Stream, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            theirs.settimeout(10)
            yield Stream(ours, WAIT_SECONDS), theirs


@contextmanager
def tls() -> Iterator[tuple[Stream, socket.socket]]:
    authority = trustme.CA()
    serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    serving.num_tickets = 0  # else one comes after the handshake, and is something that came
    authority.issue_cert("localhost").configure_cert(serving)
    authority.configure_trust(asking)
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[ssl.SSLSocket] = []

        def accept() -> None:
            sock, _ = server.accept()
            accepted.append(serving.wrap_socket(sock, server_side=True))

        thread = threading.Thread(target=accept)
        thread.start()
        ours = asking.wrap_socket(
            socket.create_connection(server.getsockname()),
            server_hostname="localhost",
            suppress_ragged_eofs=False,
        )
        thread.join(10)
        with ours, accepted[0] as theirs:
            theirs.settimeout(10)
            yield Stream(ours, WAIT_SECONDS), theirs


both = pytest.mark.parametrize("connected", [tcp, tls])


@both
def test_head_and_body_arrive_whole_however_large_they_are(connected: Pair) -> None:
    body = bytes(range(256)) * 30_000  # more than any socket buffer
    received = bytearray()
    with connected() as (stream, theirs):

        def receive() -> None:
            while len(received) < len(HEAD) + len(body) and (piece := theirs.recv(100_000)):
                received.extend(piece)

        reader = threading.Thread(target=receive)
        reader.start()
        stream.send(HEAD, memoryview(bytearray(body)))
        reader.join(10)

    assert received == HEAD + body


@both
def test_to_send_to_one_who_does_not_read_ends_in_a_timeout(connected: Pair) -> None:
    with connected() as (stream, _), pytest.raises(TimeoutError):
        stream.send(HEAD, bytes(50_000_000))


@both
def test_silence_ends_in_a_timeout(connected: Pair) -> None:
    with connected() as (stream, _):
        for receive in (stream.receive, stream.receive_all):
            with pytest.raises(TimeoutError):
                receive(memoryview(bytearray(10)))


@both
def test_some_bytes_are_given_as_soon_as_they_are_there(connected: Pair) -> None:
    into = bytearray(10)
    with connected() as (stream, theirs):
        theirs.sendall(b"abc")

        assert stream.receive(memoryview(into)) == 3
    assert into[:3] == b"abc"


@both
def test_all_that_is_asked_for_is_waited_for_in_one_call(connected: Pair) -> None:
    body = bytes(range(256)) * 400
    into = bytearray(len(body))
    with connected() as (stream, theirs):

        def send() -> None:
            for start in range(0, len(body), 10_000):
                theirs.sendall(body[start : start + 10_000])

        sender = threading.Thread(target=send)
        sender.start()
        filled = 0
        while filled < len(into):
            filled += stream.receive_all(memoryview(into)[filled:])
        sender.join(10)

    assert into == body


@both
def test_what_came_before_the_wait_was_over_is_not_lost(connected: Pair) -> None:
    into = bytearray(10)
    with connected() as (stream, theirs):
        theirs.sendall(b"abc")

        assert stream.receive_all(memoryview(into)) == 3
    assert into[:3] == b"abc"


@both
def test_the_end_of_the_stream_is_no_bytes(connected: Pair) -> None:
    with connected() as (stream, theirs):
        if isinstance(theirs, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # it says goodbye, and we do not answer
                theirs.settimeout(0)
                theirs.unwrap()
        else:
            theirs.shutdown(socket.SHUT_WR)

        assert stream.receive(memoryview(bytearray(10))) == 0


@both
def test_a_stream_is_silent_until_something_comes_or_it_ends(connected: Pair) -> None:
    with connected() as (stream, theirs):
        assert stream.is_silent()

        theirs.sendall(b"unasked for")
        assert stream.receive(memoryview(bytearray(3))) == 3
        assert not stream.is_silent()

    with connected() as (stream, theirs):
        theirs.close()
        with contextlib.suppress(TimeoutError, OSError):
            stream.receive(memoryview(bytearray(1)))  # so that the end is here
        assert not stream.is_silent()

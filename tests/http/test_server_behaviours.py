"""What servers do wrong, plain and over TLS, and which error each of it is. Every request carries secrets, and no error
tells one: see `tests.http.serving.failure_of`."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archiver.http.errors import (
    BrokenOff,
    HttpError,
    TooLong,
    TooSlow,
)
from tests.http.serving import (
    Behaviour,
    Client,
    Exchange,
    Result,
    Transport,
    answer,
    says,
    says_and,
    tells_no_secret,
)

NewClient = Callable[..., Client]
BODY = b"x" * 5000
PUT: dict[str, Any] = {"method": "PUT", "body": bytes(20_000_000)}


def trickle(begun: bytes) -> Behaviour:
    """Something, but next to nothing."""

    def behave(exchange: Exchange) -> None:
        exchange.send(begun)
        while not exchange.server.left.wait(0.02):
            exchange.send(b"x")

    return behave


def slow_reader(exchange: Exchange) -> None:
    """It takes the body in so slowly that next to nothing moves."""
    while not exchange.server.left.wait(0.2):
        exchange.sock.recv(10)


def reset_amid_the_body(exchange: Exchange) -> None:
    exchange.sock.recv(100_000)
    exchange.reset()


def close_amid_the_body(exchange: Exchange) -> None:
    exchange.sock.recv(100_000)
    exchange.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
ENDS: list[tuple[str, Behaviour, type[HttpError]]] = [
    ("no answer", Exchange.close, BrokenOff),
    ("no answer, and no end of TLS", Exchange.cut, BrokenOff),
    ("reset before the answer", Exchange.reset, BrokenOff),
    ("closed in the head", says_and(Exchange.close, HEAD[:-2]), BrokenOff),
    ("closed after the head", says_and(Exchange.close, HEAD), BrokenOff),
    ("closed amid the body", says_and(Exchange.close, HEAD, BODY[:-1]), BrokenOff),
    ("cut amid the body", says_and(Exchange.cut, HEAD, BODY[:-1]), BrokenOff),
    ("reset amid the body", says_and(Exchange.reset, HEAD, BODY[:-1]), BrokenOff),
]
SILENCES: list[tuple[str, Behaviour]] = [
    ("silence", Exchange.stall),
    ("silence after a `continue`", says_and(Exchange.stall, b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("silence in the head", says_and(Exchange.stall, HEAD[:-2])),
    ("silence after the head", says_and(Exchange.stall, HEAD)),
    ("silence amid the body", says_and(Exchange.stall, HEAD, BODY[:10])),
    (
        "silence amid a body that ends with the connection",
        says_and(Exchange.stall, b"HTTP/1.1 200 OK\r\n\r\nab"),
    ),
    ("a trickle of a head", trickle(b"HTTP/1.1 200 OK\r\nX: ")),
    ("a trickle of a body", trickle(HEAD)),
    ("a trickle of chunks", trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n")),
]


@pytest.mark.parametrize(("_", "behaviour", "error"), ENDS, ids=[row[0] for row in ENDS])
def test_an_end_before_the_end_of_the_answer(
    _: str, behaviour: Behaviour, error: type[HttpError], over: Transport, client: Client
) -> None:
    with over.server(behaviour) as server:
        assert type(client.fails(server)) is error

        assert len(server.exchanges) == 1
        assert client.body(server) == b"hello"


@pytest.mark.parametrize("behaviour", [reset_amid_the_body, close_amid_the_body])
def test_an_end_amid_the_request(behaviour: Behaviour, over: Transport, client: Client) -> None:
    with over.server(behaviour, reads_bodies=False) as server:
        assert type(client.fails(server, **PUT)) is BrokenOff


def test_silence_and_trickles_end(plain: Transport, tls: Transport, new_client: NewClient) -> None:
    """All at once: libcurl's speed is that of the last five seconds."""
    client = new_client(silence=1)
    with contextlib.ExitStack() as stack:
        results: dict[tuple[str, str], Result] = {}
        for over in (plain, tls):
            for name, behaviour in SILENCES:
                server = stack.enter_context(over.server(behaviour))
                results[over.name, name] = Result(client.transfer(server))
            busy = stack.enter_context(over.server(slow_reader, reads_bodies=False))
            results[over.name, "a request that is not read"] = Result(client.transfer(busy, **PUT))

        for case, result in results.items():
            error = result.error()
            assert type(error) is TooSlow, case
            tells_no_secret(error)


def test_a_slow_body_above_the_limit_is_waited_for(
    plain: Transport, tls: Transport, new_client: NewClient
) -> None:
    """It takes longer than `silence`, which is two seconds: a busy machine may be late by one."""

    def slow(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 32000\r\n\r\n")
        for _ in range(32):
            exchange.send(b"x" * 1000)
            exchange.server.left.wait(0.07)

    client = new_client(silence=2)
    with plain.server(slow) as one, tls.server(slow) as other:
        results = [Result(client.transfer(server)) for server in (one, other)]

        assert [result.error() for result in results] == [None, None]
        assert [len(result.transfer.take_body()) for result in results] == [32_000, 32_000]


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 3]
)
def test_what_comes_before_the_answer_is_not_the_answer(
    first: bytes, over: Transport, client: Client
) -> None:
    with over.server(says(first, answer(b"", status="201 Created"))) as server:
        assert client.get(server, method="PUT", body=b"abc").status == 201


@pytest.mark.parametrize("status", ["408 Request Timeout", "421 Misdirected Request", "503 Slow Down"])
@pytest.mark.parametrize("kept", [True, False])
def test_refusals_are_answers(status: str, kept: bool, over: Transport, client: Client) -> None:
    refusal = answer(b"no", *([] if kept else ["Connection: close"]), status=status)
    with over.server(says(refusal)) as server:
        transfer = client.get(server)

        assert (transfer.status, transfer.take_body()) == (int(status[:3]), b"no")
        assert client.body(server) == b"hello"
        assert server.connections == (1 if kept else 2)


@pytest.mark.parametrize("end", [Exchange.close, Exchange.cut])
def test_a_server_that_says_goodbye_and_goes(
    end: Callable[[Exchange], None], over: Transport, client: Client
) -> None:
    with over.server(*[says_and(end, answer(b"hello", "Connection: close"))] * 3) as server:
        for _ in range(3):
            transfer = client.get(server)
            assert transfer.take_body() == b"hello"
            assert transfer.connection is not None
            assert not transfer.connection.tainted


def test_a_request_that_is_read_in_time_arrives_whole(over: Transport, client: Client) -> None:
    body = bytes(range(256)) * 40_000
    with over.server() as server:
        assert client.get(server, method="PUT", body=body).status == 200

        assert server.exchanges[0].body == body


# -- limits of ours ------------------------------------------------------------------------------------------
def test_a_body_that_is_longer_than_allowed(over: Transport, client: Client) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 30 + b"0\r\n\r\n"
    endless = says_and(Exchange.close, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101)
    for behaviour in (says(answer(b"x" * 101)), says(chunked), endless):
        with over.server(behaviour, says(answer(b"x" * 100))) as server:
            assert type(client.fails(server, max_bytes=100)) is TooLong
            assert len(client.body(server, max_bytes=100)) == 100


def test_a_length_beyond_all_measure_takes_no_memory(over: Transport, client: Client) -> None:
    with over.server(
        says_and(Exchange.close, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % 10**17)
    ) as server:
        assert type(client.fails(server)) is TooLong


def test_no_file_handle_is_a_fault_of_this_machine(plain: Transport, client: Client) -> None:
    with plain.server() as server:
        client.get(server)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held: list[socket.socket] = []
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, hard))
        errors: list[BaseException] = []
        try:
            for left in (0, 1):  # none for the socket; one for it, and none for libcurl's duplicate
                for _ in range(50):  # what this process closes meanwhile is there to be taken again
                    with contextlib.suppress(OSError):
                        while True:
                            held.append(socket.socket())
                    for _ in range(left):
                        held.pop().close()
                    with contextlib.suppress(AssertionError):  # it went well
                        errors.append(client.fails(server, fresh=True))
                        break
        finally:
            for sock in held:
                sock.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert len(errors) == 2
        for error in errors:
            assert isinstance(error, OSError), error
            assert error.errno == 24
    with plain.server() as server:  # the first one had no handles either, and may accept no more
        assert client.body(server, fresh=True) == b"hello"

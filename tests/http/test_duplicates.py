"""More comes over a connection than was asked for. No answer may be taken for another request's; where that cannot be
told in time, the connection is known to be tainted afterwards."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

import pytest

from archiver.http.errors import InvalidResponse
from tests.http.serving import (
    WAIT_SECONDS,
    Client,
    Exchange,
    Result,
    Transport,
    answer,
    connection_of,
    honest,
    own,
    run,
    says_and,
    start,
)

NewClient = Callable[..., Client]


# -- more than was asked for -----------------------------------------------------------------------------------
RESPONSES: dict[str, Callable[[Exchange], bytes]] = {
    "a body": own,
    "no body": lambda _: b"HTTP/1.1 204 No\r\n\r\n",
    "an empty body": lambda _: answer(b""),
    "chunks": lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n/1\r\n0\r\n\r\n",
}


WAYS = ["in one piece", "in two records", "in two packets", "2", "20"]


@pytest.mark.parametrize(
    ("kind", "way"), [*((kind, way) for kind in RESPONSES for way in WAYS), ("a body", "500")]
)
def test_a_duplicate_is_never_the_answer_to_the_next_request(
    kind: str, way: str, over: Transport, client: Client
) -> None:
    """At once, or so many milliseconds later."""
    sent = threading.Event()

    def twice(exchange: Exchange) -> None:
        response = RESPONSES[kind](exchange)
        if way == "in one piece":
            exchange.send(response + response)
        elif way == "in two records":
            exchange.send(response, response)
        else:
            exchange.send(response)
            if way.isdigit():
                exchange.server.left.wait(int(way) / 1000)
            exchange.send(response)
        sent.set()

    with over.server(twice, otherwise=honest) as server:
        first = client.get(server, "/1")
        assert sent.wait(WAIT_SECONDS)
        others = [client.get(server, f"/{number}") for number in (2, 3, 4)]

        assert [other.take_body() for other in others] == [b"/2", b"/3", b"/4"]
        assert connection_of(first).served == 1
        assert server.connections == 2
        assert connection_of(first).tainted or kind == "chunks"  # nothing follows chunks anyway
        assert not connection_of(others[0]).tainted


def test_a_duplicate_is_seen_although_libcurl_would_close_the_connection_by_itself(
    plain: Transport, tls: Transport, client: Client
) -> None:
    """As it does with those that were idle for a second: several at once, none of which is tried again."""
    sent = threading.Semaphore(0)
    all_there = {over.name: threading.Barrier(4) for over in (plain, tls)}

    def twice(exchange: Exchange, name: str) -> None:
        all_there[name].wait(WAIT_SECONDS)
        exchange.send(own(exchange))
        exchange.server.left.wait(0.1)
        exchange.send(own(exchange))
        sent.release()

    with (
        plain.server(*[partial(twice, name="plain")] * 4) as one,
        tls.server(*[partial(twice, name="tls")] * 4) as two,
    ):
        results = start(client, one, 4) + start(client, two, 4)
        for result in results:
            assert result.error() is None
        for _ in results:
            assert sent.acquire(timeout=WAIT_SECONDS)
        threading.Event().wait(1.2)
        client.get(one, fresh=True)
        client.get(one)
        client.get(two)

        assert all(connection_of(result.transfer).tainted for result in results)


@pytest.mark.parametrize("apart", [True, False])
def test_a_late_answer_taints_the_connection_that_it_deceived(
    apart: bool, over: Transport, client: Client
) -> None:
    """What comes once the next request is sent cannot be told from its answer; that one is left over then."""
    kept: list[bytes] = []
    sent = threading.Event()

    def first(exchange: Exchange) -> None:
        kept.append(own(exchange))
        exchange.send(kept[0])

    def late(exchange: Exchange) -> None:
        if apart:
            exchange.send(kept[0])
            exchange.send(own(exchange))
        else:
            exchange.send(kept[0] + own(exchange))
        sent.set()

    with over.server(first, late, otherwise=honest) as server:
        client.get(server, "/1")
        deceived = client.get(server, "/2")
        assert sent.wait(WAIT_SECONDS)

        assert deceived.take_body() == b"/1"
        assert client.body(server, "/3") == b"/3"
        assert connection_of(deceived).tainted


def test_whatever_the_timing_a_wrong_answer_is_on_a_tainted_connection(
    over: Transport, client: Client
) -> None:
    """Duplicates, at once or a moment later, while other requests are under way."""
    seeded = random.Random(7)
    lock = threading.Lock()

    def sometimes_twice(exchange: Exchange) -> None:
        with lock:
            twice, pause = seeded.random() < 0.2, seeded.choice([0, 0, 0.0005, 0.002])
        exchange.send(own(exchange))
        if twice:
            if pause:
                exchange.server.left.wait(pause)
            exchange.send(own(exchange))

    wrong = []
    with over.server(otherwise=sometimes_twice) as server:
        for batch in range(12):
            results = [Result(client.transfer(server, f"/{batch}-{number}")) for number in range(16)]
            for number, result in enumerate(results):
                assert result.error() is None
                if result.transfer.take_body() != f"/{batch}-{number}".encode():
                    wrong.append(result.transfer)
    assert server.connections > 16
    for transfer in wrong:
        assert connection_of(transfer).tainted


def test_a_408_that_nobody_asked_for_is_not_the_answer(over: Transport, client: Client) -> None:
    sent = threading.Event()

    def tires(exchange: Exchange) -> None:
        exchange.send(answer())
        exchange.send(answer(b"", "Connection: close", status="408 Request Timeout"))
        exchange.close()
        sent.set()

    with over.server(tires) as server:
        client.get(server)
        assert sent.wait(WAIT_SECONDS)

        assert client.get(server).status == 200
        assert server.connections == 2


def test_a_success_before_the_request_was_sent_is_another_ones(over: Transport, client: Client) -> None:
    with over.server(says_and(Exchange.stall, answer()), reads_bodies=False) as server:
        transfer = client.transfer(server, method="PUT", body=bytes(30_000_000))
        with pytest.raises(InvalidResponse, match="before the request was sent"):
            run(transfer)

        assert connection_of(transfer).tainted


def test_a_refusal_before_the_request_was_sent_is_an_answer(over: Transport, client: Client) -> None:
    refusal = answer(b"no", status="403 Forbidden")
    with over.server(says_and(Exchange.stall, refusal), reads_bodies=False) as server:
        transfer = client.get(server, method="PUT", body=bytes(30_000_000))

        assert (transfer.status, transfer.take_body()) == (403, b"no")
        assert not connection_of(transfer).tainted


def test_many_at_once_get_their_own_answers(over: Transport, client: Client) -> None:
    with over.server(otherwise=honest) as server:
        for batch in range(10):
            results = start(client, server, 30)
            for number, result in enumerate(results):
                assert result.error() is None
                assert result.transfer.take_body() == b"/%d" % number, batch
                assert not connection_of(result.transfer).tainted
        assert server.connections <= 30

"""Which connections are used again. No answer may be taken for another request's; where that cannot be told in time,
the connection is known to be tainted afterwards."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable
from functools import partial

import pytest

from archiver.http.connections import Connection, Connections
from archiver.http.errors import BrokenOff, InvalidResponse, TooSlow
from archiver.http.transfer import Transfer
from tests.http.serving import (
    WAIT_SECONDS,
    Client,
    Exchange,
    Result,
    Server,
    Transport,
    answer,
    read,
    run,
    says,
    says_and,
    streamed,
)

NewClient = Callable[..., Client]


def own(exchange: Exchange) -> bytes:
    """The answer to this request: its path."""
    return answer(exchange.line.split(" ")[1].split("?")[0].encode())


def honest(exchange: Exchange) -> None:
    exchange.send(own(exchange))


def connection_of(transfer: Transfer) -> Connection:
    assert transfer.connection is not None
    return transfer.connection


def start(client: Client, server: Server, count: int) -> list[Result]:
    return [Result(client.transfer(server, f"/{number}")) for number in range(count)]


def together(count: int) -> Callable[[Exchange], None]:
    """Answers once `count` requests are there: as many connections are open at once."""
    barrier = threading.Barrier(count)

    def behave(exchange: Exchange) -> None:
        barrier.wait(WAIT_SECONDS)
        honest(exchange)

    return behave


# -- kept ----------------------------------------------------------------------------------------------------
def test_a_connection_is_kept_for_the_next_request(over: Transport, client: Client) -> None:
    with over.server() as server:
        transfers = [client.get(server) for _ in range(5)]

        assert server.connections == 1
        assert [transfer.ordinal for transfer in transfers] == [1, 2, 3, 4, 5]
        assert {connection_of(transfer) for transfer in transfers} == {connection_of(transfers[0])}
        assert connection_of(transfers[0]).served == 5


def test_sessions_share_no_connection(over: Transport, new_client: NewClient) -> None:
    one, other = new_client(), new_client()
    with over.server() as server:
        for _ in range(3):
            assert one.body(server) == other.body(server) == b"hello"

        assert server.connections == 2


def test_a_fresh_request_uses_no_kept_connection_and_leaves_its_own(over: Transport, client: Client) -> None:
    with over.server() as server:
        first = client.get(server)
        fresh = client.get(server, fresh=True)

        assert fresh.ordinal == 1
        assert connection_of(first) is not connection_of(fresh)
        assert server.connections == 2
        client.get(server)
        assert server.connections == 2


def test_nothing_follows_a_request_that_is_alone(over: Transport, client: Client) -> None:
    with over.server() as server:
        alone = client.get(server, alone=True)
        client.get(server)

        assert server.connections == 2
        assert not connection_of(alone).tainted


def test_no_more_connections_are_kept_than_allowed(over: Transport, new_client: NewClient) -> None:
    client = new_client(max_idle=2)
    with over.server() as server:
        for opened in (4, 6):
            server.script(*[together(4)] * 4)
            for result in start(client, server, 4):
                assert result.error() is None
            assert server.connections == opened


def test_a_connection_that_was_idle_for_long_is_not_trusted(over: Transport, new_client: NewClient) -> None:
    client = new_client(idle=0)
    with over.server() as server:
        for _ in range(3):
            transfer = client.get(server)
            assert transfer.take_body() == b"hello"
            assert not connection_of(transfer).tainted

        assert server.connections == 3


def test_a_connection_whose_body_was_not_read_is_not_used_again(over: Transport, client: Client) -> None:
    with over.server(says_and(Exchange.stall, answer(b"x" * 100)[:-50])) as server:
        transfer = client.get(server, decide=streamed)
        assert transfer.streamed is not None
        transfer.streamed.close()

        assert client.body(server) == b"hello"
        assert server.connections == 2


# -- ended ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("end", [Exchange.close, Exchange.cut, Exchange.reset])
def test_a_connection_that_ended_while_idle_is_replaced(
    end: Callable[[Exchange], None], over: Transport, client: Client
) -> None:
    """At once, when libcurl would still take it for alive. An end alone taints nothing."""
    ended = threading.Event()

    def behave(exchange: Exchange) -> None:
        exchange.send(answer())
        end(exchange)
        exchange.sock.close()
        ended.set()

    with over.server(behave) as server:
        first = client.get(server)
        assert ended.wait(WAIT_SECONDS)

        assert client.body(server) == b"hello"
        assert not connection_of(first).tainted
        assert len(server.exchanges) == server.connections == 2


def test_a_connection_that_ends_as_the_request_is_sent_is_replaced_once(
    over: Transport, client: Client
) -> None:
    """The race that no look at an idle connection can win."""
    with over.server(says(answer()), Exchange.cut) as server:
        client.get(server)

        again = client.get(server)
        assert again.take_body() == b"hello"
        assert again.resubmitted
        assert (server.connections, len(server.exchanges)) == (2, 3)


def test_a_request_is_sent_twice_at_most(over: Transport, client: Client) -> None:
    with over.server(says(answer()), Exchange.cut, Exchange.cut) as server:
        client.get(server)

        assert type(client.fails(server)) is BrokenOff
        assert len(server.exchanges) == 3


def test_after_a_kept_connection_that_had_ended_no_other_is_tried(over: Transport, client: Client) -> None:
    def dies_when_used_again(exchange: Exchange) -> None:
        exchange.cut() if exchange.connection <= 4 else honest(exchange)

    with over.server(*[together(4)] * 4, otherwise=dies_when_used_again) as server:
        for result in start(client, server, 4):
            assert result.error() is None

        again = client.get(server, "/again")
        assert again.take_body() == b"/again"
        assert again.resubmitted
        assert len(server.exchanges) == 6


def test_over_a_fresh_connection_a_request_is_sent_once(over: Transport, client: Client) -> None:
    with over.server(says(answer()), Exchange.cut) as server:
        client.get(server)

        assert type(client.fails(server, fresh=True)) is BrokenOff
        assert len(server.exchanges) == 2


@pytest.mark.parametrize("begun", [answer()[:20], answer()[:-5], answer()[:-2]])
@pytest.mark.parametrize("how", [None, streamed])
def test_a_request_is_not_sent_again_once_its_answer_began(
    begun: bytes, how: Callable[[Transfer], None] | None, over: Transport, client: Client
) -> None:
    with over.server(says(answer()), says_and(Exchange.cut, begun)) as server:
        client.get(server)

        with pytest.raises(BrokenOff):
            run_to_end(client.transfer(server, decide=how))
        assert len(server.exchanges) == 2


def run_to_end(transfer: Transfer) -> bytes:
    run(transfer)
    return read(transfer) if transfer.streamed is not None else transfer.take_body()


def test_silence_on_a_kept_connection_is_no_reason_to_ask_again(
    over: Transport, new_client: NewClient
) -> None:
    client = new_client(silence=1)
    with over.server(says(answer()), Exchange.stall) as server:
        client.get(server)

        assert type(client.fails(server)) is TooSlow
        assert len(server.exchanges) == 2


@pytest.mark.parametrize("goodbye", ["restarted", "as the request arrives"])
def test_when_every_kept_connection_ended_every_request_succeeds(
    goodbye: str, over: Transport, client: Client
) -> None:
    def behave(exchange: Exchange) -> None:
        if goodbye == "as the request arrives" and exchange.connection <= 32:
            exchange.cut()
        else:
            honest(exchange)

    with over.server(*[together(32)] * 32, otherwise=behave) as server:
        for result in start(client, server, 32):
            assert result.error() is None
        assert server.connections == 32
        if goodbye == "restarted":
            server.drop_connections()

        second = start(client, server, 32)
        for number, result in enumerate(second):
            assert result.error() is None
            assert result.transfer.take_body() == b"/%d" % number
            assert not connection_of(result.transfer).tainted


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


# -- address policy ------------------------------------------------------------------------------------------
class NotAdmitted(Exception):
    pass


def test_a_kept_connection_is_not_lent_to_a_request_that_may_not_use_its_address(
    over: Transport, client: Client
) -> None:
    asked = []

    def refuse(ip: str) -> None:
        asked.append(ip)
        raise NotAdmitted

    with over.server() as server:
        client.get(server, admits=asked.append)
        client.get(server, admits=asked.append)
        assert asked == ["127.0.0.1"] * 2
        assert type(client.fails(server, admits=refuse)) is NotAdmitted
        assert asked[2:] in (["127.0.0.1"], ["127.0.0.1"] * 2)

        assert len(server.exchanges) == 2


def test_the_same_origin_in_capitals_is_no_way_around(plain: Transport, client: Client) -> None:
    def refuse(_: str) -> None:
        raise NotAdmitted

    with plain.server() as server:
        names = (f"Storage.example:{server.port}:127.0.0.1",)
        small, capitals = f"http://storage.example:{server.port}/", f"HTTP://STORAGE.EXAMPLE:{server.port}/"
        client.get(server, url=small, resolve=names)

        assert type(client.fails(server, url=capitals, resolve=names, admits=refuse)) is NotAdmitted
        assert len(server.exchanges) == 1


# -- descriptors ---------------------------------------------------------------------------------------------
def test_a_descriptor_that_was_given_to_another_is_left_alone() -> None:
    connections = Connections(max_idle=8, max_idle_seconds=60)
    ours, theirs = socket.socketpair()
    name = ("127.0.0.1", 1, "127.0.0.1", 2)
    with theirs:
        connection = connections.served(1, "http://x", "127.0.0.1", name, ours.fileno())
        connection.idle_since -= 1
        number = ours.detach()
        replacement, far = socket.socketpair()
        with replacement, far:
            os.dup2(replacement.fileno(), number)
            stranger = socket.socket(fileno=number)
            with stranger:
                far.sendall(b"not ours")

                connections.check_idle()
                assert not connections.take(name)

                assert not connection.tainted
                assert stranger.recv(100) == b"not ours"
                stranger.sendall(b"still open")
                assert far.recv(100) == b"still open"


def test_what_came_on_an_idle_connection_is_known_before_the_next_request() -> None:
    connections = Connections(max_idle=8, max_idle_seconds=60)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = connections.served(
            1, "http://x", "127.0.0.1", ("127.0.0.1", 1, "127.0.0.1", 2), ours.fileno()
        )
        assert not connection.tainted
        theirs.sendall(b"HTTP/1.1 200 OK\r\n")

        assert connection.tainted

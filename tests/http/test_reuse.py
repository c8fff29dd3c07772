"""Which connections are used again, and by whom."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest

from archiver.http.connections import Connection, Connections
from archiver.http.errors import BrokenOff, TooSlow
from archiver.http.transfer import Transfer
from tests.http.serving import (
    WAIT_SECONDS,
    Client,
    Exchange,
    Transport,
    answer,
    connection_of,
    honest,
    knowing,
    read,
    run,
    says,
    says_and,
    start,
    streamed,
    together,
)

NewClient = Callable[..., Client]


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
        knowing(client.session, f"Storage.example:{server.port}:127.0.0.1")
        small, capitals = f"http://storage.example:{server.port}/", f"HTTP://STORAGE.EXAMPLE:{server.port}/"
        client.get(server, url=small)

        assert type(client.fails(server, url=capitals, admits=refuse)) is NotAdmitted
        assert len(server.exchanges) == 1


# -- descriptors ---------------------------------------------------------------------------------------------
def test_a_descriptor_that_was_given_to_another_is_left_alone() -> None:
    connections = Connections(max_idle=8, max_idle_seconds=60)
    ours, theirs = socket.socketpair()
    name = ("127.0.0.1", 1, "127.0.0.1", 2)
    with theirs:
        connection = Connection(tls=False)
        connections.served(connection, name, ours.fileno())
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
        connection = Connection(tls=False)
        connections.served(connection, ("127.0.0.1", 1, "127.0.0.1", 2), ours.fileno())
        assert not connection.tainted
        theirs.sendall(b"HTTP/1.1 200 OK\r\n")

        assert connection.tainted

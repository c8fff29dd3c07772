"""A transfer from its start to its end: buffered, streamed, held, announced, cancelled; and what it leaves behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.http import cancellation
from archiver.http.errors import BrokenOff, HttpError, TooLong
from archiver.http.transfer import WINDOW_BYTES, Request, Transfer
from archiver.http.waiting import complete
from tests.http.serving import (
    CANARY,
    WAIT_SECONDS,
    Client,
    Exchange,
    Result,
    Transport,
    answer,
    failure_of,
    read,
    run,
    says,
    says_and,
    streamed,
)

NewClient = Callable[..., Client]
LARGE = os.urandom(1024) * (8 * 1024)


class Told(Exception):
    pass


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- consumed ------------------------------------------------------------------------------------------------
def test_a_consumed_body_comes_in_pieces_and_is_not_kept(over: Transport, client: Client) -> None:
    pieces: list[bytes] = []
    with over.server(says(answer(LARGE))) as server:
        transfer = client.get(server, decide=lambda coming: coming.consume(pieces.append))

        assert b"".join(pieces) == LARGE
        assert transfer.size_bytes == len(LARGE)
        assert transfer.take_body() == b""


def test_a_consumed_body_is_limited_and_may_be_cut(over: Transport, client: Client) -> None:
    def limited(transfer: Transfer) -> None:
        transfer.consume(lambda _: None)
        transfer.limit(10)

    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"
    with over.server(says(chunked), says_and(Exchange.cut, answer(b"hello")[:-1])) as server:
        with pytest.raises(TooLong):
            client.get(server, decide=limited)
        with pytest.raises(BrokenOff):
            client.get(server, decide=limited)


# -- streams -------------------------------------------------------------------------------------------------
def test_a_stream_begins_with_the_head(over: Transport, client: Client) -> None:
    """Before a byte of the body is there."""
    begun = threading.Event()

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        assert begun.wait(WAIT_SECONDS)
        exchange.send(b"hello")

    with over.server(behave) as server:
        transfer = client.get(server, decide=streamed)
        begun.set()

        assert transfer.status == 200
        assert read(transfer) == b"hello"
        assert transfer.size_bytes == 5


def test_a_stream_reads_ahead_only_so_far(over: Transport, client: Client) -> None:
    stopped = threading.Event()

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (20 * len(LARGE)))
        exchange.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            exchange.sock.sendall(LARGE * 20)
        stopped.set()

    with over.server(behave) as server:
        transfer = client.get(server, decide=streamed)
        assert stopped.wait(WAIT_SECONDS)

        assert transfer.size_bytes < WINDOW_BYTES + 1024 * 1024
        assert transfer.streamed is not None
        transfer.streamed.close()


def test_a_stream_that_is_cut_gives_what_came_and_then_the_error(over: Transport, client: Client) -> None:
    with over.server(says_and(Exchange.cut, answer(LARGE)[:-1])) as server:
        transfer = client.get(server, decide=streamed)
        stream = transfer.streamed
        assert stream is not None
        body, piece = bytearray(), memoryview(bytearray(100_000))
        while len(body) < len(LARGE) - 1:
            body += piece[: stream.readinto(piece)]

        assert body == LARGE[:-1]
        with pytest.raises(BrokenOff):
            stream.readinto(piece)
        assert not stream.at_end


def test_a_stream_has_no_limit_but_one_that_was_set(over: Transport, client: Client) -> None:
    def limited(transfer: Transfer) -> None:
        transfer.stream()
        transfer.limit(len(LARGE) - 1)

    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        len(LARGE),
        LARGE,
    )
    with over.server(*[says(chunked)] * 2) as server:
        assert read(client.get(server, decide=streamed, max_bytes=10)) == LARGE
        with pytest.raises(TooLong):
            read(client.get(server, decide=limited))


def test_a_reader_of_a_silent_stream_is_cancelled(over: Transport, client: Client) -> None:
    with over.server(says_and(Exchange.stall, answer(b"xx")[:-1])) as server:
        transfer = client.get(server, decide=streamed)

        def told() -> None:
            raise Told

        with cancellation.watched(told), pytest.raises(Told):
            read(transfer)
        assert transfer.streamed is not None
        transfer.streamed.close()


@pytest.mark.parametrize("read_first", [0, 1000])
def test_a_closed_stream_holds_nothing_and_gives_nothing(
    read_first: int, over: Transport, client: Client
) -> None:
    with over.server(says(answer(LARGE))) as server:
        transfer = client.get(server, decide=streamed)
        stream = transfer.streamed
        assert stream is not None
        if read_first:
            stream.readinto(memoryview(bytearray(read_first)))
        stream.close()
        stream.close()

        with pytest.raises(ValueError, match="closed"):
            stream.readinto(memoryview(bytearray(10)))
        assert not stream.at_end
        assert client.body(server) == b"hello"


# -- hold, announce ------------------------------------------------------------------------------------------
def test_nothing_of_a_body_is_taken_while_it_is_held(plain: Transport, new_client: NewClient) -> None:
    """For longer than silence may last."""
    held = threading.Event()

    def hold(transfer: Transfer) -> None:
        transfer.hold()
        held.set()

    with plain.server(says(answer(LARGE))) as server:
        transfer = new_client(silence=1).transfer(server, decide=hold)
        result = Result(transfer)
        assert held.wait(WAIT_SECONDS)
        threading.Event().wait(2.5)
        assert (transfer.size_bytes, transfer.done) == (0, False)
        transfer.release()

        assert result.error() is None
        assert transfer.take_body() == LARGE


def test_what_was_held_may_turn_out_too_long(over: Transport, client: Client) -> None:
    """It is found while libcurl is told to go on."""
    held = threading.Event()

    def hold(transfer: Transfer) -> None:
        transfer.hold()
        held.set()

    with over.server(says_and(Exchange.close, b"HTTP/1.1 200 OK\r\n\r\n" + LARGE)) as server:
        transfer = client.transfer(server, decide=hold, max_bytes=10)
        result = Result(transfer)
        assert held.wait(WAIT_SECONDS)
        transfer.release()

        assert type(result.error()) is TooLong
        assert client.body(server) == b"hello"


def test_a_transfer_that_announces_its_head_is_whole_later(over: Transport, client: Client) -> None:
    begun = threading.Event()

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        assert begun.wait(WAIT_SECONDS)
        exchange.send(b"llo")

    async def both(transfer: Transfer) -> bytes:
        await transfer
        assert not transfer.done
        begun.set()
        await transfer.rest()
        return transfer.take_body()

    with over.server(behave) as server:
        assert complete(both(client.transfer(server, decide=Transfer.announce))) == b"hello"


@pytest.mark.parametrize("waits", [True, False])
def test_the_rest_of_what_was_announced_may_fail(waits: bool, over: Transport, client: Client) -> None:
    announced = threading.Event()

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        assert announced.wait(WAIT_SECONDS)
        exchange.cut()

    async def both(transfer: Transfer) -> None:
        await transfer
        announced.set()
        if not waits:
            while not transfer.done:
                threading.Event().wait(0.01)
        await transfer.rest()

    with over.server(behave) as server, pytest.raises(BrokenOff):
        complete(both(client.transfer(server, decide=Transfer.announce)))


# -- errors of others ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [Told, KeyError, SystemExit, KeyboardInterrupt])
def test_what_decide_raises_ends_the_transfer(
    error: type[BaseException], over: Transport, client: Client
) -> None:
    def refuse(_: Transfer) -> None:
        raise error

    with over.server(says(answer(LARGE))) as server:
        with pytest.raises(error):
            run(client.transfer(server, decide=refuse))
        assert client.body(server) == b"hello"


@pytest.mark.parametrize("error", [Told, KeyError, SystemExit])
def test_what_admits_raises_ends_the_transfer(
    error: type[BaseException], over: Transport, client: Client
) -> None:
    def refuse(_: str) -> None:
        raise error

    with over.server() as server:
        with pytest.raises(error):
            run(client.transfer(server, admits=refuse))
        assert server.exchanges == []
        assert client.body(server) == b"hello"


def test_a_request_may_be_made_when_it_is_sent(over: Transport, client: Client) -> None:
    """Each time: a signature has an age."""
    made: list[int] = []
    with over.server(says(answer()), Exchange.cut) as server:

        def make() -> Request:
            made.append(1)
            return client.request(server, f"/{len(made)}", fresh=False)

        assert run(Transfer(client.session, make)).status == 200
        again = run(Transfer(client.session, make))

        assert again.resubmitted
        assert again.status == 200


def test_a_request_that_cannot_be_made_ends_the_transfer(client: Client) -> None:
    def make() -> Request:
        raise Told

    assert type(failure_of(Transfer(client.session, make))) is Told


def test_one_who_waits_and_raises_disturbs_nobody(
    over: Transport, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with over.server() as server:
        transfer = client.transfer(server)
        called = threading.Event()

        def ended(_: object, __: object) -> None:
            called.set()
            raise Told

        transfer.start(ended)
        assert called.wait(WAIT_SECONDS)

        assert client.body(server) == b"hello"
        assert "Told" in capsys.readouterr().err


# -- cancel, close -------------------------------------------------------------------------------------------
def stages(over: Transport) -> dict[str, Callable[[Exchange], None]]:
    return {
        "waiting for the answer": Exchange.stall,
        "in the head": says_and(Exchange.stall, answer()[:20]),
        "in the body": says_and(Exchange.stall, answer(LARGE)[:-5]),
    }


@pytest.mark.parametrize("stage", ["waiting for the answer", "in the head", "in the body"])
@pytest.mark.parametrize("how", ["cancel", "close"])
def test_what_is_under_way_is_ended(stage: str, how: str, over: Transport, new_client: NewClient) -> None:
    client = new_client()
    reached = threading.Event()
    behaviour = stages(over)[stage]

    def behave(exchange: Exchange) -> None:
        reached.set()
        behaviour(exchange)

    with over.server(behave) as server:
        result = Result(client.transfer(server))
        assert reached.wait(WAIT_SECONDS)
        result.transfer.cancel() if how == "cancel" else client.session.close()

        assert type(result.error()) is HttpError
        result.transfer.cancel()
        if how == "close":
            assert type(client.fails(server)) is HttpError
        else:
            assert client.body(server) == b"hello"


def test_what_is_connecting_is_cancelled(new_client: NewClient, tls: Transport) -> None:
    client = new_client()
    opened = threading.Event()
    request = Request("https://192.0.2.1:9/", admits=lambda _: opened.set())  # TEST-NET: nobody answers
    result = Result(Transfer(client.session, request))
    assert opened.wait(WAIT_SECONDS)
    result.transfer.cancel()

    assert isinstance(result.error(), HttpError)


def test_what_is_held_or_paused_is_cancelled(over: Transport, client: Client) -> None:
    held = threading.Event()

    def hold(transfer: Transfer) -> None:
        transfer.hold()
        held.set()

    with over.server(says(answer(LARGE)), says(answer(LARGE))) as server:
        result = Result(client.transfer(server, decide=hold))
        assert held.wait(WAIT_SECONDS)
        result.transfer.cancel()
        assert type(result.error()) is HttpError
        result.transfer.release()

        transfer = client.get(server, decide=streamed)
        transfer.cancel()
        complete_all(client)
        with pytest.raises(HttpError):
            read(transfer)
        assert client.body(server) == b"hello"


def test_a_transfer_is_cancelled_from_within_its_own_decision(over: Transport, client: Client) -> None:
    with over.server(says(answer(LARGE))) as server:
        result = Result(client.transfer(server, decide=Transfer.cancel))
        result.error()

        assert client.body(server) == b"hello"


def test_whoever_waits_is_cancelled_in_time(over: Transport, client: Client) -> None:
    def told() -> None:
        raise Told

    with over.server(Exchange.stall) as server:
        with cancellation.watched(told), pytest.raises(Told):
            run(client.transfer(server))
        assert client.body(server) == b"hello"


def test_a_cancelled_transfer_that_was_never_begun_ends(over: Transport, client: Client) -> None:
    with over.server() as server:
        transfer = client.transfer(server)
        transfer.cancel()

        assert type(Result(transfer).error()) is HttpError
        assert server.connections == 0


def test_closing_many_tls_connections_waits_for_nobody(tls: Transport, new_client: NewClient) -> None:
    """Servers that do not answer a close_notify; the next session is served at once."""
    client, other = new_client(), new_client(connect=2)
    with tls.server(otherwise=says_and(Exchange.stall, answer())) as server, tls.server() as quick:
        for result in [Result(client.transfer(server, fresh=True)) for _ in range(16)]:
            assert result.error() is None
        client.session.close()

        assert other.body(quick) == b"hello"


# -- what is left behind -------------------------------------------------------------------------------------
def test_a_finished_transfer_is_held_by_nobody(over: Transport, client: Client) -> None:
    with over.server(says(answer(LARGE))) as server:
        body = bytes(1_000_003)
        before = sys.getrefcount(body)
        transfer = client.get(server, method="PUT", body=body, admits=lambda _: None)
        held = weakref.ref(transfer.request.admits)
        del transfer
        gc.collect()

        assert held() is None
        assert sys.getrefcount(body) == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_no_descriptor_is_leaked(over: Transport, new_client: NewClient) -> None:
    def round_trip() -> None:
        client = new_client()
        with over.server(
            says(answer()), Exchange.cut, Exchange.reset, says_and(Exchange.cut, b"HTTP/1.1 2")
        ) as server:
            client.get(server)
            for _ in range(5):
                Result(client.transfer(server, fresh=True)).error()
            Result(client.transfer(server, method=f"{CANARY} ")).error()
        client.session.close()
        complete_all(client)

    round_trip()
    before = descriptors()
    for _ in range(5):
        round_trip()
    assert descriptors() <= before


def complete_all(client: Client) -> None:
    """What was posted before is done."""
    done = threading.Event()
    client.session.in_loop(done.set)
    assert done.wait(WAIT_SECONDS)

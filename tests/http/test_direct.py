"""Requests that the calling thread carries by itself."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from archiver.http import cancellation
from archiver.http.direct import DirectSession, DirectSessions
from archiver.http.errors import BrokenOff, HttpError, TooLong, TooSlow
from archiver.http.handle import Handle
from archiver.http.loop import Loop
from archiver.http.options import Options, Timeouts
from archiver.http.tally import TALLY
from archiver.http.transfer import WINDOW_BYTES, Request, Transfer
from archiver.http.waiting import blocking
from tests.http.serving import Exchange, Transport, answer, says, says_and, together
from tests.http.test_process import in_child

BODY = bytes(range(256)) * 16 * 1024  # four times what is read ahead

Make = Callable[..., DirectSessions]


@pytest.fixture
def make(authority: tuple[trustme.CA, Path]) -> Iterator[Make]:
    made: list[DirectSessions] = []

    def start(*, max_idle: int = 0, silence: float = 30, harmless: Any = ()) -> DirectSessions:
        timeouts = Timeouts(silence=timedelta(seconds=silence))
        options = Options(ca_file=authority[1], timeouts=timeouts, max_idle=max_idle)
        made.append(DirectSessions(options, "source", harmless))
        return made[-1]

    yield start
    for sessions in made:
        sessions.close()


async def whole(session: DirectSession, url: str, **options: Any) -> bytes:
    return (await Transfer(session.session, Request(url), **options)).take_body()


def get(sessions: DirectSessions, url: str, **options: Any) -> bytes:
    with sessions.session() as session:
        return session.complete(whole(session, url, **options))


async def read_ahead(session: DirectSession, url: str) -> tuple[bytes, bytes]:
    """The first KiB, once a window has come, and then the rest."""
    transfer = Transfer(session.session, Request(url), lambda transfer: transfer.stream())
    streamed = (await transfer).streamed
    assert streamed is not None
    first = bytearray(1024)
    count = streamed.readinto(memoryview(first))
    rest, piece = bytearray(), bytearray(100_000)
    while more := streamed.readinto(memoryview(piece)):
        rest += piece[:more]
    return bytes(first[:count]), bytes(rest)


def stall_until(gone: threading.Event, exchange: Exchange) -> None:
    """Until the client is gone."""
    try:
        exchange.stall()
    finally:
        gone.set()


@pytest.mark.parametrize(
    ("max_idle", "connections"), [(0, 3), (1, 1)], ids=["none is kept", "the next one takes it"]
)
def test_connections_are_kept_as_the_options_say(
    over: Transport, make: Make, max_idle: int, connections: int
) -> None:
    with over.server() as server:
        sessions = make(max_idle=max_idle)

        assert [get(sessions, server.url) for _ in range(3)] == [b"hello"] * 3

        assert server.connections == connections


def test_no_thread_is_started(plain: Transport, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with plain.server() as server:
        monkeypatch.setattr(Loop, "_start", pytest.fail)

        assert get(make(), server.url) == b"hello"


def test_requests_count_as_those_of_a_source(plain: Transport, make: Make) -> None:
    with plain.server() as server:
        TALLY.take()

        get(make(), server.url)

        assert any(name.startswith("request_seconds:source:") for name in TALLY.take())


def test_threads_never_wait_for_each_others_requests(over: Transport, make: Make) -> None:
    with over.server(*[together(4)] * 4) as server:
        sessions, bodies = make(), list[bytes]()
        threads = [
            threading.Thread(target=lambda: bodies.append(get(sessions, f"{server.url}/file")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert bodies == [b"/file"] * 4


def test_a_body_is_read_while_it_comes(over: Transport, make: Make) -> None:
    assert len(BODY) > 2 * WINDOW_BYTES
    with over.server(says(answer(BODY))) as server, make().session() as session:
        first, rest = session.complete(read_ahead(session, server.url))

    assert first + rest == BODY


def test_a_body_that_is_cut_gives_what_came_and_then_the_error(over: Transport, make: Make) -> None:
    cut = says_and(Exchange.cut, answer(BODY)[:-1000])
    with over.server(cut) as server, make().session() as session, pytest.raises(BrokenOff):
        session.complete(read_ahead(session, server.url))


def test_blocking_calls_are_made_meanwhile(plain: Transport, make: Make) -> None:
    async def work(session: DirectSession, url: str) -> tuple[threading.Thread, bytes]:
        return await blocking(threading.current_thread), await whole(session, url)

    with plain.server() as server, make().session() as session:
        assert session.complete(work(session, server.url)) == (threading.current_thread(), b"hello")


@pytest.mark.parametrize("closed", [True, False], ids=["as its reader says", "with its session"])
def test_what_is_not_over_is_cancelled(over: Transport, make: Make, closed: bool) -> None:
    gone = threading.Event()

    def endless(exchange: Exchange) -> None:
        exchange.send(answer(BODY)[:1000])
        stall_until(gone, exchange)

    async def begun(session: DirectSession, url: str) -> Transfer:
        return await Transfer(session.session, Request(url), lambda transfer: transfer.stream())

    with over.server(endless) as server:
        sessions = make()
        with sessions.session() as one:
            streamed = one.complete(begun(one, server.url)).streamed
            assert streamed is not None
            if closed:
                streamed.close()
        assert gone.wait(20)
        with sessions.session() as other:
            assert (other is one) is closed
            assert other.complete(whole(other, server.url)) == b"hello"


def test_a_session_that_is_kept_leaves_no_socket_open(plain: Transport, make: Make) -> None:
    """Ours is a duplicate of libcurl's, and the whole of a request may happen in the turn that is to close it."""
    with plain.server() as server, socket.socket() as ours:
        with make().session() as session:
            session.complete(whole(session, server.url))
            session.session.close_soon(ours)

        assert ours.fileno() == -1


class Stop(Exception):
    pass


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "while it comes"])
def test_the_threads_cancellation_ends_a_request_that_is_not_answered(
    over: Transport, make: Make, streams: bool
) -> None:
    asked, gone = threading.Event(), threading.Event()

    def silent(exchange: Exchange) -> None:
        if streams:
            exchange.send(answer(BODY)[:1000])
        asked.set()
        stall_until(gone, exchange)

    def check() -> None:
        if asked.is_set():
            raise Stop

    with over.server(silent) as server:
        sessions = make()
        with pytest.raises(Stop), cancellation.watched(check), sessions.session() as session:
            session.complete((read_ahead if streams else whole)(session, server.url))

        assert gone.wait(20)
        assert get(sessions, server.url) == b"hello"


Moment = Callable[[DirectSession, pytest.MonkeyPatch, Callable[..., None]], None]


def as_it_begins(
    session: DirectSession, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[..., None]
) -> None:
    monkeypatch.setattr(session.session, "_begin", interrupt)


def as_it_ends(
    session: DirectSession, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[..., None]
) -> None:
    monkeypatch.setattr(session.session, "finished", interrupt)


def as_it_waits(
    session: DirectSession, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[..., None]
) -> None:
    monkeypatch.setattr(session._loop._poller, "poll", interrupt)


def as_libcurl_calls(callback: str) -> Moment:
    """Where a signal's handler raises as the function is entered, no `try` in it helps."""

    def moment(_: DirectSession, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[..., None]) -> None:
        monkeypatch.setattr(Handle, callback, interrupt)

    moment.__name__ = callback
    return moment


IN_LIBCURL = [as_libcurl_calls(name) for name in ("_open_socket", "_before_request", "_on_line", "_on_data")]


@pytest.mark.parametrize("moment", [as_it_begins, as_it_waits, as_it_ends, *IN_LIBCURL])
def test_what_a_signal_raises_ends_the_request_at_any_moment(
    plain: Transport, make: Make, monkeypatch: pytest.MonkeyPatch, moment: Moment
) -> None:
    """None is lost, and with it the end of the request, which would then be waited for without end."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    turns = itertools.count()

    def check() -> None:
        assert next(turns) < 20, "it is waited for without end"

    def get_interrupted(sessions: DirectSessions, url: str) -> None:
        with cancellation.watched(check), sessions.session() as session:
            moment(session, monkeypatch, interrupt)
            session.complete(whole(session, url))

    with plain.server() as server:
        sessions = make()
        with pytest.raises(KeyboardInterrupt):
            get_interrupted(sessions, server.url)

        monkeypatch.undo()
        assert get(sessions, server.url) == b"hello"


def test_a_silent_server_is_too_slow(plain: Transport, make: Make) -> None:
    with plain.server(Exchange.stall) as server, pytest.raises(TooSlow):
        get(make(silence=1), server.url)


def test_what_admits_refuses_is_not_asked(over: Transport, make: Make) -> None:
    def refuse(_address: str) -> None:
        raise Stop

    async def ask(session: DirectSession, url: str) -> None:
        await Transfer(session.session, Request(url, admits=refuse))

    with over.server() as server:
        with pytest.raises(Stop), make().session() as session:
            session.complete(ask(session, server.url))

        assert server.exchanges == []


@pytest.mark.parametrize("harmless", [(), (HttpError,)])
def test_a_session_is_kept_after_an_error_that_is_harmless(
    plain: Transport, make: Make, harmless: tuple[type[Exception], ...]
) -> None:
    with plain.server(says(answer(bytes(100)))) as server:
        sessions = make(harmless=harmless)
        with pytest.raises(TooLong), sessions.session() as one:
            one.complete(whole(one, server.url, max_bytes=10))

        with sessions.session() as other:
            assert (other is one) is bool(harmless)
            assert other.complete(whole(other, server.url)) == b"hello"


def test_a_child_makes_its_own(over: Transport, make: Make) -> None:
    with over.server() as server:
        sessions = make(max_idle=1)
        get(sessions, server.url)

        def work() -> None:
            assert get(sessions, server.url) == b"hello"
            sessions.close()

        assert in_child(work) == 0
        assert get(sessions, server.url) == b"hello"
        assert server.connections == 2  # the parent's, and the child's

"""The connections to the API: what libcurl is asked to do."""

from __future__ import annotations

import gzip
import signal
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import trustme

from archiver.hms.connections import BrokenCompression, Connections
from archiver.hms.errors import HmsUnavailable
from archiver.http.errors import InvalidRequest, TooLong
from archiver.http.options import Timeouts
from tests.http.serving import Exchange, Transport, answer, says, together
from tests.http.test_process import in_child

LIMIT_BYTES = 4096
Connect = Callable[[str], Connections]


@pytest.fixture(scope="module")
def transports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Transport]:
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return {"plain": Transport("plain", None, file), "tls": Transport("tls", context, file)}


@pytest.fixture(params=["plain", "tls"])
def over(request: pytest.FixtureRequest, transports: dict[str, Transport]) -> Transport:
    return transports[request.param]


@pytest.fixture
def connect(transports: dict[str, Transport]) -> Iterator[Connect]:
    made: list[Connections] = []

    def start(url: str) -> Connections:
        timeouts = Timeouts(connect=timedelta(seconds=5), silence=timedelta(seconds=5))
        made.append(Connections(url, timeouts, transports["plain"].ca_file, LIMIT_BYTES))
        return made[-1]

    yield start
    for connections in made:
        connections.close()


def get(connections: Connections, url: str, check: Callable[[], None] = lambda: None) -> bytes:
    return connections.get(url, {"Authorization": "Bearer secret"}, check).body


def test_requests_follow_each_other_on_one_connection(over: Transport, connect: Connect) -> None:
    with over.server() as server:
        api = connect(server.url)

        assert [get(api, server.url) for _ in range(5)] == [b"hello"] * 5

        assert server.connections == 1
        assert server.exchanges[0].header("authorization") == "Bearer secret"


def test_threads_never_wait_for_each_others_requests(over: Transport, connect: Connect) -> None:
    with over.server(*[together(4)] * 4) as server, ThreadPoolExecutor(4) as pool:
        api = connect(server.url)

        assert all(pool.map(lambda _: get(api, server.url), range(4)))
        assert server.connections == 4


def test_what_came_unasked_ends_the_connection(over: Transport, connect: Connect) -> None:
    twice = says(answer(b"first") + answer(b"stray"))
    with over.server(twice) as server:
        api = connect(server.url)

        assert [get(api, server.url), get(api, server.url)] == [b"first", b"hello"]
        assert server.connections == 2


def test_a_connection_that_ended_while_it_was_idle_is_replaced(over: Transport, connect: Connect) -> None:
    closes = says(answer(b"once", "Connection: close"))
    with over.server(closes, closes) as server:
        api = connect(server.url)

        assert [get(api, server.url) for _ in range(3)] == [b"once", b"once", b"hello"]


def test_a_child_leaves_the_parents_connection_alone(over: Transport, connect: Connect) -> None:
    with over.server() as server:
        api = connect(server.url)
        get(api, server.url)

        def work() -> None:
            assert get(api, server.url) == b"hello"
            api.close()

        assert in_child(work) == 0
        assert get(api, server.url) == b"hello"
        assert server.connections == 2  # the parent's, and the child's


def test_a_longer_body_than_is_allowed_is_not_taken(over: Transport, connect: Connect) -> None:
    with over.server(says(answer(bytes(LIMIT_BYTES + 1)))) as server:
        api = connect(server.url)

        with pytest.raises(TooLong, match="more than the 4096 bytes"):
            get(api, server.url)


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZip", gzip.compress),
        ("deflate", zlib.compress),
        (
            "deflate",
            lambda body: zlib.compress(body)[2:-4],
        ),  # without its zlib header, as some servers send it
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("identity", bytes),
    ],
)
def test_a_packed_body_is_unpacked(
    transports: dict[str, Transport], connect: Connect, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    content = b"packed" * 500
    with transports["plain"].server(says(answer(pack(content), f"Content-Encoding: {coding}"))) as server:
        assert get(connect(server.url), server.url) == content


def test_a_packed_body_does_not_fill_the_memory(transports: dict[str, Transport], connect: Connect) -> None:
    bomb = answer(gzip.compress(bytes(LIMIT_BYTES + 1)), "Content-Encoding: gzip")
    with transports["plain"].server(says(bomb)) as server:
        api = connect(server.url)

        with pytest.raises(TooLong, match="more than the 4096 bytes"):
            get(api, server.url)


def test_a_body_that_is_not_packed_as_it_says_is_not_taken(
    transports: dict[str, Transport], connect: Connect
) -> None:
    with transports["plain"].server(says(answer(b"plain", "Content-Encoding: deflate"))) as server:
        api = connect(server.url)

        with pytest.raises(BrokenCompression):
            get(api, server.url)


def test_a_header_that_is_none_is_not_sent(connect: Connect) -> None:
    api = connect("http://127.0.0.1:9")

    with pytest.raises(InvalidRequest):
        api.get("http://127.0.0.1:9/", {"Authorization": "a\r\nb"}, lambda: None)


def test_the_check_ends_a_request_that_nobody_answers(over: Transport, connect: Connect) -> None:
    asked = threading.Event()

    def silent(exchange: Exchange) -> None:
        asked.set()
        exchange.stall()

    def check() -> None:
        if asked.is_set():
            raise HmsUnavailable("the deadline is over")

    with over.server(silent) as server:
        api = connect(server.url)

        with pytest.raises(HmsUnavailable, match="the deadline is over"):
            get(api, server.url, check)


def test_ctrl_c_ends_a_request_that_nobody_answers(
    connect: Connect, transports: dict[str, Transport]
) -> None:
    def press(exchange: Exchange) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        exchange.stall()

    with transports["plain"].server(press) as server:
        api, began = connect(server.url), time.monotonic()

        with pytest.raises(KeyboardInterrupt):
            get(api, server.url)

        assert time.monotonic() - began < 4


@pytest.mark.parametrize("setting", ["HTTP_PROXY", "ALL_PROXY"])
def test_the_environments_proxy_is_used(
    connect: Connect,
    transports: dict[str, Transport],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
) -> None:
    with transports["plain"].server() as server:
        monkeypatch.setenv(setting, server.url)
        api = connect("http://api.invalid")

        assert get(api, "http://api.invalid/v2") == b"hello"
        assert server.exchanges[0].line == "GET http://api.invalid/v2 HTTP/1.1"


def test_no_proxy_is_obeyed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "api.invalid")

    assert connect("https://api.invalid")._sessions.options.proxy == ""
    assert connect("https://other.invalid")._sessions.options.proxy == "http://127.0.0.1:9"


def test_a_closed_client_says_so(connect: Connect) -> None:
    api = connect("http://127.0.0.1:9")
    api.close()

    with pytest.raises(RuntimeError, match="closed"):
        get(api, "http://127.0.0.1:9/")

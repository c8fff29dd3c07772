"""Clients that are slow, or many, are bounded and hold nobody up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.worker.serve.running import listening
from worker.errors import SettingsError
from worker.serve import listener
from worker.serve.listener import Listener, listen


async def hello(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setattr(listener, "HEAD_SECONDS", 1)
    with listening(Starlette(routes=[Route("/", hello)])) as served:
        yield served


def connected(server: Listener) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 0), timeout=20)


def get(server: Listener) -> httpx.Response:
    return httpx.get(server.url, timeout=20, trust_env=False)


def test_a_head_that_does_not_come_ends_the_connection_and_others_are_answered(server: Listener) -> None:
    with connected(server) as silent, connected(server) as begun:
        begun.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")

        assert get(server).text == "hello"
        assert _closed(silent)
        assert _closed(begun)


def test_a_head_that_trickles_in_ends_the_connection_too(server: Listener) -> None:
    with connected(server) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        slow.settimeout(0.1)
        ends = time.monotonic() + 20
        while True:
            assert time.monotonic() < ends, "the connection is still open"
            try:
                slow.sendall(b"X-A: b\r\n")
                if not slow.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


def test_a_connection_may_be_used_again_and_is_closed_when_idle(server: Listener) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(server) as kept:
        for _ in range(3):
            kept.sendall(request)
            assert b"hello" in _until_hello(kept)
        assert _closed(kept)


def test_silent_connections_keep_nobody_out(server: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_SECONDS", 60)
    monkeypatch.setattr(listener, "MOST_CONNECTIONS", 2)
    with connected(server) as first, connected(server) as second:
        for _ in range(5):
            assert get(server).text == "hello"
        assert _closed(first)
        second.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"hello" in _until_hello(second)


def test_an_address_that_is_taken_or_not_ours_is_named() -> None:
    with listen("127.0.0.1", 0, "ARCHIVER_SERVE") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"ARCHIVER_METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
            listen("127.0.0.1", port, "ARCHIVER_METRICS")
    with pytest.raises(SettingsError, match="ARCHIVER_SERVE_ADDRESS"):
        listen("192.0.2.1", 0, "ARCHIVER_SERVE")


def _closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def _until_hello(sock: socket.socket) -> bytes:
    came = b""
    while not came.endswith(b"hello"):
        piece = sock.recv(4096)
        assert piece
        came += piece
    return came

"""Somebody else is told of each sweep, and a receiver that fails harms nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from archiver.http import trust
from worker.alerts.dead_mans_switch import DeadMansSwitch


class Receiver:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                receiver.asked.append(self.path)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/ping/secret-word"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def switch(url: str | None) -> DeadMansSwitch:
    return DeadMansSwitch(SecretStr(url) if url else None, trust.authorities())


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_paths_are_those_of_healthchecks_io(receiver: Receiver, slash: str) -> None:
    calls = switch(receiver.url + slash)
    calls.start()
    calls.success()
    calls.fail()

    assert receiver.asked == ["/ping/secret-word/start", "/ping/secret-word", "/ping/secret-word/fail"]


def test_without_a_url_nobody_is_called() -> None:
    calls = switch(None)

    calls.start()
    calls.success()
    calls.fail()


def test_an_answer_that_is_no_success_is_logged_without_the_url(receiver: Receiver) -> None:
    receiver.status = 404
    with capture_logs() as logs:
        switch(receiver.url).success()

    result = str(logs)
    assert "heartbeat_failed" in result
    assert "404" in result
    assert "secret-word" not in result


def test_a_receiver_that_is_away_is_logged_without_the_url() -> None:
    with capture_logs() as logs:
        switch("http://127.0.0.1:1/secret-word").fail()

    result = str(logs)
    assert "heartbeat_failed" in result
    assert "secret-word" not in result

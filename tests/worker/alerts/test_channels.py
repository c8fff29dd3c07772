"""Alerts reach real servers, and what fails is named without its URL."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from archiver.core.alerts import Channel
from archiver.core.health_rules import Severity
from worker.alerts.channels import DeliveryFailed, OpenChannel, open_channels
from worker.errors import SettingsError
from worker.logs.redaction import secrets_of
from worker.settings import Settings


class HttpReceiver:
    """Takes whatever is posted; answers with `status`."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(json.loads(body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"json://user:secret-word@127.0.0.1:{self.server.server_port}/path"


class SmtpSink(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as a client needs to hand over one message."""

    messages: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.wfile.write(b"220 sink\r\n")
        for line in self.rfile:
            verb = line.strip().upper()
            if verb.startswith(b"DATA"):
                self.wfile.write(b"354 go ahead\r\n")
                self.messages.append(self._message())
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return

    def _message(self) -> str:
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line)
        return b"".join(lines).decode()


@contextmanager
def serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def http() -> Iterator[HttpReceiver]:
    receiver = HttpReceiver()
    with serving(receiver.server):
        yield receiver


def channel(url: str) -> OpenChannel:
    [opened] = open_channels(Settings(_env_file=None, alert_urls=url).channels)
    return opened


def test_a_message_reaches_a_webhook(http: HttpReceiver) -> None:
    channel(http.url).send("archiver: critical: lost", "1 asset is lost.", Severity.CRITICAL)

    [body] = http.received
    assert (body["title"], body["message"], body["type"]) == (
        "archiver: critical: lost",
        "1 asset is lost.",
        "failure",
    )


def test_a_message_reaches_a_mailbox() -> None:
    SmtpSink.messages.clear()
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), SmtpSink)) as server:
        port = server.server_address[1]
        mail = channel(
            f"mailto://127.0.0.1:{port}?from=archiver@example.org&to=team@example.org&mode=insecure"
        )
        mail.send("archiver: warning", "A destination is unreachable.", Severity.WARNING)

    [message] = SmtpSink.messages
    assert "Subject: archiver: warning" in message
    assert "A destination is unreachable." in message


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_an_answer_other_than_success_is_a_failed_delivery_with_its_status(
    http: HttpReceiver, status: int
) -> None:
    http.status = status

    with pytest.raises(DeliveryFailed, match=f"the service answered {status}"):
        channel(http.url).send("t", "b", Severity.WARNING)


def test_a_service_that_cannot_be_reached_is_a_failed_delivery(http: HttpReceiver) -> None:
    url = "json://user:secret-word@127.0.0.1:1/path"

    with pytest.raises(DeliveryFailed) as failed:
        channel(url).send("t", "b", Severity.WARNING)

    assert "secret-word" not in str(failed.value)
    assert "127.0.0.1" not in str(failed.value)


def test_nothing_of_the_url_reaches_a_log(http: HttpReceiver, caplog: pytest.LogCaptureFixture) -> None:
    http.status = 500
    with caplog.at_level(0), pytest.raises(DeliveryFailed):
        channel(http.url).send("t", "b", Severity.WARNING)

    assert "secret-word" not in caplog.text


def test_every_channel_is_named_by_its_service_and_position() -> None:
    settings = Settings(_env_file=None, alert_urls="critical=json://a.example/x  mailto://b.example")

    assert [channel for channel, _ in settings.channels] == [
        Channel("json 1", Severity.CRITICAL),
        Channel("mailto 2", Severity.WARNING),
    ]
    assert settings.channels[0][1] == SecretStr("json://a.example/x")


@pytest.mark.parametrize("url", ["slack://secret-word", "nothing://secret-word", "pagerduty://"])
def test_a_url_that_is_not_understood_is_a_wrong_setting_named_without_it(url: str) -> None:
    with pytest.raises((SettingsError, ValueError)) as refused:
        open_channels(Settings(_env_file=None, alert_urls=f"json://a.example {url}").channels)

    assert "secret-word" not in str(refused.value)
    assert "2" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "urgent=json://secret-word",
        "secret-word",
        "json:/secret-word",
        "://secret-word",
        "json://a.example,slack://secret-word",
        "json://a.example,critical=slack://secret-word",
    ],
)
def test_a_setting_of_another_form_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="number 1") as refused:
        Settings(_env_file=None, alert_urls=url)

    assert "secret-word" not in str(refused.value)


def test_alert_urls_are_secrets_to_the_logs() -> None:
    settings = Settings(_env_file=None, alert_urls="critical=json://user:secret-word@a.example/path")

    assert "json://user:secret-word@a.example/path" in set(secrets_of(settings))

"""Send a message to a channel, through Apprise."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import apprise
from pydantic import SecretStr

from archiver.core.alerts import Channel
from archiver.core.health_rules import Severity
from worker.errors import SettingsError

TIMEOUT_SECONDS = 10
"""For each connection and each answer."""

_TYPES = {
    Severity.CRITICAL: apprise.NotifyType.FAILURE,
    Severity.WARNING: apprise.NotifyType.WARNING,
    Severity.INFO: apprise.NotifyType.INFO,
}
_STATUS = re.compile(r"\berror[=: ]+(\d{3})\b|\b(?:HTTP|status)[ =:]+(\d{3})\b", re.IGNORECASE)


class DeliveryFailed(Exception):
    """A channel did not take a message. The text holds no secret."""


Send = Callable[[str, str, Severity], None]
"""Title, body and severity to one channel. Raises DeliveryFailed."""


@dataclass(frozen=True, slots=True)
class OpenChannel:
    channel: Channel
    send: Send


def open_channels(channels: Sequence[tuple[Channel, SecretStr]]) -> list[OpenChannel]:
    """Make ready to send; connect to nothing yet. Raises SettingsError, naming the channel, for a URL that Apprise does
    not understand."""
    return [OpenChannel(channel, _opened(channel, url)) for channel, url in channels]


def _opened(channel: Channel, url: SecretStr) -> Send:
    with _quiet():
        plugin = apprise.Apprise.instantiate(url.get_secret_value(), suppress_exceptions=True)
    if not isinstance(plugin, apprise.NotifyBase):
        raise SettingsError(
            f"ARCHIVER_ALERT_URLS: the URL of channel '{channel.name}' is not understood. See Apprise's page on the "
            "service for its form; the URL is not shown, since it is a secret."
        )
    plugin.socket_connect_timeout = plugin.socket_read_timeout = TIMEOUT_SECONDS

    def send(title: str, body: str, severity: Severity) -> None:
        with _quiet() as reported:
            try:
                delivered = plugin.notify(body=body, title=title, notify_type=_TYPES[severity])
            except Exception as error:  # noqa: BLE001 - a hundred plug-ins, each with errors of its own
                raise DeliveryFailed(f"the delivery failed: {type(error).__name__}") from None
        if not delivered:
            raise DeliveryFailed(_reason(reported))

    return send


def _reason(reported: Sequence[str]) -> str:
    """Apprise says why in its log alone, with URLs in it: only a status may leave it."""
    for line in reported:
        if found := _STATUS.search(line):
            return f"the service answered {found[1] or found[2]}"
    return "the service cannot be reached, or did not take the message"


class _Silence(logging.Filter):
    """Keeps what a delivery logs out of our logs: URLs, which are secrets. Collects apprise's warnings instead."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        reported: list[str] | None = getattr(self.said, "lines", None)
        if reported is None:
            return record.name != "apprise"
        if record.levelno >= logging.WARNING:
            reported.append(record.getMessage())
        return False


_silence = _Silence()
for _name in ("apprise", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_silence)


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Yield the warnings that a delivery logs meanwhile in this thread."""
    _silence.said.lines = []
    try:
        yield _silence.said.lines
    finally:
        del _silence.said.lines

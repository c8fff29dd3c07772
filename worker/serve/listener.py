"""An HTTP listener with bounds for slow and for many clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Generator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from worker.errors import SettingsError

HEAD_SECONDS = 10
"""For the head of a request to arrive; an idle connection is closed after it too."""
STOP_SECONDS = 5
"""For running requests to end at a shutdown."""
MOST_CONNECTIONS = 500
"""For one more, the connection that has waited longest for a head is closed: silent clients keep nobody out."""


# a client's fault is its own, and counted; only ours are logged
logging.getLogger("uvicorn").setLevel(logging.ERROR)


class Listener(uvicorn.Server):
    """Serves `app` on one socket. Leaves signals to its caller: set `should_exit`."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        self._socket = sock
        super().__init__(
            uvicorn.Config(
                app,
                http=_BoundedProtocol,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=HEAD_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def run_until_stopped(self) -> None:
        await self.serve([self._socket])

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def listen(address: str, port: int, setting: str) -> socket.socket:
    """Open a listening socket. `setting`: begin of the settings' names. Raises SettingsError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"{setting}_ADDRESS, {setting}_PORT: cannot listen on {address}:{port} ({reason}). Free the port, or "
            "choose another."
        ) from None


class _BoundedProtocol(H11Protocol):
    """Closes a connection over which no head of a request arrives in HEAD_SECONDS, however it trickles in."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = (each for each in self.connections if isinstance(each, _BoundedProtocol))
            min(waiting, key=_BoundedProtocol.waits_until).close_if_silent()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering:
            self._stop_waiting()
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.close_if_silent)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def waits_until(self) -> float:
        return math.inf if self._head_timer is None else self._head_timer.when()

    def close_if_silent(self) -> None:
        if not self._is_answering:
            self._stop_waiting()
            self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete


def headers_of(name: str, scope: Any) -> list[bytes]:
    """The values of one header, as they came."""
    wanted = name.lower().encode()
    return [value for key, value in scope["headers"] if key == wanted]

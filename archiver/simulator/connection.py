"""The TCP connection under a request, for faults that HTTP has no words for."""

from __future__ import annotations

import asyncio
from itertools import count

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "simulator.transport"
_NUMBER = "archiver.simulator.connection"
_numbers = count(1)


class ConnectionInScope(H11Protocol):
    """uvicorn's own HTTP/1.1, which hands the transport on to the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        inner, number = self.app, next(_numbers)

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[_TRANSPORT], scope[_NUMBER] = transport, number
            await inner(scope, receive, send)

        self.app = with_transport


def connection_number(scope: Scope) -> int:
    """Tells connections apart: requests with the same number shared one."""
    return int(scope[_NUMBER])


def write_raw(scope: Scope, data: bytes) -> None:
    """Bytes past what HTTP was told about."""
    _transport(scope).write(data)


async def close(scope: Scope, receive: Receive) -> None:
    """End the connection in the middle of the answer; the client gets what was sent, then the end."""
    _transport(scope).close()
    await until_gone(receive)


async def reset(scope: Scope, receive: Receive) -> None:
    """Drop the connection with a TCP reset; bytes on their way may be lost."""
    _transport(scope).abort()
    await until_gone(receive)


class ClientGone(Exception):
    """Nobody reads the answer any more."""


def check_client(scope: Scope) -> None:
    """Raises ClientGone. uvicorn drops what is sent after that without a word, and without a pause in which
    others could be served."""
    if _transport(scope).is_closing():
        raise ClientGone


async def pause(receive: Receive, seconds: float) -> None:
    """Wait. Raises ClientGone as soon as nobody waits for the answer."""
    try:
        await asyncio.wait_for(until_gone(receive), seconds)
    except TimeoutError:
        return
    raise ClientGone


async def until_gone(receive: Receive) -> None:
    """Wait until the client has gone, or its connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope[_TRANSPORT]
    return transport

"""The TCP connection of a request, for faults below HTTP."""

from __future__ import annotations

import asyncio
from itertools import count

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "simulator.transport"
_NUMBER = "simulator.connection"
_numbers = count(1)


class ConnectionInScope(H11Protocol):
    """uvicorn's HTTP/1.1, with the transport in the scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        inner, number = self.app, next(_numbers)

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[_TRANSPORT], scope[_NUMBER] = transport, number
            await inner(scope, receive, send)

        self.app = with_transport


def connection_number(scope: Scope) -> int:
    """Return the number of the connection; requests with the same number shared it."""
    return int(scope[_NUMBER])


def write_raw(scope: Scope, data: bytes) -> None:
    """Write bytes that are not part of the HTTP response."""
    _transport(scope).write(data)


async def close(scope: Scope, receive: Receive) -> None:
    """Close the connection in the middle of the response; the client gets what was sent."""
    _transport(scope).close()
    await until_gone(receive)


async def reset(scope: Scope, receive: Receive) -> None:
    """Reset the connection; bytes in flight may be lost."""
    _transport(scope).abort()
    await until_gone(receive)


class ClientGone(Exception):
    """The client has disconnected."""


def check_client(scope: Scope) -> None:
    """Raise ClientGone if the client has disconnected. uvicorn would drop what is sent silently, without yielding to
    other requests."""
    if _transport(scope).is_closing():
        raise ClientGone


async def pause(receive: Receive, seconds: float) -> None:
    """Wait. Raises ClientGone as soon as the client disconnects."""
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

"""The connections to the API: httpx's requests and responses, carried by libcurl."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from archiver.http import trust
from archiver.http.direct import DirectSession
from archiver.http.errors import CouldNotConnect, HttpError, InvalidRequest, TooSlow
from archiver.http.options import Options, Timeouts
from archiver.http.transfer import Request

CHECK = "check"
"""Of a request's `extensions`: called at least once a second while the response comes; what it raises ends the
request."""

_PIECE_BYTES = 64 * 1024  # to be unpacked at once: of a hostile gzip, 64 MiB


class Connections(httpx.BaseTransport):
    """An `httpx` transport to `api_url`. Thread-safe: each request takes a kept connection that nobody else uses, or
    makes one, and is carried in the calling thread. After a fork the child makes its own."""

    def __init__(self, api_url: str, timeouts: Timeouts, authorities: Path | None, max_bytes: int) -> None:
        """`max_bytes` bounds the body of a response, as it is sent."""
        tls = urlsplit(api_url).scheme == "https"
        self._options = Options(
            ca_file=(authorities or trust.authorities()) if tls else None,
            timeouts=timeouts,
            proxy=_proxy_for(api_url),
            max_idle=1,
        )
        self._max_bytes = max_bytes
        self._idle: list[DirectSession] = []
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx.TransportError, and what the CHECK extension raises."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        session = self._take()
        try:
            transfer = session.get(
                Request(str(request.url), headers), self._max_bytes, request.extensions[CHECK]
            )
        except BaseException as error:
            session.close()
            if isinstance(error, HttpError | OSError):
                raise _translated(error) from error
            raise
        self._give_back(session)
        head = transfer.head
        assert head is not None, "a transfer that ended well has a head"
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers.fields]
        return httpx.Response(head.status, headers=fields, stream=_Body(transfer.take_body()))

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> DirectSession:
        if self._closed:
            raise RuntimeError("the client of the API is closed")
        while self._idle:
            session = self._idle.pop()
            if not session.orphaned:
                return session
        return DirectSession(self._options)

    def _give_back(self, session: DirectSession) -> None:
        self._idle.append(session)
        if self._closed:
            self.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), _PIECE_BYTES):
            yield self._body[start : start + _PIECE_BYTES]


def _translated(error: Exception) -> httpx.TransportError:
    kind: Callable[[str], httpx.TransportError] = httpx.RemoteProtocolError
    if isinstance(error, CouldNotConnect | OSError):
        kind = httpx.ConnectError
    elif isinstance(error, TooSlow):
        kind = httpx.ReadTimeout
    elif isinstance(error, InvalidRequest):
        kind = httpx.LocalProtocolError
    return kind(str(error))


def _proxy_for(url: str) -> str:
    """The environment's (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, but for NO_PROXY); empty: none. No proxy can reach this
    machine's loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(host):
        return ""
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all") or ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

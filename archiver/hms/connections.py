"""The connections to the API, carried by libcurl."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from archiver.http import trust
from archiver.http.direct import DirectSessions
from archiver.http.errors import HttpError, TooLong
from archiver.http.head import Headers
from archiver.http.options import Options, Timeouts
from archiver.http.transfer import Request


class BrokenCompression(HttpError):
    """The body is not what its content coding says."""


@dataclass(slots=True)
class Answer:
    """A response with its whole body, unpacked."""

    status: int
    headers: Headers
    body: bytes


class Connections:
    """Connections to `api_url`. Thread-safe: each request takes a kept connection that nobody else uses, or makes one,
    and is carried in the calling thread. After a fork the child makes its own."""

    def __init__(self, api_url: str, timeouts: Timeouts, authorities: Path | None, max_bytes: int) -> None:
        """`max_bytes` bounds the body of a response, as it is sent and unpacked."""
        tls = urlsplit(api_url).scheme == "https"
        options = Options(
            ca_file=(authorities or trust.authorities()) if tls else None,
            timeouts=timeouts,
            proxy=_proxy_for(api_url),
            max_idle=1,
        )
        self._max_bytes = max_bytes
        self._sessions = DirectSessions(options)

    def get(self, url: str, headers: Mapping[str, str], check: Callable[[], None]) -> Answer:
        """Send a GET. `check` is called at least once a second while the response comes; what it raises ends the
        request. Raises HttpError, OSError where the machine gives no connection, and what `check` raises."""
        with self._sessions.session() as session:
            transfer = session.get(Request(url, headers), self._max_bytes, check)
        head = transfer.head
        assert head is not None, "a transfer that ended well has a head"
        body = transfer.take_body()
        if head.headers.get("content-encoding") is not None:
            body = _unpacked(body, head.headers, self._max_bytes)
        return Answer(head.status, head.headers, body)

    def close(self) -> None:
        """Idempotent."""
        self._sessions.close()


def _unpacked(body: bytes, headers: Headers, max_bytes: int) -> bytes:
    """Undo the content codings that were asked for (RFC 9110, section 8.4.1). Others are left: the JSON will not parse.
    Raises BrokenCompression, TooLong."""
    codings = [coding.strip().lower() for coding in ",".join(headers.all("content-encoding")).split(",")]
    for coding in reversed(codings):
        if coding in ("gzip", "x-gzip"):
            formats = [zlib.MAX_WBITS | 16]
        elif coding == "deflate":
            formats = [zlib.MAX_WBITS, -zlib.MAX_WBITS]  # some servers leave the zlib header out
        else:
            continue
        body = _inflated(body, formats, max_bytes)
    return body


def _inflated(packed: bytes, formats: list[int], max_bytes: int) -> bytes:
    for wbits in formats:
        try:
            body = zlib.decompressobj(wbits).decompress(packed, max_bytes + 1)
        except zlib.error:
            continue
        if len(body) > max_bytes:
            raise TooLong(f"it has more than the {max_bytes} bytes that were expected")
        return body
    raise BrokenCompression(f"{len(packed)} bytes cannot be unpacked")


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

"""GET over kept-alive connections, through the address policy: the one door to the network on the source's side.

Proxies from the environment (HTTPS_PROXY) are not used: the policy checks the address it connects to, and behind a
proxy that address would be chosen by someone else.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from time import monotonic

from transfer import stopping
from transfer.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceUnavailable,
)
from transfer.guard import AddressPolicy, SocketAddress
from transfer.urls import Origin, SecretUrl
from transfer.wire import ClosedBeforeAnswer, Head, Headers, Wire, WireError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_DRAIN_BYTES = 64 * 1024  # of an unwanted body (an error page): cheaper to read than a new connection
_FRESH_SECONDS = 0.25
_PASSING = frozenset({408, 425, 429})
_OUR_MACHINE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EIO}
)
"""No fault of the source: too few file handles, too little memory, a full disk."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect: timedelta = timedelta(seconds=10)  # for TCP and TLS together, per address
    silence: timedelta = timedelta(seconds=30)  # without one byte, and for a whole head
    idle: timedelta = timedelta(
        seconds=15
    )  # a connection unused for longer is not trusted; S3 closes at about 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where to ask, and with what. `headers` (a CDN's cookies) go to the URL's own origin only, never along with
    a redirect to another. `handed_out` are the origins that the API itself gave for this asset."""

    url: SecretUrl
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    handed_out: frozenset[Origin] = frozenset()


@dataclass(slots=True)
class Response:
    """An answer, its body not yet read. Close it. Of use to one thread at a time."""

    url: SecretUrl  # after redirects
    head: Head
    cookies: tuple[str, ...]  # Set-Cookie of this answer and of redirects on its own origin
    _wire: Wire | None
    _give_back: Callable[[Wire], None]

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> Headers:
        return self.head.headers

    def readinto(self, into: memoryview, /) -> int:
        """Some of the body; 0 at its proper end and there alone. Raises SourceUnavailable when it is cut short,
        stalls or is badly framed."""
        if self._wire is None:
            return 0
        try:
            count = self._wire.readinto(into)
        except WireError as error:
            self._drop()
            raise SourceUnavailable(f"reading {self.url.name}: {error}") from error
        except BaseException:
            self._drop()
            raise
        if self._wire.at_end:
            self.keep()
        return count

    def close(self) -> None:
        """The connection was given back if the body was read to its end; else it is dropped."""
        self._drop()

    def discard(self) -> None:
        """Close, but keep the connection where little of the body is left."""
        scrap = memoryview(bytearray(_DRAIN_BYTES))
        read_bytes = 0
        with suppress(SourceUnavailable):
            while read_bytes < _DRAIN_BYTES and (count := self.readinto(scrap)):
                read_bytes += count
        self._drop()

    def keep(self) -> None:
        """Give the connection back; its body has been read to the end."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._give_back(wire)

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


class HttpClient:
    """Keep-alive connections per origin, shared by threads. Made after the fork; at most `max_idle` connections
    are kept while unused. `ca_file` replaces the system's authorities. `max_unknown_bytes` bounds files that do not
    announce their length, after unpacking; see `transfer.source`."""

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        timeouts: Timeouts = Timeouts(),
        ca_file: Path | None = None,
        max_idle: int = 64,
        user_agent: str = "recording-archiver",
        max_unknown_bytes: int = 2**40,
    ) -> None:
        self.max_unknown_bytes = max_unknown_bytes
        self._policy = policy
        self._timeouts = timeouts
        self._idle_seconds = timeouts.idle.total_seconds()
        self._ca_file = ca_file
        self._max_idle = max_idle
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[tuple[float, Wire]]] = {}
        self._idle_count = 0
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def get(self, address: Address, headers: Mapping[str, str]) -> Response:
        """The answer to a GET of `address`, whatever its status; redirects are followed by hand, at most five,
        each through the policy. `headers` (Range, If-Match, Accept-Encoding) go along everywhere; the address's
        own only to its origin. Raises SourceUnavailable, SourceNotAllowed, SourceMismatch (endless redirects).
        """
        url = address.url
        home = origin = url.origin
        cookies: list[tuple[Origin, str]] = []
        for _ in range(_MAX_REDIRECTS + 1):
            lines = {"Host": origin.authority, "User-Agent": self._user_agent, "Accept": "*/*", **headers}
            if origin == home:
                lines |= address.headers
            response = self._get_once(url, origin, lines, address.handed_out)
            answered = response.head.headers
            cookies += [(origin, value) for value in answered.all("set-cookie")]
            location = answered.get("location")
            if location is None or response.status not in _REDIRECTS:
                if cookies:
                    response.cookies = tuple([value for where, value in cookies if where == origin])
                return response
            response.discard()
            url = url.join(location)
            origin = url.origin
        raise SourceMismatch(f"{address.url.name} redirects more than {_MAX_REDIRECTS} times")

    @property
    def idle_connections(self) -> int:
        with self._lock:
            return self._idle_count

    def close(self) -> None:
        """Close what is idle; connections in use are closed when their answer is. Repeatable."""
        with self._lock:
            self._closed = True
            wires = [wire for kept in self._idle.values() for _, wire in kept]
            self._idle.clear()
            self._idle_count = 0
        for wire in wires:
            wire.close()

    # -- one request ---------------------------------------------------------------------------------------
    def _get_once(
        self, url: SecretUrl, origin: Origin, lines: Mapping[str, str], handed_out: Collection[Origin]
    ) -> Response:
        wire = self._reuse(origin, handed_out)
        response = self._exchange(wire, url, origin, lines, kept=True) if wire else None
        if response is None:
            wire = self._connect(origin, url, handed_out)
            response = self._exchange(wire, url, origin, lines, kept=False)
        assert response is not None
        return response

    def _exchange(
        self, wire: Wire, url: SecretUrl, origin: Origin, lines: Mapping[str, str], *, kept: bool
    ) -> Response | None:
        """None when `wire` was kept alive and turns out to have ended while it was idle."""
        try:
            head = wire.request(url.target, lines)
        except WireError as error:
            wire.close()
            if kept and isinstance(error, ClosedBeforeAnswer):
                return None
            raise SourceUnavailable(f"asking for {url.name}: {error}") from error
        except BaseException:
            wire.close()
            raise
        response = Response(url, head, (), wire, partial(self._give_back, origin))
        if wire.at_end:
            response.keep()
        return response

    def _connect(self, origin: Origin, url: SecretUrl, handed_out: Collection[Origin]) -> Wire:
        reason = "no address"
        for address in self._policy.addresses(origin, handed_out):
            stopping.check()
            try:
                sock = self._open(origin, address)
                return Wire(sock, str(address.sockaddr[0]), self._timeouts.silence.total_seconds())
            except ssl.SSLCertVerificationError as error:
                reason = f"its TLS certificate is not accepted ({error.verify_message})"
            except OSError as error:
                if error.errno in _OUR_MACHINE:
                    raise
                reason = f"{address.sockaddr[0]} did not answer ({error.strerror or type(error).__name__})"
        raise SourceUnavailable(f"connecting to {origin} for {url.name}: {reason}")

    def _open(self, origin: Origin, address: SocketAddress) -> socket.socket:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeouts.connect.total_seconds())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address.sockaddr)
            if origin.scheme == "https":
                return self._context().wrap_socket(
                    sock, server_hostname=origin.host, suppress_ragged_eofs=False
                )
        except BaseException:
            sock.close()
            raise
        return sock

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
                self._tls.set_alpn_protocols(["http/1.1"])
            return self._tls

    # -- kept connections ----------------------------------------------------------------------------------
    def _reuse(self, origin: Origin, handed_out: Collection[Origin]) -> Wire | None:
        """A kept connection that still seems good. The policy is asked again, for another asset may have been
        allowed what this one is not."""
        while True:
            with self._lock:
                kept = self._idle.get(origin)
                if not kept:
                    return None
                since, wire = kept[-1]
                self._policy.check(origin, wire.peer, handed_out)
                kept.pop()
                self._idle_count -= 1
                if not kept:
                    del self._idle[origin]
            idle_seconds = monotonic() - since
            # used a moment ago, it is not looked at: that costs a call, and the reader finds out by itself
            if idle_seconds < self._idle_seconds and (
                idle_seconds < _FRESH_SECONDS or wire.idle_and_silent()
            ):
                return wire
            wire.close()

    def _give_back(self, origin: Origin, wire: Wire) -> None:
        with self._lock:
            if (
                wire.reusable
                and not wire.holds_more
                and not self._closed
                and self._idle_count < self._max_idle
            ):
                self._idle.setdefault(origin, []).append((monotonic(), wire))
                self._idle_count += 1
                return
        wire.close()


def refusal(response: Response, *, later_range: bool = False) -> SourceError:
    """The error that an unwanted status means. Discards the response."""
    status, name = response.status, response.url.name
    response.discard()
    said = f"{name} answered {status}"
    if status in (401, 403):
        return SourceForbidden(said)
    if status in (404, 410):
        return SourceGone(said)
    if status >= 500 or status in _PASSING:
        return SourceUnavailable(said, retry_after(response.headers), throttled=status in (429, 503))
    if status == 412 or (status == 416 and later_range):
        return SourceChanged(f"{said}: it is not the file that it was at the start")
    return SourceMismatch(said)


def retry_after(headers: Headers, now: datetime | None = None) -> timedelta | None:
    """What `Retry-After` asks for, never negative; None when absent or unreadable."""
    text = (headers.get("retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text), 86_400))
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(timedelta(), when - (now or datetime.now(UTC)))

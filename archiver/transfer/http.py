"""HTTP GET to sources, through the address policy.

Proxies from the environment (HTTPS_PROXY) are not used: the policy checks the address that is connected to, and behind
a proxy that address would be chosen by someone else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from archiver.http import trust
from archiver.http.direct import DirectSession, DirectSessions
from archiver.http.errors import HttpError, InvalidRequest, TooLong
from archiver.http.head import Head, Headers
from archiver.http.options import Options, Timeouts
from archiver.http.retry_after import retry_after
from archiver.http.runtime import process_runtime
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import complete
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.base import SourceInfo
from archiver.transfer.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    SourceUntrusted,
    TransferError,
)
from archiver.transfer.urls import Origin, SecretUrl
from storage_backends.per_process import PerProcess

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
UNWANTED_BYTES = 64 * 1024  # of an error page or a redirect: cheaper to read than a new connection
_PASSING = frozenset({408, 425, 429})
_RANGES_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Address:
    """Where to ask, and with what. `headers` (a CDN's cookies) go to the URL's own origin only, never along with
    a redirect to another. `handed_out` are the origins that the API itself gave for this asset."""

    url: SecretUrl
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    handed_out: frozenset[Origin] = frozenset()


Transfers = tuple[Transfer, ...]
"""Those that led to a response: of its redirects, and its own."""


@dataclass(slots=True)
class Response:
    """A response. Its body is whole (`take_body`), or read while it comes (`readinto`) and then closed by whoever has
    it."""

    url: SecretUrl  # after redirects
    transfer: Transfer
    cookies: tuple[str, ...] = ()  # Set-Cookie of this response and of redirects on its own origin
    info: SourceInfo | None = None  # what `decide` made of it
    redirects: Transfers = ()  # that led to it

    @property
    def transfers(self) -> Transfers:
        return (*self.redirects, self.transfer)

    @property
    def head(self) -> Head:
        assert self.transfer.head is not None, "a response has a head"
        return self.transfer.head

    @property
    def status(self) -> int:
        return self.transfer.head.status  # type: ignore[union-attr] # a response has a head; asked a dozen times

    @property
    def headers(self) -> Headers:
        return self.transfer.head.headers  # type: ignore[union-attr]

    def readinto(self, into: memoryview, /) -> int:
        """Some of the body; 0 at its proper end and there alone. Raises SourceUnavailable when it is cut short,
        stalls or is badly framed."""
        if self.transfer.streamed is None:
            return 0
        try:
            return self.transfer.streamed.readinto(into)
        except HttpError as error:
            raise _unavailable(error, self.url, "reading") from error

    def close(self) -> None:
        """The connection is kept if the body was read to its end; else it is dropped. Idempotent."""
        if self.transfer.streamed is not None:
            self.transfer.streamed.close()

    def discard(self) -> None:
        """Close, but keep the connection where little of the body is left."""
        scrap = memoryview(bytearray(UNWANTED_BYTES))
        read_bytes = 0
        with suppress(SourceUnavailable):
            while read_bytes < UNWANTED_BYTES and (count := self.readinto(scrap)):
                read_bytes += count
        self.close()


Decide = Callable[[Response], None]
"""Asked once the head of a response that is no redirect is there, in the loop's thread: how to take the body."""


class HttpClient:
    """Requests of one process. `ca_file`: the authorities that are trusted; None: the system's. `max_unknown_bytes`
    bounds files that do not announce their length, after unpacking; see `transfer.source`."""

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        ca_file: Path | None = None,
        max_unknown_bytes: int = 2**40,
    ) -> None:
        self.max_unknown_bytes = max_unknown_bytes
        self._policy = policy
        self._options = Options(ca_file=ca_file, timeouts=timeouts)
        self._own = PerProcess(self.session)
        self._direct = DirectSessions(replace(self._options, max_idle=0), "source", (TransferError,))
        self._ranges: dict[tuple[int, int, int | None], SecretUrl] = {}

    def session(self) -> Session:
        """A set of connections of its own. Close it."""
        return Session(process_runtime().sources, self._options)

    def direct(self) -> AbstractContextManager[DirectSession]:
        """One for requests that this thread carries by itself, each over a new connection."""
        return self._direct.session()

    def get(self, address: Address, headers: Mapping[str, str]) -> Response:
        """`fetch`, blocking, over a new connection: its body is read while it comes. Close it."""
        return complete(self.fetch(address, headers, stream_it))

    async def fetch(
        self,
        address: Address,
        headers: Mapping[str, str],
        decide: Decide,
        session: Session | None = None,
        *,
        fresh: bool = False,
    ) -> Response:
        """The response to a GET of `address`, whatever its status. Redirects are followed by hand, at most five, each
        through the policy. `headers` (Range, If-Match, Accept-Encoding) go along everywhere; the address's own only to
        its origin. Without a `session`, over a new connection of its own. Raises SourceUnavailable,
        SourceNotAllowed, SourceMismatch (endless redirects), and what `decide` raises."""
        url = address.url
        home = origin = url.origin
        alone = session is None
        fresh = fresh or alone
        session = session or self._own.get()
        cookies: list[tuple[Origin, str]] = []
        redirects: list[Transfer] = []
        while len(redirects) <= _MAX_REDIRECTS:
            lines = {**address.headers, **headers} if address.headers and origin == home else headers
            self._policy.check_name(origin, address.handed_out)
            request = Request(
                f"{origin}{url.target}",
                lines,
                admits=partial(self._policy.check, origin, address.handed_out),
                fresh=fresh,
                alone=alone,
            )
            response = Response(url, Transfer(session, request))
            response.transfer.decide = partial(_take, response, decide)
            try:
                await response.transfer
            except HttpError as error:
                _raise_unless_unwanted(error, response)
            head = response.head
            redirected = head.status in REDIRECTS
            if redirected and not fresh and response.transfer.ordinal != 1 and session is self._own.get():
                fresh = True  # a redirect names no range that identifies it: it is requested again
                continue
            cookies += [(origin, value) for value in head.headers.all("set-cookie")]
            location = head.headers.get("location")
            if location is None or not redirected:
                if cookies:
                    response.cookies = tuple([value for where, value in cookies if where == origin])
                response.redirects = tuple(redirects)
                return response
            redirects.append(response.transfer)
            url = url.join(location)
            origin = url.origin
        raise SourceMismatch(f"{address.url.name} redirects more than {_MAX_REDIRECTS} times")

    async def fetch_range(
        self,
        address: Address,
        headers: Mapping[str, str],
        wanted: tuple[int, int, int | None],
        decide: Decide,
    ) -> Response:
        """`fetch` of a range whose answer names `wanted` (start, end, length of the file). Connections are kept, for
        that shows whose response it is, unless another file was asked for the very same range."""
        if len(self._ranges) > _RANGES_REMEMBERED:
            self._ranges.clear()
            if (session := self._own.drop()) is not None:
                session.close()
        unique = self._ranges.setdefault(wanted, address.url) == address.url
        return await self.fetch(address, headers, decide, self._own.get(), fresh=not unique)

    def close(self) -> None:
        """Close what is kept. Idempotent."""
        if (session := self._own.drop()) is not None:
            session.close()
        self._direct.close()


def _take(response: Response, decide: Decide, _: Transfer) -> None:
    if response.status in REDIRECTS:
        response.transfer.limit(UNWANTED_BYTES)
    else:
        decide(response)


def _raise_unless_unwanted(error: HttpError, response: Response) -> None:
    """Raise a SourceError for `error`, unless the response is too long and not wanted anyway."""
    url, head = response.url, response.transfer.head
    if isinstance(error, TooLong):
        if head is None or head.status in (200, 206):
            raise SourceMismatch(f"reading {url.name}: {error}") from error
    elif isinstance(error, InvalidRequest):
        raise SourceNotAllowed(f"{url.name} cannot be asked for: {error}") from error
    else:
        raise _unavailable(error, url, "asking for") from error


def stream_it(response: Response) -> None:
    """A `Decide`: the body is read while it comes."""
    response.transfer.stream()


def _unavailable(error: HttpError, url: SecretUrl, doing: str) -> SourceUnavailable:
    if (reason := trust.rejection(error)) is not None:
        return SourceUntrusted(f"{doing} {url.name}: {trust.rejected(reason)}", str(url.origin))
    return SourceUnavailable(f"{doing} {url.name}: {error}")


def refusal(response: Response, *, later_range: bool = False) -> SourceError:
    """The error that an unwanted status means. Discards the response."""
    status, name = response.status, response.url.name
    response.discard()
    message = f"{name} answered {status}"
    if status in (401, 403):
        return SourceForbidden(message)
    if status in (404, 410):
        return SourceGone(message)
    if status >= 500 or status in _PASSING:
        return SourceUnavailable(message, retry_after(response.headers.get), throttled=status in (429, 503))
    if status == 412 or (status == 416 and later_range):
        return SourceChanged(f"{message}: it is not the file that it was at the start")
    return SourceMismatch(message)

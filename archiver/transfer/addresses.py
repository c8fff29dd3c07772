"""Addresses that may expire, and how each is renewed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from archiver.http.session import Session
from archiver.http.waiting import blocking, complete
from archiver.transfer.http import Address, Decide, HttpClient, Response, stream_it
from archiver.transfer.urls import SecretUrl

RENEWED_ON = frozenset({400, 401, 403, 404})
"""403 is how S3, GCS and OSS say expired; 400 and 404 are how one S3 compatible and some CDNs do."""


class SourceAddress(Protocol):
    """An address that may stop working and can be renewed. Safe from several threads."""

    def current(self) -> Address:
        """May block, to sign."""
        ...

    def peek(self) -> Address | None:
        """`current`, where it can be had at once; else None."""
        ...

    def renew(self, failed: Address) -> Address:
        """An address to try after `failed` was refused: the current one if it is newer already, else a fresh
        one; `failed` itself when there is no other."""
        ...


class FixedAddress:
    """An address that nobody can renew, such as a signed thumbnail URL from a webhook."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def current(self) -> Address:
        return self._address

    peek = current

    def renew(self, failed: Address) -> Address:
        return failed


class RenewableUrl:
    """A URL that `sign` makes, as the API hands it out: its origin is trusted (`transfer.address_policy`). It is signed
    at the first use, and once for all threads that find the same one refused. What `sign` raises is passed on."""

    def __init__(self, sign: Callable[[], SecretUrl]) -> None:
        self._sign = sign
        self._lock = threading.Lock()
        self._current: Address | None = None

    def current(self) -> Address:
        with self._lock:
            return self._current or self._fresh()

    def peek(self) -> Address | None:
        return self._current

    def renew(self, failed: Address) -> Address:
        with self._lock:
            if self._current is None or self._current is failed:
                return self._fresh()
            return self._current

    def _fresh(self) -> Address:
        url = self._sign()
        self._current = Address(url, handed_out=frozenset({url.origin}))
        return self._current


async def fetch(
    client: HttpClient,
    address: SourceAddress,
    headers: Mapping[str, str],
    decide: Decide,
    session: Session | None = None,
    *,
    wanted: tuple[int, int, int | None] | None = None,
) -> Response:
    """`HttpClient.fetch`, or `fetch_range` of what is `wanted`; once more after one renewal, when the first response is
    a refusal that a fresh signature may lift."""
    known = address.peek()
    asked = known if known is not None else await blocking(address.current, "source")
    renewed = False
    while True:
        if wanted is None:
            response = await client.fetch(asked, headers, decide, session)
        else:
            response = await client.fetch_range(asked, headers, wanted, decide)
        if renewed or response.status not in RENEWED_ON:
            return response
        refused, renewed = asked, True
        asked = await blocking(partial(address.renew, refused), "source")
        if asked is refused:
            return response
        response.close()


def get(client: HttpClient, address: SourceAddress, headers: Mapping[str, str]) -> Response:
    """`fetch`, blocking, over a new connection; the body is read while it comes. Close it."""
    return complete(fetch(client, address, headers, stream_it))

"""Small documents (playlists), fetched whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from archiver.http.head import Headers
from archiver.retry_policy import REQUEST, RetryPolicy
from archiver.transfer.addresses import SourceAddress, get
from archiver.transfer.announced import announced_checksums
from archiver.transfer.base import Reader
from archiver.transfer.checksums import crc32c
from archiver.transfer.codings import can_undo, codings_in, undo
from archiver.transfer.errors import SourceMismatch, SourceUnavailable, StillEncoded
from archiver.transfer.http import HttpClient, Response, refusal
from archiver.transfer.urls import SecretUrl

_PACKED = {"Accept-Encoding": "gzip, identity"}
_AS_IT_IS = {"Accept-Encoding": "identity"}
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """A small document, whole. `url` is where it was in the end, after redirects: references in it resolve
    against that. `cookies` are the `Set-Cookie` values of that URL's own origin."""

    url: SecretUrl
    headers: Headers
    cookies: tuple[str, ...]
    body: bytes


def fetch_bytes(
    client: HttpClient,
    address: SourceAddress,
    max_bytes: int,
    policy: RetryPolicy = REQUEST,
) -> Fetched:
    """The document at `address`, codings undone, tried again when the source is unavailable. One that ends with its
    connection is read twice, unless a checksum verifies it whole. Raises SourceMismatch when it is larger than
    `max_bytes` (after decoding, too), and SourceError."""

    longest_bytes = 0

    def once() -> Fetched:
        nonlocal longest_bytes
        first, whole = _fetch(client, address, max_bytes)
        if whole:
            return first
        second, whole = _fetch(client, address, max_bytes)
        longest_bytes = max(longest_bytes, len(first.body), len(second.body))
        if whole or (second.body == first.body and len(second.body) == longest_bytes):
            return second
        raise SourceUnavailable(
            f"{first.url.name} gives no length, and what was read of it differs: {len(first.body)} bytes, then others"
        )

    try:
        return policy.call(once, lambda error: isinstance(error, SourceUnavailable | StillEncoded))
    except StillEncoded as error:  # nothing can be read in it, so there is no use in keeping it
        raise SourceMismatch(str(error)) from None


def _fetch(client: HttpClient, address: SourceAddress, max_bytes: int) -> tuple[Fetched, bool]:
    """The document, and whether it is certain to be whole."""
    response = get(client, address, _PACKED)
    if response.status == 200 and not can_undo(codings_in(response.headers)):
        response.close()
        response = get(client, address, _AS_IT_IS)
    if response.status != 200:
        raise refusal(response)
    try:
        name, codings = response.url.name, codings_in(response.headers)
        if not can_undo(codings):
            raise SourceMismatch(f"{name} is encoded as {', '.join(codings)}, which was not asked for")
        reader, undone = undo(response, codings, name)
        body = _read_all(reader, max_bytes, name)
        fetched = Fetched(response.url, response.headers, response.cookies, body)
        return fetched, response.head.framed or (not undone and _is_announced(response, body))
    finally:
        response.close()


def _is_announced(response: Response, body: bytes) -> bool:
    """Return whether the source's own checksum says that `body` is the whole."""
    crc, md5 = announced_checksums(response.headers, whole=True)
    if crc is not None:
        return crc == crc32c(body)
    return md5 is not None and md5 == hashlib.md5(body, usedforsecurity=False).digest()


def _read_all(reader: Reader, max_bytes: int, name: str) -> bytes:
    body = bytearray()
    piece = memoryview(bytearray(_PIECE_BYTES))
    while count := reader.readinto(piece):
        body += piece[:count]
        if len(body) > max_bytes:
            raise SourceMismatch(f"{name} is larger than the {max_bytes} bytes allowed for it")
    return bytes(body)

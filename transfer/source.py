"""Sources over HTTP: read by range, under a URL that is renewed when it stops working."""

from __future__ import annotations

import base64
import binascii
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from transfer.base import Reader, SourceInfo
from transfer.errors import SourceChanged, SourceMismatch, SourceUnavailable
from transfer.http import Address, HttpClient, Response, refusal
from transfer.retrying import Patience
from transfer.urls import SecretUrl
from transfer.wire import Headers

__all__ = [
    "Address",
    "DerivedAddress",
    "Fetched",
    "FixedAddress",
    "HttpSource",
    "RenewableUrl",
    "SecretUrl",
    "SourceAddress",
    "fetch_bytes",
]

_TEXT = {"Accept-Encoding": "gzip, identity"}
_PIECE_BYTES = 64 * 1024
_RENEWED_ON = frozenset({400, 401, 403, 404})
"""403 is how S3, GCS and OSS say expired; 400 and 404 are how one S3 compatible and some CDNs do."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')


# -- addresses that can be renewed ---------------------------------------------------------------------------
class SourceAddress(Protocol):
    """An address that may stop working and can be had anew. Safe from several threads."""

    def current(self) -> Address: ...

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

    def renew(self, failed: Address) -> Address:
        return failed


class RenewableUrl:
    """A URL that `sign` makes, as the API hands it out: its origin is trusted (`transfer.guard`). It is signed
    at the first use, and once for all threads that find the same one refused. What `sign` raises is passed on."""

    def __init__(self, sign: Callable[[], SecretUrl]) -> None:
        self._sign = sign
        self._lock = threading.Lock()
        self._current: Address | None = None

    def current(self) -> Address:
        with self._lock:
            return self._current or self._fresh()

    def renew(self, failed: Address) -> Address:
        with self._lock:
            if self._current is None or self._current is failed:
                return self._fresh()
            return self._current

    def _fresh(self) -> Address:
        url = self._sign()
        self._current = Address(url, handed_out=frozenset({url.origin}))
        return self._current


class DerivedAddress:
    """A child of another address: `derive` makes its URL and headers of the parent's current ones, and is called
    again after each renewal of the parent. The child inherits the parent's trust, and nothing beyond it."""

    def __init__(
        self, parent: SourceAddress, derive: Callable[[Address], tuple[SecretUrl, Mapping[str, str]]]
    ) -> None:
        self._parent = parent
        self._derive = derive
        self._lock = threading.Lock()
        self._made: tuple[Address, Address] | None = None  # the parent's address, and ours made of it

    def current(self) -> Address:
        return self._of(self._parent.current())

    def renew(self, failed: Address) -> Address:
        with self._lock:
            made = self._made
        if made is None or made[1] is not failed:
            return self.current()
        return self._of(self._parent.renew(made[0]))

    def _of(self, parent: Address) -> Address:
        with self._lock:
            if self._made is None or self._made[0] is not parent:
                url, headers = self._derive(parent)
                self._made = (parent, Address(url, headers, parent.handed_out))
            return self._made[1]


def _get(client: HttpClient, address: SourceAddress, headers: Mapping[str, str]) -> Response:
    """The answer, after one renewal when the first is a refusal that a fresh signature may lift."""
    asked = address.current()
    response = client.get(asked, headers)
    if response.head.status in _RENEWED_ON:
        renewed = address.renew(asked)
        if renewed is not asked:
            response.discard()
            response = client.get(renewed, headers)
    return response


# -- small text ----------------------------------------------------------------------------------------------
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
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> Fetched:
    """The document at `address`, gzip undone, tried again when the source is unavailable. Raises SourceMismatch
    when it is larger than `max_bytes` (after decoding, too), and SourceError."""

    def once() -> Fetched:
        response = _get(client, address, _TEXT)
        if response.status != 200:
            raise refusal(response)
        try:
            reader = _decoded(response)
            return Fetched(
                response.url,
                response.headers,
                response.cookies,
                _read_all(reader, max_bytes, response.url.name),
            )
        finally:
            response.close()

    return patience.keep_trying(once, lambda error: isinstance(error, SourceUnavailable))


def _read_all(reader: Reader, max_bytes: int, name: str) -> bytes:
    body = bytearray()
    piece = memoryview(bytearray(_PIECE_BYTES))
    while count := reader.readinto(piece):
        body += piece[:count]
        if len(body) > max_bytes:
            raise SourceMismatch(f"{name} is larger than the {max_bytes} bytes allowed for it")
    return bytes(body)


class _Gunzip:
    """Undoes a gzip content coding (of one member or several), in bounded memory."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._inflate = zlib.decompressobj(wbits=31)
        self._piece = memoryview(bytearray(_PIECE_BYTES))
        self._packed = b""
        self._all_read = False

    def readinto(self, buffer: memoryview, /) -> int:
        while len(buffer):
            if not self._packed and not self._all_read:
                self._packed = bytes(self._piece[: self._response.readinto(self._piece)])
                self._all_read = not self._packed
            if self._inflate.eof:
                if self._all_read:
                    return 0
                self._inflate = zlib.decompressobj(wbits=31)
            try:
                data = self._inflate.decompress(self._packed, len(buffer))
            except zlib.error as error:
                raise SourceMismatch(f"{self._response.url.name} says gzip and is not: {error}") from None
            self._packed = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if data:
                buffer[: len(data)] = data
                return len(data)
            if self._all_read and not self._inflate.eof:
                raise SourceUnavailable(f"{self._response.url.name}: its gzip stream was cut short")
        return 0

    def close(self) -> None:
        self._response.close()


def _decoded(response: Response) -> Reader:
    coding = (response.headers.get("content-encoding") or "identity").strip().lower()
    if coding in (
        "identity",
        "aws-chunked",
        "",
    ):  # S3 keeps the uploader's aws-chunked as if it were a coding
        return response
    if coding in ("gzip", "x-gzip"):
        return _Gunzip(response)
    response.close()
    raise SourceMismatch(f"{response.url.name} is encoded as {coding!r}, which was not asked for")


# -- files, by range -----------------------------------------------------------------------------------------
class HttpSource:
    """`transfer.base.Source` over HTTP."""

    def __init__(self, client: HttpClient, address: SourceAddress) -> None:
        self._client = client
        self._address = address
        self._name = ""

    @property
    def name(self) -> str:
        if not self._name:
            self._name = self._address.current().url.name
        return self._name

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        response = self._get(f"bytes=0-{first_bytes - 1}")
        status = response.head.status
        if status == 416:  # there is not even a first byte: the whole of it says more
            response.discard()
            response = self._get()
            status = response.head.status
        if status == 206 and (_is_encoded(response) or _total_unknown(response)):
            response.close()  # ranges of a packed form, or of who knows how much, are of no use: all of it then
            response = self._get()
            status = response.head.status
        if status == 206:
            return self._first_range(response, first_bytes), response
        if status != 200:
            raise refusal(response)
        if _is_encoded(response):
            return _info(response, size_bytes=None, ranges=False), _decoded(response)
        return _info(response, size_bytes=response.head.length_bytes, ranges=False), response

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        strong = info.etag is not None and not info.etag.startswith("W/")
        response = self._get(f"bytes={start}-{start + len(into) - 1}", info.etag if strong else None)
        try:
            self._check_range(response, start, len(into), info)
            filled = 0
            while filled < len(into):
                count = response.readinto(into[filled:])
                if not count:
                    raise SourceUnavailable(f"{self.name}: the body ended {len(into) - filled} bytes early")
                filled += count
            if response.readinto(memoryview(bytearray(1))):
                raise SourceMismatch(f"{self.name} sent more than the range it was asked for")
        finally:
            response.close()

    def _get(self, byte_range: str | None = None, etag: str | None = None) -> Response:
        headers = {"Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
        if etag is not None:
            headers["If-Match"] = etag
        return _get(self._client, self._address, headers)

    def _first_range(self, response: Response, first_bytes: int) -> SourceInfo:
        """Of a 206 to `open`: it must hold the bytes from 0 up to as many as were asked for, or exist."""
        try:
            start, end, total = _content_range(response)
            if start != 0 or end >= first_bytes:
                raise SourceMismatch(f"{self.name} was asked for its first bytes and sent {start} to {end}")
            if total is None or end + 1 != min(first_bytes, total):
                raise SourceMismatch(
                    f"{self.name} sent {end + 1} of its {total} bytes, not the range asked for"
                )
            _check_length(response, end + 1 - start)
        except SourceMismatch:
            response.close()
            raise
        return _info(response, size_bytes=total, ranges=True)

    def _check_range(self, response: Response, start: int, size_bytes: int, info: SourceInfo) -> None:
        if response.status == 200:
            etag = response.headers.get("etag")
            if etag != info.etag:
                raise SourceChanged(f"{self.name} has another ETag than at the start")
            raise SourceMismatch(f"{self.name} answered a range with the whole file")
        if response.status != 206:
            raise refusal(response, later_range=True)
        etag, modified = response.headers.get("etag"), response.headers.get("last-modified")
        if etag != info.etag or (etag is None and modified != info.last_modified):
            raise SourceChanged(f"{self.name} has another ETag or date than at the start")
        got_start, got_end, total = _content_range(response)
        if total is not None and total != info.size_bytes:
            raise SourceChanged(f"{self.name} had {info.size_bytes} bytes at the start and has {total} now")
        if (got_start, got_end) != (start, start + size_bytes - 1):
            raise SourceMismatch(
                f"{self.name} was asked for bytes {start} to {start + size_bytes - 1}, sent {got_start} to {got_end}"
            )
        if _is_encoded(response):
            raise SourceMismatch(f"{self.name} sent a range of an encoded form of the file")
        _check_length(response, size_bytes)


def _content_range(response: Response) -> tuple[int, int, int | None]:
    """First byte, last byte, total of a 206."""
    text = response.headers.get("content-range") or ""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match:
        start, end = int(match.group(1)), int(match.group(2))
        total = None if match.group(3) == "*" else int(match.group(3))
        if start <= end and (total is None or end < total):
            return start, end, total
    if (response.headers.get("content-type") or "").lower().startswith("multipart/byteranges"):
        raise SourceMismatch(f"{response.url.name} answered one range with several (multipart/byteranges)")
    raise SourceMismatch(f"{response.url.name} answered 206 with Content-Range {text[:80]!r}")


def _total_unknown(response: Response) -> bool:
    return (response.headers.get("content-range") or "").strip().endswith("/*")


def _check_length(response: Response, size_bytes: int) -> None:
    announced = response.head.length_bytes
    if announced is not None and announced != size_bytes:
        raise SourceMismatch(
            f"{response.url.name} announced {announced} bytes (Content-Length) for a range of {size_bytes}"
        )


def _is_encoded(response: Response) -> bool:
    coding = (response.headers.get("content-encoding") or "").strip().lower()
    return coding not in ("", "identity", "aws-chunked")


# -- what a source says of itself ----------------------------------------------------------------------------
def _info(response: Response, size_bytes: int | None, ranges: bool) -> SourceInfo:
    headers = response.headers
    crc32c, md5 = _announced_checksums(
        headers, whole=response.status == 200 or size_bytes == response.head.length_bytes
    )
    return SourceInfo(
        size_bytes=size_bytes,
        ranges=ranges,
        etag=headers.get("etag"),
        last_modified=headers.get("last-modified"),
        content_type=headers.get("content-type"),
        crc32c=crc32c,
        md5=md5,
        tls=response.url.origin.scheme == "https",
    )


def _announced_checksums(headers: Headers, whole: bool) -> tuple[int | None, bytes | None]:
    """CRC32C and MD5 of the whole file, where the source really means the whole file's bytes as it sends them."""
    if headers.get("content-encoding") not in (None, "identity"):
        return None, None
    crc32c: int | None = None
    md5: bytes | None = None
    goog = headers.get("x-goog-hash")
    if goog and headers.get("x-goog-stored-content-encoding") in (
        None,
        "identity",
    ):  # else: of the packed form
        for item in ",".join(headers.all("x-goog-hash")).split(","):
            name, _, value = item.strip().partition("=")
            if name == "crc32c" and (raw := _base64(value, 4)):
                crc32c = int.from_bytes(raw, "big")
            if name == "md5":
                md5 = _base64(value, 16)
    amazon = headers.get("x-amz-checksum-crc32c")
    kind = headers.get("x-amz-checksum-type")
    if amazon and crc32c is None and (kind == "FULL_OBJECT" or (whole and kind is None)):
        raw = _base64(amazon, 4)  # a composite one ends in -N and is no base64
        crc32c = int.from_bytes(raw, "big") if raw else None
    # An ETag is an MD5 by Amazon's word alone, and there only of an object put in one piece without KMS or a
    # customer's key; anywhere else 32 hex digits may be anything, and a wrong guess would condemn a good file.
    if headers.get("server") == "AmazonS3" and md5 is None:
        plain = headers.get("x-amz-server-side-encryption") in (None, "AES256")
        own_key = headers.get("x-amz-server-side-encryption-customer-algorithm")
        etag = _MD5_ETAG.fullmatch(headers.get("etag") or "")
        if etag and plain and own_key is None:
            md5 = bytes.fromhex(etag.group(1))
    return crc32c, md5


def _base64(text: str, size_bytes: int) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size_bytes else None

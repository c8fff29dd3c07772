"""Requests about one object, signed by AWS Signature Version 4."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from archiver.http.transfer import Request
from storage_backends.base import Buffer
from storage_backends.errors import StorageError
from storage_backends.s3.request_options import HEADERS, READ_HEADERS

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials


UNSIGNED = "UNSIGNED-PAYLOAD"
_PLAIN_VALUE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~/-]+")  # characters that a path does not encode
_DIGEST_HEADER = "x-amz-content-sha256"  # sorts after both checksum headers


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how requests about objects of one bucket are sent."""

    origin: str  # https://host:port
    host_header: str
    path_before_key: str
    region: str
    user_agent: str
    proxy: str


class RequestTemplate:
    """What the requests about a tree's objects within one second have in common, but for one header (`varying`): a
    PUT's checksum, a GET's range.

    Signed by AWS Signature Version 4 (docs.aws.amazon.com/IAM, "Create a signed AWS API request"). The body is signed
    only where the bucket demands it; else its checksum is signed, and TLS protects the rest. Holds a SECRET.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        method: str,
        second: int,
        credentials: ReadOnlyCredentials,
        varying: str,
        arguments: tuple[tuple[str, str], ...],
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        """`method`: PUT or GET. Raises StorageError for an option that is not in its table, and for values that no
        header can carry."""
        table = READ_HEADERS if method == "GET" else HEADERS
        unknown = {name for name, _ in arguments} - table.keys()
        if unknown:
            raise StorageError(f"a {method} to S3 cannot be sent with {', '.join(sorted(unknown))}")
        headers = {table[name]: value for name, value in arguments}
        headers |= {f"x-amz-meta-{name.lower()}": value for name, value in metadata}
        headers = {name: _header_value(name, value) for name, value in headers.items()}
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        headers["x-amz-date"] = stamp
        if credentials.token:
            headers["x-amz-security-token"] = _header_value("x-amz-security-token", credentials.token)
        # `name;` is how libcurl is told to send a header without a value
        self._lines = tuple([(f"{n}: {v}" if v else f"{n};").encode() for n, v in headers.items()])
        self._varying_header = table[varying]
        every = {**headers, "host": endpoint.host_header}
        names = sorted([*every, self._varying_header, _DIGEST_HEADER])
        at, digest = names.index(self._varying_header), names.index(_DIGEST_HEADER)
        signed = ";".join(names)
        before = "".join([f"{name}:{every[name]}\n" for name in names[:at]])
        between = "".join([f"\n{name}:{every[name]}" for name in names[at + 1 : digest]])
        after = "".join([f"\n{name}:{every[name]}" for name in names[digest + 1 :]])
        self._method = method
        self._origin = endpoint.origin
        self._path_before_key = endpoint.path_before_key
        self._before_varying = f"{before}{self._varying_header}:"
        self._before_digest = f"{between}\n{_DIGEST_HEADER}:"
        self._after_digest = f"{after}\n\n{signed}\n"

        day = stamp[:8]
        scope = f"{day}/{endpoint.region}/s3/aws4_request"
        self._to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n"
        self._key = f"AWS4{credentials.secret_key or ''}".encode()
        for part in (day, endpoint.region, "s3", "aws4_request"):
            self._key = hmac.digest(self._key, part.encode(), "sha256")
        # HMAC by its definition (RFC 2104): the key has 32 of the block's 64 bytes
        block = self._key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in block]))
        self._outer = hashlib.sha256(bytes([byte ^ 0x5C for byte in block]))
        access_key = _header_value("authorization", credentials.access_key or "")
        credential = f"Credential={access_key}/{scope}"
        self._authorization = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={signed}, Signature="

    def request(self, key: str, query: str, varying: str, digest: str, body: Buffer | None = None) -> Request:
        """Make a request. `query`: encoded, its names in order. `varying`: the value of that header. `digest`:
        x-amz-content-sha256."""
        path = self._path_before_key + (key if _UNRESERVED.fullmatch(key) else quote(key, safe="/-._~"))
        canonical = (
            f"{self._method}\n{path}\n{query}\n{self._before_varying}{varying}{self._before_digest}{digest}"
            f"{self._after_digest}{digest}"
        )
        # not `hmac.digest`, which would release the interpreter lock
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(f"{self._to_sign}{hashlib.sha256(canonical.encode()).hexdigest()}".encode())
        outer.update(inner.digest())
        signature = outer.hexdigest()
        lines = (
            *self._lines,
            f"{self._varying_header}: {varying}".encode(),
            f"{_DIGEST_HEADER}: {digest}".encode(),
            f"authorization: {self._authorization}{signature}".encode(),
        )
        url = f"{self._origin}{path}?{query}" if query else f"{self._origin}{path}"
        sent = body if body is None or isinstance(body, bytes) else bytes(body)
        return Request(url, method=self._method, body=sent, lines=lines)


def header_text(value: str | bool | datetime) -> str:
    """Return the value of an option as boto3 writes it into a header."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value


def _header_value(name: str, value: str) -> str:
    """Return the value as it is sent and signed: a signature collapses consecutive blanks."""
    plain = " ".join(value.split())
    if plain and not _PLAIN_VALUE.fullmatch(plain):
        raise StorageError(f"a request to S3 cannot carry the value of {name}: not printable ASCII")
    return plain

"""The short way for bytes to S3: PutObject and UploadPart on kept-alive sockets, signed here.

boto3 spends about 1 ms of processor time on each request, more than everything else together does on a small object
(performance.md, "The shape that won"). So it is asked once how it would send a PUT (`_learn`), and the like is then
sent without it. It stays the judge of all that is not plain: where its own request has anything unusual about it this
way is not taken at all; and what it would try again (a broken connection, 5xx, 429) or mend (the region, the clock,
credentials that ended) is given to it, whose answer or error is then the one that counts.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from net.stream import Stream
from storage_backends.base import Buffer

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

_CONNECT_SECONDS = 10.0  # as in s3.py, for boto3
_SILENCE_SECONDS = 60.0
_IDLE_SECONDS = 15.0  # S3 closes a connection that is idle for about 20
_MAX_IDLE = 64
_HEAD_BYTES = 32 * 1024
_ERROR_BYTES = 64 * 1024  # of an answer's body
_DISAGREEMENTS = 3  # in a row, of a server that refuses us and takes the same from boto3

_FINAL_STATUSES = frozenset({400, 401, 403, 404, 405, 409, 411, 412, 501, 507})
_MENDED_BY_BOTO3 = frozenset(
    {
        "AuthorizationHeaderMalformed", "ExpiredToken", "ExpiredTokenException", "IllegalLocationConstraintException",
        "InvalidToken", "PermanentRedirect", "PriorRequestNotComplete", "RequestExpired", "RequestInTheFuture",
        "RequestTimeTooSkewed", "RequestTimeout", "RequestTimeoutException", "SignatureDoesNotMatch", "SlowDown",
        "TemporaryRedirect", "Throttling", "ThrottlingException", "TransientError",
    }
)  # fmt: skip

_UNSIGNED = "UNSIGNED-PAYLOAD"
_PLAIN_VALUE = re.compile(
    r"[\x21-\x7e]+(?: [\x21-\x7e]+)*"
)  # else the signature has rules that are not ours to repeat
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/s3/aws4_request, .*")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: .*)?")
_KNOWN_HEADERS = frozenset(
    {
        "amz-sdk-invocation-id", "amz-sdk-request", "authorization", "content-length", "content-type", "expect",
        "host", "user-agent", "x-amz-checksum-crc32c", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token",
        "x-amz-sdk-checksum-algorithm",
    }
)  # fmt: skip
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,8})(?:;.*)?")
_HEADER_OF = {
    "ContentType": "content-type",
    "ContentMD5": "content-md5",
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "IfNoneMatch": "if-none-match",
}
_ADDRESS = frozenset({"Bucket", "Key", "Body", "Metadata", "UploadId", "PartNumber"})


class S3Wire:
    """`put_object` and `upload_part` of `client`, with the same arguments, answers and errors, for one bucket;
    `Body` may be any buffer, `memoryview` included. Safe from several threads. Made before they share `client`."""

    def __init__(
        self, client: Any, credentials: Credentials | None, bucket: str, ca_bundle: str | None = None
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._bucket = bucket
        self._disagreements = 0
        self._signer = _Signer()
        endpoint = _learn(client, credentials, bucket) if credentials is not None else None
        self._endpoint = endpoint
        self._connections = _Connections(endpoint, ca_bundle) if endpoint else None

    @property
    def direct(self) -> bool:
        """Whether requests go this way; else boto3 sends them all."""
        return self._endpoint is not None and self._disagreements < _DISAGREEMENTS

    def put_object(self, **request: Any) -> Mapping[str, Any]:
        """Raises boto3's errors."""
        return self._send(self._client.put_object, request, "")

    def upload_part(self, **request: Any) -> Mapping[str, Any]:
        """Raises boto3's errors."""
        query = f"partNumber={request['PartNumber']}&uploadId={quote(request['UploadId'], safe='-._~')}"
        return self._send(self._client.upload_part, request, query)

    def close(self) -> None:
        if self._connections is not None:
            self._connections.close()

    def _send(
        self, by_boto3: Callable[..., Mapping[str, Any]], request: dict[str, Any], query: str
    ) -> Mapping[str, Any]:
        answer = None
        if self.direct and request["Bucket"] == self._bucket and (headers := _headers(request)) is not None:
            with suppress(OSError, _BadAnswer):
                answer = self._directly(request["Key"], query, headers, request["Body"])
        if answer is not None and answer.status == 200:
            self._disagreements = 0
            return answer.as_boto3()
        if answer is not None and answer.final:
            raise answer.error("UploadPart" if query else "PutObject")
        response = by_boto3(**{**request, "Body": _for_boto3(request["Body"])})
        if answer is not None and answer.status < 500:
            self._disagreements += 1
        return response

    def _directly(self, key: str, query: str, headers: dict[str, str], body: Buffer) -> _Answer:
        """Raises OSError, _BadAnswer."""
        assert self._endpoint is not None
        assert self._connections is not None
        assert self._credentials is not None
        endpoint = self._endpoint
        path = endpoint.path_before_key + quote(key, safe="/-._~")
        headers["host"] = endpoint.host_header
        self._signer.sign(path, query, headers, self._credentials.get_frozen_credentials(), endpoint.region)
        headers["user-agent"] = endpoint.user_agent
        view = memoryview(body).cast("B")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        target = f"{path}?{query}" if query else path
        head = f"PUT {target} HTTP/1.1\r\n{lines}content-length: {len(view)}\r\n\r\n".encode("ascii")
        connection = self._connections.take()
        try:
            connection.send(head, view)
            answer = connection.answer()
        except BaseException:
            connection.close()
            raise
        self._connections.give_back(connection)
        return answer


# -- what boto3 would do -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where PUTs of one bucket go, and as what."""

    tls: bool
    host: str
    port: int
    host_header: str
    path_before_key: str
    region: str
    user_agent: str


def _learn(client: Any, credentials: Credentials, bucket: str) -> Endpoint | None:
    """The endpoint, addressing style and region that boto3 chooses, seen in a request that it signs and that is never
    sent; None when it would send anything that is not repeated here."""
    caught: list[AWSPreparedRequest] = []

    def catch(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        caught.append(request)
        return AWSResponse(request.url, 200, HTTPHeaders(), _NoBody())

    event = "before-send.s3.PutObject"
    client.meta.events.register_first(event, catch)
    try:
        client.put_object(
            Bucket=bucket, Key="key", Body=b"", ContentType="text/plain", ChecksumCRC32C="AAAAAA=="
        )
        frozen = credentials.get_frozen_credentials()
    except (BotoCoreError, ClientError):
        return None  # boto3 says what is wrong when it is asked in earnest
    finally:
        client.meta.events.unregister(event, catch)
    if len(caught) != 1 or client.meta.config.proxies:
        return None
    return _endpoint(caught[0], frozen)


def _endpoint(request: AWSPreparedRequest, frozen: ReadOnlyCredentials) -> Endpoint | None:
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    scope = _SCOPE.fullmatch(headers.get("authorization", ""))
    url = urlsplit(request.url)
    plain = (
        scope is not None
        and scope[1] == frozen.access_key
        and headers.get("x-amz-content-sha256") == _UNSIGNED
        and headers.get("x-amz-security-token") == frozen.token
        and not headers.keys() - _KNOWN_HEADERS
        and url.scheme in ("http", "https")
        and url.path.endswith("/key")
        and not url.query
        and not get_environ_proxies(request.url)
    )
    if not plain or scope is None or url.hostname is None:
        return None
    tls = url.scheme == "https"
    port = url.port or (443 if tls else 80)
    user_agent = headers.get("user-agent", "boto3")
    return Endpoint(tls, url.hostname, port, url.netloc, url.path.removesuffix("key"), scope[2], user_agent)


class _NoBody:
    def stream(self, **_: object) -> Iterator[bytes]:
        return iter(())


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _headers(request: Mapping[str, Any]) -> dict[str, str] | None:
    """The request's arguments as headers; None when there is one that boto3 should send."""
    headers = {}
    for name, value in request.items():
        if name in _ADDRESS:
            continue
        if name not in _HEADER_OF:
            return None
        headers[_HEADER_OF[name]] = value
    for name, value in request.get("Metadata", {}).items():
        headers[f"x-amz-meta-{name.lower()}"] = value
    if not all(_PLAIN_VALUE.fullmatch(value) for value in headers.values()):
        return None
    return headers


def _for_boto3(body: Buffer) -> bytes | bytearray:
    """botocore refuses memoryviews (storage.md). A view of a whole buffer costs nothing, of a piece one copy."""
    if not isinstance(body, memoryview):
        return body
    whole = body.obj
    if isinstance(whole, bytes | bytearray) and body.nbytes == len(whole) and body.contiguous:
        return whole
    return bytes(body)


# -- signature -----------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Signer:
    """AWS Signature Version 4 in headers, of a body that is not signed: its CRC32C is, and TLS guards the rest."""

    _key: tuple[tuple[str, str, str], bytes] = field(default=(("", "", ""), b""), repr=False)

    def sign(
        self,
        path: str,
        query: str,
        headers: dict[str, str],
        credentials: ReadOnlyCredentials,
        region: str,
        now: float | None = None,
    ) -> None:
        """Add to `headers` what signs them. `path` and `query` as they are sent, the query's names in order."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers["x-amz-content-sha256"] = _UNSIGNED
        headers["x-amz-date"] = stamp
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        names = sorted(headers)
        signed = ";".join(names)
        lines = "\n".join(f"{name}:{headers[name]}" for name in names)
        canonical = f"PUT\n{path}\n{query}\n{lines}\n\n{signed}\n{_UNSIGNED}"
        scope = f"{stamp[:8]}/{region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        key = self._signing_key(credentials.secret_key or "", stamp[:8], region)
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, "
            f"Signature={signature}"
        )

    def _signing_key(self, secret: str, day: str, region: str) -> bytes:
        made_of, key = self._key  # one tuple: another thread may be replacing it
        if made_of != (secret, day, region):
            key = f"AWS4{secret}".encode()
            for part in (day, region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = ((secret, day, region), key)
        return key


# -- connections ---------------------------------------------------------------------------------------------
class _BadAnswer(Exception):
    """What came is not an answer this reader takes."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def code(self) -> str:
        return self._said("Code") or str(self.status)

    @property
    def final(self) -> bool:
        """Whether boto3 would take it for an answer, too."""
        return self.status in _FINAL_STATUSES and self.code not in _MENDED_BY_BOTO3

    def as_boto3(self) -> Mapping[str, Any]:
        names = {"ETag": "etag", "ChecksumCRC32C": "x-amz-checksum-crc32c"}
        return {name: self.headers[header] for name, header in names.items() if header in self.headers}

    def error(self, operation: str) -> ClientError:
        said: Any = {
            "Error": {"Code": self.code, "Message": self._said("Message")},
            "ResponseMetadata": {
                "HTTPStatusCode": self.status,
                "RequestId": self._said("RequestId") or self.headers.get("x-amz-request-id", ""),
                "HTTPHeaders": dict(self.headers),
            },
        }
        return ClientError(said, operation)

    def _said(self, name: str) -> str:
        found = re.search(rf"<{name}>([^<]*)</{name}>".encode(), self.body)
        return unescape(found[1].decode("utf-8", "replace")) if found else ""


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self._stream = Stream(sock, _SILENCE_SECONDS)
        self._received = memoryview(bytearray(_HEAD_BYTES))
        self._reusable = False
        self.idle_since = 0.0

    def send(self, head: bytes, body: memoryview) -> None:
        """Raises OSError."""
        self._reusable = False
        self._stream.send(head, body)

    def answer(self) -> _Answer:
        """Raises OSError, _BadAnswer."""
        data = b""
        while True:
            while (end := data.find(b"\r\n\r\n")) < 0:
                if len(data) > _HEAD_BYTES:
                    raise _BadAnswer
                data += self._receive()
            head, data = data[:end], data[end + 4 :]
            if not head.startswith((b"HTTP/1.1 100", b"HTTP/1.1 102", b"HTTP/1.1 103")):
                break
        status_line, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        if match is None:
            raise _BadAnswer
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or name.lower() in headers:
                raise _BadAnswer  # twice the same: nothing that is read here may be
            headers[name.lower()] = value.strip()
        body = self._body(headers, data)
        return _Answer(int(match[1]), headers, body)

    def _body(self, headers: Mapping[str, str], data: bytes) -> bytes:
        """The body, as it is framed. The next request may follow when it ends just where it should."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length", "")
        if coding is None and length.isascii() and length.isdigit():
            whole: Callable[[bytes], bytes | None] = partial(_of_length, int(length))
        elif coding == "chunked" and not length:
            whole = _of_chunks
        else:
            return b""  # until the connection ends: nobody waits for that
        while (body := whole(data)) is None:
            if len(data) > _ERROR_BYTES:
                raise _BadAnswer
            data += self._receive()
        self._reusable = "close" not in headers.get("connection", "").lower()
        return body

    def _receive(self) -> bytes:
        count = self._stream.receive(self._received)
        if not count:
            raise _BadAnswer
        return bytes(self._received[:count])

    @property
    def reusable(self) -> bool:
        return self._reusable

    def silent(self) -> bool:
        """Whether nothing came while it was idle; an end of the stream counts as something."""
        return self._stream.is_silent()

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()


def _of_length(length: int, data: bytes) -> bytes | None:
    """`data` when it is whole, None when more is to come. Raises _BadAnswer when there is more than that."""
    if len(data) > length:
        raise _BadAnswer
    return data if len(data) == length else None


def _of_chunks(data: bytes) -> bytes | None:
    """What the chunks in `data` hold, once the last one is there. Raises _BadAnswer."""
    pieces, at = [], 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = _CHUNK_LINE.fullmatch(data, at, end)
        if size is None:
            raise _BadAnswer
        length = int(size[1], 16)
        pieces.append(data[end + 2 : end + 2 + length])
        at = end + 2 + length + 2
        if not length:
            return b"".join(pieces) if _of_length(at, data) is not None else None
    return None


class _Connections:
    """Those kept alive to one endpoint; the one used last is taken first, so that as few as do are kept busy."""

    def __init__(self, endpoint: Endpoint, ca_bundle: str | None) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed = False
        self._tls: ssl.SSLContext | None = None
        if endpoint.tls:
            self._tls = ssl.create_default_context(cafile=ca_bundle or get_cert_path(True))
            self._tls.set_alpn_protocols(["http/1.1"])

    def take(self) -> _Connection:
        """Raises OSError."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect()
            if time.monotonic() - connection.idle_since < _IDLE_SECONDS and connection.silent():
                return connection
            connection.close()

    def give_back(self, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        with self._lock:
            if connection.reusable and not self._closed and len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connect(self) -> _Connection:
        endpoint = self._endpoint
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=_CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=endpoint.host)
        except BaseException:
            sock.close()
            raise
        return _Connection(sock)

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
from dataclasses import dataclass
from functools import lru_cache, partial
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
# Idle for less, it is used without a look at it, which would cost a system call and the interpreter lock. Had it ended,
# sending or reading says so and boto3 sends again; had an answer come that nobody asked for, its checksum is not ours.
_FRESH_SECONDS = 0.25
_MAX_IDLE = 64
_HEAD_BYTES = 32 * 1024
_ERROR_BYTES = 64 * 1024  # of an answer's body
_DISAGREEMENTS = 3  # in a row, of a server that refuses us or cannot be read, and boto3 gets through

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
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~/-]+")  # what a path holds as it is
_HEAD = re.compile(
    rb"HTTP/1\.1 (10[023]|[2-5][0-9]{2})(?: [^\r\n]*)?((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*)"
)
_FORMS = 64  # kept: a few content types, for the second that is now
_INFORMATIONAL_HEADS = 4  # that may come before an answer
_ONCE = frozenset({"connection", "content-length", "etag", "transfer-encoding", "x-amz-checksum-crc32c"})
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
_NO_HEADER = frozenset({"Bucket", "Key", "Body", "Metadata", "UploadId", "PartNumber"})
_KNOWN_ARGUMENTS = _NO_HEADER | _HEADER_OF.keys()


class S3Wire:
    """`put_object` and `upload_part` of `client`, with the same arguments (in one mapping), answers and errors, for one
    bucket; `Body` may be any buffer, `memoryview` included. Safe from several threads. Made before they share `client`.
    """

    def __init__(
        self, client: Any, credentials: Credentials | None, bucket: str, ca_bundle: str | None = None
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._disagreements = 0
        endpoint = _learn(client, credentials, bucket) if credentials is not None else None
        self._line = _Line(endpoint, credentials, ca_bundle) if endpoint and credentials else None

    @property
    def direct(self) -> bool:
        """Whether requests go this way; else boto3 sends them all."""
        return self._line is not None and self._disagreements < _DISAGREEMENTS

    def put_object(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises boto3's errors."""
        return self._send(self._client.put_object, request, "")

    def upload_part(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises boto3's errors."""
        query = f"partNumber={request['PartNumber']}&uploadId={quote(request['UploadId'], safe='-._~')}"
        return self._send(self._client.upload_part, request, query)

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

    def _send(
        self, by_boto3: Callable[..., Mapping[str, Any]], request: Mapping[str, Any], query: str
    ) -> Mapping[str, Any]:
        answer, disagreed = None, False
        if self._line is not None and self.direct and request["Bucket"] == self._bucket:
            try:
                answer = self._line.put(request, query)
            except OSError:
                answer = None
            except _BadAnswer:
                disagreed = True
        if answer is not None and answer.status == 200:
            self._disagreements = 0
            return answer.as_boto3()
        if answer is not None and answer.final:
            raise answer.error("UploadPart" if query else "PutObject")
        response = by_boto3(**{**request, "Body": _for_boto3(request["Body"])})
        if disagreed or (answer is not None and answer.status < 500):
            self._disagreements += 1
        return response


class _Line:
    """To one endpoint, without boto3."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials, ca_bundle: str | None) -> None:
        self._credentials = credentials
        self._connections = _Connections(endpoint, ca_bundle)
        self._form = lru_cache(maxsize=_FORMS)(partial(_form, endpoint))

    def put(self, request: Mapping[str, Any], query: str) -> _Answer | None:
        """None, and nothing sent, where boto3 should send it: without a checksum, too. Raises OSError, _BadAnswer."""
        checked_by = "ChecksumCRC32C" if "ChecksumCRC32C" in request else "ContentMD5"
        checksum = request.get(checked_by, "")
        if not request.keys() <= _KNOWN_ARGUMENTS or not _PLAIN_VALUE.fullmatch(checksum):
            return None
        form = self._form(
            int(time.time()),
            self._credentials.get_frozen_credentials(),
            checked_by,
            tuple([item for item in request.items() if item[0] not in _NO_HEADER and item[0] != checked_by]),
            tuple(request.get("Metadata", {}).items()),
        )
        if form is None:
            return None
        body = memoryview(request["Body"]).cast("B")
        head = form.head(request["Key"], query, checksum, len(body))
        connection = self._connections.take()
        try:
            connection.send(head, body)
            answer = connection.answer()
        except BaseException:
            connection.close()
            raise
        self._connections.give_back(connection)
        return answer

    def close(self) -> None:
        self._connections.close()


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


def _for_boto3(body: Buffer) -> bytes | bytearray:
    """botocore refuses memoryviews (storage.md). A view of a whole buffer costs nothing, of a piece one copy."""
    if not isinstance(body, memoryview):
        return body
    whole = body.obj
    if isinstance(whole, bytes | bytearray) and body.nbytes == len(whole) and body.contiguous:
        return whole
    return bytes(body)


# -- signed heads --------------------------------------------------------------------------------------------
def _form(
    endpoint: Endpoint,
    second: int,
    credentials: ReadOnlyCredentials,
    checked_by: str,
    arguments: tuple[tuple[str, str], ...],
    metadata: tuple[tuple[str, str], ...],
) -> _Form | None:
    """For requests with these arguments of boto3's; None when one has a value that boto3 should send."""
    headers = {_HEADER_OF[name]: value for name, value in arguments}
    headers |= {f"x-amz-meta-{name.lower()}": value for name, value in metadata}
    if not all(_PLAIN_VALUE.fullmatch(value) for value in headers.values()):
        return None
    return _Form(endpoint, second, credentials, headers, _HEADER_OF[checked_by])


class _Form:
    """The head of a PUT but for what is each one's own: all that is the same for a tree's objects within one second.

    Signed by AWS Signature Version 4, except for the body: its checksum is, and TLS guards the rest. Holds a SECRET.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        second: int,
        credentials: ReadOnlyCredentials,
        headers: Mapping[str, str],
        checksum_header: str,
    ) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        every = {
            **headers,
            "host": endpoint.host_header,
            "x-amz-date": stamp,
            "x-amz-content-sha256": _UNSIGNED,
        }
        if credentials.token:
            every["x-amz-security-token"] = credentials.token
        names = sorted([*every, checksum_header])
        at = names.index(checksum_header)
        signed = ";".join(names)
        before = "".join([f"{name}:{every[name]}\n" for name in names[:at]])
        after = "".join([f"\n{name}:{every[name]}" for name in names[at + 1 :]])
        self._path_before_key = endpoint.path_before_key
        self._before_checksum = f"{before}{checksum_header}:"
        self._after_checksum = f"{after}\n\n{signed}\n{_UNSIGNED}"

        day = stamp[:8]
        scope = f"{day}/{endpoint.region}/s3/aws4_request"
        self._to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n"
        self._key = f"AWS4{credentials.secret_key or ''}".encode()
        for part in (day, endpoint.region, "s3", "aws4_request"):
            self._key = hmac.digest(self._key, part.encode(), "sha256")

        lines = "".join([f"{name}: {value}\r\n" for name, value in every.items()])
        self._lines = (
            f" HTTP/1.1\r\n{lines}user-agent: {endpoint.user_agent}\r\n"
            f"authorization: AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, "
            "Signature="
        )
        self._checksum_line = f"\r\n{checksum_header}: "

    def head(self, key: str, query: str, checksum: str, body_bytes: int) -> bytes:
        """`query` as it is sent, its names in order."""
        path = self._path_before_key + (key if _UNRESERVED.fullmatch(key) else quote(key, safe="/-._~"))
        canonical = f"PUT\n{path}\n{query}\n{self._before_checksum}{checksum}{self._after_checksum}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = hmac.digest(self._key, f"{self._to_sign}{digest}".encode(), "sha256").hex()
        target = f"{path}?{query}" if query else path
        return (
            f"PUT {target}{self._lines}{signature}{self._checksum_line}{checksum}\r\n"
            f"content-length: {body_bytes}\r\n\r\n"
        ).encode("ascii")


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
    """One exchange after another. `reusable` when the last one left nothing behind."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = Stream(sock, _SILENCE_SECONDS)
        self._received = memoryview(bytearray(_HEAD_BYTES))
        self.reusable = False
        self.idle_since = 0.0

    def send(self, head: bytes, body: memoryview) -> None:
        """Raises OSError."""
        self.reusable = False
        self._stream.send(head, body)

    def answer(self) -> _Answer:
        """Raises OSError, _BadAnswer."""
        data = b""
        for _ in range(_INFORMATIONAL_HEADS + 1):
            while (end := data.find(b"\r\n\r\n")) < 0:
                if len(data) > _HEAD_BYTES:
                    raise _BadAnswer
                data += self._receive()
            head = _HEAD.fullmatch(data, 0, end)
            if head is None:
                raise _BadAnswer
            data = data[end + 4 :]
            status = int(head[1])
            if status >= 200:
                headers = _fields(head[2].decode("latin-1"))
                return _Answer(status, headers, self._body(headers, data))
        raise _BadAnswer

    def _body(self, headers: Mapping[str, str], data: bytes) -> bytes:
        """The body, as it is framed. The next request may follow when it ends just where it should."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length", "")
        if coding is None and length:
            if not (length.isascii() and length.isdigit() and len(length) < 10):
                raise _BadAnswer
            whole: Callable[[bytes], bytes | None] = partial(_of_length, int(length))
        elif coding == "chunked" and not length:
            whole = _of_chunks
        else:
            return b""  # until the connection ends: nobody waits for that
        while (body := whole(data)) is None:
            if len(data) > _ERROR_BYTES:
                raise _BadAnswer
            data += self._receive()
        self.reusable = "close" not in headers.get("connection", "").lower()
        return body

    def _receive(self) -> bytes:
        count = self._stream.receive(self._received)
        if not count:
            raise ConnectionAbortedError("the connection ended before an answer")
        return bytes(self._received[:count])

    def silent(self) -> bool:
        """Whether nothing came while it was idle; an end of the stream counts as something."""
        return self._stream.is_silent()

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()


def _fields(lines: str) -> dict[str, str]:
    """By name in lower case. Raises _BadAnswer when one that is read here comes twice; others may (`Vary` does)."""
    fields: dict[str, str] = {}
    for line in lines.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name = name.lower()
        if name in fields and name in _ONCE:
            raise _BadAnswer
        fields[name] = value.strip(" \t")
    return fields


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
            idle_seconds = time.monotonic() - connection.idle_since
            if idle_seconds < _FRESH_SECONDS or (idle_seconds < _IDLE_SECONDS and connection.silent()):
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

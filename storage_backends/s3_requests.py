"""PutObject and UploadPart as requests of our own client, signed here.

boto3 spends about 1 ms of processor time on each request, more than everything else together does on a small object
(docs/decisions/0004-data-path.md). So it is asked once how it would send a PUT (`_learn`), and the like is then sent
without it. It stays in charge of what it knows and we do not: where its own request has anything unusual about it, and
where a server answers with something that it knows how to put right (another region, a skewed clock, credentials that
expired), the request is sent by it, and that is logged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

import structlog
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import BotoCoreError, ClientError
from botocore.utils import get_environ_proxies

from archiver.http.runtime import process_runtime
from archiver.http.session import Options, Session, Timeouts
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import blocking
from storage_backends.base import Buffer
from storage_backends.errors import StorageError

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

log = structlog.get_logger(__name__)

_TIMEOUTS = Timeouts(connect=timedelta(seconds=10), silence=timedelta(seconds=60))  # as in s3.py, for boto3
_ANSWER_BYTES = 64 * 1024
_CORRECTIONS = 3  # in a row, after which boto3 sends everything

_CORRECTED_BY_BOTO3 = frozenset(
    {
        "AuthorizationHeaderMalformed", "ExpiredToken", "ExpiredTokenException", "IllegalLocationConstraintException",
        "InvalidToken", "PermanentRedirect", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed",
        "SignatureDoesNotMatch", "TemporaryRedirect",
    }
)  # fmt: skip

_OF_THE_CHECKSUM = frozenset({"BadDigest", "InvalidDigest"})
_UNSIGNED = "UNSIGNED-PAYLOAD"
_OF_NOTHING = hashlib.sha256().hexdigest()
_PERHAPS_UNSIGNED = (400, 403, 501)  # how a bucket may refuse a body that is not signed
_PLAIN_VALUE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/s3/aws4_request, .*")
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~/-]+")  # what a path holds as it is
_FORMS = 64  # kept: a few content types, for the second that is now
_KNOWN_HEADERS = frozenset(
    {
        "amz-sdk-invocation-id", "amz-sdk-request", "authorization", "content-length", "content-type", "expect",
        "host", "user-agent", "x-amz-checksum-crc32c", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token",
        "x-amz-sdk-checksum-algorithm",
    }
)  # fmt: skip
_HEADER_OF = {
    "ContentType": "content-type",
    "ContentMD5": "content-md5",
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "IfMatch": "if-match",
    "IfNoneMatch": "if-none-match",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}
_DIGEST_HEADER = "x-amz-content-sha256"  # sorts after either checksum's
_NO_HEADER = frozenset({"Bucket", "Key", "Body", "Metadata", "UploadId", "PartNumber"})


class S3Requests:
    """`put_object` and `upload_part` of `client`, with the same arguments (in one mapping), answers and errors, for one
    bucket; `Body` may be any buffer. Nothing is retried. One of each process. Made before threads share `client`.
    `ca_file`: the authorities that are trusted."""

    def __init__(
        self, client: Any, credentials: Credentials | None, bucket: str, ca_file: Path | None
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = credentials
        self._corrections = 0
        self._signs_bodies: bool | None = None  # None: not known yet; costs 0.6 CPU-s/GiB
        self._endpoint = _learn(client, credentials, bucket) if credentials is not None else None
        if self._endpoint is not None:
            options = Options(
                ca_file=ca_file,
                timeouts=_TIMEOUTS,
                user_agent=self._endpoint.user_agent,
                proxy=self._endpoint.proxy,
            )
            self._session = Session(process_runtime().stores, options)
            self._form = lru_cache(maxsize=_FORMS)(partial(_Form, self._endpoint))
        elif credentials is not None:
            log.warning(
                "s3_sent_by_boto3",
                bucket=bucket,
                why="its requests to this endpoint have something of their own",
            )

    @property
    def direct(self) -> bool:
        """Whether requests are sent from here; else boto3 sends them all."""
        return self._endpoint is not None and self._corrections < _CORRECTIONS

    def put_object(self, request: Mapping[str, Any]) -> Awaitable[Mapping[str, Any]]:
        """Raises boto3's errors, and HttpError."""
        return self._send(self._client.put_object, request, "")

    def upload_part(self, request: Mapping[str, Any]) -> Awaitable[Mapping[str, Any]]:
        """Raises boto3's errors, and HttpError. Of ours alone, also with ServerSideEncryption."""
        query = f"partNumber={request['PartNumber']}&uploadId={quote(request['UploadId'], safe='-._~')}"
        return self._send(self._client.upload_part, request, query)

    def close(self) -> None:
        if self._endpoint is not None:
            self._session.close()

    async def _send(
        self, by_boto3: Callable[..., Mapping[str, Any]], request: Mapping[str, Any], query: str
    ) -> Mapping[str, Any]:
        if not self.direct:
            return await blocking(lambda: by_boto3(**{**request, "Body": bytes(request["Body"])}))
        signs = self._signs_bodies is True
        answer = await self._sent(request, query, signs=signs)
        if self._signs_bodies is None and answer.may_be_about_the_signature:
            again = await self._sent(request, query, signs=True)
            if again.status == 200:
                log.info("s3_bodies_are_signed", bucket=self._bucket, code=answer.code)
                answer, signs = again, True
        if answer.status == 200:
            self._signs_bodies = signs
            self._corrections = 0
            return answer.as_boto3()
        if answer.code not in _CORRECTED_BY_BOTO3 and answer.status not in (301, 307):
            raise answer.error("UploadPart" if query else "PutObject")
        log.info("s3_request_corrected_by_boto3", bucket=self._bucket, code=answer.code)
        response = await blocking(lambda: by_boto3(**{**request, "Body": bytes(request["Body"])}))
        self._corrections += 1
        if not self.direct:
            why = f"{_CORRECTIONS} requests in a row had to be corrected, the last for {answer.code}"
            log.warning("s3_sent_by_boto3", bucket=self._bucket, why=why)
        return response

    async def _sent(self, request: Mapping[str, Any], query: str, *, signs: bool) -> _Answer:
        digest = await blocking(lambda: hashlib.sha256(request["Body"]).hexdigest()) if signs else _UNSIGNED
        transfer = await Transfer(
            self._session,
            partial(self._signed, request, query, digest),
            lambda coming: coming.limit(_ANSWER_BYTES),
        )
        return _Answer(transfer)

    def _signed(self, request: Mapping[str, Any], query: str, digest: str) -> Request:
        """Made when it is sent. `digest`: the body's, or that it has none. Raises StorageError for what it cannot
        carry."""
        assert self._credentials is not None, "without credentials nothing is sent from here"
        if request["Bucket"] != self._bucket:
            raise StorageError(f"a request for the bucket {request['Bucket']} among those for {self._bucket}")
        checked_by = "ChecksumCRC32C" if "ChecksumCRC32C" in request else "ContentMD5"
        if checked_by not in request:
            raise StorageError("a PUT to S3 without a checksum")
        form = self._form(
            int(time.time()),
            self._credentials.get_frozen_credentials(),
            checked_by,
            tuple([item for item in request.items() if item[0] not in _NO_HEADER and item[0] != checked_by]),
            tuple(request.get("Metadata", {}).items()),
        )
        return form.request(request["Key"], query, request[checked_by], digest, request["Body"])


# -- what boto3 would do -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where PUTs of one bucket go, and as what."""

    origin: str  # https://host:port
    host_header: str
    path_before_key: str
    region: str
    user_agent: str
    proxy: str


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
    if len(caught) != 1:
        return None
    return _endpoint(caught[0], frozen, client.meta.config.proxies)


def _endpoint(
    request: AWSPreparedRequest, frozen: ReadOnlyCredentials, proxies: Mapping[str, str] | None
) -> Endpoint | None:
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    scope = _SCOPE.fullmatch(headers.get("authorization", ""))
    url = urlsplit(request.url)
    plain = (
        scope is not None
        and scope[1] == frozen.access_key
        and headers.get("x-amz-content-sha256") in (_UNSIGNED, _OF_NOTHING)
        and headers.get("x-amz-security-token") == frozen.token
        and not headers.keys() - _KNOWN_HEADERS
        and url.scheme in ("http", "https")
        and url.path.endswith("/key")
        and not url.query
    )
    if not plain or scope is None or url.hostname is None:
        return None
    proxy = (proxies or get_environ_proxies(request.url)).get(url.scheme, "")
    user_agent = headers.get("user-agent", "boto3")
    path = url.path.removesuffix("key")
    return Endpoint(f"{url.scheme}://{url.netloc}", url.netloc, path, scope[2], user_agent, proxy)


class _NoBody:
    def stream(self, **_: object) -> Iterator[bytes]:
        return iter(())


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


# -- signed requests -----------------------------------------------------------------------------------------
class _Form:
    """A PUT but for what is each one's own: all that is the same for a tree's objects within one second.

    Signed by AWS Signature Version 4 (docs.aws.amazon.com/IAM, "Create a signed AWS API request"), except for the body
    unless the bucket demands it: its checksum is, and TLS guards the rest. Holds a SECRET.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        second: int,
        credentials: ReadOnlyCredentials,
        checked_by: str,
        arguments: tuple[tuple[str, str], ...],
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        """Raises StorageError for an argument that is not known here, and for values that no header can carry."""
        unknown = {name for name, _ in arguments} - _HEADER_OF.keys()
        if unknown:
            raise StorageError(f"a PUT to S3 cannot be sent with {', '.join(sorted(unknown))}")
        headers = {_HEADER_OF[name]: value for name, value in arguments}
        headers |= {f"x-amz-meta-{name.lower()}": value for name, value in metadata}
        headers = {name: _header_value(name, value) for name, value in headers.items()}
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        headers["x-amz-date"] = stamp
        if credentials.token:
            headers["x-amz-security-token"] = _header_value("x-amz-security-token", credentials.token)
        # `name;` is how libcurl is told to send a header without a value
        self._lines = tuple([(f"{n}: {v}" if v else f"{n};").encode() for n, v in headers.items()])
        self._checksum_header = _HEADER_OF[checked_by]
        every = {**headers, "host": endpoint.host_header}
        names = sorted([*every, self._checksum_header, _DIGEST_HEADER])
        checksum, digest = names.index(self._checksum_header), names.index(_DIGEST_HEADER)
        signed = ";".join(names)
        before = "".join([f"{name}:{every[name]}\n" for name in names[:checksum]])
        between = "".join([f"\n{name}:{every[name]}" for name in names[checksum + 1 : digest]])
        after = "".join([f"\n{name}:{every[name]}" for name in names[digest + 1 :]])
        self._origin = endpoint.origin
        self._path_before_key = endpoint.path_before_key
        self._before_checksum = f"{before}{self._checksum_header}:"
        self._before_digest = f"{between}\n{_DIGEST_HEADER}:"
        self._after_digest = f"{after}\n\n{signed}\n"

        day = stamp[:8]
        scope = f"{day}/{endpoint.region}/s3/aws4_request"
        self._to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n"
        self._key = f"AWS4{credentials.secret_key or ''}".encode()
        for part in (day, endpoint.region, "s3", "aws4_request"):
            self._key = hmac.digest(self._key, part.encode(), "sha256")
        # HMAC (RFC 2104) by its definition: the key has 32 bytes of the block's 64
        block = self._key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in block]))
        self._outer = hashlib.sha256(bytes([byte ^ 0x5C for byte in block]))
        access_key = _header_value("authorization", credentials.access_key or "")
        credential = f"Credential={access_key}/{scope}"
        self._authorization = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={signed}, Signature="

    def request(self, key: str, query: str, checksum: str, digest: str, body: Buffer) -> Request:
        """`query` as it is sent, its names in order. `digest`: x-amz-content-sha256."""
        path = self._path_before_key + (key if _UNRESERVED.fullmatch(key) else quote(key, safe="/-._~"))
        canonical = (
            f"PUT\n{path}\n{query}\n{self._before_checksum}{checksum}{self._before_digest}{digest}"
            f"{self._after_digest}{digest}"
        )
        inner, outer = self._inner.copy(), self._outer.copy()  # `hmac.digest` gives the interpreter lock away
        inner.update(f"{self._to_sign}{hashlib.sha256(canonical.encode()).hexdigest()}".encode())
        outer.update(inner.digest())
        signature = outer.hexdigest()
        lines = (
            *self._lines,
            f"{self._checksum_header}: {checksum}".encode(),
            f"{_DIGEST_HEADER}: {digest}".encode(),
            f"authorization: {self._authorization}{signature}".encode(),
        )
        url = f"{self._origin}{path}?{query}" if query else f"{self._origin}{path}"
        return Request(url, method="PUT", body=body if isinstance(body, bytes) else bytes(body), lines=lines)


def _header_value(name: str, value: str) -> str:
    """As it is sent and signed: blanks in a row are one, which is how a signature counts them."""
    plain = " ".join(value.split())
    if plain and not _PLAIN_VALUE.fullmatch(plain):
        raise StorageError(f"a PUT to S3 cannot carry the value of {name}: not printable ASCII")
    return plain


class _Answer:
    def __init__(self, transfer: Transfer) -> None:
        assert transfer.head is not None, "a transfer that ended well has a head"
        self.status = transfer.head.status
        self._headers = transfer.head.headers
        self._body = transfer.take_body()

    @property
    def code(self) -> str:
        return self._said("Code") or str(self.status)

    @property
    def may_be_about_the_signature(self) -> bool:
        return self.status in _PERHAPS_UNSIGNED and self.code not in _CORRECTED_BY_BOTO3 | _OF_THE_CHECKSUM

    def as_boto3(self) -> Mapping[str, Any]:
        named = (("ETag", "etag"), ("ChecksumCRC32C", "x-amz-checksum-crc32c"))
        return {name: value for name, header in named if (value := self._headers.get(header)) is not None}

    def error(self, operation: str) -> ClientError:
        said: Any = {
            "Error": {"Code": self.code, "Message": self._said("Message")},
            "ResponseMetadata": {
                "HTTPStatusCode": self.status,
                "RequestId": self._said("RequestId") or self._headers.get("x-amz-request-id") or "",
            },
        }
        return ClientError(said, operation)

    def _said(self, name: str) -> str:
        found = re.search(rf"<{name}>([^<]*)</{name}>".encode(), self._body)
        return unescape(found[1].decode("utf-8", "replace")) if found else ""

"""PutObject, UploadPart and GetObject over our own HTTP client.

boto3 spends about 1 ms of CPU on each request, more than everything else on a small object
(docs/decisions/0004-data-path.md), and 4 ms on a response with a body. So boto3 is asked once how it would send a PUT
(`_learn`), and equal requests are then sent without it. boto3 sends them itself, and that is logged, where its own
request has anything unusual, and where a server answers with something that it knows how to correct (another region, a
skewed clock, expired credentials).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

import structlog
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.utils import get_environ_proxies

from archiver.http.options import Options, Timeouts
from archiver.http.store_sessions import StoreSessions
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import blocking
from storage_backends.errors import StorageError
from storage_backends.s3.reading import Enough, RangeReading
from storage_backends.s3.request_options import BOTO3_HEADERS, ELSEWHERE, READ_ELSEWHERE
from storage_backends.s3.signing import UNSIGNED, Endpoint, RequestTemplate, header_text

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

log = structlog.get_logger(__name__)

# as in bucket.py, for boto3
_TIMEOUTS = Timeouts(connect=timedelta(seconds=10), silence=timedelta(seconds=60))
_ANSWER_BYTES = 64 * 1024
_CORRECTIONS = 3  # in a row, after which boto3 sends everything

_CORRECTED_BY_BOTO3 = frozenset(
    {
        "AuthorizationHeaderMalformed", "ExpiredToken", "ExpiredTokenException", "IllegalLocationConstraintException",
        "InvalidToken", "PermanentRedirect", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed",
        "SignatureDoesNotMatch", "TemporaryRedirect",
    }
)  # fmt: skip

_CHECKSUM_CODES = frozenset({"BadDigest", "InvalidDigest"})
_EMPTY_DIGEST = hashlib.sha256().hexdigest()
_REFUSES_UNSIGNED = (400, 403, 501)  # how a bucket may refuse an unsigned body
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/s3/aws4_request, .*")
_TEMPLATES = 64  # a few content types, in the current second


class S3Requests:
    """`put_object`, `upload_part` and `get_object` of `client` for one bucket, with the same arguments (in one
    mapping), responses and errors; `Body` may be any buffer. Retries nothing. One for each process, made before threads
    share `client`. `ca_file`: the trusted authorities."""

    def __init__(
        self, client: Any, credentials: Credentials | None, bucket: str, ca_file: Path | None
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = credentials
        self._corrections = 0
        self._signs_bodies: bool | None = None  # None: not known yet. Signing costs 0.6 CPU-s/GiB
        learned = _learn(client, credentials, bucket) if credentials is not None else None
        self._endpoint = learned if isinstance(learned, Endpoint) else None
        if self._endpoint is not None:
            options = Options(
                ca_file=ca_file,
                timeouts=_TIMEOUTS,
                user_agent=self._endpoint.user_agent,
                proxy=self._endpoint.proxy,
            )
            self._sessions = StoreSessions(options)
            self._template = lru_cache(maxsize=_TEMPLATES)(partial(RequestTemplate, self._endpoint))
        elif learned is not None:
            why = "its own requests to this endpoint are unusual"
            log.warning("s3_sent_by_boto3", bucket=bucket, why=why, headers=learned)

    @property
    def direct(self) -> bool:
        """Return whether requests are sent over our own client; else boto3 sends them all."""
        return self._endpoint is not None and self._corrections < _CORRECTIONS

    def put_object(self, request: Mapping[str, Any]) -> Awaitable[Mapping[str, Any]]:
        """Send an object. Raises boto3's errors, and HttpError."""
        return self._send(self._client.put_object, request, "")

    def upload_part(self, request: Mapping[str, Any]) -> Awaitable[Mapping[str, Any]]:
        """Send a part. Raises boto3's errors, and HttpError. Unlike boto3, accepts ServerSideEncryption as well."""
        query = f"partNumber={request['PartNumber']}&uploadId={quote(request['UploadId'], safe='-._~')}"
        return self._send(self._client.upload_part, request, query)

    async def get_object(
        self, request: Mapping[str, Any], reading: RangeReading
    ) -> tuple[Mapping[str, Any], bytes]:
        """Ask for the range of `reading`. Return what boto3 returns, and the bytes. Raises boto3's errors, HttpError,
        and UnlikeS3."""
        request = {**request, "Range": reading.range}
        if not self.direct:
            return await blocking(partial(self._get_by_boto3, request, reading))
        await self._renew_credentials()
        transfer = Transfer(
            self._sessions.reading,
            partial(self._signed, "GET", "Range", request, "", _EMPTY_DIGEST),
            reading.decide,
        )
        with suppress(Enough):
            await transfer
        answer = _Answer(transfer)
        if answer.status < 300:
            self._corrections = 0
            return answer.as_boto3(), reading.body_of(transfer)
        self._require_correctable(answer, "GetObject")
        response = await blocking(partial(self._get_by_boto3, request, reading))
        self._corrected(answer)
        return response

    def _get_by_boto3(
        self, request: Mapping[str, Any], reading: RangeReading
    ) -> tuple[Mapping[str, Any], bytes]:
        answer = self._client.get_object(**request)
        return answer, reading.out_of(answer)

    def close(self) -> None:
        if self._endpoint is not None:
            self._sessions.close()

    async def _send(
        self, by_boto3: Callable[..., Mapping[str, Any]], request: Mapping[str, Any], query: str
    ) -> Mapping[str, Any]:
        if not self.direct:
            return await blocking(lambda: by_boto3(**{**request, "Body": bytes(request["Body"])}))
        await self._renew_credentials()
        signs = self._signs_bodies is True
        answer = await self._sent(request, query, signs=signs)
        if self._signs_bodies is None and answer.may_refuse_unsigned:
            again = await self._sent(request, query, signs=True)
            if again.status == 200:
                log.info("s3_bodies_are_signed", bucket=self._bucket, code=answer.code)
                answer, signs = again, True
        if answer.status == 200:
            self._signs_bodies = signs
            self._corrections = 0
            return answer.as_boto3()
        self._require_correctable(answer, "UploadPart" if query else "PutObject")
        response = await blocking(lambda: by_boto3(**{**request, "Body": bytes(request["Body"])}))
        self._corrected(answer)
        return response

    async def _renew_credentials(self) -> None:
        if isinstance(self._credentials, RefreshableCredentials) and self._credentials.refresh_needed():
            await blocking(self._credentials.get_frozen_credentials)  # may ask the STS

    def _require_correctable(self, answer: _Answer, operation: str) -> None:
        """Raise the error of `answer`, unless boto3 knows how to correct the request."""
        if answer.code not in _CORRECTED_BY_BOTO3 and answer.status not in (301, 307):
            raise answer.error(operation)
        log.info("s3_request_corrected_by_boto3", bucket=self._bucket, code=answer.code)

    def _corrected(self, answer: _Answer) -> None:
        """Count it; boto3 sends everything once too many requests had to be corrected."""
        self._corrections += 1
        if not self.direct:
            why = f"{_CORRECTIONS} requests in a row had to be corrected, the last for {answer.code}"
            log.warning("s3_sent_by_boto3", bucket=self._bucket, why=why)

    async def _sent(self, request: Mapping[str, Any], query: str, *, signs: bool) -> _Answer:
        digest = await blocking(lambda: hashlib.sha256(request["Body"]).hexdigest()) if signs else UNSIGNED
        checked_by = "ChecksumCRC32C" if "ChecksumCRC32C" in request else "ContentMD5"
        if checked_by not in request:
            raise StorageError("a PUT to S3 without a checksum")
        return _Answer(
            await Transfer(
                self._sessions.sending(len(request["Body"])),
                partial(self._signed, "PUT", checked_by, request, query, digest),
                lambda coming: coming.limit(_ANSWER_BYTES),
            )
        )

    def _signed(
        self, method: str, varying: str, request: Mapping[str, Any], query: str, digest: str
    ) -> Request:
        """Make the request at the time it is sent. `varying`: see RequestTemplate. `digest`: x-amz-content-sha256.
        Raises StorageError for what it cannot carry."""
        assert self._credentials is not None, "without credentials nothing is sent from here"
        if request["Bucket"] != self._bucket:
            raise StorageError(f"a request for the bucket {request['Bucket']} among those for {self._bucket}")
        elsewhere = READ_ELSEWHERE if method == "GET" else ELSEWHERE
        template = self._template(
            method,
            int(time.time()),
            self._credentials.get_frozen_credentials(),
            varying,
            tuple([(n, header_text(v)) for n, v in request.items() if n not in elsewhere and n != varying]),
            tuple(request.get("Metadata", {}).items()),
        )
        return template.request(request["Key"], query, request[varying], digest, request.get("Body"))


# -- how boto3 would send it -------------------------------------------------------------------------------------
def _learn(client: Any, credentials: Credentials, bucket: str) -> Endpoint | tuple[str, ...]:
    """Return the endpoint, addressing style and region that boto3 chooses, from a request that it signs and that is
    never sent. For a request that ours would not equal, the names of the headers that we do not know."""
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
        return ()  # boto3 reports what is wrong with the first real request
    finally:
        client.meta.events.unregister(event, catch)
    if len(caught) != 1:
        return ()
    return _endpoint(caught[0], frozen, client.meta.config.proxies)


def _endpoint(
    request: AWSPreparedRequest, frozen: ReadOnlyCredentials, proxies: Mapping[str, str] | None
) -> Endpoint | tuple[str, ...]:
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    scope = _SCOPE.fullmatch(headers.get("authorization", ""))
    url = urlsplit(request.url)
    added = tuple(sorted(headers.keys() - BOTO3_HEADERS))
    plain = (
        scope is not None
        and scope[1] == frozen.access_key
        and headers.get("x-amz-content-sha256") in (UNSIGNED, _EMPTY_DIGEST)
        and headers.get("x-amz-security-token") == frozen.token
        and not added
        and url.scheme in ("http", "https")
        and url.path.endswith("/key")
        and not url.query
    )
    if not plain or scope is None or url.hostname is None:
        return added
    proxy = (proxies or get_environ_proxies(request.url)).get(url.scheme, "")
    user_agent = headers.get("user-agent", "boto3")
    path = url.path.removesuffix("key")
    return Endpoint(f"{url.scheme}://{url.netloc}", url.netloc, path, scope[2], user_agent, proxy)


class _NoBody:
    def stream(self, **_: object) -> Iterator[bytes]:
        return iter(())


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Answer:
    def __init__(self, transfer: Transfer) -> None:
        assert transfer.head is not None, "a transfer that ended well has a head"
        self.status = transfer.head.status
        self._headers = transfer.head.headers
        self._transfer = transfer
        self._error: bytes | None = None  # the body that describes it, once it is asked for

    @property
    def code(self) -> str:
        return self._said("Code") or str(self.status)

    @property
    def may_refuse_unsigned(self) -> bool:
        return self.status in _REFUSES_UNSIGNED and self.code not in _CORRECTED_BY_BOTO3 | _CHECKSUM_CODES

    def as_boto3(self) -> Mapping[str, Any]:
        named = (("ETag", "etag"), ("ChecksumCRC32C", "x-amz-checksum-crc32c"))
        return {name: value for name, header in named if (value := self._headers.get(header)) is not None}

    def error(self, operation: str) -> ClientError:
        parsed: Any = {
            "Error": {"Code": self.code, "Message": self._said("Message")},
            "ResponseMetadata": {
                "HTTPStatusCode": self.status,
                "RequestId": self._said("RequestId") or self._headers.get("x-amz-request-id") or "",
                "HTTPHeaders": {
                    name: value
                    for name in ("date", "retry-after")
                    if (value := self._headers.get(name)) is not None
                },
            },
        }
        return ClientError(parsed, operation)

    def _said(self, name: str) -> str:
        if self._error is None:
            self._error = self._transfer.take_body()
        found = re.search(rf"<{name}>([^<]*)</{name}>".encode(), self._error)
        return unescape(found[1].decode("utf-8", "replace")) if found else ""

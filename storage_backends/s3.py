"""S3 and its compatibles, by boto3: control here, the bytes' way in s3_data.py and s3_requests.py.

An object is proved by the server's own checksum or not at all: `ObjectInfo.crc32c` is None unless the server showed
that it computed the same. Which servers do what is in storage.md; none of it is believed here before it is seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from archiver.http import trust, waiting
from storage_backends import crc32c as crc
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Part, Upload, object_key
from storage_backends.conditional import Conditions, with_conditions
from storage_backends.destination_url import CREDENTIALS_HELP, DestinationUrl
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    BadDestinationUrl,
    BucketMissing,
    ChecksumRejected,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.per_process import PerProcess
from storage_backends.s3_data import Checksum, Confirmed, Receipt, S3DataPath
from storage_backends.s3_errors import (
    VENDOR_ERRORS,
    code_of,
    give_up_on_certificates,
    is_passing,
    kind_of,
    needed,
    status_of,
    translated,
)
from storage_backends.s3_requests import S3Requests

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

T = TypeVar("T")

MIB = 2**20
# Threads that share one client: the engine's, for several assets; a pool too small drops connections, a large one
# costs nothing until it is used.
_CONNECTIONS = 66
_LONGEST_PAUSE_SECONDS = 20  # between attempts, as in botocore's standard mode
_METADATA_ID = "archiverupload"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")  # AWS: 3 to 63, lower case; compatibles are laxer
_ADDRESSING_STYLES = ("auto", "path", "virtual")
_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_OPTIONS = ("endpoint_url", "region", "addressing_style", "checksum", "encryption", "kms_key_id")
_AWS_HOST = re.compile(r"(?:.+\.)?amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True)
class S3Settings:
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None  # None: AWS
    region: str | None = None  # None: as the SDK finds it
    addressing_style: str = "auto"
    checksum: Checksum = Checksum.AUTO
    encryption: str | None = None  # asked for with every object; None: as the bucket does by itself
    kms_key_id: str | None = None
    attempts: int = (
        5  # of one request, by botocore, within about 20 s; the archiver's own retries stand above
    )


def open_backend(url: DestinationUrl) -> S3Backend:
    """`s3://bucket/prefix`, with `endpoint_url`, `region`, `addressing_style` (auto, path, virtual), `checksum` (auto,
    crc32c, md5), `encryption` (AES256, aws:kms, aws:kms:dsse) and `kms_key_id` as options. Raises BadDestinationUrl;
    asks nobody."""
    url.only_options(_OPTIONS)
    if not url.bucket:
        raise BadDestinationUrl("an s3 destination names a bucket: s3://bucket/prefix")
    if not _BUCKET.fullmatch(url.bucket):
        raise BadDestinationUrl(f"destination {url.name}: {url.bucket!r} cannot be a bucket's name")
    endpoint_url = url.options.get("endpoint_url")
    if endpoint_url is not None:
        _check_endpoint(endpoint_url, url.name)
    style = url.options.get("addressing_style", "auto")
    if style not in _ADDRESSING_STYLES:
        raise BadDestinationUrl(
            f"destination {url.name}: addressing_style is one of {', '.join(_ADDRESSING_STYLES)}"
        )
    try:
        checksum = Checksum(url.options.get("checksum", "auto"))
    except ValueError:
        known = ", ".join(c.value for c in Checksum)
        raise BadDestinationUrl(f"destination {url.name}: checksum is one of {known}") from None
    region = url.options.get("region")
    if region is not None and not re.fullmatch(r"[A-Za-z0-9-]{1,64}", region):
        raise BadDestinationUrl(f"destination {url.name}: the region is a word such as eu-west-1")
    encryption, kms_key_id = _encryption(url)
    return S3Backend(
        S3Settings(url.bucket, url.prefix, endpoint_url, region, style, checksum, encryption, kms_key_id)
    )


def _encryption(url: DestinationUrl) -> tuple[str | None, str | None]:
    encryption, kms_key_id = url.options.get("encryption"), url.options.get("kms_key_id")
    if encryption is not None and encryption not in _ENCRYPTIONS:
        raise BadDestinationUrl(f"destination {url.name}: encryption is one of {', '.join(_ENCRYPTIONS)}")
    if kms_key_id is not None:
        if encryption not in _ENCRYPTIONS[1:]:
            raise BadDestinationUrl(f"destination {url.name}: kms_key_id goes with encryption=aws:kms")
        if not re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", kms_key_id):
            raise BadDestinationUrl(f"destination {url.name}: kms_key_id is a key's id, ARN or alias")
    return encryption, kms_key_id


def _check_endpoint(endpoint_url: str, name: str) -> None:
    wrong = f"destination {name}: endpoint_url is an address such as https://s3.example.com:9000"
    try:
        split = urlsplit(endpoint_url)
        host, _ = split.hostname, split.port
    except ValueError:
        raise BadDestinationUrl(wrong) from None
    if "@" in split.netloc:
        raise BadDestinationUrl(f"destination {name}, endpoint_url: {CREDENTIALS_HELP}")
    if split.scheme not in ("http", "https") or not host or split.query or split.fragment:
        raise BadDestinationUrl(wrong)


@dataclass(frozen=True, slots=True)
class _Connection:
    """One process's clients."""

    control: S3Client
    requests: S3Requests


class _Bucket:
    """What the backend and its uploads share: the client, the data path, and what this endpoint was seen to do."""

    def __init__(self, settings: S3Settings) -> None:
        options = {"endpoint_url": settings.endpoint_url} if settings.endpoint_url else {}
        self.name = DestinationUrl("s3", settings.bucket, settings.prefix, options).name
        self.bucket = settings.bucket
        self.prefix = f"{settings.prefix}/" if settings.prefix else ""
        self.conditions = Conditions()
        self.part_headers: Mapping[str, str] = {}
        self.connection = PerProcess(self._connect)
        self.data = S3DataPath(lambda: self.connection.get().requests, settings.bucket, settings.checksum)
        self._settings = settings
        self._seen = False
        self._head_gives_checksums = True  # until it refuses (with KMS it needs another permission)

    @property
    def client(self) -> Any:
        """boto3's; `Any` because its stubs accept no arguments that are put together."""
        return self.connection.get().control

    def _connect(self) -> _Connection:
        core = botocore.session.get_session()
        trusted = str(trust.authorities(also=trust.of_aws(core.get_config_variable("ca_bundle"))))
        core.set_config_variable("ca_bundle", trusted)  # for every client, those that fetch credentials too
        session = boto3.session.Session(botocore_session=core)
        region = self._settings.region or session.region_name
        if region is None and self._settings.endpoint_url is not None:
            region = "us-east-1"  # compatibles do not care, and the signature needs one
        s3: Any = {"payload_signing_enabled": True, "addressing_style": self._settings.addressing_style}
        control = session.client(
            "s3",
            region_name=region,
            endpoint_url=self._settings.endpoint_url,
            # storage.md: the default sends aws-chunked trailers that compatibles refuse or store in the object. What is
            # sent from here is small, and signed: some buckets demand it. Parts are another matter (s3_requests.py)
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3=s3,
                retries={"mode": "standard", "total_max_attempts": self._settings.attempts},
                max_pool_connections=_CONNECTIONS,
                connect_timeout=10,
                read_timeout=60,  # a Complete of 10,000 parts takes its time
                tcp_keepalive=True,
            ),
        )
        control.meta.events.register_first("needs-retry.s3", give_up_on_certificates)
        # seen from the client: an endpoint may also come from AWS_ENDPOINT_URL or a profile
        if _AWS_HOST.fullmatch(urlsplit(control.meta.endpoint_url).hostname or ""):
            self.conditions.trust_creates()
        return _Connection(
            control, S3Requests(control, session.get_credentials(), self._settings.bucket, Path(trusted))
        )

    def persistently(self, action: Callable[[], Awaitable[T]]) -> T:
        """What `action` returns, blocking; retried as boto3 retries its own requests, with the same pauses. For callers
        without a retry policy of their own."""

        async def run() -> T:
            for attempt in range(1, self._settings.attempts):
                try:
                    return await action()
                except VENDOR_ERRORS as error:
                    if not is_passing(error):
                        raise
                await waiting.Pause(random.uniform(0, min(2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)))  # noqa: S311
            return await action()

        return waiting.complete(run())

    def address(self, key: ObjectKey) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def headers(self, spec: ObjectSpec, identity: str | None = None) -> dict[str, Any]:
        """What describes a new object, in one request or at the start of an upload."""
        metadata = {**spec.metadata, _METADATA_ID: identity} if identity else dict(spec.metadata)
        return {"ContentType": spec.content_type, "Metadata": metadata, **self.encryption}

    @property
    def encryption(self) -> dict[str, str]:
        asked = {
            "ServerSideEncryption": self._settings.encryption,
            "SSEKMSKeyId": self._settings.kms_key_id,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def head(self, key: ObjectKey) -> Mapping[str, Any] | None:
        """HEAD answers without a body, so a missing key, a missing bucket and a refusal of the checksum mode look
        alike at first. Raises boto3's errors, and BucketMissing."""
        answer: Mapping[str, Any]
        try:
            try:
                mode = {"ChecksumMode": "ENABLED"} if self._head_gives_checksums else {}
                answer = self.client.head_object(**self.address(key), **mode)
            except ClientError as error:
                if not self._head_gives_checksums or status_of(error) not in (400, 403, 501):
                    raise
                answer = self.client.head_object(**self.address(key))
                self._head_gives_checksums = False  # learned: without it, it answers
        except ClientError as error:
            if status_of(error) != 404:
                raise
            self._see()
            return None
        return answer

    def _see(self) -> None:
        """Raise BucketMissing unless the bucket is there; asked once."""
        if self._seen:
            return
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if status_of(error) == 404:
                raise BucketMissing(
                    f"{self.name}: no such bucket; create it, or correct the destination"
                ) from None
            if kind_of(error) is not AccessDenied:
                raise
        self._seen = True

    def made_by(self, spec: ObjectSpec, identity: str, size_bytes: int | None) -> ObjectInfo | None:
        """The object at the key, when it is what the request with this identity made and we lost its answer."""
        answer = self.head(spec.key)
        if answer is None or size_bytes not in (None, needed(answer, "ContentLength")):
            return None
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return described(spec.key, answer) if metadata.get(_METADATA_ID) == identity else None


def described(key: ObjectKey, answer: Mapping[str, Any]) -> ObjectInfo:
    """What a HEAD says. A composite checksum is not that of the bytes, and one without a type is a header of ours that
    a server kept unread (rclone does)."""
    return ObjectInfo(
        key,
        needed(answer, "ContentLength"),
        crc.from_base64(answer.get("ChecksumCRC32C"))
        if answer.get("ChecksumType") == "FULL_OBJECT"
        else None,
        answer.get("ETag"),
        answer.get("ContentType"),
        answer.get("LastModified"),
    )


def _stored(spec: ObjectSpec, size_bytes: int, crc32c: int, receipt: Receipt) -> ObjectInfo:
    """What a PUT made, as far as its answer proves it."""
    proved = crc32c if receipt.confirmed is not Confirmed.NOT else None
    return ObjectInfo(spec.key, size_bytes, proved, receipt.etag, spec.content_type, datetime.now(UTC))


class S3Backend:
    """See `storage_backends.base.StorageBackend`.

    Conditions are believed when they were seen to work (storage_backends/conditional.py), `if_absent` on AWS at once.
    Elsewhere the key is looked at first, and a server that ignores them (radosgw and rclone do) leaves a gap.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._bucket = _Bucket(settings)
        self._limits = Limits(
            min_part_bytes=5 * MIB,
            max_part_bytes=5 * 1024 * MIB,
            max_parts=10_000,
            part_multiple_bytes=1,
            max_object_bytes=5 * 1024 * 1024 * MIB,
            parallel_parts=True,
            conditional_create=False,
        )

    @property
    def name(self) -> str:
        return self._bucket.name

    @property
    def limits(self) -> Limits:
        seen = self._bucket.conditions
        return with_conditions(self._limits, creates=seen.creates, replaces=seen.replaces)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = f"storing {spec.key!r} in {self.name}"
        if spec.if_absent or spec.if_match is not None:
            with translated(doing):
                return self._put_conditionally(spec, data, crc32c, doing)
        try:
            with translated(doing):
                return self._bucket.persistently(lambda: self._send(spec, data, crc32c))
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self, spec.key, len(data), crc32c)

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        """As `put`, without retries: see `storage_backends.base.Sends`."""
        if spec.if_absent or spec.if_match is not None:
            return await waiting.blocking(lambda: self.put(spec, data, crc32c))
        try:
            with translated(f"storing {spec.key!r} in {self.name}"):
                return await self._send(spec, data, crc32c)
        except AccessDenied as error:
            refusal = error
        return await waiting.blocking(lambda: equal_or_raise(refusal, self, spec.key, len(data), crc32c))

    async def _send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        bucket = self._bucket
        if bucket.connection.made() is None:  # half a second of boto3's, which the engine's thread has not
            await waiting.blocking(bucket.connection.get)
        receipt = await bucket.data.put(bucket.prefix + spec.key, data, crc32c, bucket.headers(spec))
        return _stored(spec, len(data), crc32c, receipt)

    def _put_conditionally(self, spec: ObjectSpec, data: Buffer, crc32c: int, doing: str) -> ObjectInfo:
        # by it the object is known as ours when the answer to an earlier attempt was lost
        identity = secrets.token_hex(16)
        bucket, headers = self._bucket, self._bucket.headers(spec, identity)
        bucket.connection.get()  # which tells whether this is AWS

        def send(condition: Mapping[str, str]) -> ObjectInfo:
            key, all_headers = bucket.prefix + spec.key, {**headers, **condition}
            try:
                receipt = bucket.persistently(lambda: bucket.data.put(key, data, crc32c, all_headers))
            except ClientError as error:
                lost = condition and kind_of(error) in (ObjectExists, ObjectMissing)
                done = bucket.made_by(spec, identity, len(data)) if lost else None
                if done is None:
                    raise
                return done
            return _stored(spec, len(data), crc32c, receipt)

        def create(conditional: bool) -> ObjectInfo:
            with translated(doing):
                return send({"IfNoneMatch": "*"} if conditional else {})

        def change(etag: str | None) -> ObjectInfo:
            try:
                with translated(doing):
                    return send({} if etag is None else {"IfMatch": etag})
            except (ObjectExists, ObjectMissing) as error:  # 412, and AWS's 404 where no object is
                raise ObjectChanged(str(error)) from error

        def etag_now() -> str | None:
            info = self.stat(spec.key)
            return None if info is None else info.etag

        if spec.if_match is None:
            return bucket.conditions.create(lambda: self.stat(spec.key) is not None, create, doing)
        never = f'"{secrets.token_hex(16)}"'
        return bucket.conditions.replace(spec.if_match, etag_now, change, never, doing)

    def begin(self, spec: ObjectSpec) -> Upload:
        identity = secrets.token_hex(16)
        doing = f"beginning {spec.key!r} in {self.name}"
        bucket = self._bucket
        try:
            with translated(doing):
                bucket.connection.get()
                if spec.if_absent and not bucket.conditions.creates and bucket.head(spec.key) is not None:
                    raise ObjectExists(f"{doing}: the key is taken")
                upload_id, algorithm = self._create(spec, identity)
        except AccessDenied as refusal:
            return UploadOfEqual.instead(self, spec, refusal)
        return S3Upload(self, bucket, spec, _Token(identity, algorithm, upload_id))

    def _create(self, spec: ObjectSpec, identity: str) -> tuple[str, str]:
        """The upload id, and what was agreed on: CRC32C of the whole (`full`), of the `parts` only, or `none`."""
        client = self._bucket.client
        request = self._bucket.address(spec.key) | self._bucket.headers(spec, identity)
        if not self._bucket.data.crc32c_refused:
            try:
                # declared here, or AWS would accept a wrong checksum of the whole (storage.md)
                answer = client.create_multipart_upload(
                    **request, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT"
                )
                return needed(answer, "UploadId"), "full" if answer.get(
                    "ChecksumType"
                ) == "FULL_OBJECT" else "parts"
            except ClientError as error:
                if kind_of(error) is not StorageError:
                    raise
        return needed(client.create_multipart_upload(**request), "UploadId"), "none"

    def resume(self, spec: ObjectSpec, token: str) -> S3Upload:
        parsed = _Token.parse(token, f"resuming {spec.key!r} in {self.name}")
        upload = S3Upload(self, self._bucket, spec, parsed)
        upload.parts()
        return upload

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        with translated(f"looking at {key!r} in {self.name}"):
            answer = self._bucket.head(key)
            return None if answer is None else described(key, answer)

    def read(self, key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        doing = f"reading {key!r} in {self.name}"
        if length_bytes == 0:
            if self.stat(key) is None:
                raise ObjectMissing(f"{doing}: it is not there")
            return b""
        last = "" if length_bytes is None else start + length_bytes - 1
        ranged = {"Range": f"bytes={start}-{last}"} if start or length_bytes is not None else {}
        with translated(doing):
            try:
                answer = self._bucket.client.get_object(**self._bucket.address(key), **ranged)
            except ClientError as error:
                if status_of(error) == 416:
                    return b""  # the object ends before `start`
                raise
            with contextlib.closing(answer["Body"]) as body:
                content_range = answer.get("ContentRange")
                if content_range is not None and not content_range.startswith(f"bytes {start}-"):
                    raise TransientStorageError(f"{doing}: another range was answered than the one asked for")
                to_skip = start if content_range is None else 0  # the whole object came instead of a range
                expected = max(0, needed(answer, "ContentLength") - to_skip)
                if length_bytes is not None:
                    expected = min(expected, length_bytes)
                while expected and to_skip and (skipped := body.read(min(to_skip, MIB))):
                    to_skip -= len(skipped)
                data: bytes = body.read(expected) if expected else b""
        if len(data) != expected:
            raise TransientStorageError(f"{doing}: {len(data)} bytes came, {expected} were announced")
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        doing = f"listing {prefix!r} in {self.name}"
        bucket = self._bucket
        with translated(doing):
            pages = iter(
                bucket.client.get_paginator("list_objects_v2").paginate(
                    Bucket=bucket.bucket, Prefix=bucket.prefix + prefix
                )
            )
        while True:
            with translated(doing):
                page = next(pages, None)
                if page is None:
                    return
                needed(page, "IsTruncated")  # or a portal's page would be an empty bucket
            for entry in page.get("Contents", []):
                with translated(doing):
                    name, size_bytes = needed(entry, "Key"), needed(entry, "Size")
                try:
                    key = object_key(name.removeprefix(bucket.prefix))
                except InvalidKey:
                    continue  # not ours: a folder's marker, say
                yield ObjectInfo(
                    key, size_bytes, etag=entry.get("ETag"), updated_at=entry.get("LastModified")
                )

    def delete(self, key: ObjectKey) -> None:
        with translated(f"deleting {key!r} in {self.name}"):
            try:
                self._bucket.client.delete_object(**self._bucket.address(key))
            except ClientError as error:
                if kind_of(error) is not ObjectMissing:  # AWS answers 204, some others 404
                    raise

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        """0 without a prefix: the uploads of the bucket's other programs would be among them. See `abort_uploads`."""
        return self.abort_uploads(older_than, lambda _: True) if self._bucket.prefix else 0

    def abort_uploads(self, older_than: timedelta, ours: Callable[[str], bool]) -> int:
        """See `storage_backends.base.AbortsUploads`."""
        limit = datetime.now(UTC) - older_than
        bucket, aborted = self._bucket, 0
        with translated(f"aborting stale uploads in {self.name}"):
            pages = bucket.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=bucket.bucket, Prefix=bucket.prefix
            )
            for page in pages:
                for upload in page.get("Uploads", []):
                    key, upload_id = needed(upload, "Key"), needed(upload, "UploadId")
                    if needed(upload, "Initiated") > limit or not key.startswith(bucket.prefix):
                        continue
                    if not ours(key.removeprefix(bucket.prefix)):
                        continue
                    try:
                        bucket.client.abort_multipart_upload(
                            Bucket=bucket.bucket, Key=key, UploadId=upload_id
                        )
                    except ClientError as error:
                        if kind_of(error) is not UploadGone:  # completed or aborted meanwhile
                            raise
                    else:
                        aborted += 1
        return aborted

    def removes_stale_uploads(self) -> bool | None:
        with translated(f"reading the lifecycle rules of {self.name}"):
            try:
                answer = self._bucket.client.get_bucket_lifecycle_configuration(Bucket=self._bucket.bucket)
            except ClientError as error:
                if code_of(error) == "NoSuchLifecycleConfiguration":
                    return False
                if kind_of(error) in (BucketMissing, TransientStorageError):
                    raise
                return None  # not allowed to ask, or a server without such rules
        return any(_aborts_uploads(rule, self._bucket.prefix) for rule in answer.get("Rules", []))

    def close(self) -> None:
        connection = self._bucket.connection.drop()
        if connection is not None:
            connection.requests.close()
            connection.control.close()


class S3Upload:
    """See `storage_backends.base.Upload`."""

    def __init__(self, store: S3Backend, bucket: _Bucket, spec: ObjectSpec, token: _Token) -> None:
        self._store = store
        self._bucket = bucket
        self._spec = spec
        self._token = token
        self._address = bucket.address(spec.key) | {"UploadId": token.upload_id}

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return str(self._token)

    def parts(self) -> Mapping[int, Part] | None:
        held: dict[int, Part] = {}
        with translated(f"asking for the parts of {self._described}"):
            try:
                for page in self._bucket.client.get_paginator("list_parts").paginate(**self._address):
                    for part in page.get("Parts", []):
                        checksum = crc.from_base64(part.get("ChecksumCRC32C"))
                        if checksum is None:
                            return None  # the server knows only its ETags
                        tag = _tag(Receipt(needed(part, "ETag"), Confirmed.CRC32C))
                        number = needed(part, "PartNumber")
                        held[number] = Part(number, needed(part, "Size"), checksum, tag)
            except ClientError as error:
                kind = kind_of(error)
                if kind is StorageError:
                    return None  # a server without ListParts
                if kind in (UploadGone, ObjectMissing):
                    if self._made(self._spec.size_bytes) is not None:
                        return None  # completed, and the answer was lost: `complete` will find that out again
                    raise UploadGone(
                        f"the upload of {self._described} is not known there any more"
                    ) from error
                raise
        return held

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        with self._sending(number):
            return self._bucket.persistently(lambda: self._send_part(number, data, crc32c))

    async def send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        """As `put_part`, without retries: see `storage_backends.base.SendsParts`."""
        with self._sending(number):
            return await self._send_part(number, data, crc32c)

    @contextlib.contextmanager
    def _sending(self, number: int) -> Iterator[None]:
        doing = f"part {number} of {self._described}"
        with translated(doing), _no_upload(doing):
            yield

    async def _send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        bucket, declared = self._bucket, self._token.algorithm != "none"

        def put(headers: Mapping[str, str]) -> Awaitable[Receipt]:
            address = {**self._address, **headers}
            return bucket.data.put_part(address, number, data, crc32c, crc32c_declared=declared)

        try:
            receipt = await put(bucket.part_headers)
        except ClientError as error:
            # AWS refuses these headers with a part; a policy elsewhere may demand them with everything
            if kind_of(error) is not AccessDenied or bucket.part_headers == bucket.encryption:
                raise
            try:
                receipt = await put(bucket.encryption)
            except ParamValidationError:  # boto3, which sends in place of us, does not know them here
                raise error from None
            bucket.part_headers = bucket.encryption  # learned: with them, it is taken
        return Part(number, len(data), crc32c, _tag(receipt))

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        doing = f"completing {self._described}"
        made = crc.of_parts(parts)
        if made != crc32c:
            raise ChecksumRejected(f"{doing}: the parts make CRC32C {made:08x}, not {crc32c:08x}")
        size = sum(part.size_bytes for part in parts)
        whole: dict[str, Any] = {}
        if self._token.algorithm == "full":
            whole = {
                "ChecksumCRC32C": crc.to_base64(crc32c),
                "ChecksumType": "FULL_OBJECT",
                "MpuObjectSize": size,
            }
        named = [_named(part) for part in parts]

        def send(conditional: bool) -> ObjectInfo:
            condition = {"IfNoneMatch": "*"} if conditional else {}
            with translated(doing), _no_upload(doing):
                try:
                    answer: Mapping[str, Any] = self._bucket.client.complete_multipart_upload(
                        **self._address, MultipartUpload={"Parts": named}, **whole, **condition
                    )
                except ClientError as error:
                    # the answer to an earlier attempt may have been lost, boto3's own attempts included
                    if kind_of(error) in (UploadGone, ObjectExists, ObjectMissing):
                        done = self._made(size)
                        if done is not None:
                            return done
                    if status_of(error) == 409:
                        raise UploadGone(
                            f"{doing}: 409, another write of this key was under way; begin again"
                        ) from error
                    raise
                return self._completed(answer, parts, size, crc32c, doing)

        def theirs() -> bool:
            with translated(doing):
                return self._bucket.head(self._spec.key) is not None and self._made(size) is None

        try:
            return (
                self._bucket.conditions.create(theirs, send, doing) if self._spec.if_absent else send(False)
            )
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self._store, self._spec.key, size, crc32c)

    def _completed(
        self, answer: Mapping[str, Any], parts: Sequence[Part], size: int, crc32c: int, doing: str
    ) -> ObjectInfo:
        if _confirms(answer, parts, crc32c):
            etag, content_type = answer.get("ETag"), self._spec.content_type
            return ObjectInfo(self._spec.key, size, crc32c, etag, content_type, datetime.now(UTC))
        stored = self._bucket.head(self._spec.key)
        if stored is None:
            raise TransientStorageError(f"{doing}: answered with success, yet the object is not there")
        info = described(self._spec.key, stored)
        # a server that computes another CRC than it says (moto) is no proof of damage: reading back decides
        return info if info.crc32c == crc32c else replace(info, crc32c=None)

    def abort(self) -> None:
        with translated(f"aborting the upload of {self._described}"):
            try:
                self._bucket.client.abort_multipart_upload(**self._address)
            except ClientError as error:
                if kind_of(error) not in (UploadGone, ObjectMissing):
                    raise

    @property
    def _described(self) -> str:
        return f"{self._spec.key!r} in {self._bucket.name}"

    def _made(self, size_bytes: int | None) -> ObjectInfo | None:
        return self._bucket.made_by(self._spec, self._token.identity, size_bytes)


@dataclass(frozen=True, slots=True)
class _Token:
    """`<our id, in the object's metadata>.<full | parts | none>.<the server's upload id>`"""

    identity: str
    algorithm: str
    upload_id: str

    def __str__(self) -> str:
        return f"{self.identity}.{self.algorithm}.{self.upload_id}"

    def __repr__(self) -> str:
        return "_Token(...)"

    @classmethod
    def parse(cls, text: str, doing: str) -> _Token:
        match = re.fullmatch(r"([0-9a-f]{32})\.(full|parts|none)\.(\S+)", text)
        if match is None:
            raise UploadGone(f"{doing}: the token is not one of an S3 upload")
        return cls(match[1], match[2], match[3])


@contextlib.contextmanager
def _no_upload(doing: str) -> Iterator[None]:
    """In an upload's own requests a 404 without a code we know means the upload."""
    try:
        yield
    except ClientError as error:
        if kind_of(error) is ObjectMissing:
            raise UploadGone(f"{doing}: {status_of(error)} {code_of(error)}") from error
        raise


def _tag(receipt: Receipt) -> str:
    return f"{receipt.confirmed.value} {receipt.etag}"


def _receipt(part: Part) -> Receipt:
    """Raises UploadGone for a tag that is none of ours: the upload begins again."""
    confirmed, _, etag = part.tag.partition(" ")
    try:
        return Receipt(etag, Confirmed(confirmed))
    except ValueError:
        raise UploadGone(f"part {part.number} was noted in a way that this version does not know") from None


def _named(part: Part) -> dict[str, Any]:
    """A part as Complete names it; with its CRC32C where the server computed the same."""
    receipt = _receipt(part)
    named: dict[str, Any] = {"PartNumber": part.number, "ETag": receipt.etag}
    if receipt.confirmed is Confirmed.CRC32C:
        named["ChecksumCRC32C"] = crc.to_base64(part.crc32c)
    return named


def _confirms(answer: Mapping[str, Any], parts: Sequence[Part], crc32c: int) -> bool:
    """Whether the server's own word, in its answer to Complete, proves that the object is ours.

    Either it computed the CRC32C of the whole, or that of the CRC32Cs of the parts; or it checked each part when it
    came, and the ETag says that the object is made of just these.
    """
    checksum = str(answer.get("ChecksumCRC32C", ""))
    if checksum == crc.to_base64(crc32c) and answer.get("ChecksumType") == "FULL_OBJECT":
        return True
    of_checksums = crc.crc32c_of(b"".join(part.crc32c.to_bytes(4, "big") for part in parts))
    if checksum == f"{crc.to_base64(of_checksums)}-{len(parts)}":
        return True
    receipts = [_receipt(part) for part in parts]
    if any(receipt.confirmed is Confirmed.NOT for receipt in receipts):
        return False
    try:
        digests = b"".join(bytes.fromhex(receipt.etag.strip('"')) for receipt in receipts)
    except ValueError:
        return False
    etag = hashlib.md5(digests, usedforsecurity=False).hexdigest()
    return str(answer.get("ETag", "")).strip('"') == f"{etag}-{len(parts)}"


def _aborts_uploads(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a lifecycle rule aborts unfinished uploads of every key under `prefix`."""
    if rule.get("Status") != "Enabled" or "AbortIncompleteMultipartUpload" not in rule:
        return False
    chosen = rule.get("Filter", {})
    if set(chosen) - {"Prefix"}:
        return False  # by tag or size: unfinished uploads have neither
    return prefix.startswith(chosen.get("Prefix", rule.get("Prefix", "")))

"""One bucket and prefix: clients, retries, and what this process has learned of the endpoint."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from archiver.http import trust, waiting
from archiver.retry_policy import STORE_CALL
from storage_backends import crc32c as crc
from storage_backends.base import (
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
)
from storage_backends.conditional import Conditions
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
)
from storage_backends.per_process import PerProcess
from storage_backends.s3.data_path import S3DataPath
from storage_backends.s3.errors import (
    VENDOR_ERRORS,
    give_up_on_certificates,
    is_transient,
    kind_of,
    needed,
    retry_after_of,
    status_of,
)
from storage_backends.s3.requests import S3Requests
from storage_backends.s3.roles import as_role
from storage_backends.s3.settings import METADATA_ID, S3Settings
from storage_backends.s3.timestamps import parse_timestamp

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

T = TypeVar("T")

# Threads that share one client: the engine's, for several assets. A pool that is too small drops connections, a large
# one costs nothing until it is used.
_CONNECTIONS = 66
COLD_CLASSES = ("GLACIER", "DEEP_ARCHIVE")
_AWS_HOST = re.compile(r"(?:.+\.)?amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True)
class _Connection:
    """One process's clients. Where both have the same role, `writing` is `control`, and `writes` is `reads`."""

    control: S3Client
    writing: S3Client
    reads: S3Requests
    writes: S3Requests

    def close(self) -> None:
        self.reads.close()
        self.control.close()
        if self.writing is not self.control:
            self.writes.close()
            self.writing.close()


class Bucket:
    """Shared by the backend and its uploads."""

    def __init__(self, settings: S3Settings) -> None:
        options = {"endpoint_url": settings.endpoint_url} if settings.endpoint_url else {}
        self.name = DestinationUrl("s3", settings.bucket, settings.prefix, options).name
        self.bucket = settings.bucket
        self.prefix = f"{settings.prefix}/" if settings.prefix else ""
        self.conditions = Conditions()
        self.part_headers: Mapping[str, str] = {}
        self.connection = PerProcess(self._connect)
        self._presigner = PerProcess(self._connect_presigner)
        self._jobs = PerProcess(self._connect_control)
        self.data = S3DataPath(lambda: self.connection.get().writes, settings.bucket, settings.checksum)
        self._settings = settings
        self._seen = False
        self._head_gives_checksums = True  # until it refuses: with KMS that needs another permission

    @property
    def settings(self) -> S3Settings:
        return self._settings

    @property
    def client(self) -> Any:
        """boto3's client for reads; `Any` because its stubs do not accept unpacked arguments."""
        return self.connection.get().control

    @property
    def writing_client(self) -> Any:
        """For what writes or deletes, and for uploads."""
        return self.connection.get().writing

    def _connect(self) -> _Connection:
        roles = self._settings.roles
        control, session, trusted = self._client(roles.reading)
        requests = partial(S3Requests, bucket=self._settings.bucket, ca_file=Path(trusted))
        writing, reads = control, requests(control, session.get_credentials())
        writes = reads
        if roles.writing != roles.reading:
            writing, session, _ = self._client(roles.writing)
            writes = requests(writing, session.get_credentials())
        # ask the client: an endpoint may also come from AWS_ENDPOINT_URL or a profile
        if is_aws(control.meta.endpoint_url):
            self.conditions.trust_creates()
        return _Connection(control, writing, reads, writes)

    def _client(self, role: str | None) -> tuple[S3Client, boto3.session.Session, str]:
        session, trusted = self._session(role)
        region = self._settings.region or session.region_name
        if region is None and self._settings.endpoint_url is not None:
            region = "us-east-1"  # compatible servers ignore it, but the signature needs one
        s3: Any = {"payload_signing_enabled": True, "addressing_style": self._settings.addressing_style}
        control = session.client(
            "s3",
            region_name=region,
            endpoint_url=self._settings.endpoint_url,
            # The default sends aws-chunked trailers that compatible servers refuse or store in the object. These
            # requests are small, and their bodies signed, as some buckets demand; for the data path see requests.py.
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3=s3,
                retries={"mode": "standard", "total_max_attempts": self._settings.attempts},
                max_pool_connections=_CONNECTIONS,
                connect_timeout=10,
                read_timeout=60,  # a CompleteMultipartUpload of 10,000 parts is slow
                tcp_keepalive=True,
            ),
        )
        control.meta.events.register_first("needs-retry.s3", give_up_on_certificates)
        return control, session, trusted

    def _session(self, role: str | None) -> tuple[boto3.session.Session, str]:
        core = botocore.session.get_session()
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=parse_timestamp)
        trusted = str(trust.authorities(also=trust.of_aws(core.get_config_variable("ca_bundle"))))
        core.set_config_variable("ca_bundle", trusted)  # for every client, also those that fetch credentials
        if role is not None:
            as_role(core, role, self._settings)
        return boto3.session.Session(botocore_session=core), trusted

    def _connect_presigner(self) -> Any:
        """Make a client that signs URLs: with its defaults boto3 signs those of us-east-1 in the old way, which KMS
        refuses."""
        control = self.client
        session, _ = self._session(self._settings.roles.reading)
        s3: Any = {"addressing_style": self._settings.addressing_style}
        return session.client(
            "s3",
            region_name=control.meta.region_name,
            endpoint_url=self._settings.endpoint_url,
            config=Config(signature_version="s3v4", s3=s3),
        )

    def _connect_control(self) -> Any:
        """Make a client of S3's control service, which has jobs, at the SDK's address (AWS_ENDPOINT_URL_S3_CONTROL)."""
        session, _ = self._session(self._settings.roles.writing)
        return session.client(
            "s3control",
            region_name=self.client.meta.region_name,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": self._settings.attempts},
                connect_timeout=10,
                read_timeout=60,
            ),
        )

    @property
    def jobs(self) -> Any:
        """boto3's client of S3's control service."""
        return self._jobs.get()

    def signed_url(self, key: ObjectKey, seconds: int) -> str:
        """Sign a GET. Sends no request. Raises boto3's errors."""
        signed: str = self._presigner.get().generate_presigned_url(
            "get_object", Params=self.address(key), ExpiresIn=seconds
        )
        return signed

    def with_retries(self, action: Callable[[], Awaitable[T]]) -> T:
        """Return what `action` returns, blocking; retried as boto3 retries its own requests, with the same backoff but
        never sooner than the store asked for. Longer than STORE_CALL.longest_asked is left to the caller's policy."""

        async def run() -> T:
            for attempt in range(1, self._settings.attempts):
                try:
                    return await action()
                except VENDOR_ERRORS as error:
                    asked = retry_after_of(error) or timedelta()
                    if not is_transient(error) or asked > STORE_CALL.longest_asked:
                        raise
                pause = STORE_CALL.pause(attempt, random.uniform(0, 1))  # noqa: S311
                await waiting.Pause(max(asked, pause).total_seconds())
            return await action()

        return waiting.complete(run())

    def address(self, key: ObjectKey) -> dict[str, str]:
        """The options of a request about one object."""
        return {**self.listed, "Key": self.prefix + key}

    @property
    def listed(self) -> dict[str, str]:
        """The options of a request about objects of the bucket."""
        return {"Bucket": self.bucket, **self._settings.payer}

    def head(self, key: ObjectKey) -> Mapping[str, Any] | None:
        """Send a HEAD; None for a missing key. Its response has no body, so a missing key, a missing bucket and a
        refusal of the checksum mode are told apart by further requests. Raises boto3's errors, and BucketMissing."""
        answer: Mapping[str, Any]
        try:
            try:
                mode = {"ChecksumMode": "ENABLED"} if self._head_gives_checksums else {}
                answer = self.client.head_object(**self.address(key), **mode)
            except ClientError as error:
                if not self._head_gives_checksums or status_of(error) not in (400, 403, 501):
                    raise
                answer = self.client.head_object(**self.address(key))
                self._head_gives_checksums = False  # learned: it answers without the checksum mode
        except ClientError as error:
            if status_of(error) != 404:
                raise
            self._require_bucket()
            return None
        return answer

    def _require_bucket(self) -> None:
        """Raise BucketMissing unless the bucket exists; asked once."""
        if self._seen:
            return
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if status_of(error) == 404:
                raise BucketMissing(
                    f"{self.name}: no such bucket; create it, or correct the destination", status=404
                ) from None
            if kind_of(error) is not AccessDenied:
                raise
        self._seen = True

    def made_by(self, spec: ObjectSpec, identity: str, size_bytes: int | None) -> ObjectInfo | None:
        """Return the object at the key if the request with this identity made it and its answer was lost."""
        answer = self.head(spec.key)
        if answer is None or size_bytes not in (None, needed(answer, "ContentLength")):
            return None
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return described(spec.key, answer) if metadata.get(METADATA_ID) == identity else None


def is_aws(endpoint_url: str) -> bool:
    return _AWS_HOST.fullmatch(urlsplit(endpoint_url).hostname or "") is not None


def described(key: ObjectKey, answer: Mapping[str, Any]) -> ObjectInfo:
    """Describe an object by the response to a HEAD. A composite checksum is not that of the bytes, and one without a
    type is only our own header, stored unread (rclone does that)."""
    storage_class = answer.get("StorageClass")
    return ObjectInfo(
        key,
        needed(answer, "ContentLength"),
        crc.from_base64(answer.get("ChecksumCRC32C"))
        if answer.get("ChecksumType") == "FULL_OBJECT"
        else None,
        answer.get("ETag"),
        answer.get("ContentType"),
        answer.get("LastModified"),
        storage_class,
        is_cold(storage_class, answer.get("ArchiveStatus"), answer.get("Restore", "")),
    )


def is_cold(storage_class: str | None, archive_status: str | None = None, restore: str = "") -> bool:
    """Return whether an object must be restored before it can be read. `archive_status`: of INTELLIGENT_TIERING;
    `restore`: x-amz-restore, which says so when a restored copy is there."""
    archived = storage_class in COLD_CLASSES or archive_status is not None
    return archived and 'ongoing-request="false"' not in restore

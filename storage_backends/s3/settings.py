"""The options of an S3 destination URL."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from storage_backends.base import ObjectSpec
from storage_backends.destination_url import CREDENTIALS_HELP, DestinationUrl
from storage_backends.errors import (
    BadDestinationUrl,
)
from storage_backends.labels import NONE as NO_LABELS
from storage_backends.labels import Labelling, labelling
from storage_backends.s3.data_path import Checksum

# AWS: 3 to 63 characters, lower case; compatible servers allow more
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_ADDRESSING_STYLES = ("auto", "path", "virtual")
_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_ACLS = (
    "private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read",
    "bucket-owner-full-control",
)  # fmt: skip
STORAGE_CLASSES = (
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE",
)  # fmt: skip
LOCK_MODES = ("GOVERNANCE", "COMPLIANCE")
_ROLE = r"arn:[a-z0-9-]+:(iam|sts)::[0-9]{12}:[A-Za-z0-9+=,.@_/-]{1,560}"
_A_ROLE = "the ARN of a role, such as arn:aws:iam::123456789012:role/archiver"
_MOST_TAGS = 10
_MOST_METADATA = 10
METADATA_ID = "archiverupload"
OPTIONS = (
    "endpoint_url", "region", "addressing_style", "checksum", "encryption", "kms_key_id", "kms_context",
    "bucket_key", "storage_class", "tags", "metadata", "acl", "request_payer", "lock_mode", "lock_days", "role_arn",
    "read_role_arn", "write_role_arn", "role_session_name", "external_id", "web_identity_file", "batch_role_arn",
)  # fmt: skip
"""All of them; docs/storage-backends.md describes each."""


@dataclass(frozen=True, slots=True)
class S3Roles:
    """Roles that are assumed at AWS's STS; None: the credentials as the SDK finds them. `reading` is that of HEAD, GET
    and LIST, `writing` that of everything else."""

    reading: str | None = None
    writing: str | None = None
    session_name: str = "recording-archiver"
    external_id: str | None = None
    web_identity_file: str | None = None  # of an OIDC token; None: the SDK's credentials assume the role


@dataclass(frozen=True, slots=True)
class S3Settings:
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None  # None: AWS
    region: str | None = None  # None: as the SDK finds it
    addressing_style: str = "auto"
    checksum: Checksum = Checksum.AUTO
    encryption: str | None = None  # requested for every object; None: the bucket's default
    kms_key_id: str | None = None
    kms_context: str | None = None  # JSON, in base64, as the header has it
    bucket_key: bool | None = None
    storage_class: str | None = None  # of media only
    tags: Labelling = NO_LABELS
    metadata: Labelling = NO_LABELS
    acl: str | None = None
    request_payer: str | None = None
    lock_mode: str | None = None
    lock_days: int | None = None
    roles: S3Roles = S3Roles()
    batch_role_arn: str | None = None  # what S3 Batch Operations assumes; None: it is not used
    # of one request, by botocore, within about 20 s; the archiver's own retry policies come on top
    attempts: int = 5

    @property
    def payer(self) -> dict[str, str]:
        """The option of every request of an object or a list."""
        return {"RequestPayer": self.request_payer} if self.request_payer else {}

    @property
    def encrypting(self) -> dict[str, str]:
        """The options that a bucket's policy may demand of a part as well."""
        return _given(ServerSideEncryption=self.encryption, SSEKMSKeyId=self.kms_key_id)

    def of_new_object(self, spec: ObjectSpec, identity: str | None = None) -> dict[str, Any]:
        """The options of PutObject and CreateMultipartUpload that describe a new object. All of them are in HEADERS of
        request_options.py, or are its Metadata."""
        metadata = {**self.metadata.of(spec), **spec.metadata}
        tags = self.tags.of(spec)
        if identity is not None:
            metadata[METADATA_ID] = identity
        options = _given(
            ContentType=spec.content_type,
            Metadata=metadata,
            ServerSideEncryption=self.encryption,
            SSEKMSKeyId=self.kms_key_id,
            SSEKMSEncryptionContext=self.kms_context,
            BucketKeyEnabled=self.bucket_key,
            StorageClass=self.storage_class if spec.media else None,
            Tagging=urlencode(tags) if tags else None,
            ACL=self.acl,
            RequestPayer=self.request_payer or None,
        )
        return options | self.lock() if spec.lock else options

    def lock(self) -> dict[str, Any]:
        """Return the options that lock an object from now on; none without `lock_mode`."""
        if self.lock_mode is None or self.lock_days is None:
            return {}
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=self.lock_days, seconds=1)
        return {"ObjectLockMode": self.lock_mode, "ObjectLockRetainUntilDate": until}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def settings_of(url: DestinationUrl) -> S3Settings:
    """Parse `s3://bucket/prefix` with OPTIONS. Sends no request. Raises BadDestinationUrl."""
    url.only_options(OPTIONS)
    if not url.bucket:
        raise BadDestinationUrl("an s3 destination names a bucket: s3://bucket/prefix")
    if not _BUCKET.fullmatch(url.bucket):
        raise BadDestinationUrl(f"destination {url.name}: {url.bucket!r} is not a valid bucket name")
    endpoint_url = url.options.get("endpoint_url")
    if endpoint_url is not None:
        _check_endpoint(endpoint_url, url.name)
    encryption, kms_key_id = _encryption(url)
    lock_mode, lock_days = lock_of(url, LOCK_MODES)
    return S3Settings(
        url.bucket,
        url.prefix,
        endpoint_url,
        region=url.matching("region", r"[A-Za-z0-9-]{1,64}", "a word such as eu-west-1"),
        addressing_style=url.one_of("addressing_style", _ADDRESSING_STYLES) or "auto",
        checksum=Checksum(url.one_of("checksum", [c.value for c in Checksum]) or "auto"),
        encryption=encryption,
        kms_key_id=kms_key_id,
        kms_context=_kms_context(url, encryption),
        bucket_key=_bucket_key(url, encryption),
        storage_class=_storage_class(url),
        tags=labelling(url, "tags", most=_MOST_TAGS),
        metadata=labelling(url, "metadata", most=_MOST_METADATA, reserved=(METADATA_ID,), plain_names=True),
        acl=url.one_of("acl", _ACLS),
        request_payer=url.one_of("request_payer", ("requester",)),
        lock_mode=lock_mode,
        lock_days=lock_days,
        roles=_roles(url),
        batch_role_arn=url.matching("batch_role_arn", _ROLE, _A_ROLE),
    )


def _storage_class(url: DestinationUrl) -> str | None:
    """Servers of others have classes of their own (radosgw)."""
    if "endpoint_url" in url.options:
        return url.matching("storage_class", "[A-Z][A-Z0-9_]{0,63}", "a word such as STANDARD_IA")
    return url.one_of("storage_class", STORAGE_CLASSES)


def _encryption(url: DestinationUrl) -> tuple[str | None, str | None]:
    encryption = url.one_of("encryption", _ENCRYPTIONS)
    if "kms_key_id" in url.options and encryption not in _ENCRYPTIONS[1:]:
        raise BadDestinationUrl(f"destination {url.name}: kms_key_id goes with encryption=aws:kms")
    return encryption, url.matching("kms_key_id", r"[A-Za-z0-9:/_-]{1,2048}", "the id, ARN or alias of a key")


def _kms_context(url: DestinationUrl, encryption: str | None) -> str | None:
    """Return `name=value;name=value` as JSON in base64."""
    text = url.options.get("kms_context")
    if text is None:
        return None
    if encryption not in _ENCRYPTIONS[1:]:
        raise BadDestinationUrl(f"destination {url.name}: kms_context goes with encryption=aws:kms")
    pairs = [entry.partition("=") for entry in text.split(";")]
    context = {name.strip(): value for name, _, value in pairs}
    if not all(name and value for name, value in context.items()) or len(context) != len(pairs):
        raise BadDestinationUrl(
            f"destination {url.name}: kms_context is a list such as department=media;tier=archive"
        )
    return base64.b64encode(json.dumps(context, sort_keys=True).encode()).decode()


def _bucket_key(url: DestinationUrl, encryption: str | None) -> bool | None:
    wanted = url.one_of("bucket_key", ("true", "false"))
    if wanted is not None and encryption != "aws:kms":
        raise BadDestinationUrl(f"destination {url.name}: bucket_key goes with encryption=aws:kms")
    return None if wanted is None else wanted == "true"


def lock_of(url: DestinationUrl, modes: tuple[str, ...]) -> tuple[str | None, int | None]:
    """Return `lock_mode` and `lock_days`. Raises BadDestinationUrl."""
    mode = url.one_of("lock_mode", modes)
    days = url.matching("lock_days", r"[1-9][0-9]{0,4}", "a number of days, from 1 to 36500")
    if (mode is None) != (days is None):
        raise BadDestinationUrl(f"destination {url.name}: lock_mode and lock_days go together")
    if days is not None and int(days) > 36_500:
        raise BadDestinationUrl(f"destination {url.name}: lock_days is a number of days, from 1 to 36500")
    return mode, None if days is None else int(days)


def _roles(url: DestinationUrl) -> S3Roles:
    both, reading, writing = (
        url.matching(option, _ROLE, _A_ROLE) for option in ("role_arn", "read_role_arn", "write_role_arn")
    )
    if both is not None and (reading or writing):
        raise BadDestinationUrl(
            f"destination {url.name}: give role_arn, or read_role_arn and write_role_arn, not both"
        )
    session_name = url.matching("role_session_name", r"[A-Za-z0-9+=,.@_-]{2,64}", "2 to 64 plain characters")
    external_id = url.matching("external_id", r"[A-Za-z0-9+=,.@:/_-]{2,1224}", "2 to 1224 plain characters")
    file = url.options.get("web_identity_file")
    if not (both or reading or writing) and (session_name or external_id or file):
        raise BadDestinationUrl(
            f"destination {url.name}: role_session_name, external_id and web_identity_file go with role_arn"
        )
    if file is not None and external_id is not None:
        raise BadDestinationUrl(f"destination {url.name}: a web identity has no external_id")
    return S3Roles(
        both or reading, both or writing, session_name or S3Roles().session_name, external_id, file
    )


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

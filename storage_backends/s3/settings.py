"""The options of an S3 destination URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from storage_backends.destination_url import CREDENTIALS_HELP, DestinationUrl
from storage_backends.errors import (
    BadDestinationUrl,
)
from storage_backends.s3.data_path import Checksum

# AWS: 3 to 63 characters, lower case; compatible servers allow more
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_ADDRESSING_STYLES = ("auto", "path", "virtual")
_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_OPTIONS = ("endpoint_url", "region", "addressing_style", "checksum", "encryption", "kms_key_id")


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
    # of one request, by botocore, within about 20 s; the archiver's own retry policies come on top
    attempts: int = 5


def settings_of(url: DestinationUrl) -> S3Settings:
    """Parse `s3://bucket/prefix`, with `endpoint_url`, `region`, `addressing_style` (auto, path, virtual), `checksum`
    (auto, crc32c, md5), `encryption` (AES256, aws:kms, aws:kms:dsse) and `kms_key_id` as options. Sends no request.
    Raises BadDestinationUrl."""
    url.only_options(_OPTIONS)
    if not url.bucket:
        raise BadDestinationUrl("an s3 destination names a bucket: s3://bucket/prefix")
    if not _BUCKET.fullmatch(url.bucket):
        raise BadDestinationUrl(f"destination {url.name}: {url.bucket!r} is not a valid bucket name")
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
    return S3Settings(url.bucket, url.prefix, endpoint_url, region, style, checksum, encryption, kms_key_id)


def _encryption(url: DestinationUrl) -> tuple[str | None, str | None]:
    encryption, kms_key_id = url.options.get("encryption"), url.options.get("kms_key_id")
    if encryption is not None and encryption not in _ENCRYPTIONS:
        raise BadDestinationUrl(f"destination {url.name}: encryption is one of {', '.join(_ENCRYPTIONS)}")
    if kms_key_id is not None:
        if encryption not in _ENCRYPTIONS[1:]:
            raise BadDestinationUrl(f"destination {url.name}: kms_key_id goes with encryption=aws:kms")
        if not re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", kms_key_id):
            raise BadDestinationUrl(f"destination {url.name}: kms_key_id is the id, ARN or alias of a key")
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

"""Parse what the head of a response says about a source."""

from __future__ import annotations

import base64
import binascii
import re

from archiver.http.head import Headers
from archiver.transfer.base import SourceInfo
from archiver.transfer.codings import codings_in
from archiver.transfer.http import Response

_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')


def source_info(
    response: Response,
    size_bytes: int | None,
    *,
    ranges: bool = False,
    framed: bool = True,
    coding: str | None = None,
    encoded_bytes: int | None = None,
) -> SourceInfo:
    """`coding`: what is undone, or is to be kept. Announced checksums are of the bytes as they are sent."""
    headers = response.headers
    whole = response.status == 200 or size_bytes == response.head.length_bytes
    is_sent_form = coding is None or size_bytes is not None
    crc32c, md5 = announced_checksums(headers, whole) if is_sent_form else (None, None)
    return SourceInfo(
        size_bytes=size_bytes,
        ranges=ranges,
        etag=headers.get("etag"),
        last_modified=headers.get("last-modified"),
        content_type=headers.get("content-type"),
        crc32c=crc32c,
        md5=md5,
        encoded_bytes=encoded_bytes,
        framed=framed,
        coding=coding,
    )


def announced_checksums(headers: Headers, whole: bool) -> tuple[int | None, bytes | None]:
    """CRC32C and MD5 of the whole file as it is sent, where the source really means that."""
    crc32c: int | None = None
    md5: bytes | None = None
    goog = headers.get("x-goog-hash")
    if goog and not codings_in(headers, "x-goog-stored-content-encoding"):  # else: of the packed form
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

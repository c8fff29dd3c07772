"""Copies within S3: CopyObject, and UploadPartCopy for large objects. The bytes do not pass here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from storage_backends import crc32c as crc
from storage_backends.base import ObjectSpec
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.errors import VENDOR_ERRORS, needed

MIB = 2**20
COPY_ONCE_BYTES = 256 * MIB
"""Of one CopyObject, which must end within the read timeout; it may have 5 GiB."""
PART_BYTES = 256 * MIB
_MAX_PARTS = 10_000
_AT_ONCE = 4  # parts

Create = Callable[[], tuple[str, str]]
"""Begin a multipart upload; its id and the checksum that was agreed on (`full`, `parts`, `none`)."""


def copy_object(bucket: Bucket, spec: ObjectSpec, source: Mapping[str, Any]) -> None:
    """Copy `source`, the options that name it, in one request. Raises boto3's errors."""
    asked = {
        **bucket.settings.of_new_object(spec),
        "MetadataDirective": "REPLACE",
        "ChecksumAlgorithm": "CRC32C",
    }
    if "Tagging" in asked:
        asked["TaggingDirective"] = "REPLACE"
    if bucket.data.crc32c_refused:
        del asked["ChecksumAlgorithm"]
    request = {**bucket.address(spec.key), **_known(bucket, "CopyObject", asked), **source}
    bucket.writing_client.copy_object(**request)


def copy_in_parts(
    bucket: Bucket,
    spec: ObjectSpec,
    source: Mapping[str, Any],
    crc32c: int,
    create: Create,
    between: Callable[[], None],
) -> None:
    """Copy `source` part by part, several at once; nothing is left of a copy that fails here. Raises boto3's errors,
    and what `between` raises."""
    assert spec.size_bytes is not None, "the caller knows the source"
    upload_id, algorithm = create()
    address = {**bucket.address(spec.key), "UploadId": upload_id}
    part_bytes = max(PART_BYTES, -(-spec.size_bytes // _MAX_PARTS))
    starts = range(0, spec.size_bytes, part_bytes)

    def copied(number: int, start: int) -> dict[str, Any]:
        last = min(start + part_bytes, spec.size_bytes or 0) - 1
        answer = bucket.writing_client.upload_part_copy(
            **address, **source, PartNumber=number, CopySourceRange=f"bytes={start}-{last}"
        )
        result = needed(answer, "CopyPartResult")
        part = {"PartNumber": number, "ETag": needed(result, "ETag")}
        if algorithm != "none" and (checksum := result.get("ChecksumCRC32C")):
            part["ChecksumCRC32C"] = checksum
        return part

    try:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="s3-copy") as pool:
            parts = []
            for first in range(0, len(starts), _AT_ONCE):
                between()
                numbered = enumerate(starts[first : first + _AT_ONCE], first + 1)
                futures = [pool.submit(copied, number, start) for number, start in numbered]
                parts += [future.result() for future in futures]
        whole = {"ChecksumType": "FULL_OBJECT", "ChecksumCRC32C": crc.to_base64(crc32c)}
        bucket.writing_client.complete_multipart_upload(
            **address, MultipartUpload={"Parts": parts}, **(whole if algorithm == "full" else {})
        )
    except BaseException:
        with suppress(*VENDOR_ERRORS):
            bucket.writing_client.abort_multipart_upload(**address)
        raise


def _known(bucket: Bucket, operation: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that the operation takes: CopyObject has no Content-MD5 and no conditions of ours."""
    members = bucket.writing_client.meta.service_model.operation_model(operation).input_shape.members
    return {name: value for name, value in options.items() if name in members}

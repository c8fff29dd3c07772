"""Uploads that nobody finishes: abort them, and learn whether a rule of the bucket does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from storage_backends.errors import UploadGone
from storage_backends.operation import Operation
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.errors import kind_of, needed, translated


def aborted(bucket: Bucket, older_than: timedelta, ours: Callable[[str], bool]) -> int:
    """See `storage_backends.optional.AbortsUploads`."""
    limit, number = datetime.now(UTC) - older_than, 0
    with translated(Operation("abort_stale_uploads", bucket.name, None, "aborting stale uploads")):
        pages = bucket.writing_client.get_paginator("list_multipart_uploads").paginate(
            **bucket.listed, Prefix=bucket.prefix
        )
        for page in pages:
            for upload in page.get("Uploads", []):
                key, upload_id = needed(upload, "Key"), needed(upload, "UploadId")
                if needed(upload, "Initiated") > limit or not key.startswith(bucket.prefix):
                    continue
                if not ours(key.removeprefix(bucket.prefix)):
                    continue
                try:
                    bucket.writing_client.abort_multipart_upload(**bucket.listed, Key=key, UploadId=upload_id)
                except ClientError as error:
                    if kind_of(error) is not UploadGone:  # completed or aborted meanwhile
                        raise
                else:
                    number += 1
    return number


def is_aborted_by(rule: Mapping[str, Any], prefix: str) -> bool:
    """Return whether a lifecycle rule aborts unfinished uploads of every key under `prefix`."""
    if rule.get("Status") != "Enabled" or "AbortIncompleteMultipartUpload" not in rule:
        return False
    chosen = rule.get("Filter", {})
    if set(chosen) - {"Prefix"}:
        return False  # by tag or size: unfinished uploads have neither
    return prefix.startswith(chosen.get("Prefix", rule.get("Prefix", "")))

"""Object Lock: objects that are stored already are locked for the days of the settings.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from storage_backends.base import ObjectKey
from storage_backends.errors import AccessDenied, BucketMissing
from storage_backends.operation import Operation
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.errors import kind_of, translated

_AT_ONCE = 16


def locked(bucket: Bucket, keys: Collection[ObjectKey]) -> datetime | None:
    """See `storage_backends.optional.Locks`."""
    asked = bucket.settings.lock()
    if not asked:
        return None
    until: datetime = asked["ObjectLockRetainUntilDate"]
    retention = {"Mode": asked["ObjectLockMode"], "RetainUntilDate": until}
    with ThreadPoolExecutor(min(_AT_ONCE, max(len(keys), 1))) as pool:
        list(pool.map(lambda key: _lock(bucket, key, retention), keys))
    return until


def _lock(bucket: Bucket, key: ObjectKey, retention: Mapping[str, Any]) -> None:
    with translated(Operation("lock", bucket.name, key, "locking")):
        try:
            bucket.writing_client.put_object_retention(**bucket.address(key), Retention=retention)
        except ClientError as error:
            if kind_of(error) is not AccessDenied or not _is_locked_longer(bucket, key, retention):
                raise


def _is_locked_longer(bucket: Bucket, key: ObjectKey, retention: Mapping[str, Any]) -> bool:
    """Return whether a lock there, which nobody may shorten, already does what `retention` asks for."""
    try:
        there = bucket.head(key) or {}
    except (ClientError, BucketMissing):
        return False
    until = there.get("ObjectLockRetainUntilDate")
    stands = there.get("ObjectLockMode") in (retention["Mode"], "COMPLIANCE")
    return stands and until is not None and until >= retention["RetainUntilDate"]

"""Every generation of objects: list, delete, and learn until when one is locked.

What soft delete keeps cannot be deleted sooner; it is listed with its date.
https://cloud.google.com/storage/docs/soft-delete"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from storage_backends.base import object_key
from storage_backends.errors import AccessDenied, InvalidKey, ObjectMissing, StorageError
from storage_backends.gcs.bucket import ONCE, Bucket
from storage_backends.operation import Operation
from storage_backends.optional import ExpiryRule, NotDeleted, ObjectVersion

_PAGE = 1000
_FIELDS = "items(name,generation,timeDeleted,softDeleteTime,hardDeleteTime),nextPageToken"
_THREADS = 8


def listed(bucket: Bucket, prefix: str) -> Iterator[ObjectVersion]:
    """See `storage_backends.optional.KeepsVersions`. Where the service has no soft delete, such objects are
    left out."""
    for blob in _blobs(bucket, prefix, versions=True):
        if (version := _version(bucket, blob, is_current=blob.time_deleted is None)) is not None:
            yield version
    try:
        for blob in _blobs(bucket, prefix, soft_deleted=True):
            gone_at = getattr(blob, "hard_delete_time", None)
            if gone_at is None:
                continue  # a service without soft delete lists what is there
            if (version := _version(bucket, blob, is_current=False, gone_at=gone_at)) is not None:
                yield version
    except AccessDenied:
        raise
    except StorageError as error:
        if error.status != 400:  # the bucket has no soft delete policy
            raise


def _blobs(bucket: Bucket, prefix: str, **which: bool) -> Iterator[Any]:
    doing = Operation("versions", bucket.name, None, f"listing the generations of {prefix!r}")
    token: str | None = None

    def page(at: str | None) -> tuple[list[Any], str | None]:
        found = bucket.connected().list_blobs(
            bucket.bucket,
            prefix=bucket.prefix + prefix,
            page_size=_PAGE,
            page_token=at,
            fields=_FIELDS,
            **which,
            **ONCE,
        )
        return list(next(found.pages)), found.next_page_token

    while True:
        at = token
        try:
            blobs, token = bucket.retry(doing, lambda: page(at))  # noqa: B023 # called immediately
        except ObjectMissing:
            raise bucket.missing(doing) from None
        yield from blobs
        if not token:
            return


def _version(
    bucket: Bucket, blob: Any, *, is_current: bool, gone_at: datetime | None = None
) -> ObjectVersion | None:
    try:
        key = object_key(blob.name.removeprefix(bucket.prefix))
    except InvalidKey:
        return None  # not ours
    return ObjectVersion(key, str(blob.generation), is_current, gone_at)


def deleted(bucket: Bucket, versions: Sequence[ObjectVersion]) -> list[NotDeleted]:
    """See `storage_backends.optional.KeepsVersions`. A request for each."""
    if len(versions) < 2:
        return [each for version in versions if (each := _one(bucket, version)) is not None]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="delete") as pool:
        found = pool.map(lambda version: _one(bucket, version), versions)
        return [each for each in found if each is not None]


def _one(bucket: Bucket, version: ObjectVersion) -> NotDeleted | None:
    doing = Operation("delete_versions", bucket.name, version.key, "deleting a generation of")
    blob = (
        bucket.connected().bucket(bucket.bucket).blob(bucket.prefix + version.key, generation=int(version.id))
    )
    try:
        bucket.retry(doing, lambda: blob.delete(**ONCE))
    except ObjectMissing:
        return None
    except AccessDenied as error:
        return NotDeleted(version, str(error), _locked_until(bucket, blob, doing))
    return None


def _locked_until(bucket: Bucket, blob: Any, doing: Operation) -> datetime | None:
    """None where no date is known: a hold, another refusal, or no right to ask."""
    try:
        bucket.retry(doing, lambda: blob.reload(**ONCE))
    except StorageError:
        return None
    if blob.temporary_hold or blob.event_based_hold:
        return None
    retention = getattr(blob, "retention", None)
    dates = [blob.retention_expiration_time, getattr(retention, "retain_until_time", None)]
    latest = max((date for date in dates if isinstance(date, datetime)), default=None)
    return latest if latest is not None and latest > datetime.now(UTC) - timedelta(days=1) else None


def expiry_rules(bucket: Bucket) -> list[ExpiryRule] | None:
    """See `storage_backends.optional.ReadsExpiryRules`. Needs storage.buckets.get."""
    doing = Operation("expiry_rules", bucket.name, None, "reading the lifecycle rules")
    try:
        found = bucket.retry(doing, lambda: bucket.connected().get_bucket(bucket.bucket, **ONCE))
        rules = list(found.lifecycle_rules)
    except AccessDenied:
        return None
    reached = []
    for number, rule in enumerate(rules, 1):
        condition = rule.get("condition", {})
        if rule.get("action", {}).get("type") != "Delete" or condition.get("isLive") is False:
            continue
        if {"numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore"} & set(condition):
            continue  # of older generations alone
        for wanted in condition.get("matchesPrefix") or [""]:
            if wanted.startswith(bucket.prefix) or bucket.prefix.startswith(wanted):
                rest = wanted.removeprefix(bucket.prefix) if wanted.startswith(bucket.prefix) else ""
                reached.append(ExpiryRule(f"number {number}", rest, int(condition.get("age", 0))))
    return reached

"""Every version of objects in a versioned bucket: list, delete, and learn until when one is locked.

A DELETE without a version id hides an object in such a bucket and keeps its bytes; a DELETE of a version removes them,
unless Object Lock forbids it. A bucket that was never versioned has one version of each object, named "null".
https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeletingObjectVersions.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from storage_backends.base import ObjectInfo, object_key
from storage_backends.errors import (
    AccessDenied,
    InvalidKey,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)
from storage_backends.operation import Operation
from storage_backends.optional import NotDeleted, ObjectVersion
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.errors import kind_of, needed, status_of, translated

NULL = "null"
LOCKS_ASKED = 20
"""Refused versions of one call whose lock is asked for: a request each. The others have the latest of their dates."""


def listed(bucket: Bucket, prefix: str, visible: Iterator[ObjectInfo]) -> Iterator[ObjectVersion]:
    """See `storage_backends.optional.KeepsVersions`. `visible`: the plain list of the same, for a server that has no
    versions, or a bucket that was never versioned and whose versions may not be listed."""
    doing = Operation("versions", bucket.name, None, f"listing the versions of {prefix!r}")
    with translated(doing):
        pages = iter(
            bucket.writing_client.get_paginator("list_object_versions").paginate(
                **bucket.listed, Prefix=bucket.prefix + prefix
            )
        )
        try:
            page = next(pages, None)
        except ClientError as error:
            kind = kind_of(error)
            is_unknown = kind is StorageError or status_of(error) in (405, 501)
            if not is_unknown and not (kind is AccessDenied and _is_unversioned(bucket)):
                raise
            page = None
            is_plain = True
        else:
            is_plain = False
    if is_plain:
        for info in visible:
            yield ObjectVersion(info.key, "", True)
        return
    while page is not None:
        with translated(doing):
            needed(page, "IsTruncated")
        for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            with translated(doing):
                name, version = needed(entry, "Key"), needed(entry, "VersionId")
            try:
                key = object_key(name.removeprefix(bucket.prefix))
            except InvalidKey:
                continue  # not ours
            is_current = bool(entry.get("IsLatest")) and "Size" in entry
            yield ObjectVersion(key, version or NULL, is_current)
        with translated(doing):
            page = next(pages, None)


def _is_unversioned(bucket: Bucket) -> bool:
    try:
        answer = bucket.writing_client.get_bucket_versioning(Bucket=bucket.bucket)
    except ClientError:
        return False
    return "Status" not in answer


def deleted(bucket: Bucket, versions: Sequence[ObjectVersion]) -> list[NotDeleted]:
    """See `storage_backends.optional.KeepsVersions`. One request for all where the server can, else one for each."""
    with translated(Operation("delete_versions", bucket.name, None, f"deleting {len(versions)} versions")):
        refused = _together(bucket, versions) if len(versions) > 1 else None
        if refused is None:
            refused = [each for version in versions if (each := _one(bucket, version)) is not None]
    asked = [_locked_until(bucket, version) for version, _ in refused[:LOCKS_ASKED]]
    latest = max((each for each in asked if each is not None), default=None)
    dates = asked + [latest] * (len(refused) - len(asked))
    return [
        NotDeleted(version, reason, until) for (version, reason), until in zip(refused, dates, strict=True)
    ]


def _together(bucket: Bucket, versions: Sequence[ObjectVersion]) -> list[tuple[ObjectVersion, str]] | None:
    """Return what was refused, and why; None when the server does not take the request."""
    named = {(bucket.prefix + version.key, version.id): version for version in versions}
    wanted = [{"Key": key, "VersionId": version} for key, version in named]
    try:
        answer = bucket.writing_client.delete_objects(
            **bucket.listed, Delete={"Objects": wanted, "Quiet": True}
        )
    except ClientError as error:
        if kind_of(error) in (StorageError, AccessDenied):
            return None  # not implemented, or another form is wanted: one by one
        raise
    refused = []
    for problem in answer.get("Errors", []):
        code, key = str(problem.get("Code", "")), problem.get("Key")
        version = named.get((key, problem.get("VersionId") or NULL))
        version = version or next((each for (name, _), each in named.items() if name == key), None)
        if code in ("NoSuchKey", "NoSuchVersion") or version is None:
            continue
        if code in ("InternalError", "SlowDown", "ServiceUnavailable"):
            raise TransientStorageError(f"{bucket.name}: deleting {key!r}: {code}")
        refused.append((version, f"{code}: {problem.get('Message', '')}"))
    return refused


def _one(bucket: Bucket, version: ObjectVersion) -> tuple[ObjectVersion, str] | None:
    try:
        bucket.writing_client.delete_object(**bucket.address(version.key), VersionId=version.id)
    except ClientError as error:
        kind = kind_of(error)
        if kind is ObjectMissing:
            return None
        if kind is not AccessDenied:
            raise
        return version, _said(error)
    return None


def _said(error: ClientError) -> str:
    found: Any = error.response.get("Error", {})
    return f"{found.get('Code', 'refused')}: {found.get('Message', '')}"


def _locked_until(bucket: Bucket, version: ObjectVersion) -> datetime | None:
    """None where no lock with a date is known: a legal hold, another refusal, or no right to ask."""
    chosen = {} if version.id == NULL else {"VersionId": version.id}
    try:
        answer = bucket.writing_client.head_object(**bucket.address(version.key), **chosen)
    except ClientError:
        return None
    if answer.get("ObjectLockLegalHoldStatus") == "ON":
        return None
    until = answer.get("ObjectLockRetainUntilDate")
    return until if isinstance(until, datetime) else None

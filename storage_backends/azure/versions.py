"""Every version of blobs: current ones, versions, snapshots, and what soft delete still keeps.

A DELETE hides a blob of an account with versioning and keeps its bytes. Soft delete, which the portal switches on for
new accounts, keeps even deleted versions for its days, and nobody can end that sooner.
https://learn.microsoft.com/azure/storage/blobs/soft-delete-blob-overview
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from storage_backends.azure.container import Container
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

_PAGE = 5000
_EVERYTHING = ["versions", "snapshots", "deleted"]
_VERSION, _SNAPSHOT = "v:", "s:"


def listed(container: Container, prefix: str, visible: Iterator[ObjectInfo]) -> Iterator[ObjectVersion]:
    """See `storage_backends.optional.KeepsVersions`. `visible`: the plain list of the same, for a server that refuses
    to list more (Azurite)."""
    doing = Operation("versions", container.name, None, f"listing the versions of {prefix!r}")
    token: str | None = None

    def page(token: str | None) -> tuple[list[Any], str | None]:
        found = container.control().list_blobs(
            container.prefix + prefix, include=_EVERYTHING, results_per_page=_PAGE
        )
        pages = found.by_page(token)
        return list(next(pages)), pages.continuation_token

    while True:
        at = token
        try:
            blobs, token = container.retry(doing, lambda: page(at))  # noqa: B023 # called immediately
        except StorageError as error:
            if type(error) is not StorageError or at is not None:
                raise
            yield from (ObjectVersion(info.key, "", True) for info in visible)
            return
        for blob in blobs:
            try:
                key = object_key(blob.name.removeprefix(container.prefix))
            except InvalidKey:
                continue  # not ours
            yield _version(key, blob)
        if not token:
            return


def _version(key: Any, blob: Any) -> ObjectVersion:
    version = f"{_VERSION}{blob.version_id}" if blob.version_id else ""
    if blob.snapshot:
        version = f"{_SNAPSHOT}{blob.snapshot}"
    gone_at = None
    if blob.deleted and blob.deleted_time is not None and blob.remaining_retention_days is not None:
        # whole days that are left; the last one counts as well
        gone_at = blob.deleted_time + timedelta(days=blob.remaining_retention_days + 1)
    is_current = not (blob.deleted or blob.snapshot) and (
        not blob.version_id or bool(blob.is_current_version)
    )
    return ObjectVersion(key, version, is_current, gone_at)


def deleted(container: Container, versions: Sequence[ObjectVersion]) -> list[NotDeleted]:
    """See `storage_backends.optional.KeepsVersions`. A request for each: a batch needs other permissions."""
    refused = []
    for version in versions:
        if version.gone_at is not None:
            continue  # deleted already; the service ends it by itself
        doing = Operation("delete_versions", container.name, version.key, "deleting a version of")
        blob = container.control().get_blob_client(container.prefix + version.key)
        which: dict[str, Any] = {"delete_snapshots": "include"}
        if version.id.startswith(_SNAPSHOT):
            blob = container.control().get_blob_client(
                container.prefix + version.key, snapshot=version.id.removeprefix(_SNAPSHOT)
            )
            which = {}
        elif version.id.startswith(_VERSION) and not version.is_current:
            which = {"version_id": version.id.removeprefix(_VERSION)}
        try:
            container.retry(doing, lambda: blob.delete_blob(**which))  # noqa: B023 # called immediately
        except ObjectMissing:
            continue
        except TransientStorageError:
            raise
        except (AccessDenied, StorageError) as error:
            refused.append(NotDeleted(version, str(error)))
    return refused

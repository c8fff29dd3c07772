"""Copies within a storage account: Copy Blob. The bytes do not pass here. MD5 and blocks stay those of the source, so
that our CRC32C beside them holds (https://learn.microsoft.com/rest/api/storageservices/copy-blob)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from azure.storage.blob import ContentSettings

from storage_backends.azure.container import Container
from storage_backends.azure.settings import METADATA_CRC32C, METADATA_ID, METADATA_MD5
from storage_backends.base import ObjectKey, ObjectSpec
from storage_backends.errors import StorageError, TransientStorageError
from storage_backends.operation import Operation
from storage_backends.optional import Place

LONGEST = timedelta(hours=1)
"""Of one copy, which the service makes in its own time; mostly it is done at once."""
_LOOK_SECONDS = 2.0
_OURS = (METADATA_ID, METADATA_CRC32C, METADATA_MD5)


def place_of(container: Container) -> Place:
    settings = container.settings
    return Place(f"azure {settings.account} {settings.endpoint_url}", settings.container, container.prefix)


def copy(
    container: Container,
    place: Place,
    key: ObjectKey,
    spec: ObjectSpec,
    doing: Operation,
    between: Callable[[], None],
) -> None:
    """Copy, and wait for the end. Raises ObjectMissing for a missing source, other StorageErrors, and what `between`
    raises; an unfinished copy is then ended."""
    service = container.connection.get().service
    source = service.get_blob_client(place.bucket, place.prefix + key)
    target = container.control().get_blob_client(container.prefix + spec.key)
    found = container.retry(doing, source.get_blob_properties)
    metadata = {**container.settings.metadata.of(spec), **spec.metadata}
    metadata |= {name: value for name, value in (found.metadata or {}).items() if name in _OURS}
    tier: dict[str, Any] = {}
    if container.settings.storage_class is not None and spec.media:
        tier["standard_blob_tier"] = container.settings.storage_class
    between()
    begun = container.retry(doing, lambda: target.start_copy_from_url(source.url, metadata=metadata, **tier))
    status, waited = str(begun["copy_status"]), 0.0
    try:
        while status == "pending":
            if waited > LONGEST.total_seconds():
                raise TransientStorageError(f"{doing}: it has not ended within {LONGEST}")
            between()
            container.pause(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
            status = str(container.retry(doing, target.get_blob_properties).copy.status)
    except BaseException:
        with suppress(StorageError):
            container.retry(doing, lambda: target.abort_copy(begun["copy_id"]))
        raise
    if status != "success":
        raise TransientStorageError(f"{doing}: the service ended the copy as {status}")
    settings = found.content_settings
    if settings.content_type != spec.content_type:
        described = ContentSettings(content_type=spec.content_type, content_md5=settings.content_md5)
        container.retry(doing, lambda: target.set_http_headers(described))

"""One bucket and prefix: clients, retries, and verification of what the service stored."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from archiver.http import waiting
from archiver.retry_policy import STORE_CALL
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumRejected,
    ObjectMissing,
    TransientStorageError,
)
from storage_backends.gcs.answers import described, info_of, resource_of
from storage_backends.gcs.connection import connect
from storage_backends.gcs.errors import Answer, translated
from storage_backends.gcs.requests import GcsRequests
from storage_backends.gcs.settings import METADATA_ID, GcsSettings
from storage_backends.operation import Operation
from storage_backends.per_process import PerProcess

T = TypeVar("T")

_TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, between two pieces of an answer
# For every call of the library. Its own retries are bounded by time alone (120 s by default), skip unconditional
# uploads, and do not know Google's 403 for "slow down".
ONCE: Mapping[str, Any] = {"timeout": _TIMEOUT_SECONDS, "retry": None}


class Bucket:
    """Shared by the backend and its uploads. `sleep` takes seconds."""

    def __init__(self, settings: GcsSettings, sleep: Callable[[float], None]) -> None:
        self.settings = settings
        self.name = DestinationUrl("gs", settings.bucket, settings.prefix).name
        self.bucket = settings.bucket
        self.prefix = f"{settings.prefix}/" if settings.prefix else ""
        self.connection = PerProcess(connect)
        self._sleep = sleep
        self._seen = False

    def retry(self, doing: Operation, call: Callable[[], T]) -> T:
        """Return what `call` returns, its errors as ours. Transient ones are retried, never sooner than the service
        asked for; longer than STORE_CALL.longest_asked is left to the caller's policy."""
        failures = 0
        while True:
            try:
                with translated(doing):
                    return call()
            except TransientStorageError as error:
                failures += 1
                asked = error.retry_after or timedelta()
                if failures == STORE_CALL.attempts or asked > STORE_CALL.longest_asked:
                    raise
            pause = STORE_CALL.pause(failures, random.uniform(0, 1))  # noqa: S311
            self._sleep(max(asked, pause).total_seconds())

    async def requests(self) -> GcsRequests:
        """Return this process's client. Finding credentials may take a while."""
        connection = self.connection.made()
        if connection is None:
            with translated(Operation("open", self.name, None, "connecting")):
                connection = await waiting.blocking(self.connection.get)
        return connection.requests

    def made_by(self, spec: ObjectSpec, identity: str, size_bytes: int) -> ObjectInfo | None:
        """Return the object at the key if the request with this identity made it and its answer was lost."""
        blob = self.find(spec.key)
        if blob is None or (blob.metadata or {}).get(METADATA_ID) != identity or blob.size != size_bytes:
            return None
        return described(spec.key, blob, Operation("stat", self.name, spec.key, "looking at"))

    async def verify(
        self, spec: ObjectSpec, answer: Answer, identity: str, size_bytes: int, crc32c: int, doing: Operation
    ) -> ObjectInfo:
        """Return the object that the response describes if it is what was sent. Otherwise delete exactly that object
        and raise ChecksumRejected. Raises TransientStorageError for a response to another request."""
        resource = resource_of(answer, doing)
        metadata = resource.get("metadata")
        made_by = metadata.get(METADATA_ID) if isinstance(metadata, dict) else None
        if (resource.get("name"), made_by) != (self.prefix + spec.key, identity):
            raise TransientStorageError(f"{doing}: the response describes an object of another request")
        info = info_of(spec.key, resource, doing)
        if (info.size_bytes, info.crc32c) == (size_bytes, crc32c):
            return info
        made, generation = self.blob(spec.key), resource["generation"]
        delete = lambda: made.delete(if_generation_match=generation, **ONCE)  # noqa: E731
        await waiting.blocking(lambda: self.retry(doing, delete))
        raise ChecksumRejected(
            f"{doing}: the service stored {info.size_bytes} bytes with CRC32C {info.crc32c or 0:08x}, not {size_bytes} "
            f"with {crc32c:08x}; that object was deleted"
        )

    def connected(self) -> Any:
        with translated(Operation("open", self.name, None, "connecting")):
            return self.connection.get().control

    def handle(self) -> Any:
        """Return the library's bucket, which adds who pays to each request."""
        return self.connected().bucket(self.bucket, user_project=self.settings.user_project)

    def blob(self, key: ObjectKey) -> Any:
        return self.handle().blob(self.prefix + key)

    def new(self, spec: ObjectSpec, identity: str) -> Any:
        """Return the library's description of an object to be uploaded."""
        resource = self.settings.resource(spec, identity, self.prefix + spec.key)
        blob = self.handle().blob(resource["name"], kms_key_name=self.settings.kms_key_name)
        blob.content_type = resource["contentType"]
        blob.metadata = resource["metadata"]
        if "storageClass" in resource:
            blob.storage_class = resource["storageClass"]
        return blob

    def find(self, key: ObjectKey) -> Any | None:
        bucket = self.handle()
        doing = Operation("stat", self.name, key, "looking at")
        blob = self.retry(doing, lambda: bucket.get_blob(self.prefix + key, **ONCE))
        if blob is None:
            self.require_bucket()
        return blob

    def require_bucket(self) -> None:
        """Raise BucketMissing unless the bucket exists; asked once."""
        if self._seen:
            return
        doing = Operation("list", self.name, None, "looking for the bucket")
        # a list: `bucket.exists()` needs storage.buckets.get, which an account that writes objects lacks
        found = self.connected().list_blobs
        try:
            self.retry(doing, lambda: next(found(self.handle(), max_results=1, fields="kind", **ONCE).pages))
        except ObjectMissing:
            raise self.missing(doing) from None
        except AccessDenied:
            pass  # listing is not permitted: only the missing key is known
        self._seen = True

    def missing(self, doing: Operation) -> BucketMissing:
        return BucketMissing(
            f"{doing}: no such bucket; create it, or correct the destination",
            store=doing.store,
            key=doing.key,
            operation=doing.name,
            status=404,
        )

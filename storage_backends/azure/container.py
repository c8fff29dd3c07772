"""One container and prefix: clients, retries, and the requests that backend and uploads share."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

from azure.core.exceptions import ResourceNotFoundError

from archiver.http import waiting
from archiver.retry_policy import STORE_CALL
from storage_backends.azure.blocks import crc32c_of_blocks
from storage_backends.azure.connection import Connection, connect
from storage_backends.azure.errors import Answer, refused, translated
from storage_backends.azure.settings import (
    COLD_TIERS,
    METADATA_CRC32C,
    METADATA_ID,
    METADATA_MD5,
    AzureSettings,
)
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    ObjectCold,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)
from storage_backends.operation import Operation
from storage_backends.per_process import PerProcess

T = TypeVar("T")

_SMALL_BYTES = 256 * 1024  # hashed where they are; more would hold up the other transfers of the thread


class Container:
    """Shared by the backend and its uploads. `sleep` takes seconds."""

    def __init__(self, settings: AzureSettings, sleep: Callable[[float], None]) -> None:
        self.name = settings.url.name
        self.settings = settings
        self.prefix = f"{settings.prefix}/" if settings.prefix else ""
        self.connection = PerProcess(partial(connect, settings))
        self._sleep = sleep
        self._verifies_md5: bool | None = None  # not known yet

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

    def pause(self, seconds: float) -> None:
        self._sleep(seconds)

    async def connected(self) -> Connection:
        """Return this process's clients. Making them may take a while."""
        made = self.connection.made()
        if made is None:
            with translated(Operation("open", self.name, None, "connecting")):
                made = await waiting.blocking(self.connection.get)
        return made

    def control(self) -> Any:
        """Return the library's client of the container; `Any`, because some of its arguments are only documented."""
        with translated(Operation("open", self.name, None, "connecting")):
            return self.connection.get().control

    async def put(self, key: str, query: str, headers: Mapping[str, str], data: Buffer, md5: bytes) -> Answer:
        """Send `data` with its MD5, which the service verifies. Return any response: see `refused`."""
        connection = await self.connected()
        checked = {**headers, "Content-MD5": base64.b64encode(md5).decode()}
        return await connection.requests.put(self.prefix + key, query, checked, data)

    async def verifies_md5(self, refuses_a_wrong_one: Callable[[], Awaitable[bool]]) -> bool:
        """Return whether the service verifies the MD5 of a block although it does not return it (Azurite). Asked once
        in each process."""
        if self._verifies_md5 is None:
            self._verifies_md5 = await refuses_a_wrong_one()
        return self._verifies_md5

    def new_blob(
        self, spec: ObjectSpec, identity: str, crc32c: int | None, md5: bytes | None = None
    ) -> dict[str, str]:
        """Return the headers that describe a new blob, of Put Blob and Put Block List. `crc32c`: None where the service
        has not verified the blocks."""
        metadata = {**self.settings.metadata.of(spec), **spec.metadata, METADATA_ID: identity}
        if crc32c is not None:
            metadata[METADATA_CRC32C] = f"{crc32c:08x}"
        if md5 is not None:
            metadata[METADATA_MD5] = md5.hex()
        headers = {f"x-ms-meta-{name}": value for name, value in metadata.items()}
        headers["x-ms-blob-content-type"] = spec.content_type
        if self.settings.storage_class is not None and spec.media:
            headers["x-ms-access-tier"] = self.settings.storage_class
        return headers

    def stored(
        self, spec: ObjectSpec, answer: Answer, size_bytes: int, crc32c: int | None, doing: Operation
    ) -> ObjectInfo:
        """Describe a blob by the response to the request that made it. Raises TransientStorageError for a success that
        is not the service's."""
        etag = answer.header("etag")
        if answer.status != 201 or not etag:
            raise TransientStorageError(
                f"{doing}: a success ({answer.status}) without an ETag: something other than Azure answered"
            )
        return ObjectInfo(
            spec.key,
            size_bytes,
            crc32c,
            quoted(etag),
            spec.content_type,
            _date(answer.header("last-modified")),
        )

    def find(self, key: ObjectKey) -> Any | None:
        """Return the properties of a blob; None where there is none. Raises BucketMissing."""
        blob = self.control().get_blob_client(self.prefix + key)
        doing = Operation("stat", self.name, key, "looking at")
        try:
            return self.retry(doing, lambda: _none_missing(blob.get_blob_properties, doing))
        except ObjectMissing:
            return None

    def verified(self, info: ObjectInfo, blob: Any) -> ObjectInfo:
        """Return the description of a blob with its CRC32C, if it consists of the blocks that made it: one request for
        a blob that came in blocks."""
        metadata = blob.metadata or {}
        noted, identity = _number(metadata.get(METADATA_CRC32C)), metadata.get(METADATA_ID)
        if info.crc32c is not None or noted is None or METADATA_MD5 in metadata or not identity:
            return info
        client = self.control().get_blob_client(self.prefix + info.key)
        doing = Operation("stat", self.name, info.key, "looking at the blocks of")
        try:
            blocks = self.retry(doing, lambda: client.get_block_list("committed")[0])
        except (ObjectCold, ObjectMissing, AccessDenied):
            return info
        found = crc32c_of_blocks(identity, blocks, info.size_bytes)
        return replace(info, crc32c=found) if found == noted else info

    def made_by(self, spec: ObjectSpec, identity: str, size_bytes: int | None) -> ObjectInfo | None:
        """Return the object at the key if the request with this identity made it and its answer was lost."""
        found = self.find(spec.key)
        if found is None or (found.metadata or {}).get(METADATA_ID) != identity:
            return None
        if size_bytes not in (None, found.size):
            return None
        return described(spec.key, found, Operation("stat", self.name, spec.key, "looking at"))

    def refused(self, answer: Answer, doing: Operation) -> StorageError:
        """Return the refusal of a write as one of our errors. A write has no missing object."""
        error = refused(answer, doing)
        if isinstance(error, ObjectMissing):
            return TransientStorageError(
                f"{error}; something other than Azure answered, or the container is being made", status=404
            )
        return error


def _none_missing(call: Callable[[], T], doing: Operation) -> T:
    """Call, and raise TransientStorageError for a 404 that is not the service's: it says nothing of the object."""
    try:
        return call()
    except ResourceNotFoundError as error:
        if not getattr(error, "error_code", None):
            raise TransientStorageError(
                f"{doing}: 404 without an error code: something other than Azure answered", status=404
            ) from None
        raise


async def md5_of(data: Buffer) -> bytes:
    def digest() -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    return digest() if len(data) <= _SMALL_BYTES else await waiting.blocking(digest)


def confirmed_md5(answer: Answer, md5: bytes, doing: Operation) -> bool:
    """Return whether the response has the MD5 of what arrived; False where it has none. Raises ChecksumRejected."""
    reported = answer.header("content-md5")
    if reported is None:
        return False
    if reported != base64.b64encode(md5).decode():
        raise ChecksumRejected(
            f"{doing}: the service received bytes with MD5 {reported[:24]}, others were sent"
        )
    return True


def quoted(etag: str) -> str:
    """Return an ETag as conditions have it: lists leave out its quotes."""
    return '"{}"'.format(etag.strip('"'))


def described(key: ObjectKey, blob: Any, doing: Operation) -> ObjectInfo:
    """Describe a blob by its properties. The service keeps the MD5 of a blob that came in one request, not the CRC32C:
    where that MD5 is the one we sent, so is the CRC32C that we noted beside it."""
    settings, metadata = blob.content_settings, blob.metadata or {}
    if not isinstance(blob.size, int) or not blob.etag:
        with doing:
            raise TransientStorageError(f"{doing}: the response does not describe a blob")
    md5, crc32c = settings.content_md5, None
    if md5 is not None and metadata.get(METADATA_MD5) == bytes(md5).hex():
        crc32c = _number(metadata.get(METADATA_CRC32C))
    tier = None if blob.blob_tier is None or blob.blob_tier_inferred else str(blob.blob_tier)
    return ObjectInfo(
        key,
        blob.size,
        crc32c,
        quoted(blob.etag),
        settings.content_type,
        blob.last_modified,
        tier,
        tier in COLD_TIERS,
    )


def _number(text: str | None) -> int | None:
    try:
        return int(text or "", 16) & 0xFFFFFFFF
    except ValueError:
        return None


def _date(text: str | None) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

"""Azure Blob Storage. Control calls use azure-storage-blob; blobs and blocks take the data path (requests.py).

A small object is one Put Blob; a large one is staged in blocks and committed (upload.py). The service verifies the MD5
of whatever is sent. It knows no CRC32C: ours is in the metadata of the blob, beside the MD5 that the service keeps too.

There is one layer of retries: the engine retries `send` and `send_part`, which attempt once; `Container.retry` retries
every other call.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from archiver.http import waiting
from storage_backends import crc32c as crc
from storage_backends.azure import abilities, copying, versions
from storage_backends.azure.container import Container, confirmed_md5, described, md5_of
from storage_backends.azure.errors import Answer, refused, translated
from storage_backends.azure.settings import AzureSettings, settings_of
from storage_backends.azure.upload import AzureUpload
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Upload, object_key
from storage_backends.destination_url import DestinationUrl
from storage_backends.empty_ranges import no_bytes
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    InvalidKey,
    ObjectChanged,
    ObjectCold,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)
from storage_backends.operation import Operation
from storage_backends.optional import NotDeleted, ObjectVersion, Place, Thaw, ThawSpeed

# https://learn.microsoft.com/azure/storage/blobs/scalability-targets
LIMITS = Limits(
    min_part_bytes=1,
    max_part_bytes=4000 * 2**20,
    max_parts=50_000,
    part_multiple_bytes=1,
    max_object_bytes=50_000 * 4000 * 2**20,
    parallel_parts=True,
    conditional_create=True,
    conditional_replace=True,
)
_PAGE = 5000  # the most that a page holds
_UNSATISFIABLE = 416
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/[0-9]+")
_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,120}"')


def open_backend(url: DestinationUrl) -> AzureBackend:
    """Open `az://account/container/prefix`. Sends no request. Raises BadDestinationUrl."""
    return AzureBackend(settings_of(url))


class AzureBackend:
    """See `storage_backends.base.StorageBackend`. `sleep` takes seconds."""

    def __init__(self, settings: AzureSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self._container = Container(settings, sleep)

    @property
    def name(self) -> str:
        return self._container.name

    @property
    def limits(self) -> Limits:
        return LIMITS

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = self._doing("put", spec.key, "storing")
        with doing:
            return self._put(spec, data, crc32c, doing)

    def _put(self, spec: ObjectSpec, data: Buffer, crc32c: int, doing: Operation) -> ObjectInfo:
        identity = secrets.token_hex(16)
        if spec.if_match is not None and not _ETAG.fullmatch(spec.if_match):
            raise ObjectChanged(f"{doing}: {spec.if_match[:40]!r} is not an ETag")
        try:
            return self._container.retry(
                doing, lambda: waiting.complete(self._send(spec, data, crc32c, identity))
            )
        except ObjectExists as error:
            # perhaps made by an attempt whose answer was lost
            done = self._container.made_by(spec, identity, len(data))
            if done is not None:
                return done
            if spec.if_match is not None:
                raise ObjectChanged(str(error), status=error.status) from error
            raise
        except AccessDenied as refusal:
            if spec.if_absent or spec.if_match is not None:
                raise
            return equal_or_raise(refusal, self, spec.key, len(data), crc32c)

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        """Do what `put` does, but attempt it once: see `storage_backends.optional.Sends`."""
        if spec.if_absent or spec.if_match is not None:
            # `put` retries, and knows the object of an earlier attempt
            return await waiting.blocking(lambda: self.put(spec, data, crc32c))
        try:
            return await self._send(spec, data, crc32c, secrets.token_hex(16))
        except AccessDenied as error:
            refusal = error
        return await waiting.blocking(lambda: equal_or_raise(refusal, self, spec.key, len(data), crc32c))

    async def _send(self, spec: ObjectSpec, data: Buffer, crc32c: int, identity: str) -> ObjectInfo:
        doing = self._doing("put", spec.key, "storing")
        with translated(doing):
            crc.check(data, crc32c, doing)
            md5 = await md5_of(data)
            headers = self._container.new_blob(spec, identity, crc32c, md5)
            headers["x-ms-blob-type"] = "BlockBlob"
            if spec.if_absent:
                headers["If-None-Match"] = "*"
            elif spec.if_match is not None:
                headers["If-Match"] = spec.if_match
            answer = await self._container.put(spec.key, "", headers, data, md5)
            if not answer.ok:
                raise self._container.refused(answer, doing)
            proven = crc32c if confirmed_md5(answer, md5, doing) else None
            return self._container.stored(spec, answer, len(data), proven, doing)

    def begin(self, spec: ObjectSpec) -> Upload:
        with self._doing("begin", spec.key, "beginning the upload of") as doing:
            if not 0 < spec.part_bytes <= LIMITS.max_part_bytes:
                raise StorageError(f"{doing}: part_bytes must be between 1 and {LIMITS.max_part_bytes}")
        try:
            return AzureUpload.begin(self, self._container, spec, secrets.token_hex(16))
        except AccessDenied as refusal:
            return UploadOfEqual.instead(self, spec, refusal)

    def resume(self, spec: ObjectSpec, token: str) -> AzureUpload:
        return AzureUpload.resume(self, self._container, spec, token)

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        blob = self._container.find(key)
        if blob is None:
            return None
        return self._container.verified(described(key, blob, self._doing("stat", key, "looking at")), blob)

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        doing = self._doing("read", key, "reading")
        with doing:
            if if_match is not None and not _ETAG.fullmatch(if_match):
                raise ObjectChanged(f"{doing}: {if_match[:40]!r} is not an ETag")
            if length_bytes == 0:
                return no_bytes(self, key, if_match, doing)
            return self._read(key, start, length_bytes, if_match, doing)

    def _read(
        self, key: ObjectKey, start: int, length_bytes: int | None, if_match: str | None, doing: Operation
    ) -> bytes:
        headers = {}
        if start or length_bytes is not None:
            headers["Range"] = f"bytes={start}-" + (
                "" if length_bytes is None else f"{start + length_bytes - 1}"
            )
        if if_match is not None:
            headers["If-Match"] = if_match

        async def get() -> Answer:
            connection = await self._container.connected()
            answer = await connection.requests.get(self._container.prefix + key, headers, length_bytes)
            if not answer.ok and answer.status != _UNSATISFIABLE:
                raise refused(answer, doing)
            if answer.ok and headers.get("Range") and not _is_from(answer, start):
                raise TransientStorageError(f"{doing}: another range was returned than was requested")
            return answer

        try:
            answer = self._container.retry(doing, lambda: waiting.complete(get()))
        except ObjectExists:  # the condition does not hold, perhaps because there is no object
            no_bytes(self, key, if_match, doing)
            raise TransientStorageError(
                f"{doing}: the key held another object a moment ago", status=412
            ) from None
        if answer.status == _UNSATISFIABLE:  # the object ends before `start`
            return no_bytes(self, key, if_match, doing)
        return answer.body

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        doing = Operation("list", self.name, None, f"listing {prefix!r}")
        found = self._container.prefix + prefix

        def page(token: str | None) -> tuple[list[Any], str | None]:
            # page by page: an iterator of the library's cannot go on after an error
            pages = self._container.control().list_blobs(found, results_per_page=_PAGE).by_page(token)
            return list(next(pages)), pages.continuation_token

        token: str | None = None
        while True:
            at = token
            blobs, token = self._container.retry(doing, lambda: page(at))  # noqa: B023 # called immediately
            for blob in blobs:
                try:
                    key = object_key(blob.name.removeprefix(self._container.prefix))
                except InvalidKey:
                    continue  # not ours, such as a folder marker
                yield described(key, blob, doing)
            if not token:
                return

    def delete(self, key: ObjectKey) -> None:
        """Delete a blob with its snapshots. What soft delete and versioning keep stays as long as the account says."""
        blob = self._container.control().get_blob_client(self._container.prefix + key)
        doing = self._doing("delete", key, "deleting")
        try:
            self._container.retry(doing, lambda: blob.delete_blob(delete_snapshots="include"))
        except ObjectMissing:
            return

    def removes_stale_uploads(self) -> bool:
        """True: the service discards uncommitted blocks a week after the last one."""
        return True

    def place(self) -> Place:
        """See `storage_backends.optional.CopiesObjects`."""
        return copying.place_of(self._container)

    def copy_from(
        self,
        place: Place,
        key: ObjectKey,
        spec: ObjectSpec,
        crc32c: int,  # noqa: ARG002 - of the contract
        *,
        between: Callable[[], None] = lambda: None,
    ) -> ObjectInfo:
        """See `storage_backends.optional.CopiesObjects`."""
        doing = self._doing("copy", spec.key, f"copying from {place.bucket!r}")
        with doing:
            copying.copy(self._container, place, key, spec, doing, between)
            info = self.stat(spec.key)
            if info is None:
                raise TransientStorageError(f"{doing}: what was copied is not there")
        return info

    @property
    def longest_signature(self) -> timedelta:
        """See `storage_backends.optional.SignsUrls`."""
        return abilities.LONGEST_SIGNATURE

    def signed_url(self, key: ObjectKey, lifetime: timedelta) -> str:
        """See `storage_backends.optional.SignsUrls`. Needs a key of the account, or an identity."""
        doing = self._doing("signed_url", key, "signing a URL of")
        blob = self._container.control().get_blob_client(self._container.prefix + key)
        connection = self._container.connection.get()
        try:
            return self._container.retry(doing, lambda: abilities.signed_url(connection, blob, lifetime))
        except AccessDenied as error:
            raise AccessDenied(f"{doing}: {error}", status=error.status) from None

    def thaw(self, key: ObjectKey, speed: ThawSpeed, days: int) -> Thaw:  # noqa: ARG002 # of the contract
        """See `storage_backends.optional.Thaws`. A blob that was brought back stays in the hot tier."""
        doing = self._doing("thaw", key, "rehydrating")
        found = self._container.find(key)
        if found is None:
            with doing:
                raise ObjectMissing(f"{doing}: it is not there", status=404)
        state = abilities.state_of(found)
        if state.ready_within is None or abilities.is_under_way(found):
            return state
        blob = self._container.control().get_blob_client(self._container.prefix + key)
        try:
            self._container.retry(doing, lambda: abilities.rehydrate(blob))
        except ObjectCold:
            return state  # somebody else asked in between
        return replace(state, asked=True)

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """See `storage_backends.optional.KeepsVersions`."""
        return versions.listed(self._container, prefix, self.list(prefix))

    def delete_versions(self, chosen: Sequence[ObjectVersion]) -> Sequence[NotDeleted]:
        """See `storage_backends.optional.KeepsVersions`."""
        return versions.deleted(self._container, chosen)

    def close(self) -> None:
        connection = self._container.connection.drop()
        if connection is not None:
            connection.close()

    def _doing(self, name: str, key: ObjectKey, verb: str) -> Operation:
        return Operation(name, self.name, key, verb)


def _is_from(answer: Answer, start: int) -> bool:
    """Return whether the response is of a range that begins at `start`. Azurite gives none for an empty blob."""
    if answer.status == 200:
        return start == 0
    found = _RANGE.fullmatch(answer.header("content-range") or "")
    return int(found[1]) == start if found else not answer.body

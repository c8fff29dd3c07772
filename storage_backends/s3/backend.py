"""S3 and compatible servers. Control calls use boto3; objects and parts take the data path (data_path.py, requests.py).

`ObjectInfo.crc32c` is None unless the server showed that it computed the same checksum. Servers differ in what they
support; each ability is used only after it was seen to work.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from archiver.http import waiting
from storage_backends.base import (
    Buffer,
    Limits,
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
    Upload,
    object_key,
)
from storage_backends.conditional import with_conditions
from storage_backends.destination_url import DestinationUrl
from storage_backends.empty_ranges import no_bytes, require_match
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    BadDestinationUrl,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)
from storage_backends.operation import Operation
from storage_backends.optional import (
    ChecksumJob,
    Computed,
    CoolingRule,
    ExpiryRule,
    NotDeleted,
    ObjectVersion,
    Place,
    Right,
    Thaw,
    ThawSpeed,
)
from storage_backends.s3 import (
    at_rest,
    cooling,
    copying,
    lifecycle,
    locking,
    puts,
    rights,
    thawing,
    unfinished,
    versions,
)
from storage_backends.s3.bucket import Bucket, described, is_aws, is_cold
from storage_backends.s3.errors import (
    code_of,
    kind_of,
    needed,
    status_of,
    translated,
)
from storage_backends.s3.reading import RangeReading
from storage_backends.s3.settings import S3Settings, settings_of
from storage_backends.s3.upload import S3Upload, Token

MIB = 2**20


def open_backend(url: DestinationUrl) -> S3Backend:
    """See `settings_of` for the URL. Sends no request. Raises BadDestinationUrl."""
    return S3Backend(settings_of(url))


class S3Backend:
    """See `storage_backends.base.StorageBackend`.

    Conditions are relied on once they were seen to work (storage_backends/conditional.py), `if_absent` on AWS at once.
    Elsewhere the key is checked first, so a server that ignores them (radosgw and rclone do) leaves a race.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._bucket = Bucket(settings)
        self._limits = Limits(
            min_part_bytes=5 * MIB,
            max_part_bytes=5 * 1024 * MIB,
            max_parts=10_000,
            part_multiple_bytes=1,
            max_object_bytes=5 * 1024 * 1024 * MIB,
            parallel_parts=True,
            conditional_create=False,
        )

    @property
    def name(self) -> str:
        return self._bucket.name

    @property
    def limits(self) -> Limits:
        seen = self._bucket.conditions
        # kept: they are asked for of every object
        self._limits = with_conditions(self._limits, creates=seen.creates, replaces=seen.replaces)
        return self._limits

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = self._doing("put", spec.key, "storing")
        if spec.if_absent or spec.if_match is not None:
            with translated(doing):
                return puts.put_conditionally(self._bucket, self.stat, spec, data, crc32c, doing)
        try:
            with translated(doing):
                return self._bucket.with_retries(lambda: self._send(spec, data, crc32c))
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self, spec.key, len(data), crc32c)

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        """Do what `put` does, without retries: see `storage_backends.optional.Sends`."""
        if spec.if_absent or spec.if_match is not None:
            return await waiting.blocking(lambda: self.put(spec, data, crc32c))
        try:
            return await self._send(spec, data, crc32c)
        except Exception as error:  # noqa: BLE001 - raised below; a context manager would cost each object of a tree
            failed = error
        try:
            with translated(self._doing("put", spec.key, "storing")):
                raise failed
        except AccessDenied as error:
            refusal = error
        return await waiting.blocking(lambda: equal_or_raise(refusal, self, spec.key, len(data), crc32c))

    async def _send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        bucket = self._bucket
        if bucket.connection.made() is None:  # boto3 takes half a second, too long for the engine's thread
            await waiting.blocking(bucket.connection.get)
        receipt = await bucket.data.put(
            bucket.prefix + spec.key, data, crc32c, bucket.settings.of_new_object(spec)
        )
        return puts.stored(spec, len(data), crc32c, receipt)

    def begin(self, spec: ObjectSpec) -> Upload:
        identity = secrets.token_hex(16)
        doing = self._doing("begin", spec.key, "beginning the upload of")
        bucket = self._bucket
        try:
            with translated(doing):
                bucket.connection.get()
                if spec.if_absent and not bucket.conditions.creates and bucket.head(spec.key) is not None:
                    raise ObjectExists(f"{doing}: the key is taken")
                upload_id, algorithm = self._create(spec, identity)
        except AccessDenied as refusal:
            return UploadOfEqual.instead(self, spec, refusal)
        return S3Upload(self, bucket, spec, Token(identity, algorithm, upload_id))

    def _create(self, spec: ObjectSpec, identity: str) -> tuple[str, str]:
        """Return the upload id and the agreed checksum: CRC32C of the whole (`full`), of the `parts` only, or
        `none`."""
        client = self._bucket.writing_client
        request = self._bucket.address(spec.key) | self._bucket.settings.of_new_object(spec, identity)
        if not self._bucket.data.crc32c_refused:
            try:
                # without it AWS accepts a wrong checksum of the whole
                answer = client.create_multipart_upload(
                    **request, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT"
                )
                return needed(answer, "UploadId"), "full" if answer.get(
                    "ChecksumType"
                ) == "FULL_OBJECT" else "parts"
            except ClientError as error:
                if kind_of(error) is not StorageError:
                    raise
        return needed(client.create_multipart_upload(**request), "UploadId"), "none"

    def resume(self, spec: ObjectSpec, token: str) -> S3Upload:
        doing = self._doing("resume", spec.key, "resuming the upload of")
        with doing:
            upload = S3Upload(self, self._bucket, spec, Token.parse(token, doing))
        upload.parts()
        return upload

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        with translated(self._doing("stat", key, "looking at")):
            answer = self._bucket.head(key)
            return None if answer is None else described(key, answer)

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        doing = self._doing("read", key, "reading")
        with translated(doing):
            if length_bytes == 0:
                return no_bytes(self, key, if_match, doing)
            return self._bucket.with_retries(lambda: self._read(key, start, length_bytes, if_match, doing))

    async def _read(
        self, key: ObjectKey, start: int, length_bytes: int | None, if_match: str | None, doing: Operation
    ) -> bytes:
        reads = self._bucket.connection.get().reads
        request = self._bucket.address(key) | ({} if if_match is None else {"IfMatch": if_match})
        try:
            answer, data = await reads.get_object(request, RangeReading(start, length_bytes))
        except ClientError as error:
            if status_of(error) == 416:  # the object ends before `start`
                return await waiting.blocking(partial(no_bytes, self, key, if_match, doing, start))
            if status_of(error) == 412:
                raise ObjectChanged(f"{doing}: the key holds another object", status=412) from error
            raise
        require_match(answer.get("ETag"), if_match, doing)  # for servers that ignore the condition
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        doing = Operation("list", self.name, None, f"listing {prefix!r}")
        bucket = self._bucket
        with translated(doing):
            pages = iter(
                bucket.client.get_paginator("list_objects_v2").paginate(
                    **bucket.listed, Prefix=bucket.prefix + prefix
                )
            )
        while True:
            with translated(doing):
                page = next(pages, None)
                if page is None:
                    return
                needed(page, "IsTruncated")  # else a portal's page would look like an empty bucket
            for entry in page.get("Contents", []):
                with translated(doing):
                    name, size_bytes = needed(entry, "Key"), needed(entry, "Size")
                try:
                    key = object_key(name.removeprefix(bucket.prefix))
                except InvalidKey:
                    continue  # not ours, such as a folder marker
                storage_class = entry.get("StorageClass")
                yield ObjectInfo(
                    key,
                    size_bytes,
                    etag=entry.get("ETag"),
                    updated_at=entry.get("LastModified"),
                    storage_class=storage_class,
                    cold=is_cold(storage_class),
                )

    def delete(self, key: ObjectKey) -> None:
        with translated(self._doing("delete", key, "deleting")):
            try:
                self._bucket.writing_client.delete_object(**self._bucket.address(key))
            except ClientError as error:
                if kind_of(error) is not ObjectMissing:  # AWS answers 204, some others 404
                    raise

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        """Return 0 without a prefix: uploads of other programs would be among them. See `abort_uploads`."""
        return self.abort_uploads(older_than, lambda _: True) if self._bucket.prefix else 0

    def abort_uploads(self, older_than: timedelta, ours: Callable[[str], bool]) -> int:
        """See `storage_backends.optional.AbortsUploads`."""
        return unfinished.aborted(self._bucket, older_than, ours)

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """See `storage_backends.optional.KeepsVersions`."""
        return versions.listed(self._bucket, prefix, self.list(prefix))

    def delete_versions(self, chosen: Sequence[ObjectVersion]) -> Sequence[NotDeleted]:
        """See `storage_backends.optional.KeepsVersions`."""
        return versions.deleted(self._bucket, chosen)

    def lock(self, keys: Collection[ObjectKey]) -> datetime | None:
        """See `storage_backends.optional.Locks`."""
        return locking.locked(self._bucket, keys)

    def rights(self, probe: ObjectKey) -> Iterator[Right]:
        """See `storage_backends.optional.TellsRights`."""
        with translated(Operation("rights", self.name, None, "trying the rights")):
            yield from rights.tried(self._bucket, probe)

    def expiry_rules(self) -> Sequence[ExpiryRule] | None:
        """See `storage_backends.optional.ReadsExpiryRules`."""
        rules = lifecycle.rules_of(self._bucket, "expiry_rules")
        return None if rules is None else lifecycle.expiry_rules(rules, self._bucket.prefix)

    def removes_stale_uploads(self) -> bool | None:
        rules = lifecycle.rules_of(self._bucket, "removes_stale_uploads")
        return (
            None
            if rules is None
            else any(unfinished.is_aborted_by(rule, self._bucket.prefix) for rule in rules)
        )

    def cooling_rules(self) -> Sequence[CoolingRule] | None:
        """See `storage_backends.optional.ReadsCoolingRules`."""
        rules = lifecycle.rules_of(self._bucket, "cooling_rules")
        return None if rules is None else cooling.cooling_rules(rules, self._bucket.prefix)

    def place(self) -> Place:
        """See `storage_backends.optional.CopiesObjects`."""
        with translated(Operation("open", self.name, None, "connecting")):
            endpoint = self._bucket.client.meta.endpoint_url
        store = "s3 AWS" if is_aws(endpoint) else f"s3 {endpoint}"
        return Place(store, self._bucket.bucket, self._bucket.prefix)

    def copy_from(
        self,
        place: Place,
        key: ObjectKey,
        spec: ObjectSpec,
        crc32c: int,
        *,
        between: Callable[[], None] = lambda: None,
    ) -> ObjectInfo:
        """See `storage_backends.optional.CopiesObjects`."""
        doing = self._doing("copy", spec.key, f"copying from {place.bucket!r}")
        source: dict[str, Any] = {"CopySource": {"Bucket": place.bucket, "Key": place.prefix + key}}
        with translated(doing):
            between()
            if (spec.size_bytes or 0) <= copying.COPY_ONCE_BYTES:
                copying.copy_object(self._bucket, spec, source)
            else:
                create = lambda: self._create(spec, secrets.token_hex(16))  # noqa: E731
                copying.copy_in_parts(self._bucket, spec, source, crc32c, create, between)
        info = self.stat(spec.key)
        if info is None:
            with doing:
                raise TransientStorageError(f"{doing}: what was copied is not there")
        return info

    @property
    def longest_signature(self) -> timedelta:
        """Of signature version 4. Temporary credentials (of a role) end earlier, and their URLs with them."""
        return timedelta(days=7)

    def signed_url(self, key: ObjectKey, lifetime: timedelta) -> str:
        """See `storage_backends.optional.SignsUrls`."""
        with translated(self._doing("signed_url", key, "signing a URL of")):
            return self._bucket.signed_url(key, int(lifetime.total_seconds()))

    def thaw(self, key: ObjectKey, speed: ThawSpeed, days: int) -> Thaw:
        """See `storage_backends.optional.Thaws`."""
        doing = self._doing("thaw", key, "asking for the restore of")
        with translated(doing):
            answer = self._bucket.head(key)
            if answer is None:
                raise ObjectMissing(f"{doing}: it is not there", status=404)
            found = thawing.state_of(answer, speed)
            if found.ready_within is None or thawing.is_under_way(answer):
                return found
            try:
                self._bucket.client.restore_object(
                    **self._bucket.address(key), RestoreRequest=thawing.request(answer, speed, days)
                )
            except ClientError as error:
                if code_of(error) != "RestoreAlreadyInProgress":
                    raise
                return found  # somebody else asked in between
            return replace(found, asked=True)

    # -- S3 Batch Operations: see `storage_backends.optional.ComputesChecksums` -----------------------------------
    @property
    def can_compute_checksums(self) -> bool:
        return self._bucket.settings.batch_role_arn is not None

    def checksum_line(self, key: ObjectKey, note: str) -> bytes:
        return at_rest.line(self._bucket.bucket, self._bucket.prefix + key, note)

    def checksum_note(self, line: str) -> str:
        return at_rest.note_of(line)

    def begin_checksums(self, listing: ObjectKey, listing_etag: str, reports: str, token: str) -> str:
        role, prefix = self._batch_role, self._bucket.prefix
        options = at_rest.request(
            role, self._bucket.bucket, prefix + listing, listing_etag, prefix + reports, token
        )
        with translated(Operation("begin_checksums", self.name, listing, "creating a job for")):
            return str(needed(self._bucket.jobs.create_job(**options), "JobId"))

    def checksum_job(self, job_id: str) -> ChecksumJob:
        account = self._batch_role.split(":")[4]
        with translated(Operation("checksum_job", self.name, None, f"looking at job {job_id}")):
            return at_rest.job_of(self._bucket.jobs.describe_job(AccountId=account, JobId=job_id))

    def checksums(self, reports: str, job_id: str) -> Iterator[tuple[ObjectKey, Computed]] | None:
        folder = f"{reports.rstrip('/')}/job-{job_id}/"
        files = [info.key for info in self.list(folder)]
        if f"{folder}manifest.json" not in files:
            return None
        results = [key for key in files if key.endswith(".csv")]
        return (each for key in results for each in at_rest.computed(self.read(key), self._bucket.prefix))

    @property
    def _batch_role(self) -> str:
        role = self._bucket.settings.batch_role_arn
        if role is None:
            raise BadDestinationUrl(f"destination {self.name} has no batch_role_arn")
        return role

    def close(self) -> None:
        connection = self._bucket.connection.drop()
        if connection is not None:
            connection.close()

    def _doing(self, name: str, key: ObjectKey, verb: str) -> Operation:
        return Operation(name, self.name, key, verb)

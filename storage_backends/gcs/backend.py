"""Google Cloud Storage. Control calls use google-cloud-storage; objects and parts take the data path (requests.py).

A large object is one resumable session: sequential, invisible until its last byte, resumable by its URI from any
process for a week, with condition and checksum verified by the service. Three facts of the protocol shape the code
(https://cloud.google.com/storage/docs/performing-resumable-uploads):

- Only multiples of 256 KiB are kept until the last chunk. The rest of the last part (at most 262,143 bytes) travels in
  the part's tag and is sent by `complete`: the caller's journal holds what the service cannot.
- The last chunk publishes the object, so `complete` sends it.
- Bytes sent again at an offset that is already kept are ignored, so sending a part is idempotent. No status query is
  needed, and none is made (fake-gcs-server publishes a truncated object when it gets one).

The library begins such a session but cannot resume one in another process (docs/decisions/0005-gcs-client.md). No XML
API multipart upload is used.

There is one layer of retries: the engine retries `send` and `send_part`, which attempt once; `Bucket.retry` retries
every other call.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from google.api_core.exceptions import RequestRangeNotSatisfiable

from archiver.http import waiting
from storage_backends import crc32c as crc
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Upload, object_key
from storage_backends.conditional import Conditions, with_conditions
from storage_backends.destination_url import DestinationUrl
from storage_backends.empty_ranges import no_bytes
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.gcs import rewriting, rights, versions
from storage_backends.gcs.answers import described
from storage_backends.gcs.bucket import ONCE, Bucket
from storage_backends.gcs.errors import refused, translated
from storage_backends.gcs.settings import GcsSettings, settings_of
from storage_backends.gcs.upload import MULTIPLE_BYTES, GcsUpload
from storage_backends.operation import Operation
from storage_backends.optional import ExpiryRule, NotDeleted, ObjectVersion, Place, Right

LIMITS = Limits(
    min_part_bytes=MULTIPLE_BYTES,
    max_part_bytes=2**40,
    max_parts=2**31,
    part_multiple_bytes=MULTIPLE_BYTES,
    max_object_bytes=5 * 2**40,
    parallel_parts=False,
    conditional_create=True,
)

_GENERATION = re.compile("[0-9]{1,19}")
_PAGE = 1000  # the most that a page holds
_LISTED = "items(name,size,crc32c,generation,contentType,updated,storageClass),nextPageToken"
# generations: of no object, and of the year 2100 (they are microseconds since 1970)
_ABSENT, _NEVER = "0", "4102444800000000"


def open_backend(url: DestinationUrl) -> GcsBackend:
    """See `settings_of` for the URL; STORAGE_EMULATOR_HOST is honoured. Sends no request. Raises BadDestinationUrl."""
    settings = settings_of(url)
    return GcsBackend(settings.bucket, settings.prefix, settings=settings)


class GcsBackend:
    """See `storage_backends.base.StorageBackend`. `sleep` takes seconds."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        sleep: Callable[[float], None] = time.sleep,
        *,
        settings: GcsSettings | None = None,
    ) -> None:
        self._bucket = Bucket(settings or GcsSettings(bucket, prefix), sleep)
        self._checks_crc32c = False  # it has returned the right one
        self._limits = LIMITS
        self._conditions = Conditions()
        self._conditions.trust_creates()

    @property
    def name(self) -> str:
        return self._bucket.name

    @property
    def limits(self) -> Limits:
        # kept: they are asked for of every object
        self._limits = with_conditions(self._limits, creates=True, replaces=self._conditions.replaces)
        return self._limits

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = self._doing("put", spec.key, "storing")
        with doing:
            return self._put(spec, data, crc32c, doing)

    def _put(self, spec: ObjectSpec, data: Buffer, crc32c: int, doing: Operation) -> ObjectInfo:
        identity = secrets.token_hex(16)

        def send(condition: str | None) -> ObjectInfo:
            try:
                return self._bucket.retry(
                    doing, lambda: waiting.complete(self._send(spec, data, crc32c, identity, condition))
                )
            except ObjectExists:
                # perhaps made by an attempt whose answer was lost
                done = self._bucket.made_by(spec, identity, len(data))
                if done is None:
                    raise
                return done

        if spec.if_match is not None:
            return self._put_if_match(spec.if_match, spec.key, send, doing)
        try:
            return send(_ABSENT if spec.if_absent else None)
        except AccessDenied as refusal:
            if spec.if_absent:
                raise
            return equal_or_raise(refusal, self, spec.key, len(data), crc32c)

    def _put_if_match(
        self, expected: str, key: ObjectKey, send: Callable[[str | None], ObjectInfo], doing: Operation
    ) -> ObjectInfo:
        """Replace atomically. Google documents it; an emulator is relied on once it was seen to refuse."""

        def change(generation: str | None) -> ObjectInfo:
            try:
                return send(generation)
            except ObjectExists as error:
                raise ObjectChanged(str(error), status=error.status) from error

        def generation_now() -> str | None:
            info = self.stat(key)
            return None if info is None else info.etag

        if not _GENERATION.fullmatch(expected):
            raise ObjectChanged(f"{doing}: {expected[:40]!r} is not a generation")
        return self._conditions.replace(expected, generation_now, change, _NEVER, doing)

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        """Do what `put` does, but attempt it once: see `storage_backends.optional.Sends`."""
        if spec.if_absent or spec.if_match is not None:
            # `put` retries, and knows the object of an earlier attempt
            return await waiting.blocking(lambda: self.put(spec, data, crc32c))
        try:
            return await self._send(spec, data, crc32c, secrets.token_hex(16), None)
        except AccessDenied as error:
            refusal = error
        return await waiting.blocking(lambda: equal_or_raise(refusal, self, spec.key, len(data), crc32c))

    async def _send(
        self, spec: ObjectSpec, data: Buffer, crc32c: int, identity: str, condition: str | None
    ) -> ObjectInfo:
        doing = self._doing("put", spec.key, "storing")
        with translated(doing):
            if not self._checks_crc32c:
                crc.check(data, crc32c, doing)
            settings = self._bucket.settings
            resource = settings.resource(spec, identity, self._bucket.prefix + spec.key)
            resource["crc32c"] = crc.to_base64(crc32c)  # for the service to verify
            query = dict(settings.query)
            if condition is not None:
                query["ifGenerationMatch"] = condition
            requests = await self._bucket.requests()
            answer = await requests.insert(self._bucket.bucket, resource, data, query)
            if not answer.ok:
                error = refused(answer, doing)
                raise self._bucket.missing(doing) if isinstance(error, ObjectMissing) else error
            info = await self._bucket.verify(spec, answer, identity, len(data), crc32c, doing)
        self._checks_crc32c = True
        return info

    def begin(self, spec: ObjectSpec) -> Upload:
        doing = self._doing("begin", spec.key, "beginning the upload of")
        if spec.part_bytes <= 0 or spec.part_bytes % MULTIPLE_BYTES:
            with doing:
                raise StorageError(f"{doing}: part_bytes must be a multiple of 256 KiB")
        identity = secrets.token_hex(16)

        def begun() -> str:
            uri: str = self._bucket.new(spec, identity).create_resumable_upload_session(
                spec.content_type,
                checksum=None,
                if_generation_match=_condition(spec),
                predefined_acl=self._bucket.settings.acl,
                **ONCE,
            )
            return uri

        try:
            return GcsUpload(self, self._bucket, spec, identity, self._bucket.retry(doing, begun))
        except ObjectMissing:
            raise self._bucket.missing(doing) from None
        except AccessDenied as refusal:
            return UploadOfEqual.instead(self, spec, refusal)

    def resume(self, spec: ObjectSpec, token: str) -> GcsUpload:
        """Send no request: a session that has ended is found at the next part, or at `complete`."""
        identity, _, uri = token.partition(" ")
        if not re.fullmatch("[0-9a-f]{32}", identity) or not self._is_ours(uri):
            doing = self._doing("resume", spec.key, "resuming the upload of")
            with doing:
                raise UploadGone(f"{doing}: the token is not that of a GCS upload")
        return GcsUpload(self, self._bucket, spec, identity, uri)

    def _is_ours(self, uri: str) -> bool:
        """Return whether a session's URI leads to the service, since bytes and credentials are sent there."""
        endpoint = urlsplit(self._bucket.connected().api_endpoint)
        try:
            split = urlsplit(uri)
        except ValueError:
            return False
        google_host = split.scheme == "https" and f".{split.hostname}".endswith(".googleapis.com")
        return (split.scheme, split.netloc) == (endpoint.scheme, endpoint.netloc) or google_host

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        blob = self._bucket.find(key)
        return None if blob is None else described(key, blob, self._doing("stat", key, "looking at"))

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
            if if_match is not None and not _GENERATION.fullmatch(if_match):
                raise ObjectChanged(f"{doing}: {if_match[:40]!r} is not a generation")
            if length_bytes == 0:
                return no_bytes(self, key, if_match, doing)
            return self._read(key, start, length_bytes, if_match, doing)

    def _read(
        self, key: ObjectKey, start: int, length_bytes: int | None, if_match: str | None, doing: Operation
    ) -> bytes:
        def download() -> bytes:
            try:
                data: bytes = self._bucket.blob(key).download_as_bytes(
                    start=start or None,
                    end=None if length_bytes is None else start + length_bytes - 1,
                    raw_download=True,
                    checksum=None,  # a range has none
                    single_shot_download=True,  # pieces of 8 KiB cost four times the CPU
                    if_generation_match=if_match,
                    **ONCE,
                )
            except RequestRangeNotSatisfiable:
                # the object ends before `start`
                return no_bytes(self, key, if_match, doing) if if_match is not None else b""
            if length_bytes is not None and len(data) > length_bytes:
                raise TransientStorageError(
                    f"{doing}: {len(data)} bytes arrived, {length_bytes} were requested"
                )
            return data

        try:
            return self._bucket.retry(doing, download)
        except ObjectMissing:
            self._bucket.require_bucket()
            raise
        except ObjectExists as error:  # the condition does not hold
            raise ObjectChanged(f"{doing}: the key holds another object", status=412) from error

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        doing = Operation("list", self.name, None, f"listing {prefix!r}")

        def page(token: str | None) -> tuple[list[Any], str | None]:
            # page by page: after an error the library's own iterator ends as if there were no more
            found = self._bucket.connected().list_blobs(
                self._bucket.handle(),
                prefix=self._bucket.prefix + prefix,
                page_size=_PAGE,
                page_token=token,
                fields=_LISTED,
                **ONCE,
            )
            return list(next(found.pages)), found.next_page_token

        token: str | None = None
        while True:
            at = token
            try:
                blobs, token = self._bucket.retry(doing, lambda: page(at))  # noqa: B023 # called immediately
            except ObjectMissing:
                raise self._bucket.missing(doing) from None
            for blob in blobs:
                if not isinstance(blob.name, str):
                    with doing:
                        raise TransientStorageError(f"{doing}: the response does not describe objects")
                try:
                    key = object_key(blob.name.removeprefix(self._bucket.prefix))
                except InvalidKey:
                    continue  # not ours, such as a folder marker
                yield described(key, blob, doing)
            if not token:
                return

    def delete(self, key: ObjectKey) -> None:
        try:
            doing = self._doing("delete", key, "deleting")
            self._bucket.retry(doing, lambda: self._bucket.blob(key).delete(**ONCE))
        except ObjectMissing:
            self._bucket.require_bucket()

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """See `storage_backends.optional.KeepsVersions`."""
        return versions.listed(self._bucket, prefix)

    def delete_versions(self, chosen: Sequence[ObjectVersion]) -> Sequence[NotDeleted]:
        """See `storage_backends.optional.KeepsVersions`."""
        return versions.deleted(self._bucket, chosen)

    def rights(self, probe: ObjectKey) -> Iterator[Right]:
        """See `storage_backends.optional.TellsRights`."""
        del probe
        return rights.told(self._bucket)

    def expiry_rules(self) -> Sequence[ExpiryRule] | None:
        """See `storage_backends.optional.ReadsExpiryRules`."""
        return versions.expiry_rules(self._bucket)

    def removes_stale_uploads(self) -> bool:
        """True: unfinished sessions cannot be listed, are not billed, and end by themselves after a week."""
        return True

    def place(self) -> Place:
        """See `storage_backends.optional.CopiesObjects`."""
        store = f"gcs {self._bucket.connected().api_endpoint}"
        return Place(store, self._bucket.bucket, self._bucket.prefix)

    def copy_from(
        self,
        place: Place,
        key: ObjectKey,
        spec: ObjectSpec,
        crc32c: int,  # noqa: ARG002 - of the contract: the service tells its own
        *,
        between: Callable[[], None] = lambda: None,
    ) -> ObjectInfo:
        """See `storage_backends.optional.CopiesObjects`. By rewrites, several of a large object."""
        doing = self._doing("copy", spec.key, f"copying from {place.bucket!r}")
        rewriting.rewritten(self._bucket, place, key, spec, doing, between)
        info = self.stat(spec.key)
        if info is None:
            with doing:
                raise TransientStorageError(f"{doing}: what was copied is not there")
        return info

    @property
    def longest_signature(self) -> timedelta:
        return timedelta(days=7)

    def signed_url(self, key: ObjectKey, lifetime: timedelta) -> str:
        """See `storage_backends.optional.SignsUrls`. Needs a service account's key."""
        doing = self._doing("signed_url", key, "signing a URL of")
        client, blob = self._bucket.connected(), self._bucket.blob(key)
        with translated(doing):
            try:
                signed: str = blob.generate_signed_url(
                    expiration=lifetime, version="v4", api_access_endpoint=client.api_endpoint
                )
            except AttributeError:  # the library's word for credentials without a private key
                raise AccessDenied(
                    f"{doing}: these credentials cannot sign; use a service account's key file "
                    "(GOOGLE_APPLICATION_CREDENTIALS)"
                ) from None
        return signed

    def close(self) -> None:
        connection = self._bucket.connection.drop()
        if connection is not None:
            connection.requests.close()
            connection.control.close()

    def _doing(self, name: str, key: ObjectKey, verb: str) -> Operation:
        return Operation(name, self.name, key, verb)


def _condition(spec: ObjectSpec) -> int | None:
    return 0 if spec.if_absent else None

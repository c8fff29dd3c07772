"""Google Cloud Storage: control by google-cloud-storage, the bytes' way in gcs_requests.py.

A large object is one resumable session: sequential, invisible until its last byte, resumable by its URI from any
process for a week, with condition and checksum checked by the server. Three facts of the protocol shape this
(https://cloud.google.com/storage/docs/performing-resumable-uploads):

- Only multiples of 256 KiB are kept until the last chunk. What a part has beyond that (at most 262,143 bytes, of the
  last part) travels in the part's tag and is sent by `complete`: the caller's journal holds what the server cannot.
- The last chunk publishes the object; so it is `complete` that sends it.
- Bytes sent again at an offset that is already kept are ignored: repeating a part is harmless. No status query is
  needed, and none is made (fake-gcs-server publishes a truncated object when asked for one).

The library begins such a session but cannot resume one in another process (docs/decisions/0005-gcs-client.md).

There is one layer of retries. What the engine calls (`send`, `send_part`) makes one attempt, for the engine retries;
everything else is retried by `ask`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from google.api_core.exceptions import RequestRangeNotSatisfiable
from google.cloud.storage import Client

from archiver.http import trust, waiting
from storage_backends import crc32c as crc
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Part, Upload, object_key
from storage_backends.conditional import Conditions, with_conditions
from storage_backends.destination_url import DestinationUrl
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    BadDestinationUrl,
    BucketMissing,
    ChecksumRejected,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.gcs_errors import Answer, refused, translated
from storage_backends.gcs_requests import GcsRequests
from storage_backends.gcs_trust import TrustingAdapter
from storage_backends.per_process import PerProcess

T = TypeVar("T")

KIB = 2**10
MULTIPLE_BYTES = 256 * KIB
LIMITS = Limits(
    min_part_bytes=MULTIPLE_BYTES,
    max_part_bytes=2**40,
    max_parts=2**31,
    part_multiple_bytes=MULTIPLE_BYTES,
    max_object_bytes=5 * 2**40,
    parallel_parts=False,
    conditional_create=True,
)

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_CONNECTIONS = 66  # as in s3.py
_TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, between two pieces of an answer
_ATTEMPTS = 5  # of one call, waiting up to 1, 2, 4, 8 s in between, as boto3 does
# For every call of the library. Its own retries are bounded by time alone (120 s of its default), leave out what is
# not conditional, and do not know Google's 403 for "slow down"; ours serve its calls and our requests alike.
_ONCE: Mapping[str, Any] = {"timeout": _TIMEOUT_SECONDS, "retry": None}
_PAGE = 1000  # the most that a page holds
_METADATA_ID = "archiverupload"
_LISTED = "items(name,size,crc32c,generation,contentType,updated),nextPageToken"
_ABSENT, _NEVER = (
    "0",
    "4102444800000000",
)  # generations; those of objects are microseconds since 1970, this is 2100
_SESSION_ENDED = (404, 410, 499)


def open_backend(url: DestinationUrl) -> GcsBackend:
    """`gs://bucket/prefix`; STORAGE_EMULATOR_HOST is honoured at first use. Raises BadDestinationUrl; asks nobody."""
    url.only_options(())
    if not url.bucket:
        raise BadDestinationUrl("a gs destination names a bucket: gs://bucket/prefix")
    if not _BUCKET.fullmatch(url.bucket):
        raise BadDestinationUrl(f"destination {url.name}: {url.bucket!r} cannot be a bucket's name")
    return GcsBackend(url.bucket, url.prefix)


@dataclass(frozen=True, slots=True)
class _Connection:
    """One process's clients."""

    control: Client
    requests: GcsRequests


def _connect() -> _Connection:
    """With credentials as the library finds them, for no project: objects need none."""
    options = {}
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:  # `host:port` as well, as Google's other libraries take it
        options["api_endpoint"] = (emulator if "://" in emulator else f"http://{emulator}").rstrip("/")
    try:
        client = Client(project=None, client_options=options)
    except ValueError as error:
        # a file of credentials that is none, or one for another of Google's clouds than googleapis.com
        raise AccessDenied(f"the credentials cannot be used with Google Cloud Storage: {error}") from None
    # or a thread of its own asks for the bucket's metadata, for traces, with a permission that ours need not have
    client._bucket_metadata_cache = None  # noqa: SLF001 # the public switch is a variable for the whole process
    authorities = trust.authorities(also=trust.of_requests())
    context = trust.context(authorities)
    adapter = TrustingAdapter(context, pool_maxsize=_CONNECTIONS, max_retries=0)
    client._http.mount("https://", adapter)  # noqa: SLF001 # the library's documented way to set the pool
    client._http.mount("http://", adapter)  # noqa: SLF001
    tokens = client._http._auth_request.session  # noqa: SLF001 # where tokens are fetched, a session of its own
    tokens.mount("https://", TrustingAdapter(context, max_retries=3))
    client._http.max_redirects = 0  # noqa: SLF001 # the API sends none, and our bytes go nowhere else
    return _Connection(client, GcsRequests(client, authorities))


class GcsBackend:
    """See `storage_backends.base.StorageBackend`. `sleep` takes seconds."""

    def __init__(self, bucket: str, prefix: str = "", sleep: Callable[[float], None] = time.sleep) -> None:
        self._name = DestinationUrl("gs", bucket, prefix).name
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._connection = PerProcess(_connect)
        self._sleep = sleep
        self._bucket_seen = False
        self._checks_crc32c = False  # seen to answer with the right one
        self._conditions = Conditions()
        self._conditions.trust_creates()

    @property
    def name(self) -> str:
        return self._name

    @property
    def limits(self) -> Limits:
        return with_conditions(LIMITS, creates=True, replaces=self._conditions.replaces)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = f"storing {spec.key!r} in {self._name}"
        identity = secrets.token_hex(16)

        def send(condition: str | None) -> ObjectInfo:
            try:
                return self.ask(
                    doing, lambda: waiting.complete(self._send(spec, data, crc32c, identity, condition))
                )
            except ObjectExists:
                # of an attempt whose answer was lost, perhaps
                done = self.made_by(spec, identity, len(data))
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
        self, expected: str, key: ObjectKey, send: Callable[[str | None], ObjectInfo], doing: str
    ) -> ObjectInfo:
        """Google compares at one stroke; what stands in its place is believed when it was seen to."""

        def change(generation: str | None) -> ObjectInfo:
            try:
                return send(generation)
            except ObjectExists as error:
                raise ObjectChanged(str(error)) from error

        def generation_now() -> str | None:
            info = self.stat(key)
            return None if info is None else info.etag

        if not re.fullmatch("[0-9]{1,19}", expected):
            raise ObjectChanged(f"{doing}: {expected[:40]!r} is no object's generation")
        return self._conditions.replace(expected, generation_now, change, _NEVER, doing)

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        """As `put`, but attempted once: see `storage_backends.base.Sends`."""
        if spec.if_absent or spec.if_match is not None:  # to be attempted again by whoever knows its identity
            return await waiting.blocking(lambda: self.put(spec, data, crc32c))
        try:
            return await self._send(spec, data, crc32c, secrets.token_hex(16), None)
        except AccessDenied as error:
            refusal = error
        return await waiting.blocking(lambda: equal_or_raise(refusal, self, spec.key, len(data), crc32c))

    async def _send(
        self, spec: ObjectSpec, data: Buffer, crc32c: int, identity: str, condition: str | None
    ) -> ObjectInfo:
        doing = f"storing {spec.key!r} in {self._name}"
        if not self._checks_crc32c:
            check_bytes(data, crc32c, doing)
        resource = {
            "name": self._prefix + spec.key,
            "contentType": spec.content_type,
            "metadata": {**spec.metadata, _METADATA_ID: identity},
            "crc32c": crc.to_base64(crc32c),  # for the service to check
        }
        with translated(doing):
            requests = await self.requests()
            answer = await requests.insert(self._bucket, resource, data, if_generation_match=condition)
        if not answer.ok:
            error = refused(answer, doing)
            raise self._no_bucket(doing) if isinstance(error, ObjectMissing) else error
        info = await self.proved(spec, answer, identity, len(data), crc32c, doing)
        self._checks_crc32c = True
        return info

    def begin(self, spec: ObjectSpec) -> Upload:
        doing = f"beginning {spec.key!r} in {self._name}"
        if spec.part_bytes <= 0 or spec.part_bytes % MULTIPLE_BYTES:
            raise StorageError(f"{doing}: part_bytes must be a multiple of 256 KiB")
        identity = secrets.token_hex(16)

        def begun() -> str:
            uri: str = self._new(spec, identity).create_resumable_upload_session(
                spec.content_type, checksum=None, if_generation_match=_condition(spec), **_ONCE
            )
            return uri

        try:
            return GcsUpload(self, spec, identity, self.ask(doing, begun))
        except ObjectMissing:
            raise self._no_bucket(doing) from None
        except AccessDenied as refusal:
            return UploadOfEqual.instead(self, spec, refusal)

    def resume(self, spec: ObjectSpec, token: str) -> GcsUpload:
        """Asks nobody: that the session has ended shows at the next part, or at `complete`."""
        identity, _, uri = token.partition(" ")
        if not re.fullmatch("[0-9a-f]{32}", identity) or not self._is_ours(uri):
            raise UploadGone(f"resuming {spec.key!r} in {self._name}: the token is not one of a GCS upload")
        return GcsUpload(self, spec, identity, uri)

    def _is_ours(self, uri: str) -> bool:
        """Whether a session's URI leads to the service: we send bytes and credentials there."""
        endpoint = urlsplit(self._connected().api_endpoint)
        try:
            split = urlsplit(uri)
        except ValueError:
            return False
        google_host = split.scheme == "https" and f".{split.hostname}".endswith(".googleapis.com")
        return (split.scheme, split.netloc) == (endpoint.scheme, endpoint.netloc) or google_host

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        blob = self._object(key)
        return None if blob is None else _described(key, blob)

    def read(self, key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        doing = f"reading {key!r} in {self._name}"
        if length_bytes == 0:
            if self.stat(key) is None:
                raise ObjectMissing(f"{doing}: it is not there")
            return b""

        def download() -> bytes:
            try:
                data: bytes = self._blob(key).download_as_bytes(
                    start=start or None,
                    end=None if length_bytes is None else start + length_bytes - 1,
                    raw_download=True,
                    checksum=None,  # there is none of a range
                    single_shot_download=True,  # not in pieces of 8 KiB, which cost four times the CPU
                    **_ONCE,
                )
            except RequestRangeNotSatisfiable:
                return b""  # the object ends before `start`
            if length_bytes is not None and len(data) > length_bytes:
                raise TransientStorageError(f"{doing}: {len(data)} bytes came of {length_bytes} asked for")
            return data

        try:
            return self.ask(doing, download)
        except ObjectMissing:
            self._see_bucket()
            raise

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        doing = f"listing {prefix!r} in {self._name}"

        def page(token: str | None) -> tuple[list[Any], str | None]:
            # page by page: the library's own iterator ends, as if all had been said, after an error
            found = self._connected().list_blobs(
                self._bucket,
                prefix=self._prefix + prefix,
                page_size=_PAGE,
                page_token=token,
                fields=_LISTED,
                **_ONCE,
            )
            return list(next(found.pages)), found.next_page_token

        token: str | None = None
        while True:
            at = token
            try:
                blobs, token = self.ask(doing, lambda: page(at))  # noqa: B023 # called at once
            except ObjectMissing:
                raise self._no_bucket(doing) from None
            for blob in blobs:
                if not isinstance(blob.name, str):
                    raise TransientStorageError(f"{doing}: the server's answer does not describe objects")
                try:
                    key = object_key(blob.name.removeprefix(self._prefix))
                except InvalidKey:
                    continue  # not ours: a folder's marker, say
                yield _described(key, blob)
            if not token:
                return

    def delete(self, key: ObjectKey) -> None:
        try:
            self.ask(f"deleting {key!r} in {self._name}", lambda: self._blob(key).delete(**_ONCE))
        except ObjectMissing:
            self._see_bucket()

    def abort_stale_uploads(self, older_than: timedelta) -> int:  # noqa: ARG002 # nothing to do: see below
        """0: unfinished sessions cannot be listed, are not billed, and end by themselves after a week."""
        return 0

    def removes_stale_uploads(self) -> bool | None:
        return True

    def close(self) -> None:
        connection = self._connection.drop()
        if connection is not None:
            connection.requests.close()
            connection.control.close()

    # -- shared with the uploads

    def ask(self, doing: str, call: Callable[[], T]) -> T:
        """What `call` returns, its errors as ours; called again while they are passing."""
        for attempt in range(1, _ATTEMPTS):
            try:
                with translated(doing):
                    return call()
            except TransientStorageError:
                self._sleep(random.uniform(0, 2 ** (attempt - 1)))  # noqa: S311 # jitter
        with translated(doing):
            return call()

    async def requests(self) -> GcsRequests:
        """Those of this process. To find credentials may take a while."""
        connection = self._connection.made()
        if connection is None:
            with translated(f"opening {self._name}"):
                connection = await waiting.blocking(self._connection.get)
        return connection.requests

    def made_by(self, spec: ObjectSpec, identity: str, size_bytes: int) -> ObjectInfo | None:
        """The object at the key, when it is what the request with this identity made and we lost its answer."""
        blob = self._object(spec.key)
        if blob is None or (blob.metadata or {}).get(_METADATA_ID) != identity or blob.size != size_bytes:
            return None
        return _described(spec.key, blob)

    async def proved(
        self, spec: ObjectSpec, answer: Answer, identity: str, size_bytes: int, crc32c: int, doing: str
    ) -> ObjectInfo:
        """What the service says it has just made. When that is not what we sent, exactly that is deleted again.

        Raises TransientStorageError for what is no answer to this request.
        """
        resource = _resource(answer, doing)
        metadata = resource.get("metadata")
        made_by = metadata.get(_METADATA_ID) if isinstance(metadata, dict) else None
        if (resource.get("name"), made_by) != (self._prefix + spec.key, identity):
            raise TransientStorageError(f"{doing}: the answer describes an object of another request")
        info = _info(spec.key, resource, doing)
        if (info.size_bytes, info.crc32c) == (size_bytes, crc32c):
            return info
        made, generation = self._blob(spec.key), resource["generation"]
        delete = lambda: made.delete(if_generation_match=generation, **_ONCE)  # noqa: E731
        await waiting.blocking(lambda: self.ask(doing, delete))
        raise ChecksumRejected(
            f"{doing}: the server made {info.size_bytes} bytes with CRC32C {info.crc32c or 0:08x} of {size_bytes} with "
            f"{crc32c:08x}; that object was deleted"
        )

    def _connected(self) -> Any:
        with translated(f"opening {self._name}"):
            return self._connection.get().control

    def _blob(self, key: ObjectKey) -> Any:
        return self._connected().bucket(self._bucket).blob(self._prefix + key)

    def _new(self, spec: ObjectSpec, identity: str) -> Any:
        blob = self._blob(spec.key)
        blob.content_type = spec.content_type
        blob.metadata = {**spec.metadata, _METADATA_ID: identity}
        return blob

    def _object(self, key: ObjectKey) -> Any | None:
        bucket = self._connected().bucket(self._bucket)
        doing = f"looking at {key!r} in {self._name}"
        blob = self.ask(doing, lambda: bucket.get_blob(self._prefix + key, **_ONCE))
        if blob is None:
            self._see_bucket()
        return blob

    def _see_bucket(self) -> None:
        """Raise BucketMissing unless the bucket is there; asked once."""
        if self._bucket_seen:
            return
        doing = f"looking for the bucket of {self._name}"
        # a list, for `bucket.exists()` needs storage.buckets.get, which an account that writes objects lacks
        found = self._connected().list_blobs
        try:
            self.ask(doing, lambda: next(found(self._bucket, max_results=1, fields="kind", **_ONCE).pages))
        except ObjectMissing:
            raise self._no_bucket(doing) from None
        except AccessDenied:
            pass  # we may not list it: then a missing key is all that can be told
        self._bucket_seen = True

    def _no_bucket(self, doing: str) -> BucketMissing:
        return BucketMissing(f"{doing}: no such bucket; create it, or correct the destination")


def _condition(spec: ObjectSpec) -> int | None:
    return 0 if spec.if_absent else None


class GcsUpload:
    """See `storage_backends.base.Upload`. One writer at a time; parts in order (`limits.parallel_parts` is False)."""

    def __init__(self, backend: GcsBackend, spec: ObjectSpec, identity: str, uri: str) -> None:
        self._backend = backend
        self._spec = spec
        self._identity = identity
        self._uri = uri
        self._aborted = False

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return f"{self._identity} {self._uri}"

    def parts(self) -> Mapping[int, Part] | None:
        return None  # the session knows how many bytes it holds, nothing of parts and their checksums

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        doing = f"part {number} of {self._described}"
        return self._backend.ask(doing, lambda: waiting.complete(self.send_part(number, data, crc32c)))

    async def send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        """As `put_part`, but attempted once: see `storage_backends.base.SendsParts`."""
        doing = f"part {number} of {self._described}"
        check_bytes(data, crc32c, doing)
        if not 0 < len(data) <= self._spec.part_bytes:
            raise StorageError(f"{doing}: it does not fit its slot of {self._spec.part_bytes} bytes")
        self._refuse_aborted(doing)
        start = (number - 1) * self._spec.part_bytes
        kept = len(data) - len(data) % MULTIPLE_BYTES
        sent = 0
        while sent < kept:
            span = {"Content-Range": f"bytes {start + sent}-{start + kept - 1}/*"}
            piece = data if (sent, kept) == (0, len(data)) else memoryview(data)[sent:kept]
            answer = await self._request("PUT", doing, span, piece)
            held = _bytes_held(answer) - start
            if held <= sent:
                raise UploadGone(f"{doing}: the session holds only {held + start} bytes; begin again")
            sent = held
        rest = base64.b64encode(memoryview(data)[kept:]).decode()
        return Part(number, len(data), crc32c, rest)

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        doing = f"completing {self._described}"
        self._refuse_aborted(doing)
        made, size = crc.of_parts(parts), sum(part.size_bytes for part in parts)
        if made != crc32c:
            raise ChecksumRejected(f"{doing}: the parts make CRC32C {made:08x}, not {crc32c:08x}")
        for place, part in enumerate(parts, start=1):
            if part.number != place or (part.size_bytes != self._spec.part_bytes and place != len(parts)):
                raise StorageError(f"{doing}: part {part.number} is not in its place")
        try:
            rest = base64.b64decode(parts[-1].tag, validate=True) if parts else b""
        except binascii.Error:
            known_not = f"{doing}: its last part was noted in a way that this version does not know"
            raise UploadGone(known_not) from None
        headers = {
            "Content-Range": f"bytes {size - len(rest)}-{size - 1}/{size}" if rest else f"bytes */{size}",
            "x-goog-hash": f"crc32c={crc.to_base64(crc32c)}",
        }
        try:
            answer = self._ask("PUT", doing, headers, rest)
        except (UploadGone, ObjectExists):
            done = self._backend.made_by(self._spec, self._identity, size)
            if done is None:
                raise
            return done
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self._backend, self._spec.key, size, crc32c)
        if answer.status == 308:
            raise UploadGone(f"{doing}: the session holds {_bytes_held(answer)} of {size} bytes; begin again")
        return waiting.complete(self._backend.proved(self._spec, answer, self._identity, size, crc32c, doing))

    def abort(self) -> None:
        self._aborted = True
        with contextlib.suppress(UploadGone):  # 499 is how a session says that it was cancelled
            doing = f"aborting the upload of {self._described}"
            self._ask("DELETE", doing, {}, b"")

    def _ask(self, method: str, doing: str, headers: Mapping[str, str], data: Buffer) -> Answer:
        return self._backend.ask(doing, lambda: waiting.complete(self._request(method, doing, headers, data)))

    async def _request(self, method: str, doing: str, headers: Mapping[str, str], data: Buffer) -> Answer:
        """One request to the session. Returns successes and "go on" (308). Raises UploadGone, ObjectExists,
        ChecksumRejected and all that `refused` knows."""
        with translated(doing):
            requests = await self._backend.requests()
            answer = await requests.session(method, self._uri, headers, data)
        if answer.status in _SESSION_ENDED:
            raise UploadGone(f"{doing}: {answer.status}: the session has ended or is not known")
        goes_on = answer.status == 308 and answer.header("location") is None
        if not answer.ok and not goes_on:
            raise refused(answer, doing)
        return answer

    def _refuse_aborted(self, doing: str) -> None:
        if self._aborted:
            raise UploadGone(f"{doing}: it was aborted")

    @property
    def _described(self) -> str:
        return f"{self._spec.key!r} in {self._backend.name}"


def check_bytes(data: Buffer, crc32c: int, doing: str) -> None:
    actual = crc.crc32c_of(data)
    if actual != crc32c:
        raise ChecksumRejected(f"{doing}: CRC32C is {actual:08x}, {crc32c:08x} was announced")


def _bytes_held(answer: Answer) -> int:
    """What a session says it holds: `Range: bytes=0-n`; none at all when it holds nothing."""
    match = re.fullmatch(r"bytes=0-([0-9]+)", answer.header("range") or "")
    return int(match[1]) + 1 if match else 0


def _described(key: ObjectKey, blob: Any) -> ObjectInfo:
    """What the library says of an object. It reads what came only when it is asked for."""
    doing = f"reading what is said of {key!r}"
    with translated(doing):
        size_bytes, generation, updated_at = blob.size, blob.generation, blob.updated
        crc32c, content_type = blob.crc32c, blob.content_type
    if size_bytes is None:
        raise TransientStorageError(f"{doing}: the server's answer does not describe an object")
    version = None if generation is None else str(generation)
    return ObjectInfo(key, size_bytes, crc.from_base64(crc32c), version, content_type, updated_at)


def _resource(answer: Answer, doing: str) -> Mapping[str, Any]:
    try:
        resource = json.loads(answer.body)
    except ValueError:
        resource = None
    if not isinstance(resource, dict) or "generation" not in resource:
        raise TransientStorageError(f"{doing}: the server's answer does not describe an object")
    return resource


def _info(key: ObjectKey, resource: Mapping[str, Any], doing: str) -> ObjectInfo:
    """What an answer of our own requests says of an object."""
    try:
        size_bytes, updated = int(resource["size"]), resource.get("updated")
        updated_at = None if updated is None else datetime.fromisoformat(updated)
        crc32c = crc.from_base64(resource.get("crc32c"))
    except (KeyError, TypeError, ValueError):
        raise TransientStorageError(f"{doing}: the server's answer does not describe an object") from None
    generation, content_type = str(resource["generation"]), resource.get("contentType")
    return ObjectInfo(key, size_bytes, crc32c, generation, content_type, updated_at)

"""Google Cloud Storage by its JSON API, over google-auth's session.

A large object is one resumable session: sequential, invisible until its last byte, resumable by its URI from any
process for a week, with condition and checksum checked by the server. Three facts of the protocol shape this
(https://cloud.google.com/storage/docs/performing-resumable-uploads):

- Only multiples of 256 KiB are kept until the last chunk. What a part has beyond that (at most 262,143 bytes, of the
  last part) travels in the part's tag and is sent by `complete`: the caller's journal holds what the server cannot.
- The last chunk publishes the object; so it is `complete` that sends it.
- Bytes sent again at an offset that is already kept are ignored: repeating a part is harmless. No status query is
  needed, and none is made (fake-gcs-server publishes a truncated object when asked for one).
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import google.auth
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from storage_backends import crc32c as crc
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Part, object_key
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import (
    BadDestinationUrl,
    BucketMissing,
    ChecksumRejected,
    InvalidKey,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.gcs_errors import refused, translated
from storage_backends.per_process import PerProcess

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

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_CONNECTIONS = 66  # as in s3.py
_TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, between two pieces of an answer
_ATTEMPTS = (
    5  # of one request, waiting up to 1, 2, 4, 8 s in between, as boto3 does; our own retries stand above
)
_METADATA_ID = "archiverupload"
_FIELDS = "name,size,crc32c,etag,generation,contentType,updated,metadata"


def open_backend(url: DestinationUrl) -> GcsBackend:
    """`gs://bucket/prefix`; STORAGE_EMULATOR_HOST is honoured at first use. Raises BadDestinationUrl; asks nobody."""
    url.only_options(())
    if not url.bucket:
        raise BadDestinationUrl("a gs destination names a bucket: gs://bucket/prefix")
    if not _BUCKET.fullmatch(url.bucket):
        raise BadDestinationUrl(f"destination {url.name}: {url.bucket!r} cannot be a bucket's name")
    return GcsBackend(url.bucket, url.prefix)


class _Service:
    """Where the API is, and the session that speaks to it."""

    def __init__(self) -> None:
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        if emulator:
            self.endpoint = (emulator if "://" in emulator else f"http://{emulator}").rstrip("/")
            credentials: Any = AnonymousCredentials()  # type: ignore[no-untyped-call] # google-auth has no types
        else:
            credentials, _ = google.auth.default(scopes=[_SCOPE])
            self.endpoint = f"https://storage.{credentials.universe_domain}"
        self.session: Any = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS, max_retries=0)
        self.session.mount("https://", adapter)
        self.session.mount("http://", adapter)


class GcsBackend:
    """See `storage_backends.base.StorageBackend`. `sleep` takes seconds."""

    def __init__(self, bucket: str, prefix: str = "", sleep: Callable[[float], None] = time.sleep) -> None:
        self._name = DestinationUrl("gs", bucket, prefix).name
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._service = PerProcess(_Service)
        self._sleep = sleep
        self._bucket_seen = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def limits(self) -> Limits:
        return LIMITS

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = f"storing {spec.key!r} in {self._name}"
        check_bytes(data, crc32c, doing)
        identity = secrets.token_hex(16)
        boundary = secrets.token_hex(16).encode()
        described = json.dumps(self.resource(spec, identity) | {"crc32c": crc.to_base64(crc32c)}).encode()
        head = b"--%b\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%b\r\n--%b\r\n\r\n"
        body = b"".join((head % (boundary, described, boundary), data, b"\r\n--%b--\r\n" % boundary))
        answer = self.ask(
            "POST",
            f"/upload/storage/v1/b/{quote(self._bucket, safe='')}/o",
            doing,
            params={"uploadType": "multipart", "fields": _FIELDS, **self.condition(spec)},
            headers={"Content-Type": f"multipart/related; boundary={boundary.decode()}"},
            data=body,
        )
        if answer.status_code == 412:
            done = self.made_by(spec, identity, len(data))
            if done is None:
                raise ObjectExists(f"{doing}: the key is taken")
            return done
        return self.proved(spec, self.json(answer, doing), len(data), crc32c, doing)

    def begin(self, spec: ObjectSpec) -> GcsUpload:
        if spec.part_bytes <= 0 or spec.part_bytes % MULTIPLE_BYTES:
            raise StorageError(
                f"beginning {spec.key!r} in {self._name}: part_bytes must be a multiple of 256 KiB"
            )
        doing = f"beginning {spec.key!r} in {self._name}"
        identity = secrets.token_hex(16)
        answer = self.ask(
            "POST",
            f"/upload/storage/v1/b/{quote(self._bucket, safe='')}/o",
            doing,
            params={"uploadType": "resumable", "fields": _FIELDS, **self.condition(spec)},
            headers={"X-Upload-Content-Type": spec.content_type},
            json=self.resource(spec, identity),
        )
        if answer.status_code == 412:
            raise ObjectExists(f"{doing}: the key is taken")
        if not answer.ok:
            raise self.refusal(answer, doing)
        return GcsUpload(self, spec, identity, answer.headers["Location"])

    def resume(self, spec: ObjectSpec, token: str) -> GcsUpload:
        """Asks nobody: that the session has ended shows at the next part, or at `complete`."""
        identity, _, uri = token.partition(" ")
        if not re.fullmatch("[0-9a-f]{32}", identity) or not self._is_ours(uri):
            raise UploadGone(f"resuming {spec.key!r} in {self._name}: the token is not one of a GCS upload")
        return GcsUpload(self, spec, identity, uri)

    def _is_ours(self, uri: str) -> bool:
        """Whether a session's URI leads to the service: we send bytes and credentials there."""
        with translated(f"opening {self._name}"):
            endpoint = urlsplit(self._service.get().endpoint)
        try:
            split = urlsplit(uri)
        except ValueError:
            return False
        google_host = split.scheme == "https" and f".{split.hostname}".endswith(".googleapis.com")
        return (split.scheme, split.netloc) == (endpoint.scheme, endpoint.netloc) or google_host

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        stored = self.object(key)
        return None if stored is None else _described(key, stored)

    def read(self, key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        doing = f"reading {key!r} in {self._name}"
        if length_bytes == 0:
            if self.stat(key) is None:
                raise ObjectMissing(f"{doing}: it is not there")
            return b""
        last = "" if length_bytes is None else start + length_bytes - 1
        headers = {"Range": f"bytes={start}-{last}"} if start or length_bytes is not None else {}
        answer = self.ask("GET", self._path(key), doing, params={"alt": "media"}, headers=headers)
        if answer.status_code == 416:
            return b""  # the object ends before `start`
        if not answer.ok:
            raise self.refusal(answer, doing, of_key=True)
        data = answer.content
        if answer.status_code == 200:  # the whole object: no range was asked for, or it was not heeded
            data = data[start : None if length_bytes is None else start + length_bytes]
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise TransientStorageError(f"{doing}: another range was answered than the one asked for")
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        doing = f"listing {prefix!r} in {self._name}"
        params = {
            "prefix": self._prefix + prefix,
            "maxResults": "1000",
            "fields": f"items({_FIELDS}),nextPageToken",
        }
        while True:
            page = self.json(self.ask("GET", self._path(), doing, params=params), doing)
            for stored in page.get("items", []):
                try:
                    key = object_key(stored["name"].removeprefix(self._prefix))
                except InvalidKey:
                    continue  # not ours: a folder's marker, say
                yield _described(key, stored)
            if not page.get("nextPageToken"):
                return
            params["pageToken"] = page["nextPageToken"]

    def delete(self, key: ObjectKey) -> None:
        doing = f"deleting {key!r} in {self._name}"
        answer = self.ask("DELETE", self._path(key), doing)
        if answer.status_code == 404:
            self._see_bucket()
        elif not answer.ok:
            raise self.refusal(answer, doing)

    def abort_stale_uploads(self, older_than: timedelta) -> int:  # noqa: ARG002 # nothing to do: see below
        """0: unfinished sessions cannot be listed, are not billed, and end by themselves after a week."""
        return 0

    def removes_stale_uploads(self) -> bool | None:
        return True

    def close(self) -> None:
        service = self._service.drop()
        if service is not None:
            service.session.close()

    # -- shared with the uploads

    def ask(
        self,
        method: str,
        where: str,
        doing: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        json: object = None,
    ) -> requests.Response:
        """One request (`where`: a path of the API, or a session's URI), tried again while the server is out of order.
        Any answer that is not passing is returned."""
        with translated(f"opening {self._name}"):
            service = self._service.get()
        attempt = 0
        while True:
            attempt += 1
            try:
                with translated(doing):
                    answer: requests.Response = service.session.request(
                        method,
                        service.endpoint + where if where.startswith("/") else where,
                        params=params,
                        headers=headers,
                        data=data,
                        json=json,
                        timeout=_TIMEOUT_SECONDS,
                        allow_redirects=False,
                    )
                failure = None if answer.status_code in _FINAL else refused(answer, doing)
                if not isinstance(failure, TransientStorageError):
                    return answer
            except TransientStorageError as error:
                failure = error
            if attempt == _ATTEMPTS:
                raise failure
            self._sleep(random.uniform(0, 2 ** (attempt - 1)))  # noqa: S311 # jitter

    def resource(self, spec: ObjectSpec, identity: str) -> dict[str, Any]:
        return {
            "name": self._prefix + spec.key,
            "contentType": spec.content_type,
            "metadata": {**spec.metadata, _METADATA_ID: identity},
        }

    def condition(self, spec: ObjectSpec) -> dict[str, str]:
        return {"ifGenerationMatch": "0"} if spec.if_absent else {}

    def json(self, answer: requests.Response, doing: str) -> dict[str, Any]:
        if not answer.ok:
            raise self.refusal(answer, doing)
        with translated(doing):
            body: dict[str, Any] = answer.json()
        return body

    def refusal(self, answer: requests.Response, doing: str, *, of_key: bool = False) -> StorageError:
        """A refusal; a 404 means the bucket, unless `of_key` and the bucket is there."""
        error = refused(answer, doing)
        if isinstance(error, ObjectMissing):
            if of_key:
                self._see_bucket()
            else:
                error = BucketMissing(f"{doing}: no such bucket; create it, or correct the destination")
        return error

    def object(self, key: ObjectKey) -> dict[str, Any] | None:
        doing = f"looking at {key!r} in {self._name}"
        answer = self.ask("GET", self._path(key), doing, params={"fields": _FIELDS})
        if answer.status_code == 404:
            self._see_bucket()
            return None
        return self.json(answer, doing)

    def made_by(self, spec: ObjectSpec, identity: str, size_bytes: int) -> ObjectInfo | None:
        """The object at the key, when it is what the request with this identity made and we lost its answer."""
        stored = self.object(spec.key)
        if stored is None or stored.get("metadata", {}).get(_METADATA_ID) != identity:
            return None
        return _described(spec.key, stored) if int(stored["size"]) == size_bytes else None

    def proved(
        self, spec: ObjectSpec, stored: Mapping[str, Any], size_bytes: int, crc32c: int, doing: str
    ) -> ObjectInfo:
        """What the server says it has just made. When that is not what we sent, exactly that is deleted again."""
        info = _described(spec.key, stored)
        if (info.size_bytes, info.crc32c) == (size_bytes, crc32c):
            return info
        self.ask(
            "DELETE", self._path(spec.key), doing, params={"ifGenerationMatch": str(stored["generation"])}
        )
        raise ChecksumRejected(
            f"{doing}: the server made {info.size_bytes} bytes with CRC32C {info.crc32c or 0:08x} of {size_bytes} with "
            f"{crc32c:08x}; that object was deleted"
        )

    def _path(self, key: ObjectKey | None = None) -> str:
        path = f"/storage/v1/b/{quote(self._bucket, safe='')}/o"
        return path if key is None else f"{path}/{quote(self._prefix + key, safe='')}"

    def _see_bucket(self) -> None:
        """Raise BucketMissing unless the bucket is there; asked once."""
        if self._bucket_seen:
            return
        doing = f"looking for the bucket of {self._name}"
        answer = self.ask("GET", self._path(), doing, params={"maxResults": "1", "fields": "kind"})
        if answer.status_code == 404:
            raise self.refusal(answer, doing)
        self._bucket_seen = True  # or we may not list it: then a missing key is all that can be told


_FINAL = (308, 499)  # a session's "go on" and "cancelled"


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
        check_bytes(data, crc32c, doing)
        if not 0 < len(data) <= self._spec.part_bytes:
            raise StorageError(f"{doing}: it does not fit its slot of {self._spec.part_bytes} bytes")
        self._refuse_aborted(doing)
        start = (number - 1) * self._spec.part_bytes
        kept = len(data) - len(data) % MULTIPLE_BYTES
        body = bytes(memoryview(data)[:kept])
        sent = 0
        while sent < kept:
            answer = self._send(body[sent:], f"bytes {start + sent}-{start + kept - 1}/*", doing)
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
        rest = base64.b64decode(parts[-1].tag) if parts else b""
        span = f"bytes {size - len(rest)}-{size - 1}/{size}" if rest else f"bytes */{size}"
        try:
            answer = self._send(rest, span, doing, {"x-goog-hash": f"crc32c={crc.to_base64(crc32c)}"})
        except (UploadGone, ObjectExists):
            done = self._backend.made_by(self._spec, self._identity, size)
            if done is None:
                raise
            return done
        if answer.status_code == 308:
            raise UploadGone(f"{doing}: the session holds {_bytes_held(answer)} of {size} bytes; begin again")
        return self._backend.proved(self._spec, self._backend.json(answer, doing), size, crc32c, doing)

    def abort(self) -> None:
        doing = f"aborting the upload of {self._described}"
        self._aborted = True
        answer = self._backend.ask("DELETE", self._uri, doing)
        if not answer.ok and answer.status_code not in (404, 410, 499):
            raise self._backend.refusal(answer, doing)

    def _send(
        self, data: bytes, span: str, doing: str, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        answer = self._backend.ask(
            "PUT", self._uri, doing, headers={"Content-Range": span, **(headers or {})}, data=data
        )
        if answer.status_code in (404, 410, 499):
            raise UploadGone(f"{doing}: {answer.status_code}: the session has ended or is not known")
        if answer.status_code == 412:
            raise ObjectExists(f"{doing}: the key is taken")
        if not answer.ok:
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


def _bytes_held(answer: requests.Response) -> int:
    """What a session says it holds: `Range: bytes=0-n`; none at all when it holds nothing."""
    match = re.fullmatch(r"bytes=0-([0-9]+)", answer.headers.get("Range", ""))
    return int(match[1]) + 1 if match else 0


def _described(key: ObjectKey, stored: Mapping[str, Any]) -> ObjectInfo:
    updated = stored.get("updated")
    return ObjectInfo(
        key,
        int(stored["size"]),
        crc.from_base64(stored.get("crc32c")),
        stored.get("etag"),
        stored.get("contentType"),
        datetime.fromisoformat(updated).astimezone(UTC) if updated else None,
    )

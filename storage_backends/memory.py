"""A store in this process's memory, for tests and experiments. Unbounded, and gone with the process.

`memory://name` is the same store for everyone in the process who opens that name.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from storage_backends import crc32c as crc
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Part
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import (
    BadDestinationUrl,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    UploadGone,
)
from storage_backends.operation import Operation
from storage_backends.optional import Place

LIMITS = Limits(
    min_part_bytes=1,
    max_part_bytes=2**40,
    max_parts=10_000,  # S3's, so that code tried here fits there
    part_multiple_bytes=1,
    max_object_bytes=2**40,
    parallel_parts=True,
    conditional_create=True,
    conditional_replace=True,
)


@dataclass(frozen=True, slots=True)
class StoredObject:
    data: bytes
    info: ObjectInfo
    metadata: Mapping[str, str]
    upload_id: str


@dataclass(slots=True)
class _OpenUpload:
    full_key: str
    began_at: datetime
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class Store:
    """Shared by the `MemoryBackend`s of one name. Tests may read `objects`, and set `clock`, which dates them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[str, _OpenUpload] = {}
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)


_stores: dict[str, Store] = {}
_stores_lock = threading.Lock()


def open_backend(url: DestinationUrl) -> MemoryBackend:
    url.only_options(())
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", url.bucket):
        raise BadDestinationUrl("a memory destination has a name, as in memory://tests")
    with _stores_lock:
        return MemoryBackend(url.bucket, url.prefix, _stores.setdefault(url.bucket, Store()))


class MemoryBackend:
    """See `storage_backends.base.StorageBackend`."""

    def __init__(self, name: str, prefix: str = "", store: Store | None = None) -> None:
        self._name = DestinationUrl("memory", name, prefix).name
        self._prefix = f"{prefix}/" if prefix else ""
        self.store = store if store is not None else Store()

    @property
    def name(self) -> str:
        return self._name

    @property
    def limits(self) -> Limits:
        return LIMITS

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = Operation("put", self._name, spec.key, "storing")
        stored = bytes(data)
        with doing:
            crc.check(stored, crc32c, doing)
            return self._publish(spec, stored, crc32c, uuid.uuid4().hex)

    def begin(self, spec: ObjectSpec) -> MemoryUpload:
        token = uuid.uuid4().hex
        with self.store.lock:
            self.store.uploads[token] = _OpenUpload(self._prefix + spec.key, datetime.now(UTC))
        return MemoryUpload(self, spec, token)

    def resume(self, spec: ObjectSpec, token: str) -> MemoryUpload:
        upload = MemoryUpload(self, spec, token)
        with Operation("resume", self._name, spec.key, "resuming the upload of"):
            upload.parts()
        return upload

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        with self.store.lock:
            stored = self.store.objects.get(self._prefix + key)
        return stored.info if stored else None

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        with Operation("read", self._name, key, "reading") as doing:
            with self.store.lock:
                stored = self.store.objects.get(self._prefix + key)
            if stored is None:
                raise ObjectMissing(f"{doing}: it is not there")
            if if_match not in (None, stored.info.etag):
                raise ObjectChanged(f"{doing}: the key holds another object")
        return stored.data[start : None if length_bytes is None else start + length_bytes]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self.store.lock:
            found = [s.info for k, s in self.store.objects.items() if k.startswith(self._prefix + prefix)]
        yield from found

    def delete(self, key: ObjectKey) -> None:
        with self.store.lock:
            self.store.objects.pop(self._prefix + key, None)

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        return self._abort(older_than, lambda _: True)

    def abort_uploads(self, older_than: timedelta, ours: Callable[[str], bool]) -> int:
        return self._abort(older_than, ours)

    def _abort(self, older_than: timedelta, ours: Callable[[str], bool]) -> int:
        limit = datetime.now(UTC) - older_than
        with self.store.lock:
            stale = [
                token
                for token, upload in self.store.uploads.items()
                if upload.began_at <= limit
                and upload.full_key.startswith(self._prefix)
                and ours(upload.full_key.removeprefix(self._prefix))
            ]
            for token in stale:
                del self.store.uploads[token]
        return len(stale)

    def place(self) -> Place:
        return Place(f"memory {id(self.store)}", "", self._prefix)

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
        between()
        with Operation("copy", self._name, spec.key, "copying") as doing, self.store.lock:
            there = self.store.objects.get(place.prefix + key)
            if there is None:
                raise ObjectMissing(f"{doing}: its source is not there")
            return self._publish(spec, there.data, there.info.crc32c or 0, uuid.uuid4().hex)

    def close(self) -> None:
        """Do nothing: the objects stay for others who opened the same name."""

    def _publish(self, spec: ObjectSpec, data: bytes, crc32c: int, upload_id: str) -> ObjectInfo:
        info = ObjectInfo(
            spec.key, len(data), crc32c, f"{crc32c:08x}-{upload_id}", spec.content_type, self.store.clock()
        )
        with self.store.lock:
            if spec.if_absent and self._prefix + spec.key in self.store.objects:
                raise ObjectExists(f"storing {spec.key!r} in {self._name}: the key is taken")
            if spec.if_match is not None:
                there = self.store.objects.get(self._prefix + spec.key)
                if there is None or there.info.etag != spec.if_match:
                    raise ObjectChanged(
                        f"replacing {spec.key!r} in {self._name}: the key holds another object"
                    )
            self.store.objects[self._prefix + spec.key] = StoredObject(
                data, info, dict(spec.metadata), upload_id
            )
        return info


class MemoryUpload:
    """See `storage_backends.base.Upload`."""

    def __init__(self, backend: MemoryBackend, spec: ObjectSpec, token: str) -> None:
        self._backend = backend
        self._spec = spec
        self._token = token

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return self._token

    def parts(self) -> Mapping[int, Part] | None:
        with self._doing("parts", "listing the parts of") as doing, self._backend.store.lock:
            if self._already_completed() is not None:
                return None  # `complete` will return the same object again
            return {number: part for number, (part, _) in self._open(doing).parts.items()}

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        stored = bytes(data)
        part = Part(number, len(stored), crc32c, f"{crc32c:08x}")
        with self._doing("put_part", f"sending part {number} of") as doing:
            crc.check(stored, crc32c, doing)
            with self._backend.store.lock:
                self._open(doing).parts[number] = (part, stored)
        return part

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        with self._doing("complete", "completing") as doing, self._backend.store.lock:
            done = self._already_completed()
            if done is not None:
                return done
            held = self._open(doing).parts
            chosen = [held.get(part.number) for part in parts]
            if any(mine is None or mine[0] != part for mine, part in zip(chosen, parts, strict=True)):
                raise UploadGone(f"{doing}: a part is not there")
            data = b"".join(mine[1] for mine in chosen if mine is not None)
            crc.check(data, crc32c, doing)
            info = self._backend._publish(self._spec, data, crc32c, self._token)  # noqa: SLF001 # the two classes are one backend
            del self._backend.store.uploads[self._token]
            return info

    def abort(self) -> None:
        with self._backend.store.lock:
            self._backend.store.uploads.pop(self._token, None)

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._backend.name, self._spec.key, verb)

    def _open(self, doing: Operation) -> _OpenUpload:
        upload = self._backend.store.uploads.get(self._token)
        if upload is None:
            raise UploadGone(f"{doing}: no such upload")
        return upload

    def _already_completed(self) -> ObjectInfo | None:
        """Return the object that an earlier `complete` of this upload made, if the key still holds it."""
        stored = self._backend.store.objects.get(self._backend._prefix + self._spec.key)  # noqa: SLF001
        return stored.info if stored is not None and stored.upload_id == self._token else None

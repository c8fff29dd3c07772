"""Destinations in memory: what is really there, what each process is told of it, and what happens to it behind our
back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from archiver.core.records.keys import MARKER
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Part, Upload
from storage_backends.conditional import Conditions, with_conditions
from storage_backends.crc32c import crc32c_of
from storage_backends.equal import equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    DestinationFull,
    StorageError,
    TransientStorageError,
)
from storage_backends.memory import MemoryBackend, Store, StoredObject
from tests.simulation.faults import Faults
from tests.simulation.scheduler import Process, Scheduler

if TYPE_CHECKING:
    from tests.simulation.retention import Retention

T = TypeVar("T")

FOREIGN = "others/report.csv"
MANIFESTS = "manifests/"
REFUSING = ("denied", "bucket missing", "read only", "full")
"""The faults of a store that takes nothing."""
WORKERS_DENIED = "workers denied"
"""It takes nothing from the workers, whose credentials are not those of the others."""


class StoreAudit(Protocol):
    """Told of every change by one of our processes, just before and just after it."""

    def wrote(
        self, process: Process, store: Destination, key: str, before: StoredObject | None, mounted: bool
    ) -> None: ...

    def deleted(
        self, process: Process, store: Destination, key: str, before: StoredObject | None
    ) -> None: ...

    def read(self, process: Process, store: Destination, key: str, start: int, data: bytes) -> None: ...

    def looked(self, process: Process, store: Destination, keys: Sequence[str]) -> None: ...


class Conditional(StrEnum):
    """What a store does about If-Match and If-None-Match."""

    HONOURED = "honoured"
    LEARNED = "learned"  # the same, and our backend finds it out, as that for S3 does
    IGNORED = "ignored"  # it takes them and does not look: our backend finds it out
    REFUSED = "refused"  # 501: our backend finds it out
    UNKNOWN = "unknown"  # our backend never asks


@dataclass(frozen=True, slots=True)
class Refusal:
    at: float
    process: Process
    life: int
    attempt_began: float


class Destination:
    """One destination, shared by all processes. `real` is what the oracle looks at; `empty` is what is there while it
    is unmounted."""

    def __init__(
        self,
        scheduler: Scheduler,
        faults: Faults,
        name: str,
        *,
        checksums: bool,
        conditions: Conditional,
        no_overwrite: bool,
    ) -> None:
        self.scheduler = scheduler
        self.faults = faults
        self.real = MemoryBackend(name)
        self.real.store.clock = scheduler.now
        self.name = self.real.name
        self.empty = MemoryBackend(name)
        self.checksums = checksums
        self.conditions = conditions
        self.no_overwrite = no_overwrite
        self.audit: StoreAudit | None = None
        self.retention: Retention | None = None  # it locks nothing
        self.corrupted: set[str] = set()  # keys whose bytes were changed on their way in
        self.refusals: list[Refusal] = []  # of objects of workers
        self.took_at: dict[str, float] = {}  # the last time that it took something, by process
        self.refused_control_at = float(
            "-inf"
        )  # the last time that it refused an upload of a control process
        self.objects["others/report.csv"] = self._foreign()

    @property
    def objects(self) -> dict[str, StoredObject]:
        return self.real.store.objects

    @property
    def compares(self) -> bool:
        """Return whether it refuses to write over something else, in one step."""
        return self.conditions in (Conditional.HONOURED, Conditional.LEARNED)

    @property
    def kind_of_fault(self) -> str | None:
        return (
            "unmounted"
            if not self.mounted
            else self.faults.active(f"store:{self.name}", self.scheduler.seconds)
        )

    @property
    def mounted(self) -> bool:
        """Whatever else happens to it meanwhile."""
        return not self.faults.is_active(f"store:{self.name}", "unmounted", self.scheduler.seconds)

    @property
    def unmounted_at(self) -> float:
        return self.faults.began(f"store:{self.name}", "unmounted", self.scheduler.seconds)

    @property
    def unmounted_for(self) -> float:
        return self.scheduler.seconds - self.unmounted_at

    def backend(self) -> MemoryBackend:
        if not self.mounted:
            return self.empty
        if self.empty.store.objects or self.empty.store.uploads:
            self.empty = MemoryBackend(self.real.name.removeprefix("memory://"), store=Store())
        return self.real

    def check(self, process: Process, operation: str, key: str) -> None:
        kind = self.kind_of_fault
        doing = f"{operation} at {self.name}"
        writes = operation in ("put", "begin", "put_part", "complete")
        is_worker = process.name.startswith("worker")
        is_denied = kind == "denied" or (writes and is_worker and kind == WORKERS_DENIED)
        if writes and (kind in REFUSING or is_denied) and is_worker and key != MARKER:
            refusal = Refusal(self.scheduler.seconds, process, process.lives, process.attempt_began)
            self.refusals.append(refusal)
        if operation == "begin" and kind in REFUSING and process.name.startswith("control"):
            self.refused_control_at = self.scheduler.seconds
        if kind == "503" or (kind == "flaky" and self.scheduler.rng.random() < 0.3):
            raise TransientStorageError(f"{doing}: 503")
        if is_denied:
            raise AccessDenied(f"{doing}: 403")
        if kind == "bucket missing":
            raise BucketMissing(f"{doing}: 404")
        if kind == "read only" and (writes or operation == "delete"):
            raise AccessDenied(f"{doing}: 403")
        if kind == "full" and writes:
            raise DestinationFull(f"{doing}: no space left")

    def refusal(self, key: str) -> AccessDenied:
        return AccessDenied(f"{self.name}/{key}: the retention policy forbids to replace it")

    def corrupt(self, backend: MemoryBackend, key: str) -> ObjectInfo | None:
        """Perhaps change what has just been stored, on its way in: the store knows no better."""
        there = backend.store.objects[key]
        if (
            not key.startswith("recordings/")
            or self.kind_of_fault != "corrupting"
            or not there.data
            or self.no_overwrite  # what is wrong there stays wrong
            or self.scheduler.rng.random() < 0.6
        ):
            return None
        self.corrupted.add(key)
        data = bytes([there.data[0] ^ 1]) + there.data[1:]
        info = replace(there.info, crc32c=crc32c_of(data))
        backend.store.objects[key] = replace(there, data=data, info=info)
        return info

    # -- behind our back -------------------------------------------------------------------------------------
    def rot(self, key: str) -> None:
        """Flip a bit; the store goes on telling the old checksum."""
        there = self.objects[key]
        if there.data:
            at = len(there.data) // 2
            data = there.data[:at] + bytes([there.data[at] ^ 4]) + there.data[at + 1 :]
            self.objects[key] = replace(there, data=data)

    def remove(self, key: str) -> None:
        before = self.objects.pop(key, None)
        if self.retention is not None:
            self.retention.supersede(before)

    def some_key(self, rng: random.Random, *, manifests: bool) -> str | None:
        keys = [
            key
            for key in self.objects
            if key.startswith(MANIFESTS) == manifests and key.startswith((MANIFESTS, "recordings/"))
        ]
        return rng.choice(sorted(keys)) if keys else None

    def _foreign(self) -> StoredObject:
        info = ObjectInfo(ObjectKey(FOREIGN), 5, 0, "foreign", "text/csv", self.scheduler.now())
        return StoredObject(b"a,b,c", info, {}, "foreign")


class SimStore:
    """`storage_backends.base.StorageBackend`, as one process has it."""

    def __init__(self, process: Process, destination: Destination) -> None:
        self._process = process
        self.destination = destination
        self.name = destination.name
        self._conditions = Conditions()  # what this process has found out

    @property
    def limits(self) -> Limits:
        limits, kind = self.destination.real.limits, self.destination.conditions
        if kind in (Conditional.HONOURED, Conditional.UNKNOWN):
            honours = kind is Conditional.HONOURED
            return replace(limits, conditional_create=honours, conditional_replace=honours)
        return with_conditions(limits, creates=self._conditions.creates, replaces=self._conditions.replaces)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = f"put at {self.name}"
        if (spec.if_absent or spec.if_match) and self.destination.conditions is not Conditional.UNKNOWN:
            self._process.maybe_pause_at_commit()
        if self.destination.conditions in (Conditional.HONOURED, Conditional.UNKNOWN):
            return self._put(spec, data, crc32c)
        if spec.if_absent:
            return self._conditions.create(
                lambda: self.stat(spec.key) is not None,
                lambda absent: self._put(replace(spec, if_absent=absent), data, crc32c),
                doing,
            )
        if spec.if_match is None:
            return self._put(spec, data, crc32c)
        return self._conditions.replace(
            spec.if_match,
            lambda: self._etag(spec.key),
            lambda etag: self._put(replace(spec, if_match=etag), data, crc32c),
            "never",
            doing,
        )

    def _etag(self, key: ObjectKey) -> str | None:
        there = self.stat(key)
        return there.etag if there is not None else None

    def _put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        return self._do("put", spec.key, lambda backend: self._put_at(backend, spec, data, crc32c))

    def _put_at(self, backend: MemoryBackend, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.destination.no_overwrite and spec.key in backend.store.objects and not spec.if_absent:
            refusal = self.destination.refusal(spec.key)
            return self._told(equal_or_raise(refusal, backend, spec.key, len(data), crc32c))
        asked = spec
        if self.destination.conditions is Conditional.REFUSED and (spec.if_absent or spec.if_match):
            raise StorageError(f"{self.name}: 501 NotImplemented")
        if self.destination.conditions in (Conditional.IGNORED, Conditional.UNKNOWN):
            asked = replace(spec, if_absent=False, if_match=None)
        before = backend.store.objects.get(spec.key)
        info = backend.put(asked, data, crc32c)
        info = self.destination.corrupt(backend, spec.key) or info
        self._wrote(backend, spec.key, before)
        return self._told(info)

    def begin(self, spec: ObjectSpec) -> Upload:
        return SimUpload(self, self._do("begin", spec.key, lambda backend: backend.begin(spec)))

    def resume(self, spec: ObjectSpec, token: str) -> Upload:
        return SimUpload(self, self._do("resume", spec.key, lambda backend: backend.resume(spec, token)))

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        def stat(backend: MemoryBackend) -> ObjectInfo | None:
            info = backend.stat(key)
            self._process.looked_at[self.name, key] = self.destination.scheduler.seconds
            self._looked(backend, [key])
            return self._told(info) if info else None

        return self._do("stat", key, stat)

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        def read(backend: MemoryBackend) -> tuple[MemoryBackend, bytes]:
            return backend, backend.read(key, start, length_bytes, if_match=if_match)

        backend, data = self._do("read", key, read)
        if self.destination.audit is not None and backend is self.destination.real:
            self.destination.audit.read(self._process, self.destination, key, start, data)  # it has heard
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        def listed(backend: MemoryBackend) -> Sequence[ObjectInfo]:
            found = [self._told(info) for info in backend.list(prefix)]
            self._looked(backend, [info.key for info in found])
            return found

        return iter(self._do("list", prefix, listed))

    def delete(self, key: ObjectKey) -> None:
        self._do("delete", key, lambda backend: self._delete_at(backend, key))

    def _delete_at(self, backend: MemoryBackend, key: ObjectKey) -> None:
        if self.destination.no_overwrite:
            raise AccessDenied(f"{self.name}/{key}: the retention policy forbids to delete it")
        before = backend.store.objects.get(key)
        backend.delete(key)
        if backend is self.destination.real:
            self._superseded(before)
            if self.destination.audit is not None:
                self.destination.audit.deleted(self._process, self.destination, key, before)

    def _superseded(self, before: StoredObject | None) -> None:
        if self.destination.retention is not None:
            self.destination.retention.supersede(before)

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        return self._do("abort_stale", "", lambda backend: backend.abort_stale_uploads(older_than))

    def close(self) -> None:
        return

    def _do(self, operation: str, key: str, action: Callable[[MemoryBackend], T]) -> T:
        def act() -> T:
            self.destination.check(self._process, operation, key)
            return action(self.destination.backend())

        def lost() -> StorageError:
            return TransientStorageError(f"{operation} at {self.name}: no answer")

        return self._process.call(f"{self.name[9:]} {operation} {key[-40:]}", act, lost)

    def _wrote(self, backend: MemoryBackend, key: str, before: StoredObject | None) -> None:
        self.destination.took_at[self._process.name] = self.destination.scheduler.seconds
        mounted = backend is self.destination.real
        if mounted:
            self._superseded(before)
        if self.destination.audit is not None:
            self.destination.audit.wrote(self._process, self.destination, key, before, mounted)

    def _looked(self, backend: MemoryBackend, keys: Sequence[str]) -> None:
        if self.destination.audit is not None and backend is self.destination.real:
            self.destination.audit.looked(self._process, self.destination, keys)

    def _told(self, info: ObjectInfo) -> ObjectInfo:
        return info if self.destination.checksums else replace(info, crc32c=None)


class SimUpload:
    """`storage_backends.base.Upload`. It stays with the backend that it was begun at, mounted or not."""

    def __init__(self, store: SimStore, inner: Any) -> None:
        self._store = store
        self._inner = inner

    @property
    def spec(self) -> ObjectSpec:
        return self._inner.spec  # type: ignore[no-any-return]

    @property
    def token(self) -> str:
        return self._inner.token  # type: ignore[no-any-return]

    def parts(self) -> Mapping[int, Part] | None:
        return self._do("parts", lambda upload: upload.parts())

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        return self._do("put_part", lambda upload: upload.put_part(number, data, crc32c))

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        def complete(upload: Upload) -> ObjectInfo:
            backend, key = self._inner._backend, self.spec.key
            if self._store.destination.no_overwrite and key in backend.store.objects:
                refusal, size = self._store.destination.refusal(key), sum(part.size_bytes for part in parts)
                return self._store._told(equal_or_raise(refusal, backend, key, size, crc32c))
            before = backend.store.objects.get(key)
            info = upload.complete(parts, crc32c)
            info = self._store.destination.corrupt(backend, key) or info
            self._store._wrote(backend, key, before)
            return self._store._told(info)

        return self._do("complete", complete)

    def abort(self) -> None:
        self._do("abort", lambda upload: upload.abort())

    def _do(self, operation: str, action: Callable[[Upload], T]) -> T:
        def act(backend: MemoryBackend) -> T:
            self._inner._backend = backend
            return action(self._inner)

        return self._store._do(operation, self.spec.key, act)

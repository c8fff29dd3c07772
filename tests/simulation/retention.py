"""A destination that locks what is committed (Object Lock), in a bucket that keeps older versions while they are
locked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import ObjectMissing
from storage_backends.memory import MemoryBackend, StoredObject
from storage_backends.optional import NotDeleted, ObjectVersion
from tests.simulation.scheduler import DAY, START, Scheduler
from tests.simulation.stores import SimStore


class Retention:
    """The locks of one destination, and the versions that they keep. A version is named by its ETag."""

    def __init__(self, scheduler: Scheduler, days: int) -> None:
        self._scheduler = scheduler
        self._days = days
        self._until: dict[tuple[str, str], float] = {}
        self._older: dict[tuple[str, str], StoredObject] = {}

    def lock(self, info: ObjectInfo) -> None:
        """A later lock is never shorter."""
        self._until[info.key, info.etag or ""] = self._scheduler.seconds + self._days * DAY

    def ends(self) -> datetime:
        """When a lock that begins now is over."""
        return START + timedelta(seconds=self._scheduler.seconds + self._days * DAY)

    def supersede(self, before: StoredObject | None) -> None:
        """It was overwritten or deleted: its bytes stay while it is locked."""
        if before is not None and self.locked_until(before.info.key, before.info.etag or "") is not None:
            self._older[before.info.key, before.info.etag or ""] = before

    def locked_until(self, key: str, version: str) -> datetime | None:
        until = self._until.get((key, version), 0.0)
        return START + timedelta(seconds=until) if until > self._scheduler.seconds else None

    def ended_at(self, asset_id: str) -> float:
        """When the last lock of an asset's objects ends, or ended; negative when none was locked."""
        return max((until for (key, _), until in self._until.items() if asset_id in key), default=-1.0)

    def versions(self, prefix: str = "") -> Sequence[tuple[str, str]]:
        """Keys and versions that nobody sees who lists objects."""
        return sorted(each for each in self._older if each[0].startswith(prefix))

    def older(self) -> Sequence[str]:
        """Their keys."""
        return [key for key, _ in self.versions()]

    def delete(self, key: str, version: str) -> None:
        self._older.pop((key, version), None)


class LockingStore(SimStore):
    """`storage_backends.optional.Locks` and `KeepsVersions`, as one process has them."""

    def lock(self, keys: Collection[ObjectKey]) -> datetime | None:
        def lock(backend: MemoryBackend) -> datetime:
            for key in sorted(keys):
                there = backend.store.objects.get(key)
                if there is None:
                    raise ObjectMissing(f"lock at {self.name}: {key} is not there")
                self._retention.lock(there.info)
            return self._retention.ends()

        return self._do("lock", next(iter(sorted(keys)), ""), lock)

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        def versions(backend: MemoryBackend) -> Sequence[ObjectVersion]:
            found = [ObjectVersion(info.key, info.etag or "", True) for info in backend.list(prefix)]
            self._looked(backend, [each.key for each in found])
            if backend is self.destination.real:
                older = self._retention.versions(prefix)
                found += [ObjectVersion(ObjectKey(key), version, False) for key, version in older]
            return found

        return iter(self._do("versions", prefix, versions))

    def delete_versions(self, chosen: Sequence[ObjectVersion]) -> Sequence[NotDeleted]:
        def delete(backend: MemoryBackend) -> Sequence[NotDeleted]:
            refused = []
            for each in chosen:
                until = self._retention.locked_until(each.key, each.id)
                there = backend.store.objects.get(each.key)
                if until is not None:
                    refused.append(NotDeleted(each, "Object Lock", until))
                elif there is not None and there.info.etag == each.id:
                    self._delete_at(backend, each.key)
                else:
                    self._retention.delete(each.key, each.id)
            return refused

        return self._do("delete_versions", chosen[0].key if chosen else "", delete)

    def _put_at(self, backend: MemoryBackend, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        info = super()._put_at(backend, spec, data, crc32c)
        if spec.lock:
            self._retention.lock(info)
        return info

    @property
    def _retention(self) -> Retention:
        assert self.destination.retention is not None
        return self.destination.retention

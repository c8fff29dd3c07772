"""Locks begin at the commit: media before the manifest, the manifest as it is written, nothing that has doubts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from archiver.core.attempt.outcomes import Archived
from archiver.core.records import keys
from archiver.core.records.commit import accept, commit
from archiver.core.records.manifest import DOUBTED, Manifest
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.harness import ArchiverHarness, file

UNTIL = datetime(2027, 1, 1, tzinfo=UTC)


class LockingStore(MemoryBackend):
    """Notes what is stored and locked, in order. `refuses`: the next lock is not permitted."""

    def __init__(self) -> None:
        super().__init__("one")
        self.done: list[tuple[str, str]] = []
        self.specs: dict[str, ObjectSpec] = {}
        self.refuses = False

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self.done.append(("locked put" if spec.lock else "put", spec.key))
        self.specs[spec.key] = spec
        return super().put(spec, data, crc32c)

    def lock(self, keys: Collection[ObjectKey]) -> datetime | None:
        if self.refuses:
            self.refuses = False
            raise AccessDenied("locking: 403 s3:PutObjectRetention")
        self.done += [("lock", key) for key in keys]
        return UNTIL


def manifests(store: MemoryBackend) -> list[str]:
    return [key for key in store.store.objects if key.startswith(keys.MANIFESTS)]


def test_media_is_locked_before_the_manifest_is_written_and_that_as_it_is() -> None:
    store = LockingStore()
    harness = ArchiverHarness(lambda: file(b"movie"), stores=[store])

    assert isinstance(harness.archive(), Archived)

    media = next(key for _, key in store.done if key.endswith(".mp4"))
    assert store.done == [("put", media), ("lock", media), ("locked put", manifests(store)[0])]


def test_media_says_what_it_is_and_a_record_does_not() -> None:
    store = LockingStore()
    harness = ArchiverHarness(lambda: file(b"movie"), stores=[store])
    harness.archive()

    media, record = store.specs.values()
    asset = harness.api.assets[0]
    assert media.media
    assert media.labels["asset"] == asset.id
    assert {"room", "session", "type"} <= media.labels.keys()
    assert (record.media, record.labels) == (False, {})


def test_what_cannot_be_locked_is_not_archived_and_is_once_it_can() -> None:
    store = LockingStore()
    store.refuses = True
    harness = ArchiverHarness(lambda: file(b"movie"), stores=[store])

    refused = harness.archive()
    without = manifests(store)
    outcome = harness.archive_until_settled()

    assert not isinstance(refused, Archived)
    assert without == []
    assert isinstance(outcome, Archived)
    assert [what for what, _ in store.done][-2:] == ["lock", "locked put"]


def test_what_has_doubts_is_not_locked_before_it_is_accepted() -> None:
    store = LockingStore()
    harness = ArchiverHarness(lambda: file(b"movie"), stores=[store])
    harness.archive()
    (key,) = manifests(store)
    manifest = Manifest.model_validate_json(store.store.objects[key].data)
    changes = {"schema_version": DOUBTED, "doubts": ("too short",), "fence": manifest.rank + 1}
    doubted = manifest.model_copy(update=changes)
    store.done.clear()

    elsewhere = ObjectKey(f"manifests/undated/{keys.record_name(key)}")
    commit(store, elsewhere, doubted)
    while_doubted = [what for what, _ in store.done]
    accept(store, elsewhere, by="anna", why="it is all there is", at=UNTIL)

    assert while_doubted == ["put"]
    assert [what for what, _ in store.done[1:]] == ["lock", "put", "lock"]

"""Destinations that take new objects and refuse to replace or delete them: retention, Object Lock, WORM, or an account
without the right to delete. An attempt that was interrupted is completed by the next one there as well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from archiver.core.attempt.outcomes import AlreadyArchived, Archived
from archiver.core.destinations import breaker
from archiver.core.destinations.checked import Destinations
from archiver.core.destinations.guarded import guarded
from archiver.core.records import keys
from archiver.core.records.manifest import read_manifest
from archiver.core.upkeep.reconcile import Reconciler
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, StorageBackend, Upload
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import AccessDenied, TransientStorageError
from storage_backends.memory import MemoryBackend, MemoryUpload
from tests.core.archived import archive_at, enter, put
from tests.core.examples import asset
from tests.core.fakes import Clock
from tests.core.harness import PART_BYTES, ArchiverHarness, BytesSource, Tree

SMALL, LARGE = b"s" * (PART_BYTES // 2), b"l" * (PART_BYTES * 5 + 3)


class WriteOnce(MemoryBackend):
    """As the backends do where the service refuses. `interrupted`: how many manifests are not written first."""

    def __init__(self, interrupted: int) -> None:
        super().__init__("worm")
        self.interrupted = interrupted
        self.refused = 0

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key.startswith("manifests/") and self.interrupted:
            self.interrupted -= 1
            raise TransientStorageError("the worker was killed here")
        if self.stat(spec.key) is not None and not spec.if_absent:
            return equal_or_raise(self._refusal(spec.key), self, spec.key, len(data), crc32c)
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> Upload:  # type: ignore[override]
        if self.stat(spec.key) is not None:
            return UploadOfEqual.instead(self, spec, self._refusal(spec.key))
        upload: MemoryUpload = super().begin(spec)
        return upload

    def delete(self, key: ObjectKey) -> None:
        raise self._refusal(key)

    def _refusal(self, key: ObjectKey) -> AccessDenied:
        self.refused += 1
        return AccessDenied(f"storing {key}: 403 retentionPolicyNotMet")


def tree(large: bytes = LARGE, etag: str = '"v1"') -> Tree:
    files: dict[str, BytesSource | bytes] = {
        "master.m3u8": b"#EXTM3U\nseg.ts\n",
        "seg.ts": BytesSource(SMALL),
        "movie.mp4": BytesSource(large, etag=etag),
    }
    return Tree(files)


@pytest.mark.parametrize("interrupted", [1, 3])
def test_an_attempt_that_was_interrupted_before_its_manifest_is_completed(interrupted: int) -> None:
    store = WriteOnce(interrupted)
    harness = ArchiverHarness(tree, stores=[store])

    outcome = harness.archive_until_settled(attempts=interrupted + 1)

    assert isinstance(outcome, Archived)
    assert store.refused, "the objects that were there were refused, and found to be equal"
    assert breaker.opened(harness.ledger, harness.clock()) == {}


def test_another_version_of_the_source_is_stored_beside_what_is_there() -> None:
    store = WriteOnce(interrupted=1)
    opened: list[Tree] = []

    def source() -> Tree:
        opened.append(tree() if not opened else tree(LARGE[:-1] + b"x", '"v2"'))
        return opened[-1]

    harness = ArchiverHarness(source, stores=[store])

    outcome = harness.archive_until_settled(attempts=2)

    assert isinstance(outcome, Archived)
    (key,) = (info.key for info in store.list("manifests/"))
    manifest = read_manifest(store, key)
    assert manifest is not None
    stored = {key: item.data for key, item in store.store.objects.items() if key.endswith("movie.mp4")}
    assert sorted(stored.values()) == [LARGE, LARGE[:-1] + b"x"], "nothing was replaced"
    assert stored[f"{manifest.folder}/movie.mp4"] == LARGE[:-1] + b"x"


@pytest.mark.parametrize("is_flushed", [False, True])
def test_an_archive_of_the_version_before_is_neither_rewritten_nor_doubted(is_flushed: bool) -> None:
    """Its manifests have no fencing token and list `asset.json`; the destination may not change either."""
    store, ids = WriteOnce(interrupted=0), ["asset-1", "asset-2", "asset-3"]
    made: list[Destinations] = []

    def behind(stores: Sequence[StorageBackend], ledger: Ledger, clock: Clock) -> list[StorageBackend]:
        checked = Destinations(
            ledger=ledger, stores=stores, workspace="ours", clock=clock, machine="host", pause=lambda _: None
        )
        made.append(checked)
        return guarded(stores, checked)

    harness = ArchiverHarness(
        tree, stores=[store], assets=[asset(id=each, size=None) for each in ids], behind=behind
    )
    for each in ids:
        archive_at([store], asset(id=each))
        if not is_flushed:
            enter(harness.ledger, asset(id=each))
    before = {key: item.data for key, item in store.store.objects.items()}
    assert not any(b'"fence"' in data for data in before.values())
    stores = harness.archiver.deps.destinations
    reconciler = Reconciler(
        ledger=harness.ledger,
        destinations=stores,
        scope=harness.archiver.deps.rules.scope,
        clock=harness.clock,
        identities=made[0],
    )

    for _ in range(3):
        assert made[0].check_all()
        reconciler.reconcile()
        for each in ids:
            harness.ledger.reopen(each)
            assert isinstance(harness.archive(each), AlreadyArchived)
        harness.clock.advance(timedelta(days=1))

    after = {key: item.data for key, item in store.store.objects.items()}
    assert {key: data for key, data in after.items() if key != keys.MARKER} == before
    assert made[0].is_identified(store.name)
    assert not store.refused
    assert breaker.opened(harness.ledger, harness.clock()) == {}
    for each in ids:
        row = harness.ledger.get(each)
        assert row is not None
        assert row.state is AssetState.ARCHIVED


def test_what_the_version_before_left_without_a_manifest_is_completed() -> None:
    """It was killed after `asset.json`, which nobody may replace."""
    store = WriteOnce(interrupted=0)
    harness = ArchiverHarness(tree, stores=[store])
    folder = manifest_folder()
    for path, data in (("seg.ts", SMALL), ("movie.mp4", LARGE), ("asset.json", b'{"of": "then"}')):
        put(store, f"{folder}/{path}", data)
    before = {key: item.data for key, item in store.store.objects.items()}

    outcome = harness.archive()

    assert isinstance(outcome, Archived)
    after = {key: item.data for key, item in store.store.objects.items()}
    assert {key: after[key] for key in before} == before
    (key,) = (info.key for info in store.list("manifests/"))
    manifest = read_manifest(store, key)
    assert manifest is not None
    assert manifest.folder == folder
    assert sorted(item.path for item in manifest.objects) == ["master.m3u8", "movie.mp4", "seg.ts"]
    assert breaker.opened(harness.ledger, harness.clock()) == {}


def manifest_folder() -> str:
    """Where the archiver puts the only asset of a harness."""
    store = MemoryBackend("elsewhere")
    ArchiverHarness(tree, stores=[store]).archive()
    (key,) = (info.key for info in store.list("manifests/"))
    manifest = read_manifest(store, key)
    assert manifest is not None
    return manifest.folder

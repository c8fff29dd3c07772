"""Where nothing may be replaced (Object Lock, WORM), other content at an asset's keys costs a folder, not the asset."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.attempt.outcomes import Archived, WillRetry
from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.transfer.checksums import crc32c
from archiver.transfer.errors import SourceUnavailable
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec, Upload, object_key
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.harness import PART_BYTES, ArchiverHarness, BytesSource, Tree

SMALL, LARGE = bytes(range(PART_BYTES)), bytes(range(256)) * 3


class Locked(MemoryBackend):
    """Nothing is replaced or deleted."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.stat(spec.key) is not None:
            refusal = AccessDenied(f"{spec.key}: Object Lock")
            return equal_or_raise(refusal, self, spec.key, len(data), crc32c)
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> Upload:  # type: ignore[override]
        if self.stat(spec.key) is not None:
            return UploadOfEqual.instead(self, spec, AccessDenied(f"{spec.key}: Object Lock"))
        return super().begin(spec)

    def delete(self, key: object) -> None:
        raise AccessDenied(f"{key}: Object Lock")


def manifest_at(harness: ArchiverHarness) -> Manifest:
    manifest = read_manifest(
        harness.stores[0], keys.manifest_key(harness.asset_id, harness.api.assets[0].created_at)
    )
    assert manifest
    return manifest


def write(store: MemoryBackend, key: str, data: bytes) -> None:
    store.put(ObjectSpec(object_key(key), "video/mp4", len(data)), data, crc32c(data))


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["one-part", "several-parts"])
def test_a_source_that_changed_after_a_part_of_it_was_stored_is_archived(body: bytes) -> None:
    store = Locked("locked")
    a, b = [BytesSource(body)], [BytesSource(body, [SourceUnavailable("503")] * 9)]
    harness = ArchiverHarness(
        lambda: Tree({"a.ts": a[0], "b.ts": b[0], "m.m3u8": b"#EXTM3U"}), stores=[store]
    )
    assert isinstance(harness.archive(), WillRetry)
    before = dict(store.store.objects)
    a[0], b[0] = BytesSource(body[::-1], etag='"v2"'), BytesSource(body[::-1], etag='"v2"')
    harness.clock.advance(timedelta(hours=2))

    assert isinstance(harness.archive(), Archived)

    manifest = manifest_at(harness)
    assert manifest.folder.endswith("/!v2")
    assert verify_contents(store, manifest).ok
    assert any(key.endswith("a.ts") for key in before)
    assert before.items() <= store.store.objects.items(), "what was there is untouched"


def test_each_attempt_uses_the_first_free_folder() -> None:
    store = Locked("locked")
    harness = ArchiverHarness(lambda: Tree({"a.ts": BytesSource(SMALL)}, form="file"), stores=[store])
    folder = keys.asset_folder(harness.api.assets[0], keys.DEFAULT_TEMPLATE)
    for name in ("", "/!v2", "/!v3"):
        write(store, f"{folder}{name}/a.ts", b"something else")

    assert isinstance(harness.archive(), Archived)

    assert manifest_at(harness).folder == f"{folder}/!v4"


def test_without_a_free_folder_the_asset_is_retried_and_not_archived() -> None:
    store = Locked("locked")
    harness = ArchiverHarness(lambda: Tree({"a.ts": BytesSource(SMALL)}, form="file"), stores=[store])
    folder = keys.asset_folder(harness.api.assets[0], keys.DEFAULT_TEMPLATE)
    for name in ("", *(f"/!v{number}" for number in range(2, 30))):
        write(store, f"{folder}{name}/a.ts", b"something else")

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert "may not be replaced" in outcome.reason


def test_credentials_without_write_permission_are_reported_as_such() -> None:
    class ReadOnly(MemoryBackend):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            raise AccessDenied(f"{spec.key}: 403")

    store = ReadOnly("read-only")
    harness = ArchiverHarness(lambda: Tree({"a.ts": BytesSource(SMALL)}, form="file"), stores=[store])
    folder = keys.asset_folder(harness.api.assets[0], keys.DEFAULT_TEMPLATE)
    MemoryBackend.put(
        store,
        ObjectSpec(object_key(f"{folder}/a.ts"), "video/mp4", 5),
        b"other",
        crc32c(b"other"),
    )

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert "403" in outcome.reason
    assert store.stat(object_key(f"{folder}/a.ts")) is not None

"""Destinations that take new objects and refuse to replace or delete them: retention, Object Lock, WORM, or an account
without the right to delete. An attempt that was interrupted is completed by the next one there as well."""

from __future__ import annotations

import pytest

from archiver.core.attempt.outcomes import Archived
from archiver.core.destinations import breaker
from archiver.core.records.manifest import read_manifest
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, Upload
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import AccessDenied, TransientStorageError
from storage_backends.memory import MemoryBackend, MemoryUpload
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

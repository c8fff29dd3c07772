from __future__ import annotations

from collections.abc import Callable

import pytest

from archiver.core.records.manifest import Manifest
from archiver.core.records.verify import (
    READ_BYTES,
    Verified,
    verify_contents,
    verify_listed,
    verify_objects,
)
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend, object_key
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, manifest_of, put
from tests.core.examples import asset

FEW = {"movie.mp4": b"m" * 100, "asset.json": b"{}"}
MANY = {f"segment_{number}.ts": bytes([number]) * 100 for number in range(9)}


@pytest.fixture(params=[FEW, MANY], ids=["asked for one by one", "listed"])
def stored(request: pytest.FixtureRequest) -> tuple[MemoryBackend, Manifest, str]:
    """A store, a manifest and the first path in it."""
    store = MemoryBackend("one")
    archive_at([store], asset(), request.param)
    return store, manifest_of(asset(), request.param), next(iter(request.param))


def test_a_whole_copy_is_verified_by_listing_and_by_reading(
    stored: tuple[MemoryBackend, Manifest, str],
) -> None:
    store, manifest, _ = stored

    listed, read = verify_listed(store, manifest), verify_contents(store, manifest)

    assert listed.ok
    assert read.ok
    assert (listed.read_bytes, read.read_bytes) == (0, manifest.total_size)
    assert listed.objects == read.objects == len(manifest.objects)


def test_a_missing_object_is_named(stored: tuple[MemoryBackend, Manifest, str]) -> None:
    store, manifest, path = stored
    store.delete(object_key(f"{manifest.folder}/{path}"))

    assert verify_listed(store, manifest).problems == (f"{path}: missing",)
    assert verify_contents(store, manifest).problems == (f"{path}: missing",)


@pytest.mark.parametrize("size", [0, 99, 101])
def test_an_object_of_another_size_is_named_with_both(
    stored: tuple[MemoryBackend, Manifest, str], size: int
) -> None:
    store, manifest, path = stored
    put(store, f"{manifest.folder}/{path}", b"m" * size)

    assert verify_listed(store, manifest).problems == (f"{path}: {size} bytes, the manifest says 100",)
    assert verify_contents(store, manifest).problems == (f"{path}: {size} bytes, the manifest says 100",)


def test_a_flipped_byte_is_found(stored: tuple[MemoryBackend, Manifest, str]) -> None:
    store, manifest, path = stored
    put(store, f"{manifest.folder}/{path}", b"x" + b"m" * 99)

    for verified in (verify_listed(store, manifest), verify_contents(store, manifest)):
        (problem,) = verified.problems
        assert problem.startswith(f"{path}: CRC32C")


def test_every_problem_is_named_and_other_objects_are_no_problem() -> None:
    store = MemoryBackend("one")
    archive_at([store], asset(), MANY)
    manifest = manifest_of(asset(), MANY)
    put(store, f"{manifest.folder}/notes-of-somebody.txt", b"hello")
    for number in (2, 5):
        store.delete(object_key(f"{manifest.folder}/segment_{number}.ts"))

    assert verify_listed(store, manifest).problems == ("segment_2.ts: missing", "segment_5.ts: missing")


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_objects_around_the_size_of_one_read_are_read_whole(extra: int) -> None:
    store = MemoryBackend("one")
    files = {"movie.mp4": bytes(READ_BYTES + extra)}
    archive_at([store], asset(), files)

    verified = verify_contents(store, manifest_of(asset(), files))

    assert verified.ok
    assert verified.read_bytes == READ_BYTES + extra


class Unreadable(MemoryBackend):
    """It does not answer what concerns one object."""

    path = ""

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self._refuse(key)
        return super().stat(key)

    def read(self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, **how: object) -> bytes:
        self._refuse(key)
        return super().read(key, start, length_bytes)

    def _refuse(self, key: ObjectKey) -> None:
        if self.path and key.endswith(self.path):
            raise TransientStorageError("no answer")


@pytest.mark.parametrize("verify", [verify_contents, verify_objects])
@pytest.mark.parametrize(
    ("first", "problems"),
    [
        (b"x" * 100, ("segment_0.ts: CRC32C", "segment_4.ts: could not be read")),
        (b"x" * 99, ("segment_0.ts: 99 bytes", "segment_4.ts: could not be read")),
        (None, None),  # its disk may not be mounted
        (MANY["segment_0.ts"], None),
    ],
    ids=["other bytes", "another size", "missing", "whole"],
)
def test_what_differs_is_damage_though_a_later_object_cannot_be_read(
    verify: Callable[[StorageBackend, Manifest], Verified],
    first: bytes | None,
    problems: tuple[str, ...] | None,
) -> None:
    store = Unreadable("one")
    archive_at([store], asset(), MANY)
    manifest = manifest_of(asset(), MANY)
    key = object_key(f"{manifest.folder}/segment_0.ts")
    store.delete(key) if first is None else put(store, key, first)
    store.path = "segment_4.ts"

    if problems is None:
        with pytest.raises(TransientStorageError):
            verify(store, manifest)
        return

    found = verify(store, manifest).problems
    assert [each.startswith(begin) for each, begin in zip(found, problems, strict=True)] == [True, True]

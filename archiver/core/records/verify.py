"""Verify that a destination holds what a manifest lists. Needs the bucket alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from archiver.core.records.manifest import Manifest, ManifestObject
from archiver.transfer.checksums import Crc32c
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend
from storage_backends.errors import ObjectCold, ObjectMissing, StorageError

READ_BYTES = 8 * 1024 * 1024
STAT_UP_TO = 4  # objects: beyond it one LIST is cheaper than a request for each
_MISSING = ": missing"
_STAT_MISSING = 50  # objects that a LIST does not show: asked for one by one, for lists may lag behind


@dataclass(frozen=True, slots=True)
class Verified:
    """The result. `problems`: one sentence for each object that is missing or differs; `read_bytes`: read back; `cold`:
    objects of a cold storage class, which were compared by what the store says of them."""

    objects: int
    read_bytes: int
    problems: tuple[str, ...]
    cold: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems


def _nothing() -> None:
    pass


def verify_listed(
    store: StorageBackend, manifest: Manifest, known: Mapping[ObjectKey, ObjectInfo] | None = None
) -> Verified:
    """Verify that every object is there with its size, and its CRC32C where the store keeps one, and that the manifest
    is not marked as damaged. Reads no bytes: one LIST of the folder, or up to STAT_UP_TO requests. `known`: objects
    that the caller has just looked at. Raises StorageError."""
    keys = [manifest.key_of(item) for item in manifest.objects]
    if len(keys) <= STAT_UP_TO:
        seen = known or {}
        found = {key: info for key in keys if (info := seen.get(key) or store.stat(key))}
    else:
        found = {info.key: info for info in store.list(f"{manifest.folder}/")}
        missing = [key for key in keys if key not in found]
        if len(missing) <= _STAT_MISSING:
            found.update({key: info for key in missing if (info := store.stat(key))})
    problems = [
        problem
        for key, item in zip(keys, manifest.objects, strict=True)
        if (problem := _difference(item, found.get(key)))
    ]
    found_before = [f"marked as damaged: {problem}" for problem in manifest.damage or ()]
    cold = sum(info.cold for key in keys if (info := found.get(key)) is not None)
    return Verified(len(manifest.objects), 0, (*problems, *found_before), cold)


def verify_in_full(
    store: StorageBackend, manifest: Manifest, *, between: Callable[[], None] = _nothing
) -> Verified:
    """Read every object back, as `verify_contents`; a copy in a cold storage class is verified as `verify_listed` does,
    and not read: on some stores it cannot be before a restore, on others it costs as much as months of storage. Costs
    one request in addition. Raises StorageError."""
    first = manifest.key_of(manifest.objects[0]) if manifest.objects else None
    info = store.stat(first) if first is not None else None
    if first is not None and info is not None and info.cold:
        between()
        return verify_listed(store, manifest, {first: info})
    try:
        return verify_contents(store, manifest, between=between)
    except ObjectCold:  # a store that does not tell by `stat`, or a folder of several classes
        listed = verify_listed(store, manifest)
        return replace(listed, cold=max(listed.cold, 1))


def verify_contents(
    store: StorageBackend,
    manifest: Manifest,
    paths: Collection[str] | None = None,
    *,
    between: Callable[[], None] = _nothing,
) -> Verified:
    """Read the objects at `paths` (None: all) back and compare size and CRC32C. `between` is called before each read,
    of up to READ_BYTES. Raises StorageError, unless an object was found to differ before (`_unread`)."""
    problems: list[str] = []
    read_bytes = 0
    objects = 0
    for item in manifest.objects:
        if paths is not None and item.path not in paths:
            continue
        objects += 1
        try:
            size, problem = _read_back(store, manifest, item, between)
        except StorageError as error:
            problems.append(_unread(item, error, problems))
            break
        read_bytes += size
        if problem:
            problems.append(problem)
    return Verified(objects, read_bytes, tuple(problems))


def verify_objects(
    store: StorageBackend,
    manifest: Manifest,
    paths: Collection[str] | None = None,
    *,
    between: Callable[[], None] = _nothing,
) -> Verified:
    """Verify the objects at `paths` (None: all) by the store's checksum, one request each, or read them back where it
    keeps none and they are not cold. `between`, and raises: as for `verify_contents`."""
    problems: list[str] = []
    objects = read_bytes = cold = 0
    for item in manifest.objects:
        if paths is not None and item.path not in paths:
            continue
        between()
        objects += 1
        try:
            info = store.stat(manifest.key_of(item))
            problem = _difference(item, info)
            cold += info is not None and info.cold
            if problem is None and info is not None and info.crc32c is None and not info.cold:
                size, problem = _read_back(store, manifest, item, between)
                read_bytes += size
        except StorageError as error:
            problems.append(_unread(item, error, problems))
            break
        if problem:
            problems.append(problem)
    return Verified(objects, read_bytes, tuple(problems), cold)


def _unread(item: ManifestObject, error: StorageError, problems: Collection[str]) -> str:
    """Return the problem of an object that could not be read beside one that differs: the copy is damaged, whatever
    the rest is. Raises `error` when all that was found is what is missing: its disk may not be mounted."""
    if all(problem.endswith(_MISSING) for problem in problems):
        raise error
    return f"{item.path}: could not be read ({type(error).__name__}), nor what follows it"


def _read_back(
    store: StorageBackend, manifest: Manifest, item: ManifestObject, between: Callable[[], None]
) -> tuple[int, str | None]:
    """Return how many bytes were read, and the problem."""
    crc, size = Crc32c(), 0
    between()
    try:
        while chunk := store.read(manifest.key_of(item), size, min(READ_BYTES, item.size - size + 1)):
            between()
            crc.update(chunk)
            size += len(chunk)
            if size > item.size:
                break
    except ObjectMissing:
        return 0, f"{item.path}{_MISSING}"
    if size != item.size:
        return size, f"{item.path}: {size} bytes, the manifest says {item.size}"
    if crc.value != item.crc:
        return size, f"{item.path}: CRC32C {crc.value:08x}, the manifest says {item.crc32c}"
    return size, None


def _difference(item: ManifestObject, info: ObjectInfo | None) -> str | None:
    if info is None:
        return f"{item.path}{_MISSING}"
    if info.size_bytes != item.size:
        return f"{item.path}: {info.size_bytes} bytes, the manifest says {item.size}"
    if info.crc32c is not None and info.crc32c != item.crc:
        return f"{item.path}: CRC32C {info.crc32c:08x}, the manifest says {item.crc32c}"
    return None

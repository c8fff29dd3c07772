"""Does a destination still hold what a manifest says? Needs the bucket alone."""

from __future__ import annotations

from dataclasses import dataclass

from archiving.manifest import Manifest, ManifestObject
from storage_backends.base import ObjectInfo, StorageBackend
from storage_backends.errors import ObjectMissing
from transfer.checksums import Crc32c

READ_BYTES = 8 * 1024 * 1024
_STAT_UP_TO = 4  # objects: beyond it one LIST is cheaper than a request for each


@dataclass(frozen=True, slots=True)
class Verified:
    """`problems` is empty when all is well; `read_bytes` is what was read back to know it."""

    objects: int
    read_bytes: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def check_listed(store: StorageBackend, manifest: Manifest) -> Verified:
    """Every object is there with its size, and its CRC32C where the store tells without reading; and nobody who read
    it back has found damage since. Cheap: one LIST of the folder, or a few requests. Raises StorageError."""
    if len(manifest.objects) <= _STAT_UP_TO:
        keys = [manifest.key_of(item) for item in manifest.objects]
        found = {key: info for key in keys if (info := store.stat(key))}
    else:
        found = {info.key: info for info in store.list(f"{manifest.folder}/")}
    problems = [
        problem
        for item in manifest.objects
        if (problem := _difference(item, found.get(manifest.key_of(item))))
    ]
    found_before = [f"marked as damaged: {problem}" for problem in manifest.damage or ()]
    return Verified(len(manifest.objects), 0, (*problems, *found_before))


def check_contents(store: StorageBackend, manifest: Manifest) -> Verified:
    """Every byte of every object, read back and summed. Raises StorageError."""
    problems: list[str] = []
    read_bytes = 0
    for item in manifest.objects:
        crc, size = Crc32c(), 0
        try:
            while chunk := store.read(manifest.key_of(item), size, min(READ_BYTES, item.size - size + 1)):
                crc.update(chunk)
                size += len(chunk)
                if size > item.size:
                    break
        except ObjectMissing:
            problems.append(f"{item.path}: missing")
            continue
        read_bytes += size
        if size != item.size:
            problems.append(f"{item.path}: {size} bytes, the manifest says {item.size}")
        elif crc.value != item.crc:
            problems.append(f"{item.path}: CRC32C {crc.value:08x}, the manifest says {item.crc32c}")
    return Verified(len(manifest.objects), read_bytes, tuple(problems))


def _difference(item: ManifestObject, info: ObjectInfo | None) -> str | None:
    if info is None:
        return f"{item.path}: missing"
    if info.size_bytes != item.size:
        return f"{item.path}: {info.size_bytes} bytes, the manifest says {item.size}"
    if info.crc32c is not None and info.crc32c != item.crc:
        return f"{item.path}: CRC32C {info.crc32c:08x}, the manifest says {item.crc32c}"
    return None

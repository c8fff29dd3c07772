"""Find what a store with a damaged copy did not replace, and read it back.

Where a store refuses to overwrite, a write counts as done if the checksum that the store keeps is right
(`storage_backends.equal`). The store computed it when the object was written: the bytes may have rotted since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from archiver.core.records.manifest import Manifest
from archiver.core.records.verify import verify_contents
from storage_backends.base import ObjectKey, StorageBackend

Versions = Mapping[ObjectKey, tuple[str | None, datetime | None]]
"""The ETag and date of each object. One written twice within the resolution of a store's dates looks unreplaced."""


def versions(store: StorageBackend, folder: str) -> Versions:
    """Return those of the objects in `folder`. One LIST. Raises StorageError."""
    return {info.key: (info.etag, info.updated_at) for info in store.list(f"{folder}/")}


def unreplaced_problems(
    store: StorageBackend,
    manifest: Manifest,
    before: Versions | None,
    paths: Collection[str] | None = None,
    *,
    between: Callable[[], None],
) -> Sequence[str]:
    """Read back the objects at `paths` (None: all) that are as they were `before` (None: unknown), and once more if
    they are not right, for one bad answer is no damage; return the problems found then. Raises StorageError."""
    asked = {
        item.path
        for item in manifest.objects
        if (paths is None or item.path in paths) and (before is None or manifest.key_of(item) in before)
    }
    if not asked:
        return ()
    kept = asked
    if before is not None:
        now = versions(store, manifest.folder)
        kept = {
            item.path
            for item in manifest.objects
            if item.path in asked and now.get(key := manifest.key_of(item)) == before[key]
        }
    if verify_contents(store, manifest, kept, between=between).ok:
        return ()
    return verify_contents(store, manifest, kept, between=between).problems

"""The manifest as the commit: is a right one there, and how it gets there."""

from __future__ import annotations

import structlog

from archiving.errors import ManifestError
from archiving.manifest import Manifest, read_manifest
from archiving.verification import check_listed
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import ObjectExists, TransientStorageError
from transfer.checksums import crc32c

log = structlog.get_logger(__name__)


def committed(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """The manifest at `key` when it is whole and every object it names is there with its size (and checksum,
    where the store tells); else None. Raises StorageError."""
    try:
        manifest = read_manifest(store, key)
    except ManifestError as error:
        log.warning("manifest_broken", store=store.name, key=key, reason=str(error))
        return None
    if manifest is None:
        return None
    verified = check_listed(store, manifest)
    if not verified.ok:
        log.warning("manifest_contradicted", store=store.name, key=key, problems=verified.problems[:5])
        return None
    return manifest


def commit(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> None:
    """Write `manifest` unless one of the very same objects is there already, and read it back. Raises StorageError
    unless a right one is there afterwards. Repeatable.

    Another one is replaced, though every size in it may still hold: ours is what was verified under these keys just
    now. Where a store cannot create conditionally two workers may both write one: each describes objects that were
    verified under the same keys.
    """
    data = manifest.to_bytes()
    crc = crc32c(data)
    try:
        store.put(ObjectSpec(key, "application/json", len(data), if_absent=True), data, crc)
    except ObjectExists:
        if _names_the_same(store, key, manifest):
            return
        store.put(ObjectSpec(key, "application/json", len(data)), data, crc)
    if store.read(key, 0, len(data) + 1) != data:
        raise TransientStorageError(f"{store.name}/{key}: the manifest read back is not the one written")


def _names_the_same(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> bool:
    try:
        found = read_manifest(store, key)
    except ManifestError:
        return False
    return found is not None and (found.folder, _proofs(found)) == (manifest.folder, _proofs(manifest))


def _proofs(manifest: Manifest) -> dict[str, tuple[int, str]]:
    return {item.path: (item.size, item.crc32c) for item in manifest.objects}

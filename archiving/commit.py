"""The manifest as the commit: is a right one there, how it gets there, and how it is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from archiving.errors import ManifestError
from archiving.manifest import TRUSTED, Manifest, read_manifest
from archiving.verification import check_contents, check_listed
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import ObjectExists, TransientStorageError
from transfer.checksums import crc32c

log = structlog.get_logger(__name__)

DAMAGE_NAMED = 20  # problems kept in a manifest that was taken back; the next reading finds all


def committed(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """The manifest at `key` when it proves its asset archived: it has no doubts, is not marked as damaged, and every
    object it names is there with its size (and checksum, where the store tells). Else None. Raises StorageError."""
    return _listed(store, key, trusted=True)


def kept(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """The manifest at `key` when it has doubts and every object it names is there, as for `committed`. Such an asset
    is stored and quarantined, not archived. Else None. Raises StorageError."""
    return _listed(store, key, trusted=False)


@dataclass(frozen=True, slots=True)
class Look:
    """What is at a manifest's key: `manifest`, if one can be read, and whether it proves its asset archived."""

    manifest: Manifest | None
    proves: bool


def look_at(store: StorageBackend, key: ObjectKey) -> Look:
    """As `committed`, and the manifest that is there in any case. Raises StorageError."""
    manifest = _read(store, key)
    proves = manifest is not None and manifest.trusted and _is_there(store, key, manifest)
    return Look(manifest, proves)


def look_again_at(store: StorageBackend, key: ObjectKey) -> Look:
    """As `committed_after_all`. Raises StorageError."""
    manifest = committed_after_all(store, key)
    return Look(manifest, manifest is not None)


def _listed(store: StorageBackend, key: ObjectKey, *, trusted: bool) -> Manifest | None:
    manifest = _read(store, key)
    if manifest is None or manifest.trusted is not trusted:
        return None
    return manifest if _is_there(store, key, manifest) else None


def _read(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    try:
        return read_manifest(store, key)
    except ManifestError as error:
        log.warning("manifest_broken", store=store.name, key=key, reason=str(error))
        return None


def _is_there(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> bool:
    verified = check_listed(store, manifest)
    if not verified.ok:
        log.warning("manifest_contradicted", store=store.name, key=key, problems=verified.problems[:5])
    return verified.ok


def commit(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> None:
    """Write `manifest` unless one of the very same objects is there already, and read it back. Raises StorageError
    unless a right one is there afterwards. Idempotent.

    Another one is replaced, though every size in it may still hold: ours is what was verified under these keys just
    now. One with doubts never replaces one that proves the asset archived. Where a store cannot create conditionally
    two workers may both write one: each describes objects that were verified under the same keys.
    """
    data, crc = _written(manifest)
    try:
        store.put(ObjectSpec(key, "application/json", len(data), if_absent=True), data, crc)
    except ObjectExists:
        if _names_the_same(store, key, manifest) or (not manifest.trusted and committed(store, key)):
            return
        store.put(ObjectSpec(key, "application/json", len(data)), data, crc)
    if store.read(key, 0, len(data) + 1) != data:
        raise TransientStorageError(f"{store.name}/{key}: the manifest read back is not the one written")


def take_back(store: StorageBackend, key: ObjectKey, damage: Sequence[str]) -> None:
    """Make the manifest at `key` prove nothing, because of `damage`, so that the asset is copied anew. Nothing is
    removed: one write replaces it by itself with the damage in it, and whatever comes of the new copy, the old one and
    what its manifest says of it stay until that is whole. One that cannot be read proves nothing as it is.
    Repeatable. Raises StorageError."""
    try:
        manifest = read_manifest(store, key)
    except ManifestError:
        return
    if manifest is not None:
        _replace(store, key, manifest.model_copy(update={"damage": tuple(damage[:DAMAGE_NAMED])}))


def give_back(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> Manifest:
    """Let a manifest that was taken back prove its asset again, and return it as it is now; for whoever has just read
    everything that it names and found it whole. Repeatable. Raises StorageError."""
    whole = manifest.model_copy(update={"damage": None})
    _replace(store, key, whole)
    log.warning("manifest_given_back", store=store.name, key=key, damage=manifest.damage)
    return whole


def committed_after_all(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """As `committed`; and a manifest that was taken back is given back if every byte that it names is there: all of
    them are read, for when nothing better can be had any more. Repeatable. Raises StorageError."""
    return committed(store, key) or _whole_after_all(store, key, trusted=True)


def kept_after_all(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """As `committed_after_all`, of one with doubts."""
    return kept(store, key) or _whole_after_all(store, key, trusted=False)


def _whole_after_all(store: StorageBackend, key: ObjectKey, *, trusted: bool) -> Manifest | None:
    try:
        manifest = read_manifest(store, key)
    except ManifestError:
        return None
    if manifest is None or not manifest.damage or manifest.trusted is not trusted:
        return None
    return give_back(store, key, manifest) if check_contents(store, manifest).ok else None


def accept(store: StorageBackend, key: ObjectKey, *, by: str, why: str, at: datetime) -> Manifest | None:
    """Make the asset that is kept with doubts at `key` archived, because a person says so; the manifest keeps the
    doubts, who accepted them, when and why. The manifest as it is then; None when nothing is kept there whole.
    Idempotent. Raises StorageError."""
    if right := committed(store, key):
        return right
    manifest = kept(store, key)
    if manifest is None:
        return None
    accepted = {"by": by, "at": at.isoformat(), "why": why, "doubts": list(manifest.doubts or ())}
    trusted = manifest.model_copy(
        update={
            "schema_version": TRUSTED,
            "doubts": None,
            "fingerprint": None,
            "accepted": accepted,
            "objects": tuple(replace(item, doubt=None) for item in manifest.objects),
        }
    )
    _replace(store, key, trusted)
    return trusted


def _replace(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> None:
    data, crc = _written(manifest)
    store.put(ObjectSpec(key, "application/json", len(data)), data, crc)


def _written(manifest: Manifest) -> tuple[bytes, int]:
    data = manifest.to_bytes()
    return data, crc32c(data)


def _names_the_same(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> bool:
    try:
        found = read_manifest(store, key)
    except ManifestError:
        return False
    return found is not None and says_the_same(found, manifest)


def says_the_same(found: Manifest, manifest: Manifest) -> bool:
    """Whether `found` is of the same objects as `manifest`, with the same doubts, and not marked as damaged."""
    if found.damage or found.doubts != manifest.doubts:
        return False
    return (found.folder, _proofs(found)) == (manifest.folder, _proofs(manifest))


def _proofs(manifest: Manifest) -> dict[str, tuple[int, str]]:
    return {item.path: (item.size, item.crc32c) for item in manifest.objects}

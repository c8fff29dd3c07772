"""Objects that a stale worker overwrote under the manifest of another attempt: two workers copy at once when one was
paused until its lease expired. The same source gives the same bytes; another version of it does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import structlog

from archiver.core.errors import ManifestError
from archiver.core.records.commit import mark_damaged
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_objects
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

LOOKS = 3


@dataclass(frozen=True, slots=True)
class Written:
    """What an attempt may have written: `paths` in `folder`, a set that grows while it copies. `known`: by store, the
    manifests that were there before; what they list was not overwritten (core.attempt.folders)."""

    manifest_key: ObjectKey
    folder: str
    paths: AbstractSet[str]
    known: Mapping[str, Manifest]


def mark_overwritten(
    stores: Sequence[StorageBackend], written: Sequence[Written], fence: int, *, silent: Collection[str] = ()
) -> bool:
    """Mark manifests of other attempts as damaged if this one overwrote their objects with other bytes.

    For an attempt that committed nothing, or lost its lease. Return whether the asset must be checked again: also when
    the manifest of this attempt is at a store without compare-and-swap, where it may have replaced a newer one. Stores
    in `silent`, and those that cannot be read, are left to the scrub. Idempotent.
    """
    again = False
    for store in stores:
        for one in written if store.name not in silent else ():
            for looks_left in reversed(range(LOOKS)):
                try:
                    again |= _compare(store, one, fence)
                    break
                except ManifestError as error:
                    _unknown(store, one, error)
                    break
                except StorageError as error:  # one lost answer must not leave it to the scrub
                    if not looks_left:
                        _unknown(store, one, error)
    return again


def _compare(store: StorageBackend, one: Written, fence: int) -> bool:
    manifest = read_manifest(store, one.manifest_key)
    if manifest is None or manifest == one.known.get(store.name):
        return False
    if manifest.rank == fence:
        return not (store.limits.conditional_create and store.limits.conditional_replace)
    return manifest.folder == one.folder and _mark(store, one, manifest)


def _unknown(store: StorageBackend, one: Written, error: Exception) -> None:
    log.warning("overwritten_unknown", store=store.name, key=one.manifest_key, reason=str(error))


def _mark(store: StorageBackend, written: Written, manifest: Manifest) -> bool:
    problems = verify_objects(store, manifest, written.paths).problems
    if not problems:
        return False
    log.error("overwritten", store=store.name, key=written.manifest_key, problems=problems[:5])
    return mark_damaged(store, written.manifest_key, problems, of=manifest)

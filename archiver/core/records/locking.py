"""Lock what is committed, where the destination's settings say so (`lock_mode`, `lock_days`).

Locks begin at the commit and not when an object is stored: what an attempt leaves behind can be replaced, and a copy
that takes a week ends with as many days left as a short one.
"""

from __future__ import annotations

from archiver.core.records.manifest import Manifest
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.optional import locks_of


def lock_media(store: StorageBackend, manifest: Manifest) -> None:
    """Lock every object that `manifest` lists, all until the same moment. Idempotent: a later call makes the locks
    longer. Raises StorageError."""
    if (locks := locks_of(store)) is not None:
        locks.lock([manifest.key_of(item) for item in manifest.objects])


def lock_manifest(store: StorageBackend, key: ObjectKey) -> None:
    """Lock a manifest that is there already; a new one is locked as it is written (`ObjectSpec.lock`)."""
    if (locks := locks_of(store)) is not None:
        locks.lock([key])

"""What the destinations hold of an asset, as an attempt looks at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from archiver.core.errors import DestinationUnusable, ManifestError
from archiver.core.records import keys
from archiver.core.records.commit import Look, look_at
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.hms.models import Asset
from archiver.ledger.models import Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError, TransientStorageError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Found:
    """What the destinations hold of an asset. `missing`: without a right manifest. `silent`: they do not answer now,
    and may well have one that nothing should be written over. `unread`: those of the missing that refuse to tell.
    `right`: a manifest that proves the asset archived. `present`: by store, those that do not."""

    missing: list[StorageBackend] = field(default_factory=list)
    silent: dict[str, StorageError] = field(default_factory=dict)
    unread: dict[str, StorageError] = field(default_factory=dict)
    right: Manifest | None = None
    present: dict[str, Manifest] = field(default_factory=dict)


def look(
    stores: Sequence[StorageBackend],
    asset_id: str,
    created_at: datetime | None,
    how: Callable[[StorageBackend, ObjectKey], Look] = look_at,
) -> Found:
    """What the destinations hold. One that refuses to be asked counts as missing: there are credentials that may
    write and not read, and the copy will show what is wrong."""
    found = Found()
    for store in stores:
        try:
            seen = how(store, keys.manifest_key(asset_id, created_at))
        except StorageError as error:
            log.warning("manifest_not_readable", asset_id=asset_id, store=store.name, reason=str(error))
            if isinstance(error, TransientStorageError | DestinationUnusable):
                found.silent[store.name] = error
            else:
                found.unread[store.name] = error
                found.missing.append(store)
            continue
        if seen.committed:
            found.right = found.right or seen.manifest
        else:
            found.missing.append(store)
            if seen.manifest is not None:
                found.present[store.name] = seen.manifest
    return found


def manifests_at(asset: Asset, stores: Sequence[StorageBackend]) -> dict[str, Manifest]:
    """The manifests, by store, of those that have any: with doubts, damaged or contradicted. What they list is
    not overwritten by anything else."""
    found: dict[str, Manifest] = {}
    for store in stores:
        with suppress(ManifestError, StorageError):
            if manifest := read_manifest(store, keys.manifest_key(asset.id, asset.created_at)):
                found[store.name] = manifest
    return found


def what_is_left(row: Row, stores: Sequence[StorageBackend]) -> str:
    """For a person: where a manifest still tells of a damaged copy."""
    key = keys.manifest_key(row.asset_id, row.created_at)
    with suppress(StorageError):
        if names := ", ".join(store.name for store in stores if store.stat(key) is not None):
            return f"; a copy that proves nothing is left at {names}: archiver verify {row.asset_id}"
    return ""

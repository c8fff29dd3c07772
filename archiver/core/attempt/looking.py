"""Read what the destinations hold of an asset when an attempt begins."""

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
from archiver.ledger.models import CopyState, Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError, TransientStorageError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Found:
    """`committed`: a manifest that verifies; `missing`: the destinations without one. `silent`: destinations that do
    not answer, and may have one; `unread`: those of the missing that refuse reads. `present`: by store, the manifests
    that do not count: damaged, with doubts, or contradicted by what is stored. `hidden`: by store, the first problem of
    what is missing, and was found damaged by its bytes alone: its manifest cannot be replaced."""

    missing: list[StorageBackend] = field(default_factory=list)
    silent: dict[str, StorageError] = field(default_factory=dict)
    unread: dict[str, StorageError] = field(default_factory=dict)
    committed: Manifest | None = None
    present: dict[str, Manifest] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)
    copies: dict[str, CopyState] = field(default_factory=dict)  # but for those that are silent or unread


def look(
    stores: Sequence[StorageBackend],
    asset_id: str,
    created_at: datetime | None,
    how: Callable[[StorageBackend, ObjectKey], Look] = look_at,
) -> Found:
    """Read the manifest at each of `stores`. One that refuses reads counts as missing: its credentials may still allow
    writes, and the copy shows what is wrong."""
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
        found.copies[store.name] = _copy_state(seen)
        if seen.committed:
            found.committed = found.committed or seen.manifest
        else:
            found.missing.append(store)
            if seen.manifest is not None:
                found.present[store.name] = seen.manifest
            if seen.hidden is not None:
                found.hidden[store.name] = seen.hidden
    return found


def _copy_state(seen: Look) -> CopyState:
    if seen.manifest is None:
        return CopyState.LACKING
    is_kept = not seen.manifest.trusted and not seen.manifest.damage and seen.hidden is None
    return CopyState.WHOLE if seen.committed or is_kept else CopyState.DAMAGED


def manifests_at(asset: Asset, stores: Sequence[StorageBackend]) -> dict[str, Manifest]:
    """Return the readable manifests by store, whatever they say: nothing else overwrites what they list."""
    found: dict[str, Manifest] = {}
    for store in stores:
        with suppress(ManifestError, StorageError):
            if manifest := read_manifest(store, keys.manifest_key(asset.id, asset.created_at)):
                found[store.name] = manifest
    return found


def what_is_left(row: Row, stores: Sequence[StorageBackend]) -> str:
    """Say for a person where a manifest of a damaged copy is left; empty where none is."""
    key = keys.manifest_key(row.asset_id, row.created_at)
    with suppress(StorageError):
        if names := ", ".join(store.name for store in stores if store.stat(key) is not None):
            return f"; a damaged copy is left at {names}: archiver verify {row.asset_id}"
    return ""

"""Add to an archived asset what its source did not have yet when it was archived (a thumbnail that was busy), without
touching the rest of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from archiver.core.attempt.context import Attempt
from archiver.core.attempt.copied import TRIED_AGAIN
from archiver.core.attempt.copying import Copier
from archiver.core.attempt.looking import manifests_at
from archiver.core.attempt.overwritten import Written
from archiver.core.attempt.upload_journal import LedgerUploadJournal
from archiver.core.contents.base import Contents
from archiver.core.records import keys
from archiver.core.records.commit import extend
from archiver.core.records.keys import OUR_FILES
from archiver.core.records.labels import labels_of
from archiver.core.records.manifest import Manifest, ManifestObject, without_queries
from archiver.hms.models import Asset
from archiver.http import cancellation


@runtime_checkable
class CompletesLater(Protocol):
    """Contents with optional items that can be had apart from the rest."""

    def only_missing(self, stored: Collection[str]) -> Contents:
        """The optional items whose path is not in `stored`."""
        ...


@dataclass(frozen=True, slots=True)
class Addition:
    """What was had by now. `warnings`: those of this look."""

    objects: tuple[ManifestObject, ...]
    warnings: tuple[str, ...]

    def to(self, manifest: Manifest, fence: int) -> Manifest:
        """`manifest` with it. Its token does not sink."""
        objects = (*manifest.objects, *self.objects)
        kept = [warning for warning in manifest.warnings if TRIED_AGAIN not in warning]
        return manifest.model_copy(
            update={
                "objects": objects,
                "total_size": sum(item.size for item in objects),
                "warnings": tuple(dict.fromkeys([*kept, *self.warnings])),
                "fence": max(manifest.rank, fence),
            }
        )


def add_missing(attempt: Attempt, asset: Asset, manifest: Manifest) -> Manifest:
    """Copy what `manifest` lacks, if it is there by now, and return the manifest that lists it; else `manifest`."""
    deps, heartbeat = attempt.deps, attempt.heartbeat
    if not any(TRIED_AGAIN in warning for warning in manifest.warnings):
        return manifest
    present = manifests_at(asset, deps.destinations)
    listed = _in_one_folder(present)
    if listed is None or len(present) < len(deps.destinations):
        return manifest
    contents = deps.open_contents(asset)
    if not isinstance(contents, CompletesLater):
        return manifest
    added = _copy_missing(attempt, asset, contents, listed, present)
    if added is None:
        return manifest
    for store in deps.destinations:
        heartbeat.confirm_if_possible()
        there = present[store.name]
        key = keys.manifest_key(asset.id, asset.created_at)
        if not extend(store, key, there, added.to(there, heartbeat.lease.fence)):
            return manifest
    return added.to(manifest, heartbeat.lease.fence)


def _copy_missing(
    attempt: Attempt,
    asset: Asset,
    contents: CompletesLater,
    listed: Manifest,
    present: Mapping[str, Manifest],
) -> Addition | None:
    """Return None when there is nothing new."""
    deps, heartbeat = attempt.deps, attempt.heartbeat
    journal = LedgerUploadJournal(deps.ledger, heartbeat.lease)
    with cancellation.watched(heartbeat.check), deps.engine(journal, heartbeat) as engine:
        copier = Copier(
            deps.ledger,
            heartbeat.lease,
            engine,
            heartbeat,
            version=f"missing:{listed.version}",
            exact=False,
            folder=listed.folder,
            stores=deps.destinations,
            manifests=present,
            labels=labels_of(asset),
        )
        key = keys.manifest_key(asset.id, asset.created_at)
        attempt.written.append(Written(key, listed.folder, copier.taken, present))
        missing = contents.only_missing({item.path for item in listed.objects})
        copied = copier.copy(missing.items())
    if not copied.objects or copied.failed:
        return None
    return Addition(copied.objects, tuple(without_queries([*missing.notes.warnings, *copied.warnings])))


def _in_one_folder(manifests: Mapping[str, Manifest]) -> Manifest | None:
    """One of the manifests when all destinations have the same paths in the same folder; else None."""
    first, *others = manifests.values()
    for other in others:
        if other.folder != first.folder or _paths(other) != _paths(first):
            return None
    return first


def _paths(manifest: Manifest) -> set[str]:
    return {item.path for item in manifest.objects} - OUR_FILES

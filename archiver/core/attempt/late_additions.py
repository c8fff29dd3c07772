"""Add to an archived asset what its source did not have yet when it was archived."""

from __future__ import annotations

from archiver.core.attempt import completing
from archiver.core.attempt.context import Attempt
from archiver.core.attempt.copying import Copied, Copier
from archiver.core.attempt.looking import manifests_at
from archiver.core.attempt.overwritten import Written
from archiver.core.attempt.upload_journal import LedgerUploadJournal
from archiver.core.contents.base import Contents
from archiver.core.records import keys
from archiver.core.records.commit import extend
from archiver.core.records.manifest import Manifest
from archiver.hms.models import Asset
from archiver.http import cancellation


def add_missing(attempt: Attempt, asset: Asset, manifest: Manifest) -> Manifest:
    """Copy what `manifest` lacks, if it is there by now, and return the manifest that lists it; else `manifest`."""
    deps, heartbeat = attempt.deps, attempt.heartbeat
    if not completing.lacks(manifest):
        return manifest
    present = manifests_at(asset, deps.destinations)
    one = completing.in_one_place(present)
    if one is None or len(present) < len(deps.destinations):
        return manifest
    key = keys.manifest_key(asset.id, asset.created_at)
    journal = LedgerUploadJournal(deps.ledger, heartbeat.lease)
    with cancellation.watched(heartbeat.check), deps.engine(journal, heartbeat) as engine:

        def copy(contents: Contents, listed: Manifest) -> Copied:
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
            )
            attempt.written.append(Written(key, listed.folder, copier.taken, present))
            return copier.copy(contents.items())

        added = completing.complete(one, deps.open_contents(asset), copy)
    if added is None:
        return manifest
    for store in deps.destinations:
        heartbeat.confirm_if_possible()
        there = present[store.name]
        if not extend(store, key, there, added.to(there, heartbeat.lease.fence)):
            return manifest
    return added.to(manifest, heartbeat.lease.fence)

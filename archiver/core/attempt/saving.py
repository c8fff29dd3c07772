"""Save an asset at the destinations that lack it: copy, verify, commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from archiver.core.attempt import doubts
from archiver.core.attempt.changed_meanwhile import changed_meanwhile
from archiver.core.attempt.committable import committable_manifest
from archiver.core.attempt.context import Attempt
from archiver.core.attempt.copied import Copied
from archiver.core.attempt.copying import Copier
from archiver.core.attempt.folders import Folder, choose_folder, next_folder
from archiver.core.attempt.known_damage import Unreplaced
from archiver.core.attempt.looking import Found
from archiver.core.attempt.outcomes import Archived, Kept
from archiver.core.attempt.overwritten import Written
from archiver.core.attempt.upload_journal import LedgerUploadJournal
from archiver.core.contents.base import Contents
from archiver.core.errors import DestinationsFailed, Doubtful, WouldOverwrite
from archiver.core.records import keys
from archiver.core.records.commit import commit
from archiver.core.records.labels import labels_of
from archiver.core.records.manifest import NO_FENCE, Manifest
from archiver.hms.models import Asset
from archiver.http import cancellation
from archiver.ledger.models import CopyState
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

MOST_FOLDERS = 5
"""That one attempt tries when existing objects must stay."""


def save(attempt: Attempt, asset: Asset, stores: Sequence[StorageBackend], found: Found) -> Archived | Kept:
    """Copy to `stores` and commit at each that took everything.

    Raises DestinationsFailed when one did not, with those that were silent before; Doubtful when it is not to be
    committed yet; SourceError, ContentsError, HmsError, LeaseLost, Outranked, Stopped.
    """
    deps = attempt.deps
    started = deps.clock()
    present = {store.name: found.present[store.name] for store in stores if store.name in found.present}
    highest = max((manifest.rank for manifest in present.values()), default=NO_FENCE)
    if highest >= attempt.heartbeat.lease.fence:
        attempt.heartbeat.outrank(highest)
    folder = choose_folder(keys.asset_folder(asset, deps.rules.key_template), present)
    unreplaced = Unreplaced(attempt.row, found, stores, attempt.heartbeat.check)
    tried: list[Folder] = []
    while True:
        try:
            unreplaced.note(folder.path)
            contents, copied = _copy_into(folder, attempt, asset, stores)
            changed = changed_meanwhile(attempt, asset, contents, started)
            copied = replace(copied, doubts=(*copied.doubts, *changed))
            manifest = committable_manifest(attempt, asset, folder, contents, copied, present)
            failed = {**found.silent, **copied.failed}
            failed |= _require_replaced([s for s in stores if s.name not in failed], manifest, unreplaced)
            break
        except WouldOverwrite as error:
            tried.append(folder)
            if len(tried) > MOST_FOLDERS:
                raise
            folder = next_folder(folder, present, tried)
            log.warning("new_folder", asset_id=asset.id, folder=folder.path, reason=str(error))
    for store in stores:
        if store.name not in failed:
            try:
                _commit_at(store, attempt, asset, manifest, present.get(store.name))
            except StorageError as error:
                failed[store.name] = error
    if failed:
        raise DestinationsFailed(failed)
    seconds = (deps.clock() - started).total_seconds()
    if manifest.doubts:
        return Kept(doubts.reason_kept(manifest), manifest.total_size, len(manifest.objects), seconds)
    return Archived(manifest.total_size, len(manifest.objects), seconds, manifest.warnings)


def _copy_into(
    folder: Folder, attempt: Attempt, asset: Asset, stores: Sequence[StorageBackend]
) -> tuple[Contents, Copied]:
    deps, row, heartbeat = attempt.deps, attempt.row, attempt.heartbeat
    lease = heartbeat.lease
    keeping = doubts.keeps_now(row, deps.rules.keeping)
    journal = LedgerUploadJournal(deps.ledger, lease)
    with cancellation.watched(heartbeat.check), deps.engine(journal, heartbeat) as engine:
        contents = deps.open_contents(asset)
        same = contents.version_is_exact and doubts.same_bytes_again(row, contents.version)
        if same and not keeping:  # not to be read again just to find the same
            raise Doubtful(row.reason or "it has doubts", row.fingerprint)
        copier = Copier(
            deps.ledger,
            lease,
            engine,
            heartbeat,
            version=folder.version_in_ledger(contents.version),
            exact=contents.version_is_exact,
            folder=folder.path,
            stores=stores,
            manifests=folder.manifests,
            labels=labels_of(asset),
            keeping=keeping,
            has_work=attempt.has_work,
        )
        key = keys.manifest_key(asset.id, asset.created_at)
        attempt.written.append(Written(key, folder.path, copier.taken, folder.manifests))
        try:
            return contents, copier.copy(contents.items())
        finally:
            attempt.dropped.update(copier.failed)


def _require_replaced(
    stores: Sequence[StorageBackend], manifest: Manifest, unreplaced: Unreplaced
) -> dict[str, StorageError]:
    """Read back what was there and was not replaced, and return the stores where it could not be read. Raises
    WouldOverwrite when it is not what its checksum says."""
    failed: dict[str, StorageError] = {}
    for store in stores:
        try:
            problems = unreplaced.problems(store, manifest)
        except StorageError as error:
            failed[store.name] = error
            continue
        if problems:
            raise WouldOverwrite(manifest.folder, f"what {store.name} did not replace: {problems[0]}")
    return failed


def _commit_at(
    store: StorageBackend, attempt: Attempt, asset: Asset, manifest: Manifest, known: Manifest | None
) -> None:
    attempt.heartbeat.confirm_if_possible()
    commit(store, keys.manifest_key(asset.id, asset.created_at), manifest, known)
    attempt.copies[store.name] = CopyState.WHOLE
    attempt.note_success(store.name)

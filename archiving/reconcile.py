"""Comparing what the ledger says with what the buckets hold, and repairing the difference.

The bucket says what is safe (design.md): a manifest everywhere makes an asset archived, whatever the ledger
forgot, unless it was taken back (archiving.commit); a manifest that is gone makes it due again, whatever the
ledger says. A repair is counted and logged, for it means that another path is broken or the ledger was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from archiving import end_records, keys
from archiving.commit import committed, kept
from archiving.damage import damaged
from archiving.deadlines import UNDATED, UNDATED_PATIENCE, is_over
from archiving.doubts import reason_kept
from archiving.errors import ManifestError
from archiving.exclusive import Turn, only_one
from archiving.judging import Scope, as_known, judge
from archiving.manifest import Manifest, read_manifest
from archiving.verification import check_contents
from hms.models import Asset
from ledger.base import AssetState, Ledger, Row, Seen, Settlement
from storage_backends.base import ObjectKey, StorageBackend, object_key
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOCK_NAME = "reconcile"
LOCK = timedelta(
    minutes=10
)  # extended as the run goes on; one that was killed stands in nobody's way for long
EXTEND_EVERY = 500  # manifests or rows: seconds
MANIFESTS = f"{keys.MANIFESTS_FOLDER}/"
ENDS = f"{keys.ENDS_FOLDER}/"
_KEPT_AFTER_ALL = (AssetState.LOST, AssetState.NEEDS_SOURCE_ACCESS)
"""Ends that say that nothing is stored, which a manifest with doubts contradicts."""


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """`entered`: assets that manifests prove archived and the ledger did not know so. `reopened`: archived by
    the ledger's word, without a manifest somewhere it could still be made. `missing_copies`: the same, but
    their time at the source is over; they are whole elsewhere. `unreadable`: manifests nobody understands."""

    manifests: int
    entered: int
    reopened: int
    missing_copies: int
    unreadable: int


class Reconciler:
    """Memory: about 200 bytes per manifest and destination, for the time of a run."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        scope: Scope,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._destinations = list(destinations)
        self._scope = scope
        self._clock = clock

    def reconcile(self) -> ReconcileResult | None:
        """Both directions, and the records of other ends; None when another run is at it. Repeatable. Raises
        StorageError when a destination cannot be listed (nothing is concluded from a list that is not whole),
        LedgerError."""
        with only_one(self._ledger, LOCK_NAME, LOCK) as turn:
            return self._compare(turn) if turn else None

    def _compare(self, turn: Turn) -> ReconcileResult:
        listed = [self._listed(store, turn) for store in self._destinations]
        everywhere = set(listed[0]).intersection(*listed[1:]) if listed else set()
        entered, unreadable = self._enter_archived(_going_on(everywhere, turn))
        reopened, missing_copies = self._reopen_unproved(listed, everywhere, turn)
        self._write_end_records()
        self._delete_outdated_end_records()
        result = ReconcileResult(len(everywhere), entered, reopened, missing_copies, unreadable)
        event = log.warning if reopened or unreadable or missing_copies else log.info
        event("reconcile_ended", **asdict(result))
        return result

    def restored(self, manifests: Iterable[ObjectKey]) -> int:
        """How many assets of these manifests, known to the ledger and not archived, turn out to be archived now: for
        whoever has just mended copies and would not wait for the next run. Repeatable. Raises LedgerError."""
        known = [key for key in manifests if self._row(key) is not None]
        return self._enter_archived(known)[0]

    def _listed(self, store: StorageBackend, turn: Turn) -> set[ObjectKey]:
        return {info.key for info in _going_on(store.list(MANIFESTS), turn) if info.key.endswith(".json")}

    def _row(self, key: ObjectKey) -> Row | None:
        asset_id = keys.asset_id_of(key)
        return self._ledger.get(asset_id) if asset_id else None

    def _enter_archived(self, manifest_keys: Iterable[ObjectKey]) -> tuple[int, int]:
        entered = unreadable = 0
        for key in manifest_keys:
            row = self._row(key)
            if row is not None and row.state in (AssetState.ARCHIVED, AssetState.RUNNING):
                continue
            if (
                row is not None
                and not self._holds(key, every_byte=row.state is AssetState.DAMAGED)
                and not (row.state in _KEPT_AFTER_ALL and self._keeps(key))
            ):
                continue  # it was reopened because of what its manifest says, or since the lists were made
            read = {store.name: self._read(store, key) for store in self._destinations}
            manifests = {name: manifest for name, manifest in read.items() if manifest is not None}
            if not read or len(manifests) < len(read):
                unreadable += 1
                continue
            manifest = next(iter(manifests.values()))
            if any(each.damage for each in manifests.values()):  # it was taken back
                if row is None:
                    self._enter_damaged(manifests)
                continue
            how = _settlement(manifest)
            if not all(each.trusted for each in manifests.values()):
                how = self._kept(key, manifests)
            entered += self._ledger.record_archived(self._seen(manifest), how)
        return entered, unreadable

    def _kept(self, key: ObjectKey, manifests: Mapping[str, Manifest]) -> Settlement:
        """Stored with doubts at one destination at least, unless a person said that it is worthless."""
        doubted = next(each for each in manifests.values() if not each.trusted)
        state, reason = AssetState.QUARANTINED, reason_kept(doubted)
        end_key = object_key(key.replace(MANIFESTS, ENDS, 1))
        if any(end_records.read_state(store, end_key) == AssetState.REJECTED for store in self._destinations):
            state = AssetState.REJECTED
        return Settlement(
            state, reason=reason, stored_bytes=doubted.total_size, stored_objects=len(doubted.objects)
        )

    def _keeps(self, key: ObjectKey) -> bool:
        """Whether every destination has it whole, be it with doubts."""
        try:
            return all(committed(store, key) or kept(store, key) for store in self._destinations)
        except StorageError as error:
            log.warning("manifest_not_readable", key=key, reason=str(error))
            return False

    def _enter_damaged(self, manifests: Mapping[str, Manifest]) -> None:
        """When its source is gone, no sweep will find it again: its manifests alone know of it."""
        manifest = next(iter(manifests.values()))
        seen = self._seen(manifest)
        undated = seen.expires_at == UNDATED
        if self._clock() < (manifest.archived_at + UNDATED_PATIENCE if undated else seen.expires_at):
            return
        how = damaged(
            manifest.asset_id,
            {name: each.damage or () for name, each in manifests.items()},
            stored_bytes=manifest.total_size,
            stored_objects=len(manifest.objects),
        )
        self._ledger.record_archived(seen, how)

    def _holds(self, key: ObjectKey, *, every_byte: bool) -> bool:
        """Whether every destination still has the manifest and what it names, and nobody took it back. `every_byte`:
        of what was found damaged; a store may not have let us mark its manifest, and sizes prove little."""
        try:
            for store in self._destinations:
                manifest = committed(store, key)
                if manifest is None or (every_byte and not check_contents(store, manifest).ok):
                    return False
            return True
        except StorageError as error:
            log.warning("manifest_not_readable", key=key, reason=str(error))
            return False

    def _read(self, store: StorageBackend, key: ObjectKey) -> Manifest | None:
        try:
            return read_manifest(store, key)
        except (ManifestError, StorageError) as error:
            log.error("manifest_unreadable", store=store.name, key=key, reason=str(error))
            return None

    def _seen(self, manifest: Manifest) -> Seen:
        return judge(Asset.parse(manifest.asset), self._scope)

    def _reopen_unproved(
        self, listed: Sequence[set[ObjectKey]], everywhere: set[ObjectKey], turn: Turn
    ) -> tuple[int, int]:
        reopened = missing_copies = 0
        for row in _going_on(self._ledger.rows([AssetState.ARCHIVED, AssetState.QUARANTINED]), turn):
            key = keys.manifest_key(row.asset_id, row.created_at)
            if key in everywhere or self._committed_since(key):
                continue
            whole_somewhere = any(key in manifests for manifests in listed)
            if whole_somewhere and is_over(row, self._clock()):
                missing_copies += 1
                log.error("copy_missing", asset_id=row.asset_id, key=key)
                continue
            reopened += 1
            log.error("manifest_missing", asset_id=row.asset_id, key=key)
            self._ledger.reopen(row.asset_id)
        return reopened, missing_copies

    def _committed_since(self, key: ObjectKey) -> bool:
        """An asset archived after the lists were made is no loss."""
        return all(store.stat(key) is not None for store in self._destinations)

    def _write_end_records(self) -> None:
        for row in self._ledger.rows(end_records.RECORDED_STATES):
            key = keys.end_record_key(row.asset_id, row.created_at)
            lacking = [store for store in self._destinations if store.stat(key) is None]
            if lacking:
                reason, seen = row.reason or "", as_known(row)
                end_records.write(lacking, seen, row.state, reason, self._clock(), row.acknowledged)

    def _delete_outdated_end_records(self) -> None:
        """Of what was quarantined, say, and then released and archived: one record for each asset."""
        for store in self._destinations:
            for info in list(store.list(ENDS)):
                asset_id = keys.asset_id_of(info.key)
                row = self._ledger.get(asset_id) if asset_id else None
                if row is not None and row.state == AssetState.ARCHIVED:
                    store.delete(info.key)


def _going_on(items: Iterable[T], turn: Turn) -> Iterator[T]:
    """`items`, the turn being extended meanwhile."""
    for number, item in enumerate(items):
        if number % EXTEND_EVERY == 0:
            turn.extend()
        yield item


def _settlement(manifest: Manifest) -> Settlement:
    return Settlement(
        AssetState.ARCHIVED,
        stored_bytes=manifest.total_size,
        stored_objects=len(manifest.objects),
        warnings=manifest.warnings,
    )

"""Apply the tombstones that the destinations hold: any tombstone beats any manifest, and any ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

import structlog

from archiver.core.records import keys, tombstones
from archiver.core.records.manifest import find_manifest
from archiver.core.records.tombstones import Tombstone
from archiver.core.upkeep.erasing import Eraser, Removal, enter_tombstone, locked_until, tombstone_in
from archiver.ledger.base import Schedule
from archiver.ledger.models import REMOVED_STATES, AssetState, Row
from storage_backends.base import ObjectKey, StorageBackend

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Extending(Protocol):
    """Yields what it is given, and keeps a lock meanwhile."""

    def __call__(self, items: Iterable[T], /) -> Iterator[T]: ...


class AppliedTombstones:
    """Every method is idempotent. Memory: about 150 bytes for each tombstone and destination. Raises StorageError,
    LedgerError."""

    def __init__(
        self,
        *,
        ledger: Schedule,
        destinations: Sequence[StorageBackend],
        eraser: Eraser,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._destinations = list(destinations)
        self._eraser = eraser
        self._clock = clock

    def apply(
        self, listed: Sequence[set[ObjectKey]], buried: Sequence[set[ObjectKey]], extending: Extending
    ) -> dict[str, list[ObjectKey]]:
        """Take the manifests of erased assets out of `listed`, and return them by asset. Enter erased assets that the
        ledger does not know, and write tombstones that a destination lacks. `listed`, `buried`: the keys of manifests
        and tombstones at each destination."""
        by_name = [{keys.record_name(key): key for key in found} for found in buried]
        names, known = set().union(*by_name), set()
        for row in extending(self._ledger.rows(sorted(REMOVED_STATES))):
            name = keys.record_name(keys.tombstone_key(row.asset_id))
            known.add(name)
            if name not in names and row.state is not AssetState.ERASING:
                if self._was_un_erased(row, listed):
                    log.warning("un_erased_since", asset_id=row.asset_id, was=row.state)
                    self._ledger.reopen(row.asset_id, un_erase=True)
                else:
                    self._rewrite(row)
        for name in extending(sorted(names)):
            lacking = [
                store for store, found in zip(self._destinations, by_name, strict=True) if name not in found
            ]
            if name not in known or lacking:
                key = next(found[name] for found in by_name if name in found)
                self._enter(key, keys.asset_id_of(f"{keys.ENDS}{keys.UNDATED_MONTH}/{name}"), lacking)
        came_back: dict[str, list[ObjectKey]] = {}
        for store, manifests in zip(self._destinations, listed, strict=True):
            found_again = {key for key in manifests if keys.record_name(key) in names}
            manifests -= found_again
            for key in sorted(found_again):
                asset_id = self._came_back(store, key)
                if asset_id is not None:
                    came_back.setdefault(asset_id, []).append(key)
        return came_back

    def finish(self, came_back: Mapping[str, Sequence[ObjectKey]]) -> tuple[Iterator[Removal], int]:
        """Finish what was begun, as the first value is read; the second is how many assets a lock keeps."""
        now, waiting = self._clock(), 0
        due = dict.fromkeys(came_back)
        for row in self._ledger.rows((AssetState.ERASING,)):
            until = locked_until(row)
            if until is not None and now < until and row.asset_id not in came_back:
                waiting += 1
            else:
                due[row.asset_id] = None
        return self._eraser.resume(list(due), lambda asset_id: came_back.get(asset_id, ())), waiting

    # -- inside --------------------------------------------------------------------------------------------
    def _enter(self, key: ObjectKey, asset_id: str | None, lacking: Sequence[StorageBackend]) -> None:
        found: Tombstone | None = None
        for store in self._destinations:
            if (there := tombstones.read_at(store, key, asset_id)) is not None:
                found = there if found is None else found.joined(there)
        if found is None:  # un-erased since the lists were made
            return
        enter_tombstone(self._ledger, found, self._clock())
        for store in lacking:
            tombstones.write(store, found)
            log.warning("tombstone_written", asset_id=found.asset_id, store=store.name)

    def _rewrite(self, row: Row) -> None:
        """The ledger alone knows that it was erased: somebody deleted the tombstones."""
        again = self._ledger.get(row.asset_id)
        if again is None or again.state is not row.state or tombstones.find(self._destinations, row.asset_id):
            return  # un-erased, or erased, since the lists were made
        tombstone = tombstone_in(row)
        assert tombstone is not None
        for store in self._destinations:
            tombstones.write(store, tombstone)
            log.warning("tombstone_written", asset_id=row.asset_id, store=store.name)

    def _was_un_erased(self, row: Row, listed: Sequence[set[ObjectKey]]) -> bool:
        """Whether it was archived after it was erased, and nothing forbids that any more: a person wanted it after all,
        and the ledger was rolled back."""
        key = keys.manifest_key(row.asset_id, row.created_at)
        for store, manifests in zip(self._destinations, listed, strict=True):
            found = find_manifest(store, key) if key in manifests else None
            if (
                found is not None
                and found.manifest is not None
                and found.manifest.archived_at > row.changed_at
            ):
                return tombstones.find(self._destinations, row.asset_id) is None
        return False

    def _came_back(self, store: StorageBackend, key: ObjectKey) -> str | None:
        """Return the id of an erased asset that has a manifest; None when it was un-erased since."""
        found = find_manifest(store, key)
        if found is None:
            return None
        asset_id = found.manifest.asset_id if found.manifest else keys.asset_id_of(key)
        if asset_id is None or tombstones.find(self._destinations, asset_id) is None:
            return None
        row = self._ledger.get(asset_id)
        if row is None or row.state is not AssetState.ERASING:
            log.error("erased_came_back", asset_id=asset_id, store=store.name, key=key)
        return asset_id

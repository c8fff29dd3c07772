"""What must hold of the copies of an asset: none that is whole is lost, and what lies beside a whole one is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from archiver.ledger.models import AssetState, CopyState, Row
from archiver.transfer.checksums import crc32c
from tests.simulation.faults import Faults
from tests.simulation.ledgers import AuditedLedger
from tests.simulation.scheduler import DAY, Scheduler
from tests.simulation.stores import Destination
from tests.simulation.truth import TrueAsset

MENDED_WITHIN = 3 * DAY
"""After the storm: reconciles, which replicate, are up to 24 hours apart then."""
RESTORED_WITHIN = 1 * DAY
"""What the ledger knew of the destinations is known again so long after it was lost."""
_BESIDE = frozenset({AssetState.ARCHIVED, AssetState.DAMAGED, AssetState.LOST})


@dataclass
class CopiesOracle:
    """`problem`: why an asset is not archived at a store; None when it is, whole. `is_removed`: whether somebody had
    the asset removed. `harmed_at`: when anything from outside last befell the copy."""

    scheduler: Scheduler
    faults: Faults
    assets: Mapping[str, TrueAsset]
    destinations: list[Destination]
    ledger: AuditedLedger
    quorum: int
    manifest: Callable[[Destination, str], Any]
    problem: Callable[[Destination, str], str | None]
    is_removed: Callable[[str], bool]
    harmed_at: Callable[[Destination, str], float]
    _held: dict[str, set[str]] = field(default_factory=dict)  # by asset: stores that held it at the last look
    _looked_at: float = 0.0
    _unmended_since: dict[str, float] = field(default_factory=dict)
    _short: set[tuple[str, str]] = field(default_factory=set)  # archived at the quorum, and not whole there

    # -- archived at the quorum --------------------------------------------------------------------------------
    def archived_at_quorum(self, asset_id: str, lacking: list[str]) -> None:
        """It was settled as archived though it is not whole at these."""
        self._short.update((asset_id, name) for name in lacking)

    def wrote(self, asset_id: str, store: Destination, *, is_harmed: bool) -> None:
        """Something of it was written there. From the moment that it is whole, or if it was harmed from outside while
        it was copied, what it lacks is known only once somebody reads it."""
        short = (asset_id, store.name)
        if short in self._short and (is_harmed or self.problem(store, asset_id) is None):
            self._short.discard(short)

    def is_known_as_lacking(self, row: Row, store: Destination) -> bool:
        """Whether the ledger says that it is not whole there."""
        return row.copies.get(store.name) in (CopyState.LACKING, CopyState.DAMAGED)

    def not_whole_everywhere(self, rows: Iterable[Row], epoch_began: float) -> str | None:
        """Return which of the `rows` keeps the archive from being healthy, if the ledger must know."""
        for row in rows:
            if row.state is not AssetState.ARCHIVED:
                continue
            for store in self.destinations:
                known = self.is_known_as_lacking(row, store)
                must_know = (row.asset_id, store.name) in self._short and (
                    self.scheduler.seconds > epoch_began + RESTORED_WITHIN
                )
                if (known or must_know) and (why := self.problem(store, row.asset_id)) is not None:
                    return f"{row.asset_id} is not whole at {store.name}: {why}"
        return None

    # -- looked at from time to time ---------------------------------------------------------------------------
    def look(self, calm_from: float, epoch_began: float) -> None:
        now = self.scheduler.seconds
        rows = {row.asset_id: row for row in self.ledger.all_rows()}
        for asset_id in self.assets:
            if self.is_removed(asset_id):
                self._held.pop(asset_id, None)
                self._unmended_since.pop(asset_id, None)
                continue
            self._look_at_held(asset_id)
            whole = self._whole(asset_id)
            self._short -= {(asset_id, name) for name in whole}
            self._look_at_unmended(rows.get(asset_id), asset_id, whole, max(calm_from, epoch_began))
        self._looked_at = now

    def _look_at_held(self, asset_id: str) -> None:
        """Whatever its manifests say of damage."""
        held = {store.name for store in self.destinations if self._holds(store, asset_id)}
        before = self._held.get(asset_id, set())
        if before and not held:
            untouched = [
                store.name
                for store in self.destinations
                if store.name in before
                and self.harmed_at(store, asset_id) < self._looked_at
                and not store.corrupted
            ]
            if untouched:
                self._broken("a whole copy anywhere is never lost", f"{asset_id}, which {untouched} held")
        self._held[asset_id] = held

    def _look_at_unmended(self, row: Row | None, asset_id: str, whole: set[str], since: float) -> None:
        lacking = [store for store in self.destinations if store.name not in whole]
        is_known = row is not None and (
            row.state in (AssetState.DAMAGED, AssetState.LOST)
            or (len(whole) >= self.quorum and any(self.is_known_as_lacking(row, store) for store in lacking))
        )
        if (
            row is None
            or row.state not in _BESIDE
            or not (whole and lacking and is_known)
            or any(store.no_overwrite for store in lacking)  # what is wrong there stays
        ):
            self._unmended_since.pop(asset_id, None)
            return
        began = self._unmended_since.setdefault(asset_id, self.scheduler.seconds)
        if self.scheduler.seconds - max(began, since) > MENDED_WITHIN:
            where = ", ".join(store.name for store in lacking)
            self._broken(
                "what lies beside a whole copy is mended",
                f"{asset_id} is {row.state}, whole at {sorted(whole)} and not at {where}: {row.reason}",
            )

    # -- what is really there ----------------------------------------------------------------------------------
    def _whole(self, asset_id: str) -> set[str]:
        return {store.name for store in self.destinations if self.problem(store, asset_id) is None}

    def _holds(self, store: Destination, asset_id: str) -> bool:
        """Whether every byte of a version that the source had is there, in the folder that the manifest names."""
        manifest = self.manifest(store, asset_id)
        if manifest is None or manifest.raw.get("doubts"):
            return False
        for key, size, crc in manifest.objects:
            there = store.objects.get(key)
            if there is None or len(there.data) != size or f"{crc32c(there.data):08x}" != crc:
                return False
        return True

    def _broken(self, name: str, details: str) -> None:
        self.scheduler.broken(name, details)

"""What must hold of terms: nothing is deleted before its term is over, nor more than its share in a day, and what has
expired neither returns nor alarms anybody."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date

from archiver.ledger.models import REMOVED_STATES, AssetState, Row
from tests.simulation.scheduler import DAY, HOUR, START, Scheduler
from tests.simulation.truth import TrueAsset

APPLIED_WITHIN = 2 * DAY
"""A reconcile, which applies what tombstones say, ends at least once a day."""
DATED_BEFORE = 7 * HOUR
"""A manifest is dated when it is made; its worker may be paused before it is written."""
_ALARMING = frozenset({AssetState.LOST, AssetState.DAMAGED, AssetState.QUARANTINED})


@dataclass
class ExpiryOracle:
    """`keep_days`: None: for ever. `epoch`: of the ledger. `archived_at`: the latest time that a manifest of the asset
    gives; None when there is none."""

    scheduler: Scheduler
    assets: Mapping[str, TrueAsset]
    keep_days: int | None
    epoch: Callable[[], int]
    archived_at: Callable[[str], float | None]
    rejected: AbstractSet[str]
    deleted_by_rule: dict[str, int] = field(default_factory=dict)  # asset -> epoch
    _committed_at: dict[str, float] = field(default_factory=dict)  # the earliest date of its first manifest
    _expired_at: dict[str, float] = field(default_factory=dict)  # when its first tombstone was written
    _begun: Counter[date] = field(default_factory=Counter)  # by day (UTC), whatever becomes of the ledger

    def committed(self, asset_id: str) -> None:
        self._committed_at.setdefault(asset_id, self.scheduler.seconds - DATED_BEFORE)

    def ends_at(self, asset_id: str) -> float | None:
        """When its term ends at the earliest; None: never. What was rejected without a copy has its creation alone."""
        asset, is_rejected = self.assets[asset_id], asset_id in self.rejected
        committed = self._committed_at.get(asset_id, asset.created if is_rejected else None)
        archived = [at for at in (committed, self.archived_at(asset_id)) if at is not None]
        is_dated = asset.created_at is not None and asset.created_at.startswith(str(START.year))
        if self.keep_days is None or not archived or not is_dated:
            return None
        return max(asset.created, *archived) + self.keep_days * DAY

    def is_over(self, asset_id: str, seconds: float) -> bool:
        """Whether its term is over, and was by then: what befell it need not be noticed any more."""
        ends_at = self.ends_at(asset_id)
        return ends_at is not None and ends_at <= min(seconds, self.scheduler.seconds)

    def buried(self, tombstone: bytes) -> None:
        """The tombstone was written at some destination."""
        raw = json.loads(tombstone)
        asset_id = raw["asset"]
        if raw["state"] != AssetState.EXPIRED or asset_id in self._expired_at or asset_id not in self.assets:
            return
        now = self.scheduler.seconds
        self._expired_at[asset_id] = now
        ends_at = self.ends_at(asset_id)
        if ends_at is None or now < ends_at:
            self._broken(
                "nothing expires before its term is over", f"{asset_id}, whose term ends at {ends_at}"
            )
        if asset_id in self.deleted_by_rule:
            return
        day = self.scheduler.now().date()
        self._begun[day] += 1
        if self._begun[day] > max(1, len(self.assets) // 100):
            self._broken("no day deletes more than its share", f"{asset_id} is number {self._begun[day]}")

    def settled(self, process: str, before: Row | None, after: Row) -> None:
        was_expired = before is not None and before.state is AssetState.EXPIRED
        if was_expired and after.state not in REMOVED_STATES:
            self._broken("expired never returns", f"{process} made {after.asset_id} {after.state}")
        # a ledger that was lost counts anew, and what a rule deletes meanwhile is damage to it
        by_rule = self.deleted_by_rule.get(after.asset_id) == self.epoch()
        over = after.asset_id in self._expired_at or by_rule
        if over and after.state in _ALARMING:
            self._broken(
                "expired never alarms", f"{process} made {after.asset_id} {after.state}: {after.reason}"
            )

    def look(self, row: Row | None, asset_id: str, epoch_began: float) -> None:
        """From time to time."""
        at = self._expired_at.get(asset_id)
        if at is None or self.scheduler.seconds < max(at, epoch_began) + APPLIED_WITHIN:
            return
        if row is None or row.state not in REMOVED_STATES:
            state = row.state if row else "unknown to the ledger"
            self._broken("expired never returns", f"{asset_id} is {state}")

    def began_lately(self, asset_id: str) -> bool:
        """Whether its expiry may still go on."""
        return self.scheduler.seconds - self._expired_at.get(asset_id, float("-inf")) < DAY

    def _broken(self, name: str, details: str) -> None:
        self.scheduler.broken(name, details)

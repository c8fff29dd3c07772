"""What must hold of drills: what they find at each destination, and that every copy has its turn."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass

from archiver.ledger.models import AssetState
from tests.simulation.ledgers import AuditedLedger
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import START
from tests.simulation.stores import Destination

_DIFFERS = ("is not there", "is not what the manifest says")


@dataclass
class DrillOracle:
    oracle: Oracle
    ledger: AuditedLedger

    def ended(self, began: float) -> None:
        """A drill that began then has just written its records."""
        began_at = int(START.timestamp() + began)
        for store in self.oracle.destinations:
            for asset_id, (at, result) in self._record(store).items():
                if at < began_at or asset_id not in self.oracle.assets:
                    continue
                harmed = any(harm.at >= began for harm in self.oracle.harms[asset_id, store.name])
                why = self.oracle.problem(store, asset_id)
                if result == "whole" and why is not None and why.endswith(_DIFFERS) and not harmed:
                    self._broken("a drill calls whole what is whole", f"{asset_id} at {store.name}: {why}")
                if result == "failed" and why is None and not harmed and not self._is_faulty(store, began):
                    self._broken("a drill fails nothing that is whole", f"{asset_id} at {store.name}")

    def all_drilled(self) -> None:
        """Nothing has been wrong for long enough for every copy to have had its turn."""
        for store in self.oracle.destinations:
            drilled = self._record(store)
            for row in self.ledger.all_rows():
                is_there = self.oracle.manifest(store, row.asset_id) is not None
                if row.state is AssetState.ARCHIVED and is_there and row.asset_id not in drilled:
                    self._broken("every copy is drilled in its turn", f"{row.asset_id} at {store.name}")

    def _is_faulty(self, store: Destination, began: float) -> bool:
        now = self.oracle.scheduler.seconds
        windows = self.oracle.faults.windows(f"store:{store.name}", "all")
        return any(start < now and end > began for start, end in windows)

    @staticmethod
    def _record(store: Destination) -> dict[str, tuple[int, str]]:
        """When each asset was drilled last, and the result."""
        newest = max((key for key in store.objects if key.startswith("drills/")), default=None)
        if newest is None:
            return {}
        lines = [json.loads(line) for line in gzip.decompress(store.objects[newest].data).splitlines()]
        return {line[0].rsplit("/", 1)[1].removesuffix(".json"): (line[1], line[2]) for line in lines[1:-1]}

    def _broken(self, name: str, details: str) -> None:
        self.oracle.scheduler.broken(name, details)

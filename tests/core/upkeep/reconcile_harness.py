"""A ledger, two destinations in memory, and what compares them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from archiver.core.judging import Scope
from archiver.core.upkeep.reconcile import Reconciler, ReconcileResult
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, CopyState
from storage_backends.base import ObjectKey
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, RETENTION
from tests.core.fakes import Clock


class DatedBackend(MemoryBackend):
    """Dates what is written by `clock`, and counts what is read."""

    def __init__(self, name: str, clock: Callable[[], datetime]) -> None:
        super().__init__(name)
        self.store.clock = clock
        self.reads: list[str] = []

    def read(self, key: ObjectKey, *args: Any, **kwargs: Any) -> bytes:
        self.reads.append(key)
        return super().read(key, *args, **kwargs)


class ReconcileHarness:
    def __init__(self, *stores: MemoryBackend) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = list(stores) or [DatedBackend(name, self.clock) for name in ("one", "two")]
        self._snapshot = b""

    def snapshot(self) -> None:
        """Of the ledger."""
        kept = {name: value for name, value in vars(self.ledger).items() if name not in ("_clock", "_mutex")}
        self._snapshot = pickle.dumps(kept)

    def roll_back(self) -> None:
        """Restore the last snapshot."""
        vars(self.ledger).update(pickle.loads(self._snapshot))

    @property
    def one(self) -> MemoryBackend:
        return self.stores[0]

    @property
    def two(self) -> MemoryBackend:
        return self.stores[1]

    def archive(self, assets: Sequence[Asset], stores: Sequence[MemoryBackend] | None = None) -> None:
        """In the ledger, and at `stores` (default: both)."""
        for each in assets:
            enter(self.ledger, each)
            archive_at(self.stores if stores is None else stores, each)

    def note_whole(self, asset: Asset) -> None:
        """In the ledger, at every destination."""
        row = self.ledger.get(asset.id)
        assert row is not None
        assert self.ledger.note_copies(row, {store.name: CopyState.WHOLE for store in self.stores})

    def reconciler(self) -> Reconciler:
        return Reconciler(
            ledger=self.ledger, destinations=self.stores, scope=Scope(RETENTION), clock=self.clock
        )

    def reconcile(self, *, confirmed: bool = False) -> ReconcileResult:
        """As a process that begins does."""
        result = self.reconciler().reconcile(confirmed=confirmed)
        assert result is not None
        return result

    def state(self, asset: Asset) -> AssetState | None:
        row = self.ledger.get(asset.id)
        return row.state if row else None

    def states(self) -> dict[AssetState, int]:
        return {state: number for state, number in self.ledger.counts().states.items() if number}

"""Totals in memory."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.ledger.memory.state import State, synchronized


class MemoryTotals(State):
    """`ledger.base.Totals`."""

    @synchronized
    def add_totals(self, amounts: Mapping[str, int]) -> None:
        self._totals.update(amounts)

    @synchronized
    def totals(self) -> Mapping[str, int]:
        return dict(self._totals)

"""Totals in Redis."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.ledger.redis.calls import ScriptCalls


class RedisTotals(ScriptCalls):
    """`ledger.base.Totals`."""

    def add_totals(self, amounts: Mapping[str, int]) -> None:
        self._run("add_totals", *(word for pair in amounts.items() for word in pair), once=True)

    def totals(self) -> Mapping[str, int]:
        return {name: int(amount) for name, amount in self._hash("totals", "totals").items()}

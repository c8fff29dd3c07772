"""Choose the assets that are replicated next, the most urgent first. Pure, but for the rows it reads."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from archiver.core.deadlines import is_over
from archiver.ledger.base import Assets
from archiver.ledger.models import AssetState, CopyState, Row

AT_ONCE = 20_000
"""Assets chosen in one walk over the ledger: about 5 MB."""

AUTOMATIC_STATES = (AssetState.DAMAGED, AssetState.ARCHIVED, AssetState.QUARANTINED)
NAMED_STATES = (*AUTOMATIC_STATES, AssetState.REJECTED)
"""A person who moves a bucket wants what was rejected as well."""

Urgency = tuple[bool, int, bool, datetime, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be replicated. `source`, `target`: names of destinations; None: any. `chooses`: a person's filter."""

    source: str | None = None
    target: str | None = None
    states: Sequence[AssetState] = AUTOMATIC_STATES
    chooses: Callable[[Row], bool] = lambda _row: True
    combines: bool = False
    """Also what is whole nowhere, if two copies are damaged, perhaps in different objects. Both are read to learn that:
    too much for each hour."""

    def lacking(self, row: Row, names: Sequence[str]) -> bool:
        """Return whether a destination is known to lack the asset or to hold it damaged (`target`: is not known to hold
        it whole), and another one may have it whole."""
        others = [row.copies.get(name) for name in names if name != self.target]
        if self.target is not None:
            is_lacking = row.copies.get(self.target) is not CopyState.WHOLE
        else:
            is_lacking = any(state in (CopyState.LACKING, CopyState.DAMAGED) for state in others)
            is_lacking |= row.state is AssetState.DAMAGED and not row.copies
        may_copy = any(state in (CopyState.WHOLE, None) for state in others)
        may_combine = self.combines and [row.copies.get(name) for name in names].count(CopyState.DAMAGED) > 1
        return is_lacking and (may_copy or may_combine) and self.chooses(row)


def urgency(row: Row, names: Sequence[str], now: datetime) -> Urgency:
    """Sort what is damaged first, then what the fewest destinations hold, then what 100ms no longer has."""
    whole = sum(row.copies.get(name) is CopyState.WHOLE for name in names)
    return row.state is not AssetState.DAMAGED, whole, not is_over(row, now), row.expires_at, row.asset_id


def wanted_rows(ledger: Assets, wanted: Wanted, names: Sequence[str]) -> Iterator[Row]:
    """Raises LedgerError."""
    return (row for row in ledger.rows(wanted.states) if wanted.lacking(row, names))


def most_urgent(
    ledger: Assets, wanted: Wanted, names: Sequence[str], now: datetime, without: Collection[str]
) -> list[Row]:
    """Return up to AT_ONCE rows, the most urgent first, without those of these ids. One walk over the ledger. Raises
    LedgerError."""
    rows = (row for row in wanted_rows(ledger, wanted, names) if row.asset_id not in without)
    return list(islice(heapq.nsmallest(AT_ONCE, rows, key=lambda row: urgency(row, names, now)), AT_ONCE))

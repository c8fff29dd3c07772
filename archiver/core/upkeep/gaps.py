"""Classify gaps: assets that the ledger calls archived, without a manifest at some destination. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from archiver.ledger.models import AssetState, CopyState, Row

LARGEST_CHANGE = 20
LARGEST_SHARE = 0.02
LEFT_TO_REPLICATION = timedelta(days=2)
"""How long after an asset was archived at the quorum the rest is replicated, before 100ms is asked again."""


class Gap(Enum):
    REOPEN = "100ms still has the asset: copy it again"
    FILL = "the destination was added since, and 100ms still has the asset: copy it there"
    MISSING_COPY = (
        "the destination never held the asset, and 100ms has deleted it, or it was archived at the quorum since; it is "
        "whole elsewhere: replicate it"
    )
    DAMAGED = "a copy was removed, 100ms has deleted the asset, it is whole elsewhere: replicate it"
    VANISHED = "the asset is nowhere, and 100ms has deleted it: one more attempt, then it is lost"


CHANGES = (Gap.REOPEN, Gap.DAMAGED, Gap.VANISHED)
"""Gaps that nobody expects."""


@dataclass(slots=True)
class Gaps:
    """Gaps of one run: assets by kind, the most urgent first, with the numbers of the destinations that lack them."""

    rows: int = 0  # compared
    expired: list[Row] = field(default_factory=list)  # gone everywhere, after their term
    suspect: list[Row] = field(default_factory=list)  # archived, and a manifest was written since
    by_kind: dict[Gap, list[tuple[str, tuple[int, ...]]]] = field(
        default_factory=lambda: {gap: [] for gap in Gap}
    )

    def of(self, gap: Gap) -> list[tuple[str, tuple[int, ...]]]:
        return self.by_kind[gap]

    @property
    def changes(self) -> int:
        """Return how many archived assets would be reopened although nothing says that they should lack anything."""
        return sum(len(self.of(gap)) for gap in CHANGES)


def judge_gap(
    *,
    over: bool,
    whole_somewhere: bool,
    expected: bool,
    filling: bool,
    doubted: bool = False,
    at_quorum: bool = False,
) -> Gap:
    """Say what a gap means.

    - `over`: the source has ended.
    - `expected`: every destination that lacks it was added, empty, after the source had ended, or never held it.
    - `filling`: every one of them was added, and is still being filled.
    - `doubted`: it is quarantined, so a person looks at it anyway.
    - `at_quorum`: `archived_at_quorum`.
    """
    if not over and filling:
        return Gap.FILL
    if not over:
        return Gap.MISSING_COPY if at_quorum else Gap.REOPEN
    if expected or (doubted and whole_somewhere):
        return Gap.MISSING_COPY
    return Gap.DAMAGED if whole_somewhere else Gap.VANISHED


def archived_at_quorum(row: Row, lacking: Collection[str], others: Collection[str], now: datetime) -> bool:
    """Return whether an attempt has archived the asset without `lacking` in the last LEFT_TO_REPLICATION, and one of
    the `others` is known to hold it whole; all by name. To open it again each time would keep it from being replicated,
    when 100ms has deleted it early, or its source fails. After that the replication may not be able to: no
    destination lets it read the copy, or `ARCHIVER_REPLICATE_BYTES` is too little."""
    return (
        row.state is AssetState.ARCHIVED
        and now - row.changed_at < LEFT_TO_REPLICATION
        and all(row.copies.get(name) is CopyState.LACKING for name in lacking)
        and any(row.copies.get(name) is CopyState.WHOLE for name in others)
    )


def limit(archived: int) -> int:
    """Return how many of `archived` assets one run may change. More suggest a wrong bucket or a mass deletion."""
    return max(LARGEST_CHANGE, int(archived * LARGEST_SHARE))

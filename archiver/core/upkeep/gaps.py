"""Classify gaps: assets that the ledger calls archived, without a manifest at some destination. Pure, but for
what the ledger knows of replication."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from archiver.core.deadlines import source_ends_at
from archiver.core.upkeep.reports import REPLICATE_FACT
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from archiver.ledger.models import AssetState, CopyState, Row

LARGEST_CHANGE = 20
LARGEST_SHARE = 0.02
LEFT_TO_REPLICATION = timedelta(days=2)
"""How long after an asset was archived at the quorum, or a destination was away, the rest is replicated, before 100ms
is asked again."""
LAST_CHANCE = timedelta(days=1)
"""Before 100ms deletes the recording: then it is asked all the same."""
REPLICATED_LATELY = timedelta(days=1)
ANY = "*"
AWAY_FACT = "destinations_away"
"""A fact of the ledger: when destinations were last found not to work, by name."""


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
    - `filling`: every one of them was added, and is still being filled; no attempt has tried since.
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


@dataclass(frozen=True, slots=True)
class Replication:
    """What is known of it. `away`: when each destination, by name, was last found not to work; ANY: one of them, and it
    is not known which. `goes_on`: something was copied lately."""

    away: Mapping[str, datetime] = field(default_factory=dict)
    goes_on: bool = False


def note_away(ledger: Facts, names: Iterable[str], now: datetime) -> None:
    """Note that destinations do not work now. Raises LedgerError."""
    found = {name: now.isoformat() for name in names}
    if found:
        ledger.remember(AWAY_FACT, {**(ledger.recall(AWAY_FACT) or {}), **found})


def replication(ledger: Facts, now: datetime) -> Replication:
    """Raises LedgerError."""
    away = {
        name: at
        for name, text in (ledger.recall(AWAY_FACT) or {}).items()
        if (at := parse_time(text)) is not None and at <= now
    }
    fact = ledger.recall(REPLICATE_FACT) or {}
    at = parse_time(fact.get("at"))
    return Replication(away, at is not None and now - at < REPLICATED_LATELY and bool(fact.get("copied")))


def archived_at_quorum(
    row: Row,
    lacking: Collection[str],
    others: Collection[str],
    now: datetime,
    replication: Replication = Replication(),
) -> bool:
    """Return whether an attempt has archived the asset without `lacking`, one of the `others` is known to hold it whole
    (all by name), and it is still left to replication: for LEFT_TO_REPLICATION, and again so long after a destination
    was away, and while replication goes on, but for those up to LAST_CHANCE. To open it again each time would keep it
    from being replicated, when 100ms has deleted it early, or its source fails; and what a destination lacks after days
    of being away would all be read from 100ms again. After that the replication may not be able to: no destination lets
    it read the copy, or `ARCHIVER_REPLICATE_BYTES` is too little."""
    if (
        row.state is not AssetState.ARCHIVED
        or any(row.copies.get(name) is not CopyState.LACKING for name in lacking)
        or not any(row.copies.get(name) is CopyState.WHOLE for name in others)
    ):
        return False
    if now - row.changed_at < LEFT_TO_REPLICATION:
        return True
    if source_ends_at(row) - now < LAST_CHANCE:
        return False
    away = [replication.away[name] for name in (*lacking, ANY) if name in replication.away]
    return replication.goes_on or any(now - each < LEFT_TO_REPLICATION for each in away)


def limit(archived: int) -> int:
    """Return how many of `archived` assets one run may change. More suggest a wrong bucket or a mass deletion."""
    return max(LARGEST_CHANGE, int(archived * LARGEST_SHARE))

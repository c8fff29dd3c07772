"""Entering, queueing and reopening assets in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    MAX_DECISIONS,
    CopyState,
    Decision,
    Row,
    Seen,
    Settlement,
)
from archiver.ledger.redis.assets import RedisAssets
from archiver.ledger.redis.calls import BATCH
from archiver.ledger.redis.rows import (
    copies_arguments,
    decision_text,
    seen_arguments,
    settlement_arguments,
)
from archiver.ledger.redis.values import MICROSECOND, microseconds, to_json


class RedisSchedule(RedisAssets):
    """`ledger.base.Schedule`."""

    def discover(self, seen: Sequence[Seen]) -> int:
        arguments = (argument for one in seen for argument in seen_arguments(one))
        new: int = self._run("discover", len(seen), *arguments)
        return new

    def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
        return bool(self._run("record_archived", *seen_arguments(seen), *settlement_arguments(settlement)))

    def take_due(
        self,
        window: int,
        requeue_after: timedelta,
        ahead: timedelta = timedelta(0),
        *,
        at_most: int | None = None,
    ) -> list[Row]:
        while self._run("promote", ahead // MICROSECOND, BATCH):
            pass  # each wait is promoted once, so this ends; in steps, so that others are served in between

        rows: list[Row] = []
        wanted = window if at_most is None else min(window, at_most)
        while len(rows) < wanted:
            limit = min(BATCH, wanted - len(rows))
            taken = self._run("take_due", window, limit, requeue_after // MICROSECOND)
            rows += map(self._row, taken)
            if len(taken) < limit:
                break
        return sorted(rows, key=lambda row: (row.expires_at, row.asset_id.encode("utf-8", "surrogatepass")))

    def make_due(self, asset_ids: Sequence[str], *, unless_within: timedelta) -> list[str]:
        unknown: list[str] = self._run("make_due", unless_within // MICROSECOND, *asset_ids)
        return unknown

    def reopen(self, asset_id: str, *, keep_stored: bool = False, un_erase: bool = False) -> Row | None:
        flat = self._run("reopen", asset_id, 1 if keep_stored else 0, 1 if un_erase else 0)
        return self._row(flat) if flat else None

    def remove(self, seen: Seen, settlement: Settlement) -> Row:
        return self._row(self._run("remove", *seen_arguments(seen), *settlement_arguments(settlement)))

    def acknowledge(self, asset_id: str, by: str, why: str) -> Row | None:
        flat = self._run("acknowledge", asset_id, to_json({"by": by, "why": why}), *ACKNOWLEDGED_STATES)
        return self._row(flat) if flat else None

    def note_copies(self, row: Row, copies: Mapping[str, CopyState]) -> bool:
        before = (*copies_arguments(row.copies), *copies_arguments(copies))
        return bool(self._run("note_copies", row.asset_id, microseconds(row.changed_at), *before))

    def note_decision(self, asset_id: str, decision: Decision) -> Row | None:
        flat = self._run("note_decision", asset_id, decision_text(decision), MAX_DECISIONS)
        return self._row(flat) if flat else None

"""Leases in Redis."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta

from archiver.ledger.errors import LeaseLost, LedgerUnavailable
from archiver.ledger.models import (
    PROGRESS_LIFETIME,
    AttemptStart,
    CopyState,
    Lease,
    Progress,
    Row,
    Seen,
    Settlement,
)
from archiver.ledger.redis.calls import read_facts
from archiver.ledger.redis.row_reader import RowReader
from archiver.ledger.redis.rows import copies_arguments, seen_arguments, settlement_arguments
from archiver.ledger.redis.values import MICROSECOND, to_json


class RedisLeases(RowReader):
    """`ledger.base.Leases`."""

    def lease(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        fence = self._run("lease", asset_id, holder, duration // MICROSECOND, _call_number())
        return Lease(asset_id, int(fence), holder) if fence else None

    def begin(self, asset_id: str, holder: str, duration: timedelta, facts: str) -> AttemptStart:
        arguments = (asset_id, holder, duration // MICROSECOND, _call_number(), facts)
        fence, has_work, row, flat = json.loads(self._run("begin", *arguments))
        return AttemptStart(
            Lease(asset_id, int(fence), holder) if fence else None,
            self._row(row) if len(row) > 1 else None,
            bool(has_work),
            read_facts(flat or ()),  # cjson writes an empty Lua list as {}
        )

    def lease_ended(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        fence = self._run("lease_ended", asset_id, holder, duration // MICROSECOND, _call_number())
        return Lease(asset_id, int(fence), holder) if fence else None

    def release(
        self,
        lease: Lease,
        copies: Mapping[str, CopyState] | None = None,
        settlement: Settlement | None = None,
        *,
        keep_work: bool = False,
    ) -> Row:
        how = (1, *settlement_arguments(settlement)) if settlement else (0,)
        arguments = (*copies_arguments(copies), int(keep_work), *how)
        flat = self._run("release", lease.asset_id, lease.fence, _call_number(), *arguments)
        if not flat:
            raise LeaseLost.of(lease)
        return self._row(json.loads(flat))

    def renew(self, lease: Lease, duration: timedelta) -> None:
        if not self._run("renew", lease.asset_id, lease.fence, lease.holder, duration // MICROSECOND):
            raise LeaseLost.of(lease)

    def outrank(self, lease: Lease, fence: int) -> Lease:
        higher = self._run("outrank", lease.asset_id, lease.fence, lease.holder, fence, _call_number())
        if not higher:
            raise LeaseLost.of(lease)
        return replace(lease, fence=int(higher))

    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        arguments = (*seen_arguments(seen), *settlement_arguments(settlement))
        totals = (word for pair in settlement.totals.items() for word in pair)
        flat = self._run("settle", lease.fence, _call_number(), *arguments, *totals)
        if not flat:
            raise LeaseLost.of(lease)
        return self._row(json.loads(flat))

    def report(self, progress: Progress) -> None:
        fact, ends_in = to_json(asdict(progress)), PROGRESS_LIFETIME // MICROSECOND
        with suppress(LedgerUnavailable):
            self._run("remember", "progress", progress.asset_id, fact, ends_in, 1, once=True)


def _call_number() -> int:
    """Return an idempotency key, by which a script recognises a call that was sent twice. 31 bits: a row keeps the last
    one in 5 bytes."""
    return random.getrandbits(31)  # each process has its own sequence, also after a fork

"""Leases in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from archiver.ledger.errors import LeaseLost
from archiver.ledger.memory.assets import MemoryAssets
from archiver.ledger.memory.facts import MemoryFacts
from archiver.ledger.memory.state import synchronized, with_result
from archiver.ledger.models import (
    DEADLINE_DIVISOR,
    MAX_WAIT,
    OPEN_STATES,
    PROGRESS_LIFETIME,
    REMOVED_STATES,
    AssetState,
    AttemptStart,
    CopyState,
    Lease,
    Progress,
    Row,
    Seen,
    Settlement,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class MemoryLeases(MemoryAssets, MemoryFacts):
    """`ledger.base.Leases`."""

    @synchronized
    def lease(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        asset = self._assets.get(asset_id)
        if asset is None or asset.row.state not in OPEN_STATES or self._is_leased(asset):
            return None
        if self._is_ahead(asset.row.next_attempt_at, MAX_WAIT):
            return None

        # by time, so that tokens grow across a flush; never smaller, should the clock go back
        asset.fence = max((self._clock() - _EPOCH) // _MICROSECOND, (asset.fence or 0) + 1)
        if asset.holder is not None:
            stored = self._amount_stored(asset_id)
            crashes = 0 if stored > asset.most else asset.row.crashes + 1
            asset.row = replace(asset.row, crashes=crashes)
            asset.most = max(asset.most, stored)
        asset.holder = holder
        asset.row = replace(asset.row, attempts=asset.row.attempts + 1)
        self._move(asset, AssetState.RUNNING, at=self._clock() + duration)
        return Lease(asset_id, asset.fence, holder)

    @synchronized
    def lease_ended(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        asset = self._assets.get(asset_id)
        if asset is None or asset.row.state in OPEN_STATES | REMOVED_STATES or self._is_end_leased(asset):
            return None

        asset.fence = max((self._clock() - _EPOCH) // _MICROSECOND, (asset.fence or 0) + 1)
        asset.holder = holder
        asset.row = replace(asset.row, leased_until=self._clock() + duration)
        return Lease(asset_id, asset.fence, holder)

    @synchronized
    def release(
        self,
        lease: Lease,
        copies: Mapping[str, CopyState] | None = None,
        settlement: Settlement | None = None,
        *,
        keep_work: bool = False,
    ) -> Row:
        asset = self._assets.get(lease.asset_id)
        if asset is None or asset.row.leased_until is None:
            raise LeaseLost.of(lease)
        self._check(lease)
        before = asset.row.state
        asset.holder = None
        asset.row = replace(asset.row, leased_until=None)
        self._progress.pop(lease.asset_id, None)
        if not keep_work:
            self._forget_work(lease.asset_id)
        if settlement is not None:
            asset.row = with_result(asset.row, settlement)
            if settlement.state != before:
                self._move(asset, settlement.state)
        if copies is not None:
            asset.row = replace(asset.row, copies=dict(copies))
        if asset.row.state != before:
            self._announce(asset.row)
        return asset.row

    def begin(self, asset_id: str, holder: str, duration: timedelta, facts: str) -> AttemptStart:
        with self._mutex:
            lease = self.lease(asset_id, holder, duration)
            has_work = any(self._amount_stored(asset_id))
            return AttemptStart(lease, self.get(asset_id), has_work, self.recall_all(facts))

    @synchronized
    def renew(self, lease: Lease, duration: timedelta) -> None:
        self._check(lease)
        asset = self._assets.get(lease.asset_id)
        if asset is None:
            return

        if asset.fence is None:
            self._adopt(asset, lease)
        ends = self._clock() + duration
        if asset.row.leased_until is not None:
            asset.row = replace(asset.row, leased_until=ends)
        elif asset.row.state == AssetState.RUNNING:
            asset.timed_at = ends
        else:
            self._move(asset, AssetState.RUNNING, at=ends)

    @synchronized
    def outrank(self, lease: Lease, fence: int) -> Lease:
        self._check(lease)
        asset = self._assets.get(lease.asset_id)
        if asset is not None and asset.fence is None:
            self._adopt(asset, lease)
        higher = replace(lease, fence=max(lease.fence, fence + 1))
        if asset is not None:
            asset.fence = higher.fence
        return higher

    @synchronized
    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        self._check(lease)
        asset = self._assets.get(lease.asset_id) or self._enter(seen, AssetState.DISCOVERED, None)
        if asset.fence is None:
            self._adopt(asset, lease)
        attempts = asset.row.attempts if settlement.counts_as_attempt else max(0, asset.row.attempts - 1)
        same = settlement.fingerprint is None or settlement.fingerprint == asset.row.fingerprint
        mismatches = (asset.row.mismatches + 1 if same else 1) if settlement.mismatch else 0
        now = self._clock()
        asset.holder = None
        asset.most = (0, 0)
        gone_since = asset.row.gone_since
        if settlement.gone:
            gone_since = min(gone_since or now, now)
        elif settlement.counts_as_attempt:
            gone_since = None
        asset.row = replace(
            with_result(asset.row, settlement),
            gone_since=gone_since,
            attempts=attempts,
            mismatches=mismatches,
            fingerprint=settlement.fingerprint if settlement.mismatch else None,
        )
        self._note_known(asset, seen)
        if settlement.state == AssetState.ARCHIVED and seen.size_bytes is not None:
            asset.row = replace(asset.row, size_bytes=seen.size_bytes)
        wait = min(max(settlement.delay or timedelta(0), timedelta(0)), MAX_WAIT)
        left = asset.row.expires_at - now
        if left > timedelta(0):
            wait = min(wait, left // DEADLINE_DIVISOR)
        self._move(asset, settlement.state, at=now + wait)
        self._progress.pop(lease.asset_id, None)
        self._totals.update(settlement.totals)
        self._announce(asset.row)
        return asset.row

    @synchronized
    def report(self, progress: Progress) -> None:
        self._progress[progress.asset_id] = (self._clock() + PROGRESS_LIFETIME, progress)

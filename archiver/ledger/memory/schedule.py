"""Entering, queueing and reopening assets in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from archiver.ledger.memory.assets import MemoryAssets
from archiver.ledger.memory.state import Asset, synchronized, urgency, with_result
from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    CLOCK_STEP,
    JUDGED_STATES,
    MAX_DECISIONS,
    MAX_SIZES,
    MAX_WAIT,
    OPEN_STATES,
    REMOVED_STATES,
    Acknowledgement,
    AssetState,
    CopyState,
    Decision,
    Row,
    Seen,
    Settlement,
)


class MemorySchedule(MemoryAssets):
    """`ledger.base.Schedule`."""

    @synchronized
    def discover(self, seen: Sequence[Seen]) -> int:
        new = 0
        for one in seen:
            asset = self._assets.get(one.asset_id)
            if asset is None:
                self._enter(one, one.verdict, one.reason)
                new += 1
                continue

            if self._is_end_leased(asset):  # the next sweep sees it again
                asset.row = replace(asset.row, expires_at=one.expires_at)
                continue
            size = asset.row.size_bytes if one.size_bytes is None else one.size_bytes
            resized = asset.row.state == AssetState.ARCHIVED and self._is_new_size(asset, size)
            asset.row = replace(asset.row, expires_at=one.expires_at, size_bytes=size)
            state = asset.row.state
            if one.verdict == AssetState.DISCOVERED:
                if state in JUDGED_STATES or resized:
                    self._reopen(asset, keep_stored=resized)
            elif state in JUDGED_STATES or (
                state in OPEN_STATES - {AssetState.RUNNING} and one.verdict != AssetState.SOURCE_FAILED
            ):
                asset.row = replace(asset.row, reason=one.reason)
                if state != one.verdict:
                    self._move(asset, one.verdict)
        return new

    @synchronized
    def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
        asset = self._assets.get(seen.asset_id)
        if asset is not None and (
            asset.row.state in REMOVED_STATES | {AssetState.RUNNING} or self._is_end_leased(asset)
        ):
            return False
        if asset is not None and asset.row.state == settlement.state:
            copies = asset.row.copies if settlement.copies is None else dict(settlement.copies)
            asset.row = replace(asset.row, reason=settlement.reason, copies=copies)
            return False

        is_news = asset is not None and (asset.row.state not in OPEN_STATES or asset.row.attempts > 0)
        asset = asset or self._enter(seen, settlement.state, None)
        self._move(asset, settlement.state)
        self._note_known(asset, seen)
        asset.row = replace(with_result(asset.row, settlement), mismatches=0, fingerprint=None)
        if is_news or settlement.state == AssetState.DAMAGED:
            self._announce(asset.row)
        return True

    @synchronized
    def take_due(
        self,
        window: int,
        requeue_after: timedelta,
        ahead: timedelta = timedelta(0),
        *,
        at_most: int | None = None,
    ) -> list[Row]:
        clock = self._clock()

        def ready(asset: Asset) -> bool:
            match asset.row.state:
                case AssetState.DISCOVERED:
                    return True
                case AssetState.WAITING:
                    at = asset.row.next_attempt_at
                    soon = at is not None and at <= clock + max(ahead, timedelta(0))
                    return soon or not self._is_ahead(at, MAX_WAIT)
                case AssetState.RUNNING:
                    return not self._is_leased(asset)
                case _:
                    return False

        queued = [asset for asset in self._assets.values() if asset.row.state == AssetState.QUEUED]
        overdue = [
            asset
            for asset in queued
            if asset.timed_at and not clock - requeue_after <= asset.timed_at <= clock + CLOCK_STEP
        ]
        overdue.sort(key=lambda asset: urgency(asset.row))
        others = sorted(filter(ready, self._assets.values()), key=lambda asset: urgency(asset.row))
        taken = overdue[:window] + others[: max(0, window - len(queued))]
        taken = sorted(taken, key=lambda asset: urgency(asset.row))[: window if at_most is None else at_most]
        for asset in taken:
            self._move(asset, AssetState.QUEUED, at=clock)
        return sorted((asset.row for asset in taken), key=urgency)

    @synchronized
    def make_due(self, asset_ids: Sequence[str], *, unless_within: timedelta) -> list[str]:
        clock = self._clock()
        for asset_id in asset_ids:
            asset = self._assets.get(asset_id)
            if asset is None or asset.row.state != AssetState.WAITING:
                continue
            at = asset.row.next_attempt_at
            if at is not None and at > clock and asset.row.changed_at <= clock - unless_within:
                asset.row = replace(asset.row, next_attempt_at=clock)
        return [asset_id for asset_id in asset_ids if asset_id not in self._assets]

    @synchronized
    def reopen(self, asset_id: str, *, keep_stored: bool = False, un_erase: bool = False) -> Row | None:
        asset = self._assets.get(asset_id)
        if asset is None:
            return None

        if (
            not self._is_leased(asset)
            and not self._is_end_leased(asset)
            and (un_erase or asset.row.state not in REMOVED_STATES)
        ):
            self._reopen(asset, keep_stored=keep_stored)
        return asset.row

    @synchronized
    def remove(self, seen: Seen, settlement: Settlement) -> Row:
        asset = self._assets.get(seen.asset_id)
        known = asset is not None
        asset = asset or self._enter(seen, settlement.state, None)
        if asset.row.state == settlement.state:
            asset.row = replace(asset.row, reason=settlement.reason)
            return asset.row
        self._move(asset, settlement.state)
        asset.most = (0, 0)
        asset.row = replace(
            with_result(asset.row, settlement), attempts=0, mismatches=0, fingerprint=None, gone_since=None
        )
        if known:
            self._announce(asset.row)
        return asset.row

    @synchronized
    def acknowledge(self, asset_id: str, by: str, why: str) -> Row | None:
        asset = self._assets.get(asset_id)
        if asset is None:
            return None

        if asset.row.state in ACKNOWLEDGED_STATES:
            asset.row = replace(asset.row, acknowledged=Acknowledgement(by, why, self._clock()))
        return asset.row

    @synchronized
    def note_copies(self, row: Row, copies: Mapping[str, CopyState]) -> bool:
        asset = self._assets.get(row.asset_id)
        if asset is None or asset.row.state == AssetState.RUNNING or self._is_end_leased(asset):
            return False
        if (asset.row.changed_at, asset.row.copies) != (row.changed_at, row.copies):
            return False
        asset.row = replace(asset.row, copies=dict(copies))
        return True

    @synchronized
    def note_decision(self, asset_id: str, decision: Decision) -> Row | None:
        asset = self._assets.get(asset_id)
        if asset is None:
            return None

        if decision not in asset.row.history:
            asset.row = replace(asset.row, history=(*asset.row.history, decision)[-MAX_DECISIONS:])
        return asset.row

    @staticmethod
    def _is_new_size(asset: Asset, size: int | None) -> bool:
        before = asset.row.size_bytes
        if before is None or size is None or size == before:
            return False
        known = asset.sizes or (before,)
        if len(known) >= MAX_SIZES or size in known:
            return False
        asset.sizes = (*known, size)
        return True

"""Reads of the assets in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice

from archiver.ledger.memory.state import State, synchronized, urgency
from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    COUNTED_STATES,
    STORED_STATES,
    Amount,
    AssetState,
    CopyState,
    Counts,
    Progress,
    Row,
)


class MemoryAssets(State):
    """`ledger.base.Assets`."""

    @synchronized
    def get(self, asset_id: str) -> Row | None:
        asset = self._assets.get(asset_id)
        return asset.row if asset else None

    def rows(
        self,
        states: Iterable[AssetState] | None = None,
        *,
        expiring_before: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        chosen = list(AssetState if states is None else states)
        with self._mutex:
            found = [
                asset.row
                for asset in self._assets.values()
                if asset.row.state in chosen
                and (expiring_before is None or asset.row.expires_at < expiring_before)
            ]
        found.sort(key=urgency)
        ordered = (row for state in chosen for row in found if row.state == state)
        yield from islice(ordered, limit)

    @synchronized
    def warned(self, limit: int) -> list[Row]:
        found = [asset.row for asset in self._assets.values() if asset.row.warnings]
        archived = [row for row in found if row.state == AssetState.ARCHIVED]
        archived.sort(
            key=lambda row: (row.changed_at, row.asset_id.encode("utf-8", "surrogatepass")), reverse=True
        )
        return archived[: max(limit, 0)]

    @synchronized
    def counts(self) -> Counts:
        states = dict.fromkeys(AssetState, 0)
        acknowledged = dict.fromkeys(ACKNOWLEDGED_STATES, 0)
        copies: dict[str, dict[CopyState, int]] = {}
        for asset in self._assets.values():
            states[asset.row.state] += 1
            if asset.row.acknowledged is not None:
                acknowledged[asset.row.state] += 1
            for name, copy in asset.row.copies.items() if asset.row.state in COUNTED_STATES else ():
                here = copies.setdefault(name, {})
                here[copy] = here.get(copy, 0) + 1
        return Counts(self._seen, states, acknowledged, copies)

    def amounts(
        self, states: Iterable[AssetState] | None = None
    ) -> Mapping[AssetState, Mapping[datetime, Amount]]:
        found: dict[AssetState, dict[datetime, Amount]] = {
            state: {} for state in (AssetState if states is None else states)
        }
        for row in self.rows(found):
            hour = row.expires_at.replace(minute=0, second=0, microsecond=0)
            size = row.stored_bytes or row.size_bytes
            amount = Amount(1, size or 0, int(size is None))
            hours = found[row.state]
            hours[hour] = hours[hour] + amount if hour in hours else amount
        return found

    @synchronized
    def copy_bytes(self) -> Mapping[str, Mapping[CopyState, int]]:
        found: dict[str, dict[CopyState, int]] = {}
        for asset in self._assets.values():
            for name, copy in asset.row.copies.items() if asset.row.state in STORED_STATES else ():
                here = found.setdefault(name, {})
                here[copy] = here.get(copy, 0) + asset.row.stored_bytes
        return found

    @synchronized
    def next_due_at(self) -> datetime | None:
        waits = [asset.row.next_attempt_at for asset in self._assets.values()]
        return min((at for at in waits if at is not None), default=None)

    @synchronized
    def queued_since(self) -> datetime | None:
        queued = (asset for asset in self._assets.values() if asset.row.state == AssetState.QUEUED)
        return min((asset.timed_at for asset in queued if asset.timed_at is not None), default=None)

    @synchronized
    def latest_deadline(self) -> datetime | None:
        return max((asset.row.expires_at for asset in self._assets.values()), default=None)

    @synchronized
    def progress(self) -> list[Progress]:
        return [progress for ends, progress in self._progress.values() if ends > self._clock()]

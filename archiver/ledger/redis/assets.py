"""Reads of the assets in Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice, takewhile

from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    STORED_STATES,
    Amount,
    AssetState,
    CopyState,
    Counts,
    Progress,
    Row,
)
from archiver.ledger.redis.calls import BATCH
from archiver.ledger.redis.copy_records import read_progress
from archiver.ledger.redis.row_reader import RowReader
from archiver.ledger.redis.rows import read_copies, row_from_hash
from archiver.ledger.redis.values import EPOCH, from_microseconds, microseconds


class RedisAssets(RowReader):
    """`ledger.base.Assets`."""

    def get(self, asset_id: str) -> Row | None:
        fields = self._hash("get", "asset:" + asset_id)
        return row_from_hash(asset_id, fields, self._destination) if fields else None

    def rows(
        self,
        states: Iterable[AssetState] | None = None,
        *,
        expiring_before: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        for state in AssetState if states is None else states:
            found = takewhile(
                lambda row: expiring_before is None or row.expires_at < expiring_before,
                self._rows_of(state, BATCH if limit is None else min(BATCH, limit)),
            )
            for row in islice(found, limit):
                yield row
                limit = None if limit is None else limit - 1

    def warned(self, limit: int) -> list[Row]:
        return [self._row(flat) for flat in self._run("warned", limit)]

    def counts(self) -> Counts:
        (seen, *sizes), acknowledged, copies, names = self._run("counts", *AssetState)
        self._destinations.update(zip(names[::2], names[1::2], strict=True))
        by_destination: dict[str, dict[CopyState, int]] = {}
        for letters, number in zip(copies[::2], copies[1::2], strict=True):
            for digest, state in read_copies(letters) if int(number) > 0 else ():
                by_destination.setdefault(self._destination(digest), {})[state] = int(number)
        return Counts(
            int(seen),
            dict(zip(AssetState, sizes, strict=True)),
            {state: acknowledged.count(state) for state in ACKNOWLEDGED_STATES},
            by_destination,
        )

    def amounts(
        self, states: Iterable[AssetState] | None = None
    ) -> Mapping[AssetState, Mapping[datetime, Amount]]:
        return {state: self._amounts_of(state) for state in (AssetState if states is None else states)}

    def _amounts_of(self, state: AssetState) -> Mapping[datetime, Amount]:
        hours: dict[datetime, Amount] = {}
        first, read = 0, BATCH
        while read == BATCH:
            read, *flat = map(int, self._run("amounts", state, first, BATCH))
            first += read
            for hour, *numbers in zip(*[iter(flat)] * 4, strict=True):
                at, amount = EPOCH + hour * timedelta(hours=1), Amount(*numbers)
                hours[at] = hours[at] + amount if at in hours else amount
        return hours

    def copy_bytes(self) -> Mapping[str, Mapping[CopyState, int]]:
        total: Counter[str] = Counter()
        for state in STORED_STATES:
            first, read = 0, BATCH
            while read == BATCH:
                read, *flat = self._run("copy_bytes", state, first, BATCH)
                read = int(read)
                first += read
                for letters, size_bytes in zip(flat[::2], flat[1::2], strict=True):
                    total[letters] += int(size_bytes)
        by_destination: dict[str, dict[CopyState, int]] = {}
        for letters, size_bytes in total.items():
            for digest, copy in read_copies(letters):
                by_destination.setdefault(self._destination(digest), {})[copy] = size_bytes
        return by_destination

    def next_due_at(self) -> datetime | None:
        earliest = self._run("next_due_at")
        return from_microseconds(earliest) if earliest else None

    def queued_since(self) -> datetime | None:
        earliest = self._run("queued_since")
        return from_microseconds(earliest) if earliest else None

    def latest_deadline(self) -> datetime | None:
        latest = self._run("latest_deadline", *AssetState)
        return from_microseconds(latest) if latest else None

    def progress(self) -> list[Progress]:
        read = (read_progress(fact) for fact in self._recall("progress").values())
        return [one for one in read if one is not None]

    def _rows_of(self, state: AssetState, batch: int) -> Iterator[Row]:
        after, expires = "", 0
        while page := self._run("page", state, batch, after, expires) if batch else []:
            rows = [self._row(flat) for flat in page]
            yield from rows
            after, expires = rows[-1].asset_id, microseconds(rows[-1].expires_at)

"""All assets of the workspace: in listing order, by id, and by the key of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from math import gcd
from typing import Protocol

from archiver.simulator.clock import Clock
from archiver.simulator.config import Order
from archiver.simulator.recordings.assets import Asset
from archiver.simulator.recordings.content import Content


class Series(Protocol):
    """Many assets, made on demand. The newest is number 0."""

    def __len__(self) -> int: ...

    def at(self, number: int) -> Asset: ...

    def number_of(self, asset_id: str) -> int | None: ...

    def number_of_key(self, key: str) -> int | None: ...


@dataclass(frozen=True)
class Filters:
    room_id: str | None = None
    session_id: str | None = None
    status: str | None = None
    type: str | None = None

    def allow(self, asset: Asset) -> bool:
        row = asset.row
        return (
            (self.room_id is None or row["room_id"] == self.room_id)
            and (self.session_id is None or row["session_id"] == self.session_id)
            and (self.status is None or row["status"] == self.status)
            and (self.type is None or row["type"] == self.type)
        )


@dataclass(frozen=True)
class Found:
    """A file of an asset. `name`: key of the asset's `objects`; `key`: the full key in the bucket."""

    asset: Asset
    name: str
    key: str
    content: Content


class UnknownStart(Exception):
    """`start` names no asset."""


class Catalogue:
    def __init__(
        self, clock: Clock, retention: timedelta, order: Order, *, lists_expired: bool, series: Series | None
    ) -> None:
        self._clock = clock
        self._retention = retention
        self._order = order
        self._lists_expired = lists_expired
        self._series = series
        self._assets: dict[str, Asset] = {}
        self._ordered: list[Asset] = []
        self._positions: dict[str, int] = {}
        self._folders: dict[tuple[str, str], list[Asset]] = {}
        self._latest_seconds = 0.0

    def add(self, asset: Asset) -> None:
        """Raises ValueError when its id is taken."""
        if self.by_id(asset.id) is not None:
            raise ValueError(f"asset {asset.id} exists already")
        self._assets[asset.id] = asset
        self._folders.setdefault((asset.bucket, asset.folder), []).append(asset)
        self._ordered = sorted(self._assets.values(), key=self._sort_key)
        self._positions = {asset.id: position for position, asset in enumerate(self._ordered)}

    def __len__(self) -> int:
        return len(self._assets) + self._series_length

    def __iter__(self) -> Iterator[Asset]:
        """Iterate in listing order, including assets with deleted files."""
        for position in range(len(self)):
            yield self._at(position)

    def by_id(self, asset_id: str) -> Asset | None:
        if asset_id in self._assets:
            return self._assets[asset_id]
        number = self._series.number_of(asset_id) if self._series else None
        return self._series.at(number) if self._series and number is not None else None

    def page(self, filters: Filters, start: str | None, limit: int) -> tuple[list[Asset], bool]:
        """Return up to `limit` assets after the one with id `start`, and whether more follow. Raises UnknownStart."""
        position = 0 if not start else self._position(start) + 1
        rows: list[Asset] = []
        while position < len(self):
            asset = self._at(position)
            position += 1
            if filters.allow(asset) and (self._lists_expired or not self.expired(asset)):
                if len(rows) == limit:
                    return rows, True
                rows.append(asset)
        return rows, False

    def expires_seconds(self, asset: Asset) -> float | None:
        """Return when its files are deleted, since 1970; None for a bucket without retention."""
        if not asset.has_retention:
            return None
        return asset.identity.created_seconds + self._retention.total_seconds()

    def delete_expired(self) -> None:
        """Delete expired files for good, even if the clock is set back later."""
        self._latest_seconds = max(self._latest_seconds, self._clock.storage_seconds())

    def expired(self, asset: Asset) -> bool:
        """Tell whether its files were deleted."""
        self.delete_expired()
        expires = self.expires_seconds(asset)
        return expires is not None and expires <= self._latest_seconds

    def find(self, bucket: str, key: str) -> Found | None:
        """Return the file; None if it does not exist, or no longer."""
        number = self._series.number_of_key(key) if self._series else None
        candidates = (
            [self._series.at(number)] if self._series and number is not None else self._near(bucket, key)
        )
        for asset in candidates:
            name = key.removeprefix(f"{asset.folder}/")
            content = asset.objects.get(name)
            if content is not None and asset.bucket == bucket:
                return None if self.expired(asset) else Found(asset, name, key, content)
        return None

    @property
    def _series_length(self) -> int:
        return len(self._series) if self._series else 0

    def _near(self, bucket: str, key: str) -> list[Asset]:
        folder, near = key, list[Asset]()
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            near += self._folders.get((bucket, folder), [])
        return near

    def _sort_key(self, asset: Asset) -> tuple[float | str, str]:
        if self._order is Order.SHUFFLED:
            return hashlib.sha256(asset.id.encode()).hexdigest(), asset.id
        sign = -1 if self._order is Order.NEWEST_FIRST else 1
        return sign * asset.identity.created_seconds, asset.id

    # Assets of the series are older than all others; added assets do not change a shuffled order.

    def _at(self, position: int) -> Asset:
        if self._order is Order.OLDEST_FIRST:
            position -= self._series_length
            return self._ordered[position] if position >= 0 else self._of_series(-position - 1)
        if position < len(self._ordered):
            return self._ordered[position]
        number = position - len(self._ordered)
        return self._of_series(self._shuffle(number) if self._order is Order.SHUFFLED else number)

    def _position(self, asset_id: str) -> int:
        own = self._positions.get(asset_id)
        if own is not None:
            return own + (self._series_length if self._order is Order.OLDEST_FIRST else 0)
        number = self._series.number_of(asset_id) if self._series else None
        if number is None:
            raise UnknownStart
        if self._order is Order.OLDEST_FIRST:
            return self._series_length - 1 - number
        return len(self._ordered) + (self._unshuffle(number) if self._order is Order.SHUFFLED else number)

    def _of_series(self, number: int) -> Asset:
        if self._series is None:
            raise IndexError(number)
        return self._series.at(number)

    def _shuffle(self, number: int) -> int:
        return number * self._step % self._series_length

    def _unshuffle(self, number: int) -> int:
        return number * pow(self._step, -1, self._series_length) % self._series_length

    @property
    def _step(self) -> int:
        # Near the golden ratio and coprime to the length: visits each number once, far apart.
        length = self._series_length
        return next(
            step for step in range(int(length * 0.618) or 1, 2 * length + 2) if gcd(step, length) == 1
        )

"""What the ledger in memory holds, and the steps that its parts share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import (
    CLOCK_STEP,
    EVENT_STATES,
    MAX_EVENTS,
    MAX_LEASE,
    OPEN_STATES,
    UNKNOWN_TYPE,
    UNSTORED_STATES,
    AssetState,
    Event,
    Lease,
    OpenUpload,
    Progress,
    Row,
    Seen,
    Settlement,
    StoredObject,
)

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="State")


@dataclass(slots=True)
class Asset:
    row: Row
    fence: int | None = None  # None: never leased
    holder: str | None = None  # None: never leased, or settled
    most: tuple[int, int] = (0, 0)  # objects and parts stored at a crash since it was last settled
    timed_at: datetime | None = None  # queued: since when; running: the lease's end
    sizes: tuple[int, ...] = ()  # that the API gave since it was archived


def synchronized(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method alone, like a script in Redis."""

    @wraps(method)
    def locked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._mutex:
            return method(self, *args, **kwargs)

    return locked


class State:
    """Everything the ledger holds. Its methods are called with `_mutex` held."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """`clock` returns aware UTC."""
        self._clock = clock
        self._mutex = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget everything, as a flushed Redis does."""
        self._seen = 0
        self._assets: dict[str, Asset] = {}
        self._stored: dict[tuple[str, str], tuple[datetime, str, dict[str, StoredObject]]] = {}
        self._uploads: dict[tuple[str, str, str], tuple[datetime, OpenUpload]] = {}
        self._progress: dict[str, tuple[datetime, Progress]] = {}
        self._locks: dict[str, tuple[datetime, str]] = {}
        self._facts: dict[str, tuple[datetime | None, str]] = {}
        self._outbox: list[Event] = []
        self._events_until: datetime | None = None
        self._events_kept = self._events_dropped = 0
        self._totals: Counter[str] = Counter()
        self._secrets: dict[str, tuple[datetime, str]] = {}
        self._rates: dict[str, datetime] = {}  # by name: when what is reserved is earned

    def _amount_stored(self, asset_id: str) -> tuple[int, int]:
        now = self._clock()
        objects = (kept for (of, _), (ends, _, kept) in self._stored.items() if of == asset_id and ends > now)
        uploads = (kept for (of, *_), (ends, kept) in self._uploads.items() if of == asset_id and ends > now)
        return sum(map(len, objects)), sum(len(upload.parts) for upload in uploads)

    def _keep_event(self, row: Row) -> bool:
        if len(self._outbox) >= MAX_EVENTS:
            self._events_dropped += 1
            return False
        self._events_kept += 1
        self._outbox.append(Event(self._events_kept, row))
        return True

    def _announce(self, row: Row) -> None:
        wanted = self._events_until is not None and self._events_until > self._clock()
        if wanted and row.state in EVENT_STATES:
            self._keep_event(row)

    def _enter(self, seen: Seen, state: AssetState, reason: str | None) -> Asset:
        now = self._clock()
        row = Row(
            asset_id=seen.asset_id,
            type=seen.type,
            state=state,
            expires_at=seen.expires_at,
            first_seen_at=now,
            changed_at=now,
            created_at=seen.created_at,
            room_id=seen.room_id,
            session_id=seen.session_id,
            size_bytes=seen.size_bytes,
            reason=reason,
        )
        self._seen += 1
        asset = self._assets[seen.asset_id] = Asset(row)
        self._move(asset, state)
        return asset

    @staticmethod
    def _note_known(asset: Asset, seen: Seen) -> None:
        """The manifest's key holds the date the copy used, not the first one seen. A row that was made of a tombstone
        knows neither type, room nor session."""
        asset.row = replace(asset.row, created_at=seen.created_at or asset.row.created_at)
        if asset.row.type == UNKNOWN_TYPE != seen.type:
            asset.row = replace(asset.row, type=seen.type, room_id=seen.room_id, session_id=seen.session_id)

    def _move(self, asset: Asset, state: AssetState, at: datetime | None = None) -> None:
        waits_until = at if state == AssetState.WAITING else None
        asset.row = replace(
            asset.row,
            state=state,
            changed_at=self._clock(),
            next_attempt_at=waits_until,
            acknowledged=None,
            copies={} if state in UNSTORED_STATES else asset.row.copies,
            leased_until=None,
        )
        asset.timed_at = at
        if state not in OPEN_STATES:
            asset.holder = None
            self._forget_work(asset.row.asset_id)

    def _forget_work(self, asset_id: str) -> None:
        self._stored = {key: kept for key, kept in self._stored.items() if key[0] != asset_id}
        self._uploads = {key: kept for key, kept in self._uploads.items() if key[0] != asset_id}
        self._progress.pop(asset_id, None)

    def _reopen(self, asset: Asset, *, keep_stored: bool = False) -> None:
        before = asset.row
        asset.holder = None
        asset.most = (0, 0)
        asset.row = replace(
            asset.row,
            attempts=0,
            mismatches=0,
            fingerprint=None,
            crashes=0,
            gone_since=before.gone_since if keep_stored else None,
            reason=None,
            stored_bytes=before.stored_bytes if keep_stored else 0,
            stored_objects=before.stored_objects if keep_stored else 0,
            seconds=0.0,
            warnings=(),
        )
        if asset.row.state != AssetState.DISCOVERED:
            self._move(asset, AssetState.DISCOVERED)

    def _is_end_leased(self, asset: Asset) -> bool:
        until = asset.row.leased_until
        return asset.holder is not None and self._is_ahead(until, MAX_LEASE)

    def _is_leased(self, asset: Asset) -> bool:
        running = asset.row.state == AssetState.RUNNING
        return running and self._is_ahead(asset.timed_at, MAX_LEASE)

    def _is_ahead(self, time: datetime | None, longest: timedelta) -> bool:
        """Whether a time that lies at most `longest` ahead, if the clock was not set back since, is still to come."""
        return time is not None and timedelta(0) < time - self._clock() <= longest + CLOCK_STEP

    def _check(self, lease: Lease) -> None:
        """Raise LeaseLost unless the lease may still write. An asset that is unknown, or open and never leased, means
        that the ledger was cleared since: nobody else got a lease, so this one stays valid."""
        asset = self._assets.get(lease.asset_id)
        if asset is None or (asset.fence is None and asset.row.state in OPEN_STATES):
            return
        if asset.fence != lease.fence or asset.holder is None:
            raise LeaseLost.of(lease)

    @staticmethod
    def _adopt(asset: Asset, lease: Lease) -> None:
        asset.fence, asset.holder = lease.fence, lease.holder
        asset.row = replace(asset.row, attempts=asset.row.attempts + 1)


def urgency(row: Row) -> tuple[datetime, bytes]:
    return row.expires_at, row.asset_id.encode()


def with_result(row: Row, settlement: Settlement) -> Row:
    return replace(
        row,
        crashes=0,
        reason=settlement.reason,
        stored_bytes=settlement.stored_bytes,
        stored_objects=settlement.stored_objects,
        seconds=settlement.seconds,
        warnings=settlement.warnings,
        copies=row.copies if settlement.copies is None else dict(settlement.copies),
    )

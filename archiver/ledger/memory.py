"""The ledger in this process's memory, for tests and single runs: the plainest form of what `ledger.base` promises."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    DEADLINE_DIVISOR,
    JUDGED_STATES,
    MAX_SIZES,
    MAX_WAIT,
    OPEN_STATES,
    Acknowledgement,
    AssetState,
    AttemptStart,
    Counts,
    Lease,
    OpenUpload,
    Progress,
    Row,
    Seen,
    Settlement,
    StoredObject,
)

WORK_LIFETIME = timedelta(days=30)
PROGRESS_LIFETIME = timedelta(minutes=2)
NEW_VERDICT = AssetState.DISCOVERED

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Asset:
    row: Row
    fence: int | None = None  # None: never leased
    holder: str | None = None  # None: never leased, or settled
    most: tuple[int, int] = (0, 0)  # objects and parts that were stored at a crash, since it was last settled
    timed_at: datetime | None = None  # queued: since when; running: the lease's end
    sizes: tuple[int, ...] = ()  # that the API told of it once it was archived


def _alone(method: Callable[Concatenate[MemoryLedger, P], T]) -> Callable[Concatenate[MemoryLedger, P], T]:
    @wraps(method)
    def locked(self: MemoryLedger, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._mutex:
            return method(self, *args, **kwargs)

    return locked


class MemoryLedger:
    """A `Ledger` for the threads of one process. `clock` gives aware UTC."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._mutex = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget everything, as a flushed Redis does."""
        self._seen = 0
        self._assets: dict[str, _Asset] = {}
        self._stored: dict[tuple[str, str], tuple[datetime, str, dict[str, StoredObject]]] = {}
        self._uploads: dict[tuple[str, str, str], tuple[datetime, OpenUpload]] = {}
        self._progress: dict[str, tuple[datetime, Progress]] = {}
        self._locks: dict[str, tuple[datetime, str]] = {}
        self._facts: dict[str, tuple[datetime | None, str]] = {}
        self._secrets: dict[str, tuple[datetime, str]] = {}

    def now(self) -> datetime:
        return self._clock()

    # -- what exists ---------------------------------------------------------------------------------------

    @_alone
    def discover(self, seen: Sequence[Seen]) -> int:
        new = 0
        for one in seen:
            asset = self._assets.get(one.asset_id)
            if asset is None:
                self._enter(one, one.verdict, one.reason)
                new += 1
                continue

            size = asset.row.size_bytes if one.size_bytes is None else one.size_bytes
            resized = asset.row.state == AssetState.ARCHIVED and self._is_new_size(asset, size)
            asset.row = replace(asset.row, expires_at=one.expires_at, size_bytes=size)
            state = asset.row.state
            if one.verdict == NEW_VERDICT:
                if state in JUDGED_STATES or resized:
                    self._reopen(asset, keep_stored=resized)
            elif state in JUDGED_STATES or (
                state in OPEN_STATES - {AssetState.RUNNING} and one.verdict != AssetState.SOURCE_FAILED
            ):
                asset.row = replace(asset.row, reason=one.reason)
                if state != one.verdict:
                    self._move(asset, one.verdict)
        return new

    @_alone
    def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
        asset = self._assets.get(seen.asset_id)
        if asset is not None and asset.row.state == AssetState.RUNNING:
            return False
        if asset is not None and asset.row.state == settlement.state:
            asset.row = replace(asset.row, reason=settlement.reason)
            return False

        asset = asset or self._enter(seen, settlement.state, None)
        self._move(asset, settlement.state)
        created_at = seen.created_at or asset.row.created_at
        asset.row = replace(
            _with_result(asset.row, settlement), mismatches=0, fingerprint=None, created_at=created_at
        )
        return True

    @_alone
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
        with self._mutex:
            all_rows = sorted((asset.row for asset in self._assets.values()), key=_urgency)

        found = (
            row
            for state in (AssetState if states is None else states)
            for row in all_rows
            if row.state == state and (expiring_before is None or row.expires_at < expiring_before)
        )
        for _, row in zip(range(len(all_rows) if limit is None else limit), found, strict=False):
            yield row

    @_alone
    def warned(self, limit: int) -> list[Row]:
        found = [asset.row for asset in self._assets.values() if asset.row.warnings]
        archived = [row for row in found if row.state == AssetState.ARCHIVED]
        archived.sort(
            key=lambda row: (row.changed_at, row.asset_id.encode("utf-8", "surrogatepass")), reverse=True
        )
        return archived[: max(limit, 0)]

    @_alone
    def counts(self) -> Counts:
        states = dict.fromkeys(AssetState, 0)
        acknowledged = dict.fromkeys(ACKNOWLEDGED_STATES, 0)
        for asset in self._assets.values():
            states[asset.row.state] += 1
            if asset.row.acknowledged is not None:
                acknowledged[asset.row.state] += 1
        return Counts(self._seen, states, acknowledged)

    # -- what is due ---------------------------------------------------------------------------------------

    @_alone
    def take_due(
        self,
        window: int,
        requeue_after: timedelta,
        ahead: timedelta = timedelta(0),
        *,
        at_most: int | None = None,
    ) -> list[Row]:
        clock = self._clock()

        def ready(asset: _Asset) -> bool:
            match asset.row.state:
                case AssetState.DISCOVERED:
                    return True
                case AssetState.WAITING:
                    at = asset.row.next_attempt_at
                    return at is not None and at <= clock + max(ahead, timedelta(0))
                case AssetState.RUNNING:
                    return not self._living(asset)
                case _:
                    return False

        queued = [asset for asset in self._assets.values() if asset.row.state == AssetState.QUEUED]
        overdue = [asset for asset in queued if asset.timed_at and asset.timed_at < clock - requeue_after]
        overdue.sort(key=lambda asset: _urgency(asset.row))
        others = sorted(filter(ready, self._assets.values()), key=lambda asset: _urgency(asset.row))
        taken = overdue[:window] + others[: max(0, window - len(queued))]
        taken = sorted(taken, key=lambda asset: _urgency(asset.row))[: window if at_most is None else at_most]
        for asset in taken:
            self._move(asset, AssetState.QUEUED, at=clock)
        return sorted((asset.row for asset in taken), key=_urgency)

    @_alone
    def reopen(self, asset_id: str, *, keep_stored: bool = False) -> Row | None:
        asset = self._assets.get(asset_id)
        if asset is None:
            return None

        if not self._living(asset):
            self._reopen(asset, keep_stored=keep_stored)
        return asset.row

    @_alone
    def acknowledge(self, asset_id: str, by: str, why: str) -> Row | None:
        asset = self._assets.get(asset_id)
        if asset is None:
            return None

        if asset.row.state in ACKNOWLEDGED_STATES:
            asset.row = replace(asset.row, acknowledged=Acknowledgement(by, why, self._clock()))
        return asset.row

    @_alone
    def next_due_at(self) -> datetime | None:
        waits = [asset.row.next_attempt_at for asset in self._assets.values()]
        return min((at for at in waits if at is not None), default=None)

    # -- one worker at a time ------------------------------------------------------------------------------

    @_alone
    def lease(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        asset = self._assets.get(asset_id)
        if asset is None or asset.row.state not in OPEN_STATES or self._living(asset):
            return None
        if asset.row.next_attempt_at is not None and asset.row.next_attempt_at > self._clock():
            return None

        asset.fence = (
            asset.fence or secrets.randbits(40)
        ) + 1  # a ledger that was cleared gives no old fence again
        if asset.holder is not None:
            stored = self._stored_of(asset_id)
            crashes = 0 if stored > asset.most else asset.row.crashes + 1
            asset.row = replace(asset.row, crashes=crashes)
            asset.most = max(asset.most, stored)
        asset.holder = holder
        asset.row = replace(asset.row, attempts=asset.row.attempts + 1)
        self._move(asset, AssetState.RUNNING, at=self._clock() + duration)
        return Lease(asset_id, asset.fence, holder)

    def begin(self, asset_id: str, holder: str, duration: timedelta, facts: str) -> AttemptStart:
        with self._mutex:
            lease = self.lease(asset_id, holder, duration)
            has_work = any(self._stored_of(asset_id))
            return AttemptStart(lease, self.get(asset_id), has_work, self.recall_all(facts))

    @_alone
    def renew(self, lease: Lease, duration: timedelta) -> None:
        self._check(lease)
        asset = self._assets.get(lease.asset_id)
        if asset is None:
            return

        if asset.fence is None:
            self._adopt(asset, lease)
        ends = self._clock() + duration
        if asset.row.state == AssetState.RUNNING:
            asset.timed_at = ends
        else:
            self._move(asset, AssetState.RUNNING, at=ends)

    @_alone
    def outrank(self, lease: Lease, fence: int) -> Lease:
        self._check(lease)
        asset = self._assets.get(lease.asset_id)
        if asset is not None and asset.fence is None:
            self._adopt(asset, lease)
        higher = replace(lease, fence=max(lease.fence, fence + 1))
        if asset is not None:
            asset.fence = higher.fence
        return higher

    @_alone
    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        self._check(lease)
        asset = self._assets.get(lease.asset_id) or self._enter(seen, NEW_VERDICT, None)
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
            gone_since = gone_since or now
        elif settlement.counts_as_attempt:
            gone_since = None
        asset.row = replace(
            _with_result(asset.row, settlement),
            gone_since=gone_since,
            attempts=attempts,
            mismatches=mismatches,
            fingerprint=settlement.fingerprint if settlement.mismatch else None,
            created_at=seen.created_at or asset.row.created_at,
        )
        if settlement.state == AssetState.ARCHIVED and seen.size_bytes is not None:
            asset.row = replace(asset.row, size_bytes=seen.size_bytes)
        wait = min(max(settlement.delay or timedelta(0), timedelta(0)), MAX_WAIT)
        left = asset.row.expires_at - now
        if left > timedelta(0):
            wait = min(wait, left // DEADLINE_DIVISOR)
        self._move(asset, settlement.state, at=now + wait)
        self._progress.pop(lease.asset_id, None)
        return asset.row

    # -- what an unfinished copy has done ------------------------------------------------------------------

    @_alone
    def stored_objects(self, asset_id: str, destination: str, version: str) -> Mapping[str, StoredObject]:
        ends, of, objects = self._stored.get((asset_id, destination), (self._clock(), version, {}))
        return dict(objects) if of == version and ends > self._clock() else {}

    @_alone
    def add_stored(
        self, lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]
    ) -> None:
        self._check(lease)
        kept = dict(self.stored_objects(lease.asset_id, destination, version))
        kept.update({one.path: one for one in objects})
        self._stored[lease.asset_id, destination] = (self._clock() + WORK_LIFETIME, version, kept)

    @_alone
    def load_upload(self, asset_id: str, destination: str, key: str) -> OpenUpload | None:
        ends, upload = self._uploads.get((asset_id, destination, key), (None, None))
        return upload if ends and ends > self._clock() else None

    @_alone
    def save_upload(self, lease: Lease, destination: str, key: str, upload: OpenUpload) -> None:
        self._check(lease)
        kept = replace(upload, parts=dict(upload.parts))
        self._uploads[lease.asset_id, destination, key] = (self._clock() + WORK_LIFETIME, kept)

    @_alone
    def add_part(
        self, lease: Lease, destination: str, key: str, number: int, part: tuple[int, int, str]
    ) -> None:
        self._check(lease)
        upload = self.load_upload(lease.asset_id, destination, key)
        if upload:
            self.save_upload(lease, destination, key, replace(upload, parts={**upload.parts, number: part}))

    @_alone
    def forget_upload(self, asset_id: str, destination: str, key: str) -> None:
        self._uploads.pop((asset_id, destination, key), None)

    @_alone
    def report(self, progress: Progress) -> None:
        self._progress[progress.asset_id] = (self._clock() + PROGRESS_LIFETIME, progress)

    @_alone
    def progress(self) -> list[Progress]:
        return [progress for ends, progress in self._progress.values() if ends > self._clock()]

    # -- what the whole tool remembers ---------------------------------------------------------------------

    @_alone
    def lock(self, name: str, duration: timedelta) -> str | None:
        ends, _ = self._locks.get(name, (None, ""))
        if ends and ends > self._clock():
            return None

        token = secrets.token_hex(8)
        self._locks[name] = (self._clock() + duration, token)
        return token

    @_alone
    def extend_lock(self, name: str, token: str, duration: timedelta) -> bool:
        ends, held = self._locks.get(name, (None, ""))
        if held != token or not ends or ends <= self._clock():
            return False

        self._locks[name] = (self._clock() + duration, token)
        return True

    @_alone
    def unlock(self, name: str, token: str) -> None:
        if self._locks.get(name, (None, ""))[1] == token:
            del self._locks[name]

    @_alone
    def remember(self, name: str, fact: Mapping[str, object], lifetime: timedelta | None = None) -> None:
        ends = None if lifetime is None else self._clock() + lifetime
        self._facts[name] = (ends, json.dumps(dict(fact)))

    def recall(self, name: str) -> Mapping[str, object] | None:
        return self.recall_all(name).get(name)

    @_alone
    def recall_all(self, prefix: str) -> Mapping[str, Mapping[str, object]]:
        return {
            name: json.loads(fact)
            for name, (ends, fact) in self._facts.items()
            if name.startswith(prefix) and (ends is None or ends > self._clock())
        }

    @_alone
    def forget(self, name: str) -> None:
        self._facts.pop(name, None)

    @_alone
    def remember_secret(self, name: str, value: str, lifetime: timedelta) -> None:
        self._secrets[name] = (self._clock() + lifetime, value)

    @_alone
    def recall_secret(self, name: str) -> str | None:
        ends, value = self._secrets.get(name, (None, None))
        return value if ends and ends > self._clock() else None

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing to close; what it holds goes with the object."""

    # -- shared steps --------------------------------------------------------------------------------------

    def _stored_of(self, asset_id: str) -> tuple[int, int]:
        now = self._clock()
        objects = (kept for (of, _), (ends, _, kept) in self._stored.items() if of == asset_id and ends > now)
        uploads = (kept for (of, *_), (ends, kept) in self._uploads.items() if of == asset_id and ends > now)
        return sum(map(len, objects)), sum(len(upload.parts) for upload in uploads)

    def _enter(self, seen: Seen, state: AssetState, reason: str | None) -> _Asset:
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
        asset = self._assets[seen.asset_id] = _Asset(row)
        self._move(asset, state)
        return asset

    def _move(self, asset: _Asset, state: AssetState, at: datetime | None = None) -> None:
        waits_until = at if state == AssetState.WAITING else None
        asset.row = replace(
            asset.row,
            state=state,
            changed_at=self._clock(),
            next_attempt_at=waits_until,
            acknowledged=None,
        )
        asset.timed_at = at
        if state not in OPEN_STATES:
            asset_id = asset.row.asset_id
            asset.holder = None
            self._stored = {key: kept for key, kept in self._stored.items() if key[0] != asset_id}
            self._uploads = {key: kept for key, kept in self._uploads.items() if key[0] != asset_id}
            self._progress.pop(asset_id, None)

    @staticmethod
    def _is_new_size(asset: _Asset, size: int | None) -> bool:
        before = asset.row.size_bytes
        if before is None or size is None or size == before:
            return False
        known = asset.sizes or (before,)
        if len(known) >= MAX_SIZES or size in known:
            return False
        asset.sizes = (*known, size)
        return True

    def _reopen(self, asset: _Asset, *, keep_stored: bool = False) -> None:
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
        if asset.row.state != NEW_VERDICT:
            self._move(asset, NEW_VERDICT)

    def _living(self, asset: _Asset) -> bool:
        running = asset.row.state == AssetState.RUNNING
        return running and asset.timed_at is not None and asset.timed_at > self._clock()

    def _check(self, lease: Lease) -> None:
        """Raise LeaseLost unless the lease may still write. An asset that is unknown, or open and never leased,
        means that the ledger was cleared since: nobody else was let in, so the holder goes on."""
        asset = self._assets.get(lease.asset_id)
        if asset is None or (asset.fence is None and asset.row.state in OPEN_STATES):
            return
        if asset.fence != lease.fence or asset.holder is None:
            raise LeaseLost(f"asset {lease.asset_id}: lease {lease.fence} of {lease.holder} has ended")

    @staticmethod
    def _adopt(asset: _Asset, lease: Lease) -> None:
        asset.fence, asset.holder = lease.fence, lease.holder
        asset.row = replace(asset.row, attempts=asset.row.attempts + 1)


def _urgency(row: Row) -> tuple[datetime, bytes]:
    return row.expires_at, row.asset_id.encode()


def _with_result(row: Row, settlement: Settlement) -> Row:
    return replace(
        row,
        crashes=0,
        reason=settlement.reason,
        stored_bytes=settlement.stored_bytes,
        stored_objects=settlement.stored_objects,
        seconds=settlement.seconds,
        warnings=settlement.warnings,
    )

"""What a ledger must do, in eight Protocols; `Ledger` is their sum. It can be lost: the API and the buckets rebuild it
(docs/architecture.md).

To add an implementation, write a class with the methods of `Ledger` and run `tests/contracts/ledger_contract.py` on it
as `tests/ledger/test_contract.py` does. Every failure is a `ledger.errors.LedgerError`. Leases and waits are timed by
the ledger's own clock, so workers' clocks do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from archiver.ledger.models import (
    Amount,
    AssetState,
    AttemptStart,
    CopyState,
    Counts,
    Decision,
    Event,
    Lease,
    OpenUpload,
    OutboxSize,
    Progress,
    Row,
    Seen,
    Settlement,
    StoredObject,
)


class Assets(Protocol):
    """Read what the ledger knows of the assets."""

    def get(self, asset_id: str) -> Row | None: ...

    def rows(
        self,
        states: Iterable[AssetState] | None = None,
        *,
        expiring_before: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Yield rows by state (None: all), by `expires_at` within each state, fetched in batches."""
        ...

    def warned(self, limit: int) -> list[Row]:
        """Return assets archived with a warning, latest first."""
        ...

    def counts(self) -> Counts:
        """Count the assets by state, atomically."""
        ...

    def amounts(
        self, states: Iterable[AssetState] | None = None
    ) -> Mapping[AssetState, Mapping[datetime, Amount]]:
        """Sum up assets and bytes by state (None: all) and by the hour of their deadline, in steps of some
        10 ms on the server: 12 to 20 s for a million assets on a busy machine. One that changes meanwhile may be missed
        or counted twice."""
        ...

    def copy_bytes(self) -> Mapping[str, Mapping[CopyState, int]]:
        """Sum up what is stored of the assets in STORED_STATES, by destination and what it holds (`Row.copies`), in
        steps as `amounts` does."""
        ...

    def next_due_at(self) -> datetime | None:
        """Return when the earliest waiting asset is due; None when none waits."""
        ...

    def queued_since(self) -> datetime | None:
        """Return when the asset that has been queued for longest was queued; None when none is."""
        ...

    def latest_deadline(self) -> datetime | None:
        """Return the latest `expires_at` of any asset; None when none is known."""
        ...

    def progress(self) -> list[Progress]:
        """Return what running copies reported within PROGRESS_LIFETIME."""
        ...


class Schedule(Assets, Protocol):
    """Enter assets, choose what is due, and move assets that no worker holds."""

    def discover(self, seen: Sequence[Seen]) -> int:
        """Record what a sweep saw, in one round trip; return how many were new. Idempotent.

        An unknown asset gets its verdict as state. A known one is judged again: a DISCOVERED verdict reopens one in
        JUDGED_STATES. Any other verdict moves one that is discovered, queued, waiting or in JUDGED_STATES to it, except
        that SOURCE_FAILED moves only the latter: what could once be fetched is still retried. A running, archived or
        otherwise ended asset stays. Changed facts (`expires_at`, size) are updated. A DISCOVERED verdict with a new
        known size reopens an archived asset with `keep_stored`, once for each of the first MAX_SIZES sizes.
        """
        ...

    def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
        """Record an end state known from manifests or from a person (archived, stored with doubts, damaged, rejected),
        unless a worker has the asset or it is in REMOVED_STATES; return whether its state changed. When it is in that
        state already, replace only the reason and the copies. Takes over `created_at` as `settle` does. Idempotent."""
        ...

    def take_due(
        self,
        window: int,
        requeue_after: timedelta,
        ahead: timedelta = timedelta(0),
        *,
        at_most: int | None = None,
    ) -> list[Row]:
        """Move due assets to QUEUED, earliest `expires_at` first, and return them (no more than `at_most`), for a
        message each. At most `window` are queued in all. Takes bounded time whatever the backlog.

        Due: discovered; waiting with a `next_attempt_at` that is past, or will be within `ahead`; queued for longer
        than `requeue_after` (the message was lost); running with an expired lease (the worker died).
        """
        ...

    def make_due(self, asset_ids: Sequence[str], *, unless_within: timedelta) -> list[str]:
        """End the wait of each waiting asset, unless its state was set within `unless_within`; others stay as they are.
        Return the unknown ids. Idempotent."""
        ...

    def reopen(self, asset_id: str, *, keep_stored: bool = False, un_erase: bool = False) -> Row | None:
        """Set an asset back to DISCOVERED with no attempts and mismatches, unless it has a valid lease, or is in
        REMOVED_STATES without `un_erase`. Return the row; None when unknown. Idempotent.

        `keep_stored`: the bucket still holds it, so `gone_since`, `stored_bytes` and `stored_objects` stay."""
        ...

    def remove(self, seen: Seen, settlement: Settlement) -> Row:
        """Move an asset from any state to one of REMOVED_STATES, and return its row. Enters an unknown one. If a worker
        has it, its lease is lost: it is given to nobody any more. In that state already, replace only the reason.
        Idempotent."""
        ...

    def acknowledge(self, asset_id: str, by: str, why: str) -> Row | None:
        """Record that a person accepts this end state, until the state changes. Does nothing outside
        ACKNOWLEDGED_STATES. Return the row; None when unknown. Idempotent: the last call counts."""
        ...

    def note_copies(self, row: Row, copies: Mapping[str, CopyState]) -> bool:
        """Record what each destination holds (`copies` names all of them), unless the asset's state or copies were set
        since `row` was read, or a worker has it; return whether it was recorded. Idempotent."""
        ...

    def note_decision(self, asset_id: str, decision: Decision) -> Row | None:
        """Add a decision to the asset's history, whatever its state; the latest MAX_DECISIONS are kept. Return the row;
        None when unknown. Idempotent."""
        ...


class Leases(Protocol):
    """Let one worker at a time work on an asset."""

    def lease(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        """Set an asset RUNNING for `holder` and count an attempt. None when it is unknown, at an end, leased to another
        holder, or waiting for a later time (the message was late or duplicated).

        If nobody settled the lease before, count a crash; but set `crashes` to 0 when more objects of the asset are
        stored, or as many and more parts, than at any such crash since it was last settled."""
        ...

    def lease_ended(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        """Lease an asset that is at an end, to change what is stored of it. Its state and attempts stay, and nothing
        reopens it meanwhile; once the lease expires, nothing is left of it. None when it is unknown, open, in
        REMOVED_STATES, or leased to another holder. `renew`, `outrank` and the copy journal work as for any other;
        `release` ends it."""
        ...

    def release(
        self,
        lease: Lease,
        copies: Mapping[str, CopyState] | None = None,
        settlement: Settlement | None = None,
        *,
        keep_work: bool = False,
    ) -> Row:
        """End a lease of `lease_ended` and discard the asset's progress and, unless `keep_work`, its objects and
        uploads, which another lease resumes. `copies`: what the
        destinations hold now, all of them; None: as before. `settlement`: the end state that follows; an event when it
        is another one. Raises LeaseLost, also when the ledger forgot the asset, with nothing written."""
        ...

    def begin(self, asset_id: str, holder: str, duration: timedelta, facts: str) -> AttemptStart:
        """Do `lease`, `get` and `recall_all(facts)` in one round trip: small assets cost little else."""
        ...

    def renew(self, lease: Lease, duration: timedelta) -> None:
        """Extend a lease to `duration` from now. Raises LeaseLost when another lease was given since, or the asset is
        settled. Succeeds when the ledger forgot the asset (it was flushed); `settle` enters it again."""
        ...

    def outrank(self, lease: Lease, fence: int) -> Lease:
        """Return the lease with a fencing token above `fence`, that of an existing manifest: the
        clock of another ledger may have been ahead of this one's. Idempotent. Raises LeaseLost as `renew` does."""
        ...

    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        """End the lease and record how the attempt ended. Raises LeaseLost as `renew` does, with nothing written.

        Enters the asset from `seen` if the ledger forgot it; takes over its `created_at`, which the manifest's key
        holds, and the size of what was archived. A wait is at most MAX_WAIT and, before the deadline, at most the time
        left divided by DEADLINE_DIVISOR. An end state discards the asset's objects, uploads and progress."""
        ...

    def report(self, progress: Progress) -> None:
        """Keep the progress of a running copy for PROGRESS_LIFETIME. Does not raise when the ledger is unavailable."""
        ...


class CopyJournal(Protocol):
    """Remember what an unfinished copy has stored, so that the next attempt resumes it."""

    def stored_objects(self, asset_id: str, destination: str, version: str) -> Mapping[str, StoredObject]:
        """Return stored objects by path. Objects of another `version` of the source's content are left out."""
        ...

    def add_stored(
        self, lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]
    ) -> None:
        """Add stored objects, in one round trip; a new `version` replaces all. Kept while the asset is open, at most
        COPY_LIFETIME. Idempotent. Raises LeaseLost as `Leases.renew` does, with nothing written, as do the two
        below."""
        ...

    def load_upload(self, asset_id: str, destination: str, key: str) -> OpenUpload | None: ...

    def save_upload(self, lease: Lease, destination: str, key: str, upload: OpenUpload) -> None:
        """Save or replace an upload. Kept at most COPY_LIFETIME."""
        ...

    def add_part(
        self, lease: Lease, destination: str, key: str, number: int, part: tuple[int, int, str]
    ) -> None:
        """Add or replace a part of a saved upload; without one, do nothing. Idempotent."""
        ...

    def forget_upload(self, asset_id: str, destination: str, key: str) -> None: ...


class Facts(Protocol):
    """Hold what all workers share: the time, locks, small named facts and secrets."""

    def now(self) -> datetime:
        """Return the ledger's time. Workers' clocks may be days off; see `ledger.clock`."""
        ...

    def lock(self, name: str, duration: timedelta) -> str | None:
        """Take a lock and return its token; None when it is held. An optimisation only: what it guards must be
        idempotent. One name has one `duration`: a lock that would last longer by more than CLOCK_STEP was taken before
        the ledger's clock was set back, and is given to the next."""
        ...

    def extend_lock(self, name: str, token: str, duration: timedelta) -> bool: ...

    def unlock(self, name: str, token: str) -> None: ...

    def remember(self, name: str, fact: Mapping[str, object], lifetime: timedelta | None = None) -> None:
        """Keep a small named JSON object, until replaced when `lifetime` is None."""
        ...

    def remember_locked(self, name: str, fact: Mapping[str, object], *, lock: str, token: str) -> bool:
        """Keep a fact until replaced, if the lock called `lock` is still held with `token`, in one step; return whether
        it is kept. So a process that was paused replaces nothing that a later holder has kept. Idempotent."""
        ...

    def recall(self, name: str) -> Mapping[str, object] | None: ...

    def recall_all(self, prefix: str) -> Mapping[str, Mapping[str, object]]: ...

    def forget(self, name: str) -> None: ...

    def remember_secret(self, name: str, value: str, lifetime: timedelta) -> None:
        """Keep a string encrypted: unreadable without the settings."""
        ...

    def recall_secret(self, name: str) -> str | None:
        """Return a secret; None also when it was encrypted under another key."""
        ...


class RateLimits(Protocol):
    """Keep rates that all workers hold together."""

    def reserve(self, name: str, amount: float, per_second: float) -> timedelta:
        """Reserve `amount` of the rate called `name`. Return how long it takes until it is earned at `per_second`,
        behind all that anybody reserved before; MAX_RESERVED_AHEAD at most. Nothing is saved up while nobody
        reserves."""
        ...


class Totals(Protocol):
    """Count what was ever done, by all workers and across their restarts. They start at 0 after a flush."""

    def add_totals(self, amounts: Mapping[str, int]) -> None:
        """Add to totals by name, once; lost when the connection breaks, rather than counted twice."""
        ...

    def totals(self) -> Mapping[str, int]:
        """Return every total by name. `Leases.settle` adds `Settlement.totals`, exactly once."""
        ...


class Outbox(Protocol):
    """Keep events until they are delivered. An event is kept in the same step that moves the asset."""

    def keep_events(self, lifetime: timedelta) -> None:
        """For `lifetime` from now, keep an event when an asset comes to one of EVENT_STATES: by an attempt, by a
        person, or as damaged. One whose end is only found again, in a manifest, is no event, unless an attempt at it
        was begun: its outcome was lost. Idempotent."""
        ...

    def events(self, limit: int) -> list[Event]:
        """Return up to `limit` events, oldest first."""
        ...

    def delivered(self, event: Event) -> None:
        """Forget an event. Idempotent."""
        ...

    def replay(self, asset_ids: Sequence[str]) -> int:
        """Keep an event of each asset as it is now; return how many. Those in none of EVENT_STATES are left out, and so
        is what comes when MAX_EVENTS wait."""
        ...

    def outbox_size(self) -> OutboxSize: ...

    def forget_dropped(self) -> None:
        """Set `OutboxSize.dropped` to 0."""
        ...


class Ledger(Schedule, Leases, CopyJournal, Facts, RateLimits, Totals, Outbox, Protocol):
    """The whole ledger. Code takes this only when it needs two of the Protocols above."""

    def ping(self) -> None:
        """Raise LedgerUnavailable, with a message that says what to fix, unless the ledger accepts writes."""
        ...

    def close(self) -> None: ...

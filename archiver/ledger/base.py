"""The ledger: operational state per asset. It decides what is due, leases it to one worker at a time, and
remembers what an unfinished copy has done. It can be lost: the API and the bucket rebuild it (docs/architecture.md).

One contract suite (`tests/contracts/ledger_contract.py`) holds every implementation to what is said here.
All times are aware UTC; leases are timed by the ledger's own clock, so that workers' clocks do not matter.
Every failure is a `ledger.errors.LedgerError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol


class AssetState(StrEnum):
    """Every asset the API ever showed is in exactly one."""

    DISCOVERED = "discovered"
    QUEUED = "queued"  # a message was sent for it
    RUNNING = "running"  # leased
    WAITING = "waiting"  # will be tried again at next_attempt_at
    ARCHIVED = "archived"
    SKIPPED = "skipped"  # a filter says so
    EXTERNAL = "external"  # its path is already in the team's own bucket
    SOURCE_FAILED = "source_failed"  # 100ms says failed
    NEEDS_SOURCE_ACCESS = "needs_source_access"  # only the m3u8 is signed, and we may not read its bucket
    QUARANTINED = "quarantined"  # stored as the source has it, with doubts: a person must look
    REJECTED = "rejected"  # a person said that it is worthless; what is stored of it stays
    LOST = "lost"  # gone at the source before it was saved
    DAMAGED = "damaged"  # was archived, is not whole everywhere any more, and the source is gone


OPEN_STATES = frozenset({AssetState.DISCOVERED, AssetState.QUEUED, AssetState.RUNNING, AssetState.WAITING})
SAFE_STATES = frozenset({AssetState.ARCHIVED, AssetState.SKIPPED, AssetState.EXTERNAL})
SETTLED_STATES = SAFE_STATES | {AssetState.REJECTED}
"""States that ask nothing of anybody any more."""

ACKNOWLEDGED_STATES = frozenset(
    {
        AssetState.LOST,
        AssetState.DAMAGED,
        AssetState.QUARANTINED,
        AssetState.NEEDS_SOURCE_ACCESS,
        AssetState.SOURCE_FAILED,
    }
)
"""Ends that a person must see, and may then acknowledge."""

JUDGED_STATES = frozenset({AssetState.SKIPPED, AssetState.EXTERNAL, AssetState.SOURCE_FAILED})
"""Ends that follow from what the API says and the settings alone; every sweep judges them anew."""


LONGEST_WAIT = timedelta(days=1)
"""Of any asset, whatever a worker asks for."""

MOST_SIZES = 16
"""Sizes of an archived asset that are looked into. One that the API goes on changing says nothing any more."""

SHORTEST_SHARE = 2
"""Before its deadline an asset waits for at most one part in so many of the time left: no wait runs past it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a sweep tells the ledger of one asset. `verdict` is DISCOVERED or one of JUDGED_STATES."""

    asset_id: str
    type: str
    expires_at: datetime
    verdict: AssetState
    created_at: datetime | None = None
    room_id: str | None = None
    session_id: str | None = None
    size_bytes: int | None = None
    reason: str | None = None  # why this verdict, when it is not DISCOVERED


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """That a person has looked at an end and leaves it at that."""

    by: str
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Row:
    """One asset in the ledger."""

    asset_id: str
    type: str
    state: AssetState
    expires_at: datetime
    first_seen_at: datetime
    changed_at: datetime  # when `state` was last set
    created_at: datetime | None = None
    room_id: str | None = None
    session_id: str | None = None
    size_bytes: int | None = None  # the API's word
    attempts: int = 0  # leases taken since it was last reopened
    mismatches: int = 0  # attempts in a row that ended with the same mismatch or the same doubts
    fingerprint: str | None = None  # of what those attempts found
    crashes: int = (
        0  # leases in a row that nobody settled (their workers died) and that brought the copy no further
    )
    next_attempt_at: datetime | None = None
    gone_since: datetime | None = (
        None  # when attempts in a row began to be told that it is gone, or forbidden
    )
    reason: str | None = None  # of the last failure, or of the state; never a secret
    stored_bytes: int = 0  # once archived or kept with doubts
    stored_objects: int = 0
    seconds: float = 0.0  # the time the successful attempt took
    warnings: tuple[str, ...] = ()  # such as a thumbnail that could not be had
    acknowledged: Acknowledgement | None = None  # of this end; gone as soon as the state changes


@dataclass(frozen=True, slots=True)
class Lease:
    """One worker's time-limited right to an asset. `fence` grows with every lease of the asset."""

    asset_id: str
    fence: int
    holder: str


@dataclass(frozen=True, slots=True)
class Beginning:
    """What `Ledger.begin` found. `row` is the row as it is with the lease. `has_work`: whether an earlier attempt left
    stored objects or uploads. `facts`: see `Ledger.recall_all`."""

    lease: Lease | None
    row: Row | None
    has_work: bool
    facts: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. `state` is WAITING or an end."""

    state: AssetState
    reason: str | None = None
    delay: timedelta | None = None  # with WAITING: until the next attempt; None: at once
    counts_as_attempt: bool = True  # False: nothing was tried (a destination is on hold, a shutdown)
    mismatch: bool = (
        False  # mismatches + 1, or 1 when `fingerprint` is another than before; False sets it to 0
    )
    fingerprint: str | None = None  # with `mismatch`: what the attempt found
    gone: bool = False  # the attempt was told that the asset is gone, or forbidden
    stored_bytes: int = 0
    stored_objects: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """`seen` is counted on its own, not summed: `balanced` is a check, made at every sweep. `acknowledged`: how many of
    each state a person has acknowledged."""

    seen: int
    states: Mapping[AssetState, int]
    acknowledged: Mapping[AssetState, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        return self.seen == sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running copy is doing. Kept for minutes, for people to look at; nothing depends on it."""

    asset_id: str
    type: str
    bytes_done: int
    bytes_total: int | None
    objects_done: int
    current: str  # the object being copied


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of an unfinished asset that is whole at a destination."""

    path: str  # relative to the asset's folder
    size_bytes: int
    crc32c: int
    content_type: str = ""
    source_etag: str | None = None


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An unfinished upload. `token` is a secret; implementations keep it sealed."""

    token: str = field(repr=False)
    size_bytes: int
    part_bytes: int
    source_etag: str | None
    parts: Mapping[int, tuple[int, int, str]] = field(default_factory=dict)  # number -> size, crc32c, tag


class Ledger(Protocol):
    def now(self) -> datetime:
        """By the ledger's own clock, the only one that is believed: workers' may be days off. See `ledger.clock`."""
        ...

    # -- what exists ---------------------------------------------------------------------------------------
    def discover(self, seen: Sequence[Seen]) -> int:
        """Record what a sweep saw, in one round trip; how many were new. Repeatable.

        An unknown asset gets its verdict as state. A known one is judged anew: a DISCOVERED verdict reopens one
        in JUDGED_STATES; any other verdict moves one that is discovered, queued, waiting or in JUDGED_STATES to
        it, but SOURCE_FAILED only the latter: what was there to be saved is tried on. A running, archived or otherwise
        ended asset stays. Changed facts (expires_at, size) are updated. A DISCOVERED verdict with another known size
        reopens an archived asset, `keep_stored`: once for each of the first MOST_SIZES sizes.
        """
        ...

    def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
        """Enter an asset whose manifests, or a person, say its end (archived, kept with doubts, damaged, rejected),
        known or not, unless it is running; whether that changed its state. Of one in that state already only the reason
        is replaced. Takes over `created_at` as `settle` does. Idempotent."""
        ...

    def get(self, asset_id: str) -> Row | None: ...

    def rows(
        self,
        states: Iterable[AssetState] | None = None,
        *,
        expiring_before: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Rows by state (None: all), by `expires_at` within each state, fetched in batches."""
        ...

    def warned(self, limit: int) -> list[Row]:
        """Archived with a warning, the latest first."""
        ...

    def counts(self) -> Counts:
        """Taken atomically."""
        ...

    # -- what is due ---------------------------------------------------------------------------------------
    def take_due(
        self,
        window: int,
        requeue_after: timedelta,
        ahead: timedelta = timedelta(0),
        *,
        at_most: int | None = None,
    ) -> list[Row]:
        """Move what is due to QUEUED, earliest `expires_at` first, so that at most `window` are queued in all,
        and return those moved (`at_most` so many), for a message each. Bounded time whatever the backlog.

        Due: discovered; waiting with a `next_attempt_at` that is past, or will be in `ahead`; queued for longer than
        `requeue_after` (its message was lost); running with an ended lease (its worker died).
        """
        ...

    def reopen(self, asset_id: str, *, keep_stored: bool = False) -> Row | None:
        """Back to DISCOVERED from any state but RUNNING with a living lease; attempts and mismatches start at 0.
        `keep_stored`: it is looked at again, so `gone_since`, `stored_bytes` and `stored_objects` stay: the bucket
        holds what they say. The row as it is then; None when unknown. Idempotent."""
        ...

    def acknowledge(self, asset_id: str, by: str, why: str) -> Row | None:
        """Record that a person leaves this end at that; of an asset in no such end (ACKNOWLEDGED_STATES) nothing. Holds
        until the state changes. The row as it is then; None when unknown. Repeatable: the last one counts."""
        ...

    def next_due_at(self) -> datetime | None:
        """When the earliest waiting asset is due; None when none waits."""
        ...

    # -- one worker at a time ------------------------------------------------------------------------------
    def lease(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        """RUNNING and ours, attempts + 1; None when the asset is unknown, at an end, or leased to a living
        holder, and while it waits for a later time: a message that was late or doubled is no reason to hurry.

        When nobody settled the lease before, crashes + 1; but 0 when more objects of the asset are recorded as stored,
        or as many and more parts, than at any such crash since it was last settled."""
        ...

    def begin(self, asset_id: str, holder: str, duration: timedelta, facts: str) -> Beginning:
        """`lease`, `get` and `recall_all(facts)` in one round trip: thousands of small assets cost little else."""
        ...

    def renew(self, lease: Lease, duration: timedelta) -> None:
        """Raises LeaseLost when another lease was given since, or the asset is settled. A ledger that forgot
        the asset altogether (it was flushed) is no reason to stop: the call succeeds and `settle` enters it."""
        ...

    def outrank(self, lease: Lease, fence: int) -> Lease:
        """The same lease with a fence above `fence`, that of a manifest which was found: after a flush fences may start
        anew. Repeatable. Raises LeaseLost like `renew`."""
        ...

    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        """End the lease and record how. Raises LeaseLost like `renew`, with nothing written. Re-enters the
        asset from `seen` when the ledger forgot it; takes over its `created_at`, which the manifest lies under, and the
        size of what was archived. A
        wait is `delay` long by the ledger's clock, but at most LONGEST_WAIT, and before the deadline at most one
        SHORTEST_SHARE of the time left. On an end, forgets its objects, uploads and progress."""
        ...

    # -- what an unfinished copy has done ------------------------------------------------------------------
    def stored_objects(self, asset_id: str, destination: str, version: str) -> Mapping[str, StoredObject]:
        """By path. `version` names the source's content; what was stored of another version is not returned."""
        ...

    def add_stored(
        self, lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]
    ) -> None:
        """Repeatable; one round trip. Another `version` replaces all. Lives as long as the asset is open,
        30 days at the most. Raises LeaseLost like `renew`, with nothing written; so do the two below."""
        ...

    def load_upload(self, asset_id: str, destination: str, key: str) -> OpenUpload | None: ...

    def save_upload(self, lease: Lease, destination: str, key: str, upload: OpenUpload) -> None:
        """Replaces. Lives 30 days at the most."""
        ...

    def add_part(
        self, lease: Lease, destination: str, key: str, number: int, part: tuple[int, int, str]
    ) -> None:
        """Repeatable. Of an upload that was not saved, or was forgotten, nothing is kept."""
        ...

    def forget_upload(self, asset_id: str, destination: str, key: str) -> None: ...

    def report(self, progress: Progress) -> None:
        """Never raises for a ledger that is away; lives 2 minutes."""
        ...

    def progress(self) -> list[Progress]: ...

    # -- what the whole tool remembers ---------------------------------------------------------------------
    def lock(self, name: str, duration: timedelta) -> str | None:
        """A token, or None when somebody holds `name`. An optimisation only: whatever it guards is harmless
        when it happens twice."""
        ...

    def extend_lock(self, name: str, token: str, duration: timedelta) -> bool: ...

    def unlock(self, name: str, token: str) -> None: ...

    def remember(self, name: str, fact: Mapping[str, object], lifetime: timedelta | None = None) -> None:
        """A small named JSON fact: the last sweep, a destination on hold. No lifetime: kept until replaced."""
        ...

    def recall(self, name: str) -> Mapping[str, object] | None: ...

    def recall_all(self, prefix: str) -> Mapping[str, Mapping[str, object]]: ...

    def forget(self, name: str) -> None: ...

    def remember_secret(self, name: str, value: str, lifetime: timedelta) -> None:
        """Sealed: unreadable to who sees the store but not the settings."""
        ...

    def recall_secret(self, name: str) -> str | None:
        """None too when it was sealed under another key."""
        ...

    def ping(self) -> None:
        """Raises LedgerUnavailable with a message that says what to mend."""
        ...

    def close(self) -> None: ...

"""Models of the ledger. Times are aware UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class AssetState(StrEnum):
    """Every asset the API ever listed is in exactly one."""

    DISCOVERED = "discovered"
    QUEUED = "queued"  # a message was sent for it
    RUNNING = "running"  # leased
    WAITING = "waiting"  # to be retried at next_attempt_at
    ARCHIVED = "archived"
    SKIPPED = "skipped"  # by a filter
    EXTERNAL = "external"  # its path is already in the team's own bucket
    SOURCE_FAILED = "source_failed"  # 100ms says failed
    NEEDS_SOURCE_ACCESS = "needs_source_access"  # only the m3u8 is signed, and we may not read its bucket
    QUARANTINED = "quarantined"  # stored as the source has it, with doubts: a person must look
    REJECTED = "rejected"  # a person called it worthless; what is stored of it stays
    LOST = "lost"  # gone at the source before it was saved
    DAMAGED = "damaged"  # was archived, is no longer whole everywhere, and the source is gone
    ERASING = "erasing"  # a person wants it erased, or its term is over; something of it may still be there
    ERASED = "erased"  # erased at every destination, for good
    EXPIRED = "expired"  # deleted at every destination, because its term is over


class CopyState(StrEnum):
    """What one destination holds of an asset."""

    WHOLE = "whole"
    LACKING = "lacking"  # it has no manifest of it
    DAMAGED = "damaged"  # its manifest is marked as damaged, or does not agree with what is there


OPEN_STATES = frozenset({AssetState.DISCOVERED, AssetState.QUEUED, AssetState.RUNNING, AssetState.WAITING})
SAFE_STATES = frozenset({AssetState.ARCHIVED, AssetState.SKIPPED, AssetState.EXTERNAL})
SETTLED_STATES = SAFE_STATES | {AssetState.REJECTED, AssetState.ERASED, AssetState.EXPIRED}
"""States that need nobody's attention."""

REMOVED_STATES = frozenset({AssetState.ERASING, AssetState.ERASED, AssetState.EXPIRED})
"""States that no sweep, worker or manifest ends: the destinations hold a tombstone. A person may un-erase the asset."""

ACKNOWLEDGED_STATES = frozenset(
    {
        AssetState.LOST,
        AssetState.DAMAGED,
        AssetState.QUARANTINED,
        AssetState.NEEDS_SOURCE_ACCESS,
        AssetState.SOURCE_FAILED,
    }
)
"""End states that a person must see, and may then acknowledge."""

JUDGED_STATES = frozenset({AssetState.SKIPPED, AssetState.EXTERNAL, AssetState.SOURCE_FAILED})
"""End states that follow from the API and the settings alone; every sweep judges them again."""


STORED_STATES = (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.REJECTED, AssetState.DAMAGED)
"""End states of assets of which something is stored."""

UNSTORED_STATES = JUDGED_STATES | REMOVED_STATES
"""End states of which no destination holds anything on our account: what `Row.copies` said is cleared."""

COUNTED_STATES = frozenset({AssetState.ARCHIVED, AssetState.QUARANTINED})
"""States whose copies `Counts.copies` counts. What is damaged is told as that, what is open is not saved yet."""

UNKNOWN_TYPE = "unknown"
"""The type of an asset of which only its id is known, as from a tombstone."""

MAX_WAIT = timedelta(days=1)
"""Longest wait of any asset, whatever delay a worker asks for."""

MAX_LEASE = timedelta(hours=6)
"""Longest lease. One that would end later, by a clock that was set back, has ended: its worker may be dead."""

CLOCK_STEP = timedelta(minutes=5)
"""By how much more than its longest duration a time may lie ahead before the ledger's clock counts as set back. What
was timed by the clock before then ends at once, instead of lasting longer by the step."""

MAX_RESERVED_AHEAD = timedelta(hours=1)
"""How far ahead a shared rate is reserved at most: else a clock that is set back would stop everything for long."""

MAX_SIZES = 16
"""Sizes of an archived asset that reopen it. If the API keeps changing its size, the size means nothing."""

DEADLINE_DIVISOR = 2
"""Before its deadline an asset waits for at most the time left divided by this: no wait outlasts the deadline."""


COPY_LIFETIME = timedelta(days=30)
"""How long the journal of an unfinished copy is kept, at most."""

PROGRESS_LIFETIME = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Seen:
    """One asset as a sweep (or a manifest) describes it. `verdict` is DISCOVERED or one of JUDGED_STATES."""

    asset_id: str
    type: str
    expires_at: datetime
    verdict: AssetState
    created_at: datetime | None = None
    room_id: str | None = None
    session_id: str | None = None
    size_bytes: int | None = None
    reason: str | None = None  # for a verdict other than DISCOVERED


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A person has looked at an end state and accepts it."""

    by: str
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about an asset. `what`: accepted, rejected, skipped, acknowledged, retried, erased
    or un-erased."""

    what: str
    by: str
    why: str
    at: datetime


MAX_DECISIONS = 20
"""Decisions kept of one asset, the latest."""


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
    size_bytes: int | None = None  # according to the API
    attempts: int = 0  # leases taken since it was last reopened
    mismatches: int = 0  # consecutive attempts that ended with the same mismatch or the same doubts
    fingerprint: str | None = None  # of what those attempts found
    crashes: int = (
        0  # consecutive leases that nobody settled and that stored nothing more (their workers died)
    )
    next_attempt_at: datetime | None = None
    gone_since: datetime | None = None  # first of the consecutive attempts that got "gone" or "forbidden"
    reason: str | None = None  # of the last failure, or of the state; never a secret
    stored_bytes: int = 0  # once archived, or stored with doubts
    stored_objects: int = 0
    seconds: float = 0.0  # duration of the successful attempt
    warnings: tuple[str, ...] = ()  # such as a thumbnail that could not be fetched
    acknowledged: Acknowledgement | None = None  # of this end state; cleared when the state changes
    copies: Mapping[str, CopyState] = field(default_factory=dict, hash=False)  # by destination, as last known
    leased_until: datetime | None = None  # by `Leases.lease_ended`, unless that is past
    history: tuple[Decision, ...] = ()  # the last MAX_DECISIONS, oldest first


EVENT_STATES = frozenset(
    {
        AssetState.ARCHIVED,
        AssetState.QUARANTINED,
        AssetState.LOST,
        AssetState.DAMAGED,
        AssetState.ERASED,
        AssetState.EXPIRED,
    }
)
"""An asset that comes to one of these is an event."""

MAX_EVENTS = 100_000
"""Events kept for a receiver that is down: about 50 MB. Those that come after are counted, and can be replayed."""


@dataclass(frozen=True, slots=True)
class Event:
    """`row`: the asset as it was when it came to its state. `number` grows from event to event."""

    number: int
    row: Row


@dataclass(frozen=True, slots=True)
class OutboxSize:
    """`dropped`: events that were not kept since `Outbox.forget_dropped`, because MAX_EVENTS were waiting."""

    waiting: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One worker's time-limited right to an asset. `fence` is a fencing token: it grows with every lease."""

    asset_id: str
    fence: int
    holder: str


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """Answer of `Leases.begin`. `row` includes the lease. `has_work`: an earlier attempt left stored objects or
    uploads. `facts`: see `Facts.recall_all`."""

    lease: Lease | None
    row: Row | None
    has_work: bool
    facts: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. `state` is WAITING or an end state."""

    state: AssetState
    reason: str | None = None
    delay: timedelta | None = None  # with WAITING: until the next attempt; None: at once
    counts_as_attempt: bool = True  # False: nothing was tried (an open circuit breaker, a shutdown)
    mismatch: bool = False  # adds 1 to `mismatches`, or sets 1 for a new `fingerprint`; False sets 0
    fingerprint: str | None = None  # with `mismatch`: what the attempt found
    gone: bool = False  # the source answered "gone" or "forbidden"
    stored_bytes: int = 0
    stored_objects: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    copies: Mapping[str, CopyState] | None = None  # by destination, all of them; None: as before
    copied_bytes: int = 0  # by this attempt, whatever its outcome; for the totals
    copied_objects: int = 0
    cause: str = field(default="", compare=False)  # why it failed, as one of a few words; for the totals

    @property
    def totals(self) -> Mapping[str, int]:
        """What the attempt adds to `Totals`, by name: the ATTEMPTS that ended in its state, and what was copied."""
        ended = f"{ATTEMPTS}{self.state}" if self.counts_as_attempt else POSTPONED
        amounts = {ended: 1, COPIED_BYTES: self.copied_bytes, COPIED_OBJECTS: self.copied_objects}
        if self.cause:
            amounts[f"{FAILURES}{self.cause}"] = 1
        return {name: amount for name, amount in amounts.items() if amount}


ATTEMPTS, POSTPONED, FAILURES = "attempts:", "attempts_postponed", "failures:"
COPIED_BYTES, COPIED_OBJECTS = "copied_bytes", "copied_objects"
"""Names of totals. `POSTPONED`: attempts that tried nothing."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Assets and their bytes: stored ones, or the API's word. `unsized`: those whose size nobody knows yet."""

    assets: int
    size_bytes: int
    unsized: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.assets + other.assets, self.size_bytes + other.size_bytes, self.unsized + other.unsized
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Assets by state. `seen` is counted on its own, not summed, so that `balanced` is a check. `acknowledged`: how
    many of each state a person has acknowledged. `copies`: by destination, how many of those in COUNTED_STATES
    it is known to hold whole, lack or hold damaged; a destination that is no longer configured is in it too."""

    seen: int
    states: Mapping[AssetState, int]
    acknowledged: Mapping[AssetState, int] = field(default_factory=dict)
    copies: Mapping[str, Mapping[CopyState, int]] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        return self.seen == sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running copy is doing, for display only. Kept for PROGRESS_LIFETIME."""

    asset_id: str
    type: str
    bytes_done: int
    bytes_total: int | None
    objects_done: int
    current: str  # the object being copied


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of an unfinished asset that is complete at a destination."""

    path: str  # relative to the asset's folder
    size_bytes: int
    crc32c: int
    content_type: str = ""
    source_etag: str | None = None


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An unfinished upload. `token` is a secret; implementations store it encrypted."""

    token: str = field(repr=False)
    size_bytes: int
    part_bytes: int
    source_etag: str | None
    parts: Mapping[int, tuple[int, int, str]] = field(default_factory=dict)  # number -> size, crc32c, tag

"""What one attempt works with: the dependencies and settings of the archiver, and the lease on one asset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archiver.core.attempt.decisions import RetryRules
from archiver.core.attempt.doubts import KeepingRules
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.outcomes import WillRetry
from archiver.core.attempt.overwritten import Written
from archiver.core.contents.base import Contents
from archiver.core.destinations.breaker import OPEN_FOR, OpenBreaker, close_half_open, note_success
from archiver.core.judging import Scope
from archiver.hms.base import RecordingAssets
from archiver.hms.models import Asset
from archiver.ledger.base import Ledger
from archiver.ledger.models import CopyState, Row
from archiver.transfer.base import Engine, UploadJournal
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

OpenContents = Callable[[Asset], Contents]
EngineFactory = Callable[[UploadJournal, Heartbeat], Engine]


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings. `near_deadline`: the time left from which contents that may still change are stored as they are.
    `quorum`: how many destinations must hold an asset whole before it is archived; None: all."""

    scope: Scope
    retry: RetryRules
    key_template: str
    lease: timedelta
    lease_renew: timedelta
    archiver_version: str
    near_deadline: timedelta = timedelta(days=3)
    quorum: int | None = None

    @property
    def keeping(self) -> KeepingRules:
        return KeepingRules(self.retry.mismatch_attempts, self.near_deadline)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The same for all attempts of one archiver. `clock`: the ledger's. `time_at`: a destination's own time; None when
    it does not tell one."""

    api: RecordingAssets
    ledger: Ledger
    destinations: list[StorageBackend]
    open_contents: OpenContents
    engine: EngineFactory
    rules: Rules
    clock: Callable[[], datetime]
    time_at: Callable[[StorageBackend], datetime | None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one asset, under a lease that `heartbeat` renews.

    `has_work`: an earlier attempt recorded objects it stored. `breakers`: the open circuit breakers of all machines,
    `own_breakers` those that stop this one, `half_open` those that a success closes.
    `written` grows with what this attempt may have written, `copies` with what it knows of each destination, `dropped`
    with the destinations that did not take an object, and why.
    """

    deps: Dependencies
    heartbeat: Heartbeat
    row: Row
    has_work: bool
    breakers: Mapping[str, OpenBreaker]
    own_breakers: Mapping[str, OpenBreaker]
    half_open: Mapping[str, OpenBreaker]
    machine: str
    written: list[Written] = field(default_factory=list)
    copies: dict[str, CopyState] = field(default_factory=dict)
    dropped: dict[str, StorageError] = field(default_factory=dict)

    def note_success(self, name: str) -> None:
        """Close the circuit breaker of `name`, as far as a success on this machine does. Never raises."""
        note_success(self.deps.ledger, self.breakers, name)
        close_half_open(self.deps.ledger, self.half_open, name, self.machine)

    def waits_for(self, name: str) -> WillRetry | None:
        """The outcome while the circuit breaker of `name` is open on this machine; None while it is not."""
        breaker = self.own_breakers.get(name)
        if breaker is None:
            return None
        why = f"the circuit breaker of {name} is open: {breaker.reason}"
        left = min(breaker.until - self.deps.clock(), OPEN_FOR)
        return WillRetry(why, left, costs_attempt=False).with_stored(self.row)

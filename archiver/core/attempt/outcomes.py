"""The outcomes of one attempt at one asset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import assert_never

from archiver.ledger.models import AssetState, CopyState, Row, Settlement


@dataclass(frozen=True, slots=True)
class Archived:
    """Complete, verified and committed at every destination by this attempt."""

    stored_bytes: int
    stored_objects: int
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlreadyArchived:
    """Every destination held a verified manifest. `copies`: where only so many hold it as ARCHIVER_QUORUM asks for,
    what each of them holds; `copied_bytes`: what this attempt copied there."""

    stored_bytes: int
    stored_objects: int
    warnings: tuple[str, ...] = ()
    copies: Mapping[str, CopyState] | None = field(default=None, compare=False)
    copied_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """Stored and committed with doubts at every destination, by this attempt or an earlier one: quarantined."""

    reason: str
    stored_bytes: int
    stored_objects: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WillRetry:
    """Not archived; retried after `delay`. `costs_attempt`: the source was really tried. `gone`: it answered gone or
    forbidden. `machine_fault`: memory, threads, handles or disk of this machine. `stored_bytes`, `stored_objects`: what
    is stored with doubts meanwhile."""

    reason: str
    delay: timedelta
    costs_attempt: bool = True
    gone: bool = False
    machine_fault: bool = False
    mismatch: bool = False
    fingerprint: str | None = None
    stored_bytes: int = 0
    stored_objects: int = 0
    cause: str = field(default="", compare=False)  # see `Settlement.cause`

    def with_stored(self, row: Row) -> WillRetry:
        """The same; what is stored of the asset with doubts stays so while it waits."""
        return replace(self, stored_bytes=row.stored_bytes, stored_objects=row.stored_objects)


@dataclass(frozen=True, slots=True)
class Ended:
    """Not archived, and not retried."""

    state: AssetState
    reason: str
    cause: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Another worker has or had the lease, or the asset was settled already: this attempt committed nothing."""

    reason: str


Settled = Archived | AlreadyArchived | Kept | WillRetry | Ended
Outcome = Settled | NotOurs


def settlement(outcome: Settled) -> Settlement:
    """Return what the ledger records of `outcome`."""
    match outcome:
        case Archived(stored_bytes, stored_objects, seconds, warnings):
            return Settlement(
                AssetState.ARCHIVED,
                stored_bytes=stored_bytes,
                stored_objects=stored_objects,
                seconds=seconds,
                warnings=warnings,
            )
        case AlreadyArchived(stored_bytes, stored_objects, warnings):
            return Settlement(
                AssetState.ARCHIVED,
                stored_bytes=stored_bytes,
                stored_objects=stored_objects,
                warnings=warnings,
            )
        case Kept(reason, stored_bytes, stored_objects, seconds):
            return Settlement(
                AssetState.QUARANTINED,
                reason=reason,
                stored_bytes=stored_bytes,
                stored_objects=stored_objects,
                seconds=seconds,
            )
        case WillRetry():
            return Settlement(
                AssetState.WAITING,
                reason=outcome.reason,
                delay=outcome.delay,
                counts_as_attempt=outcome.costs_attempt,
                mismatch=outcome.mismatch,
                fingerprint=outcome.fingerprint,
                gone=outcome.gone,
                stored_bytes=outcome.stored_bytes,
                stored_objects=outcome.stored_objects,
                cause=outcome.cause,
            )
        case Ended(state, reason, cause):
            return Settlement(state, reason=reason, gone=state is AssetState.LOST, cause=cause)
        case _:
            assert_never(outcome)

"""How one attempt at one asset ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from ledger.base import AssetState, Settlement


@dataclass(frozen=True, slots=True)
class Archived:
    """Whole, verified, committed at every destination by this attempt."""

    stored_bytes: int
    stored_objects: int
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlreadyArchived:
    """Every destination held a manifest that is right; nothing was copied."""

    stored_bytes: int
    stored_objects: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WillRetry:
    """Not archived; when it is tried again, and why. `costs_attempt`: whether the source was really tried."""

    reason: str
    next_attempt_at: datetime
    costs_attempt: bool = True
    mismatch: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """Not archived and not tried again by itself."""

    state: AssetState
    reason: str


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Another worker holds or held the asset, or it was settled already: nothing was written by us."""

    reason: str


Outcome = Archived | AlreadyArchived | WillRetry | Ended | NotOurs


def settlement(outcome: Archived | AlreadyArchived | WillRetry | Ended) -> Settlement:
    """How the ledger is to record it."""
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
        case WillRetry(reason, next_attempt_at, costs_attempt, mismatch):
            return Settlement(
                AssetState.WAITING,
                reason=reason,
                next_attempt_at=next_attempt_at,
                counts_as_attempt=costs_attempt,
                mismatch=mismatch,
            )
        case Ended(state, reason):
            return Settlement(state, reason=reason)
        case _:
            assert_never(outcome)

"""From what went wrong to what happens next: one pure function.

whose fault                               what happens
the source is away, slow, garbled         tried again, later each time, to the deadline and past it
the source says gone or forbidden         the same before the deadline; after it, said several times in a row: lost
the bytes do not check out                tried again on a fresh URL a set number of times, then quarantined
only the m3u8 is signed                   the same, then needs_source_access
workers died with it, and got no further  quarantined: others must go on
a destination or the API refuses us       tried again when its hold ends; costs the asset no attempt
a destination refuses this asset alone    as a source that is away: somebody must see to it, and others go on
we were told to stop, or time is up       at once, by whoever comes next; costs no attempt
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from archiving.deadlines import is_over
from archiving.errors import ContentsError, DestinationsFailed, NeedsSourceAccess
from archiving.outcomes import Ended, WillRetry
from hms.errors import HmsError, HmsNotFound, HmsRefused, HmsUnavailable
from ledger.base import AssetState, Row
from storage_backends.errors import DestinationRefuses, InvalidKey, StorageError
from transfer.errors import (
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    Stopped,
    TransferError,
)

HOLD = timedelta(minutes=5)
"""How long a destination, or the API, that refused us is left alone before one asset tries it again."""

MAX_CRASHES = 5
"""Workers that may die with an asset in hand before it is taken for the cause (celery.md, test 4). One that brought
it further than those before does not count (ledger.base, lease): its machine may be taken away after every hour of a
copy that needs ten."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we go on. `mismatch_attempts`: tries in a row that may end in bytes that do not check out, or
    in `gone` after the deadline."""

    mismatch_attempts: int = 3
    retry_base: timedelta = timedelta(seconds=30)
    retry_max: timedelta = timedelta(hours=1)


def decide(error: Exception, row: Row, now: datetime, patience: Patience, jitter: float) -> WillRetry | Ended:
    """What comes of an attempt that ended in `error`. `jitter` is a random number in [0, 1)."""
    reason = describe(error)
    if isinstance(error, Stopped):
        return WillRetry(reason, now, costs_attempt=False)
    if _refused(error):
        return WillRetry(reason, now + HOLD, costs_attempt=False)
    retry_at = now + _delay(error, row, now, patience, jitter)
    over = isinstance(error, SourceGone | SourceForbidden | HmsNotFound) and is_over(row, now)
    if not over and not _does_not_check_out(error):
        return WillRetry(reason, retry_at)
    if row.mismatches + 1 < patience.mismatch_attempts:
        return WillRetry(reason, retry_at, mismatch=True)
    if over:
        return Ended(AssetState.LOST, f"gone at the source after its retention ended: {reason}")
    if isinstance(error, NeedsSourceAccess):
        return Ended(AssetState.NEEDS_SOURCE_ACCESS, reason)
    return Ended(AssetState.QUARANTINED, reason)


def _refused(error: Exception) -> bool:
    """Nothing is wrong with the asset: every failure of this attempt is one that a person must mend."""
    if isinstance(error, DestinationsFailed):
        return all(isinstance(failure, DestinationRefuses) for failure in error.failed.values())
    return isinstance(error, DestinationRefuses | HmsRefused)


def describe(error: Exception) -> str:
    """The error for people: its own words when it is one of ours, only its class when it is not (a foreign
    error's text may hold a URL)."""
    if isinstance(error, DestinationsFailed):
        return str(error)
    if isinstance(error, HmsError | StorageError | ContentsError | TransferError):
        return f"{type(error).__name__}: {error}"
    return f"internal error {type(error).__name__}; the worker's log has the details"


def _does_not_check_out(error: Exception) -> bool:
    if isinstance(error, ContentsError | SourceMismatch | SourceNotAllowed | InvalidKey):
        return True
    # an error of no known kind is a defect of ours; it must neither loop for ever nor cost the others
    known = HmsError | StorageError | DestinationsFailed | SourceUnavailable | SourceGone | SourceForbidden
    return not isinstance(error, known)


def _delay(error: Exception, row: Row, now: datetime, patience: Patience, jitter: float) -> timedelta:
    """Doubling from `retry_base` to `retry_max`, between half of it and all of it; at most half of the time
    left to the deadline, so that attempts grow denser towards it; what the other side asked for, if longer."""
    doubled = patience.retry_base * (1 << min(max(row.attempts - 1, 0), 20))
    delay = min(doubled, patience.retry_max) * (0.5 + jitter / 2)
    left = row.expires_at - now
    if left > timedelta(0):
        delay = min(delay, max(left / 2, patience.retry_base / 2))
    asked = error.retry_after if isinstance(error, SourceUnavailable | HmsUnavailable) else None
    return max(delay, min(asked, patience.retry_max)) if asked else delay

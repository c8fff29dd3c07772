"""From what went wrong to what happens next: one pure function.

whose fault                               what happens
the source is away, slow, invalid         retried, later each time, to the deadline and past it
the source says gone or forbidden         the same before the deadline; after it, said in a row for a day: lost
it did not arrive whole, nothing stored   retried on a fresh URL, a few times soon and then at least once a day; after
                                          the deadline, the same for a day: lost
it arrived with doubts                    the same; kept with them by the archiver (core.attempt.doubts): quarantined
only the m3u8 is signed                   the same, then needs_source_access
workers died with it, and got no further  put off for longer, so that others go on
a destination or the API refuses us, or
the source's certificate does not verify  retried when the circuit breaker closes; costs the asset no attempt
a destination refuses this asset alone    as a source that is away: somebody must see to it, and others go on
a fault of this machine                   retried soon, perhaps by another worker; costs no attempt (`machine`)
a fault of ours                           retried, later each time; never the asset's fault
we were told to stop, or time is up       at once, by whoever comes next; costs no attempt

Nothing is quarantined here: only what is stored is.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.attempt.outcomes import Ended, WillRetry
from archiver.core.deadlines import is_over, source_ends_at
from archiver.core.destinations.breaker import OPEN_FOR
from archiver.core.errors import ArchiveError, ContentsError, DestinationsFailed, Doubtful, NeedsSourceAccess
from archiver.core.machine import is_machine_fault
from archiver.hms.errors import HmsError, HmsNotFound, HmsUnauthorized
from archiver.ledger.models import AssetState, Row
from archiver.retry_policy import ATTEMPT, RetryPolicy
from archiver.transfer.errors import (
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUntrusted,
    Stopped,
    TransferError,
)
from storage_backends.errors import DestinationRefuses, InvalidKey, StorageError

LOOK_EVERY = timedelta(days=1)
"""The longest pause between two attempts at an asset that is not saved and whose source does not give it whole."""

LOST_AFTER = timedelta(days=1)
"""How long after its deadline an asset must be said to be gone, or not arrive whole, before it is called lost. What is
refused for some minutes, as in an outage, says nothing."""

MAX_CRASHES = 5
"""Workers in a row that may die with an asset in hand before it is taken for the cause (celery.md, test 4). One that
brought it further than those before begins the row anew (ledger.base, lease): its machine may be taken away after every
hour of a copy that needs ten."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When an asset is retried, and when a bad answer is believed.

    `mismatch_attempts` in a row must find the same mismatch, the same doubts, or `gone` after the deadline before it
    counts (`gone` for LOST_AFTER too).
    """

    mismatch_attempts: int = 3
    backoff: RetryPolicy = ATTEMPT


def decide(error: Exception, row: Row, now: datetime, rules: RetryRules, jitter: float) -> WillRetry | Ended:
    """What comes of an attempt that ended in `error`. `jitter` is a random number in [0, 1)."""
    reason = describe(error)
    if isinstance(error, Stopped):
        return WillRetry(reason, timedelta(0), costs_attempt=False)
    if is_machine_fault(error):
        why = f"a fault of the worker's machine, not of the asset: {reason}"
        return WillRetry(why, rules.backoff.base * (1 + jitter), costs_attempt=False, machine_fault=True)
    if _refused(error):
        return WillRetry(reason, max(OPEN_FOR, _asked(error, row, now, rules)), costs_attempt=False)
    delay = _delay(error, row, now, rules, jitter)
    if isinstance(error, SourceGone | SourceForbidden | HmsNotFound):
        if _is_gone_for_good(row, now, rules):
            return Ended(AssetState.LOST, f"gone at the source after its retention ended: {reason}")
        return WillRetry(reason, delay, mismatch=is_over(row, now), gone=True)
    if not _is_mismatch(error):
        return WillRetry(reason, delay)
    found = error.fingerprint if isinstance(error, Doubtful) else None
    if row.mismatches + 1 < rules.mismatch_attempts:
        return WillRetry(reason, delay, mismatch=True, fingerprint=found)
    if isinstance(error, NeedsSourceAccess):
        return Ended(AssetState.NEEDS_SOURCE_ACCESS, reason)
    if not isinstance(error, Doubtful) and _never_arrived(row, now, rules):
        return Ended(AssetState.LOST, f"it never arrived whole while 100ms had it: {reason}")
    if isinstance(error, Doubtful) and error.busy:
        return WillRetry(reason, delay, mismatch=True, fingerprint=found)
    return WillRetry(reason, rare_delay(row, now, rules), mismatch=True, fingerprint=found)


def _is_gone_for_good(row: Row, now: datetime, rules: RetryRules) -> bool:
    """Whether this attempt ends LOST_AFTER in which every attempt was told so, all of it after the deadline."""
    if row.gone_since is None or row.mismatches + 1 < rules.mismatch_attempts:
        return False
    return now - max(row.gone_since, source_ends_at(row)) >= LOST_AFTER


def _never_arrived(row: Row, now: datetime, rules: RetryRules) -> bool:
    """The same of what does not arrive whole. The ledger does not note since when: the attempts are counted, which
    after the deadline come once in `retry_max` (`rare_delay`)."""
    attempts = rules.mismatch_attempts + math.ceil(LOST_AFTER / rules.backoff.cap)
    return is_over(row, now - LOST_AFTER) and row.mismatches + 1 >= attempts


def rare_delay(row: Row, now: datetime, rules: RetryRules) -> timedelta:
    """Of what several attempts in a row found the same: doubling from `retry_max` to a day; at most a quarter of the
    time left to the deadline, so that it is tried more often towards it."""
    delay = rules.backoff.cap * (1 << min(max(row.mismatches + 1 - rules.mismatch_attempts, 0), 10))
    left = source_ends_at(row) - now
    return (
        max(min(delay, LOOK_EVERY, left / 4), rules.backoff.cap) if left > timedelta(0) else rules.backoff.cap
    )


def _refused(error: Exception) -> bool:
    """Nothing is wrong with the asset: every failure of this attempt is one that a person must mend."""
    if isinstance(error, DestinationsFailed):
        return all(isinstance(failure, DestinationRefuses) for failure in error.failed.values())
    return isinstance(error, DestinationRefuses | HmsUnauthorized | SourceUntrusted)


def describe(error: Exception) -> str:
    """The error for people: its own words when it is one of ours, only its class when it is not (a foreign
    error's text may hold a URL)."""
    if isinstance(error, DestinationsFailed | Doubtful):
        return str(error)
    if isinstance(error, HmsError | StorageError | ArchiveError | TransferError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__}: {os.strerror(error.errno)}"
    return f"internal error {type(error).__name__}; the worker's log has the details"


def _is_mismatch(error: Exception) -> bool:
    """What arrived is not whole, or not what it should be, or may not be read."""
    return isinstance(error, ContentsError | Doubtful | SourceMismatch | SourceNotAllowed | InvalidKey)


def _delay(error: Exception, row: Row, now: datetime, rules: RetryRules, jitter: float) -> timedelta:
    """The backoff, or what the other side asked for, if that is longer."""
    backoff = _before_deadline(rules.backoff.pause(row.attempts, jitter), row, now, rules)
    return max(backoff, _asked(error, row, now, rules))


def _asked(error: Exception, row: Row, now: datetime, rules: RetryRules) -> timedelta:
    """The Retry-After of the source, the API or a destination, at most the cap of the backoff; zero without one."""
    asked: timedelta | None = getattr(error, "retry_after", None)
    return _before_deadline(min(asked, rules.backoff.cap), row, now, rules) if asked else timedelta(0)


def _before_deadline(delay: timedelta, row: Row, now: datetime, rules: RetryRules) -> timedelta:
    """At most half of the time left to the deadline, so that attempts grow denser towards it."""
    left = source_ends_at(row) - now
    return min(delay, max(left / 2, rules.backoff.base / 2)) if left > timedelta(0) else delay

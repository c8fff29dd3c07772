"""Decide what an attempt that failed ends in: one pure function.

| error                                      | outcome                                                              |
|--------------------------------------------|----------------------------------------------------------------------|
| source unavailable, slow, invalid          | retried with backoff, to the deadline and past it                    |
| source says gone or forbidden              | the same; past the deadline, said for a whole day: lost              |
| incomplete, nothing stored                 | retried on a fresh URL, soon at first, then at least once a day;     |
|                                            | past the deadline, for a day: lost                                   |
| complete, with doubts                      | the same; core.attempt.doubts says when it is stored and quarantined |
| only the m3u8 is signed                    | the same, then needs_source_access                                   |
| workers died without progress              | retried rarely, so that other assets are not held up                 |
| destination or API refuses everything,     | retried when the circuit breaker is half-open; costs no attempt      |
| source's certificate does not verify       |                                                                      |
| destination refuses this asset alone       | retried with backoff until a person fixes it                         |
| fault of this machine                      | retried soon, perhaps by another worker; costs no attempt            |
| defect of ours                             | retried with backoff; never counts against the asset                 |
| cancelled, or time limit reached            | due at once; costs no attempt                                        |

Nothing is quarantined here: only what is stored is.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
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
"""The longest pause between two attempts at an unsaved asset whose source keeps giving the same bad answer."""

LOST_AFTER = timedelta(days=1)
"""How long past its deadline an asset must be gone, or arrive incomplete, before it is lost. An outage of some minutes
is no evidence."""

MAX_CRASHES = 5
"""Workers in a row that may die during an asset before it counts as the cause. One that made progress resets the count
(`ledger.base.Leases`): machines may be taken away after every hour of a copy that needs ten."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When an asset is retried, and when a bad answer is believed.

    `mismatch_attempts` in a row must find the same mismatch, the same doubts, or `gone` after the deadline before it
    counts (`gone` for LOST_AFTER too).
    """

    mismatch_attempts: int = 3
    backoff: RetryPolicy = ATTEMPT


def decide(error: Exception, row: Row, now: datetime, rules: RetryRules, jitter: float) -> WillRetry | Ended:
    """Decide the outcome of an attempt that ended in `error`. `jitter` is a random number in [0, 1)."""
    return replace(_decide(error, row, now, rules, jitter), cause=cause_of(error))


def _decide(error: Exception, row: Row, now: datetime, rules: RetryRules, jitter: float) -> WillRetry | Ended:
    reason = describe(error)
    if isinstance(error, Stopped):
        return WillRetry(reason, timedelta(0), costs_attempt=False)
    if is_machine_fault(error):
        why = f"the worker's machine failed, not the asset: {reason}"
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
        return Ended(AssetState.LOST, f"it never arrived complete while 100ms had it: {reason}")
    if isinstance(error, Doubtful) and error.busy:
        return WillRetry(reason, delay, mismatch=True, fingerprint=found)
    return WillRetry(reason, rare_delay(row, now, rules), mismatch=True, fingerprint=found)


def _is_gone_for_good(row: Row, now: datetime, rules: RetryRules) -> bool:
    """Return whether every attempt of the last LOST_AFTER, all of it past the deadline, was told so."""
    if row.gone_since is None or row.mismatches + 1 < rules.mismatch_attempts:
        return False
    return now - max(row.gone_since, source_ends_at(row)) >= LOST_AFTER


def _never_arrived(row: Row, now: datetime, rules: RetryRules) -> bool:
    """The same for incomplete copies. The ledger does not record since when: count the attempts, of which past the
    deadline there is one per `backoff.cap` (`rare_delay`)."""
    attempts = rules.mismatch_attempts + math.ceil(LOST_AFTER / rules.backoff.cap)
    return is_over(row, now - LOST_AFTER) and row.mismatches + 1 >= attempts


def rare_delay(row: Row, now: datetime, rules: RetryRules) -> timedelta:
    """The pause when several attempts in a row found the same: doubling from `backoff.cap` to a day, and at most a
    quarter of the time left, so that attempts grow denser towards the deadline."""
    delay = rules.backoff.cap * (1 << min(max(row.mismatches + 1 - rules.mismatch_attempts, 0), 10))
    left = source_ends_at(row) - now
    return (
        max(min(delay, LOOK_EVERY, left / 4), rules.backoff.cap) if left > timedelta(0) else rules.backoff.cap
    )


def _refused(error: Exception) -> bool:
    """Return whether nothing is wrong with the asset, and every failure is one that a person must fix."""
    if isinstance(error, DestinationsFailed):
        return all(isinstance(failure, DestinationRefuses) for failure in error.failed.values())
    return isinstance(error, DestinationRefuses | HmsUnauthorized | SourceUntrusted)


def describe(error: Exception) -> str:
    """Return the error's text if it is one of ours, else only its class: a foreign text may contain a URL."""
    if isinstance(error, DestinationsFailed | Doubtful):
        return str(error)
    if isinstance(error, HmsError | StorageError | ArchiveError | TransferError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__}: {os.strerror(error.errno)}"
    return f"internal error {type(error).__name__}; see the worker's log"


def cause_of(error: Exception) -> str:
    """Name the kind of failure for the metrics: by the error's class if it is ours, else `machine` or `internal`."""
    if isinstance(error, DestinationsFailed):
        return type(next(iter(error.failed.values()), error)).__name__
    if isinstance(error, HmsError | StorageError | ArchiveError | TransferError):
        return type(error).__name__
    return "machine" if is_machine_fault(error) else "internal"


def _is_mismatch(error: Exception) -> bool:
    """Return whether what arrived is incomplete, not what it should be, or may not be read."""
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

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archiver.core.errors
import archiver.hms.errors
import archiver.transfer.errors
import storage_backends.errors
from archiver.core.attempt.decisions import RetryRules, cause_of, decide, describe
from archiver.core.attempt.outcomes import Ended, WillRetry
from archiver.core.deadlines import UNDATED
from archiver.core.destinations.breaker import OPEN_FOR
from archiver.core.errors import (
    BadContents,
    DestinationsFailed,
    Doubtful,
    IncompleteContents,
    NeedsSourceAccess,
)
from archiver.hms.errors import (
    HmsInvalidResponse,
    HmsNotFound,
    HmsRateLimited,
    HmsUnauthorized,
    HmsUnavailable,
)
from archiver.ledger.models import AssetState
from archiver.transfer.errors import (
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    Stopped,
)
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    InvalidKey,
    TransientStorageError,
)
from tests.core.examples import NOW, row

RULES = RetryRules()
TRANSIENT = [
    HmsUnavailable("x"),
    HmsInvalidResponse("x"),
    SourceUnavailable("x"),
    TransientStorageError("x"),
    DestinationsFailed({"s3://b": TransientStorageError("x")}),
]
GONE = [SourceGone("x"), SourceForbidden("x"), HmsNotFound("x")]
MISMATCHES = [
    SourceMismatch("x"),
    SourceNotAllowed("x"),
    BadContents("x"),
    IncompleteContents("x"),
    InvalidKey("x"),
]


@pytest.mark.parametrize("error", [*TRANSIENT, *GONE], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("attempts", [1, 7, 1000])
def test_an_unavailable_source_is_never_given_up_before_the_deadline(error: Exception, attempts: int) -> None:
    outcome = decide(error, row(attempts=attempts), NOW, RULES, 0.5)

    assert isinstance(outcome, WillRetry)
    assert outcome.costs_attempt
    assert timedelta(0) < outcome.delay <= RULES.backoff.cap


HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("past_deadline", "gone_for", "mismatches", "lost"),
    [
        # said for a day, all of it after the deadline, and not only twice
        (DAY, DAY, 2, True),
        (9 * DAY, 3 * DAY, 40, True),
        (DAY, 12 * DAY, 2, True),
        (DAY, DAY, 1, False),
        # three times within minutes: an outage, a firewall
        (MINUTE, MINUTE, 2, False),
        (30 * DAY, 2 * MINUTE, 2, False),
        (30 * DAY, 23 * HOUR, 99, False),
        (30 * DAY, None, 2, False),
        # since long before the deadline, which is just over
        (MINUTE, 10 * DAY, 99, False),
        (23 * HOUR, 10 * DAY, 99, False),
        # before the deadline
        (-MINUTE, 10 * DAY, 99, False),
    ],
)
def test_an_asset_that_is_gone_at_every_attempt_of_a_day_past_the_deadline_is_lost(
    error: Exception, past_deadline: timedelta, gone_for: timedelta | None, mismatches: int, lost: bool
) -> None:
    gone_since = None if gone_for is None else NOW - gone_for
    known = row(expires_at=NOW - past_deadline, gone_since=gone_since, mismatches=mismatches)

    outcome = decide(error, known, NOW, RULES, 0.5)

    if lost:
        assert isinstance(outcome, Ended)
        assert outcome.state is AssetState.LOST
    else:
        assert isinstance(outcome, WillRetry)
        assert outcome.gone
        assert outcome.delay <= RULES.backoff.cap


@pytest.mark.parametrize("expires_at", [UNDATED, NOW.replace(year=1), NOW.replace(year=2010)])
def test_an_asset_with_an_impossible_date_is_not_lost_before_100ms_would_have_deleted_it(
    expires_at: datetime,
) -> None:
    known = row(expires_at=expires_at, first_seen_at=NOW - 14 * DAY, gone_since=NOW - 9 * DAY, mismatches=99)

    assert isinstance(decide(SourceGone("x"), known, NOW, RULES, 0.5), WillRetry)
    assert isinstance(decide(SourceGone("x"), known, NOW + 2 * DAY, RULES, 0.5), Ended)


@pytest.mark.parametrize("error", [*TRANSIENT, *GONE], ids=lambda error: type(error).__name__)
def test_only_gone_and_forbidden_count_as_gone(error: Exception) -> None:
    outcome = decide(error, row(), NOW, RULES, 0.5)

    assert isinstance(outcome, WillRetry)
    assert outcome.gone is (error in GONE)


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_a_transient_fault_past_the_deadline_is_retried(error: Exception) -> None:
    outcome = decide(error, row(expires_at=NOW - timedelta(days=2)), NOW, RULES, 0.5)

    assert isinstance(outcome, WillRetry)


@pytest.mark.parametrize("error", MISMATCHES, ids=lambda error: type(error).__name__)
def test_an_incomplete_copy_is_retried_soon_a_few_times_and_then_daily(
    error: Exception,
) -> None:
    ends = [
        decide(error, row(mismatches=number), NOW, RULES, 0.5) for number in range(RULES.mismatch_attempts)
    ]

    assert all(isinstance(end, WillRetry) and end.mismatch for end in ends)
    waits = [end.delay for end in ends if isinstance(end, WillRetry)]
    assert waits[0] < timedelta(minutes=2)
    assert waits[-1] == timedelta(hours=1)
    late = decide(error, row(mismatches=20), NOW, RULES, 0.5)
    assert isinstance(late, WillRetry)
    assert timedelta(hours=12) <= late.delay <= timedelta(days=1)


@pytest.mark.parametrize("error", MISMATCHES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("past_deadline", "mismatches", "lost"),
    [
        (25 * HOUR, 26, True),
        (25 * HOUR, 25, False),  # at once an hour these are less than a day
        (30 * DAY, 2, False),
        (30 * DAY, 9, False),
        (HOUR, 99, False),
        (-HOUR, 99, False),
    ],
)
def test_an_incomplete_copy_is_lost_after_a_day_of_attempts_past_the_deadline(
    error: Exception, past_deadline: timedelta, mismatches: int, lost: bool
) -> None:
    known = row(expires_at=NOW - past_deadline, mismatches=mismatches)

    outcome = decide(error, known, NOW, RULES, 0.5)

    if lost:
        assert isinstance(outcome, Ended)
        assert outcome.state is AssetState.LOST
    else:
        assert isinstance(outcome, WillRetry)


def wrapped(error: Exception) -> Exception:
    try:
        raise TransientStorageError("no answer") from error
    except TransientStorageError as outer:
        return outer


MACHINE = [MemoryError(), RuntimeError("can't start new thread"), OSError(28, "No space"), OSError(24, "x")]


@pytest.mark.parametrize(
    "error",
    [
        *MACHINE,
        wrapped(MemoryError()),
        DestinationsFailed({"a": wrapped(OSError(24, "x"))}),  # type: ignore[dict-item] # a StorageError
    ],
    ids=repr,
)
def test_a_fault_of_this_machine_costs_the_asset_nothing(error: Exception) -> None:
    outcome = decide(error, row(mismatches=99, expires_at=NOW - timedelta(days=9)), NOW, RULES, 0.5)

    assert isinstance(outcome, WillRetry)
    assert outcome.machine_fault
    assert not outcome.costs_attempt
    assert not outcome.mismatch
    assert RULES.backoff.base <= outcome.delay <= 2 * RULES.backoff.base
    assert "machine" in outcome.reason


def test_a_defect_of_ours_is_never_the_assets_fault() -> None:
    outcome = decide(TypeError("x"), row(mismatches=99, expires_at=NOW - timedelta(days=9)), NOW, RULES, 0.5)

    assert isinstance(outcome, WillRetry)
    assert outcome.costs_attempt
    assert not outcome.machine_fault
    assert not outcome.mismatch


def test_a_playlist_whose_children_stay_forbidden_needs_source_access() -> None:
    outcome = decide(NeedsSourceAccess("x"), row(mismatches=2), NOW, RULES, 0.5)

    assert outcome == Ended(AssetState.NEEDS_SOURCE_ACCESS, "NeedsSourceAccess: x")


@pytest.mark.parametrize(
    "error",
    [
        HmsUnauthorized("x"),
        AccessDenied("x"),
        DestinationsFailed({"s3://a": AccessDenied("x"), "s3://b": BucketMissing("x")}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_refusal_that_a_person_must_fix_costs_no_attempt(error: Exception) -> None:
    outcome = decide(error, row(), NOW, RULES, 0.5)

    assert isinstance(outcome, WillRetry)
    assert not outcome.costs_attempt
    assert outcome.delay == OPEN_FOR


def test_being_told_to_stop_makes_the_asset_due_at_once() -> None:
    outcome = decide(Stopped("x"), row(), NOW, RULES, 0.5)

    assert outcome == WillRetry("Stopped: x", timedelta(0), costs_attempt=False)


@pytest.mark.parametrize(
    ("error", "left", "shortest", "longest"),
    [
        # a Retry-After longer than the backoff of the first attempt, 15 to 30 s
        (HmsRateLimited("x", 4 * MINUTE), DAY, 4 * MINUTE, 4 * MINUTE),
        (SourceUnavailable("x", 4 * MINUTE), DAY, 4 * MINUTE, 4 * MINUTE),
        (Doubtful("x", busy=True, retry_after=4 * MINUTE), DAY, 4 * MINUTE, 4 * MINUTE),
        (TransientStorageError("x", retry_after=4 * MINUTE), DAY, 4 * MINUTE, 4 * MINUTE),
        (
            DestinationsFailed({"a": TransientStorageError("x", retry_after=4 * MINUTE)}),
            DAY,
            4 * MINUTE,
            4 * MINUTE,
        ),
        # the longest of several destinations
        (
            DestinationsFailed(
                {
                    "a": TransientStorageError("x", retry_after=4 * MINUTE),
                    "b": TransientStorageError("x", retry_after=9 * MINUTE),
                    "c": TransientStorageError("x"),
                }
            ),
            DAY,
            9 * MINUTE,
            9 * MINUTE,
        ),
        # shorter than the backoff, or none
        (
            TransientStorageError("x", retry_after=timedelta(seconds=1)),
            DAY,
            timedelta(seconds=15),
            MINUTE / 2,
        ),
        (TransientStorageError("x"), DAY, timedelta(seconds=15), MINUTE / 2),
        # longer than the longest backoff: a wrong header must not put an asset off for days
        (TransientStorageError("x", retry_after=4 * DAY), 9 * DAY, HOUR, HOUR),
        (SourceUnavailable("x", 4 * DAY), 9 * DAY, HOUR, HOUR),
        # longer than half of the time left to the deadline
        (TransientStorageError("x", retry_after=50 * MINUTE), HOUR, 30 * MINUTE, 30 * MINUTE),
        (
            DestinationsFailed({"a": TransientStorageError("x", retry_after=HOUR)}),
            20 * MINUTE,
            10 * MINUTE,
            10 * MINUTE,
        ),
        (HmsRateLimited("x", HOUR), 20 * MINUTE, 10 * MINUTE, 10 * MINUTE),
        # past the deadline there is nothing to be late for
        (TransientStorageError("x", retry_after=50 * MINUTE), -DAY, 50 * MINUTE, 50 * MINUTE),
        # a refusal waits for the circuit breaker, or longer
        (AccessDenied("x", retry_after=MINUTE), DAY, OPEN_FOR, OPEN_FOR),
        (AccessDenied("x", retry_after=20 * MINUTE), DAY, 20 * MINUTE, 20 * MINUTE),
    ],
)
@pytest.mark.parametrize("jitter", [0.0, 0.999])
def test_a_retry_after_is_honoured_up_to_an_hour_and_to_half_of_the_time_left(
    error: Exception, left: timedelta, shortest: timedelta, longest: timedelta, jitter: float
) -> None:
    outcome = decide(error, row(expires_at=NOW + left), NOW, RULES, jitter)

    assert isinstance(outcome, WillRetry)
    assert shortest <= outcome.delay <= longest


@given(
    attempts=st.integers(0, 10_000),
    left_seconds=st.integers(60, 15 * 86400),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_the_next_attempt_always_lies_before_the_deadline(
    attempts: int, left_seconds: int, jitter: float
) -> None:
    deadline = NOW + timedelta(seconds=left_seconds)

    outcome = decide(SourceUnavailable("x"), row(attempts=attempts, expires_at=deadline), NOW, RULES, jitter)

    assert isinstance(outcome, WillRetry)
    assert NOW < NOW + outcome.delay < deadline


def test_a_foreign_error_is_named_but_not_quoted() -> None:
    text = describe(OSError("GET https://bucket/x?X-Amz-Signature=secret"))

    assert "OSError" in text
    assert "secret" not in text


def test_every_error_of_our_trees_has_a_description() -> None:
    roots = [
        archiver.hms.errors.HmsError,
        archiver.transfer.errors.TransferError,
        storage_backends.errors.StorageError,
        archiver.core.errors.ArchiveError,
    ]
    leaves = [kind for root in roots for kind in _leaves(root)]

    for kind in leaves:
        error = kind({}) if kind is DestinationsFailed else kind("x")
        assert "internal error" not in describe(error) or kind is archiver.core.errors.ManifestError


def _leaves(kind: type[Exception]) -> list[type[Exception]]:
    below = [leaf for child in kind.__subclasses__() for leaf in _leaves(child)]
    return below or [kind]


def test_the_cause_of_a_failure_is_one_of_a_few_words_with_nothing_of_the_asset() -> None:
    failed = DestinationsFailed({"s3://b": AccessDenied("no")})

    assert cause_of(SourceGone("https://cdn/x?sig=secret")) == "SourceGone"
    assert cause_of(failed) == "AccessDenied"
    assert cause_of(MemoryError()) == "machine"
    assert cause_of(RuntimeError("https://cdn/x?sig=secret")) == "internal"
    assert decide(SourceGone("x"), row(), NOW, RetryRules(), 0.5).cause == "SourceGone"

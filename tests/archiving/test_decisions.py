from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archiving.errors
import hms.errors
import storage_backends.errors
import transfer.errors
from archiving.decisions import HOLD, Patience, decide, describe
from archiving.errors import BadContents, DestinationsFailed, IncompleteContents, NeedsSourceAccess
from archiving.outcomes import Ended, WillRetry
from hms.errors import HmsGarbled, HmsNotFound, HmsRateLimited, HmsRefused, HmsUnavailable
from ledger.base import AssetState
from storage_backends.errors import AccessDenied, BucketMissing, InvalidKey, TransientStorageError
from tests.archiving.examples import NOW, row
from transfer.errors import (
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    Stopped,
)

PATIENCE = Patience()
PASSING = [
    HmsUnavailable("x"),
    HmsGarbled("x"),
    SourceUnavailable("x"),
    TransientStorageError("x"),
    DestinationsFailed({"s3://b": TransientStorageError("x")}),
]
GONE = [SourceGone("x"), SourceForbidden("x"), HmsNotFound("x")]
DOES_NOT_CHECK_OUT = [
    SourceMismatch("x"),
    SourceNotAllowed("x"),
    BadContents("x"),
    IncompleteContents("x"),
    InvalidKey("x"),
]


@pytest.mark.parametrize("error", [*PASSING, *GONE], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("attempts", [1, 7, 1000])
def test_a_source_that_is_away_is_never_given_up_before_the_deadline(error: Exception, attempts: int) -> None:
    outcome = decide(error, row(attempts=attempts), NOW, PATIENCE, 0.5)

    assert isinstance(outcome, WillRetry)
    assert outcome.costs_attempt
    assert timedelta(0) < outcome.delay <= PATIENCE.retry_max


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
def test_what_is_gone_after_its_retention_ended_is_lost_when_the_source_says_so_again_and_again(
    error: Exception,
) -> None:
    once = decide(error, row(expires_at=NOW), NOW, PATIENCE, 0.5)
    at_last = decide(error, row(expires_at=NOW, mismatches=2), NOW, PATIENCE, 0.5)

    assert isinstance(once, WillRetry)
    assert once.mismatch
    assert isinstance(at_last, Ended)
    assert at_last.state is AssetState.LOST


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_a_passing_fault_after_the_deadline_is_still_tried_again(error: Exception) -> None:
    outcome = decide(error, row(expires_at=NOW - timedelta(days=2)), NOW, PATIENCE, 0.5)

    assert isinstance(outcome, WillRetry)


@pytest.mark.parametrize("error", DOES_NOT_CHECK_OUT, ids=lambda error: type(error).__name__)
def test_what_does_not_arrive_whole_is_retried_soon_a_set_number_of_times_and_then_daily(
    error: Exception,
) -> None:
    ends = [
        decide(error, row(mismatches=number), NOW, PATIENCE, 0.5)
        for number in range(PATIENCE.mismatch_attempts)
    ]

    assert all(isinstance(end, WillRetry) and end.mismatch for end in ends)
    waits = [end.delay for end in ends if isinstance(end, WillRetry)]
    assert waits[0] < timedelta(minutes=2)
    assert waits[-1] == timedelta(hours=1)
    late = decide(error, row(mismatches=20), NOW, PATIENCE, 0.5)
    assert isinstance(late, WillRetry)
    assert timedelta(hours=12) <= late.delay <= timedelta(days=1)


@pytest.mark.parametrize("error", DOES_NOT_CHECK_OUT, ids=lambda error: type(error).__name__)
def test_what_never_arrived_whole_is_lost_a_day_after_its_deadline(error: Exception) -> None:
    soon = decide(error, row(expires_at=NOW - timedelta(hours=1), mismatches=9), NOW, PATIENCE, 0.5)
    late = decide(error, row(expires_at=NOW - timedelta(hours=25), mismatches=9), NOW, PATIENCE, 0.5)

    assert isinstance(soon, WillRetry)
    assert isinstance(late, Ended)
    assert late.state is AssetState.LOST


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
    outcome = decide(error, row(mismatches=99, expires_at=NOW - timedelta(days=9)), NOW, PATIENCE, 0.5)

    assert isinstance(outcome, WillRetry)
    assert outcome.machine_fault
    assert not outcome.costs_attempt
    assert not outcome.mismatch
    assert PATIENCE.retry_base <= outcome.delay <= 2 * PATIENCE.retry_base
    assert "machine" in outcome.reason


def test_a_defect_of_ours_is_never_the_assets_fault() -> None:
    outcome = decide(
        TypeError("x"), row(mismatches=99, expires_at=NOW - timedelta(days=9)), NOW, PATIENCE, 0.5
    )

    assert isinstance(outcome, WillRetry)
    assert outcome.costs_attempt
    assert not outcome.machine_fault
    assert not outcome.mismatch


def test_a_master_whose_children_stay_forbidden_needs_source_access() -> None:
    outcome = decide(NeedsSourceAccess("x"), row(mismatches=2), NOW, PATIENCE, 0.5)

    assert outcome == Ended(AssetState.NEEDS_SOURCE_ACCESS, "NeedsSourceAccess: x")


@pytest.mark.parametrize(
    "error",
    [
        HmsRefused("x"),
        AccessDenied("x"),
        DestinationsFailed({"s3://a": AccessDenied("x"), "s3://b": BucketMissing("x")}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_refusal_that_a_person_must_mend_costs_the_asset_no_attempt(error: Exception) -> None:
    outcome = decide(error, row(), NOW, PATIENCE, 0.5)

    assert isinstance(outcome, WillRetry)
    assert not outcome.costs_attempt
    assert outcome.delay == HOLD


def test_being_told_to_stop_makes_the_asset_due_at_once() -> None:
    outcome = decide(Stopped("x"), row(), NOW, PATIENCE, 0.5)

    assert outcome == WillRetry("Stopped: x", timedelta(0), costs_attempt=False)


def test_a_retry_after_is_honoured_up_to_the_longest_delay() -> None:
    short = decide(HmsRateLimited("x", timedelta(minutes=4)), row(), NOW, PATIENCE, 0.0)
    endless = decide(SourceUnavailable("x", timedelta(days=4)), row(), NOW, PATIENCE, 0.0)

    assert isinstance(short, WillRetry)
    assert isinstance(endless, WillRetry)
    assert short.delay == timedelta(minutes=4)
    assert endless.delay == PATIENCE.retry_max


@given(
    attempts=st.integers(0, 10_000),
    left_seconds=st.integers(60, 15 * 86400),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_the_next_attempt_always_lies_before_the_deadline(
    attempts: int, left_seconds: int, jitter: float
) -> None:
    deadline = NOW + timedelta(seconds=left_seconds)

    outcome = decide(
        SourceUnavailable("x"), row(attempts=attempts, expires_at=deadline), NOW, PATIENCE, jitter
    )

    assert isinstance(outcome, WillRetry)
    assert NOW < NOW + outcome.delay < deadline


def test_a_foreign_error_is_named_but_not_quoted() -> None:
    text = describe(OSError("GET https://bucket/x?X-Amz-Signature=secret"))

    assert "OSError" in text
    assert "secret" not in text


def test_every_error_of_our_trees_has_a_decision_made_on_purpose() -> None:
    roots = [
        hms.errors.HmsError,
        transfer.errors.TransferError,
        storage_backends.errors.StorageError,
        archiving.errors.ArchiveError,
    ]
    leaves = [kind for root in roots for kind in _leaves(root)]

    for kind in leaves:
        error = kind({}) if kind is DestinationsFailed else kind("x")
        assert "internal error" not in describe(error) or kind is archiving.errors.ManifestError


def _leaves(kind: type[Exception]) -> list[type[Exception]]:
    below = [leaf for child in kind.__subclasses__() for leaf in _leaves(child)]
    return below or [kind]

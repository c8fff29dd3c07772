"""Backoff, jitter, Retry-After, and what the default policies amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.http.waiting import Pause
from archiver.retry_policy import (
    API_CALL,
    ATTEMPT,
    MACHINE_FAULT,
    REQUEST,
    RESTART,
    SETTLING,
    STORE_CALL,
    RetryPolicy,
)
from archiver.transfer.errors import SourceForbidden, SourceUnavailable


def pauses(policy: RetryPolicy, failures: int, chance: float) -> list[float]:
    return [policy.pause(n, chance).total_seconds() for n in range(1, failures + 1)]


@pytest.mark.parametrize(
    ("policy", "failures", "shortest", "longest"),
    [
        (REQUEST, 3, [0, 0, 0], [0.5, 1, 2]),
        (STORE_CALL, 6, [0] * 6, [1, 2, 4, 8, 16, 20]),
        (RESTART, 7, [1, 2, 4, 8, 16, 30, 30], [1, 2, 4, 8, 16, 30, 30]),
        (API_CALL, 4, [0.25, 0.5, 1, 2], [0.5, 1, 2, 4]),
        (SETTLING, 5, [1, 2, 4, 5, 5], [1, 2, 4, 5, 5]),
        (
            ATTEMPT,
            9,
            [15, 30, 60, 120, 240, 480, 960, 1800, 1800],
            [30, 60, 120, 240, 480, 960, 1920, 3600, 3600],
        ),
        (MACHINE_FAULT, 5, [5, 10, 20, 40, 60], [5, 10, 20, 40, 60]),
    ],
)
def test_pauses_double_from_base_to_cap_within_the_jitter(
    policy: RetryPolicy, failures: int, shortest: list[float], longest: list[float]
) -> None:
    assert pauses(policy, failures, 0) == shortest
    assert pauses(policy, failures, 1) == longest


def test_a_pause_after_very_many_failures_is_the_cap() -> None:
    assert ATTEMPT.pause(10**9, 1) == ATTEMPT.cap


def test_the_pauses_before_a_finished_copy_is_given_up_are_two_minutes() -> None:
    assert SETTLING.attempts
    assert sum(pauses(SETTLING, SETTLING.attempts - 1, 0)) == 117


# -- run ------------------------------------------------------------------------------------------------------
def always(_: Exception) -> bool:
    return True


class Tried:
    """Runs an action that fails with `error`, or with nothing left to say; the pauses pass in no time."""

    def __init__(
        self, error: Exception, policy: RetryPolicy, worth_it: Callable[[Exception], bool] = always
    ) -> None:
        self.tries = 0
        self.pauses: list[float] = []
        self.raised: Exception | None = None

        async def action() -> None:
            self.tries += 1
            raise error

        run = policy.run(action, worth_it)
        try:
            wait = run.send(None)
            while True:
                assert isinstance(wait, Pause)
                self.pauses.append(wait.seconds)
                wait = run.send(None)
        except Exception as raised:
            self.raised = raised


def test_retries_end_after_their_tries() -> None:
    error = SourceUnavailable("no")

    tried = Tried(error, REQUEST)

    assert tried.raised is error
    assert tried.tries == 4
    assert all(0 <= pause <= 0.5 * 2**n for n, pause in enumerate(tried.pauses))
    assert len(tried.pauses) == 3


def test_pauses_grow_up_to_a_bound() -> None:
    policy = replace(REQUEST, attempts=200, base=timedelta(seconds=1), cap=timedelta(seconds=3))

    pauses = Tried(SourceUnavailable("no"), policy).pauses

    assert 2 < max(pauses) <= 3


def test_what_is_not_worth_it_is_not_tried_again() -> None:
    tried = Tried(SourceForbidden("no"), REQUEST, lambda error: isinstance(error, SourceUnavailable))

    assert (tried.tries, tried.pauses) == (1, [])
    assert isinstance(tried.raised, SourceForbidden)


@pytest.mark.parametrize(("asked", "tries"), [(15, 4), (21, 1)])
def test_the_other_sides_wish_is_a_pause_unless_the_ledger_waits_better(asked: int, tries: int) -> None:
    tried = Tried(SourceUnavailable("no", timedelta(seconds=asked)), REQUEST)

    assert tried.tries == tries
    assert all(pause >= asked for pause in tried.pauses)


def test_a_blocking_call_is_retried_alike() -> None:
    answers: Iterator[Exception | str] = iter([SourceUnavailable("no"), SourceUnavailable("no"), "yes"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert replace(REQUEST, base=timedelta()).call(call, always) == "yes"

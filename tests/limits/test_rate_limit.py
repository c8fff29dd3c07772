"""A rate holds over all that reserve, and nothing is saved up."""

from __future__ import annotations

import random

import pytest

from archiver.limits.rate_limit import ALONE_SECONDS, RESERVED_SECONDS, RateLimit

RATE = 1000.0


class Account:
    """As a ledger keeps it, on a clock that only moves when told."""

    def __init__(self) -> None:
        self.seconds = 50.0
        self.earned_at = 0.0
        self.calls = 0
        self.reachable = True

    def reserve(self, _name: str, amount: float, per_second: float) -> float | None:
        self.calls += 1
        if not self.reachable:
            return None
        self.earned_at = max(self.earned_at, self.seconds) + amount / per_second
        return self.earned_at - self.seconds

    def limit(self, rate: float | None = RATE, processes: int = 1) -> RateLimit:
        return RateLimit("x", lambda: rate, self.reserve, processes=processes, monotonic=lambda: self.seconds)


def test_an_amount_may_be_used_once_it_is_earned() -> None:
    limit = Account().limit()

    assert limit.reserve(500) == pytest.approx(0.5)
    assert limit.reserve(500) == pytest.approx(1.0)


def test_nothing_is_saved_up_while_nobody_reserves() -> None:
    account = Account()
    limit = account.limit()
    limit.reserve(500)
    account.seconds += 3600

    assert limit.reserve(500) == pytest.approx(0.5)


@pytest.mark.parametrize("processes", [1, 7])
def test_all_processes_together_hold_the_rate_within_a_hundredth(processes: int) -> None:
    account, chance = Account(), random.Random(5)
    limits = [account.limit() for _ in range(processes)]
    began, used = account.seconds, 0
    free_at = [account.seconds] * processes
    while used < 200_000:  # the process that is free first reads next
        turn = min(range(processes), key=free_at.__getitem__)
        account.seconds = max(account.seconds, free_at[turn])
        amount = chance.randint(1, 2000)
        free_at[turn] = account.seconds + limits[turn].reserve(amount)
        used += amount

    seconds = max(free_at) - began
    assert used / seconds == pytest.approx(RATE, rel=0.01)
    assert used / seconds <= RATE * 1.0001


def test_small_amounts_ask_the_account_ten_times_a_second_at_most() -> None:
    account = Account()
    limit = account.limit()

    for _ in range(1000):
        account.seconds += limit.reserve(1)

    assert account.calls <= 1000 / RATE / RESERVED_SECONDS + 1


def test_what_is_corrected_is_paid_by_what_comes_next() -> None:
    account = Account()
    limit = account.limit()
    account.seconds += limit.reserve(1000)
    limit.correct(5000)
    account.seconds += limit.reserve(1000)
    limit.correct(-2000)

    assert account.seconds == pytest.approx(50 + 7)
    assert limit.reserve(1000) == 0
    assert limit.reserve(1000) == 0
    assert limit.reserve(1000) == pytest.approx(1)


def test_without_the_account_each_process_keeps_to_its_share() -> None:
    account = Account()
    account.reachable = False
    limit = account.limit(processes=4)

    assert [limit.reserve(500) for _ in range(3)] == pytest.approx([2, 4, 6])


def test_an_account_that_was_away_is_asked_again_after_half_a_minute() -> None:
    account = Account()
    account.reachable = False
    limit = account.limit(processes=4)
    for _ in range(20):
        limit.reserve(500)
    assert account.calls == 1

    account.reachable = True
    account.seconds += ALONE_SECONDS

    assert limit.reserve(500) == pytest.approx(0.5)
    assert account.calls == 2


def test_an_unlimited_rate_asks_nobody() -> None:
    account = Account()

    assert account.limit(rate=None).reserve(10**12) == 0
    assert account.calls == 0

"""The clock of the ledger's server steps by hours or days: what was timed by it before is not stuck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from archiver.core.destinations import breaker
from archiver.ledger.models import MAX_LEASE, MAX_WAIT, AssetState, Settlement
from tests.contracts.ledger_contract import (
    AT_ONCE,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    LedgerHarness,
    ids,
    put,
    row,
    seen,
    take_lease,
    waiting,
)
from tests.ledger.harnesses import MemoryHarness, RedisHarness

STEP_BACK = -3 * DAY


@pytest.fixture(params=["memory", "redis"])
def harness(request: pytest.FixtureRequest) -> Iterator[LedgerHarness]:
    if request.param == "memory":
        yield MemoryHarness()
        return
    there = RedisHarness(request.getfixturevalue("redis_url"))
    yield there
    there.close()


def _wait(harness: LedgerHarness) -> None:
    put(harness, AssetState.DISCOVERED)
    harness.ledger.settle(take_lease(harness), seen(), waiting(HOUR))


def _wait_for_long(harness: LedgerHarness) -> None:
    harness.ledger.discover([seen(expires_in=14 * DAY)])
    harness.ledger.settle(take_lease(harness), seen(), waiting(MAX_WAIT))


def _queue(harness: LedgerHarness) -> None:
    put(harness, AssetState.DISCOVERED)
    assert harness.ledger.take_due(10, 10 * MINUTE)


def _die_while_copying(harness: LedgerHarness) -> None:
    put(harness, AssetState.DISCOVERED)
    take_lease(harness)


@pytest.mark.parametrize("begin", [_wait, _wait_for_long, _queue, _die_while_copying])
def test_what_waits_is_due_after_a_step_back(
    harness: LedgerHarness, begin: Callable[[LedgerHarness], None]
) -> None:
    """Else it would wait for as long as the step, and 100ms might delete it meanwhile."""
    begin(harness)
    assert harness.ledger.take_due(10, 10 * MINUTE) == []

    harness.advance(STEP_BACK)

    assert ids(harness.ledger.take_due(10, 10 * MINUTE)) == ["a"]
    assert harness.ledger.take_due(10, 10 * MINUTE) == []
    assert harness.ledger.lease("a", "worker 2", MINUTE) is not None


@pytest.mark.parametrize("begin", [_wait, _queue, _die_while_copying])
@pytest.mark.parametrize("step", [-SECOND, -4 * MINUTE])
def test_a_clock_that_is_corrected_by_minutes_ends_nothing(
    harness: LedgerHarness, begin: Callable[[LedgerHarness], None], step: timedelta
) -> None:
    begin(harness)

    harness.advance(step)

    assert harness.ledger.take_due(10, 10 * MINUTE) == []


@pytest.mark.parametrize("begin", [_wait, _wait_for_long, _die_while_copying])
def test_a_lease_is_given_after_a_step_back_without_a_dispatch(
    harness: LedgerHarness, begin: Callable[[LedgerHarness], None]
) -> None:
    begin(harness)
    assert harness.ledger.lease("a", "worker 2", MINUTE) is None

    harness.advance(STEP_BACK)

    assert harness.ledger.lease("a", "worker 2", MINUTE) is not None


def test_the_longest_wait_and_lease_last_as_long_as_asked_for(harness: LedgerHarness) -> None:
    _wait_for_long(harness)
    harness.ledger.discover([seen("b")])
    assert harness.ledger.lease("b", "worker", MAX_LEASE) is not None

    harness.advance(MAX_LEASE - SECOND)

    assert harness.ledger.take_due(10, 10 * MINUTE) == []
    assert harness.ledger.lease("b", "worker 2", MINUTE) is None


def test_a_worker_that_lives_keeps_its_lease_by_renewing_it(harness: LedgerHarness) -> None:
    put(harness, AssetState.DISCOVERED)
    lease = take_lease(harness)
    harness.advance(STEP_BACK)

    harness.ledger.renew(lease, 2 * MINUTE)

    assert harness.ledger.take_due(10, 10 * MINUTE) == []
    assert harness.ledger.settle(lease, seen(), Settlement(AssetState.ARCHIVED)).state is AssetState.ARCHIVED


def test_an_end_that_is_leased_is_free_after_a_step_back(harness: LedgerHarness) -> None:
    put(harness, AssetState.ARCHIVED)
    assert harness.ledger.lease_ended("a", "repairer", MINUTE) is not None
    assert harness.ledger.lease_ended("a", "another", MINUTE) is None

    harness.advance(STEP_BACK)

    assert harness.ledger.lease_ended("a", "another", MINUTE) is not None


def test_a_lock_of_a_dead_process_ends_after_a_step_back(harness: LedgerHarness) -> None:
    token = harness.ledger.lock("sweep", 5 * MINUTE)
    assert token is not None
    harness.advance(-4 * MINUTE)
    assert harness.ledger.lock("sweep", 5 * MINUTE) is None

    harness.advance(STEP_BACK)
    another = harness.ledger.lock("sweep", 5 * MINUTE)

    assert another is not None
    assert not harness.ledger.extend_lock("sweep", token, 5 * MINUTE)
    assert harness.ledger.lock("sweep", 5 * MINUTE) is None


def test_a_circuit_breaker_closes_after_a_step_back(harness: LedgerHarness) -> None:
    breaker.trip(harness.ledger, "s3://bucket", "403", harness.now)
    breaker.pause(harness.ledger, "s3://other", by="ann", why="", now=harness.now)
    assert len(breaker.opened(harness.ledger, harness.now)) == 2

    harness.advance(-HOUR)
    assert list(breaker.opened(harness.ledger, harness.now)) == []
    assert not breaker.half_open(harness.ledger.recall_all(breaker.PREFIX), harness.now)


def test_gone_counts_from_a_time_that_is_past(harness: LedgerHarness) -> None:
    """Else nothing would be called lost for as long as the clock was ahead."""
    gone = Settlement(AssetState.WAITING, "404", delay=AT_ONCE, gone=True)
    put(harness, AssetState.DISCOVERED)
    harness.ledger.settle(take_lease(harness), seen(), gone)
    harness.advance(STEP_BACK)

    harness.ledger.settle(take_lease(harness), seen(), gone)

    assert row(harness).gone_since == harness.now


def test_a_step_ahead_ends_waits_and_leases_and_gives_growing_tokens(harness: LedgerHarness) -> None:
    _die_while_copying(harness)
    first = row(harness)
    harness.advance(400 * DAY)

    lease = harness.ledger.lease("a", "worker 2", MINUTE)
    assert lease is not None
    harness.advance(-400 * DAY)
    later = harness.ledger.lease("a", "worker 3", MINUTE)

    assert later is not None
    assert later.fence > lease.fence
    assert row(harness).expires_at == first.expires_at
    assert row(harness).state is AssetState.RUNNING

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from archiver.core.attempt import heartbeat
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.heartbeat_starter import HeartbeatStarter
from archiver.core.judging import Scope, judge
from archiver.core.machine import is_machine_fault
from archiver.ledger.errors import LeaseLost, LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import Lease, Progress
from archiver.transfer.errors import Stopped
from storage_backends.base import object_key
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock

LEASE = timedelta(minutes=2)


class Ledger(MemoryLedger):
    """Says when it was asked; `away` while it does not answer."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.away = False
        self.renewals = 0
        self.asked = threading.Condition()

    def renew(self, lease: Lease, duration: timedelta) -> None:
        with self.asked:
            self.renewals += 1
            self.asked.notify_all()
        if self.away:
            raise LedgerUnavailable("renew: nothing listens there")
        super().renew(lease, duration)

    def wait_for_renewals(self, count: int) -> None:
        with self.asked:
            assert self.asked.wait_for(lambda: self.renewals >= count, timeout=10)


class Harness:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "TICK", timedelta(milliseconds=5))
        self.clock = Clock(NOW)
        self.ledger = Ledger(self.clock)
        self.ledger.discover([judge(asset(), Scope(RETENTION))])
        lease = self.ledger.lease(asset().id, "test", LEASE)
        assert lease is not None
        self.lease = lease
        self.stopping = False

    def heartbeat(self, renew_every: timedelta = timedelta(0)) -> Heartbeat:
        return Heartbeat(
            self.ledger,
            self.lease,
            LEASE,
            renew_every=renew_every,
            asset_type="room-composite",
            bytes_total=1000,
            stop_requested=lambda: self.stopping,
        )

    def give_to_another(self) -> None:
        self.clock.advance(LEASE + timedelta(seconds=1))
        assert self.ledger.lease(asset().id, "another", LEASE)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(monkeypatch)


def test_the_lease_is_renewed_while_the_block_runs_and_not_after_it(harness: Harness) -> None:
    with harness.heartbeat() as beating:
        harness.ledger.wait_for_renewals(3)
        beating.check()

    after = harness.ledger.renewals
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heartbeat-")]
    assert harness.ledger.renewals == after


def test_a_lease_that_another_worker_was_given_ends_the_copy(harness: Harness) -> None:
    with harness.heartbeat() as beating:
        harness.ledger.wait_for_renewals(1)
        harness.give_to_another()
        asked = harness.ledger.renewals
        harness.ledger.wait_for_renewals(asked + 1)

    with pytest.raises(LeaseLost):
        beating.check()
    with pytest.raises(LeaseLost):
        beating.confirm()


def test_a_ledger_that_is_away_is_no_reason_to_stop(harness: Harness) -> None:
    with harness.heartbeat() as beating:
        harness.ledger.away = True
        asked = harness.ledger.renewals
        harness.ledger.wait_for_renewals(asked + 3)

        beating.check()

        harness.ledger.away = False
        asked = harness.ledger.renewals
        harness.ledger.wait_for_renewals(asked + 2)
        beating.check()


def test_the_confirmation_before_a_commit_asks_the_ledger_itself(harness: Harness) -> None:
    with harness.heartbeat(renew_every=timedelta(hours=1)) as beating:
        beating.confirm()
        harness.ledger.away = True
        with pytest.raises(LedgerUnavailable):
            beating.confirm()
        harness.ledger.away = False
        harness.give_to_another()
        beating.check()  # the thread has not asked yet

        with pytest.raises(LeaseLost):
            beating.confirm()


def test_a_stopping_worker_ends_the_copy(harness: Harness) -> None:
    with harness.heartbeat() as beating:
        harness.stopping = True

        with pytest.raises(Stopped):
            beating.check()


def test_progress_is_reported_to_the_ledger(harness: Harness) -> None:
    with harness.heartbeat() as beating:
        beating.moved(object_key("recordings/a/movie.mp4"), 300)
        beating.moved(object_key("recordings/a/movie.mp4"), 200)
        beating.object_done()
        asked = harness.ledger.renewals
        harness.ledger.wait_for_renewals(asked + 2)

        (progress,) = harness.ledger.progress()

    assert progress == Progress(asset().id, "room-composite", 500, 1000, 1, "recordings/a/movie.mp4")
    assert beating.bytes_done == 500


def test_an_attempt_that_ends_at_once_has_no_thread_of_its_own(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "TICK", timedelta(hours=1))

    for _ in range(3):
        with harness.heartbeat() as beating:
            assert beating._thread is None
            beating.check()

    assert harness.ledger.renewals == 0


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()], ids=repr)
def test_starting_the_thread_is_retried_after_any_error(error: Exception) -> None:
    asked, refusals = threading.Semaphore(0), [error]

    def begin() -> None:
        asked.release()
        if refusals:
            raise refusals.pop()

    beats = HeartbeatStarter()
    beats.add(begin, 0)

    assert asked.acquire(timeout=10)
    assert asked.acquire(timeout=10)
    beats.remove(begin)


def test_without_any_thread_the_attempt_fails_and_the_next_one_has_a_heartbeat(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = HeartbeatStarter()
    monkeypatch.setattr(heartbeat, "heartbeat_starter", lambda: beats)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            with harness.heartbeat() as beating, pytest.raises(RuntimeError, match="new thread") as raised:
                beating.check()
            assert is_machine_fault(raised.value)

    with harness.heartbeat() as beating:
        beating.check()
        harness.ledger.wait_for_renewals(2)


@pytest.mark.parametrize(("seconds", "words"), [(100, "is about to end"), (130, "is over")])
def test_a_lease_that_nothing_renews_ends_the_attempt_and_says_whether_it_is_over(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, seconds: int, words: str
) -> None:
    beating = Heartbeat(
        harness.ledger,
        harness.lease,
        timedelta(minutes=2),
        renew_every=timedelta(0),
        asset_type="room-composite",
        bytes_total=None,
    )

    beating.check()
    later = time.monotonic() + seconds
    monkeypatch.setattr(time, "monotonic", lambda: later)

    with pytest.raises(
        RuntimeError, match=f"the lease {words}: nothing renewed it for {seconds} s, .* paused"
    ) as raised:
        beating.check()

    assert is_machine_fault(raised.value)


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")], ids=repr)
def test_a_fault_of_this_machine_does_not_end_the_renewals(
    harness: Harness, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults, renew = [error] * 3, harness.ledger.renew

    def failing(lease: Lease, duration: timedelta) -> None:
        renew(lease, duration)
        if faults:
            raise faults.pop()

    monkeypatch.setattr(harness.ledger, "renew", failing)
    with harness.heartbeat() as beating:
        harness.ledger.wait_for_renewals(6)
        beating.check()

    assert faults == []

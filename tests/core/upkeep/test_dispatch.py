from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.judging import Scope, judge
from archiver.core.upkeep.dispatch import REQUEUE_AFTER, Dispatcher
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Row, Settlement
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock


class Harness:
    def __init__(self, window: int = 3) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.sent: list[tuple[str, bool]] = []
        self.waiting: dict[str, bool] = {}
        self.broker_is_up = True
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            send=self._send,
            clock=self.clock,
            window=window,
            urgent_within=timedelta(days=3),
            waiting=lambda: self.waiting,
        )

    def _send(self, row: Row, urgent: bool) -> None:
        if not self.broker_is_up:
            raise ConnectionError
        self.sent.append((row.asset_id, urgent))
        self.waiting[row.asset_id] = urgent or self.waiting.get(row.asset_id, False)

    def discover(self, asset_id: str, days_old: float) -> None:
        created = (NOW - timedelta(days=days_old)).isoformat()
        self.ledger.discover([judge(asset(id=asset_id, created_at=created), Scope(RETENTION))])


def test_the_most_urgent_go_first_and_only_a_window_of_them() -> None:
    harness = Harness(window=2)
    for asset_id, days_old in (("young", 1), ("old", 14), ("middle", 7)):
        harness.discover(asset_id, days_old)

    harness.dispatcher.dispatch()

    assert harness.sent == [("old", True), ("middle", False)]


def test_a_queued_asset_is_sent_again_only_when_its_message_counts_as_lost() -> None:
    harness = Harness()
    harness.discover("a", 1)
    harness.dispatcher.dispatch()
    harness.dispatcher.dispatch()
    assert len(harness.sent) == 1

    harness.waiting.clear()
    harness.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))
    harness.dispatcher.dispatch()

    assert [asset_id for asset_id, _ in harness.sent] == ["a", "a"]


def test_the_queue_does_not_grow_while_no_worker_takes_a_message() -> None:
    harness = Harness(window=2)
    for asset_id, days_old in (("a", 1), ("b", 2), ("c", 3)):
        harness.discover(asset_id, days_old)

    for _ in range(6):
        harness.dispatcher.dispatch()
        harness.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))

    assert sorted(harness.sent) == [("b", False), ("c", False)]


def test_only_the_messages_that_the_broker_lost_are_sent_again() -> None:
    harness = Harness()
    for asset_id in ("a", "b", "c"):
        harness.discover(asset_id, 1)
    harness.dispatcher.dispatch()
    harness.sent.clear()

    del harness.waiting["b"]
    for _ in range(3):  # two beats, and once more
        harness.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))
        harness.dispatcher.dispatch()
        harness.dispatcher.dispatch()

    assert harness.sent == [("b", False)]


def test_an_asset_that_has_become_urgent_overtakes_what_waits_and_is_sent_once_more() -> None:
    harness = Harness()
    harness.discover("a", 1)
    harness.dispatcher.dispatch()
    harness.clock.advance(timedelta(days=12))

    for _ in range(3):
        harness.dispatcher.dispatch()
        harness.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))

    assert harness.sent == [("a", False), ("a", True)]


def test_an_asset_that_waits_to_be_tried_again_is_sent_although_another_is_late() -> None:
    harness = Harness()
    for asset_id in ("a", "b"):
        harness.discover(asset_id, 1)
    harness.dispatcher.dispatch()
    lease = harness.ledger.lease("a", "worker", timedelta(minutes=2))
    assert lease
    del harness.waiting["a"]
    seen = judge(asset(id="a"), Scope(RETENTION))
    harness.ledger.settle(lease, seen, Settlement(AssetState.WAITING, "503", delay=timedelta(minutes=1)))
    harness.sent.clear()

    harness.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))
    harness.dispatcher.dispatch()

    assert harness.sent == [("a", False)]


def test_an_asset_whose_worker_died_is_sent_again_when_its_lease_ends() -> None:
    harness = Harness()
    harness.discover("a", 1)
    harness.dispatcher.dispatch()
    assert harness.ledger.lease("a", "worker", timedelta(minutes=2))
    harness.dispatcher.dispatch()
    assert len(harness.sent) == 1

    harness.clock.advance(timedelta(minutes=3))
    harness.dispatcher.dispatch()

    assert len(harness.sent) == 2


def test_a_waiting_asset_is_sent_when_its_time_comes() -> None:
    harness = Harness()
    harness.discover("a", 1)
    harness.dispatcher.dispatch()
    lease = harness.ledger.lease("a", "worker", timedelta(minutes=2))
    assert lease
    later = timedelta(minutes=10)
    seen = judge(asset(id="a"), Scope(RETENTION))
    harness.ledger.settle(lease, seen, Settlement(AssetState.WAITING, "503", delay=later))

    harness.dispatcher.dispatch()
    assert len(harness.sent) == 1
    harness.clock.advance(later)
    harness.dispatcher.dispatch()

    assert len(harness.sent) == 2


def test_assets_stay_due_while_the_broker_is_down() -> None:
    harness = Harness()
    harness.discover("a", 1)
    harness.broker_is_up = False
    with pytest.raises(ConnectionError):
        harness.dispatcher.dispatch()

    harness.broker_is_up = True
    harness.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))
    harness.dispatcher.dispatch()

    assert [asset_id for asset_id, _ in harness.sent] == ["a"]

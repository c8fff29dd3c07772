"""With a real broker: what no worker has taken is not sent again, and what the broker lost is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from celery import Celery
from redis import Redis

from archiver.core.judging import Scope, judge
from archiver.core.upkeep.dispatch import REQUEUE_AFTER, Dispatcher
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import Row
from tasks.names import ARCHIVE_ASSET
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures
from worker.celery_setup import waiting_messages as messages
from worker.celery_setup.config import celery_settings
from worker.celery_setup.processes import ARCHIVE_QUEUE, URGENT_QUEUE
from worker.celery_setup.waiting_messages import waiting_messages

PREFIX = "waiting:"


class Fleet:
    """Beat and the control worker, and no archive worker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.app: Celery = Celery(set_as_current=False)
        self.app.conf.update(celery_settings(broker_url=url, key_prefix=PREFIX, concurrency=2))
        self.client = Redis.from_url(url, decode_responses=True)
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            send=self.send,
            clock=self.clock,
            window=4,
            urgent_within=timedelta(days=3),
            waiting=lambda: waiting_messages(url, PREFIX),
        )

    def send(self, row: Row, urgent: bool) -> None:
        queue = URGENT_QUEUE if urgent else ARCHIVE_QUEUE
        self.app.send_task(
            ARCHIVE_ASSET, kwargs={"asset_id": row.asset_id, "asset_type": row.type}, queue=queue
        )

    def discover(self, asset_id: str, days_old: float) -> None:
        created = (NOW - timedelta(days=days_old)).isoformat()
        self.ledger.discover([judge(asset(id=asset_id, created_at=created), Scope(RETENTION))])

    def lengths(self) -> tuple[int, int]:
        return self.client.llen(PREFIX + URGENT_QUEUE), self.client.llen(PREFIX + ARCHIVE_QUEUE)

    def close(self) -> None:
        self.app.close()
        self.client.close()


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Fleet]:  # noqa: F811
    fleet = Fleet(redis_url)
    yield fleet
    fleet.close()


def test_the_queue_does_not_grow_while_no_worker_lives(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "PAGE", 2)
    for asset_id, days_old in (("urgent", 14.0), ("a", 1.0), ("b", 2.0), ("c é/'\"", 3.0)):
        fleet.discover(asset_id, days_old)

    for _ in range(4):
        fleet.dispatcher.dispatch()
        fleet.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))

    assert fleet.lengths() == (1, 3)
    assert waiting_messages(fleet.url, PREFIX) == {
        "urgent": True,
        "a": False,
        "b": False,
        "c é/'\"": False,
    }


def test_what_the_broker_lost_is_sent_again_and_nothing_else(fleet: Fleet) -> None:
    for asset_id in ("a", "b", "c"):
        fleet.discover(asset_id, 1)
    fleet.dispatcher.dispatch()
    fleet.client.rpop(PREFIX + ARCHIVE_QUEUE)
    assert len(waiting_messages(fleet.url, PREFIX)) == 2

    for _ in range(2):
        fleet.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))
        fleet.dispatcher.dispatch()

    assert fleet.lengths() == (0, 3)
    assert waiting_messages(fleet.url, PREFIX).keys() == {"a", "b", "c"}


def test_all_are_sent_again_when_the_broker_was_flushed(fleet: Fleet) -> None:
    for asset_id in ("a", "b", "c"):
        fleet.discover(asset_id, 1)
    fleet.dispatcher.dispatch()
    fleet.client.delete(PREFIX + ARCHIVE_QUEUE)

    fleet.clock.advance(REQUEUE_AFTER + timedelta(seconds=1))
    fleet.dispatcher.dispatch()

    assert fleet.lengths() == (0, 3)


@pytest.mark.parametrize(
    "strange", ["", "{}", '{"body": "!"}', '{"body": "W10="}', '{"body": "W1tdLHsiYXNzZXRfaWQiOjF9XQ=="}']
)
def test_a_message_of_somebody_else_is_left_out(fleet: Fleet, strange: str) -> None:
    fleet.client.lpush(PREFIX + ARCHIVE_QUEUE, strange)

    assert waiting_messages(fleet.url, PREFIX) == {}


@pytest.mark.parametrize("broken", ["closed port", "another type of key"])
def test_a_broker_that_cannot_be_read_tells_of_nothing(fleet: Fleet, broken: str) -> None:
    if broken == "another type of key":
        fleet.client.set(PREFIX + URGENT_QUEUE, "x")
    url = fleet.url if broken == "another type of key" else "redis://127.0.0.1:1/0"

    assert waiting_messages(url, PREFIX) == {}

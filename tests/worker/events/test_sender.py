"""Events reach a real receiver, signed, in order for each asset, and none is lost whatever happens to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from archiver.core.events import FACT
from archiver.core.upkeep import status
from archiver.http import trust
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen, Settlement
from tests.core.fakes import Clock
from worker.events.sender import EventSender

SECRET = "whsec_" + "A" * 32
DAY = timedelta(days=1)


class Receiver:
    """Verifies each event with the public library, and keeps it by its id. `answers`: of the next requests; 0 hangs up
    after it has taken the event."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, Any]] = {}
        self.order: list[tuple[str, str]] = []
        self.answers: list[int] = []
        self.refused: set[str] = set()
        self.requests = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status = receiver.take(dict(self.headers.items()), body)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook/secret-word"

    def take(self, headers: dict[str, str], body: str) -> int:
        self.requests += 1
        answer = self.answers.pop(0) if self.answers else 204
        event: dict[str, Any] = json.loads(body)
        if event["data"]["asset_id"] in self.refused:
            return 400
        if answer in (0, 204):
            Webhook(SECRET).verify(body, {name.lower(): value for name, value in headers.items()})
            number = headers["Webhook-Id"] if "Webhook-Id" in headers else headers["webhook-id"]
            if number not in self.taken:
                self.order.append((event["data"]["asset_id"], event["type"]))
            self.taken[number] = event
        return answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


class Workers:
    """A ledger, and what workers do to it."""

    def __init__(self) -> None:
        self.clock = Clock(datetime.now(UTC))  # the verifier compares the event's time with its own clock
        self.ledger = MemoryLedger(self.clock)
        self.ledger.keep_events(DAY)

    def settle(self, asset_id: str, state: AssetState = AssetState.ARCHIVED) -> None:
        seen = Seen(
            asset_id,
            "room-composite",
            self.clock() + DAY,
            AssetState.DISCOVERED,
            created_at=self.clock() - DAY,
        )
        self.ledger.discover([seen])
        self.ledger.reopen(asset_id)
        lease = self.ledger.lease(asset_id, "w", DAY)
        assert lease is not None
        how = Settlement(
            state,
            stored_bytes=7,
            stored_objects=1,
            reason="why" if state is not AssetState.ARCHIVED else None,
        )
        self.ledger.settle(lease, seen, how)
        self.clock.advance(timedelta(microseconds=1))


@pytest.fixture
def workers() -> Workers:
    return Workers()


def sender(workers: Workers, url: str) -> EventSender:
    return EventSender(
        workers.ledger,
        url=SecretStr(url),
        secret=SecretStr(SECRET),
        destinations=["s3://bucket/archive"],
        authorities=trust.authorities(),
    )


def test_an_archived_asset_is_an_event_with_its_manifest_and_no_secret(
    workers: Workers, receiver: Receiver
) -> None:
    workers.settle("a1")

    assert sender(workers, receiver.url).deliver()

    [event] = receiver.taken.values()
    assert event["type"] == "asset.archived"
    assert event["data"]["manifest"].startswith("manifests/")
    assert event["data"]["destinations"] == ["s3://bucket/archive"]
    assert (event["data"]["size_bytes"], event["data"]["objects"]) == (7, 1)
    assert workers.ledger.events(10) == []


@pytest.mark.parametrize("state", [AssetState.QUARANTINED, AssetState.LOST])
def test_other_ends_are_events_with_their_reason(
    workers: Workers, receiver: Receiver, state: AssetState
) -> None:
    workers.settle("a1", state)
    sender(workers, receiver.url).deliver()

    [event] = receiver.taken.values()
    assert (event["type"], event["data"]["reason"]) == (f"asset.{state}", "why")


@pytest.mark.parametrize("answer", [500, 503, 429, 0])
def test_what_was_not_answered_with_success_comes_again_with_the_same_id(
    workers: Workers, receiver: Receiver, answer: int
) -> None:
    receiver.answers = [answer]
    workers.settle("a1")
    sending = sender(workers, receiver.url)

    assert not sending.deliver()
    assert sending.deliver()
    assert len(receiver.taken) == 1
    assert receiver.requests == 2


def test_a_receiver_that_is_away_is_not_asked_for_each_event(workers: Workers, receiver: Receiver) -> None:
    receiver.answers = [503]
    for number in range(50):
        workers.settle(f"a{number}")

    assert not sender(workers, receiver.url).deliver()
    assert receiver.requests == 1


def test_an_event_that_is_refused_holds_back_only_those_of_its_asset(
    workers: Workers, receiver: Receiver
) -> None:
    receiver.refused = {"a1"}
    workers.settle("a1", AssetState.QUARANTINED)
    workers.settle("a2")
    workers.settle("a1")
    sending = sender(workers, receiver.url)

    assert not sending.deliver()
    assert receiver.order == [("a2", "asset.archived")]
    receiver.refused = set()
    assert sending.deliver()
    assert receiver.order[1:] == [("a1", "asset.quarantined"), ("a1", "asset.archived")]


def test_more_than_one_batch_is_delivered_in_one_round(workers: Workers, receiver: Receiver) -> None:
    for number in range(603):
        workers.settle(f"a{number}")

    assert sender(workers, receiver.url).deliver()
    assert len(receiver.taken) == 603


def test_a_receiver_that_is_down_for_an_hour_while_senders_are_replaced_misses_nothing(
    workers: Workers, receiver: Receiver
) -> None:
    """A sender that is killed is one that is never asked again; its lock expires."""
    workers.clock.advance(-timedelta(minutes=63))
    away = "http://127.0.0.1:1/hook"
    for number in range(60):
        workers.settle(f"a{number}", AssetState.QUARANTINED)
        workers.settle(f"a{number}")
        workers.clock.advance(timedelta(minutes=1))
        workers.ledger.lock("events", timedelta(seconds=30))
        sender(workers, away).deliver()
    workers.clock.advance(timedelta(minutes=3))

    assert sender(workers, receiver.url).deliver()
    assert len(receiver.taken) == 120
    for number in range(60):
        ours = [kind for asset_id, kind in receiver.order if asset_id == f"a{number}"]
        assert ours == ["asset.quarantined", "asset.archived"]


def test_a_failure_is_told_in_status_after_an_hour_and_without_the_url(
    workers: Workers, receiver: Receiver
) -> None:
    workers.clock.advance(-timedelta(hours=1))
    workers.settle("a1")
    sending = sender(workers, "http://127.0.0.1:1/secret-word")
    sending.deliver()
    result = reported(workers)
    workers.clock.advance(timedelta(hours=1))
    sending.deliver()

    assert result == {}
    assert "1 events wait since" in reported(workers)["events_not_delivered"]
    assert "secret-word" not in str(workers.ledger.recall(FACT))
    sender(workers, receiver.url).deliver()
    assert reported(workers) == {}


def reported(workers: Workers) -> dict[str, str]:
    summary = status.summarize(workers.ledger, workers.clock(), at_risk_within=DAY, sweep_every=DAY)
    return {each.id: each.text for each in summary.reported if each.id.startswith("events")}

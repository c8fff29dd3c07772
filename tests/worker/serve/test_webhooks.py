"""The receiver of webhooks: who is refused, what is bounded, and what an event brings about."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Route

from archiver.core.contents.thumbnails import webhook as webhook_thumbnails
from archiver.core.judging import Scope
from archiver.core.upkeep import announced
from archiver.core.upkeep.announced import Announcements
from archiver.core.upkeep.not_listed import Announced
from archiver.hms.webhooks import RecordingEvent
from archiver.http.tally import Tally
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen, Settlement
from tests.core.examples import NOW
from tests.core.fakes import Clock, FakeApi
from tests.worker.serve.running import HEADER, SECRET, listening
from worker.serve import webhooks
from worker.serve.webhooks import MAX_BODY_BYTES, Receiver

URL = "https://cdn.example/t.jpg?X-Amz-Signature=CANARY"
EVENT = {
    "version": "2.0",
    "id": "e1",
    "type": "hls.recording.success",
    "data": {
        "session_id": "s1",
        "recording_single_files": [{"asset_id": "a1"}],
        "recording_thumbnails": [{"url": URL, "location": "s3://b/t.jpg"}],
    },
}


class Received:
    """A receiver behind a real listener, and what it did."""

    def __init__(self, secret: str | None = SECRET) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.tally = Tally()
        self.looked_up: list[Announced] = []
        self.announcements = Announcements(
            api=FakeApi(), ledger=self.ledger, scope=Scope(timedelta(days=15)), clock=self.clock
        )
        self.take: Callable[[RecordingEvent], list[Announced]] = self.announcements.take
        self.receiver = Receiver(
            secret=SecretStr(secret) if secret else None,
            header=HEADER,
            take=lambda event: self.take(event),  # noqa: PLW0108 - replaced by tests
            look_up=self.look_up,
            tally=self.tally,
        )
        self.url = ""

    def look_up(self, announced: Announced) -> bool:
        self.looked_up.append(announced)
        return True

    def post(self, content: Any = None, *, secret: str = SECRET, **options: Any) -> httpx.Response:
        headers = {HEADER: secret, **options.pop("headers", {})}
        body = json.dumps(EVENT) if content is None else content
        return httpx.post(self.url, content=body, headers=headers, timeout=30, trust_env=False, **options)

    def waits(self, asset_id: str, *, expires_in: timedelta = timedelta(days=9)) -> None:
        seen = Seen(asset_id, "room-vod", NOW + expires_in, AssetState.DISCOVERED)
        self.ledger.discover([seen])
        lease = self.ledger.lease(asset_id, "w", timedelta(hours=1))
        assert lease is not None
        self.ledger.settle(lease, seen, Settlement(AssetState.WAITING, delay=timedelta(hours=1)))


@contextmanager
def receiving(secret: str | None = SECRET) -> Iterator[Received]:
    received = Received(secret)
    route = Route("/webhooks/100ms", received.receiver.receive, methods=["POST"])
    with listening(Starlette(routes=[route])) as listener:
        received.url = f"{listener.url}/webhooks/100ms"
        yield received


@pytest.fixture
def received() -> Iterator[Received]:
    with receiving() as made:
        yield made


def test_without_a_configured_secret_every_webhook_is_refused() -> None:
    with receiving(secret=None) as received:
        answer = received.post()

    assert answer.status_code == 503
    assert received.tally.take() == {"webhooks:no_secret": 1}


@pytest.mark.parametrize("secret", ["", "wrong", SECRET + "x", SECRET[:-1], "ä".encode().decode("latin-1")])
def test_a_wrong_secret_is_refused_and_counted(received: Received, secret: str) -> None:
    answer = received.post(headers={HEADER: secret.encode("latin-1")}, secret="unused")

    assert answer.status_code == 401
    assert received.tally.take() == {"webhooks:unauthorized": 1}
    assert received.looked_up == []
    assert SECRET not in answer.text


def test_no_secret_or_two_of_them_are_refused(received: Received) -> None:
    none = httpx.post(received.url, json=EVENT, trust_env=False)
    two = httpx.post(received.url, json=EVENT, headers=[(HEADER, SECRET), (HEADER, SECRET)], trust_env=False)

    assert (none.status_code, two.status_code) == (401, 401)


def test_an_event_seals_its_thumbnails_and_looks_up_its_session(received: Received) -> None:
    answer = received.post()

    assert answer.status_code == 200
    assert received.looked_up == [Announced("s1", "hls.recording.success", ("a1",))]
    kept = webhook_thumbnails.recall(received.ledger, "a1")
    assert [url.get_secret_value() for url in kept.values()] == [URL]
    assert received.tally.take() == {"webhooks:accepted": 1}


def test_known_assets_are_due_now_in_the_order_of_their_deadlines(received: Received) -> None:
    received.waits("a1")
    received.waits("a2", expires_in=timedelta(days=1))
    received.clock.advance(timedelta(minutes=2))

    received.post(
        json.dumps({"type": "transcription.success", "data": {"x_asset_id": "a1", "y_asset_id": "a2"}})
    )

    due = received.ledger.take_due(10, timedelta(hours=1))
    assert [row.asset_id for row in due] == ["a2", "a1"]


def test_duplicates_and_replays_cause_one_attempt(received: Received) -> None:
    received.waits("a1")
    received.clock.advance(timedelta(minutes=2))
    replay = json.dumps({**EVENT, "is_replay": True})
    for body in (None, None, replay):
        assert received.post(body).status_code == 200

    assert len(received.ledger.take_due(10, timedelta(hours=1))) == 1
    received.waits("a3")  # a1's attempt ends while more replays come
    lease = received.ledger.lease("a1", "w", timedelta(hours=1))
    assert lease is not None
    seen = Seen("a1", "room-vod", NOW + timedelta(days=9), AssetState.DISCOVERED)
    received.ledger.settle(lease, seen, Settlement(AssetState.WAITING, delay=timedelta(hours=1)))
    assert received.post(replay).status_code == 200
    assert received.ledger.take_due(10, timedelta(hours=1)) == []


def test_without_a_session_unknown_assets_are_looked_up(received: Received) -> None:
    received.post(json.dumps({"type": "transcription.success", "data": {"x_asset_id": "a9"}}))

    assert received.looked_up == [Announced(None, "transcription.success", ("a9",))]


def test_an_event_cannot_name_any_number_of_assets(
    received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announced, "MOST_ASSETS", 2)
    data = {f"x{number}_asset_id": f"a{number}" for number in range(5)}

    received.post(json.dumps({"type": "transcription.success", "data": data}))

    assert [each.asset_ids for each in received.looked_up] == [("a0",), ("a1",)]


def test_an_unknown_event_is_accepted_and_counted(received: Received) -> None:
    answer = received.post('{"type": "peer.join.success", "data": {"session_id": "s1"}}')

    assert answer.status_code == 200
    assert received.looked_up == []
    assert received.tally.take() == {"webhooks:unknown": 1}


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"data": {}}', "[" * 100_000])
def test_what_is_no_event_is_refused(received: Received, body: str) -> None:
    assert received.post(body).status_code == 400
    assert received.tally.take() == {"webhooks:invalid": 1}


def test_a_huge_body_is_refused_announced_or_not(received: Received) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 2):
            yield b" " * 65536

    announced = received.post(headers={"Content-Length": str(MAX_BODY_BYTES + 1)}, content=endless())
    with suppress(httpx.WriteError, httpx.ReadError):  # it may be refused before it is sent
        assert received.post(endless()).status_code == 413

    assert announced.status_code == 413
    assert received.tally.take() == {"webhooks:too_large": 2}


def test_a_body_that_does_not_come_is_given_up(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BODY_SECONDS", 0.2)

    answer = httpx.post(
        received.url,
        content=_stalling(threading.Event()),
        headers={HEADER: SECRET, "Content-Length": "100"},
        timeout=30,
        trust_env=False,
    )

    assert answer.status_code == 408
    assert received.tally.take() == {"webhooks:too_slow": 1}


def _stalling(never: threading.Event) -> Iterator[bytes]:
    yield b"{" * 50
    never.wait(2)
    yield b"{" * 50


def test_a_ledger_that_is_away_is_told_to_100ms_which_sends_it_again(received: Received) -> None:
    def away(_event: RecordingEvent) -> list[Announced]:
        raise LedgerUnavailable("away")

    received.take = away
    answer = received.post()

    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert received.tally.take() == {"webhooks:ledger_away": 1}


def test_a_flood_is_refused_at_once_and_what_was_taken_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "THREADS", 1)
    monkeypatch.setattr(webhooks, "MOST_WAITING", 2)
    going, handled = threading.Event(), []

    def slow(event: RecordingEvent) -> list[Announced]:
        assert going.wait(30)
        handled.append(event)
        return []

    with receiving() as received, ThreadPoolExecutor(8) as clients:
        received.take = slow
        answers = [clients.submit(received.post) for _ in range(8)]
        first = _first_refusal(answers)
        going.set()
        statuses = [answer.result().status_code for answer in answers]

    assert first == 503
    assert set(statuses) == {200, 503}
    assert len(handled) == statuses.count(200) >= 2
    assert received.tally.take()["webhooks:flooded"] == statuses.count(503)


def _first_refusal(answers: list[Future[httpx.Response]]) -> int:
    """The status of the first answer that comes, while all taken work stands still."""
    done, _ = wait(answers, timeout=30, return_when=FIRST_COMPLETED)
    return done.pop().result().status_code

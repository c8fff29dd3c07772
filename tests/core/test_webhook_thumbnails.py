from __future__ import annotations

from datetime import timedelta

from pydantic import SecretStr

from archiver.core.contents.thumbnails import webhook as webhook_thumbnails
from archiver.core.contents.thumbnails.webhook import LIFETIME, recall, remember
from archiver.hms.webhooks import RecordingEvent, SignedThumbnail
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock

URL = "https://storage.example/thumbnail-0.png?sig=secret"


def event(*asset_ids: str, thumbnails: int = 1) -> RecordingEvent:
    return RecordingEvent(
        type="hls.recording.success",
        room_id="room",
        session_id="session",
        recording_id="recording",
        asset_ids=asset_ids,
        thumbnails=tuple(
            SignedThumbnail(location=f"s3://bucket/thumbnail-{number}.png", url=SecretStr(URL))
            for number in range(thumbnails)
        ),
    )


def test_the_urls_of_an_event_are_there_for_each_of_its_assets() -> None:
    ledger = MemoryLedger(Clock(NOW))

    assert remember(ledger, event("a", "b", thumbnails=2)) == 2

    for asset_id in ("a", "b"):
        urls = recall(ledger, asset_id)
        assert set(urls) == {"s3://bucket/thumbnail-0.png", "s3://bucket/thumbnail-1.png"}
        assert urls["s3://bucket/thumbnail-0.png"].get_secret_value() == URL
        assert "secret" not in repr(urls)
    assert recall(ledger, "c") == {}


def test_an_event_that_comes_twice_changes_nothing_and_a_later_one_replaces() -> None:
    ledger = MemoryLedger(Clock(NOW))
    remember(ledger, event("a"))
    remember(ledger, event("a"))
    assert len(recall(ledger, "a")) == 1

    remember(ledger, event("a", thumbnails=3))

    assert len(recall(ledger, "a")) == 3


def test_an_event_without_thumbnails_keeps_nothing_and_forgets_nothing() -> None:
    ledger = MemoryLedger(Clock(NOW))
    remember(ledger, event("a"))

    assert remember(ledger, event("a", thumbnails=0)) == 0
    assert remember(ledger, event(thumbnails=1)) == 0

    assert len(recall(ledger, "a")) == 1


def test_urls_are_forgotten_when_none_of_them_can_be_good_any_more() -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    remember(ledger, event("a"))

    clock.advance(LIFETIME + timedelta(seconds=1))

    assert recall(ledger, "a") == {}
    assert timedelta(days=3) <= webhook_thumbnails.LIFETIME

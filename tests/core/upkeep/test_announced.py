"""What a webhook announced is entered although nobody took it, and reported when 100ms does not list it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from archiver.core.contents.thumbnails import webhook as webhook_thumbnails
from archiver.core.health_rules import Finding, Severity
from archiver.core.judging import Scope
from archiver.core.upkeep import not_listed
from archiver.core.upkeep.announced import MISSED_FACT, Announcements, MissedWebhooks
from archiver.core.upkeep.not_listed import FACT, GRACE, MOST_KEPT, Announced
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.hms.errors import HmsError, HmsInvalidResponse, HmsNotFound, HmsUnauthorized, HmsUnavailable
from archiver.hms.webhooks import RecordingEvent, read_failed_deliveries
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock, FakeApi

RETENTION = timedelta(days=15)
BEAM = "beam.recording.success"


class History:
    def __init__(self) -> None:
        self.events: list[RecordingEvent] = []
        self.error: HmsError | None = None
        self.asked: list[tuple[datetime, datetime]] = []

    def failed_deliveries(self, since: datetime, until: datetime) -> Iterator[RecordingEvent]:
        self.asked.append((since, until))
        yield from self.events
        if self.error:
            raise self.error


class Setting:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.ledger.remember(SWEEP_FACT, {"started_at": NOW.isoformat()})
        self.api = FakeApi()
        self.history = History()
        self.announcements = Announcements(
            api=self.api, ledger=self.ledger, scope=Scope(RETENTION), clock=self.clock
        )

    def look(self) -> int:
        return MissedWebhooks(self.announcements, self.history).look()

    def reported(self) -> list[str]:
        return [found.text for found in self.findings() if found.id == "announced_not_listed"]

    def findings(self) -> list[Finding]:
        fact, acknowledged = self.ledger.recall(FACT), self.ledger.recall(not_listed.ACKNOWLEDGED_FACT)
        return list(not_listed.findings(fact, acknowledged, self.clock()))


@pytest.fixture
def setting() -> Setting:
    return Setting()


def event(kind: str = BEAM, **data: Any) -> RecordingEvent:
    row = {"event_name": "x", "payload": {"original_event_name": kind, "event_data": data}}
    return read_failed_deliveries({"events": [row]})[0][0]


def test_the_session_of_a_webhook_that_nobody_took_is_entered(setting: Setting) -> None:
    setting.api.assets = [asset(id="a1", session_id="s1"), asset(id="a2", session_id="s2")]
    url = "https://cdn.example/t.png?sig=CANARY"
    setting.history.events = [
        event(
            "hls.recording.success",
            session_id="s1",
            recording_single_files=[{"asset_id": "a1"}],
            recording_thumbnails=[{"url": url, "location": "s3://b/t.png"}],
        )
    ]

    assert setting.look() == 1
    assert [row.asset_id for row in setting.ledger.rows([AssetState.DISCOVERED])] == ["a1"]
    kept = webhook_thumbnails.recall(setting.ledger, "a1")
    assert [each.get_secret_value() for each in kept.values()] == [url]


def test_each_look_continues_where_the_last_one_ended(setting: Setting) -> None:
    setting.look()
    setting.clock.advance(timedelta(hours=1))
    setting.look()
    setting.clock.advance(timedelta(days=40))
    setting.look()

    (first, second, third) = setting.history.asked
    assert first[1] - first[0] >= timedelta(days=1)
    assert second[0] < NOW < second[1] == NOW + timedelta(hours=1)
    assert third[1] - third[0] <= timedelta(days=14)


@pytest.mark.parametrize(
    "error",
    [HmsNotFound("404"), HmsUnauthorized("403"), HmsInvalidResponse("odd"), HmsUnavailable("away")],
    ids=lambda error: type(error).__name__,
)
def test_a_history_that_cannot_be_read_changes_nothing_and_is_read_again(
    setting: Setting, error: HmsError
) -> None:
    setting.history.error = error

    assert setting.look() == 0
    assert setting.ledger.recall(MISSED_FACT) is None

    setting.history.error = None
    setting.history.events = [event(session_id="s1")]
    setting.api.assets = [asset(id="a1", session_id="s1")]
    assert setting.look() == 1


def test_nothing_is_looked_up_before_a_sweep_has_ended(setting: Setting) -> None:
    setting.ledger.forget(SWEEP_FACT)
    setting.history.events = [event(session_id="s1")]

    assert setting.look() == 0
    assert setting.history.asked == []


def test_a_recording_that_is_not_listed_is_reported_after_a_while_until_it_is(setting: Setting) -> None:
    setting.history.events = [event(session_id="s1")]
    setting.api.assets = [asset(id="c1", session_id="s1", type="chat")]
    setting.look()
    assert setting.reported() == [], "the list may show it later than the webhook"

    setting.history.events = []
    setting.clock.advance(GRACE)
    (text,) = setting.reported()
    assert "session s1" in text
    (found,) = setting.findings()
    assert found.rule.severity is Severity.CRITICAL

    setting.api.assets.append(asset(id="a1", session_id="s1"))
    setting.look()
    assert setting.reported() == []
    assert setting.ledger.recall(FACT) is None


def test_an_asset_that_is_named_and_unknown_to_100ms_is_reported(setting: Setting) -> None:
    (announced,) = setting.announcements.take(event("transcription.success", x_asset_id="a9"))
    with pytest.raises(HmsNotFound):
        setting.announcements.enter(announced)

    setting.clock.advance(GRACE)
    assert ["a9" in text for text in setting.reported()] == [True]
    assert setting.look() == 0


def test_one_of_two_named_assets_is_not_enough(setting: Setting) -> None:
    setting.api.assets = [asset(id="a1", session_id="s1")]
    named = [{"asset_id": "a1"}, {"asset_id": "a2"}]
    (announced,) = setting.announcements.take(
        event("hls.recording.success", session_id="s1", recording_single_files=named)
    )
    setting.announcements.enter(announced)
    assert not_listed.all_noted(setting.ledger, since=NOW) == [announced]


def test_an_answer_that_fails_concludes_nothing(setting: Setting) -> None:
    setting.api.fail_on_page = (0, HmsUnavailable("away"))
    with pytest.raises(HmsUnavailable):
        setting.announcements.enter(Announced("s1", BEAM))

    assert setting.ledger.recall(FACT) is None


def test_what_is_known_already_expects_nothing(setting: Setting) -> None:
    setting.api.assets = [asset(id="a1", session_id="elsewhere")]
    setting.announcements.enter(Announced("elsewhere", BEAM))
    named = [{"asset_id": "a1"}]
    (announced,) = setting.announcements.take(
        event("hls.recording.success", session_id="s1", recording_single_files=named)
    )
    setting.announcements.enter(announced)

    assert setting.ledger.recall(FACT) is None


def test_reports_are_bounded_and_end_with_the_retention(setting: Setting) -> None:
    for number in range(MOST_KEPT + 5):
        setting.announcements.enter(Announced(f"s{number}", BEAM))
    assert len(not_listed.all_noted(setting.ledger, since=NOW)) == MOST_KEPT

    setting.clock.advance(RETENTION + GRACE)
    setting.look()
    assert setting.ledger.recall(FACT) is None


def test_a_fact_of_another_version_is_no_fault(setting: Setting) -> None:
    setting.ledger.remember(
        FACT, {"recordings": [1, {"at": "soon"}, {"at": NOW.isoformat(), "asset_ids": 5}]}
    )
    assert setting.look() == 0


def test_what_a_person_acknowledged_is_reported_no_longer_and_what_comes_later_is(setting: Setting) -> None:
    setting.announcements.enter(Announced("s1", BEAM))
    setting.announcements.enter(Announced("s2", BEAM))
    setting.clock.advance(GRACE)
    (both,) = setting.reported()
    assert "`archiver ack SESSION_ID" in both

    for why in ("100ms has it no more", "again"):
        assert not_listed.acknowledge(setting.ledger, "s1", by="me", why=why, now=setting.clock())
    assert not not_listed.acknowledge(setting.ledger, "s9", by="me", why="?", now=setting.clock())
    setting.look()

    found = setting.findings()
    assert [each.id for each in found] == ["acknowledged", "announced_not_listed"]
    assert "by me: session s1" in found[0].text
    assert "100ms has it no more" in found[0].text
    assert "s2" in found[1].text
    assert "s1" not in found[1].text

    setting.announcements.enter(Announced("s1", "stream.recording.success"))
    setting.clock.advance(GRACE)
    assert "s1" in setting.findings()[1].text


def test_acknowledgements_are_bounded_and_the_newest_are_kept(setting: Setting) -> None:
    with patch.object(not_listed, "MOST_ACKNOWLEDGED", 2):
        for number in range(4):
            setting.announcements.enter(Announced(f"s{number}", BEAM))
            not_listed.acknowledge(setting.ledger, f"s{number}", by="me", why="", now=setting.clock())

    setting.clock.advance(GRACE)
    assert "s0" in setting.reported()[0]
    assert "s3" not in setting.reported()[0]

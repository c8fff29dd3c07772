"""Entering the assets of one room or session at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from archiver.core.judging import Scope
from archiver.core.upkeep.backfill import BackfillResult, backfill
from archiver.hms.models import Asset, Page
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from tests.core.archived import enter
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock, FakeApi

HOUR = timedelta(hours=1)


class Harness:
    def __init__(self, *assets: Asset) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.api = FakeApi(assets)

    def backfill(
        self,
        room_id: str | None = "room-1",
        session_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        rooms: frozenset[str] | None = None,
    ) -> BackfillResult:
        return backfill(
            api=self.api,
            ledger=self.ledger,
            scope=Scope(RETENTION, rooms=rooms),
            clock=self.clock,
            room_id=room_id,
            session_id=session_id,
            since=since,
            until=until,
        )

    def known(self) -> set[str]:
        return {row.asset_id for row in self.ledger.rows()}


def created(asset_id: str, hours: int, **fields: str) -> Asset:
    return asset(id=asset_id, created_at=(NOW + hours * HOUR).isoformat(), **fields)


def test_only_the_room_is_entered_and_twice_is_once() -> None:
    harness = Harness(asset(id="a"), asset(id="b"), asset(id="c"), asset(id="x", room_id="room-2"))

    first, second = harness.backfill(), harness.backfill()

    assert harness.known() == {"a", "b", "c"}
    assert (first.found, first.new, second.found, second.new) == (3, 3, 3, 0)
    assert first.states == {AssetState.DISCOVERED: 3}


def test_a_session_of_the_room() -> None:
    harness = Harness(asset(id="a"), asset(id="b", session_id="session-2"))

    assert harness.backfill(session_id="session-2").found == 1
    assert harness.known() == {"b"}


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (None, None, {"old", "mid", "new", "undated"}),
        (-2, None, {"mid", "new"}),
        (None, -1, {"old", "mid"}),
        (-2, -1, {"mid"}),
    ],
)
def test_times_are_from_and_up_to(since: int | None, until: int | None, found: set[str]) -> None:
    harness = Harness(
        created("old", -3), created("mid", -2), created("new", -1), asset(id="undated", created_at=None)
    )

    harness.backfill(
        since=None if since is None else NOW + since * HOUR,
        until=None if until is None else NOW + until * HOUR,
    )

    assert harness.known() == found


def test_what_a_changed_filter_had_skipped_is_due() -> None:
    harness = Harness(asset(id="a"))
    skipped = harness.backfill(rooms=frozenset({"room-9"}))

    found = harness.backfill(rooms=frozenset({"room-1"}))

    assert skipped.reasons == {"room 'room-1' is not in ARCHIVER_ROOMS": 1}
    assert (found.states, found.reasons) == ({AssetState.DISCOVERED: 1}, {})


def test_what_waits_is_due_now_and_what_ended_stays() -> None:
    harness = Harness(asset(id="waits"), asset(id="lost"), asset(id="no"), asset(id="done"))
    enter(harness.ledger, asset(id="waits"), AssetState.WAITING)
    enter(harness.ledger, asset(id="lost"), AssetState.LOST)
    enter(harness.ledger, asset(id="no"), AssetState.REJECTED)
    enter(harness.ledger, asset(id="done"), AssetState.ARCHIVED)
    harness.clock.advance(timedelta(seconds=1))

    found = harness.backfill()

    due = harness.ledger.take_due(10, timedelta(minutes=15))
    assert [row.asset_id for row in due] == ["waits"]
    assert found.states == dict.fromkeys(
        (AssetState.WAITING, AssetState.LOST, AssetState.REJECTED, AssetState.ARCHIVED), 1
    )


def test_an_api_that_ignores_the_filter_has_no_other_room_entered() -> None:
    class Ignores(FakeApi):
        def pages(self, **_: str | None) -> Iterator[Page]:
            return super().pages()

    harness = Harness()
    harness.api = Ignores([asset(id="a"), asset(id="x", room_id="room-2")])

    assert harness.backfill().found == 1
    assert harness.known() == {"a"}

"""An asset is called lost only when its source said so for a day after the deadline, and nobody's clock is in doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import structlog

from archiver.core.attempt.decisions import LOST_AFTER
from archiver.core.attempt.outcomes import AlreadyArchived, Archived, Ended, WillRetry
from archiver.core.destinations.probing import tell_time
from archiver.core.judging import Scope, judge
from archiver.core.upkeep.watch import reopen_ended
from archiver.ledger.models import AssetState
from archiver.transfer.errors import SourceForbidden, SourceGone
from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.harness import ArchiverHarness, BytesSource, Tree, file

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
VIDEO = b"video" * 40


class Harness:
    """An asset whose source refuses until `refuses` says otherwise."""

    def __init__(self, created_at: datetime | str, error: type[Exception] = SourceForbidden) -> None:
        made = asset(
            size=None, created_at=created_at if isinstance(created_at, str) else created_at.isoformat()
        )
        self.refuses = True
        self.archiver = ArchiverHarness(
            lambda: Tree({"a.mp4": BytesSource(b"", [error("x")])}) if self.refuses else file(VIDEO),
            assets=[made],
        )
        self.sweep()

    def sweep(self) -> None:
        """It is listed all the time."""
        now = self.archiver.clock()
        self.archiver.ledger.discover(
            [judge(each, Scope(RETENTION), now) for each in self.archiver.api.assets]
        )

    def state(self) -> AssetState:
        row = self.archiver.ledger.get(self.archiver.asset_id)
        assert row
        return row.state

    def run(self, duration: timedelta) -> None:
        """Attempts whenever the ledger says, a sweep and a look for second chances each hour."""
        end = self.archiver.clock() + duration
        while self.archiver.clock() < end:
            reopen_ended(self.archiver.ledger, self.archiver.clock())
            self.archiver.archive()
            self.archiver.clock.advance(10 * MINUTE)
            self.sweep()


@pytest.mark.parametrize("error", [SourceForbidden, SourceGone])
def test_an_old_recording_that_is_refused_for_some_hours_is_saved_when_the_outage_is_over(
    error: type[Exception],
) -> None:
    harness = Harness(NOW - 40 * DAY, error)

    harness.run(20 * HOUR)
    assert harness.state() is AssetState.WAITING
    harness.refuses = False
    harness.run(2 * HOUR)

    assert harness.state() is AssetState.ARCHIVED


def test_it_is_lost_after_a_day_of_refusals_and_reopened_when_its_url_answers_again() -> None:
    harness = Harness(NOW - 16 * DAY)

    harness.run(LOST_AFTER + 2 * HOUR)
    assert harness.state() is AssetState.LOST
    harness.run(3 * DAY)
    harness.refuses = False
    harness.run(DAY + 3 * HOUR)

    assert harness.state() is AssetState.ARCHIVED


def test_another_attempt_at_a_lost_asset_ends_within_minutes() -> None:
    harness = Harness(NOW - 16 * DAY)
    harness.run(LOST_AFTER + 2 * HOUR)
    lost = unsaved = 0

    for _ in range(5 * 24):
        harness.run(HOUR)
        lost += harness.state() is AssetState.LOST
        unsaved += harness.state() is not AssetState.LOST

    assert unsaved <= 5
    assert lost >= 5 * 23


@pytest.mark.parametrize(
    "created_at", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2038-01-19T03:14:07Z"]
)
def test_an_impossible_date_is_no_reason_to_give_up(created_at: str) -> None:
    harness = Harness(created_at)

    harness.run(3 * DAY)
    assert harness.state() is AssetState.WAITING
    harness.refuses = False
    harness.run(DAY)

    assert harness.state() is AssetState.ARCHIVED


@pytest.mark.parametrize(
    ("api_ahead", "lost"),
    [
        (timedelta(0), True),
        (4 * MINUTE, True),
        (6 * MINUTE, False),
        (-6 * MINUTE, False),
        (-20 * DAY, False),
        (None, False),
    ],
)
def test_nothing_is_lost_while_the_clocks_of_ledger_and_api_disagree(
    api_ahead: timedelta | None, lost: bool
) -> None:
    harness = Harness(NOW - 16 * DAY)
    clock = harness.archiver.clock
    harness.archiver.api.clock = None if api_ahead is None else lambda: clock() + api_ahead

    harness.run(3 * DAY)

    assert harness.state() is (AssetState.LOST if lost else AssetState.WAITING)
    row = harness.archiver.ledger.get(harness.archiver.asset_id)
    assert row
    assert ("clocks" in (row.reason or "")) is not lost


class Dated(MemoryBackend):
    """Tells when an object was written, by a clock that is `ahead`; None: it tells nothing."""

    def __init__(self, clock: Callable[[], datetime], ahead: timedelta | None) -> None:
        super().__init__("dated")
        self._now = clock
        self.ahead = ahead

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        found = super().stat(key)
        if found is None:
            return None
        return replace(found, updated_at=None if self.ahead is None else self._now() + self.ahead)


@pytest.mark.parametrize(
    ("ahead", "lost"),
    [(timedelta(0), True), (4 * MINUTE, True), (6 * MINUTE, False), (-20 * DAY, False), (None, True)],
)
def test_nothing_is_lost_while_the_clocks_of_ledger_and_destination_disagree(
    ahead: timedelta | None, lost: bool
) -> None:
    harness = Harness(NOW - 16 * DAY)
    store = Dated(harness.archiver.clock, ahead)
    harness.archiver.archiver.deps = replace(
        harness.archiver.archiver.deps,
        destinations=[*harness.archiver.stores, store],
        time_at=lambda each: tell_time(each, harness.archiver.ledger) if each is store else None,
    )

    harness.run(3 * DAY)

    assert harness.state() is (AssetState.LOST if lost else AssetState.WAITING)
    row = harness.archiver.ledger.get(harness.archiver.asset_id)
    assert row
    assert (f"the clocks of the ledger and of {store.name} disagree" in (row.reason or "")) is not lost
    assert not [key for key in store.store.objects if "ends/" not in key], "no probe is left"
    store.ahead = None
    harness.run(2 * HOUR)
    assert harness.state() is AssetState.LOST


def test_it_is_lost_soon_once_the_clocks_agree_again() -> None:
    harness = Harness(NOW - 16 * DAY)
    harness.archiver.api.clock = None
    harness.run(3 * DAY)

    harness.archiver.api.clock = harness.archiver.clock
    harness.run(2 * HOUR)

    assert harness.state() is AssetState.LOST


def test_an_asset_that_failed_after_it_was_completed_is_retried_and_saved_if_available() -> None:
    harness = Harness(NOW - DAY)
    harness.archiver.archive()
    harness.archiver.api.assets = [asset(size=None, status="failed", created_at=(NOW - DAY).isoformat())]
    harness.sweep()

    with structlog.testing.capture_logs() as logs:
        harness.run(2 * HOUR)
    assert harness.state() is AssetState.WAITING
    assert "asset_failed_later" in {entry["event"] for entry in logs if entry["log_level"] == "error"}
    harness.refuses = False
    harness.run(3 * HOUR)

    assert harness.state() is AssetState.ARCHIVED


def test_an_asset_that_failed_after_it_was_completed_and_is_never_available_is_reported_as_lost() -> None:
    harness = Harness(NOW - DAY)
    harness.archiver.api.assets = [asset(size=None, status="failed", created_at=(NOW - DAY).isoformat())]

    harness.run(RETENTION - DAY)
    before = harness.state()
    harness.run(3 * DAY)

    assert (before, harness.state()) == (AssetState.WAITING, AssetState.LOST)


def test_an_archived_asset_stays_so_when_the_api_reports_it_as_failed() -> None:
    harness = Harness(NOW - DAY)
    harness.refuses = False
    assert isinstance(harness.archiver.archive(), Archived)
    harness.archiver.api.assets = [asset(size=None, status="failed", created_at=(NOW - DAY).isoformat())]

    harness.run(DAY)
    assert harness.state() is AssetState.ARCHIVED
    harness.archiver.ledger.reopen(harness.archiver.asset_id, keep_stored=True)
    outcome = harness.archiver.archive()

    assert isinstance(outcome, AlreadyArchived)
    assert not isinstance(outcome, Ended | WillRetry)

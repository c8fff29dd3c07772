"""Assets that the list shows as failed: for good, after they were completed, or with two statuses at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
import structlog

from archiver.core.judging import Scope, as_known
from archiver.core.upkeep.failed_later import MOST_ASKED, failed_later
from archiver.core.upkeep.sweep import FACT, Sweeper
from archiver.hms.errors import HmsError, HmsNotFound, HmsUnavailable
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen, Settlement
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock, FakeApi

COMPLETED, FAILED = "completed", "failed"
DISCOVERED, SOURCE_FAILED = AssetState.DISCOVERED, AssetState.SOURCE_FAILED


class Harness:
    """One asset `x` among others. The list may show it several times."""

    def __init__(self, page_size: int = 2) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.api = FakeApi(page_size=page_size)
        self.asked: list[str] = []
        self.sweeper = Sweeper(
            api=self.api, ledger=self.ledger, scope=Scope(RETENTION), clock=self.clock, rebuild=lambda: None
        )

    def sweep(
        self, statuses: Sequence[str], truth: str | HmsError, *, full: bool = True
    ) -> AssetState | None:
        """`x` is listed once with each of `statuses`, and its own endpoint says `truth`."""
        others = [asset(id=f"other-{number}") for number in range(len(statuses))]
        rows = [asset(id="x", status=status) for status in statuses]
        self.api.assets = [each for pair in zip(rows, others, strict=True) for each in pair]

        def ask(asset_id: str) -> Asset:
            self.asked.append(asset_id)
            if isinstance(truth, HmsError):
                raise truth
            return asset(id=asset_id, status=truth)

        self.api.asset = ask  # type: ignore[method-assign]
        self.sweeper.sweep(full=full)
        return self.state()

    def state(self) -> AssetState | None:
        row = self.ledger.get("x")
        return row.state if row else None

    def told(self) -> list[str]:
        return [row.asset_id for row in failed_later(self.ledger)]


@pytest.mark.parametrize("page_size", [1, 2, 100])
@pytest.mark.parametrize(
    ("listed", "truth", "state", "asked"),
    [
        ([COMPLETED], COMPLETED, DISCOVERED, 0),
        ([FAILED], FAILED, SOURCE_FAILED, 0),
        ([FAILED, FAILED], FAILED, SOURCE_FAILED, 0),
        # two statuses: its own endpoint is asked
        ([COMPLETED, FAILED], COMPLETED, DISCOVERED, 1),
        ([FAILED, COMPLETED], COMPLETED, DISCOVERED, 1),
        ([FAILED, COMPLETED], FAILED, SOURCE_FAILED, 1),
        # which cannot be asked: it is not given up
        ([COMPLETED, FAILED], HmsUnavailable("503"), DISCOVERED, 1),
        ([FAILED, COMPLETED], HmsNotFound("404"), DISCOVERED, 1),
    ],
)
def test_an_asset_listed_with_two_statuses_is_asked_for_by_id(
    page_size: int, listed: list[str], truth: str | HmsError, state: AssetState, asked: int
) -> None:
    harness = Harness(page_size)

    assert harness.sweep(listed, truth) is state
    assert len(harness.asked) == asked


def test_an_asset_that_failed_after_being_completed_is_retried_and_reported_until_it_is_saved() -> None:
    harness = Harness()
    harness.sweep([COMPLETED], COMPLETED)
    assert harness.told() == []

    with structlog.testing.capture_logs() as logs:
        state = harness.sweep([FAILED], FAILED)

    assert state is DISCOVERED
    assert harness.told() == ["x"]
    assert (harness.ledger.recall(FACT) or {})["failed_later"] == 1
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["asset_failed_later"]
    row = harness.ledger.get("x")
    lease = harness.ledger.lease("x", "test", timedelta(minutes=1))
    assert row
    assert lease
    harness.ledger.settle(lease, _seen(harness), Settlement(AssetState.ARCHIVED, stored_objects=1))
    assert harness.told() == []


def _seen(harness: Harness) -> Seen:
    row = harness.ledger.get("x")
    assert row
    return as_known(row)


def test_it_is_not_reported_once_it_is_completed_again() -> None:
    harness = Harness()
    harness.sweep([COMPLETED], COMPLETED)
    harness.sweep([FAILED], FAILED)

    harness.sweep([COMPLETED], COMPLETED)

    assert harness.told() == []
    assert (harness.ledger.recall(FACT) or {})["failed_later"] == 0


def test_the_list_may_be_behind_the_assets_own_endpoint() -> None:
    harness = Harness()
    harness.sweep([COMPLETED], COMPLETED)

    assert harness.sweep([FAILED], COMPLETED) is DISCOVERED
    assert harness.told() == []


def test_an_asset_stored_with_doubts_stays_stored_while_it_is_retried() -> None:
    harness = Harness()
    harness.sweep([COMPLETED], COMPLETED)
    lease = harness.ledger.lease("x", "test", timedelta(minutes=1))
    assert lease
    harness.ledger.settle(lease, _seen(harness), Settlement(AssetState.QUARANTINED, stored_objects=2))
    harness.ledger.reopen("x", keep_stored=True)

    harness.sweep([FAILED], FAILED)

    row = harness.ledger.get("x")
    assert row
    assert (row.state, row.stored_objects) == (DISCOVERED, 2)


def test_a_walk_asks_for_a_bounded_number_of_assets() -> None:
    harness = Harness(100)
    names = [f"{number:04}" for number in range(MOST_ASKED + 50)]
    harness.api.assets = [asset(id=name) for name in names]
    harness.sweeper.sweep(full=True)
    harness.api.assets = [asset(id=name, status=FAILED) for name in names]
    asked: list[str] = []

    def ask(asset_id: str) -> Asset:
        asked.append(asset_id)
        return asset(id=asset_id, status=FAILED)

    harness.api.asset = ask  # type: ignore[method-assign]

    harness.sweeper.sweep(full=True)

    assert len(asked) == MOST_ASKED
    assert len(harness.told()) == len(names)
    assert harness.ledger.counts().states[SOURCE_FAILED] == 0

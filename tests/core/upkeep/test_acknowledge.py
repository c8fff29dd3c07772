from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.errors import ReviewRefused
from archiver.core.health import assess
from archiver.core.records import end_records, keys
from archiver.core.upkeep.review import acknowledge, restore_decisions
from archiver.core.upkeep.status import WATCH_FACT
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.watch import Watcher, note
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import ACKNOWLEDGED_STATES, Acknowledgement, AssetState
from storage_backends.memory import MemoryBackend
from tests.core.archived import enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock

ASSET = asset(id="a")


class Harness:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]
        self.watcher = Watcher(
            ledger=self.ledger,
            clock=self.clock,
            at_risk_within=timedelta(days=3),
            sweep_every=timedelta(minutes=5),
        )
        self.ledger.remember(SWEEP_FACT, {"started_at": NOW.isoformat(), "assets": 1, "new": 0})
        note(self.ledger, WATCH_FACT, NOW)

    def acknowledge(self, asset_id: str = "a") -> Acknowledgement | None:
        row = acknowledge(self.ledger, self.stores, asset_id, by="ann", why="it was empty", now=self.clock())
        return row.acknowledged

    def recorded(self) -> list[end_records.EndRecord | None]:
        key = keys.end_record_key("a", ASSET.created_at)
        return [end_records.read(store, key) for store in self.stores]


@pytest.mark.parametrize("state", sorted(ACKNOWLEDGED_STATES))
def test_an_acknowledged_end_is_no_problem_and_is_still_shown(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state, "because")
    before = assess(harness.watcher.summary())

    reported = harness.acknowledge()

    after = assess(harness.watcher.summary())
    assert reported == Acknowledgement("ann", "it was empty", NOW)
    assert [problem.id for problem in before.problems] == [state]
    assert (after.exit_code, after.problems) == (0, ())
    assert after.notes == (f"Acknowledged, and not counted as problems: 1 {state}.",)
    assert harness.watcher.summary().needs_attention == ()


@pytest.mark.parametrize("state", sorted(ACKNOWLEDGED_STATES))
def test_an_acknowledgement_survives_the_loss_of_the_ledger(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state, "because")

    reported = harness.acknowledge()

    for record in harness.recorded():
        assert record is not None
        assert (record.state, record.reason, record.acknowledged) == (state, "because", reported)
        assert (record.seen.asset_id, record.seen.created_at) == ("a", ASSET.created_at)


def test_one_unacknowledged_end_is_a_problem_beside_many_acknowledged_ones() -> None:
    harness = Harness()
    for number in range(30):
        enter(harness.ledger, asset(id=f"seen-{number}"), AssetState.LOST, "because")
        acknowledge(harness.ledger, [], f"seen-{number}", by="ann", why="", now=NOW)
    enter(harness.ledger, asset(id="unseen"), AssetState.LOST, "because")

    summary = harness.watcher.summary()

    assert [row.asset_id for row in summary.needs_attention] == ["unseen"]
    assert [problem.text.split(":")[0] for problem in assess(summary).problems] == ["1 asset is lost"]


@pytest.mark.parametrize("state", sorted(set(AssetState) - ACKNOWLEDGED_STATES))
def test_an_asset_in_another_state_cannot_be_acknowledged(state: AssetState) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, state, "because")

    with pytest.raises(ReviewRefused, match=f"a is {state}"):
        harness.acknowledge()

    assert harness.recorded() == [None, None]


def test_an_unknown_asset_cannot_be_acknowledged() -> None:
    with pytest.raises(ReviewRefused, match="not in the ledger"):
        Harness().acknowledge()


def test_an_end_that_comes_again_needs_a_new_acknowledgement() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST, "because")
    harness.acknowledge()

    harness.ledger.reopen("a")
    enter(harness.ledger, ASSET, AssetState.LOST, "again")

    assert [problem.id for problem in assess(harness.watcher.summary()).problems] == ["lost"]


def test_a_reason_loses_its_query() -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST, "because")

    row = acknowledge(
        harness.ledger, harness.stores, "a", by="ann", why="see https://x.test/a?token=MARKED", now=NOW
    )

    assert row.acknowledged is not None
    assert "MARKED" not in row.acknowledged.why


@pytest.mark.parametrize(("state", "restored"), [(AssetState.LOST, True), (AssetState.DAMAGED, False)])
def test_a_lost_ledger_restores_the_acknowledgement_of_the_same_end(
    state: AssetState, restored: bool
) -> None:
    harness = Harness()
    enter(harness.ledger, ASSET, AssetState.LOST, "because")
    harness.acknowledge()
    (record, _) = harness.recorded()
    assert record is not None
    harness.ledger.clear()
    enter(harness.ledger, ASSET, state, "because")

    assert [
        restore_decisions(harness.ledger, record),
        restore_decisions(harness.ledger, record),
    ] == [
        restored,
        False,
    ]

    row = harness.ledger.get("a")
    assert row is not None
    assert (row.acknowledged is not None) == restored

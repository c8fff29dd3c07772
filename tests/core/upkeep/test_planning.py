"""`archiver plan` says what a sweep and its workers then do, and changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from archiver.core.judging import Scope
from archiver.core.upkeep import throughput
from archiver.core.upkeep.costs import Requests
from archiver.core.upkeep.planning import Plan, make_plan
from archiver.core.upkeep.sweep import Sweeper
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import Amount, AssetState
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock, FakeApi

SCOPE = Scope(RETENTION, types=frozenset({"room-composite", "room-vod"}), rooms=frozenset({"room-1"}))


class Harness:
    def __init__(self, *assets: Asset, scope: Scope = SCOPE) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]
        self.api = FakeApi(assets)
        self.scope = scope
        self.listed: list[int] = []

    def plan(self) -> Plan:
        return make_plan(
            api=self.api,
            ledger=self.ledger,
            stores=self.stores,
            scope=self.scope,
            clock=self.clock,
            part_bytes=5 * 2**20,
            listed=self.listed.append,
        )

    def sweep(self) -> int:
        sweeper = Sweeper(
            api=self.api, ledger=self.ledger, scope=self.scope, clock=self.clock, rebuild=lambda: None
        )
        sweeper.sweep(full=True)
        return self.ledger.counts().states.get(AssetState.DISCOVERED, 0)


def test_it_counts_what_is_left_and_what_settings_leave_out() -> None:
    harness = Harness(
        asset(id="a", size=100),
        asset(id="b", size=0),
        asset(id="chat", type="chat"),
        asset(id="other", room_id="room-2"),
        asset(id="another", room_id="room-3"),
        asset(id="failed", status="failed"),
    )

    plan = harness.plan()

    assert (plan.listed, plan.new, plan.archived) == (6, 2, 0)
    assert plan.to_archive.assets == 2
    assert plan.left_out == {
        "type 'chat' is not in ARCHIVER_TYPES": Amount(1, 1000),
        "the room is not in ARCHIVER_ROOMS": Amount(2, 2000),
        "failed at 100ms": Amount(1, 1000),
    }
    assert harness.listed == [2, 4, 6]


def test_it_writes_nothing_and_a_sweep_enters_as_many() -> None:
    harness = Harness(*(asset(id=f"a{number}") for number in range(5)), asset(id="c", type="chat"))

    plan = harness.plan()

    assert harness.ledger.counts().seen == 0
    assert harness.ledger.recall_all("") == {}
    assert [list(store.list("")) for store in harness.stores] == [[], []]
    assert harness.sweep() == plan.to_archive.assets == plan.new


def test_every_state_of_the_ledger_is_counted_where_a_sweep_leaves_it() -> None:
    assets = {state: asset(id=f"asset-{state}") for state in AssetState}
    harness = Harness(*assets.values())
    for state, each in assets.items():
        enter(harness.ledger, each, state)

    plan = harness.plan()
    harness.sweep()

    open_states = (AssetState.DISCOVERED, AssetState.QUEUED, AssetState.RUNNING, AssetState.WAITING)
    states = harness.ledger.counts().states
    assert plan.to_archive.assets == sum(states.get(state, 0) for state in open_states)
    assert plan.archived == states[AssetState.ARCHIVED] == 1
    assert plan.left_alone == {state: states[state] for state in plan.left_alone}
    assert plan.listed == plan.to_archive.assets + plan.archived + sum(plan.left_alone.values())
    assert plan.new == 0


def test_an_archived_asset_of_another_size_is_to_be_copied() -> None:
    harness = Harness(asset(id="a", size=2000))
    enter(harness.ledger, asset(id="a", size=1000))

    assert harness.plan().to_archive == Amount(1, 2000)


def test_an_asset_on_two_pages_is_counted_once() -> None:
    harness = Harness(asset(id="a"), asset(id="b"), asset(id="b"))

    assert harness.plan().listed == 2


def test_an_empty_ledger_is_replaced_by_the_manifests_of_every_destination() -> None:
    harness = Harness(asset(id="both"), asset(id="one"), asset(id="none"))
    archive_at(harness.stores, asset(id="both"))
    archive_at(harness.stores[:1], asset(id="one"))

    plan = harness.plan()

    assert (plan.archived, plan.to_archive.assets) == (1, 2)


def test_requests_count_an_unknown_size_as_the_average() -> None:
    sizes: list[Any] = [2**30, None]
    harness = Harness(*(asset(id=f"a{number}", size=size) for number, size in enumerate(sizes)))

    plan = harness.plan()

    assert plan.requests == Requests(2 * 208, 2 * 5)
    assert plan.bytes_with_unsized == 2 * 2**30


def test_a_forecast_needs_measured_hours() -> None:
    harness = Harness(asset(id="a", size=10**9))
    assert harness.plan().forecast is None
    hour = [3600.0, 10**9, 1]
    hours = {(NOW - timedelta(hours=n)).isoformat(): [*hour, *hour] for n in range(1, 6)}
    harness.ledger.remember(throughput.FACT, {"at": NOW.isoformat(), "hours": hours})

    found = harness.plan().forecast

    assert found is not None
    assert found.assets_left == 1
    assert 3000 < found.done_in_seconds.likely < 4000


def test_nothing_to_archive_has_no_forecast() -> None:
    assert Harness().plan().forecast is None

"""Many assets: the most urgent first, within a budget, yielding to urgent copies, by several runs at once."""

from __future__ import annotations

from datetime import timedelta
from threading import Thread

import pytest

from archiver.core.attempt import urgency as urgent_copies
from archiver.core.destinations import breaker
from archiver.core.judging import Scope
from archiver.core.replication.record_copies import copy_records
from archiver.core.replication.replicator import AWAY_AFTER, LOCK_TTL, WAIT
from archiver.core.replication.selection import Wanted, most_urgent
from archiver.core.upkeep.gaps import LARGEST_CHANGE
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.reports import REPLICATE_FACT
from archiver.hms.models import Asset
from archiver.ledger.models import AssetState, CopyState
from storage_backends.base import object_key
from storage_backends.errors import AccessDenied, TransientStorageError
from tests.core.examples import NOW, RETENTION, asset
from tests.core.replication.harness import FILES, WHOLE, ReplicationHarness, Store, put

SIZE = sum(map(len, FILES.values()))
DAY = timedelta(days=1)


def archived(harness: ReplicationHarness, number: int) -> list[Asset]:
    return [harness.archive(asset(id=f"asset-{n}")) for n in range(number)]


def test_a_destination_that_was_added_becomes_full() -> None:
    harness = ReplicationHarness()
    assets = archived(harness, 5)

    result = harness.replicator().replicate(Wanted())

    assert (result.copied, result.failed, result.left, result.complete) == (5, 0, 0, True)
    assert result.copied_bytes == 5 * SIZE
    assert all(harness.is_whole(harness.stores[1], each) for each in assets)
    assert harness.ledger.counts().copies == {
        "memory://one": {CopyState.WHOLE: 5},
        "memory://two": {CopyState.WHOLE: 5},
    }
    assert harness.replicator().replicate(Wanted()).copied == 0
    assert harness.replicator().replicate_due() is None


def test_only_what_was_asked_for_is_copied_and_a_plan_writes_nothing() -> None:
    harness = ReplicationHarness(Store("one"), Store("two"), Store("three"))
    one, two, three = archived(harness, 3)
    wanted = Wanted(target="memory://three", chooses=lambda row: row.asset_id != two.id)

    planned = harness.replicator().plan(wanted)

    assert planned.assets == 2
    assert not any(store.writes for store in harness.stores)
    assert harness.replicator().replicate(wanted).copied == 2
    assert [harness.is_whole(harness.stores[2], each) for each in (one, two, three)] == [True, False, True]
    assert not harness.stores[1].writes


def test_what_is_damaged_comes_first_then_what_the_fewest_hold_then_what_100ms_no_longer_has() -> None:
    harness = ReplicationHarness(Store("one"), Store("two"), Store("three"))
    stores = harness.stores
    harness.archive(asset(id="two copies"), at=stores[:2])
    harness.archive(asset(id="one copy"))
    harness.archive(asset(id="at 100ms", created_at=(NOW + 50 * DAY).isoformat()))
    harness.archive(asset(id="damaged"), at=stores[:2], state=AssetState.DAMAGED)
    names = [store.name for store in stores]

    rows = most_urgent(harness.ledger, Wanted(), names, harness.clock(), set())

    assert [row.asset_id for row in rows] == ["damaged", "one copy", "at 100ms", "two copies"]


def test_a_wrong_role_stops_after_a_few_assets_and_nothing_is_called_damaged() -> None:
    harness = ReplicationHarness()
    assets = archived(harness, 12)

    def refuse(_key: str) -> None:
        raise AccessDenied("403: not authorized to perform s3:PutObject")

    harness.stores[1].on_write = refuse

    result = harness.replicator(concurrency=1).replicate(Wanted())

    assert (result.copied, result.failed) == (0, AWAY_AFTER)
    assert result.left == 12 - AWAY_AFTER
    assert "s3:PutObject" in result.away["memory://two"]
    assert {harness.row(each).state for each in assets} == {AssetState.ARCHIVED}


def test_a_destination_that_vanishes_half_way_is_filled_by_the_next_run() -> None:
    harness = ReplicationHarness()
    archived(harness, 8)
    two, writes = harness.stores[1], iter(range(10))

    def vanish(_key: str) -> None:
        if next(writes, None) is None:
            raise TransientStorageError("no route to host")

    two.on_write = vanish
    first = harness.replicator(concurrency=1).replicate(Wanted())
    two.on_write = lambda _key: None
    second = harness.replicator().replicate(Wanted())

    assert 0 < first.copied < 8
    assert first.copied + second.copied == 8
    assert second.complete


def test_two_runs_at_once_share_the_work() -> None:
    harness = ReplicationHarness()
    assets = archived(harness, 10)
    copied: list[int] = []
    runs = [
        Thread(target=lambda: copied.append(harness.replicator().replicate(Wanted()).copied))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)

    assert sum(copied) == 10
    assert all(harness.is_whole(harness.stores[1], each) for each in assets)
    written = harness.stores[1].writes
    assert len(written) == len(set(written)), "nothing twice"


def test_an_automatic_run_keeps_within_the_budget_of_a_day() -> None:
    harness = ReplicationHarness()
    archived(harness, 6)
    replicator = harness.replicator(bytes_a_day=2 * SIZE, concurrency=1)

    first = replicator.replicate_due()
    at_once = replicator.replicate_due()
    harness.clock.advance(DAY)
    next_day = replicator.replicate_due()

    assert first is not None
    assert at_once is not None
    assert next_day is not None
    assert (first.copied, first.left) == (2, 4)
    assert at_once.copied == 0
    assert next_day.copied == 2
    fact = harness.ledger.recall(REPLICATE_FACT)
    assert fact is not None
    assert (fact["copied"], fact["left"]) == (2, 2)


def test_one_automatic_run_at_a_time() -> None:
    harness = ReplicationHarness()
    archived(harness, 1)
    harness.ledger.lock("replicate", LOCK_TTL)

    assert harness.replicator().replicate_due() is None


def test_nothing_begins_while_an_urgent_asset_waits_for_a_slot() -> None:
    harness = ReplicationHarness()
    archived(harness, 1)
    urgent_copies.publish(harness.ledger, ["urgent"], harness.clock())

    def pause(seconds: float) -> None:
        harness.paused.append(seconds)
        harness.clock.advance(timedelta(seconds=seconds))

    replicator = harness.replicator()
    replicator._pause = pause

    assert replicator.replicate(Wanted()).copied == 1
    assert harness.paused == [WAIT.total_seconds()] * 2, "the fact lives for a minute"


def test_a_paused_destination_gets_nothing() -> None:
    harness = ReplicationHarness()
    archived(harness, 2)
    breaker.trip(harness.ledger, "memory://two", "paused", harness.clock())

    result = harness.replicator().replicate(Wanted())

    assert (result.copied, result.left) == (0, 2)
    assert not harness.stores[1].writes


def test_a_run_that_is_stopped_says_what_is_left() -> None:
    harness = ReplicationHarness()
    archived(harness, 4)
    replicator = harness.replicator(concurrency=1)
    original = harness.stores[1].on_write

    def stop_soon(_key: str) -> None:
        harness.stopping = len(harness.stores[1].writes) >= 4
        original(_key)

    harness.stores[1].on_write = stop_soon

    result = replicator.replicate(Wanted())

    assert result.left > 0
    assert not result.complete
    assert result.copied + result.left == 4


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_run_is_not_complete_while_an_asset_is_whole_nowhere(acknowledged: bool) -> None:
    harness = ReplicationHarness()
    made = harness.archive(state=AssetState.DAMAGED)
    harness.ledger.note_copies(
        harness.row(made), {"memory://one": CopyState.DAMAGED, "memory://two": CopyState.LACKING}
    )
    if acknowledged:
        harness.ledger.acknowledge(made.id, "ann", "asked 100ms")

    result = harness.replicator().replicate(Wanted(combines=True))

    assert (result.copied, result.failed, result.nowhere) == (0, 0, 0 if acknowledged else 1)
    assert result.complete is acknowledged


def test_a_plan_counts_everything_for_a_destination_that_was_not_compared_yet() -> None:
    harness = ReplicationHarness()
    for made in archived(harness, 2):
        harness.ledger.note_copies(harness.row(made), {"memory://one": WHOLE})

    assert harness.replicator().plan(Wanted()).assets == 2
    assert harness.replicator().plan(Wanted(chooses=lambda row: row.asset_id == "asset-0")).assets == 1


def test_rows_of_which_nothing_is_known_are_copied_only_when_a_target_is_named() -> None:
    harness = ReplicationHarness()
    made = harness.archive()
    harness.ledger.note_copies(harness.row(made), {})

    assert harness.replicator().plan(Wanted()).assets == 0
    assert harness.replicator().replicate(Wanted(target="memory://two")).copied == 1
    assert harness.copies(made) == [WHOLE, WHOLE]


def test_sessions_and_statements_are_copied_and_what_is_there_stays() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    archived(harness, 1)
    put(one, "sessions/s1/session.json", b"one")
    put(one, "sessions/s2/session.json", b"one")
    put(one, "statements/2026-01.json", b"signed")
    put(two, "sessions/s2/session.json", b"two")

    assert harness.replicator().replicate(Wanted(), records=True).complete

    assert two.store.objects["sessions/s1/session.json"].data == b"one"
    assert two.store.objects["sessions/s2/session.json"].data == b"two"
    assert two.store.objects["statements/2026-01.json"].data == b"signed"
    assert harness.replicator().replicate(Wanted(), records=True).complete


def test_a_session_that_is_erased_while_it_is_copied_does_not_come_back() -> None:
    harness = ReplicationHarness()
    one, two = harness.stores
    put(one, "sessions/s1/session.json", b"one")
    two.on_write = lambda key: one.delete(object_key(key))

    assert copy_records(one, two) == 0
    assert "sessions/s1/session.json" not in two.store.objects


def test_records_that_cannot_be_copied_are_told() -> None:
    harness = ReplicationHarness()
    put(harness.stores[0], "sessions/s1/session.json", b"one")
    harness.stores[1].fail(AccessDenied("403"))

    result = harness.replicator().replicate(Wanted(), records=True)

    assert not result.complete
    assert "403" in result.failures["records"]


@pytest.mark.parametrize("number", [1, LARGEST_CHANGE + 1])
def test_what_was_archived_at_the_quorum_is_replicated_while_100ms_has_it(number: int) -> None:
    """100ms may refuse it all that time. However many are lacking: nothing went missing, so no reconcile stops."""
    harness = ReplicationHarness()
    assets = [harness.archive(asset(id=f"asset-{n}"), over=False) for n in range(number)]

    result = Reconciler(
        ledger=harness.ledger, destinations=harness.stores, scope=Scope(RETENTION), clock=harness.clock
    ).reconcile()
    harness.replicator().replicate_due()

    assert result is not None
    assert not result.stopped
    assert all(harness.is_whole(harness.stores[1], each) for each in assets)
    assert all(harness.row(each).state is AssetState.ARCHIVED for each in assets)
    assert all(harness.copies(each) == [WHOLE, WHOLE] for each in assets)

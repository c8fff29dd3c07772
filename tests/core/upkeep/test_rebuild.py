"""A lost ledger is rebuilt from all that any destination holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.core.deadlines import UNDATED
from archiver.core.judging import Scope, judge
from archiver.core.records import end_records, keys
from archiver.core.records.commit import committed, committed_after_all, mark_damaged
from archiver.core.upkeep.review import acknowledge
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectInfo, ObjectKey, object_key
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, flip_a_bit, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness


# of what is quarantined the manifest tells
@pytest.mark.parametrize("state", sorted(end_records.RECORDED_STATES - {AssetState.QUARANTINED}))
def test_every_end_outlives_the_ledger(state: AssetState) -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), state, "because of this")
    harness.reconcile()
    before = harness.ledger.get(asset().id)
    harness.ledger.clear()

    result = harness.reconcile()

    after = harness.ledger.get(asset().id)
    assert before is not None
    assert after is not None
    assert result.found == 1
    assert (after.state, after.reason) == (state, "because of this")
    assert (after.expires_at, after.type, after.room_id) == (before.expires_at, before.type, before.room_id)
    assert harness.ledger.counts().balanced


def test_an_end_that_only_one_destination_recorded_is_not_forgotten() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.LOST, "gone")
    harness.reconcile()
    harness.one.delete(keys.end_record_key(asset().id, asset().created_at))
    harness.ledger.clear()

    harness.reconcile()

    assert harness.state(asset()) is AssetState.LOST


def test_an_acknowledged_end_comes_back_acknowledged() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.LOST, "gone")
    acknowledge(harness.ledger, harness.stores, asset().id, by="ann", why="known", now=NOW)
    harness.ledger.clear()

    harness.reconcile()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.acknowledged is not None
    assert (row.acknowledged.by, row.acknowledged.why) == ("ann", "known")


def test_an_acknowledged_end_that_the_api_told_of_first_is_acknowledged_again() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.SOURCE_FAILED, "failed")
    acknowledge(harness.ledger, harness.stores, asset().id, by="ann", why="known", now=NOW)
    harness.ledger.clear()
    enter(harness.ledger, asset(), AssetState.SOURCE_FAILED, "failed")  # while no destination could be listed

    harness.reconcile()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.acknowledged is not None


@pytest.mark.parametrize(
    ("created_at", "expires_at"),
    [
        ("2026-02-01T00:00:00+00:00", datetime(2026, 2, 1, tzinfo=UTC) + RETENTION),
        ("2999-01-01T00:00:00+00:00", UNDATED),
        ("0001-01-01T00:00:00+00:00", UNDATED),
    ],
)
def test_an_end_record_without_a_deadline_gets_that_of_its_asset(
    created_at: str, expires_at: datetime
) -> None:
    harness = ReconcileHarness()
    record = {
        "schema": "archiver.end/1",
        "asset_id": "old",
        "type": "chat",
        "room_id": None,
        "session_id": None,
        "created_at": created_at,
        "state": "lost",
        "reason": "gone",
        "recorded_at": NOW.isoformat(),
    }
    put(harness.one, "ends/2026/02/01/old.json", json.dumps(record).encode())

    harness.reconcile()

    row = harness.ledger.get("old")
    assert row is not None
    assert row.expires_at == expires_at


@pytest.mark.parametrize("state", ["archived", "running", "of a newer version", "discovered"])
def test_an_end_record_of_an_unknown_state_enters_nothing(state: str) -> None:
    harness = ReconcileHarness()
    put(harness.one, "ends/2026/02/01/x.json", json.dumps({"asset_id": "x", "state": state}).encode())

    harness.reconcile()

    assert harness.ledger.get("x") is None


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b"[" * 20_000])
def test_an_invalid_end_record_is_skipped(data: bytes) -> None:
    harness = ReconcileHarness()
    put(harness.one, "ends/2026/02/01/a.json", data)
    enter(harness.ledger, asset(), AssetState.LOST, "gone")
    harness.reconcile()
    harness.ledger.clear()

    harness.reconcile()

    assert harness.state(asset()) is AssetState.LOST


def test_a_manifest_everywhere_is_better_than_any_recorded_end() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.LOST, "gone")
    harness.reconcile()
    archive_at(harness.stores, asset())
    harness.ledger.clear()

    harness.reconcile()

    assert harness.state(asset()) is AssetState.ARCHIVED


def test_an_end_record_does_not_change_a_row_in_the_ledger() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.REJECTED, "worthless")
    harness.reconcile()
    harness.ledger.reopen(asset().id)  # `archiver archive ID`

    harness.reconcile()

    assert harness.state(asset()) is AssetState.DISCOVERED


def test_an_asset_at_one_destination_is_due_while_100ms_has_it() -> None:
    harness = ReconcileHarness()
    archive_at([harness.two], asset())

    harness.reconcile()

    assert harness.state(asset()) is AssetState.DISCOVERED


def test_an_asset_at_one_destination_needs_a_person_once_100ms_has_deleted_it() -> None:
    harness = ReconcileHarness()
    archive_at([harness.two], asset())
    harness.clock.advance(RETENTION)

    harness.reconcile()
    again = harness.reconcile()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is AssetState.DAMAGED
    assert "not whole at memory://one" in (row.reason or "")
    assert "whole at memory://two" in (row.reason or "")
    assert (again.entered, again.found) == (0, 0)


def test_an_asset_at_one_destination_and_damaged_there_is_whole_nowhere() -> None:
    harness = ReconcileHarness()
    mark_damaged(harness.two, archive_at([harness.two], asset()), ["movie.mp4: missing"])
    harness.clock.advance(RETENTION)

    harness.reconcile()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is AssetState.DAMAGED
    assert "whole at no destination" in (row.reason or "")


@pytest.mark.parametrize(
    ("state", "meanwhile"),
    [
        (AssetState.DAMAGED, AssetState.DAMAGED),
        (AssetState.QUARANTINED, AssetState.DISCOVERED),  # 100ms still has it
        (AssetState.REJECTED, AssetState.REJECTED),
        (AssetState.LOST, AssetState.DAMAGED),  # whole at the first destination
        (AssetState.SOURCE_FAILED, AssetState.SOURCE_FAILED),
    ],
)
def test_what_ended_is_archived_after_all_only_when_every_byte_is_right(
    state: AssetState, meanwhile: AssetState
) -> None:
    """It was found damaged, its manifest could not be marked, and a person rejected it, for example."""
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), state, "because")
    key = archive_at(harness.stores, asset())
    repair = flip_a_bit(harness.two, key)

    harness.reconcile()
    assert harness.state(asset()) is meanwhile
    # who looks at it by its sizes alone, such as an attempt after another reopening, knows of it
    assert committed(harness.two, key) is None

    repair()
    assert committed_after_all(harness.two, key), "as `archiver verify` and the scrub do"
    harness.reconcile()
    assert harness.state(asset()) is AssetState.ARCHIVED


def test_a_lost_asset_that_is_whole_somewhere_is_not_lost() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.LOST, "gone")
    archive_at([harness.two], asset())

    harness.reconcile()

    assert harness.state(asset()) is AssetState.DAMAGED


def test_a_lost_asset_whose_objects_are_gone_stays_lost() -> None:
    harness = ReconcileHarness()
    enter(harness.ledger, asset(), AssetState.LOST, "gone")
    archive_at([harness.two], asset())
    for info in list(harness.two.list("recordings/")):
        harness.two.delete(info.key)

    harness.reconcile()

    assert harness.state(asset()) is AssetState.LOST


@pytest.mark.parametrize("known", [None, AssetState.LOST])
@pytest.mark.parametrize("lacking", [False, True], ids=["everywhere", "a third lacks it"])
def test_a_whole_copy_counts_beside_a_manifest_that_says_nothing(
    known: AssetState | None, lacking: bool
) -> None:
    stores = [MemoryBackend(name) for name in ("one", "two", "three")]
    harness = ReconcileHarness(*stores)
    archive_at(stores[: 2 if lacking else 3], asset())
    put(harness.one, keys.manifest_key(asset().id, asset().created_at), b"{not json")
    if known is not None:
        enter(harness.ledger, asset(), known, "gone")
    harness.clock.advance(RETENTION)

    result = harness.reconcile()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert (row.state, result.unreadable) == (AssetState.DAMAGED, 1)
    assert "not whole at memory://one" in (row.reason or "")
    assert "; whole at memory://two" in (row.reason or "")


def test_an_unreadable_manifest_does_not_count_as_missing() -> None:
    class Busy(MemoryBackend):
        def read(
            self,
            key: ObjectKey,
            start: int = 0,
            length_bytes: int | None = None,
            *,
            if_match: str | None = None,
        ) -> bytes:
            if key.startswith(keys.MANIFESTS):
                raise TransientStorageError("503")
            return super().read(key, start, length_bytes, if_match=if_match)

    harness = ReconcileHarness(MemoryBackend("one"), Busy("two"), MemoryBackend("three"))
    archive_at([harness.one, harness.two], asset())
    harness.clock.advance(RETENTION)

    result = harness.reconcile()

    assert result.unreadable == 1
    assert harness.state(asset()) is None


@pytest.mark.parametrize("everywhere", [True, False], ids=["at-both", "at-one-alone"])
@pytest.mark.parametrize(
    ("days", "state"), [(1, AssetState.DISCOVERED), (20, AssetState.DAMAGED)], ids=["lasts", "over"]
)
def test_a_manifest_whose_objects_are_gone_makes_nothing_archived(
    everywhere: bool, days: int, state: AssetState
) -> None:
    """It is known all the same: 100ms may have deleted it early, so that no sweep enters it."""
    harness = ReconcileHarness()
    archive_at(harness.stores if everywhere else [harness.one], asset())
    harness.one.delete(object_key(f"recordings/{asset().id}/movie.mp4"))
    harness.clock.advance(timedelta(days=days))

    harness.reconcile()

    row = harness.ledger.get(asset().id)
    assert row is not None
    assert row.state is state
    assert row.reason is None or "movie.mp4: missing" in row.reason


@pytest.mark.parametrize("end", [None, AssetState.REJECTED])
@pytest.mark.parametrize("harm", ["object", "mark", "manifest", "copy"])
def test_what_is_not_whole_everywhere_is_known_again_while_its_source_lasts(
    harm: str, end: AssetState | None
) -> None:
    """What a person has rejected stays so."""
    harness = ReconcileHarness()
    key = archive_at(harness.stores, asset())
    if end is not None:
        end_records.write(harness.stores, judge(asset(), Scope(RETENTION)), end, "worthless", NOW)
    if harm == "object":
        harness.one.delete(object_key(f"recordings/{asset().id}/movie.mp4"))
    elif harm == "mark":
        mark_damaged(harness.one, key, ["movie.mp4: missing"])
    elif harm == "manifest":
        put(harness.one, key, b"{not json")
    else:
        harness.one.delete(key)

    harness.reconcile()

    assert harness.state(asset()) is (end or AssetState.DISCOVERED)


def test_a_destination_that_cannot_be_listed_now_makes_nothing_archived_and_nothing_damaged() -> None:
    class Unlisted(MemoryBackend):
        def stat(self, key: ObjectKey) -> ObjectInfo | None:
            if key.startswith("recordings/"):
                raise TransientStorageError("503")
            return super().stat(key)

    harness = ReconcileHarness()
    harness.stores = [Unlisted("one"), harness.two]
    archive_at(harness.stores, asset())
    harness.clock.advance(timedelta(days=20))

    harness.reconcile()

    assert harness.state(asset()) is None


def test_nothing_is_forgotten_when_the_ledger_is_lost_and_status_says_so() -> None:
    """One lost asset, one with a missing copy, one archived; the ledger is flushed when 100ms has deleted them all."""
    harness = ReconcileHarness()
    lost, half, whole = asset(id="lost"), asset(id="half"), asset(id="whole")
    enter(harness.ledger, lost, AssetState.LOST, "never to be had")
    for each in (half, whole):
        enter(harness.ledger, each)
        archive_at(harness.stores, each)
    harness.two.delete(keys.manifest_key("half", half.created_at))
    harness.clock.advance(RETENTION + timedelta(days=5))
    harness.reconcile()
    before = states(harness)
    harness.ledger.clear()

    harness.reconcile()

    assert states(harness) == before
    assert before == {
        "lost": AssetState.LOST,
        "half": AssetState.DAMAGED,
        "whole": AssetState.ARCHIVED,
    }
    watcher = Watcher(
        ledger=harness.ledger,
        clock=harness.clock,
        at_risk_within=timedelta(days=3),
        sweep_every=timedelta(minutes=5),
    )
    assert not watcher.summary().healthy
    assert {row.asset_id for row in watcher.summary().needs_attention} == {"lost", "half"}


def states(harness: ReconcileHarness) -> dict[str, Any]:
    return {row.asset_id: row.state for row in harness.ledger.rows()}


@pytest.mark.parametrize(
    ("says", "at"),
    [
        ({"asset_id": "another"}, None),
        ({"asset": {"id": "another"}}, None),
        ({"asset_id": "another", "asset": {"id": "another"}}, None),
        ({"folder": "recordings/another"}, None),
        ({"folder": "recordings/room/session/room-composite/another"}, None),
        ({"folder": "recordings"}, None),
        ({"folder": "manifests/ID"}, None),
        ({"folder": "recordings/ID/another"}, None),
        ({"folder": "recordings/another/ID"}, None),
        ({"folder": "recordings/ID/session/room-composite/another"}, None),
        ({}, "manifests/2026/02/27/ID.json"),
        ({}, "manifests/undated/ID.json"),
        ({}, "manifests/2026/03/01/ID-2.json"),
    ],
)
@pytest.mark.parametrize("over", [True, False], ids=["source over", "source there"])
def test_a_manifest_proves_its_own_asset_alone(says: dict[str, Any], at: str | None, over: bool) -> None:
    harness = ReconcileHarness()
    hostile, other = asset(), asset(id="another")
    archive_at(harness.stores, other)
    key = archive_at(harness.stores, hostile)
    for store in harness.stores:
        manifest = json.loads(store.store.objects[key].data)
        changed = json.loads(json.dumps(says).replace("ID", hostile.id))
        folder = changed.get("folder", manifest["folder"])
        for each in manifest["objects"]:
            put(
                store,
                f"{folder}/{each['path']}",
                store.store.objects[f"recordings/{hostile.id}/{each['path']}"].data,
            )
        manifest |= {**changed, "asset": {**manifest["asset"], **changed.get("asset", {})}}
        store.delete(key)
        put(store, at.replace("ID", hostile.id) if at else key, json.dumps(manifest).encode())
    if over:
        harness.clock.advance(RETENTION + timedelta(days=1))

    result = harness.reconcile()

    assert harness.states() == {AssetState.ARCHIVED: 1}
    assert harness.state(other) is AssetState.ARCHIVED
    assert result.unreadable

"""What the oracle forgives, and what it does not."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from archiver.core.records.keys import MARKER, tombstone_key
from archiver.ledger.models import AssetState, CopyState, Row
from archiver.transfer.checksums import crc32c
from storage_backends.errors import AccessDenied
from tests.core.archived import enter, put
from tests.core.examples import asset
from tests.simulation.faults import Fault
from tests.simulation.fleet import Fleet
from tests.simulation.ledgers import AuditedLedger
from tests.simulation.oracle import RE_READ_WITHIN, UNSEEN_SECONDS
from tests.simulation.scheduler import DAY, HOUR, MINUTE, Process
from tests.simulation.stores import WORKERS_DENIED, Refusal

TWO_DESTINATIONS = 117  # a seed
WHOLE, LACKING, DAMAGED = CopyState.WHOLE, CopyState.LACKING, CopyState.DAMAGED
MANIFEST, OBJECT = "manifests/2026/03/01/asset.json", "recordings/asset/one.ts"


@pytest.mark.parametrize("has_marker", [False, True])
def test_only_a_destination_that_was_identified_is_unmounted(has_marker: bool) -> None:
    fleet = Fleet(1)
    for store in fleet.destinations:
        store.objects.pop(MARKER, None)
        if has_marker:
            put(store.real, MARKER, b"{}")

    fleet._unmount()

    assert [store.mounted for store in fleet.destinations].count(False) == (1 if has_marker else 0)


@pytest.mark.parametrize(
    ("key", "awake", "is_broken"),
    [
        (MANIFEST, UNSEEN_SECONDS["manifest"] - 1, False),
        (MANIFEST, UNSEEN_SECONDS["manifest"] + 1, True),
        (OBJECT, UNSEEN_SECONDS["object"] - 1, False),
        (OBJECT, UNSEEN_SECONDS["object"] + 1, True),
    ],
)
@pytest.mark.parametrize("paused", [0.0, 600.0])
def test_what_is_written_where_no_disk_is_mounted_is_forgiven_for_seconds_awake(
    key: str, awake: float, is_broken: bool, paused: float
) -> None:
    fleet = Fleet(1)
    store, worker = fleet.destinations[0], fleet.workers[0]
    worker.start()
    fleet.scheduler.seconds = 1000.0
    fleet.faults.add(Fault(f"store:{store.name}", "unmounted", 1000.0, 9000.0))
    if paused:
        worker.pause(paused)
    fleet.scheduler.seconds += paused + awake

    fleet.oracle.wrote(worker, store, key, None, mounted=False)

    assert _found(fleet) == ("nothing is written to a destination that is not there" if is_broken else None)


@pytest.mark.parametrize(
    ("erased", "awake", "is_broken"),
    [
        (True, UNSEEN_SECONDS["manifest"] - 1, False),
        (True, UNSEEN_SECONDS["manifest"] + 1, True),
        (False, 0.0, True),
    ],
)
@pytest.mark.parametrize("paused", [0.0, 600.0])
def test_a_manifest_of_what_was_erased_meanwhile_is_forgiven_for_seconds_awake(
    erased: bool, awake: float, is_broken: bool, paused: float
) -> None:
    fleet = Fleet(1)
    store, worker, operator = fleet.destinations[0], fleet.workers[0], fleet.operator
    asset_id = next(iter(fleet.oracle.assets))
    worker.start()
    fleet.scheduler.seconds = 1000.0
    if erased:
        put(store.real, tombstone_key(asset_id), json.dumps({"asset": asset_id, "state": "erased"}).encode())
        fleet.oracle.wrote(operator, store, tombstone_key(asset_id), None, mounted=True)
    if paused:
        worker.pause(paused)
    fleet.scheduler.seconds += paused + awake
    worker.attempt_began = fleet.scheduler.seconds
    key = f"manifests/2026/03/01/{asset_id}.json"
    gone = {"path": "one.ts", "size": 1, "crc32c": "00000000"}
    manifest = {"schema": "archiver.manifest/1", "folder": "recordings/a", "objects": [gone]}
    put(store.real, key, json.dumps(manifest).encode())

    fleet.oracle.wrote(worker, store, key, None, mounted=True)

    assert _found(fleet) == ("no manifest proves what is not whole" if is_broken else None)


def _stale_and_holder(fleet: Fleet) -> tuple[str, Process, Process]:
    """Lease an asset to a worker whose lease is over by now, and to the one that holds it."""
    asset_id = next(iter(fleet.oracle.assets))
    stale, holder = fleet.workers[:2]
    fleet.scheduler.seconds = 1000.0
    for number, worker in enumerate((stale, holder), 1):
        worker.start()
        worker.asset_id, worker.lease_number, worker.attempt_began = asset_id, number, 1000.0
    fleet.oracle._last_lease[asset_id], fleet.oracle._leased_at[asset_id] = (0, 2), 1000.0
    return asset_id, stale, holder


def _manifest_of_an_a(folder: str) -> dict[str, Any]:
    listed = {"path": "one.ts", "size": 1, "crc32c": f"{crc32c(b'a'):08x}"}
    return {"schema": "archiver.manifest/1", "folder": folder, "objects": [listed]}


@pytest.mark.parametrize(
    ("data", "checksums", "awake", "is_broken"),
    [
        (b"ab", True, UNSEEN_SECONDS["manifest"] - 1, False),
        (b"ab", True, UNSEEN_SECONDS["manifest"] + 1, True),  # a list shows it
        (b"ab", False, UNSEEN_SECONDS["manifest"] + 1, True),
        (b"b", True, UNSEEN_SECONDS["manifest"] + 1, True),
        (b"b", False, UNSEEN_SECONDS["manifest"] + 1, False),
    ],
)
@pytest.mark.parametrize("paused", [0.0, 600.0])
@pytest.mark.parametrize("writer", ["stale", "holder", "another since"])
def test_a_manifest_of_what_a_stale_worker_overwrote_is_forgiven_if_no_list_has_shown_it(
    data: bytes, checksums: bool, awake: float, is_broken: bool, paused: float, writer: str
) -> None:
    fleet = Fleet(1)
    oracle, store = fleet.oracle, fleet.destinations[0]
    store.checksums = checksums
    asset_id, stale, holder = _stale_and_holder(fleet)
    folder, key = f"recordings/{asset_id}", f"manifests/2026/03/01/{asset_id}.json"
    put(store.real, f"{folder}/one.ts", b"a")
    for worker in {"stale": [stale], "holder": [holder], "another since": [stale, holder]}[writer]:
        before = store.objects[f"{folder}/one.ts"]
        put(store.real, f"{folder}/one.ts", data)
        oracle.wrote(worker, store, f"{folder}/one.ts", before, mounted=True)
    if paused:
        holder.pause(paused)
    fleet.scheduler.seconds += paused + awake
    put(store.real, key, json.dumps(_manifest_of_an_a(folder)).encode())

    oracle.wrote(holder, store, key, None, mounted=True)

    expected = "no manifest proves what is not whole" if is_broken or writer != "stale" else None
    assert _found(fleet) == expected


@pytest.mark.parametrize(
    ("data", "awake", "is_broken"),
    [
        (b"ab", UNSEEN_SECONDS["manifest"] - 1, False),
        (b"b", UNSEEN_SECONDS["manifest"] - 1, False),
        (b"ab", UNSEEN_SECONDS["manifest"] + 1, True),
        (b"b", UNSEEN_SECONDS["manifest"] + 1, True),  # its lease was not over: no excuse for as many bytes
    ],
)
@pytest.mark.parametrize("checksums", [True, False])
def test_a_manifest_that_a_stale_worker_writes_after_its_pause_is_forgiven_if_no_list_has_shown_the_next_version(
    data: bytes, awake: float, is_broken: bool, checksums: bool
) -> None:
    fleet = Fleet(1)
    oracle, store = fleet.oracle, fleet.destinations[0]
    store.checksums = checksums
    asset_id, stale, holder = _stale_and_holder(fleet)
    folder, key = f"recordings/{asset_id}", f"manifests/2026/03/01/{asset_id}.json"
    put(store.real, f"{folder}/one.ts", b"a")
    before = store.objects[f"{folder}/one.ts"]
    put(store.real, f"{folder}/one.ts", data)
    oracle.wrote(holder, store, f"{folder}/one.ts", before, mounted=True)
    stale.pause(600.0)
    fleet.scheduler.seconds += 600.0 + awake
    put(store.real, key, json.dumps(_manifest_of_an_a(folder)).encode())

    oracle.wrote(stale, store, key, None, mounted=True)

    assert _found(fleet) == ("no manifest proves what is not whole" if is_broken else None)


@pytest.mark.parametrize("there", [b"a", b"b", b"ab", None])
def test_a_mark_of_damage_is_wrong_only_if_what_the_manifest_lists_is_there(there: bytes | None) -> None:
    """Such as by a worker that woke, and committed over what another one has stored of a newer version since."""
    fleet = Fleet(1)
    store, worker, asset_id = fleet.destinations[0], fleet.workers[0], next(iter(fleet.oracle.assets))
    key = f"manifests/2026/03/01/{asset_id}.json"
    manifest = _manifest_of_an_a(f"recordings/{asset_id}")
    put(store.real, key, json.dumps(manifest).encode())
    before = store.objects[key]
    if there is not None:
        put(store.real, f"recordings/{asset_id}/one.ts", there)
    put(store.real, key, json.dumps({**manifest, "damage": ["one.ts: it differs"]}).encode())
    worker.start()

    fleet.oracle.wrote(worker, store, key, before, mounted=True)

    assert _found(fleet) == ("nothing whole is called damaged" if there == b"a" else None)


@pytest.mark.parametrize(
    ("reads", "changed_at", "hindered", "is_excused"),
    [
        ((1000.0, 1030.0), 1010.0, False, True),
        ((1000.0, 1030.0), 990.0, False, False),  # what was read is of the second version
        ((1000.0, 1030.0), 1040.0, False, False),  # of the first
        ((1000.0, 9000.0), 1010.0, False, False),  # it has compared
        ((1000.0, 9000.0), 1010.0, True, True),  # and was not told
        ((100.0, 130.0), 110.0, False, False),  # by an attempt before
    ],
)
def test_two_versions_are_mixed_only_by_an_attempt_that_could_not_know(
    reads: tuple[float, float], changed_at: float, hindered: bool, is_excused: bool
) -> None:
    fleet = Fleet(1)
    oracle, store, worker, other = fleet.oracle, fleet.destinations[0], *fleet.workers[:2]
    made = next(each for each in oracle.assets.values() if each.is_tree)
    made.versions = [made.versions[0], replace(made.versions[0], since=changed_at, number=2)]
    made.ready_from, made.gone_from = 0.0, DAY
    segment = {"path": "v0/seg0.ts", "size": 1, "crc32c": f"{crc32c(b'a'):08x}"}
    manifest = {"schema": "archiver.manifest/1", "folder": f"recordings/{made.id}", "objects": [segment]}
    key = f"manifests/2026/03/01/{made.id}.json"
    put(store.real, f"recordings/{made.id}/v0/seg0.ts", b"a")
    put(store.real, key, json.dumps(manifest).encode())
    fleet.scheduler.seconds = reads[1] + 1
    fleet.faults.all.clear()
    if hindered:
        fleet.faults.add(Fault("source", "403", reads[1], reads[1] + HOUR))
    for process in (worker, other):
        process.start()
        process.attempt_began = 500.0
    worker.source_reads[made.id] = reads

    oracle.wrote(worker, store, key, None, mounted=True)
    oracle.wrote(other, store, key, None, mounted=True)  # it has read nothing, and goes by what is there

    assert _found(fleet) == (None if is_excused else "no manifest proves what is not whole")


@pytest.mark.parametrize(
    ("archived", "after", "number", "broken"),
    [
        (0.0, 20.5, 1, None),
        (0.0, 19.5, 1, "nothing expires before its term is over"),
        (3.0, 20.5, 1, "nothing expires before its term is over"),  # archived again
        (0.0, 20.5, 2, "no day deletes more than its share"),
    ],
)
def test_what_expires_too_early_or_beyond_the_share_is_found(
    archived: float, after: float, number: int, broken: str | None
) -> None:
    """Times in days."""
    fleet = Fleet(1)
    dated = [each for each in fleet.oracle.assets.values() if (each.created_at or "").startswith("2026")]
    expiry = fleet.oracle.expiry
    expiry.keep_days, expiry.archived_at = 20, lambda _: archived * DAY
    for each in dated[:number]:
        each.created = 0.0
        fleet.scheduler.seconds = 0.0
        expiry.committed(each.id)
        fleet.scheduler.seconds = after * DAY
        expiry.buried(json.dumps({"asset": each.id, "state": "expired"}).encode())

    assert _found(fleet) == broken


@pytest.mark.parametrize("by_rule", [False, True])
@pytest.mark.parametrize("epochs", [0, 1])
def test_what_has_expired_alarms_nobody(by_rule: bool, epochs: int) -> None:
    """A ledger that was lost may alarm for what a rule of the buckets had deleted before."""
    fleet = Fleet(1)
    expiry, asset_id = fleet.oracle.expiry, next(iter(fleet.oracle.assets))
    if by_rule:
        expiry.deleted_by_rule[asset_id] = 0
    else:
        expiry._expired_at[asset_id] = 0.0
    fleet.oracle.epoch = epochs

    at = fleet.scheduler.now()
    expiry.settled("worker-0", None, Row(asset_id, "chat", AssetState.LOST, at, at, at))

    assert _found(fleet) == (None if by_rule and epochs else "expired never alarms")


@pytest.mark.parametrize(
    ("known", "harmed_before", "is_broken"),
    [
        ([WHOLE, LACKING], HOUR, False),
        ([WHOLE, DAMAGED], HOUR, False),
        ([WHOLE, LACKING], RE_READ_WITHIN + HOUR, True),  # it was read since
        ([WHOLE, LACKING], None, True),
        ([DAMAGED, LACKING], HOUR, True),
        ([WHOLE, WHOLE], HOUR, True),
    ],
)
def test_a_copy_that_was_harmed_unnoticed_counts_for_the_quorum(
    known: list[CopyState], harmed_before: float | None, is_broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(TWO_DESTINATIONS)
    oracle, (one, two) = fleet.oracle, fleet.destinations
    oracle.quorum = 1
    monkeypatch.setattr(oracle, "problem", lambda _store, _asset_id: "no manifest")
    made = asset(id=next(iter(oracle.assets)))
    enter(fleet.ledger, made)
    row = fleet.ledger.get(made.id)
    assert row is not None
    fleet.ledger.note_copies(row, {one.name: known[0], two.name: known[1]})
    if harmed_before is not None:
        oracle.harm(one, made.id, "object deleted", OBJECT)
        fleet.scheduler.seconds += harmed_before

    oracle.look()

    assert _found(fleet) == ("what is archived is whole" if is_broken else None)


@pytest.mark.parametrize(
    ("quorum", "known", "is_broken"),
    [(1, DAMAGED, False), (1, WHOLE, True), (2, DAMAGED, True)],
)
def test_a_manifest_that_must_be_marked_soon_may_be_known_as_damaged_below_the_quorum(
    quorum: int, known: CopyState, is_broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(TWO_DESTINATIONS)
    oracle, (one, two) = fleet.oracle, fleet.destinations
    oracle.quorum = quorum
    checks: list[Callable[[], None]] = []
    monkeypatch.setattr(fleet.scheduler, "at", lambda _seconds, check: checks.append(check))
    monkeypatch.setattr(oracle, "problem", lambda _store, _asset_id: "its manifest proves nothing")
    made = asset(id=next(iter(oracle.assets)))
    enter(fleet.ledger, made)
    row = fleet.ledger.get(made.id)
    assert row is not None
    fleet.ledger.note_copies(row, {one.name: WHOLE, two.name: known})

    oracle._soon_marked(two, made.id)
    checks.pop()()

    assert _found(fleet) == ("what is archived is whole" if is_broken else None)


@pytest.mark.parametrize(
    ("written", "harmed_at", "known", "is_healthy"),
    [
        ((), None, CopyState.WHOLE, False),
        ((OBJECT,), None, CopyState.WHOLE, False),
        ((MANIFEST,), None, CopyState.WHOLE, False),
        ((OBJECT, MANIFEST), None, CopyState.WHOLE, True),
        ((MANIFEST, OBJECT), None, CopyState.WHOLE, True),
        ((OBJECT, MANIFEST), None, CopyState.LACKING, False),
        ((MANIFEST,), 2.5 * DAY, CopyState.WHOLE, True),
        ((MANIFEST,), 1.5 * DAY, CopyState.WHOLE, False),
    ],
    ids=[
        "it was never copied there",
        "its manifest is missing",
        "its object is missing",
        "whole, then deleted",
        "mended, then deleted",
        "deleted, and the ledger knows",
        "deleted while it was copied",
        "deleted before it was copied",
    ],
)
def test_what_was_whole_since_it_was_archived_at_the_quorum_is_missed_once_it_is_read(
    written: tuple[str, ...],
    harmed_at: float | None,
    known: CopyState,
    is_healthy: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet(1)
    store, worker, scheduler, oracle = (
        fleet.destinations[0],
        fleet.workers[0],
        fleet.scheduler,
        fleet.oracle,
    )
    asset_id = next(iter(oracle.assets))
    listed = {"path": "one.ts", "size": 1, "crc32c": f"{crc32c(b'a'):08x}"}
    manifest = {
        "schema": "archiver.manifest/1",
        "folder": f"recordings/{asset_id}",
        "objects": [listed],
        "accepted": {"by": "ann"},
    }
    data = {OBJECT: b"a", MANIFEST: json.dumps(manifest).encode()}
    now = scheduler.now()
    row = Row(asset_id, "track", AssetState.ARCHIVED, now, now, now, copies={store.name: known})
    monkeypatch.setattr(AuditedLedger, "all_rows", lambda _: [row])
    oracle.copies.archived_at_quorum(asset_id, [store.name])
    worker.start()
    worker.attempt_began = 2 * DAY
    if harmed_at is not None:
        scheduler.seconds = harmed_at
        oracle.harm(store, asset_id, "object deleted", OBJECT.replace("asset", asset_id))
    scheduler.seconds = 3 * DAY
    for name in written:
        key = name.replace("asset", asset_id)
        put(store.real, key, data[name])
        oracle.wrote(worker, store, key, None, mounted=True)
    store.objects.pop(OBJECT.replace("asset", asset_id), None)

    assert (oracle.copies.not_whole_everywhere([row], 0.0) is None) is is_healthy


@pytest.mark.parametrize("was", [AssetState.ARCHIVED, AssetState.RUNNING])
def test_an_asset_that_changed_while_it_was_counted_is_judged_by_the_next_look(
    was: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(1)
    oracle, store = fleet.oracle, fleet.destinations[0]
    oracle.swept_at = fleet.scheduler.seconds
    asset_id, now = next(iter(oracle.assets)), fleet.scheduler.now()
    row = Row(asset_id, "track", AssetState.ARCHIVED, now, now, now, copies={store.name: CopyState.DAMAGED})
    monkeypatch.setattr(AuditedLedger, "all_rows", lambda _: [row])
    summary: Any = types.SimpleNamespace(open_breakers=[], healthy=True)
    oracle.epoch_began = -1.0

    oracle.watched(summary, fleet.scheduler.seconds, {asset_id: replace(row, state=was)})

    assert _found(fleet) == ("healthy only when it is" if was is AssetState.ARCHIVED else None)


@pytest.mark.parametrize(
    ("deleted_at", "left", "is_known"),
    [
        (3 * HOUR, (), False),
        (HOUR, (), True),  # the reconcile has seen it
        (3 * HOUR, ("ends/2026/03/01/asset.json",), True),
        (3 * HOUR, (MANIFEST,), True),  # at another destination
    ],
)
def test_an_asset_whose_last_manifest_is_deleted_just_before_the_ledger_is_lost_is_forgotten(
    deleted_at: float, left: tuple[str, ...], is_known: bool
) -> None:
    fleet = Fleet(1)
    oracle, store, scheduler = fleet.oracle, fleet.destinations[0], fleet.scheduler
    asset_id = next(iter(oracle.assets))
    oracle._known[asset_id] = 0.0
    oracle.compared_from = 2 * HOUR
    scheduler.seconds = deleted_at
    oracle.harm(store, asset_id, "manifest deleted", MANIFEST.replace("asset", asset_id))
    for name in left:
        put(store.real, name.replace("asset", asset_id), b"{}")
    scheduler.seconds = 2 * DAY

    oracle.new_epoch(flushed=True)

    assert (asset_id in oracle._known) is is_known


def _found(fleet: Fleet) -> str | None:
    violation = fleet.scheduler.violation
    return violation.name if violation is not None else None


@pytest.mark.parametrize(
    ("minutes_ago", "killed", "took_from", "told", "is_broken"),
    [
        ((20, 40), False, None, (), True),
        ((20, 40), False, None, ("worker-0",), False),
        ((20, 40), False, "keeper", (), True),  # whose credentials are others
        ((20, 40), False, "worker-0", (), False),
        ((20, 40), True, None, (), False),  # perhaps it has recorded nothing
        ((20, 70), False, None, (), False),  # people are told for an hour
        ((1, 20), False, None, (), False),  # the attempt may go on
    ],
)
def test_a_destination_that_refuses_is_told_for_an_hour(
    minutes_ago: tuple[int, int], killed: bool, took_from: str | None, told: tuple[str, ...], is_broken: bool
) -> None:
    fleet = Fleet(1)
    store, worker = fleet.destinations[0], fleet.workers[0]
    fleet.oracle.epoch_began = 0.0
    worker.start()
    fleet.scheduler.seconds = 3 * HOUR
    for minutes in minutes_ago:
        at = fleet.scheduler.seconds - minutes * MINUTE
        store.refusals.append(Refusal(at, worker, worker.lives, at))
    if took_from is not None:
        store.took_at[took_from] = fleet.scheduler.seconds - MINUTE
    if killed:
        worker.start()

    summary = types.SimpleNamespace(open_breakers=[f"{store.name} (on {each})" for each in told])
    fleet.oracle._check_refusals_are_told(summary)  # type: ignore[arg-type] # as much as it looks at

    assert _found(fleet) == ("a destination that refuses is told" if is_broken else None)


def test_what_is_refused_to_workers_alone_is_taken_from_others() -> None:
    fleet = Fleet(1)
    store = fleet.destinations[0]
    fleet.faults.add(Fault(f"store:{store.name}", WORKERS_DENIED, -1.0, 100.0))
    fleet.faults._by_place[f"store:{store.name}"].reverse()  # whatever the seed has planned

    with pytest.raises(AccessDenied):
        store.check(fleet.workers[0], "put", "recordings/asset/one.ts")
    store.check(fleet.controls[0], "put", "recordings/asset/one.ts")
    store.check(fleet.workers[0], "stat", "recordings/asset/one.ts")


@pytest.mark.parametrize(
    ("lost_at", "is_unknowable"),
    [
        ([(11, True)], True),
        ([(11, True), (16, True)], True),  # the second flush took nothing that was known
        ([(14, True)], False),
        ([(9, True)], False),
        ([(11, False), (16, True)], False),  # what was rolled back tells of it once more
    ],
)
def test_what_lost_its_manifest_is_unknowable_once_the_ledger_was_lost_soon_afterwards(
    lost_at: list[tuple[int, bool]], is_unknowable: bool
) -> None:
    fleet = Fleet(1)
    oracle, store, asset_id = fleet.oracle, fleet.destinations[0], next(iter(fleet.oracle.assets))
    fleet.scheduler.seconds = 10 * DAY
    oracle.harm(store, asset_id, "manifest deleted", f"manifests/2026/03/02/{asset_id}.json")
    for day, flushed in lost_at:
        fleet.scheduler.seconds = day * DAY
        oracle.new_epoch(flushed=flushed)

    assert oracle._is_unknowable(store, asset_id) is is_unknowable

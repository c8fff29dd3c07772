"""What the oracle forgives, and what it does not."""

from __future__ import annotations

import json

import pytest

from archiver.core.records.keys import MARKER, tombstone_key
from tests.core.archived import put
from tests.simulation.faults import Fault
from tests.simulation.fleet import Fleet
from tests.simulation.oracle import UNSEEN_SECONDS

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
        put(store.real, tombstone_key(asset_id), b"{}")
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


def _found(fleet: Fleet) -> str | None:
    violation = fleet.scheduler.violation
    return violation.name if violation is not None else None

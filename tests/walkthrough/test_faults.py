"""Every named fault of the simulator under `archiver run --once`: one that passes costs nothing but a retry; one that
stays ends the affected asset, and no other, in a named state."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from archiver.simulator.faults.behaviours import FAULTS
from tests.simulator.process import Simulator, running_simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import check_against_truth, check_asset, manifests
from tests.walkthrough.user import TRACEBACK, User, user_of

PATIENT = ("--wait", "20")
HASTY = ("--wait", "2")

# What becomes of an asset whose every request to the storage meets the fault.
PERMANENT: dict[str, tuple[dict[str, Any], str]] = {
    "too-many-requests": ({}, "waiting"),
    "server-error": ({}, "waiting"),
    "gone": ({}, "waiting"),  # until its retention ends: it may come back; so may all that is never whole
    "token-refused": ({}, "waiting"),
    "early-expiry": ({}, "waiting"),
    "html": ({}, "waiting"),
    "empty": ({}, "waiting"),
    "invalid-json": ({}, "quarantined"),
    "cut": ({"at_byte": 1000}, "waiting"),
    "reset": ({"at_byte": 1000}, "waiting"),
    "stall": ({"at_byte": 1000}, "waiting"),
    "delay": ({"seconds": 0.1}, "archived"),
    "slow": ({"bytes_per_second": 200_000}, "archived"),
    "short-body": ({"missing_bytes": 1000}, "waiting"),
    "long-body": ({}, "waiting"),
    "other-etag": ({"ignore_preconditions": True}, "waiting"),
    "range-ignored": ({}, "archived"),
    "no-length": ({}, "archived"),
    "wrong-checksum": ({}, "waiting"),
    "gzip": ({"force": True}, "archived"),
}


@pytest.fixture
def user(tmp_path: Any, empty_simulator: Simulator, redis_url: str) -> User:
    return user_of(
        tmp_path,
        empty_simulator,
        redis_url,
        ARCHIVER_SOURCE_TIMEOUT_SECONDS="1",
        ARCHIVER_WORKER_CONCURRENCY="8",
    )


def test_the_table_of_faults_is_whole() -> None:
    assert set(PERMANENT) == set(FAULTS)


def test_a_fault_that_passes_costs_a_retry_and_nothing_else(user: User, empty_simulator: Simulator) -> None:
    for name, (args, _) in PERMANENT.items():
        asset = empty_simulator.add_asset("composite")
        empty_simulator.fault(name, on="storage", asset=asset["id"], times=1, **args)

    result = user.runs_once(*PATIENT)

    assert result.json["states"] == {"archived": len(PERMANENT)}, result.stderr
    assert result.exit_code == 0
    assert all(fault["fired"] == 1 for fault in empty_simulator.faults())
    check_against_truth(FileSideDoor(user.folder / "archive"), empty_simulator)


def test_a_fault_that_stays_ends_its_asset_by_name_and_no_other(
    user: User, empty_simulator: Simulator
) -> None:
    well = empty_simulator.add_asset("composite")
    faulty = {}
    for name, (args, _) in PERMANENT.items():
        asset = empty_simulator.add_asset("composite")
        empty_simulator.fault(name, on="storage", asset=asset["id"], times=None, **args)
        faulty[name] = asset["id"]

    result = user.runs_once(*HASTY)

    assert result.exit_code == 1
    assert TRACEBACK not in result.stderr
    ledger = RedisLedger(user.environment["ARCHIVER_REDIS_URL"], Seal(SecretStr("another")))
    rows = {row.asset_id: row for row in ledger.rows()}
    ledger.close()
    ends = {name: rows[asset_id] for name, asset_id in faulty.items()}
    assert {name: str(row.state) for name, row in ends.items()} == {
        name: state for name, (_, state) in PERMANENT.items()
    }, {name: row.reason for name, row in ends.items()}
    assert all(row.reason for row in ends.values() if row.state != "archived")
    archived = {asset_id for asset_id, row in rows.items() if row.state == "archived"}
    assert well["id"] in archived
    door = FileSideDoor(user.folder / "archive")
    kept = {asset_id for asset_id, row in rows.items() if row.state == "quarantined"}
    assert set(manifests(door)) == archived | kept
    for asset_id in archived:
        check_asset(door, empty_simulator.truth(asset_id)[0])


def test_with_faults_at_random_everything_is_archived_in_the_end(tmp_path: Any, redis_url: str) -> None:
    with running_simulator("demo", chaos_seed=20261122, chaos_rate=0.1) as simulator:
        user = user_of(
            tmp_path,
            simulator,
            redis_url,
            ARCHIVER_SOURCE_TIMEOUT_SECONDS="1",
            ARCHIVER_WORKER_CONCURRENCY="8",
        )
        user.environment["ARCHIVER_MISMATCH_ATTEMPTS"] = "50"
        user.environment["ARCHIVER_RETRY_MAX_SECONDS"] = "2"

        for _ in range(10):
            result = user.runs_once("--wait", "10")
            if result.exit_code != 3 and result.json["states"].get("archived") == 20:
                break

        assert result.json["states"]["archived"] == 20, result.stderr
        check_against_truth(FileSideDoor(tmp_path / "archive"), simulator)

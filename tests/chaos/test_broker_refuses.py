"""The broker answers, and refuses to write: read-only after a failover, out of memory, a full disk. No process ends of
it, and work goes on when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tasks.names import DISPATCH
from tests.chaos.harness import Harness, pid, until

pytestmark = pytest.mark.chaos

LASTS_SECONDS = 12


def read_only(records: Redis) -> None:
    records.replicaof("127.0.0.1", 1)


def writable(records: Redis) -> None:
    records.replicaof("NO", "ONE")


def out_of_memory(records: Redis) -> None:
    records.config_set("maxmemory", 1)


def enough_memory(records: Redis) -> None:
    records.config_set("maxmemory", 0)


def too_few_replicas(records: Redis) -> None:
    records.config_set("min-replicas-to-write", 1)


def replicas_do_not_matter(records: Redis) -> None:
    records.config_set("min-replicas-to-write", 0)


FAULTS: Mapping[str, tuple[Callable[[Redis], None], Callable[[Redis], None]]] = {
    "READONLY": (read_only, writable),
    "OOM": (out_of_memory, enough_memory),
    "NOREPLICAS": (too_few_replicas, replicas_do_not_matter),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broker_that_refuses_writes_ends_no_worker_and_costs_no_slot(harness: Harness, fault: str) -> None:
    begin, end = FAULTS[fault]
    worker = harness.start_worker(slots=2)
    before = pid(worker)
    harness.records.set("quiet:ends meanwhile", 1)
    harness.records.set("hold:ends meanwhile", 1, px=3000)
    harness.hold("ends later")
    harness.send_many(["ends meanwhile", "ends later"])
    harness.wait_began("ends meanwhile")
    harness.wait_began("ends later")

    begin(harness.records)
    with pytest.raises(ResponseError):
        harness.records.set("is it so", 1)
    over = time.monotonic() + LASTS_SECONDS
    until(lambda: time.monotonic() >= over, seconds=LASTS_SECONDS + 5, what="the fault to last")
    assert not harness.records.exists("hold:ends meanwhile")
    assert worker.is_alive(), worker.last_lines(40)
    end(harness.records)

    harness.release("ends later")
    harness.wait_ended("ends later", seconds=60)
    for asset_id in ("one", "two"):
        harness.hold(asset_id)
    harness.send_many(["one", "two"])
    for asset_id in ("one", "two"):
        harness.wait_began(asset_id, seconds=60)
    harness.release("one", "two")
    for asset_id in ("one", "two"):
        harness.wait_ended(asset_id, seconds=60)
    assert worker.is_alive()
    assert pid(worker) == before
    assert "Unrecoverable" not in worker.last_lines(2000)


@pytest.mark.parametrize("fault", ["READONLY", "OOM"])
def test_beat_and_the_control_worker_stay_as_well(harness: Harness, fault: str) -> None:
    begin, end = FAULTS[fault]
    harness.environment["CHAOS_DISPATCH_SECONDS"] = "1"
    children = [harness.start_control(), harness.start_beat()]
    before = [pid(child) for child in children]
    until(lambda: harness.records.llen(f"sent:{DISPATCH}") > 0, seconds=60, what="the first dispatch")

    begin(harness.records)
    over = time.monotonic() + LASTS_SECONDS
    until(lambda: time.monotonic() >= over, seconds=LASTS_SECONDS + 5, what="the fault to last")
    for child in children:
        assert child.is_alive(), child.last_lines(40)
    end(harness.records)
    sent = harness.records.llen(f"sent:{DISPATCH}")

    until(lambda: harness.records.llen(f"sent:{DISPATCH}") > sent, seconds=60, what="a dispatch after it")
    assert [pid(child) for child in children] == before

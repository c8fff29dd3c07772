"""A task that runs out of memory fails alone; a process that ends itself is replaced, and its worker stays."""

from __future__ import annotations

import pytest

from tests.chaos.world import World, pid

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize(("error", "is_replaced"), [("MemoryError", False), ("SystemExit", True)])
def test_a_task_that_fails_for_the_machine_ends_no_worker(
    world: World, error: str, is_replaced: bool
) -> None:
    worker = world.start_worker(slots=1)
    before = pid(worker)
    world.records.set("raise:sick", error)
    world.send("sick")
    world.wait_began("sick")

    world.send("next")
    world.wait_ended("next")

    processes = {world.records.lindex(f"began:{asset_id}", 0) for asset_id in ("sick", "next")}
    assert len(processes) == (2 if is_replaced else 1)
    assert world.began("sick") == 1, "its message is used up: the ledger knows when to try again"
    assert worker.is_alive()
    assert pid(worker) == before
    assert "Unrecoverable" not in worker.last_lines(1000)

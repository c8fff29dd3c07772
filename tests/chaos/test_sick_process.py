"""A task that runs out of memory fails alone; a process that ends itself is replaced, and its worker stays."""

from __future__ import annotations

import pytest

from tests.chaos.harness import Harness, pid

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize(("error", "is_replaced"), [("MemoryError", False), ("SystemExit", True)])
def test_a_task_that_fails_for_the_machine_ends_no_worker(
    harness: Harness, error: str, is_replaced: bool
) -> None:
    worker = harness.start_worker(slots=1)
    before = pid(worker)
    harness.records.set("raise:sick", error)
    harness.send("sick")
    harness.wait_began("sick")

    harness.send("next")
    harness.wait_ended("next")

    processes = {harness.records.lindex(f"began:{asset_id}", 0) for asset_id in ("sick", "next")}
    assert len(processes) == (2 if is_replaced else 1)
    assert harness.began("sick") == 1, "its message is used up: the ledger knows when to try again"
    assert worker.is_alive()
    assert pid(worker) == before
    assert "Unrecoverable" not in worker.last_lines(1000)

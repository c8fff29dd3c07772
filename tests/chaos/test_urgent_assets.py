"""An urgent asset gets a slot of real workers though all are busy, and costs the copy that makes way for it nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from archiver.transfer.part_sizes import PART_BYTES
from tests.chaos.archive import archive_of
from tests.chaos.harness import until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]  # on a machine that does much else


def test_a_copy_makes_way_for_an_urgent_asset_at_the_end_of_a_part_and_is_resumed_there(
    tmp_path: Path,
) -> None:
    parts = 25
    settings = {"ARCHIVER_CONNECTIONS": "1", "ARCHIVER_LEASE_SECONDS": "60"}  # nobody else takes over a copy
    with archive_of(tmp_path, "empty", **settings) as archive:
        simulator = archive.simulator
        calm = [simulator.add_asset("large", size_bytes=parts * PART_BYTES)["id"] for _ in range(2)]
        for asset_id in calm:  # a part takes 1.6 s, all of them 40 s
            simulator.fault("slow", asset=asset_id, times=None, bytes_per_second=PART_BYTES * 5 // 8)
        worker = archive.start_worker(slots=2)
        until(
            lambda: all(each["fired"] for each in simulator.faults()),
            seconds=100,
            what="both slots to be busy",
        )

        urgent = simulator.add_asset("large", size_bytes=2**20, age=timedelta(days=15, hours=-1))["id"]
        until(lambda: urgent in archive.archived(), seconds=100, what="the urgent asset to be archived")

        assert archive.archived() == {urgent}
        simulator.clear_faults()
        archive.wait_archived(3, seconds=100)
        assert worker.last_lines(1000).count("cause=Preempted") == 1, "for one urgent asset one slot"
        for asset_id in calm:
            read = [
                row for row in simulator.requests(on="storage", asset=asset_id) if row["bytes"] == PART_BYTES
            ]
            assert len(read) == len({row["range"] for row in read}) == parts, "each part is read once"
        archive.verify()

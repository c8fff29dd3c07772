"""The whole product, on real processes, while workers are killed, connections cut and the broker emptied. The bucket,
looked at through the file system and `archiver verify`, tells what became of it."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest

from tests.chaos.archive import Archive, archive_of
from tests.chaos.harness import archiver, descendants, pid, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]  # on a machine that does much else

MIB = 2**20


def test_twenty_kills_of_the_whole_worker_lose_no_asset(tmp_path: Path) -> None:
    count, kills, seed = 150, 20, 20260301
    dice = random.Random(seed)
    with archive_of(tmp_path, "many", count=count) as archive:
        archive.simulator.fault("delay", on="storage", times=None, seconds=0.15)

        for number in range(kills):
            goal = len(archive.archived()) + dice.randrange(1, 5)
            assert goal < count, f"all is archived after {number} kills: too few assets for this test"
            worker = archive.start_worker(f"worker-{number}", wait=False)
            archive.wait_archived(goal, seconds=100)
            worker.kill()
        archive.simulator.clear_faults()
        archive.start_worker("last", slots=2)

        archive.wait_archived(count, seconds=100)
        assert archive.archived() == {asset["id"] for asset in archive.simulator.truth(checksums=False)}
        archive.verify()


def test_connections_cut_under_a_running_copy_double_its_message_and_the_second_copy_writes_nothing(
    tmp_path: Path,
) -> None:
    size = 8 * MIB
    with archive_of(tmp_path, "large", size_bytes=size) as archive:
        archive.simulator.fault("slow", on="storage", times=None, bytes_per_second=MIB)
        worker = archive.start_worker(slots=2)
        archive.wait_bytes_flow()

        archive.records.client_kill_filter(_type="normal", skipme=True)

        until(
            lambda: "not_ours" in worker.last_lines(1000), seconds=60, what="the second copy to end quietly"
        )
        assert archive.archived() == set(), "the second one came while the first still ran"
        archive.wait_archived(1, seconds=100)
        assert archive.simulator.totals()["storage"]["bytes"] < 1.5 * size, "copied once"
        archive.verify()


def test_sigterm_in_the_middle_of_a_copy_is_out_within_the_grace_and_another_worker_ends_it(
    tmp_path: Path,
) -> None:
    with archive_of(tmp_path, "large", size_bytes=8 * MIB) as archive:
        archive.simulator.fault("slow", on="storage", times=None, bytes_per_second=MIB)
        first = archive.start_worker("first", slots=2)
        archive.wait_bytes_flow()

        first.ask_to_stop()
        until(lambda: not first.is_alive(), seconds=15, what="the worker to be out")

        assert archive.archived() == set()
        archive.simulator.clear_faults()
        archive.start_worker("second", slots=2)
        archive.wait_archived(1, seconds=100)
        archive.verify()


def test_a_time_limit_in_the_middle_of_a_copy_is_no_fault_of_the_asset_and_it_goes_on(tmp_path: Path) -> None:
    with archive_of(tmp_path, "large", size_bytes=8 * MIB) as archive:
        archive.simulator.fault("slow", on="storage", times=None, bytes_per_second=MIB)
        worker = archive.start_worker(slots=1)
        archive.wait_bytes_flow()
        (child,) = descendants(pid(worker))

        child.send_signal(signal.SIGUSR1)  # what Celery's soft time limit sends

        words = "the time limit of one attempt is over"
        until(lambda: words in worker.last_lines(1000), seconds=60, what="the attempt to end")
        archive.simulator.clear_faults()
        archive.wait_archived(1, seconds=100)
        assert "mismatch=True" not in worker.last_lines(1000)
        archive.verify()


def test_a_flushed_redis_is_rebuilt_nothing_is_missed_and_nothing_that_was_archived_is_copied_again(
    tmp_path: Path,
) -> None:
    count = 60
    with archive_of(tmp_path, "many", count=count) as archive:
        archive.simulator.fault("delay", on="storage", times=None, seconds=0.1)
        archive.start_worker(slots=2)
        archive.wait_archived(15, seconds=100)

        archive.simulator.clear_requests()
        safe = archive.archived()
        archive.records.flushall()

        archive.wait_archived(count, seconds=100)
        until(lambda: balanced(archive, count), seconds=100, what="the account to say that all are archived")
        copied = {row["asset"] for row in archive.simulator.requests(on="storage")}
        # One whose manifest was written between our two looks was still asked for before the log was cleared.
        assert copied & safe == set()
        archive.verify()


def balanced(archive: Archive, count: int) -> bool:
    status = archiver(["status", "--json"], archive.environment)
    try:
        account = json.loads(status.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return False
    return bool(account["seen"] == count and account["states"].get("archived") == count)

"""Credentials that are corrected in `.env` while the archiver runs: no restart, and no copy is interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from tests.servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.simulator.process import Simulator, running_simulator
from tests.walkthrough.running import Up, up
from tests.walkthrough.user import TRACEBACK, User, until, user_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

MIB = 2**20
WRONG = "CANARY-that-is-not-the-right-secret-at-all"


def user_with_file(tmp_path: Path, simulator: Simulator, **settings: str) -> User:
    """Its credentials are in `.env` alone."""
    user = user_of(tmp_path, simulator, redis_url=None, **settings)
    del user.environment["HMS_ACCESS_KEY"], user.environment["HMS_SECRET"]
    return user


def write_secret(user: User, simulator: Simulator, secret: str | None = None, *more: str) -> None:
    given = simulator.environment
    text = f"HMS_ACCESS_KEY={given['HMS_ACCESS_KEY']}\nHMS_SECRET={secret or given['HMS_SECRET']}\n"
    (user.folder / ".env").write_text(text + "\n".join(more))


def logs(user: User) -> str:
    return "".join(log.read_text() for log in user.folder.glob(".archiver/logs/*worker.log"))


def workers(running: Up) -> list[psutil.Process]:
    """The main processes of both workers."""
    return [running.process(f" {name}@%h ") for name in ("archive", "control")]


@pytest.mark.parametrize("hangup", [True, False], ids=["SIGHUP", "refused"])
def test_a_wrong_secret_that_is_corrected_is_used_without_a_restart(tmp_path: Path, hangup: bool) -> None:
    with running_simulator("empty") as simulator:
        simulator.add_asset("chat")
        user = user_with_file(tmp_path, simulator)
        write_secret(user, simulator, WRONG)
        with up(user) as running:
            before = workers(running)
            until(lambda: "HmsUnauthorized" in logs(user), seconds=60, what="the API to refuse the secret")
            write_secret(user, simulator)
            if hangup:
                for process in before:
                    process.send_signal(signal.SIGHUP)
            running.wait_for_states(archived=1, seconds=30 if hangup else 100)
            assert [process.pid for process in workers(running)] == [process.pid for process in before]

    assert "credentials_changed" in logs(user)
    assert WRONG not in logs(user) + (tmp_path / "out.txt").read_text()


def test_a_wrong_key_of_the_bucket_that_is_corrected_is_used_without_a_restart(
    tmp_path: Path, rclone_server: S3Server
) -> None:
    """Its variables are the cloud SDK's: `archiver up` passes them on to its workers."""
    destination = rclone_server.url(rclone_server.new_bucket(), "x")
    with running_simulator("empty") as simulator:
        asset = simulator.add_asset("chat")["id"]
        user = user_with_file(tmp_path, simulator, ARCHIVER_DESTINATIONS=destination)
        user.environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
        write_secret(
            user, simulator, None, f"AWS_ACCESS_KEY_ID={ACCESS_KEY}", f"AWS_SECRET_ACCESS_KEY={WRONG}"
        )
        with up(user) as running:
            running.wait_for_states(waiting=1, seconds=60)
            before = workers(running)
            write_secret(
                user,
                simulator,
                None,
                f"AWS_ACCESS_KEY_ID={ACCESS_KEY}",
                f"AWS_SECRET_ACCESS_KEY={SECRET_KEY}",
            )
            for process in before:
                process.send_signal(signal.SIGHUP)
            until(lambda: "credentials_changed" in logs(user), seconds=30, what="the new key to be read")
            user.types("retry", asset)
            running.wait_for_states(archived=1, seconds=60)
            assert [process.pid for process in workers(running)] == [process.pid for process in before]

    assert WRONG not in logs(user)


def test_a_copy_that_runs_is_not_interrupted_by_sighup_to_any_process_of_its_worker(tmp_path: Path) -> None:
    size = 48 * MIB
    with running_simulator("large", size_bytes=size) as simulator:
        simulator.fault("slow", on="storage", times=None, bytes_per_second=2 * MIB)
        user = user_with_file(tmp_path, simulator, ARCHIVER_PART_BYTES="5MiB", ARCHIVER_CONNECTIONS="2")
        write_secret(user, simulator)
        with up(user) as running:
            until(lambda: _served(simulator) >= 10 * MIB, seconds=60, what="some parts to arrive")
            archive, _ = workers(running)
            children = archive.children()
            for process in (*children, *workers(running)):
                process.send_signal(signal.SIGHUP)
            running.wait_for_states(archived=1, seconds=90)
            survived = {process.pid for process in children} & {each.pid for each in archive.children()}
            assert survived, "the child that copies; one that is idle is replaced"
            (asset,) = simulator.truth(checksums=False)
            row = user.row(asset["id"])
        served = _served(simulator)

    assert row["attempts"] == 1
    assert served < size + 5 * MIB, "nothing was read twice"
    assert TRACEBACK not in logs(user)


def _served(simulator: Simulator) -> int:
    return sum(int(row["bytes"]) for row in simulator.requests(on="storage"))

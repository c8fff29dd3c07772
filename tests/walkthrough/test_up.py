"""`archiver up`: real workers, a real broker, beat and Flower. What the broker's and the workers' deaths do to messages
is in tests/chaos; here is what the user sees."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.simulator.process import Simulator, running_simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.running import FLOWER_AUTH, up
from tests.walkthrough.stored import check_against_truth
from tests.walkthrough.user import TRACEBACK, User, until, user_of
from worker.embedded.valkey import embedded_redis_url

pytestmark = pytest.mark.chaos

MIB = 2**20


def test_everything_is_archived_what_comes_later_too_and_flower_shows_each_asset(
    tmp_path: Path,
) -> None:
    with running_simulator("demo") as simulator:
        user = user_of(tmp_path, simulator, redis_url=None, ARCHIVER_REDIS_PREFIX="staging")
        with up(user) as running:
            running.wait_for_states(archived=20, external=1, source_failed=1, seconds=60)
            later = simulator.add_asset("chat")
            running.wait_for_states(archived=21, external=1, source_failed=1, seconds=30)
            check_against_truth(FileSideDoor(tmp_path / "archive"), simulator)
            until(lambda: 'assets{state="archived"} 21.0' in running.metrics(), seconds=20, what="metrics")

            until(lambda: len(_done(running.tasks())) >= 21, seconds=20, what="Flower to hear of all")
            tasks = running.tasks()
            (shown,) = (task for task in _done(tasks) if later["id"] in str(task["kwargs"]))
            assert "'chat'" in shown["kwargs"]
            for word in ("archived", "'bytes'", "'objects'", "'seconds'"):
                assert word in shown["result"]
            seen = httpx.get(
                f"{running.flower_url}/api/tasks", auth=FLOWER_AUTH, params={"limit": "1000"}, timeout=30
            ).json()
            shown_tasks = {task["name"] for task in seen.values()}
            assert "archiver.sweep" in shown_tasks
            assert not {"archiver.dispatch", "archiver.watch"} & shown_tasks
            assert user.types("status", "--json").json["flower"] == running.flower_url
            assert running.flower("/api/tasks", auth=None).status_code == 401
            assert running.flower("/tasks", auth=("operator", "guessed")).status_code == 401
            assert running.flower("/tasks").status_code == 200

            doctor = user.types("doctor", "--json")
            verdicts = {finding["subject"]: finding["verdict"] for finding in doctor.json}
            assert doctor.exit_code == 0, doctor.stdout
            assert verdicts["beat"] == verdicts["control worker"] == verdicts["archive worker"] == "ok"
            assert prefixes_of_keys(str(embedded_redis_url(tmp_path / ".archiver"))) == {"staging"}
            second = user.types("up")
            assert second.exit_code == 3
            assert "already" in second.text or "another" in second.text.lower()

        result = (tmp_path / "out.txt").read_text()
        assert "archiver status --watch" in result
        assert TRACEBACK not in result
        assert "Traceback" not in "".join(log.read_text() for log in tmp_path.glob(".archiver/logs/*.log"))


def prefixes_of_keys(redis_url: str) -> set[str]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        return {key.partition(":")[0] for key in client.scan_iter()}


def test_a_worker_killed_in_the_middle_of_a_large_asset_costs_a_few_parts_and_not_the_copy(
    tmp_path: Path,
) -> None:
    size = 64 * MIB
    with running_simulator("large", size_bytes=size) as simulator:
        simulator.fault("slow", on="storage", times=None, bytes_per_second=2 * MIB)
        user = user_of(
            tmp_path,
            simulator,
            redis_url=None,
            ARCHIVER_PART_BYTES="5MiB",
            ARCHIVER_CONNECTIONS="2",
        )
        with up(user) as running:
            until(lambda: _parts_done(simulator) >= 4, seconds=60, what="some parts to arrive")

            worker = running.process("archive@")
            for each in [worker, *worker.children(recursive=True)]:
                os.kill(each.pid, signal.SIGKILL)
            simulator.clear_faults()

            running.wait_for_states(archived=1, seconds=90)
        check_against_truth(FileSideDoor(tmp_path / "archive"), simulator)
        sent = simulator.totals()["storage"]["bytes"]
        assert sent < size + 5 * 5 * MIB, "what had arrived was not asked for again"


def test_with_the_simulator_no_account_is_needed_and_nothing_real_is_touched(tmp_path: Path) -> None:
    real = tmp_path / "real"
    user = User(
        tmp_path,
        {
            "ARCHIVER_RETRY_BASE_SECONDS": "1",
            "ARCHIVER_DESTINATIONS": str(real),
            "ARCHIVER_STATE_DIR": str(tmp_path / "state"),
            "ARCHIVER_REDIS_URL": "redis://127.0.0.1:1/0",
            "ARCHIVER_EVENT_URL": "http://127.0.0.1:1/real",
            "ARCHIVER_EVENT_SECRET": "whsec_" + "c" * 40,
        },
    )
    with up(user, "--simulator") as running:
        until(
            lambda: len(list(tmp_path.glob("archive-simulated/manifests/*/*/*/*.json"))) >= 20,
            seconds=60,
            what="the manifests of the simulated assets",
        )
        assert running.processes()
        simulated = str(tmp_path / ".archiver-simulated")
        events = user.types("events", ARCHIVER_STATE_DIR=simulated, ARCHIVER_REDIS_URL=None)
        assert "0 events wait" in events.text, "no event waits for the real receiver"
        look = re.search(
            r"^Look: +(.+) archiver status --watch$", (tmp_path / "out.txt").read_text(), re.MULTILINE
        )
        assert look is not None
        as_told: dict[str, Any] = dict(word.split("=", 1) for word in shlex.split(look[1]))
        verified = user.types("verify", **as_told, ARCHIVER_REDIS_URL=None)
        assert re.search(r"([1-9]\d*) of \1 copies are whole", verified.text), verified.text
    assert not real.exists()
    assert not (tmp_path / "state").exists()


def test_a_wrong_alert_url_ends_the_start_with_its_channel_named(tmp_path: Path) -> None:
    result = User(tmp_path, {}).types("up", "--simulator", ARCHIVER_ALERT_URLS="nosuch://CANARY@host")

    assert result.exit_code == 2
    assert "nosuch 1" in result.text
    assert "CANARY" not in result.text


def test_in_flower_an_asset_that_is_not_archived_is_a_failure_with_its_reason_and_no_secret(
    tmp_path: Path,
) -> None:
    with running_simulator("empty") as simulator:
        good, bad = (simulator.add_asset("chat")["id"] for _ in range(2))
        simulator.fault("server-error", on="storage", asset=bad, times=None)
        user = user_of(
            tmp_path, simulator, redis_url=None, ARCHIVER_FLOWER_URL_PREFIX="tools/flower", COLUMNS="100"
        )
        with up(user) as running:
            assert running.flower_url.endswith("/tools/flower")
            assert user.types("status", "--json").json["flower"] == running.flower_url
            found: dict[str, dict[str, Any]] = {}

            def both_are_shown() -> bool:
                tasks = running.tasks()
                for task in tasks.values():
                    if task["state"] in ("SUCCESS", "FAILURE") and "not_ours" not in str(task["result"]):
                        found.update({asset: task for asset in (good, bad) if asset in task["kwargs"]})
                return len(found) == 2

            until(both_are_shown, seconds=60, what="Flower to show both assets")
            pages = [running.flower(f"/api/task/info/{found[bad]['uuid']}").text, str(running.tasks())]

        assert found[good]["state"] == "SUCCESS"
        assert "'state': 'archived'" in found[good]["result"]
        assert found[bad]["state"] == "FAILURE"
        assert found[bad]["exception"].startswith("NotArchived('waiting: ")
        assert "answered 50" in found[bad]["exception"]
        logs = "".join(log.read_text() for log in tmp_path.glob(".archiver/logs/*.log"))
        for text in (*pages, logs):
            assert "X-Amz-" not in text
            assert simulator.environment["HMS_SECRET"] not in text
        assert TRACEBACK not in logs
        assert "raised expected" not in logs


def test_a_folder_with_python_modules_of_its_own_is_as_good_as_any(tmp_path: Path) -> None:
    for name in ("tasks", "celery", "redis", "simulator", "celeryconfig", "flowerconfig_", "structlog"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('somebody else's module was imported')\n")
    for name in ("worker", "archiver", "storage_backends"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('somebody else's package')\n")
    # as Kubernetes sets them for services of these names
    links = {"FLOWER_PORT": "tcp://10.0.0.1:5555", "REDIS_PORT": "tcp://10.0.0.1:6379"}

    with up(User(tmp_path, links), "--simulator"):
        until(
            lambda: any(tmp_path.glob("archive-simulated/manifests/*/*/*/*.json")),
            seconds=60,
            what="a manifest",
        )


def test_what_fell_and_where_it_listens_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        user = User(tmp_path, {})
        with up(user, "--simulator", port=taken.getsockname()[1]) as running:
            shown = (tmp_path / "out.txt").read_text()
            beat = running.process(" beat ")
            os.kill(beat.pid, signal.SIGKILL)
            until(
                lambda: "beat exited (signal SIGKILL), once so far" in (tmp_path / "out.txt").read_text(),
                seconds=20,
                what="the fall of beat to be said",
            )

    assert re.search(r"Broker: +127\.0\.0\.1:\d+ \(embedded Valkey\)", shown)
    assert not (tmp_path / ".archiver-simulated" / "flower.url").exists(), "it is stopped"
    assert re.search(r"Flower: +http://127\.0\.0\.1:\d+ \(port \d+ is taken\)", shown)
    assert re.search(r"Webhooks: +http://127\.0\.0\.1:\d+/webhooks/100ms\n", shown)
    assert re.search(r"Metrics: +http://127\.0\.0\.1:\d+/metrics\n", shown)
    assert re.search(r"Simulator: +http://127\.0\.0\.1:\d+/simulator", shown)
    apart = rf"ARCHIVER_STATE_DIR={tmp_path}/\.archiver-simulated ARCHIVER_DESTINATIONS={tmp_path}/archive-simulated"
    assert re.search(rf"Look: +{apart} archiver status --watch\n", shown)


def _done(tasks: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        task
        for task in tasks.values()
        if task["state"] == "SUCCESS" and "not_ours" not in str(task["result"])
    ]


def _parts_done(simulator: Simulator) -> int:
    return sum(row["bytes"] >= 5 * MIB for row in simulator.requests(on="storage"))


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[User]:
    """A user whose Redis takes connections and never answers: a start goes on until something ends it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield User(tmp_path, {"ARCHIVER_REDIS_URL": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_a_start_that_a_signal_ends_says_so(starting: User, number: signal.Signals) -> None:
    with starting.starts("up", "--simulator") as process:
        until(lambda: "Starting" in (starting.folder / "out.txt").read_text(), seconds=30, what="the start")
        process.send_signal(number)
        assert process.wait(timeout=30) == 130

    assert f"Received {number.name}" in starting.heard[-1]
    assert TRACEBACK not in starting.heard[-1]


def test_nohup_keeps_it_running_when_its_terminal_is_closed(starting: User) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with starting.starts("up", "--simulator") as process:
            until(
                lambda: "Starting" in (starting.folder / "out.txt").read_text(), seconds=30, what="the start"
            )
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert "Received SIGTERM" in starting.heard[-1]
    assert "SIGHUP" not in starting.heard[-1]

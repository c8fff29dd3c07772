"""The supervisor as `archiver up` uses it: real processes, stopped in order, by signals, and by kill -9."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from tasks.names import ARCHIVE_ASSET, SWEEP
from tests.chaos.harness import APP, Harness, descendants, until, wait_gone
from worker.celery_setup import processes
from worker.celery_setup.config import celery_settings
from worker.embedded.child import ProcessState
from worker.embedded.errors import AlreadyRunning, StartFailed
from worker.embedded.flower import FlowerOptions
from worker.embedded.serve import ServeOptions
from worker.embedded.supervisor import STOP_GRACE, Supervisor
from worker.embedded.valkey import EmbeddedValkey, embedded_redis_url

pytestmark = pytest.mark.chaos

EVERYTHING = {"valkey", "archive-worker", "control-worker", "beat"}


@contextmanager
def records_at(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, socket_timeout=5, decode_responses=True) as client:
        yield client


@contextmanager
def supervised(state_dir: Path, *companion: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A supervisor in a process of its own, and what it said once all was up."""
    command = [sys.executable, "-m", "tests.worker.supervise", str(state_dir), *companion]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def send(url: str, asset_id: str) -> None:
    from celery import Celery

    with Celery(set_as_current=False) as client:
        client.conf.update(celery_settings(broker_url=url, concurrency=1))
        client.send_task(ARCHIVE_ASSET, args=[asset_id])


def test_everything_comes_up_shows_no_secret_and_goes_down_without_a_trace(tmp_path: Path) -> None:
    here = psutil.Process()
    before = set(here.children(recursive=True))  # servers that other tests of this process share
    with Supervisor(
        tmp_path,
        environment=os.environ | {"HMS_ACCESS_KEY": "a", "HMS_SECRET": "b" * 32},
        flower=FlowerOptions(address="0.0.0.0", port=0),
        serve=ServeOptions(),
        app=APP,
    ) as supervisor:
        supervisor.start()
        started = [each for each in here.children(recursive=True) if each not in before]

        status = {each.name: each.state for each in supervisor.status()}
        password = (tmp_path / "valkey.password").read_text().strip()
        assert supervisor.flower_password_file is not None
        login = supervisor.flower_password_file.read_text().strip()
        with records_at(supervisor.redis_url) as records:
            until(lambda: records.llen(f"sent:{SWEEP}") >= 1, seconds=20, what="the first sweep")
        pages = flower_pages(str(supervisor.flower_url), login)
        anonymous = httpx.get(f"{supervisor.flower_url}/workers", trust_env=False)
        command_lines = "\n".join(" ".join(each.cmdline()) for each in started if each.is_running())

    assert status == dict.fromkeys([*EVERYTHING, "flower", "serve"], ProcessState.RUNNING)
    assert anonymous.status_code == 401, "outside loopback Flower wants a password"
    logs = "\n".join(log.read_text() for log in (tmp_path / "logs").iterdir())
    for secret in (password, login.partition(":")[2]):
        assert secret not in command_lines
        assert secret not in logs
        assert secret not in pages
    assert "control@" in pages, (
        "the pages show the workers, so that finding no secret in them means something"
    )
    wait_gone(started, seconds=0.1)


def flower_pages(url: str, login: str) -> str:
    """All that Flower says, after it has asked the workers for their configuration."""
    node = f"control@{socket.gethostname()}"
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
    with httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False) as flower:
        paths = [
            "/api/workers?refresh=true",
            f"/worker/{node}",
            "/tasks",
            "/broker",
            "/api/tasks",
            "/metrics",
            "/",
        ]
        answers = [flower.get(path, follow_redirects=True) for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(paths)
    return "\n".join(answer.text for answer in answers)


def test_files_of_the_state_directory_are_for_the_owner_alone(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "state", environment=os.environ, with_beat=False, app=APP) as supervisor:
        supervisor.start()

        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").glob("*")}

    assert [str(path) for path, mode in modes.items() if mode & 0o077] == []


def test_a_second_supervisor_on_the_same_state_directory_is_refused_by_name(tmp_path: Path) -> None:
    with (
        Supervisor(tmp_path, environment=os.environ, with_beat=False, app=APP) as first,
        Supervisor(tmp_path, environment=os.environ, with_beat=False, app=APP) as second,
    ):
        first.start()

        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}.*{tmp_path}"):
            second.start()

        assert all(each.state is ProcessState.RUNNING for each in first.status())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_a_signal_stops_everything_in_seconds(tmp_path: Path, number: signal.Signals) -> None:
    with supervised(tmp_path) as (process, _):
        started = descendants(process.pid)

        process.send_signal(number)

        assert process.wait(timeout=30) == 0
        wait_gone(started, seconds=0.1)


def test_ctrl_c_releases_a_running_task_and_the_next_start_resumes_it(tmp_path: Path) -> None:
    with supervised(tmp_path) as (process, up), records_at(up["redis_url"]) as records:
        started = descendants(process.pid)
        records.set("hold:long", 1)
        send(up["redis_url"], "long")
        until(lambda: records.llen("began:long") == 1, seconds=20, what="the task to begin")

        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=30) == 0
        wait_gone(started, seconds=0.1)

    with supervised(tmp_path) as (process, up), records_at(up["redis_url"]) as records:
        records.delete("hold:long")
        until(lambda: records.llen("ended:long") == 1, seconds=20, what="the task to be resumed")
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_second_ctrl_c_does_not_wait_for_a_stubborn_process(tmp_path: Path) -> None:
    with supervised(tmp_path, sys.executable, "-c", STUBBORN) as (process, up):
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        until(lambda: not psutil.pid_exists(up["pids"]["beat"]), seconds=10, what="the stop to begin")

        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=STOP_GRACE.total_seconds() - 5) == 0
        wait_gone(started, seconds=0.1)


STUBBORN = """
import signal, sys
from http.server import SimpleHTTPRequestHandler, HTTPServer
signal.signal(signal.SIGTERM, signal.SIG_IGN)
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_kill_9_of_the_supervisor_leaves_no_process_and_the_next_start_is_clean(tmp_path: Path) -> None:
    with supervised(tmp_path) as (process, up):
        started = descendants(process.pid)
        assert {each.pid for each in started} >= set(up["pids"].values())
        with records_at(up["redis_url"]) as records:
            records.set("written", "before the kill")

        process.kill()

        wait_gone(started, seconds=10)

    with Supervisor(tmp_path, environment=os.environ, with_beat=False, app=APP) as again:
        again.start()
        with records_at(again.redis_url) as records:
            assert records.get("written") == "before the kill"


def test_a_killed_valkey_is_restarted_at_the_same_address_with_its_data_and_the_workers_continue(
    tmp_path: Path,
) -> None:
    with Supervisor(tmp_path, environment=os.environ, with_beat=False, app=APP) as supervisor:
        supervisor.start()
        before = {each.name: each.pid for each in supervisor.status()}
        url = supervisor.redis_url
        with records_at(url) as records:
            records.set("written", "before the kill")

        os.kill(before["valkey"] or 0, signal.SIGKILL)

        until(lambda: supervisor.status()[0].restarts == 1, seconds=20, what="valkey's restart")
        until(EmbeddedValkey(tmp_path).answers, seconds=20, what="valkey's answer")
        with records_at(url) as records:
            assert records.get("written") == "before the kill"
            send(url, "after")
            until(lambda: records.llen("ended:after") == 1, seconds=30, what="the worker to go on")
        after = {each.name: each.pid for each in supervisor.status()}
        assert after["archive-worker"] == before["archive-worker"]
        assert supervisor.status()[0].last_exit == "signal SIGKILL"


def test_a_killed_worker_is_restarted_and_none_of_its_children_survives_it(tmp_path: Path) -> None:
    told: list[str] = []
    with Supervisor(
        tmp_path,
        environment=os.environ,
        with_beat=False,
        app=APP,
        on_crash=lambda process: told.append(f"{process.name}: {process.last_exit}"),
    ) as supervisor:
        supervisor.start()
        worker = next(each for each in supervisor.status() if each.name == "archive-worker")
        assert worker.pid is not None
        pool = descendants(worker.pid)
        assert pool

        os.kill(worker.pid, signal.SIGKILL)

        wait_gone(pool, seconds=10)
        with records_at(supervisor.redis_url) as records:
            send(supervisor.redis_url, "after")
            until(lambda: records.llen("ended:after") == 1, seconds=40, what="the new worker's work")
        assert told == ["archive-worker: signal SIGKILL"]


def test_a_process_that_cannot_start_ends_the_start_with_its_last_words_and_nothing_left(
    tmp_path: Path,
) -> None:
    before = psutil.Process().children(recursive=True)
    with (
        Supervisor(tmp_path, environment=os.environ, app="tests.chaos.no_such_app") as supervisor,
        pytest.raises(StartFailed, match=r"(?s)-worker exited while it started.*no_such_app"),
    ):
        supervisor.start()

    assert psutil.Process().children(recursive=True) == before


def test_a_broker_that_does_not_answer_is_named_without_its_password_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.embedded.supervisor.BROKER_LIMIT", timedelta(seconds=0.2))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        url = f"redis://:a-secret@127.0.0.1:{port}/0"

        with (
            Supervisor(tmp_path, environment=os.environ, redis_url=url, app=APP) as supervisor,
            pytest.raises(StartFailed, match=f"ARCHIVER_REDIS_URL does not answer.*:{port}") as failure,
        ):
            supervisor.start()

    assert "a-secret" not in str(failure.value)
    assert supervisor.status() == []


def test_a_broker_of_ones_own_is_used_and_left_running(tmp_path: Path) -> None:
    own = tmp_path / "own"
    with Harness(own) as harness:
        with Supervisor(
            tmp_path / "state", environment=os.environ, redis_url=harness.url, with_beat=False, app=APP
        ) as supervisor:
            supervisor.start()
            send(harness.url, "asset")
            harness.wait_ended("asset")
            names = [each.name for each in supervisor.status()]

        assert names == ["archive-worker", "control-worker"]
        assert harness.records.ping()


def test_a_port_that_somebody_else_took_meanwhile_is_given_up_for_another(tmp_path: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        (tmp_path / "valkey.port").write_text(f"{taken}\n")

        with Supervisor(tmp_path, environment=os.environ, with_beat=False, app=APP) as supervisor:
            supervisor.start()

            assert f":{taken}/" not in supervisor.redis_url
            assert supervisor.redis_url == embedded_redis_url(tmp_path)


def test_a_server_that_outlived_its_supervisor_is_ended_before_another_opens_its_files(
    tmp_path: Path,
) -> None:
    orphan = subprocess.Popen(EmbeddedValkey(tmp_path).prepare(), stdout=subprocess.DEVNULL)
    until(EmbeddedValkey(tmp_path).answers, seconds=10, what="the orphan to answer")
    with records_at(str(embedded_redis_url(tmp_path))) as records:
        records.set("written", "by the orphan")

    with Supervisor(tmp_path, environment=os.environ, with_beat=False, app=APP) as supervisor:
        supervisor.start()

        assert orphan.wait(timeout=10) == 0
        with records_at(supervisor.redis_url) as records:
            assert records.get("written") == "by the orphan"


def test_on_loopback_flower_needs_no_password_and_cannot_stop_a_worker(tmp_path: Path) -> None:
    with Supervisor(
        tmp_path, environment=os.environ, with_beat=False, flower=FlowerOptions(port=0), app=APP
    ) as supervisor:
        supervisor.start()
        url = str(supervisor.flower_url)

        tasks = httpx.get(f"{url}/api/tasks", trust_env=False)
        shutdown = httpx.post(
            f"{url}/api/worker/shutdown/{processes.ARCHIVE_NODE}@{socket.gethostname()}", trust_env=False
        )

        assert url.startswith("http://127.0.0.1:")
        assert tasks.status_code == 200
        assert shutdown.status_code == 403
        assert supervisor.flower_password_file is None

"""Real processes for tests that kill them: a broker, workers, beats, each with a log of its own.

Every process is killed with its parent, as the product's are, so that a test that is killed itself leaves nothing
behind. All starts of one `Harness` must come from one thread (see worker/embedded/child.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import psutil
import redis
from celery import Celery
from celery.utils.nodenames import gethostname

from tasks.names import ARCHIVE_ASSET
from worker.celery_setup import processes
from worker.celery_setup.config import celery_settings
from worker.embedded.child import Child
from worker.embedded.valkey import EmbeddedValkey

APP = "tests.chaos.app"


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Fails the test when `condition` does not come true in time; `what` completes "waited for"."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


class Harness:
    """A broker of its own and any number of processes on it, in one directory. `environment` is added to each."""

    def __init__(self, directory: Path, *, app: str = APP, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.app = app
        self._broker = EmbeddedValkey(directory)
        command = self._broker.prepare()
        url = self._broker.url()
        assert url is not None
        self.url = url
        self.environment = {
            **os.environ,
            "REMAP_SIGTERM": "SIGQUIT",
            "ARCHIVER_REDIS_URL": url,
            **(environment or {}),
        }
        self.broker = Child("valkey", command, self.environment, directory / "valkey.log")
        self.children: list[Child] = []
        self.records = redis.Redis.from_url(
            url, socket_timeout=5, socket_connect_timeout=5, decode_responses=True
        )
        self.client = Celery(set_as_current=False)
        self.client.conf.update(celery_settings(broker_url=url, concurrency=1))

    def __enter__(self) -> Self:
        self.start_broker()
        return self

    def __exit__(self, *_: object) -> None:
        for child in [*self.children, self.broker]:
            child.kill()
        self.client.close()
        self.records.close()

    # ------------------------------------------------------------------ processes

    def start_broker(self) -> None:
        self.broker.start()
        until(self._broker.answers, seconds=30, what="the broker to answer")

    def stop_broker(self, number: signal.Signals) -> None:
        process_id = pid(self.broker)
        os.kill(process_id, number)
        until(lambda: not self.broker.is_alive(), seconds=15, what=f"the broker to end by {number.name}")

    def start_worker(self, name: str = "archive", *, slots: int = 2, wait: bool = True) -> Child:
        """An archive worker, up and answering unless `wait` is false. Running tasks get 1 s when it is stopped."""
        soft_shutdown = timedelta(seconds=1)
        command = [
            part.replace("archive@", f"{name}@")
            for part in processes.archive_worker(app=self.app, soft_shutdown=soft_shutdown)
        ]
        options = command.index("--")
        worker = self.start(name, [*command[:options], "--concurrency", str(slots), *command[options:]])
        if wait:
            self.wait_ready(worker, name)
        return worker

    def start_control(self, name: str = "control") -> Child:
        """The control worker, up and answering."""
        control = self.start(name, processes.control_worker(app=self.app))
        self.wait_ready(control, "control")
        return control

    def start_beat(self, name: str = "beat") -> Child:
        return self.start(name, processes.beat(app=self.app))

    def start(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, processes.runnable(command), self.environment, self.directory / f"{name}.log")
        child.start()
        self.children.append(child)
        return child

    def wait_ready(self, worker: Child, node: str) -> None:
        inspect = self.client.control.inspect(destination=[f"{node}@{gethostname()}"], timeout=0.5)
        until(lambda: bool(inspect.ping()) or not worker.is_alive(), seconds=90, what=f"{node} to be ready")
        assert worker.is_alive(), worker.last_lines()

    # ------------------------------------------------------------------ work

    def send(self, asset_id: str) -> None:
        self.client.send_task(ARCHIVE_ASSET, args=[asset_id])

    def send_many(self, asset_ids: Sequence[str]) -> None:
        for asset_id in asset_ids:
            self.send(asset_id)

    def hold(self, asset_id: str) -> None:
        """The task of this asset goes on until `release`."""
        self.records.set(f"hold:{asset_id}", 1)

    def release(self, *asset_ids: str) -> None:
        self.records.delete(*[f"hold:{asset_id}" for asset_id in asset_ids])

    def began(self, asset_id: str) -> int:
        return self.records.llen(f"began:{asset_id}")

    def ended(self, asset_id: str) -> int:
        return self.records.llen(f"ended:{asset_id}")

    def wait_began(self, asset_id: str, *, times: int = 1, seconds: float = 30) -> None:
        until(
            lambda: self.began(asset_id) >= times, seconds=seconds, what=f"run {times} of {asset_id} to begin"
        )

    def wait_ended(self, asset_id: str, *, times: int = 1, seconds: float = 30) -> None:
        until(
            lambda: self.ended(asset_id) >= times, seconds=seconds, what=f"run {times} of {asset_id} to end"
        )


def pid(child: Child) -> int:
    process_id = child.status().pid
    assert process_id is not None, f"{child.name} does not run: {child.last_lines()}"
    return process_id


def descendants(process_id: int) -> list[psutil.Process]:
    """All that this process started, directly or not."""
    return psutil.Process(process_id).children(recursive=True)


def wait_gone(gone: Sequence[psutil.Process], *, seconds: float) -> None:
    """A zombie is gone: it waits for init alone."""
    end = time.monotonic() + seconds
    while alive := [each for each in gone if _runs(each)]:
        assert time.monotonic() < end, f"still there after {seconds:g} s: {alive}"
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def archiver(arguments: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The product's command, to its end."""
    command = [str(Path(sys.executable).with_name("archiver")), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)

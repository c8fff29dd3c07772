"""`archiver serve` as a process: with a real Redis that comes and goes, and workers that are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from tests.simulator.process import Simulator
from tests.valkey import die_with_parent, valkey_server
from tests.walkthrough.user import TRACEBACK, User, until, user_of
from tests.worker.serve.running import SECRET, Samples, Serving, serving

pytestmark = pytest.mark.chaos

COUNTERS = ("archiver_attempts_total", "archiver_copied_bytes_total", "archiver_request_seconds_count")
UP = ("archiver_ledger_up", frozenset[tuple[str, str]]())


def test_a_webhook_brings_its_session_into_the_ledger_and_is_counted(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url)
    ledger = RedisLedger(redis_url, Seal(SecretStr(empty_simulator.secret)))
    assert user.types("sweep").exit_code == 0
    with serving(user) as served:
        asset = empty_simulator.add_asset("composite")
        [event] = [each["event"] for each in empty_simulator.webhooks()]

        assert served.post(event, secret="wrong-wrong-wrong").status_code == 401
        assert served.post(event).status_code == 200
        assert served.post(event).status_code == 200

        until(lambda: ledger.get(asset["id"]) is not None, seconds=20, what="the asset to be known")
        assert served.get("/healthz").status_code == 200
        assert served.get("/readyz").json() == {"ready": True, "problems": []}
        assert served.samples()[UP] == 1

    totals = ledger.totals()
    ledger.close()
    assert served.process.returncode == 0
    assert totals["webhooks:accepted"] == 2
    assert totals["webhooks:unauthorized"] == 1
    assert sum(number for name, number in totals.items() if name.startswith("request_seconds:api:0.")) >= 1
    result = (tmp_path / "out.txt").read_text()
    assert SECRET not in result
    assert TRACEBACK not in result


def test_it_starts_and_tells_without_redis_and_recovers(tmp_path: Path) -> None:
    with valkey_server(tmp_path) as valkey:
        valkey.kill()
        user = User(
            tmp_path, {"ARCHIVER_REDIS_URL": valkey.url, "HMS_ACCESS_KEY": "a", "HMS_SECRET": "b" * 32}
        )
        with serving(user) as served:
            assert served.get("/healthz").status_code == 200
            assert served.get("/readyz").json()["problems"] == ["ledger_unreachable"]
            assert served.samples() == {UP: 0}
            event = {"type": "transcription.success", "data": {"x_asset_id": "a1"}}
            assert served.post(event).status_code == 503

            valkey.start()
            until(lambda: served.samples()[UP] == 1, seconds=30, what="the ledger to be up")

            valkey.pause()
            assert served.samples() == {UP: 0}
            assert served.get("/healthz").status_code == 200
            valkey.resume()


def test_a_wrong_alert_url_ends_the_start_with_its_channel_named_and_its_secret_hidden(
    tmp_path: Path, redis_url: str
) -> None:
    user = User(tmp_path, {"ARCHIVER_REDIS_URL": redis_url})

    result = user.types("serve", ARCHIVER_ALERT_URLS="json://a.example nosuch://CANARY@host/CANARY")

    assert result.exit_code == 2
    assert "nosuch 2" in result.text
    assert "CANARY" not in result.text


def test_a_port_that_is_taken_is_named(tmp_path: Path, redis_url: str) -> None:
    user = User(tmp_path, {"ARCHIVER_REDIS_URL": redis_url, "HMS_ACCESS_KEY": "a", "HMS_SECRET": "b" * 32})
    with serving(user) as served:
        port = served.metrics_url.rsplit(":", 1)[1].split("/")[0]
        result = user.types("serve", ARCHIVER_SERVE_PORT="0", ARCHIVER_METRICS_PORT=port)

    assert result.exit_code == 2
    assert f"ARCHIVER_METRICS_PORT: cannot listen on 127.0.0.1:{port}" in result.text


def test_counters_never_go_back_while_workers_are_killed(tmp_path: Path, redis_url: str) -> None:
    user = User(tmp_path, {"ARCHIVER_REDIS_URL": redis_url, "HMS_ACCESS_KEY": "a", "HMS_SECRET": "b" * 32})
    with serving(user) as served:
        before: Samples = {}
        for number in range(6):
            workers = [_settler(redis_url, f"w{number}{name}") for name in "ab"]
            reached = sum(before.values())
            try:
                _wait_for_more(served, reached + 50)
            finally:
                for worker in workers:
                    worker.kill()
                    worker.wait()
            found = {key: value for key, value in served.samples().items() if key[0] in COUNTERS}
            assert before.keys() <= found.keys()
            assert [key for key, value in before.items() if found[key] < value] == []
            before = dict(found)

    archived = before["archiver_attempts_total", frozenset({("outcome", "archived")})]
    assert before["archiver_copied_bytes_total", frozenset()] == 10 * archived


def _settler(redis_url: str, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.worker.serve.settler", redis_url, name]
    return subprocess.Popen(command, preexec_fn=die_with_parent)  # noqa: PLW1509 - see tests.valkey


def _wait_for_more(served: Serving, least: float) -> None:
    until(lambda: _sum(served.samples()) > least, seconds=30, what="the workers to settle some more")


def _sum(found: Samples) -> float:
    return sum(value for (name, _), value in found.items() if name in COUNTERS)

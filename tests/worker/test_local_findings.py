"""What a process finds of its machine and of the ledger's server."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from archiver.core.health import assess
from archiver.core.upkeep.alert_loop import SILENT_AFTER
from archiver.core.upkeep.status import WATCH_FACT
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import CopyState
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.redis.persistence import judge
from archiver.ledger.sealing import Seal
from tests.core.archived import enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock
from tests.valkey import redis_url, shared_valkey, valkey_server  # noqa: F401 # fixtures
from worker.alerts.alerter import Alerter
from worker.ledger import build_watcher
from worker.local_findings import local_findings
from worker.settings import Settings

WELL = {"aof_enabled": 1, "maxmemory_policy": "noeviction", "maxmemory": 100, "used_memory": 10}


@pytest.mark.parametrize(
    ("info", "losing"),
    [
        ({}, None),
        ({"aof_enabled": 0}, None),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 0}, None),
        ({"maxmemory_policy": "allkeys-lru"}, "drops ledger rows"),
        ({"evicted_keys": 3}, "3 keys have already been evicted"),
        ({"used_memory": 95}, "95% of maxmemory"),
        ({"aof_last_write_status": "err"}, "cannot be written"),
        ({"aof_last_bgrewrite_status": "err"}, "so it grows"),
    ],
)
def test_what_loses_rows_is_told_from_what_a_restart_would_cost(
    info: dict[str, Any], losing: str | None
) -> None:
    found = judge({**WELL, **info})

    assert (found.losing is None) if losing is None else losing in str(found.losing)
    assert found.sound is (not info)


def test_a_server_that_does_not_tell_is_no_finding() -> None:
    assert judge({}).losing is None
    assert judge({}, "3600 1").kept is None


@pytest.mark.parametrize(
    ("info", "save", "kept"),
    [
        ({}, "", False),
        ({"aof_enabled": 1}, "", True),
        ({}, "3600 1", True),
        ({"connected_slaves": 1}, "", True),
        ({"role": "slave"}, "", True),
        ({}, None, None),
        ({"rdb_last_bgsave_time_sec": -1}, None, None),
        ({"rdb_last_bgsave_time_sec": 0}, None, True),
        ({"connected_slaves": 1}, None, True),
    ],
)
def test_nothing_is_kept_only_without_file_save_points_and_replica(
    info: dict[str, Any], save: str | None, kept: bool | None
) -> None:
    assert judge({**WELL, "aof_enabled": 0, **info}, save).kept is kept


@pytest.mark.parametrize(
    ("options", "refused", "told"),
    [
        ((), (), ["ledger_not_persistent"]),
        (("--appendonly", "yes"), (), []),
        (("--save", "999999 1"), (), ["ledger_weakly_persistent"]),
        ((), ("-config",), ["ledger_weakly_persistent"]),
        ((), ("-config", "-info"), []),
    ],
)
def test_a_real_server_that_keeps_nothing_is_a_problem_and_one_that_does_not_tell_a_note(
    tmp_path: Path, options: tuple[str, ...], refused: tuple[str, ...], told: list[str]
) -> None:
    with valkey_server(tmp_path, *options) as server:
        with server.client() as side:
            side.execute_command("ACL", "SETUSER", "limited", "on", ">limited", "~*", "+@all", *refused)
        url = server.url.replace("redis://", "redis://limited:limited@")
        with closing(RedisLedger(url, Seal(SecretStr("secret")))) as ledger:
            found = list(local_findings(ledger, tmp_path))

    assert [each.id for each in found] == told
    assert all(("cannot be checked" in each.text) == bool(refused) for each in found)


def test_a_real_server_that_evicts_is_a_problem(
    redis_url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    with closing(RedisLedger(redis_url, Seal(SecretStr("secret")))) as ledger:
        before = {name: ledger._redis.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
        try:
            ledger._redis.config_set("maxmemory", "1gb")
            ledger._redis.config_set("maxmemory-policy", "allkeys-lru")
            settings = Settings.model_construct(**{**Settings().model_dump(), "state_dir": tmp_path})
            summary = build_watcher(settings, ledger).summary()
        finally:
            for name, value in before.items():
                ledger._redis.config_set(name, str(value))

    problems = {problem.id: problem.text for problem in assess(summary).problems}
    assert "allkeys-lru" in problems["ledger_may_lose_rows"]


@pytest.mark.parametrize(
    ("free", "total", "found"),
    [
        (10 * 2**30, 100 * 2**30, False),
        (200 * 2**20, 100 * 2**30, True),
        (60 * 2**20, 64 * 2**20, False),
        (2 * 2**20, 64 * 2**20, True),
        (0, 0, False),
    ],
)
def test_a_disk_that_is_nearly_full_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, total: int, found: bool
) -> None:
    disk = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_blocks=total // 4096)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)

    findings = list(local_findings(MemoryLedger(Clock(NOW)), tmp_path / "not" / "there"))

    assert [each.id for each in findings] == (["disk_nearly_full"] if found else [])


@pytest.mark.parametrize("key", [None, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="])
def test_a_missing_statement_is_told_where_a_key_is_set(tmp_path: Path, key: str | None) -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    settings = Settings(state_dir=tmp_path, statement_key=SecretStr(key) if key else None)
    watcher = build_watcher(settings, ledger)
    watcher.summary()
    clock.advance(timedelta(days=4))

    found = [each.id for each in watcher.summary().reported if each.id == "statement_missing"]

    assert found == (["statement_missing"] if key else [])


def test_a_destination_that_was_added_since_is_not_called_whole(tmp_path: Path) -> None:
    ledger = MemoryLedger(Clock(NOW))
    first, second = (tmp_path / name for name in ("first", "second"))
    settings = Settings(state_dir=tmp_path, destinations=[f"file://{first}", f"file://{second}"])
    enter(ledger, asset())
    row = ledger.get(asset().id)
    assert row is not None
    before = [each.cause for each in build_watcher(settings, ledger).summary().reported]
    assert ledger.note_copies(row, {f"file://{first}": CopyState.WHOLE})

    found = [
        each for each in build_watcher(settings, ledger).summary().reported if each.id == "copies_missing"
    ]

    assert f"file://{second}" not in before
    assert [(each.cause, each.is_problem) for each in found] == [(f"file://{second}", True)]
    assert "which of 1 asset it holds" in found[0].text


@pytest.mark.parametrize("channels", [0, 1])
def test_a_serve_that_is_dead_is_found_where_there_are_channels(tmp_path: Path, channels: int) -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    urls = (SecretStr("json://127.0.0.1:1"),) * channels
    settings = Settings(_env_file=None, state_dir=tmp_path, alert_urls=urls)
    watcher = build_watcher(settings, ledger)
    Alerter(ledger=ledger, summarize=watcher.summary, channels=[], digest_hour=-1).look()

    def found() -> bool:
        ledger.remember(WATCH_FACT, {"at": clock().isoformat()})
        return "alerts_are_silent" in [each.id for each in watcher.summary().reported]

    assert not found()
    clock.advance(SILENT_AFTER + timedelta(seconds=1))
    assert found() is bool(channels)
    again = build_watcher(settings, ledger)  # its clock is not asked for the ledger's time each time
    Alerter(ledger=ledger, summarize=again.summary, channels=[], digest_hour=-1).look()
    assert not found()

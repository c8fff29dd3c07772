from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archiver.core.upkeep.status import RAN_ONCE_FACT, WATCH_FACT
from archiver.core.upkeep.watch import note
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.redis.persistence import Persistence
from storage_backends.base import ObjectKey
from storage_backends.errors import AccessDenied, BucketMissing, DestinationFull, TransientStorageError
from storage_backends.memory import MemoryBackend
from storage_backends.optional import CoolingRule, Right
from storage_backends.s3.cooling import cooling_rules
from tests.core.examples import NOW
from tests.core.fakes import Clock
from tests.ledger.harnesses import SEAL
from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures
from worker.doctor.broker import check_broker
from worker.doctor.check_result import CheckResult, Verdict
from worker.doctor.destinations import check_destination
from worker.doctor.disk import check_free_space
from worker.doctor.processes import check_processes
from worker.doctor.rights import check_rights

CONTROL, ARCHIVE = "control@host", "archive@host"


def heard(ago: timedelta | None, *beats: str) -> MemoryLedger:
    ledger = MemoryLedger(Clock(NOW))
    if ago is not None:
        note(ledger, WATCH_FACT, NOW - ago)
    for beat in beats:
        ledger.remember(f"beat:{beat}", {}, lifetime=timedelta(minutes=3))
    return ledger


@pytest.mark.parametrize(
    ("workers", "ago", "beats", "wrong"),
    [
        ([ARCHIVE, CONTROL], timedelta(seconds=30), ["h:1"], {}),
        (["mine@a", "yours@b"], timedelta(seconds=30), ["h:1"], {}),
        (
            [ARCHIVE],
            timedelta(minutes=10),
            [],
            {"control worker": "no sweep", "beat": "unknown: the control worker"},
        ),
        # the control worker died a moment ago; its last watch is less than three minutes old
        (
            [ARCHIVE],
            timedelta(seconds=30),
            ["h:1"],
            {"control worker": "none answers", "beat": "unknown: the control worker"},
        ),
        ([CONTROL], timedelta(seconds=30), ["h:1"], {"archive worker": "nothing is copied"}),
        ([ARCHIVE, CONTROL], timedelta(seconds=150), ["h:1"], {"beat": "no message from it for 2 min"}),
        ([ARCHIVE, CONTROL], timedelta(hours=5), [], {"beat": "no message from it for 5 h"}),
        ([ARCHIVE, CONTROL], None, [], {"beat": "no message from it yet"}),
        ([ARCHIVE, CONTROL], -timedelta(hours=5), ["h:1"], {"beat": "5 h in the future"}),
        ([ARCHIVE, CONTROL], timedelta(seconds=5), ["h:1", "h:2"], {"beat": "2 sent messages"}),
        (
            [],
            None,
            [],
            {"control worker": "none answers", "archive worker": "none answers", "beat": "unknown"},
        ),
    ],
)
def test_which_process_does_not_run_is_told(
    workers: list[str], ago: timedelta | None, beats: list[str], wrong: dict[str, str]
) -> None:
    found = {f.subject: f for f in check_processes(heard(ago, *beats), lambda: workers, has_broker=True)}

    assert set(found) == {"control worker", "archive worker", "beat"}
    assert {subject for subject, f in found.items() if f.verdict is not Verdict.OK} == set(wrong)
    for subject, words in wrong.items():
        assert words in found[subject].detail
        assert found[subject].remedy


@pytest.mark.parametrize(
    ("has_broker", "watched", "ran_once", "verdict"),
    [
        (True, None, None, Verdict.PROBLEM),
        (False, None, None, Verdict.WARNING),  # perhaps cron will call it
        (False, timedelta(hours=1), None, Verdict.PROBLEM),  # `archiver up` that was stopped, or died
        (True, None, timedelta(hours=1), Verdict.WARNING),
        (True, timedelta(days=1), timedelta(hours=1), Verdict.WARNING),  # cron took over
        (True, timedelta(hours=1), timedelta(days=1), Verdict.PROBLEM),  # somebody tried `run --once`
    ],
)
def test_what_does_not_run_is_a_problem_unless_cron_does_its_work(
    has_broker: bool, watched: timedelta | None, ran_once: timedelta | None, verdict: Verdict
) -> None:
    ledger = heard(watched)
    if ran_once is not None:
        note(ledger, RAN_ONCE_FACT, NOW - ran_once)

    found = list(check_processes(ledger, list, has_broker=has_broker))

    assert {finding.verdict for finding in found} == {verdict}


def test_where_one_worker_runs_the_other_one_is_missed() -> None:
    found = {f.subject: f.verdict for f in check_processes(heard(None), lambda: [ARCHIVE], has_broker=False)}

    assert found["control worker"] is Verdict.PROBLEM


@pytest.mark.parametrize(
    ("free_bytes", "free_files", "verdict", "words"),
    [
        (100 * 2**30, 10**6, Verdict.OK, "100.0 GiB of 200.0 GiB are free"),
        (2 * 2**30, 10**6, Verdict.WARNING, "only 2.0 GiB of"),
        (1000, 10**6, Verdict.PROBLEM, "only 1000 B of"),
        (100 * 2**30, 10, Verdict.PROBLEM, "only 10 more files"),
    ],
)
def test_a_disk_that_is_full_or_soon_will_be_is_told(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    free_bytes: int,
    free_files: int,
    verdict: Verdict,
    words: str,
) -> None:
    disk = SimpleNamespace(
        f_bavail=free_bytes, f_frsize=1, f_blocks=200 * 2**30, f_files=10**7, f_favail=free_files
    )
    monkeypatch.setattr(os, "statvfs", lambda _: disk)

    [finding] = check_free_space("state directory", tmp_path / "not" / "yet" / "made")

    assert (finding.verdict, bool(finding.remedy)) == (verdict, verdict is not Verdict.OK)
    assert words in finding.detail


class Failing(MemoryBackend):
    def __init__(self, error: Exception) -> None:
        super().__init__("failing")
        self.error = error

    def put(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (DestinationFull("no space left on device"), "free some space"),
        (AccessDenied("403"), "Allow write, read, list and delete"),
        (BucketMissing("404"), "Create it, mount it"),
        (TransientStorageError("timed out"), "Check the endpoint"),
    ],
)
def test_the_remedy_fits_what_the_destination_said(error: Exception, remedy: str) -> None:
    [finding] = [f for f in check_destination(Failing(error)) if f.verdict is Verdict.PROBLEM]

    assert str(error) in finding.detail
    assert remedy in finding.remedy


class KeepsAll(MemoryBackend):
    def delete(self, key: ObjectKey) -> None:
        raise AccessDenied(f"deleting {key}: 403")


def test_a_destination_where_nothing_can_be_deleted_is_no_problem_and_gets_one_probe() -> None:
    store, ledger = KeepsAll("keeps all"), MemoryLedger(Clock(NOW))

    first, second = (list(check_destination(store, ledger)) for _ in range(2))

    assert {f.verdict for f in first} == {Verdict.OK, Verdict.WARNING}
    assert any("cannot delete doctor/probe-" in f.detail for f in first)
    assert {f.verdict for f in second} == {Verdict.OK}
    assert any("accepts uploads" in f.detail for f in second)
    assert len(store.store.objects) == 1


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(minutes=6), "its clock is 360 s ahead of the ledger's"),
        (-timedelta(days=1), "its clock is 86,400 s behind the ledger's"),
        (timedelta(minutes=4), None),
    ],
)
def test_a_destination_whose_clock_is_wrong_is_a_problem(ahead: timedelta, words: str | None) -> None:
    store, ledger = MemoryBackend("late"), MemoryLedger(Clock(NOW))
    store.store.clock = lambda: NOW + ahead

    problems = [each.detail for each in check_destination(store, ledger) if each.verdict is Verdict.PROBLEM]

    assert problems == ([words] if words else [])
    assert store.store.objects == {}


def test_a_destination_that_works_is_told_how_it_proves_objects() -> None:
    store = MemoryBackend("sound")

    found = list(check_destination(store))

    assert {f.verdict for f in found} == {Verdict.OK}
    assert any("its own CRC32C" in f.detail for f in found)
    assert any("refuses to overwrite" in f.detail for f in found)
    assert store.store.objects == {}


@pytest.fixture
def server(redis_url: str) -> Iterator[RedisLedger]:  # noqa: F811
    ledger = RedisLedger(redis_url, SEAL)
    defaults = {
        name: ledger._redis.config_get(name)[name] for name in ("appendonly", "maxmemory", "maxmemory-policy")
    }
    yield ledger
    for name, value in defaults.items():
        ledger._redis.config_set(name, value or "")
    ledger.close()


def verdicts(findings: Iterator[CheckResult]) -> dict[str, CheckResult]:
    return {finding.subject: finding for finding in findings}


def test_a_server_that_keeps_everything_is_sound(server: RedisLedger) -> None:
    server._redis.config_set("appendonly", "yes")
    server._redis.config_set("maxmemory-policy", "noeviction")

    found = verdicts(check_broker(server))

    assert {subject: f.verdict for subject, f in found.items()} == {
        "broker and ledger": Verdict.OK,
        "persistence": Verdict.OK,
    }, found


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("appendonly", "no", "appendonly is off"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
        ("maxmemory-policy", "volatile-ttl", "maxmemory-policy is volatile-ttl"),
    ],
)
def test_a_server_that_forgets_is_told(server: RedisLedger, setting: str, value: str, words: str) -> None:
    server._redis.config_set("appendonly", "yes")
    server._redis.config_set("maxmemory-policy", "noeviction")
    server._redis.config_set(setting, value)

    finding = verdicts(check_broker(server))["persistence"]

    assert finding.verdict is Verdict.PROBLEM
    assert words in finding.detail
    assert finding.remedy


def test_a_server_that_is_full_is_told_although_it_answers(server: RedisLedger) -> None:
    server._redis.config_set("maxmemory-policy", "noeviction")
    server._redis.config_set("maxmemory", 1)

    found = verdicts(check_broker(server))

    assert found["broker and ledger"].verdict is Verdict.PROBLEM
    assert "memory" in found["broker and ledger"].detail
    assert found["persistence"].verdict is Verdict.PROBLEM
    assert "of maxmemory: raise maxmemory" in found["persistence"].detail


def test_a_server_that_is_away_is_told_once() -> None:
    class Away:
        def ping(self) -> None:
            raise LedgerUnavailable("nothing listens there")

        def persistence(self) -> Persistence:
            raise LedgerUnavailable("nothing listens there")

    away: Any = Away()

    [finding] = check_broker(away)

    assert (finding.verdict, finding.detail) == (Verdict.PROBLEM, "nothing listens there")


# -- lifecycle rules that make records cold --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "moved"),
    [
        ({"Filter": {"Prefix": "recordings/recordings/"}}, None),
        ({"Filter": {"Prefix": "elsewhere/"}}, None),
        ({"Filter": {"Prefix": "recordings/"}}, "manifests/, ends/, checks/"),
        ({"Filter": {"Prefix": ""}}, "manifests/"),
        ({"Filter": {"Prefix": "recordings/manifests/2026/"}}, "manifests/"),
        ({"Filter": {"And": {"Prefix": "recordings/ends/", "Tags": []}}}, "ends/"),
        ({"Prefix": "recordings/catalogue/"}, "catalogue/"),
        ({"Filter": {"Prefix": "recordings/"}, "Status": "Disabled"}, None),
        (
            {
                "Filter": {"Prefix": "recordings/"},
                "Transitions": [{"Days": 9, "StorageClass": "STANDARD_IA"}],
            },
            None,
        ),
    ],
)
def test_a_rule_that_makes_records_cold_is_named(rule: dict[str, Any], moved: str | None) -> None:
    whole = {
        "ID": "to-glacier",
        "Status": "Enabled",
        "Transitions": [{"Days": 90, "StorageClass": "DEEP_ARCHIVE"}],
        **rule,
    }

    class Store(MemoryBackend):
        def cooling_rules(self) -> list[CoolingRule]:
            return cooling_rules([whole], "recordings/")

    told = [each for each in check_destination(Store("one")) if "lifecycle rule" in each.detail]

    assert [each.verdict for each in told] == ([] if moved is None else [Verdict.PROBLEM])
    if moved is not None:
        assert f"'to-glacier' moves {moved}" in told[0].detail
        assert "to DEEP_ARCHIVE after 90 days" in told[0].detail


@pytest.mark.parametrize("fails", [False, True])
def test_rights_of_which_not_all_could_be_tried_are_not_called_complete(fails: bool) -> None:
    class Telling(MemoryBackend):
        def rights(self, probe: ObjectKey) -> Iterator[Right]:
            yield Right("s3:ListBucket", True, "listing", is_essential=True)
            if fails:
                raise TransientStorageError(f"trying the rights with {probe}: 500 InternalError")

    found = list(check_rights(Telling("bucket")))

    assert [each.verdict for each in found] == [Verdict.WARNING if fails else Verdict.OK]
    assert ("not all of its rights could be tried" in found[0].detail) is fails

"""Copies are verified by checksums that the store computes at rest. The store here is a stand-in with AWS's formats, as
its documentation shows them: nobody has tried it on AWS."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from archiver.core.records import keys
from archiver.core.records.check_records import Check, Mark, Records, read_records, tag_of, write_records
from archiver.core.records.commit import committed
from archiver.core.upkeep.at_rest import (
    JOB,
    AtRestVerifier,
    Compared,
    Copy,
    Failed,
    Nothing,
    Scope,
    UnderWay,
)
from archiver.core.upkeep.scrub import LOCK_NAME, LOCK_TTL
from archiver.core.upkeep.scrub_copy import CopyChecker
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectKey, object_key
from storage_backends.memory import MemoryBackend
from storage_backends.optional import ChecksumJob, Computed
from storage_backends.s3 import at_rest
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.core.mortal import Interrupted, KilledHere, Life, Mortal

COLD, ALSO_COLD, WARM = (asset(id=f"asset-{name}") for name in ("cold", "also-cold", "warm"))


class Computing(MemoryBackend):
    """Computes checksums as AWS does: `work` does what AWS does in some hours."""

    can_compute_checksums = True

    def __init__(self) -> None:
        super().__init__("one")
        self.jobs: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.refuses: set[str] = set()

    def checksum_line(self, key: ObjectKey, note: str) -> bytes:
        return at_rest.line("bucket", key, note)

    def checksum_note(self, line: str) -> str:
        return at_rest.note_of(line)

    def begin_checksums(self, listing: ObjectKey, listing_etag: str, reports: str, token: str) -> str:
        info = self.stat(listing)
        assert info is not None
        assert info.etag == listing_etag
        return next((job for job, of in self.jobs.items() if of == f"{token} {listing}"), None) or self._new(
            token, listing
        )

    def _new(self, token: str, listing: str) -> str:
        job = f"job-{len(self.jobs)}"
        self.jobs[job] = f"{token} {listing}"
        return job

    def checksum_job(self, job_id: str) -> ChecksumJob:
        status = self.ended.get(job_id, "Active")
        answer = {
            "JobId": job_id,
            "Status": status,
            "ProgressSummary": {"TotalNumberOfTasks": 4},
            "TerminationDate": NOW,
        }
        return at_rest.job_of({"Job": answer})

    def checksums(self, reports: str, job_id: str) -> Iterator[tuple[ObjectKey, Computed]] | None:
        folder = f"{reports}job-{job_id}/"
        if self.stat(object_key(f"{folder}manifest.json")) is None:
            return None
        return at_rest.computed(self.read(object_key(f"{folder}results/1.csv")), "")

    def work(self) -> None:
        (job,) = self.jobs.keys() - self.ended.keys()
        rows = []
        for line in self.read(object_key(self.jobs[job].split()[1])).decode().splitlines():
            key = line.split(",")[1]
            there = self.store.objects.get(key)
            if there is None or key in self.refuses:
                rows.append(f'bucket,{key},,failed,200,PermanentFailure,"error details: Key not found"')
                continue
            checksum = base64.b64encode((there.info.crc32c or 0).to_bytes(4, "big")).decode()
            said = {
                "checksum_base64": checksum, "etag": there.info.etag, "checksumAlgorithm": "CRC32C",
                "checksumType": "FULL_OBJECT",
            }  # fmt: skip
            quoted = json.dumps(said).replace("=", "\\u003d").replace('"', '""')
            rows.append(f'bucket,{key},,succeeded,200,,"{quoted}"')
        put(self, f"at-rest/job-{job}/results/1.csv", "\n".join(rows).encode())
        put(self, f"at-rest/job-{job}/manifest.json", b"{}")
        self.ended[job] = "Complete"


class World:
    def __init__(self) -> None:
        self.clock = Clock(NOW + 2 * RETENTION)
        self.ledger = MemoryLedger(self.clock)
        self.store = Computing()
        checks = Records(listed_at=NOW)
        for each in (COLD, ALSO_COLD, WARM):
            enter(self.ledger, each)
            key = archive_at([self.store], each)
            info = self.store.stat(key)
            assert info is not None
            marks = 0 if each is WARM else Mark.COLD
            checks.checks.put(key, Check(tag_of(info), int(NOW.timestamp()), marks=marks))
        write_records(self.store, checks, NOW)

    def run(self, scope: Scope = Scope.COLD, *, ledger: Any = None, store: Any = None) -> Any:
        ledger, store = ledger or self.ledger, store or self.store
        checker = CopyChecker(ledger, [store], self.clock, ScrubRules())
        return AtRestVerifier(
            ledger=ledger,
            store=store,
            jobs=store,
            clock=self.clock,
            report=checker.report,
            full_every=timedelta(days=365),
        ).run(scope)

    def verified(self, scope: Scope = Scope.COLD) -> Compared:
        assert isinstance(self.run(scope), UnderWay)
        self.store.work()
        result = self.run(scope)
        assert isinstance(result, Compared)
        return result

    def read_on(self, one: Any) -> bool:
        check = read_records(self.store, self.clock()).checks.get(keys.manifest_key(one.id, one.created_at))
        assert check is not None
        return check.read_at == int(self.clock().timestamp())


@pytest.fixture
def world() -> World:
    return World()


def test_cold_copies_count_as_read_in_full_and_nothing_of_the_job_is_left(world: World) -> None:
    began = world.run()
    again = world.run()
    world.store.work()
    result = world.run()

    assert isinstance(began, UnderWay)
    assert began == again
    assert result == Compared((Copy(ALSO_COLD.id), Copy(COLD.id)), 4)
    assert [world.read_on(each) for each in (COLD, ALSO_COLD, WARM)] == [True, True, False]
    assert not list(world.store.list(keys.AT_REST))
    assert len(world.store.jobs) == 1


def test_all_are_verified_when_asked_for(world: World) -> None:
    assert len(world.verified(Scope.ALL).copies) == 3
    assert world.read_on(WARM)


def test_a_copy_that_differs_is_marked_and_its_asset_is_damaged(world: World) -> None:
    put(world.store, f"recordings/{COLD.id}/movie.mp4", b"x" * 100)

    result = world.verified()

    assert (result.damaged, result.unknown) == (1, 0)
    assert "at rest, the manifest says" in result.copies[1].problems[0]
    assert committed(world.store, keys.manifest_key(COLD.id, COLD.created_at)) is None
    row = world.ledger.get(COLD.id)
    assert row is not None
    assert row.state is AssetState.DAMAGED
    assert not world.read_on(COLD)
    assert world.read_on(ALSO_COLD)


def test_what_is_gone_is_damaged_and_what_could_not_be_computed_is_unknown(world: World) -> None:
    world.store.delete(object_key(f"recordings/{COLD.id}/movie.mp4"))
    world.store.refuses.add(f"recordings/{ALSO_COLD.id}/movie.mp4")

    unknown, gone = world.verified().copies

    assert gone.problems == ("movie.mp4: missing",)
    assert (unknown.problems, "Key not found" in str(unknown.unknown)) == ((), True)
    assert not world.read_on(ALSO_COLD)
    row = world.ledger.get(ALSO_COLD.id)
    assert row is not None
    assert row.state is AssetState.ARCHIVED


def test_an_object_that_was_replaced_during_the_job_is_unknown(world: World) -> None:
    put(world.store, f"recordings/{COLD.id}/movie.mp4", b"x" * 100)
    world.run()
    world.store.work()
    put(world.store, f"recordings/{COLD.id}/movie.mp4", b"m" * 100)

    result = world.run()

    assert (result.damaged, result.unknown) == (0, 1)


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_a_job_that_failed_is_told_and_the_next_run_begins_another(world: World, status: str) -> None:
    world.run()
    world.store.ended["job-0"] = status

    assert isinstance(world.run(), Failed)
    assert isinstance(world.run(), UnderWay)
    assert len(world.store.jobs) == 2


def test_a_report_that_never_comes_is_a_failure(world: World) -> None:
    world.run()
    world.clock.now = NOW + timedelta(hours=1)
    world.store.ended["job-0"] = "Complete"

    assert isinstance(world.run(), UnderWay)
    world.clock.advance(timedelta(days=1))
    assert isinstance(world.run(), Failed)


def test_without_a_cold_copy_no_job_is_begun(world: World) -> None:
    for info in list(world.store.list(keys.CHECKS)):
        world.store.delete(info.key)

    assert isinstance(world.run(), Nothing)
    assert not world.store.jobs


def test_while_a_scrub_runs_the_report_waits(world: World) -> None:
    world.run()
    world.store.work()
    token = world.ledger.lock(LOCK_NAME, LOCK_TTL)
    assert token is not None

    assert "scrub" in world.run().status
    world.ledger.unlock(LOCK_NAME, token)
    assert isinstance(world.run(), Compared)


def test_a_job_has_a_limit_and_the_longest_unread_go_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.core.upkeep.at_rest.MOST_OBJECTS", 2)

    first, second = (world.verified(Scope.ALL).copies for _ in range(2))

    assert [copy.asset_id for copy in (*first, *second)] == [ALSO_COLD.id, COLD.id]


def test_a_job_record_that_is_not_ours_is_named(world: World) -> None:
    put(world.store, JOB, b"{}")

    with pytest.raises(Exception, match=r"at-rest/job\.json cannot be understood"):
        world.run()


def test_killed_before_any_call_there_is_one_job_and_the_same_end() -> None:
    for step in range(1, 200):
        world = World()
        life = Life(step, after=False)
        mortal: dict[str, Any] = {"ledger": Mortal(world.ledger, life), "store": Mortal(world.store, life)}
        try:
            world.run(**mortal)
            world.store.work()
            world.run(**mortal)
            killed = False
        except KilledHere:
            killed = True
            world.clock.advance(timedelta(hours=1))  # the lock ends
            if isinstance(world.run(), UnderWay):
                if not world.store.ended:
                    world.store.work()
                assert isinstance(world.run(), Compared), step

        assert len(world.store.jobs) == 1, step
        assert not list(world.store.list(keys.AT_REST)), step
        key = keys.manifest_key(COLD.id, COLD.created_at)
        check = read_records(world.store, world.clock()).checks.get(key)
        assert check is not None
        assert check.read_at > 0, step
        if not killed:
            break
    assert step > 30


def test_two_at_once_begin_one_job() -> None:
    for step in range(1, 20):
        world = World()
        life = Interrupted(step, world.run)
        world.run(ledger=Mortal(world.ledger, life), store=Mortal(world.store, life))
        assert len(world.store.jobs) == 1, step
        world.store.work()
        assert isinstance(world.run(), Compared), step


def test_a_report_is_read_as_aws_writes_it() -> None:
    """The lines of its documentation; the first has another algorithm."""
    said = (
        r'{""checksum_base64"":""bS9TOQ\u003d\u003d"",""etag"":""3c3c"",""checksumAlgorithm"":""%s"",'
        r'""checksumType"":""FULL_OBJECT"",""checksum_hex"":""6D2F5339""}'
    )
    failure = r'error details: {""failureMessage"":"Task 2845 Key not found", ""errorCode"": "404"}'
    report = "\n".join(
        (
            f'bucket1,pre/a,,succeeded,200,,"{said % "CRC32"}"',
            f'bucket1,pre/b%20c,,succeeded,200,,"{said % "CRC32C"}"',
            f'bucket1,pre/d,,failed,200,PermanentFailure,"{failure}"',
            'bucket1,other/e,,succeeded,200,,"{}"',
            "cut",
        )
    ).encode()

    found = dict(at_rest.computed(report, "pre/"))

    assert found[ObjectKey("b c")] == Computed(0x6D2F5339, "3c3c", "")
    assert [found[ObjectKey(key)].crc32c for key in ("a", "d")] == [None, None]
    assert "Key not found" in found[ObjectKey("d")].why
    assert len(found) == 3

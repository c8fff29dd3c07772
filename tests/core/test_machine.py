"""Whose fault an error is: this machine's, whatever library it passes through, or somebody else's."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import boto3
import httpx
import pytest
import redis
import requests
from botocore.config import Config

from archiver.core.attempt.outcomes import Archived, WillRetry
from archiver.core.errors import BadContents, DestinationsFailed
from archiver.core.machine import (
    FACT_LIFETIME,
    MOST_FAULTS,
    MachineFaults,
    failing_machines,
    is_machine_fault,
)
from archiver.hms.errors import HmsUnavailable
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from archiver.ledger.redis.errors import translated
from archiver.retry_policy import MACHINE_FAULT
from archiver.transfer.base import Engine
from archiver.transfer.errors import SourceMismatch, SourceUnavailable, Stopped
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec
from storage_backends.errors import AccessDenied, DestinationFull, TransientStorageError
from storage_backends.filesystem.errors import translate
from storage_backends.memory import MemoryBackend
from storage_backends.operation import Operation
from storage_backends.s3 import errors as s3_errors
from tests.core.examples import NOW
from tests.core.fakes import Clock
from tests.core.harness import ArchiverHarness, BytesSource, Tree


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def raised(outer: Exception, inner: BaseException, how: str) -> Exception:
    """`outer`, as it is when it was raised from `inner`."""
    try:
        try:
            raise inner
        except BaseException as caught:
            if how == "from it":
                raise outer from caught
            if how == "from None":
                raise outer from None
            raise outer  # noqa: B904 - in its handler
    except Exception as error:
        return error


OURS = [
    MemoryError(),
    RuntimeError("can't start new thread"),
    RuntimeError("can't allocate lock"),
    *(os_error(number) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)),
]
OUR_DISK = [os_error(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)]
THEIRS = [
    SourceUnavailable("503"),
    SourceMismatch("cut"),
    Stopped("x"),
    BadContents("a bomb"),
    TypeError("x"),
    RuntimeError("Set changed size during iteration"),
    os_error(errno.ECONNREFUSED),
    os_error(errno.EHOSTUNREACH),
    os_error(errno.EACCES),
    DestinationsFailed({"s3://b": AccessDenied("403")}),
]
WRAPPED: list[Callable[[], Exception]] = [
    lambda: SourceUnavailable("no answer"),
    lambda: BadContents("zlib"),
    lambda: HmsUnavailable("no answer"),
    lambda: TransientStorageError("no answer"),
    lambda: LedgerUnavailable("no answer"),
]


@pytest.mark.parametrize("error", [*OURS, *OUR_DISK], ids=repr)
def test_what_this_machine_lacks_is_its_fault(error: Exception) -> None:
    assert is_machine_fault(error)


@pytest.mark.parametrize("error", THEIRS, ids=repr)
def test_what_others_say_is_not(error: Exception) -> None:
    assert not is_machine_fault(error)


@pytest.mark.parametrize("how", ["from it", "from None", "in its handler"])
@pytest.mark.parametrize("wrap", WRAPPED, ids=lambda wrap: type(wrap()).__name__)
@pytest.mark.parametrize("error", OURS, ids=repr)
def test_a_wrapped_fault_is_known_however_it_was_wrapped(
    error: Exception, wrap: Callable[[], Exception], how: str
) -> None:
    once = raised(wrap(), error, how)

    assert is_machine_fault(once)
    assert is_machine_fault(raised(wrap(), once, how))
    assert is_machine_fault(ExceptionGroup("several", [ValueError(), once]))


@pytest.mark.parametrize("error", OURS, ids=repr)
def test_one_destination_that_could_not_be_reached_for_lack_of_memory_is_enough(error: Exception) -> None:
    failed = {
        "s3://a": raised(TransientStorageError("no answer"), error, "from None"),
        "s3://b": AccessDenied("403"),
    }

    assert is_machine_fault(DestinationsFailed(failed))  # type: ignore[arg-type] # `raised` keeps the type


@pytest.mark.parametrize("error", OUR_DISK, ids=repr)
def test_a_full_or_broken_disk_is_the_destinations_where_a_destination_says_so(error: OSError) -> None:
    at_destination = raised(translate(error, "put"), error, "from it")

    assert isinstance(at_destination, DestinationFull | TransientStorageError | AccessDenied)
    assert not is_machine_fault(at_destination)
    assert not is_machine_fault(DestinationsFailed({"file:///d": at_destination}))


def test_a_chain_that_ends_in_itself_is_followed_once() -> None:
    one, other = ValueError(), ValueError()
    one.__context__, other.__context__ = other, one

    assert not is_machine_fault(one)


def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise os_error(errno.EMFILE)

    monkeypatch.setattr(socket, "socket", refuse)


def ask_with_httpx() -> None:
    with httpx.Client(trust_env=False) as client:
        client.get("http://127.0.0.1:9/")


def ask_with_requests() -> None:
    requests.get("http://127.0.0.1:9/", timeout=5)


def ask_with_redis() -> None:
    with closing(redis.Redis(port=9)) as client, translated("ping", "redis://127.0.0.1:9"):
        client.ping()


def ask_with_botocore() -> None:
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url="http://127.0.0.1:9",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with closing(client), s3_errors.translated(Operation("list", "s3://b", None, "listing")):
        client.list_buckets()


@pytest.mark.parametrize(
    "ask",
    [ask_with_httpx, ask_with_requests, ask_with_redis, ask_with_botocore],
    ids=lambda ask: ask.__name__,
)
def test_a_machine_without_file_handles_is_known_through_every_client(
    ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 - of the client's own kind
        ask()
    assert not is_machine_fault(refused.value), "nothing listens there"

    no_sockets(monkeypatch)
    with pytest.raises(Exception) as without:  # noqa: PT011
        ask()
    assert is_machine_fault(without.value)


class Harness:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.slept: list[float] = []
        self.faults = MachineFaults(self.slept.append)

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.faults.failed("MemoryError", "archive@host", self.ledger)


def test_a_machine_that_keeps_failing_is_slower_each_time_and_then_ends() -> None:
    harness = Harness()
    ends = []
    for _ in range(MOST_FAULTS):
        harness.fail(1)
        ends.append(harness.faults.should_end)

    assert ends == [False] * (MOST_FAULTS - 1) + [True]
    assert harness.slept == sorted(harness.slept)
    assert len(harness.slept) == MOST_FAULTS - 1, "one that ends does not wait first"
    assert 0 < harness.slept[0] < harness.slept[-1] <= MACHINE_FAULT.cap.total_seconds()


def test_a_good_attempt_ends_the_row() -> None:
    harness = Harness()
    harness.fail(MOST_FAULTS - 1)
    harness.faults.passed("archive@host", harness.ledger)
    harness.fail(1)

    assert not harness.faults.should_end
    assert harness.slept[-1] == harness.slept[0]


def test_it_can_be_read_which_machines_fail_until_they_work_or_are_gone() -> None:
    harness = Harness()
    harness.fail(2)
    assert failing_machines(harness.ledger) == {"archive@host": "MemoryError"}

    harness.faults.passed("archive@host", harness.ledger)
    assert failing_machines(harness.ledger) == {}

    harness.fail(1)
    harness.clock.advance(FACT_LIFETIME + timedelta(seconds=1))
    assert failing_machines(harness.ledger) == {}


def test_a_ledger_that_is_away_does_not_keep_it_from_pausing() -> None:
    class Away(MemoryLedger):
        def remember(self, *_: object, **__: object) -> None:
            raise LedgerUnavailable("nothing listens there")

    slept = list[float]()
    faults = MachineFaults(slept.append)
    faults.failed("MemoryError", "archive@host", Away(Clock(NOW)))
    faults.failed("MemoryError", "archive@host", None)

    assert len(slept) == 2


@pytest.mark.parametrize("kind", [OURS[0], OURS[1], OURS[3], OUR_DISK[0]], ids=repr)
@pytest.mark.parametrize("where", ["the engine", "the source", "the contents", "a destination"])
def test_a_sick_machine_costs_no_asset_an_attempt_a_mismatch_or_a_crash(where: str, kind: Exception) -> None:
    def error() -> Exception:
        return type(kind)(*kind.args)

    def contents() -> Tree:
        if sick and where == "the contents":
            raise error()
        failing = [error()] * 9 if sick and where == "the source" else []
        return Tree({"a.mp4": BytesSource(b"m" * 100, failing)}, form="file")

    class Store(MemoryBackend):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            if sick and where == "a destination":
                raise error()
            return super().put(spec, data, crc32c)

    def engine(*given: object) -> Engine:
        if sick and where == "the engine":
            raise error()
        return make(*given)

    sick = [True]
    harness = ArchiverHarness(contents, stores=[Store("one")])
    make: Callable[..., Engine] = harness.archiver.deps.engine
    harness.archiver.deps = replace(harness.archiver.deps, engine=engine)
    for _ in range(4):
        outcome = harness.archive()
        assert isinstance(outcome, WillRetry)
        assert outcome.machine_fault
        harness.clock.advance(outcome.delay)
    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    assert (row.attempts, row.mismatches, row.crashes) == (0, 0, 0)

    sick.clear()
    assert isinstance(harness.archive(), Archived)


def test_one_file_of_a_tree_that_met_a_sick_machine_is_not_called_missing() -> None:
    fault = raised(SourceUnavailable("no answer"), os_error(errno.EMFILE), "from None")
    files = {f"{number}.ts": BytesSource(b"G" * 9) for number in range(4)}
    files["2.ts"] = BytesSource(b"G" * 9, [fault] * 9)
    harness = ArchiverHarness(lambda: Tree(dict(files)))

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert outcome.machine_fault
    assert not outcome.mismatch


def test_a_ledger_that_cannot_be_reached_for_lack_of_handles_is_no_crash_of_the_asset() -> None:
    class NoHandles(MemoryLedger):
        sick = True

        def add_stored(self, *given: object) -> None:
            if self.sick:
                raise RuntimeError("can't start new thread")
            super().add_stored(*given)  # type: ignore[arg-type]

    harness = ArchiverHarness(
        lambda: Tree({f"{number}.ts": BytesSource(b"G" * 9) for number in range(40)}), new_ledger=NoHandles
    )
    assert isinstance(harness.ledger, NoHandles)
    for _ in range(3):
        outcome = harness.archive()
        assert isinstance(outcome, WillRetry)
        harness.clock.advance(outcome.delay)
    harness.ledger.sick = False

    assert isinstance(harness.archive(), Archived)


def test_a_ledger_that_fails_an_attempt_for_lack_of_handles_is_told_when_there_are_some() -> None:
    class Once(MemoryLedger):
        def __init__(self, clock: Clock) -> None:
            super().__init__(clock)
            self.failures = [raised(LedgerUnavailable("no answer"), os_error(errno.EMFILE), "from None")]

        def renew(self, *given: object) -> None:
            if self.failures:
                raise self.failures.pop()
            super().renew(*given)  # type: ignore[arg-type]

    def contents() -> Tree:
        harness.ledger.renew(None, None)  # type: ignore[arg-type]
        raise AssertionError("it failed before")

    harness = ArchiverHarness(contents, new_ledger=Once)
    with pytest.raises(LedgerUnavailable):
        harness.archive()

    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    assert row.state is AssetState.WAITING, "the lease does not have to end by itself"
    assert harness.ledger.lease(harness.asset_id, "next", timedelta(minutes=2)) is not None
    assert (again := harness.ledger.get(harness.asset_id)) is not None
    assert again.crashes == 0

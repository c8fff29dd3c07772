"""Whether a destination takes what the archiver writes, asked without leaving or overwriting anything."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from archiver.core.destinations import probing
from archiver.core.destinations.probing import LEFT_EVERY, ROOM_BYTES, probe, refuses_everything
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, StorageBackend, Upload
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    DestinationFull,
    DestinationRefuses,
    StorageError,
    TransientStorageError,
)
from storage_backends.memory import MemoryBackend
from tests.core.fakes import Clock
from tests.transfer.stores import BrokenStore, NoChecksumStore, OrderedStore, Wrapped, open_uploads, stored_in

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class KeepsAll(Wrapped):
    """Write once: nothing may be deleted or overwritten."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.stat(spec.key) is not None and not spec.if_absent:
            raise AccessDenied(f"storing {spec.key}: 403")
        return super().put(spec, data, crc32c)

    def delete(self, key: ObjectKey) -> None:
        raise AccessDenied(f"deleting {key}: 403")


class Full(Wrapped):
    def __init__(self, inner: StorageBackend, free_bytes: int) -> None:
        super().__init__(inner)
        self._free_bytes = free_bytes

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if len(data) > self._free_bytes:
            raise DestinationFull("no space left on device")
        return super().put(spec, data, crc32c)


@pytest.fixture(autouse=True)
def _nothing_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_left", {})


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def ledger(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock)


def test_a_probe_of_a_working_destination_leaves_nothing_there() -> None:
    store = MemoryBackend("tests")

    found = probe(store)

    assert (found.reads_back, found.creates_only, found.error, found.left) == (True, True, None, None)
    assert found.stored is not None
    assert found.stored.crc32c is not None
    assert stored_in(store) == {}


def test_a_probe_distinguishes_stores_with_and_without_checksums() -> None:
    found = probe(NoChecksumStore(MemoryBackend("tests")))

    assert found.stored is not None
    assert found.stored.crc32c is None


def test_no_probe_overwrites_another() -> None:
    store = KeepsAll(MemoryBackend("tests"))

    probe(store)
    probing._left.clear()
    assert probe(store).error is None

    assert len(stored_in(store)) == 2


@pytest.mark.parametrize("remembered_by", ["the ledger", "the process"])
def test_where_nothing_can_be_deleted_one_probe_is_left_a_day(
    ledger: MemoryLedger, clock: Clock, remembered_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeepsAll(MemoryBackend("tests"))
    memory = ledger if remembered_by == "the ledger" else None
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])

    def later(by: timedelta) -> None:
        clock.now += by
        seconds[0] += by.total_seconds()
        if memory is not None:
            probing._left.clear()  # as another process, or one that was restarted

    first = probe(store, memory)
    assert first.left in stored_in(store)
    assert isinstance(first.left_because, AccessDenied)
    for _ in range(20):
        later(timedelta(hours=1))
        again = probe(store, memory)
        assert again.only_begun
        assert again.error is None
    assert len(stored_in(store)) == 1
    assert open_uploads(store) == 0

    later(LEFT_EVERY)
    assert not probe(store, memory).only_begun
    assert len(stored_in(store)) == 2


def test_a_probe_that_was_left_is_found_by_a_run_without_a_lasting_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, clock = KeepsAll(MemoryBackend("tests")), Clock(datetime.now(UTC))

    for _ in range(3):  # as cron does
        monkeypatch.setattr(probing, "_left", {})
        probe(store, MemoryLedger(clock))

    assert len(stored_in(store)) == 1
    clock.now += LEFT_EVERY + timedelta(minutes=1)
    monkeypatch.setattr(probing, "_left", {})
    assert not probe(store, MemoryLedger(clock)).only_begun


def test_without_a_ledger_the_process_remembers_left_probes() -> None:
    class Away(MemoryLedger):
        def recall(self, name: str) -> None:
            raise LedgerUnavailable("away")

        def remember(self, *_: object, **__: object) -> None:
            raise LedgerUnavailable("away")

    store, away = KeepsAll(MemoryBackend("tests")), Away(Clock(NOW))

    probe(store, away)
    probe(store, away)

    assert len(stored_in(store)) == 1


def test_a_probe_that_only_begins_an_upload_meets_a_refusal_too() -> None:
    store = KeepsAll(MemoryBackend("tests"))
    probe(store)

    refusing = BrokenStore(store, "begin", AccessDenied("403"))

    assert refuses_everything(refusing, AccessDenied("403")) is True
    assert refuses_everything(OrderedStore(store), AccessDenied("403")) is False


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AccessDenied("403"), True),
        (BucketMissing("404"), True),
        (DestinationFull("full"), True),
        (TransientStorageError("503"), None),
        (StorageError("400"), None),
    ],
)
@pytest.mark.parametrize("method", ["put", "read"])
def test_a_destination_that_refuses_the_probe_refuses_everything(
    method: str, error: StorageError, expected: bool | None
) -> None:
    store = BrokenStore(MemoryBackend("tests"), method, error)

    assert refuses_everything(store, AccessDenied("403")) is expected
    assert stored_in(store) == {}


@pytest.mark.parametrize(
    ("refusal", "free_bytes", "expected"),
    [
        (DestinationFull("full"), ROOM_BYTES, False),
        (DestinationFull("full"), ROOM_BYTES - 1, True),
        (AccessDenied("403"), ROOM_BYTES - 1, False),
        (BucketMissing("404"), ROOM_BYTES, True),
    ],
)
def test_a_destination_is_full_for_all_when_little_fits_any_more(
    refusal: DestinationRefuses, free_bytes: int, expected: bool
) -> None:
    store = Full(MemoryBackend("tests"), free_bytes)

    assert refuses_everything(store, refusal) is expected
    assert stored_in(store) == {}


def test_an_upload_that_is_only_begun_fits_the_parts_of_the_store() -> None:
    begun: list[ObjectSpec] = []

    class Noting(OrderedStore):
        def begin(self, spec: ObjectSpec) -> Upload:
            begun.append(spec)
            return super().begin(spec)

    kept = KeepsAll(MemoryBackend("tests"))
    probe(kept)
    probe(Noting(kept), size_bytes=5)

    assert begun[0].part_bytes % 4 == 0
    assert begun[0].part_bytes >= 5

"""A destination that takes nothing is noticed within minutes, although no asset is due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.destinations import breaker
from archiver.core.destinations.write_probe import EVERY, WriteProbe
from archiver.core.errors import DestinationUnusable
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.base import ObjectSpec
from storage_backends.errors import AccessDenied, DestinationFull, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend, MemoryUpload
from tests.core.examples import NOW
from tests.core.fakes import Clock


class Store(MemoryBackend):
    def __init__(self, name: str = "one") -> None:
        super().__init__(name)
        self.refusal: StorageError | None = None
        self.begun = 0

    def begin(self, spec: ObjectSpec) -> MemoryUpload:
        self.begun += 1
        if self.refusal is not None:
            raise self.refusal
        return super().begin(spec)


class Watch:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [Store("one"), Store("two")]
        self.probe = WriteProbe(
            ledger=self.ledger, destinations=self.stores, clock=self.clock, machine="control-1"
        )

    def run(self, minutes: int = 1) -> None:
        for _ in range(minutes):
            self.probe.run()
            self.clock.advance(timedelta(minutes=1))

    def opened(self) -> set[str]:
        return set(breaker.opened(self.ledger, self.clock()))


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_each_destination_is_tried_every_few_minutes_and_nothing_is_left(watch: Watch) -> None:
    watch.run(20)

    assert [store.begun for store in watch.stores] == [20 // (EVERY // timedelta(minutes=1))] * 2
    assert all(not store.store.objects and not store.store.uploads for store in watch.stores)
    assert watch.opened() == set()


@pytest.mark.parametrize("refusal", [AccessDenied("403 s3:PutObject"), DestinationFull("507")])
def test_a_refusal_opens_the_breaker_within_minutes(watch: Watch, refusal: StorageError) -> None:
    watch.run()
    watch.stores[0].refusal = refusal
    watch.run(6)

    (name,) = watch.opened()
    assert name == f"{watch.stores[0].name} (on control-1)"
    assert str(refusal) in breaker.opened(watch.ledger, watch.clock())[name].reason


def test_while_it_refuses_it_is_told_and_once_it_does_not_it_is_well(watch: Watch) -> None:
    watch.stores[0].refusal = AccessDenied("403")
    for _ in range(30):
        watch.run()
        assert breaker.not_closed(watch.ledger, watch.clock()), "open, or half-open until it is tried"
    watch.stores[0].refusal = None
    watch.run(7)

    assert not breaker.not_closed(watch.ledger, watch.clock())


@pytest.mark.parametrize(
    "error", [TransientStorageError("503"), DestinationUnusable("known"), StorageError("400")]
)
def test_what_is_no_refusal_to_write_opens_nothing(watch: Watch, error: StorageError) -> None:
    watch.stores[0].refusal = error
    watch.run(10)

    assert watch.opened() == set()


def test_a_paused_destination_is_not_tried(watch: Watch) -> None:
    breaker.pause(watch.ledger, watch.stores[0].name, by="anna", why="moving", now=watch.clock())
    watch.run(10)

    assert watch.stores[0].begun == 0
    assert watch.stores[1].begun == 2

"""Reconcile against what changes, or is wrong, while it looks."""

from __future__ import annotations

from datetime import timedelta

from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.upkeep.reconcile import EXTEND_EVERY, LOCK_NAME, LOCK_TTL, Reconciler
from archiver.ledger.models import AssetState, Settlement
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectSpec
from storage_backends.memory import MemoryBackend
from tests.core.examples import RETENTION
from tests.core.harness import ArchiverHarness, file

VIDEO = bytes(range(256))


def archived(*stores: MemoryBackend) -> ArchiverHarness:
    harness = ArchiverHarness(lambda: file(VIDEO), stores=stores)
    harness.archive()
    return harness


def reconciler(harness: ArchiverHarness) -> Reconciler:
    return Reconciler(
        ledger=harness.ledger, destinations=harness.stores, scope=Scope(RETENTION), clock=harness.clock
    )


def test_a_manifest_whose_objects_are_gone_does_not_make_a_waiting_asset_archived() -> None:
    harness = archived(MemoryBackend("one"))
    for info in list(harness.stores[0].list("recordings/")):
        harness.stores[0].delete(info.key)
    harness.ledger.reopen(harness.asset_id)
    lease = harness.ledger.lease(harness.asset_id, "test", timedelta(minutes=1))
    assert lease
    later = Settlement(AssetState.WAITING, delay=timedelta(hours=1))
    harness.ledger.settle(lease, judge(harness.api.assets[0], Scope(RETENTION)), later)

    reconciler(harness).reconcile()

    row = harness.ledger.get(harness.asset_id)
    assert row
    assert row.state is AssetState.WAITING


def test_a_commit_that_scrub_marks_as_damaged_while_reconcile_looks_stays_marked() -> None:
    harness: ArchiverHarness | None = None

    class TakenBack(MemoryBackend):
        """Once the manifests are listed, this one goes."""

        def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            found = list(super().list(prefix))
            if harness is not None and prefix.startswith(keys.MANIFESTS):
                for info in found:
                    self.delete(info.key)
                harness.ledger.reopen(harness.asset_id)
            return iter(found)

    harness = archived(MemoryBackend("one"), TakenBack("two"))

    reconciler(harness).reconcile()

    row = harness.ledger.get(harness.asset_id)
    assert row
    assert row.state is AssetState.DISCOVERED


def test_a_long_run_extends_its_lock() -> None:
    harness: ArchiverHarness | None = None
    seen: list[str | None] = []

    class Slow(MemoryBackend):
        def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            for info in super().list(prefix):
                for _ in range(EXTEND_EVERY):
                    yield info
                if harness is not None:
                    harness.clock.advance(LOCK_TTL / 2)
                    seen.append(harness.ledger.lock(LOCK_NAME, LOCK_TTL))

    harness = ArchiverHarness(lambda: file(VIDEO), stores=[Slow("one")])
    for number in range(4):
        data = str(number).encode()
        key = keys.manifest_key(f"other-{number}", None)
        harness.stores[0].put(ObjectSpec(key, "application/json", len(data)), data, crc32c(data))

    reconciler(harness).reconcile()

    assert seen[:4] == [None] * 4


def test_the_lock_of_a_killed_run_expires_within_minutes() -> None:
    harness = archived(MemoryBackend("one"))
    harness.ledger.lock(LOCK_NAME, LOCK_TTL)
    at_once = reconciler(harness).reconcile()

    harness.clock.advance(LOCK_TTL)

    assert at_once is None
    assert reconciler(harness).reconcile() is not None
    assert timedelta(minutes=15) >= LOCK_TTL

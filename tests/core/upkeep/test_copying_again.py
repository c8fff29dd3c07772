"""`retry --again`, stopped anywhere: the ledger never calls an asset archived beside a manifest that is marked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from archiver.core.errors import ReviewRefused
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.records.commit import clear_damage, mark_damaged
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.upkeep.retrying import MARKING, retry
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Row, Settlement
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec
from storage_backends.errors import AccessDenied, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, put
from tests.core.examples import RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

ASSET = asset()
KEY = keys.manifest_key(ASSET.id, ASSET.created_at)

Trouble = Callable[[], None]


class Killed(BaseException):
    """The process is gone."""


class Store(MemoryBackend):
    """`before` and `after` are called around each write."""

    before: Trouble | None = None
    after: Trouble | None = None

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.before is not None:
            self.before()
        info = super().put(spec, data, crc32c)
        if self.after is not None:
            self.after()
        return info


class Harness(ReconcileHarness):
    def __init__(self) -> None:
        super().__init__(Store("one"), Store("two"))
        enter(self.ledger, ASSET)
        archive_at(self.stores, ASSET)
        self.clock.advance(timedelta(hours=1))

    def again(self) -> Row:
        return retry(self.ledger, self.stores, ASSET.id, by="ann", why="look", now=self.clock(), again=True)

    def marked(self) -> list[bool]:
        return [bool(self.manifest(store).damage) for store in self.stores]

    def manifest(self, store: MemoryBackend) -> Manifest:
        found = read_manifest(store, KEY)
        assert found is not None
        return found

    def is_due(self) -> bool:
        return [row.asset_id for row in self.ledger.take_due(10, timedelta(minutes=15))] == [ASSET.id]


def raising(error: BaseException) -> Trouble:
    def raise_() -> None:
        raise error

    return raise_


REFUSED, AWAY, DEAD = AccessDenied("403: retained"), TransientStorageError("503"), Killed()


@pytest.mark.parametrize(
    ("number", "when", "trouble", "raised", "marked"),
    [
        # the first destination: nothing is marked, or it never heard of it
        (0, "before", REFUSED, ReviewRefused, [False, True]),
        (0, "before", AWAY, StorageError, [False, False]),
        (0, "before", DEAD, Killed, [False, False]),
        (0, "after", AWAY, StorageError, [True, False]),
        (0, "after", DEAD, Killed, [True, False]),
        # the second one
        (1, "before", REFUSED, ReviewRefused, [True, False]),
        (1, "before", AWAY, StorageError, [True, False]),
        (1, "before", DEAD, Killed, [True, False]),
        (1, "after", AWAY, StorageError, [True, True]),
        (1, "after", DEAD, Killed, [True, True]),
    ],
)
def test_where_it_stops_the_asset_is_due_and_a_second_call_marks_the_rest(
    number: int, when: str, trouble: BaseException, raised: type[BaseException], marked: list[bool]
) -> None:
    harness = Harness()
    store = harness.stores[number]
    setattr(store, when, raising(trouble))

    with pytest.raises(raised):
        harness.again()

    assert harness.marked() == marked
    assert harness.state(ASSET) is not AssetState.ARCHIVED
    harness.reconcile()
    assert (harness.state(ASSET) is AssetState.ARCHIVED) is (not any(marked) and raised is not Killed)

    setattr(store, when, None)
    harness.clock.advance(MARKING)
    harness.again()

    assert harness.marked() == [True, True]
    assert harness.is_due()
    row = harness.ledger.get(ASSET.id)
    assert row is not None
    assert {decision.what for decision in row.history} == {"retried"}


def test_a_refusal_says_where_and_what_happens_elsewhere() -> None:
    harness = Harness()
    harness.two.before = raising(REFUSED)  # type: ignore[attr-defined]

    with pytest.raises(
        ReviewRefused, match=r"cannot be replaced at .*two.*retained.*copied again to .*one alone"
    ):
        harness.again()

    harness = Harness()
    for store in harness.stores:
        store.before = raising(REFUSED)  # type: ignore[attr-defined]
    with pytest.raises(ReviewRefused, match="It stays archived as it is"):
        harness.again()
    harness.reconcile()
    assert harness.state(ASSET) is AssetState.ARCHIVED


def test_a_copy_that_was_made_since_is_not_marked_by_a_second_call() -> None:
    harness = Harness()
    harness.again()
    harness.clock.advance(timedelta(hours=1))
    new = harness.manifest(harness.one).model_copy(update={"damage": None, "archived_at": harness.clock()})
    put(harness.one, KEY, new.to_bytes())

    harness.again()

    assert harness.marked() == [False, True]


def test_nobody_else_has_the_asset_while_manifests_are_marked() -> None:
    harness = Harness()
    seen: list[Any] = []

    def look() -> None:
        harness.reconcile()
        seen.append((harness.ledger.lease(ASSET.id, "worker", MARKING), harness.state(ASSET)))

    for store in harness.stores:
        store.before = look  # type: ignore[attr-defined]
    harness.again()

    assert seen == [(None, AssetState.RUNNING)] * 2


def test_what_a_worker_has_is_not_marked() -> None:
    harness = Harness()
    harness.ledger.reopen(ASSET.id)
    assert harness.ledger.lease(ASSET.id, "worker", MARKING)

    row = harness.again()

    assert row.state is AssetState.RUNNING
    assert harness.marked() == [False, False]


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_slept_for_longer_than_its_lease_reopens_what_was_archived_meanwhile(number: int) -> None:
    harness = Harness()
    store = harness.stores[number]

    def sleep() -> None:
        store.before = None  # type: ignore[attr-defined]
        harness.clock.advance(MARKING)
        lease = harness.ledger.lease(ASSET.id, "worker", MARKING)
        assert lease is not None
        clear_damage(harness.one, KEY, harness.manifest(harness.one))
        harness.ledger.settle(lease, judge(ASSET, Scope(RETENTION)), Settlement(AssetState.ARCHIVED))

    store.before = sleep  # type: ignore[attr-defined]
    with pytest.raises(ReviewRefused, match="a worker"):
        harness.again()

    assert any(harness.marked())
    assert harness.state(ASSET) is AssetState.DISCOVERED


def test_a_ledger_that_goes_away_leaves_the_lease_to_expire() -> None:
    harness = Harness()

    class Away(MemoryLedger):
        def renew(self, *_: Any, **__: Any) -> None:
            raise LedgerUnavailable("away")

    harness.ledger.__class__ = Away
    with pytest.raises(LedgerUnavailable):
        harness.again()
    harness.clock.advance(MARKING)

    assert harness.is_due()


def test_a_reconcile_that_read_the_manifests_before_they_were_marked_does_not_end_the_retry() -> None:
    """It read them, and records what it read after the marking has ended."""
    harness = Harness()
    harness.ledger.reopen(ASSET.id)

    class Slow(MemoryLedger):
        def record_archived(self, *given: Any, **more: Any) -> bool:
            mark_damaged(harness.two, KEY, ["a person asked for a new copy"])
            return super().record_archived(*given, **more)

    harness.ledger.__class__ = Slow
    result = harness.reconcile()

    assert result.entered == 0
    assert harness.state(ASSET) is AssetState.DISCOVERED

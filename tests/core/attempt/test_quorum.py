"""Archived as soon as so many destinations hold it whole; what each of them holds is in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from archiver.core.destinations import breaker
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.replication.replicator import Replicator
from archiver.core.upkeep import reconcile
from archiver.core.upkeep.gaps import LEFT_TO_REPLICATION
from archiver.core.upkeep.reconcile import Reconciler, Unidentified
from archiver.ledger.models import AssetState, CopyState, Row
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, RETENTION, asset
from tests.core.harness import ArchiverHarness, file
from tests.core.replication.harness import ReplicationHarness

VIDEO = b"video" * 40
WHOLE, LACKING, DAMAGED = CopyState.WHOLE, CopyState.LACKING, CopyState.DAMAGED


class Failing(MemoryBackend):
    """Takes no objects while `error` is set."""

    error: StorageError | None = None
    is_silent = False

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        if self.is_silent:
            raise TransientStorageError("503")
        return super().stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if self.is_silent:
            raise TransientStorageError("503")
        return super().list(prefix)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.error is not None:
            raise self.error
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec):  # type: ignore[no-untyped-def]
        if self.error is not None:
            raise self.error
        return super().begin(spec)


class Harness:
    def __init__(self, failing: int, quorum: int | None, error: StorageError) -> None:
        self.stores = [Failing(name) for name in ("one", "two", "three")]
        for store in self.stores[3 - failing :]:
            store.error = error
        self.base = ArchiverHarness(lambda: file(VIDEO), stores=self.stores)
        self.base.archiver.deps = replace(
            self.base.archiver.deps, rules=replace(self.base.archiver.deps.rules, quorum=quorum)
        )
        self.base.ledger.discover([judge(each, Scope(RETENTION)) for each in self.base.api.assets])

    def archive(self) -> Row:
        self.base.archive()
        row = self.base.ledger.get(self.base.asset_id)
        assert row is not None
        return row


@pytest.mark.parametrize(
    ("failing", "quorum", "state", "at_last"),
    [
        (0, None, AssetState.ARCHIVED, WHOLE),
        (0, 2, AssetState.ARCHIVED, WHOLE),
        (1, None, AssetState.WAITING, None),
        (1, 3, AssetState.WAITING, None),
        (1, 2, AssetState.ARCHIVED, LACKING),
        (1, 1, AssetState.ARCHIVED, LACKING),
        (2, 2, AssetState.WAITING, None),
        (2, 1, AssetState.ARCHIVED, LACKING),
        (3, 1, AssetState.WAITING, None),
    ],
)
@pytest.mark.parametrize(
    "error", [TransientStorageError("503"), AccessDenied("403")], ids=["silent", "refuses"]
)
def test_an_asset_is_archived_at_the_quorum(
    failing: int, quorum: int | None, state: AssetState, at_last: CopyState | None, error: StorageError
) -> None:
    row = Harness(failing, quorum, error).archive()

    assert row.state is state
    assert row.copies.get("memory://three") is at_last
    if state is AssetState.ARCHIVED:
        assert list(row.copies.values()).count(WHOLE) == 3 - failing
        assert row.stored_bytes == len(VIDEO)


def test_a_copy_that_is_missing_at_the_quorum_opens_the_circuit_breaker_of_its_destination() -> None:
    harness = Harness(1, 2, AccessDenied("403"))

    harness.archive()

    assert any("memory://three" in name for name in harness.base.ledger.recall_all(""))


def test_what_was_archived_before_says_while_it_waits_where_it_is() -> None:
    harness = Harness(0, None, TransientStorageError("503"))
    archived = harness.archive()
    harness.stores[2].error = TransientStorageError("503")
    for key in list(harness.stores[2].store.objects):
        del harness.stores[2].store.objects[key]
    harness.base.ledger.reopen(archived.asset_id, keep_stored=True)

    row = harness.archive()

    assert row.state is AssetState.WAITING
    assert row.copies == {"memory://one": WHOLE, "memory://two": WHOLE, "memory://three": LACKING}


@pytest.mark.parametrize("silent", [False, True])
def test_a_copy_that_is_not_what_was_archived_does_not_count_as_whole(silent: bool) -> None:
    """It has doubts, or what the ledger says of it is from before the asset was due again."""
    harness = Harness(1, 2, TransientStorageError("503"))
    made = harness.base.api.assets[0]
    if not silent:
        harness.stores[2].error, error = None, harness.stores[2].error
        archive_at(harness.stores[2:], made, {"movie.mp4": b"half"}, ("a segment is missing",))
        harness.stores[2].error = error
    row = harness.base.ledger.get(made.id)
    assert row is not None
    harness.base.ledger.note_copies(row, {store.name: WHOLE for store in harness.stores})
    if silent:
        harness.stores[2].is_silent = True

    row = harness.archive()

    assert row.state is AssetState.ARCHIVED
    assert row.copies == {"memory://one": WHOLE, "memory://two": WHOLE, "memory://three": DAMAGED}


def _gone(harness: Harness) -> None:
    harness.base.api.assets.clear()


def _not_completed(harness: Harness) -> None:
    harness.base.api.assets[0] = harness.base.api.assets[0].model_copy(update={"status": "processing"})


@pytest.mark.parametrize("source_fails", [_gone, _not_completed])
def test_what_100ms_does_not_give_again_before_its_deadline_is_replicated(
    source_fails: Callable[[Harness], None],
) -> None:
    harness = Harness(0, 2, AccessDenied("403"))
    asset_id = harness.archive().asset_id
    reconciler, replicator, store = _upkeep(harness)
    source_fails(harness)
    _delete(store, asset_id, harness)

    reconciler.reconcile()  # 100ms is asked at once
    harness.base.archive(asset_id)
    lacking = harness.base.ledger.get(asset_id)
    assert lacking is not None
    assert (lacking.state, lacking.copies[store.name]) == (AssetState.ARCHIVED, LACKING)
    harness.base.clock.now += timedelta(hours=1)
    result = reconciler.reconcile()
    assert result is not None
    assert result.reopened == 0
    replicator.replicate_due()

    row = harness.base.ledger.get(asset_id)
    assert row is not None
    assert row.state is AssetState.ARCHIVED
    assert set(row.copies.values()) == {WHOLE}
    assert store.stat(keys.manifest_key(asset_id, row.created_at)) is not None


def test_what_is_not_replicated_for_days_is_copied_from_100ms() -> None:
    harness = Harness(1, 2, AccessDenied("403"))
    asset_id = harness.archive().asset_id
    reconciler, replicator, store = _upkeep(harness)
    harness.base.clock.now += timedelta(hours=1)

    reconciler.reconcile()
    replicated = replicator.replicate_due()
    assert replicated is not None
    assert replicated.failed == 1
    row = harness.base.ledger.get(asset_id)
    assert row is not None
    assert (row.state, row.copies[store.name]) == (AssetState.ARCHIVED, LACKING)
    store.error = None
    harness.base.clock.now += LEFT_TO_REPLICATION
    reconciler.reconcile()
    harness.base.archive(asset_id)

    row = harness.base.ledger.get(asset_id)
    assert row is not None
    assert (row.state, set(row.copies.values())) == (AssetState.ARCHIVED, {WHOLE})


@pytest.mark.parametrize("is_silent", [True, False], ids=["it did not answer", "it took nothing"])
def test_what_a_destination_lacks_after_days_away_is_replicated_and_not_read_from_100ms_again(
    is_silent: bool,
) -> None:
    harness = Harness(1, 2, AccessDenied("disk full"))
    asset_id = harness.archive().asset_id
    reconciler, replicator, store = _upkeep(harness)
    ledger, clock = harness.base.ledger, harness.base.clock
    store.is_silent = is_silent
    for _ in range(5):
        clock.now += timedelta(days=1)
        if is_silent:
            with pytest.raises(TransientStorageError):
                reconciler.reconcile()
        else:
            breaker.trip(ledger, store.name, "refused", clock.now)  # by an attempt at something new
            result = reconciler.reconcile()
            assert result is not None
            assert result.reopened == 0
    store.error, store.is_silent = None, False
    clock.now += timedelta(hours=2)

    result = reconciler.reconcile()
    replicator.replicate_due()

    assert result is not None
    assert result.reopened == 0
    row = ledger.get(asset_id)
    assert row is not None
    assert (row.state, set(row.copies.values())) == (AssetState.ARCHIVED, {WHOLE})


class Filling(Unidentified):
    """A destination that was added is being filled."""

    def __init__(self, name: str, since: datetime) -> None:
        self.name: str | None = name
        self.since = since

    def began_empty_at(self, name: str, /) -> datetime | None:
        return self.since if name == self.name else None

    def filling(self) -> list[str]:
        return [self.name] if self.name else []

    def filled(self, _name: str, /) -> None:
        self.name = None


def test_what_an_added_destination_refuses_does_not_keep_it_from_being_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the quorum an attempt that fails there ends as archived: it must not be the first of the next batch."""
    monkeypatch.setattr(reconcile, "FILLED_AT_ONCE", 2)

    class Refusing(MemoryBackend):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            if "asset-0" in spec.key or "asset-1" in spec.key:
                raise AccessDenied("not these")
            return super().put(spec, data, crc32c)

    one, two = MemoryBackend("one"), Refusing("two")
    made = [
        asset(id=f"asset-{n}", size=None, created_at=(NOW - timedelta(days=5 - n)).isoformat())
        for n in range(5)
    ]
    base = ArchiverHarness(lambda: file(VIDEO), stores=[one, two], assets=made)
    base.archiver.deps = replace(base.archiver.deps, rules=replace(base.archiver.deps.rules, quorum=1))
    for each in made:
        archive_at([one], each)
        enter(base.ledger, each)
    base.clock.now += timedelta(days=3)
    filling = Filling(two.name, base.clock.now - timedelta(hours=1))
    reconciler = Reconciler(
        ledger=base.ledger,
        destinations=base.stores,
        scope=Scope(RETENTION),
        clock=base.clock,
        identities=filling,
    )

    for _ in range(3):
        reconciler.reconcile()
        for row in list(base.ledger.rows([AssetState.DISCOVERED, AssetState.WAITING])):
            base.archive(row.asset_id)
        base.clock.now += timedelta(minutes=20)

    there = [each.id for each in made if two.stat(keys.manifest_key(each.id, each.created_at))]
    assert there == ["asset-2", "asset-3", "asset-4"]
    assert filling.filling() == []
    states = {row.asset_id: (row.state, row.copies[two.name]) for row in base.ledger.rows()}
    assert states == {each.id: (AssetState.ARCHIVED, WHOLE if each.id in there else LACKING) for each in made}


def _upkeep(harness: Harness) -> tuple[Reconciler, Replicator, Failing]:
    """What replicates, and the last store."""
    base = harness.base
    replication = ReplicationHarness()
    replication.ledger, replication.clock = base.ledger, base.clock
    replicator = Replicator(
        ledger=base.ledger,
        destinations=harness.stores,
        repairer=replication.repairer_of(harness.stores),
        clock=base.clock,
    )
    reconciler = Reconciler(
        ledger=base.ledger, destinations=harness.stores, scope=Scope(RETENTION), clock=base.clock
    )
    return reconciler, replicator, harness.stores[2]


def _delete(store: MemoryBackend, asset_id: str, harness: Harness) -> None:
    row = harness.base.ledger.get(asset_id)
    assert row is not None
    store.delete(keys.manifest_key(asset_id, row.created_at))

"""Damaged copies are combined where each object is whole in one of them, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from archiver.core.records import keys
from archiver.core.records.commit import mark_damaged
from archiver.core.replication.repairer import Result
from archiver.core.replication.selection import Wanted
from archiver.core.upkeep.scrub_copy import CopyChecker
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.hms.models import Asset
from archiver.ledger.models import AssetState
from storage_backends.errors import AccessDenied
from tests.core.archived import archive_at
from tests.core.replication.harness import DAMAGED, FILES, LACKING, WHOLE, ReplicationHarness, Store, put
from tests.core.replication.test_killed import Killed
from worker.verify import verify


def damaged(*paths: str, names: tuple[str, ...] = ("one", "two")) -> tuple[ReplicationHarness, Asset]:
    """An asset at every store but a third, damaged at the path of each."""
    harness = ReplicationHarness(*(Store(name) for name in names))
    holders = harness.stores[: len(paths)]
    made = harness.archive(at=holders, state=AssetState.DAMAGED)
    for store, path in zip(holders, paths, strict=True):
        spoil(harness, made, store, path)
    row = harness.row(made)
    harness.ledger.note_copies(row, {s.name: DAMAGED if s in holders else LACKING for s in harness.stores})
    return harness, made


def spoil(harness: ReplicationHarness, made: Asset, store: Store, path: str) -> None:
    manifest = harness.manifest(store, made)
    assert manifest is not None
    item = next(item for item in manifest.objects if item.path == path)
    store.damage(manifest.key_of(item))
    mark_damaged(store, keys.manifest_key(made.id, made.created_at), [f"{path}: CRC32C"])
    store.writes.clear()


@pytest.mark.parametrize("names", [("one", "two"), ("one", "two", "three")])
def test_two_copies_that_are_damaged_in_different_objects_make_whole_ones(names: tuple[str, ...]) -> None:
    harness, made = damaged("movie.mp4", "seg.ts", names=names)

    repaired = harness.repair(made)

    assert repaired.result is Result.COPIED
    assert all(harness.is_whole(store, made) for store in harness.stores)
    assert harness.copies(made) == [WHOLE] * len(names)
    assert harness.row(made).state is AssetState.ARCHIVED
    one = harness.stores[0]
    assert [key for key in one.writes if key.endswith(tuple(FILES))] == [
        "recordings/6400c0d3e1b2a3c4d5e6f708/movie.mp4"
    ]


def test_only_a_destination_that_lacks_it_may_be_wanted() -> None:
    harness, made = damaged("movie.mp4", "seg.ts", names=("one", "two", "three"))

    repaired = harness.repair(made, targets=["memory://three"])

    assert repaired.result is Result.COPIED
    assert harness.copies(made) == [DAMAGED, DAMAGED, WHOLE]
    assert harness.is_whole(harness.stores[2], made)


def test_what_is_whole_nowhere_is_neither_copied_nor_called_whole() -> None:
    harness, made = damaged("movie.mp4", "movie.mp4", names=("one", "two", "three"))

    repaired = harness.repair(made)

    assert repaired.result is Result.FAILED
    assert "no destination holds it whole" in repaired.reason
    assert [store.writes for store in harness.stores] == [[], [], []]
    assert harness.copies(made) == [DAMAGED, DAMAGED, LACKING]
    assert harness.row(made).state is AssetState.DAMAGED


def test_copies_that_list_other_objects_lend_only_what_is_the_same() -> None:
    for lost_at_two, result in (("index.m3u8", Result.COPIED), ("movie.mp4", Result.FAILED)):
        harness = ReplicationHarness()
        one, two = harness.stores
        made = harness.archive(at=[one], state=AssetState.DAMAGED)
        archive_at([two], made, {**FILES, "seg.ts": b"another"})
        for store, path in ((one, "movie.mp4"), (two, lost_at_two)):
            spoil(harness, made, store, path)
        harness.ledger.note_copies(harness.row(made), {"memory://one": DAMAGED, "memory://two": DAMAGED})

        assert harness.repair(made).result is result
        is_whole = result is Result.COPIED
        assert [harness.is_whole(store, made) for store in (one, two)] == [is_whole] * 2
        assert bool(one.writes + two.writes) is is_whole
        assert b"another" in [each.data for each in two.store.objects.values()], "nothing is overwritten"


def doubted(lost: str) -> tuple[ReplicationHarness, Asset]:
    """Archived at the first destination, where `lost` is missing by now; the second has all but `seg.ts`, with
    doubts."""
    harness = ReplicationHarness()
    one, two = harness.stores
    made = harness.archive(at=[one], state=AssetState.DAMAGED)
    archive_at([two], made, {path: FILES[path] for path in FILES if path != "seg.ts"}, ("seg.ts: missing",))
    del one.store.objects[f"recordings/{made.id}/{lost}"]
    one.writes.clear()
    two.writes.clear()
    harness.ledger.note_copies(harness.row(made), {"memory://one": DAMAGED, "memory://two": DAMAGED})
    return harness, made


def test_a_copy_with_doubts_lends_what_the_better_one_has_lost_and_is_replaced() -> None:
    harness, made = doubted("movie.mp4")

    assert harness.repair(made).result is Result.COPIED
    assert all(harness.is_whole(store, made) for store in harness.stores)
    assert harness.row(made).state is AssetState.ARCHIVED


def test_at_a_write_once_store_it_lends_and_is_told() -> None:
    harness, made = doubted("movie.mp4")
    one, two = harness.stores

    def refuse(_key: str) -> None:
        raise AccessDenied("the retention policy forbids to replace it")

    two.on_write = refuse

    assert harness.repair(made).result is Result.FAILED
    assert harness.is_whole(one, made)
    assert harness.copies(made) == [WHOLE, DAMAGED]
    assert harness.row(made).state is AssetState.DAMAGED, "it is not whole everywhere"


def test_what_the_copy_with_doubts_lacks_too_leaves_it_the_best_there_is() -> None:
    harness, made = doubted("seg.ts")

    assert harness.repair(made).result is Result.COPIED
    assert harness.row(made).state is AssetState.QUARANTINED
    assert harness.copies(made) == [WHOLE, WHOLE]


def test_a_copy_with_doubts_beside_a_whole_one_of_a_damaged_asset_is_replaced() -> None:
    harness, made = doubted("movie.mp4")
    put(harness.stores[0], f"recordings/{made.id}/movie.mp4", FILES["movie.mp4"])

    assert harness.repair(made).result is Result.COPIED
    assert all(harness.is_whole(store, made) for store in harness.stores)
    assert harness.row(made).state is AssetState.ARCHIVED


@pytest.mark.parametrize("begin", [partial(doubted, "movie.mp4"), partial(damaged, "movie.mp4", "seg.ts")])
def test_killed_at_each_write_the_next_run_ends_the_same(
    begin: Callable[[], tuple[ReplicationHarness, Asset]],
) -> None:
    killed = step = 0
    while killed == step:
        step += 1
        harness, made = begin()
        left = iter(range(step - 1))

        def kill(_key: str, left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise Killed

        for store in harness.stores:
            store.on_write = kill
        try:
            harness.repair(made)
        except Killed:
            killed += 1
            assert harness.row(made).state is AssetState.DAMAGED
        for store in harness.stores:
            store.on_write = lambda _key: None
        harness.clock.advance(harness.repairer._lease)

        assert harness.repair(made).result in (Result.COPIED, Result.NOTHING_TO_DO)
        assert all(harness.is_whole(store, made) for store in harness.stores), step
        assert harness.row(made).state is AssetState.ARCHIVED
    assert killed >= 4


def test_a_person_replicates_it_and_the_hourly_run_does_not_read_it_again_and_again() -> None:
    harness, made = damaged("movie.mp4", "seg.ts")

    hourly = harness.replicator().replicate_due()
    reads = [[key for key in store.reads if key.startswith("recordings/")] for store in harness.stores]
    asked = harness.replicator().replicate(Wanted(combines=True))

    assert hourly is None or hourly.copied == 0
    assert reads == [[], []]
    assert asked.copied == 1
    assert harness.copies(made) == [WHOLE, WHOLE]


@pytest.mark.parametrize("paths", [("movie.mp4", None), (None, "seg.ts"), ("movie.mp4", "seg.ts")])
def test_what_verify_marks_replicate_repairs(paths: tuple[str | None, str | None]) -> None:
    harness = ReplicationHarness()
    made = harness.archive(at=harness.stores)
    for store, path in zip(harness.stores, paths, strict=True):
        if path is not None:
            store.damage(f"recordings/{made.id}/{path}")
    checker = CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules())
    by_name = {store.name: store for store in harness.stores}

    for checked in verify(harness.stores, [], quick=False):
        if checked.problems and checked.key is not None:
            checker.mark(by_name[checked.destination], checked.key, in_full=True)
    marked = harness.row(made).state
    result = harness.replicator().replicate(Wanted(combines=True))

    assert marked is AssetState.DAMAGED
    assert (result.copied, result.complete) == (1, True)
    assert all(harness.is_whole(store, made) for store in harness.stores)
    assert harness.copies(made) == [WHOLE, WHOLE]
    assert harness.row(made).state is AssetState.ARCHIVED
    assert all(checked.ok for checked in verify(harness.stores, [], quick=False))

"""What a destination refuses is not read and sent again each hour, and keeps nothing else waiting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest

from archiver.core.replication.backoff import FACT, LONGEST, OFTEN, REMEMBERED, Backoff, delay
from archiver.core.replication.repairer import Repaired, Result
from archiver.core.replication.replicator import AWAY_AFTER, ReplicateResult
from archiver.core.replication.selection import Wanted
from archiver.core.upkeep.reports import REPLICATE_FACT
from archiver.hms.models import Asset
from archiver.ledger.models import AssetState
from storage_backends.errors import AccessDenied, StorageError, TransientStorageError
from tests.core.examples import asset
from tests.core.replication.harness import DAMAGED, WHOLE, ReplicationHarness, Store

HOUR = timedelta(hours=1)
REFUSED = AccessDenied("the retention policy forbids to replace it")


def raising(error: StorageError) -> Callable[[str], None]:
    def fail(_key: str) -> None:
        raise error

    return fail


def damaged_at_the_second(harness: ReplicationHarness, made: Asset | None = None) -> Asset:
    """The store did not let us mark it: the ledger alone knows, and each repair reads every byte."""
    made = harness.archive(made, at=harness.stores[:2], state=AssetState.DAMAGED)
    two = harness.stores[1]
    two.damage(f"recordings/{made.id}/movie.mp4")
    harness.ledger.note_copies(harness.row(made), {harness.stores[0].name: WHOLE, two.name: DAMAGED})
    return made


def run(harness: ReplicationHarness) -> ReplicateResult:
    """An hour after the run before."""
    harness.clock.advance(HOUR)
    result = harness.replicator().replicate_due()
    assert result is not None
    return result


def test_a_copy_at_a_write_once_store_is_read_in_full_less_and_less_often() -> None:
    harness = ReplicationHarness()
    two = harness.stores[1]
    damaged_at_the_second(harness)
    two.on_write = raising(REFUSED)

    read_in: list[int] = []
    for hour in range(5 * 24):
        before = len(two.reads)
        run(harness)
        if any(key.startswith("recordings/") for key in two.reads[before:]):
            read_in.append(hour)

    assert [later - earlier for earlier, later in pairwise(read_in)] == [
        1, 2, 4, 8, 16, 24, 24, 24
    ]  # fmt: skip
    assert harness.row(asset()).state is AssetState.DAMAGED


def test_what_waits_is_told_and_a_person_need_not_wait() -> None:
    harness = ReplicationHarness()
    made = damaged_at_the_second(harness)
    harness.stores[1].on_write = raising(REFUSED)
    for _ in range(3):
        run(harness)

    fact = harness.ledger.recall(REPLICATE_FACT) or {}
    assert (fact["failed"], fact["waiting"]) == (0, 1)
    assert "forbids to replace it" in str(fact["reason"])

    harness.stores[1].on_write = lambda _key: None
    assert harness.replicator().replicate(Wanted()).copied == 1
    assert harness.row(made).state is AssetState.ARCHIVED


def test_another_copy_that_changes_is_repaired_at_once() -> None:
    harness = ReplicationHarness(Store("one"), Store("two"), Store("three"))
    made = damaged_at_the_second(harness)
    row = harness.row(made)
    harness.ledger.note_copies(row, {**row.copies, harness.stores[2].name: WHOLE})
    harness.repair(made, targets=["memory://three"])
    harness.stores[1].on_write = raising(REFUSED)
    for _ in range(4):
        run(harness)
    row = harness.row(made)
    three = harness.stores[2]
    three.store.objects.clear()
    harness.ledger.note_copies(row, {**row.copies, three.name: DAMAGED})

    run(harness)

    assert harness.is_whole(three, made)


def test_what_is_refused_keeps_nothing_else_from_being_copied() -> None:
    """Five failures in a row end a run where there are two destinations; what is damaged goes first."""
    harness = ReplicationHarness()
    refused = [damaged_at_the_second(harness, asset(id=f"refused-{n}")) for n in range(2 * AWAY_AFTER)]
    others = [harness.archive(asset(id=f"other-{n}")) for n in range(3)]

    def refuse(key: str) -> None:
        if "refused" in key:
            raise REFUSED

    harness.stores[1].on_write = refuse

    runs = 0
    while not all(harness.is_whole(harness.stores[1], each) for each in others):
        runs += 1
        assert runs < 10
        run(harness)
    assert all(harness.row(each).state is AssetState.DAMAGED for each in refused)


@pytest.mark.parametrize("error", [TransientStorageError("503"), None], ids=["silent", "well"])
def test_a_destination_that_did_not_answer_is_tried_by_the_next_run(error: StorageError | None) -> None:
    harness = ReplicationHarness()
    made = damaged_at_the_second(harness)
    for _ in range(4):
        harness.stores[1].on_write = raising(TransientStorageError("503"))
        run(harness)

    harness.stores[1].on_write = raising(error) if error else lambda _key: None

    assert run(harness).copied == (0 if error else 1)
    assert harness.row(made).state is (AssetState.DAMAGED if error else AssetState.ARCHIVED)
    assert harness.ledger.recall(FACT) is None


def test_what_is_remembered_is_bounded_survives_a_restart_and_another_form_is_ignored() -> None:
    harness = ReplicationHarness()
    harness.ledger.remember(FACT, {"assets": {"a": "another form", "b": [1], "c": ["1", "2", "3", "4"]}})
    now = harness.clock()
    backoff = Backoff(harness.ledger, ["memory://one"], now)
    for _ in range(OFTEN):
        for number in range(REMEMBERED + 7):
            backoff.note(Repaired(f"asset-{number}", Result.FAILED, failed={"memory://one": REFUSED}), now)
    backoff.save()

    again = Backoff(harness.ledger, ["memory://one"], now)

    assert len(again.waiting()) == REMEMBERED
    assert again.failed_often(f"asset-{REMEMBERED}")
    assert not again.failed_often("asset-0")
    again.note(Repaired(f"asset-{REMEMBERED}", Result.COPIED), now)
    assert len(again.waiting()) == REMEMBERED - 1


def test_no_wait_is_longer_than_a_day() -> None:
    assert [delay(number) // HOUR for number in (1, 2, 3, 4, 5, 6, 7, 1000)] == [0, 2, 4, 8, 16, 24, 24, 24]
    assert delay(10**6) == LONGEST

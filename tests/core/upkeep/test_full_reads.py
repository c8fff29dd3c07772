"""A reconcile reads in full only what it must, and what nobody lets it mark once a day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.judging import as_known
from archiver.core.records import end_records
from archiver.core.records.commit import mark_damaged
from archiver.core.upkeep.full_reads import AGAIN_AFTER, FACT, REMEMBERED, FullReads
from archiver.ledger.models import AssetState, Row, Settlement
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied
from tests.core.archived import archive_at, enter, flip_a_bit
from tests.core.examples import asset
from tests.core.upkeep.reconcile_harness import DatedBackend, ReconcileHarness

HOUR = timedelta(hours=1)


class WriteOnce(DatedBackend):
    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key in self.store.objects:
            raise AccessDenied("the retention policy forbids to replace it")
        return super().put(spec, data, crc32c)

    def delete(self, key: ObjectKey) -> None:
        raise AccessDenied("the retention policy forbids to delete it")


def damaged(store: type[DatedBackend]) -> tuple[ReconcileHarness, ObjectKey]:
    """At the second destination, by bytes that no list shows."""
    harness = ReconcileHarness()
    harness.stores[1] = store("two", harness.clock)
    enter(harness.ledger, asset(), AssetState.DAMAGED, "because")
    return harness, archive_at(harness.stores, asset())


def media_read(harness: ReconcileHarness) -> list[int]:
    """By the next reconcile, an hour later: reads of media at each destination."""
    harness.clock.advance(HOUR)
    counts = []
    for store in harness.stores:
        assert isinstance(store, DatedBackend)
        store.reads.clear()
    harness.reconcile()
    for store in harness.stores:
        assert isinstance(store, DatedBackend)
        counts.append(sum(key.startswith("recordings/") for key in store.reads))
    return counts


def row(harness: ReconcileHarness) -> Row:
    found = harness.ledger.get(asset().id)
    assert found is not None
    return found


def test_what_a_write_once_store_does_not_let_us_mark_is_read_once_a_day_and_known_when_it_is_whole() -> None:
    harness, key = damaged(WriteOnce)
    restore = flip_a_bit(harness.two, key)

    reads = [media_read(harness) for _ in range(25)]

    assert reads[0][0]
    assert reads[0][1] > reads[0][0], "what is not right is read twice"
    assert reads[1:24] == [[0, 0]] * 23
    assert reads[24] == reads[0]
    assert harness.state(asset()) is AssetState.DAMAGED

    restore()
    harness.clock.advance(AGAIN_AFTER)
    assert media_read(harness)[1]
    assert harness.state(asset()) is AssetState.ARCHIVED


def test_who_has_restored_it_and_verifies_it_waits_for_nothing() -> None:
    harness, key = damaged(WriteOnce)
    restore = flip_a_bit(harness.two, key)
    media_read(harness)
    restore()

    assert harness.reconciler().restored([key]) == 1
    assert harness.state(asset()) is AssetState.ARCHIVED


def test_a_whole_copy_beside_one_that_is_marked_is_not_read() -> None:
    harness, key = damaged(DatedBackend)
    mark_damaged(harness.two, key, ["it differs"])

    assert media_read(harness) == [0, 0]


def test_what_is_whole_beside_a_record_of_its_damage_that_must_not_be_deleted_is_read_once_a_day() -> None:
    """The ledger was rolled back to before it was found damaged, and it was restored since."""
    harness, _key = damaged(WriteOnce)
    harness.ledger.record_archived(as_known(row(harness)), Settlement(AssetState.ARCHIVED))
    harness.clock.advance(HOUR)
    end_records.write(
        [harness.two], as_known(row(harness)), AssetState.DAMAGED, "it differs", harness.clock()
    )

    reads = [media_read(harness) for _ in range(25)]

    assert reads[0][1]
    assert reads[1:24] == [[0, 0]] * 23
    assert reads[24] == reads[0]
    assert harness.state(asset()) is AssetState.ARCHIVED


def test_what_an_attempt_would_take_for_whole_is_damaged_though_100ms_has_it() -> None:
    """The same, and it was not restored; its manifest cannot be marked."""
    harness, key = damaged(WriteOnce)
    harness.ledger.record_archived(as_known(row(harness)), Settlement(AssetState.ARCHIVED))
    flip_a_bit(harness.two, key)
    harness.clock.advance(HOUR)
    end_records.write(
        [harness.two], as_known(row(harness)), AssetState.DAMAGED, "it differs", harness.clock()
    )

    media_read(harness)

    assert harness.state(asset()) is AssetState.DAMAGED


@pytest.mark.parametrize("changed", [True, False])
def test_what_was_recorded_since_is_read_again(changed: bool) -> None:
    harness, key = damaged(WriteOnce)
    flip_a_bit(harness.two, key)
    media_read(harness)
    harness.clock.advance(HOUR)
    if changed:
        harness.ledger.reopen(asset().id)

    reads = FullReads(harness.ledger, harness.clock())

    assert reads.knows(row(harness)) is not changed


def test_what_is_remembered_is_bounded_and_another_form_or_a_clock_set_back_reads_again() -> None:
    harness, _key = damaged(WriteOnce)
    harness.ledger.remember(FACT, {"assets": {asset().id: 7, "another": "no time"}})
    now = harness.clock()
    reads = FullReads(harness.ledger, now)
    assert not reads.knows(row(harness))
    reads.note(asset().id)
    assert FullReads(harness.ledger, now).knows(row(harness)) is False, "it is not saved yet"
    reads.save()
    assert FullReads(harness.ledger, now).knows(row(harness))
    assert not FullReads(harness.ledger, now - HOUR).knows(row(harness))
    for number in range(REMEMBERED):
        reads.note(f"asset-{number}")
    reads.save()
    assert not FullReads(harness.ledger, now).knows(row(harness))
    fact = harness.ledger.recall(FACT)
    assert fact is not None
    assert len(fact["assets"]) == REMEMBERED  # type: ignore[arg-type]

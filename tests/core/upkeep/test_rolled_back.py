"""A ledger that was rolled back (restored from an older snapshot) believes what the destinations know since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from archiver.core.judging import as_known
from archiver.core.records import end_records, keys
from archiver.core.records.commit import damaged_settlement, mark_damaged
from archiver.core.records.manifest import read_manifest
from archiver.core.upkeep import review
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.reconcile import ReconcileResult
from archiver.core.upkeep.reports import RECONCILE_FACT
from archiver.core.upkeep.retrying import ASKED_AGAIN, retry
from archiver.ledger.models import AssetState, CopyState
from storage_backends.base import ObjectKey
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, flip_a_bit, put
from tests.core.examples import asset
from tests.core.upkeep.reconcile_harness import DatedBackend, ReconcileHarness

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DOUBTS = ("movie.mp4: it has 100 bytes, the API says 200",)
ONE = asset()


class Harness(ReconcileHarness):
    def begin(self, state: AssetState, doubts: tuple[str, ...] = ()) -> None:
        """An asset in this state, with copies that agree; and a reconcile a while ago."""
        archive_at(self.stores, ONE, doubts=doubts)
        enter(self.ledger, ONE, state, "because")
        self.clock.advance(HOUR)
        self.reconcile()
        assert self.state(ONE) is state
        self.snapshot()
        self.clock.advance(HOUR)

    def reconciled(self) -> ReconcileResult:
        self.clock.advance(HOUR)
        return self.reconcile()

    @property
    def key(self) -> ObjectKey:
        return keys.manifest_key(ONE.id, ONE.created_at)

    def mark(self, *stores: MemoryBackend, why: str = "movie.mp4: it differs") -> None:
        for store in stores or self.stores:
            assert mark_damaged(store, self.key, [why])

    def replace_manifests(self, **update: Any) -> None:
        for store in self.stores:
            manifest = read_manifest(store, self.key)
            assert manifest is not None
            put(store, self.key, manifest.model_copy(update=update).to_bytes())

    def eraser(self) -> Eraser:
        return Eraser(ledger=self.ledger, destinations=self.stores, clock=self.clock)


def marked(harness: Harness) -> None:
    harness.mark()


def marked_at_one(harness: Harness) -> None:
    flip_a_bit(harness.two, harness.key)
    harness.mark(harness.two)


def asked_again(harness: Harness) -> None:
    retry(harness.ledger, harness.stores, ONE.id, by="ann", why="a test", now=harness.clock(), again=True)


def asked_again_of_an_old_one(harness: Harness) -> None:
    harness.mark(why=ASKED_AGAIN)


def found_damaged_where_nothing_can_be_marked(harness: Harness) -> None:
    flip_a_bit(harness.two, harness.key)
    _record_damaged(harness)


def found_damaged_where_nothing_can_be_marked_and_rejected(harness: Harness) -> None:
    flip_a_bit(harness.two, harness.key)
    _record_damaged(harness, AssetState.REJECTED)


def found_damaged_and_restored(harness: Harness) -> None:
    _record_damaged(harness)


def _record_damaged(harness: Harness, state: AssetState = AssetState.DAMAGED) -> None:
    row = harness.ledger.get(ONE.id)
    assert row is not None
    how = damaged_settlement(ONE.id, {"memory://two": ["it differs"]}, stored_bytes=1, stored_objects=1)
    end_records.write(harness.stores, as_known(row), state, how.reason or "", harness.clock())


def stored_again_with_doubts(harness: Harness) -> None:
    for store in harness.stores:
        store.delete(harness.key)
    archive_at(harness.stores, ONE, doubts=DOUBTS)
    harness.replace_manifests(archived_at=harness.clock())


def stored_again_whole(harness: Harness) -> None:
    harness.replace_manifests(fence=10**17, archived_at=harness.clock())


def archived_and_then_damaged(harness: Harness) -> None:
    for store in harness.stores:
        store.delete(harness.key)
    archive_at(harness.stores, ONE)
    manifest = read_manifest(harness.one, harness.key)
    assert manifest is not None
    harness.one.delete(manifest.key_of(manifest.objects[0]))


def archived_and_then_damaged_at_the_only_one(harness: Harness) -> None:
    archived_and_then_damaged(harness)
    harness.two.delete(harness.key)


def accepted(harness: Harness) -> None:
    review.accept(harness.ledger, harness.stores, ONE.id, by="ann", why="it plays", now=harness.clock())


def rejected(harness: Harness) -> None:
    review.reject(harness.ledger, harness.stores, ONE.id, by="ann", why="noise", now=harness.clock())


def rejected_and_retried(harness: Harness) -> None:
    rejected(harness)
    harness.clock.advance(HOUR)
    retry(harness.ledger, harness.stores, ONE.id, by="ann", why="after all", now=harness.clock())


def acknowledged(harness: Harness) -> None:
    review.acknowledge(harness.ledger, harness.stores, ONE.id, by="ann", why="known", now=harness.clock())


def erased(harness: Harness) -> None:
    assert all(each.is_done for each in harness.eraser().erase([ONE.id], ticket="GDPR-1"))


def un_erased_and_archived(harness: Harness) -> None:
    harness.eraser().un_erase(ONE.id, by="ann", why="a mistake")
    archive_at(harness.stores, ONE)
    harness.replace_manifests(archived_at=harness.clock())


def an_old_copy_is_restored_and_the_tombstones_are_deleted(harness: Harness) -> None:
    for store in harness.stores:
        store.delete(keys.tombstone_key(ONE.id))
    archive_at(harness.stores, ONE)


def one_manifest_is_deleted(harness: Harness) -> None:
    harness.two.delete(harness.key)


@dataclass(frozen=True)
class Case:
    """`before`: what the snapshot says. `since`: what the ledger forgets. `days`: between both, 15 days after its
    creation 100ms has deleted the recording. `after`: what a reconcile makes of it."""

    before: AssetState
    since: Callable[[Harness], None]
    after: AssetState
    days: int = 0
    doubts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.before}, {self.since.__name__}, {self.days} days"


A = AssetState
CASES = [
    Case(A.ARCHIVED, marked, A.DISCOVERED),
    Case(A.ARCHIVED, marked_at_one, A.DISCOVERED),
    Case(A.ARCHIVED, marked_at_one, A.DAMAGED, 20),
    Case(A.ARCHIVED, asked_again, A.DISCOVERED),
    Case(A.ARCHIVED, asked_again_of_an_old_one, A.ARCHIVED, 20),  # read in full, and whole
    Case(A.ARCHIVED, found_damaged_where_nothing_can_be_marked, A.DISCOVERED),
    Case(A.ARCHIVED, found_damaged_where_nothing_can_be_marked, A.DAMAGED, 20),
    Case(A.ARCHIVED, found_damaged_where_nothing_can_be_marked_and_rejected, A.DAMAGED, 20),
    Case(A.ARCHIVED, found_damaged_and_restored, A.ARCHIVED, 20),
    Case(A.ARCHIVED, stored_again_with_doubts, A.QUARANTINED),
    Case(A.ARCHIVED, stored_again_with_doubts, A.QUARANTINED, 20),
    Case(A.ARCHIVED, stored_again_whole, A.ARCHIVED),
    Case(A.ARCHIVED, one_manifest_is_deleted, A.DISCOVERED),
    Case(A.ARCHIVED, one_manifest_is_deleted, A.DAMAGED, 20),
    Case(A.ARCHIVED, erased, A.ERASED),
    Case(A.QUARANTINED, archived_and_then_damaged, A.DISCOVERED, 0, DOUBTS),
    Case(A.QUARANTINED, archived_and_then_damaged, A.DAMAGED, 20, DOUBTS),
    Case(A.QUARANTINED, archived_and_then_damaged_at_the_only_one, A.DAMAGED, 20, DOUBTS),
    Case(A.QUARANTINED, accepted, A.ARCHIVED, 0, DOUBTS),
    Case(A.QUARANTINED, rejected, A.REJECTED, 20, DOUBTS),
    Case(A.QUARANTINED, rejected_and_retried, A.QUARANTINED, 0, DOUBTS),
    Case(A.QUARANTINED, acknowledged, A.QUARANTINED, 0, DOUBTS),
    Case(A.WAITING, stored_again_whole, A.ARCHIVED),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_the_destinations_know_since_the_snapshot_counts(case: Case) -> None:
    harness = Harness()
    if case.before is A.WAITING:  # its copies come later
        enter(harness.ledger, ONE, A.WAITING)
        harness.snapshot()
        archive_at(harness.stores, ONE)
    else:
        harness.begin(case.before, case.doubts)
    harness.clock.advance(case.days * DAY)
    case.since(harness)
    harness.roll_back()

    harness.reconciled()
    first = harness.state(ONE)
    again = harness.reconciled()

    assert (first, harness.state(ONE)) == (case.after, case.after)
    assert (again.contradicted, again.reopened, again.entered) == (0, 0, 0), "a second run changes nothing"
    assert harness.ledger.counts().balanced


@pytest.mark.parametrize(
    ("since", "after"),
    [
        (un_erased_and_archived, A.ARCHIVED),
        (an_old_copy_is_restored_and_the_tombstones_are_deleted, A.ERASED),
    ],
)
def test_what_was_un_erased_and_archived_is_not_erased_again(
    since: Callable[[Harness], None], after: AssetState
) -> None:
    harness = Harness()
    harness.begin(A.ARCHIVED)
    erased(harness)
    harness.snapshot()
    harness.clock.advance(HOUR)
    since(harness)
    harness.roll_back()

    harness.reconciled()
    harness.reconciled()  # erases what came back

    assert harness.state(ONE) is after
    assert (read_manifest(harness.two, harness.key) is not None) is (after is A.ARCHIVED)


def test_an_acknowledgement_and_a_history_are_restored() -> None:
    harness = Harness()
    harness.begin(A.QUARANTINED, DOUBTS)
    acknowledged(harness)
    harness.roll_back()

    harness.reconciled()

    row = harness.ledger.get(ONE.id)
    assert row is not None
    assert row.acknowledged is not None
    assert (row.acknowledged.by, [each.what for each in row.history]) == ("ann", ["acknowledged"])


def test_each_copy_is_told_of() -> None:
    harness = Harness()
    harness.begin(A.ARCHIVED)
    harness.clock.advance(20 * DAY)
    marked_at_one(harness)
    harness.roll_back()

    result = harness.reconciled()

    row = harness.ledger.get(ONE.id)
    assert row is not None
    assert row.copies == {"memory://one": CopyState.WHOLE, "memory://two": CopyState.DAMAGED}
    assert "not whole at memory://two: movie.mp4: it differs; whole at memory://one" in (row.reason or "")
    assert (result.contradicted, result.reopened) == (1, 0)


@pytest.mark.parametrize(("damage", "after"), [(None, A.ARCHIVED), (["movie.mp4: it differs"], A.DAMAGED)])
def test_doubts_that_were_there_when_it_was_archived_at_the_quorum_contradict_nothing(
    damage: list[str] | None, after: AssetState
) -> None:
    """Its other manifest was written since: a thumbnail that came late, or a mark."""
    harness = Harness()
    harness.begin(A.ARCHIVED)
    manifest = read_manifest(harness.two, harness.key)
    row = harness.ledger.get(ONE.id)
    assert manifest is not None
    assert row is not None
    put(harness.two, harness.key, manifest.model_copy(update={"doubts": DOUBTS}).to_bytes())
    known = {"memory://one": CopyState.WHOLE, "memory://two": CopyState.DAMAGED}
    harness.ledger.note_copies(row, known)
    harness.clock.advance(20 * DAY)
    put(harness.one, harness.key, manifest.to_bytes())
    if damage is not None:
        flip_a_bit(harness.one, harness.key)
        harness.mark(harness.one)

    harness.reconciled()

    row = harness.ledger.get(ONE.id)
    assert row is not None
    assert row.state is after
    assert row.copies == {**known, "memory://one": CopyState.DAMAGED if damage else CopyState.WHOLE}


def _reads_of_manifests(harness: Harness) -> int:
    reads = 0
    for store in harness.stores:
        assert isinstance(store, DatedBackend)
        reads += store.reads.count(harness.key)
        store.reads.clear()
    return reads


def test_without_a_rollback_no_manifest_of_an_archived_asset_is_read() -> None:
    harness = Harness()
    harness.begin(A.ARCHIVED)
    _reads_of_manifests(harness)

    harness.reconciled()

    assert _reads_of_manifests(harness) == 0


def test_what_was_written_since_is_read_once() -> None:
    """As when somebody copies a bucket, so that every manifest is dated today."""
    harness = Harness()
    harness.begin(A.ARCHIVED)
    stored_again_whole(harness)
    _reads_of_manifests(harness)

    harness.reconciled()
    assert _reads_of_manifests(harness) == 2
    harness.reconciled()
    assert _reads_of_manifests(harness) == 0


def test_a_ledger_of_the_version_before_is_compared_too() -> None:
    harness = Harness()
    harness.begin(A.ARCHIVED)
    fact: Mapping[str, object] = harness.ledger.recall(RECONCILE_FACT) or {}
    harness.ledger.remember(RECONCILE_FACT, {name: fact[name] for name in fact if name != "began"})
    harness.mark()

    harness.reconciled()

    assert harness.state(ONE) is A.DISCOVERED


def test_a_manifest_that_cannot_be_read_is_told_and_changes_nothing() -> None:
    harness = Harness()
    harness.begin(A.ARCHIVED)
    put(harness.two, harness.key, b"{}")

    result = harness.reconciled()

    assert (result.unreadable, harness.state(ONE)) == (1, A.ARCHIVED)

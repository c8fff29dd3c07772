"""Accepting or rejecting an asset that is stored with doubts."""

from __future__ import annotations

import json

import pytest
import structlog

from archiver.core.errors import ReviewRefused
from archiver.core.records import keys
from archiver.core.records.commit import committed, kept
from archiver.core.records.end_records import read_state
from archiver.core.records.manifest import read_manifest
from archiver.core.upkeep.review import accept, reject
from archiver.core.upkeep.watch import reopen_ended
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import SETTLED_STATES, AssetState, Row, Seen, Settlement
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, flip_a_bit
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock

DOUBTS = ("s7.ts: it is missing at the source (404 or 410)",)
ID = asset().id
KEY = keys.manifest_key(ID, asset().created_at)


class Harness:
    """One asset that is kept with doubts at two destinations."""

    def __init__(self, state: AssetState = AssetState.QUARANTINED) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]
        archive_at(self.stores, asset(), doubts=DOUBTS)
        enter(self.ledger, asset(), state, "because")

    def accept(self, why: str = "looked at it") -> Row:
        return accept(self.ledger, self.stores, ID, by="ann", why=why, now=NOW)

    def reject(self) -> Row:
        return reject(self.ledger, self.stores, ID, by="ann", why="an empty room", now=NOW)


def test_an_accepted_asset_is_archived_and_its_manifest_names_who_when_and_why() -> None:
    harness = Harness()

    row = harness.accept()

    assert row.state is AssetState.ARCHIVED
    assert row.warnings == ("accepted by ann: looked at it",)
    for store in harness.stores:
        manifest = committed(store, KEY)
        assert manifest
        assert manifest.accepted == {
            "by": "ann",
            "at": NOW.isoformat(),
            "why": "looked at it",
            "doubts": list(DOUBTS),
        }


def test_accepting_twice_changes_nothing_more() -> None:
    harness = Harness()
    harness.accept()
    before = harness.stores[0].read(KEY, 0, 99_999)

    row = harness.accept("another reason")

    assert row.state is AssetState.ARCHIVED
    assert harness.stores[0].read(KEY, 0, 99_999) == before


def test_accepting_resumes_where_it_stopped() -> None:
    harness = Harness()
    accept(MemoryLedgerWith(harness), harness.stores[:1], ID, by="ann", why="x", now=NOW)
    assert kept(harness.stores[1], KEY)

    assert harness.accept().state is AssetState.ARCHIVED
    assert all(committed(store, KEY) for store in harness.stores)


def MemoryLedgerWith(harness: Harness) -> MemoryLedger:  # noqa: N802
    """Another ledger with the same asset: the first one never heard of what was done."""
    ledger = MemoryLedger(harness.clock)
    enter(ledger, asset(), AssetState.QUARANTINED)
    return ledger


def test_an_asset_that_is_not_whole_cannot_be_accepted() -> None:
    harness = Harness()
    manifest = read_manifest(harness.stores[1], KEY)
    assert manifest
    harness.stores[1].delete(manifest.key_of(manifest.objects[0]))

    with pytest.raises(ReviewRefused, match="memory://two"):
        harness.accept()

    assert kept(harness.stores[0], KEY), "and nothing was changed at the other destination"


@pytest.mark.parametrize("doubted", [False, True])
def test_a_damaged_asset_is_accepted_only_when_every_byte_is_right(doubted: bool) -> None:
    """Its manifest could not be marked (a retention policy), and by its sizes it is whole."""
    harness = Harness(AssetState.DAMAGED)
    if not doubted:
        harness.stores = [MemoryBackend("three"), MemoryBackend("four")]
        archive_at(harness.stores, asset())
    repair = flip_a_bit(harness.stores[1], KEY)

    with pytest.raises(ReviewRefused, match=harness.stores[1].name):
        harness.accept()
    row = harness.ledger.get(ID)
    assert row is not None
    assert row.state is AssetState.DAMAGED

    repair()
    assert harness.accept().state is AssetState.ARCHIVED


@pytest.mark.parametrize("say", [Harness.accept, Harness.reject])
def test_an_asset_that_a_worker_copies_is_left_to_it(say) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ReviewRefused, match="a worker is copying it"):
        say(Harness(AssetState.RUNNING))


@pytest.mark.parametrize("say", [accept, reject])
def test_an_unknown_asset_is_named(say) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ReviewRefused, match="nobody is not in the ledger"):
        say(MemoryLedger(Clock(NOW)), [MemoryBackend("one")], "nobody", by="ann", why="", now=NOW)


@pytest.mark.parametrize(
    "state",
    [AssetState.QUARANTINED, AssetState.WAITING, AssetState.DAMAGED, AssetState.LOST, AssetState.DISCOVERED],
)
def test_a_rejected_asset_is_no_problem_and_its_objects_stay(state: AssetState) -> None:
    harness = Harness(state)

    row = harness.reject()

    assert row.state is AssetState.REJECTED
    assert row.state in SETTLED_STATES
    assert (row.reason or "").startswith("rejected by ann: an empty room")
    assert all(kept(store, KEY) for store in harness.stores)
    end = keys.end_record_key(ID, asset().created_at)
    assert {read_state(store, end) for store in harness.stores} == {"rejected"}
    assert reopen_ended(harness.ledger, NOW + RETENTION / 2) == 0
    assert harness.ledger.take_due(10, RETENTION, ahead=RETENTION) == []


def test_an_archived_asset_cannot_be_rejected() -> None:
    with pytest.raises(ReviewRefused, match="nothing to reject"):
        Harness(AssetState.ARCHIVED).reject()


def test_an_asset_that_a_worker_takes_in_between_is_not_rejected() -> None:
    class TakenInBetween(MemoryLedger):
        def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
            self.reopen(seen.asset_id)
            assert self.lease(seen.asset_id, "worker", RETENTION)
            return super().record_archived(seen, settlement)

    harness = Harness()
    ledger = TakenInBetween(harness.clock)
    enter(ledger, asset(), AssetState.QUARANTINED)

    with pytest.raises(ReviewRefused, match="a worker is copying it"):
        reject(ledger, harness.stores, ID, by="ann", why="", now=NOW)

    end = keys.end_record_key(ID, asset().created_at)
    assert [read_state(store, end) for store in harness.stores] == [None, None]


def test_no_signature_that_a_rejection_quotes_is_kept_or_logged() -> None:
    harness = Harness()

    with structlog.testing.capture_logs() as logs:
        row = reject(
            harness.ledger,
            harness.stores,
            ID,
            by="https://user.example/?token=abcdef",
            why="see https://cdn.example/x.mp4?X-Amz-Signature=abcdef",
            now=NOW,
        )

    assert "abcdef" not in f"{row.reason} {logs}"


def test_no_signature_that_a_reason_quotes_is_kept() -> None:
    harness = Harness()

    harness.accept(why="compared with https://cdn.example/x.mp4?X-Amz-Signature=abcdef")

    for store in harness.stores:
        assert b"abcdef" not in store.read(KEY, 0, 99_999)
    assert "abcdef" not in json.dumps(harness.accept().warnings)

"""The contract of `ledger.base.Ledger`. To test a ledger, subclass `LedgerContract` with a fixture `harness`; override
nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from archiver.ledger.base import Ledger
from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import (
    ACKNOWLEDGED_STATES,
    EVENT_STATES,
    JUDGED_STATES,
    MAX_DECISIONS,
    MAX_EVENTS,
    MAX_SIZES,
    MAX_WAIT,
    OPEN_STATES,
    REMOVED_STATES,
    UNKNOWN_TYPE,
    Acknowledgement,
    Amount,
    AssetState,
    AttemptStart,
    CopyState,
    Decision,
    Lease,
    OpenUpload,
    OutboxSize,
    Progress,
    Row,
    Seen,
    Settlement,
    StoredObject,
)

START = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
AT_ONCE = timedelta(0)

NEVER_STARTED = (AssetState.DISCOVERED, *sorted(JUDGED_STATES))
ENDS = sorted(set(AssetState) - OPEN_STATES)


class LedgerHarness(Protocol):
    """A ledger, its clock, and what can happen to it."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def now(self) -> datetime: ...

    def advance(self, duration: timedelta) -> None:
        """Let time pass for everything that has a lifetime."""
        ...

    def flush(self) -> None:
        """Lose everything (FLUSHALL)."""
        ...


def seen(
    asset_id: str = "a",
    *,
    expires_in: timedelta = 15 * DAY,
    verdict: AssetState = AssetState.DISCOVERED,
    size_bytes: int | None = 1000,
    reason: str | None = None,
) -> Seen:
    return Seen(
        asset_id=asset_id,
        type="room-composite",
        expires_at=START + expires_in,
        verdict=verdict,
        created_at=START - DAY,
        room_id="6501aa",
        session_id="6502bb",
        size_bytes=size_bytes,
        reason=reason,
    )


ARCHIVED = Settlement(
    AssetState.ARCHIVED,
    stored_bytes=5_000_000_000,
    stored_objects=4,
    seconds=12.75,
    warnings=("thumbnail 2: 403", "a second one"),
)


def waiting(delay: timedelta, reason: str = "the source answered 503") -> Settlement:
    return Settlement(AssetState.WAITING, reason=reason, delay=delay)


UPLOAD = OpenUpload("token", 50 * 2**30, 64 * 2**20, None)


def put(harness: LedgerHarness, state: AssetState, asset_id: str = "a") -> Lease | None:
    """Bring an unknown asset to `state` by the shortest way; its lease while RUNNING."""
    ledger = harness.ledger
    if state in NEVER_STARTED:
        ledger.discover([seen(asset_id, verdict=state, reason=None if state == NEVER_STARTED[0] else "why")])
        return None

    ledger.discover([seen(asset_id)])
    if state == AssetState.QUEUED:
        ledger.take_due(1_000, HOUR)
        return None

    lease = take_lease(harness, asset_id)
    if state == AssetState.WAITING:
        ledger.settle(lease, seen(asset_id), waiting(HOUR))
    elif state != AssetState.RUNNING:
        ledger.settle(lease, seen(asset_id), replace(ARCHIVED, state=state, reason="why"))
    return lease if state == AssetState.RUNNING else None


def take_lease(
    harness: LedgerHarness, asset_id: str = "a", holder: str = "w1", duration: timedelta = MINUTE
) -> Lease:
    lease = harness.ledger.lease(asset_id, holder, duration)
    assert lease is not None
    return lease


def crash(harness: LedgerHarness, asset_id: str = "a") -> Lease:
    """The holder dies; the lease of who comes next."""
    harness.advance(HOUR)
    harness.ledger.take_due(10, HOUR)
    return take_lease(harness, asset_id)


def attempt(harness: LedgerHarness, settlement: Settlement) -> Row:
    """One attempt at asset a that ends so."""
    harness.ledger.discover([seen()])
    return harness.ledger.settle(take_lease(harness), seen(), settlement)


def row(harness: LedgerHarness, asset_id: str = "a") -> Row:
    found = harness.ledger.get(asset_id)
    assert found is not None
    return found


def ids(rows: list[Row]) -> list[str]:
    return [row.asset_id for row in rows]


def check_balance(harness: LedgerHarness) -> None:
    counts = harness.ledger.counts()

    assert counts.balanced
    listed = [row.state for row in harness.ledger.rows()]
    assert dict(counts.states) == {state: listed.count(state) for state in AssetState}


class LedgerContract:
    @pytest.fixture
    def harness(self) -> LedgerHarness:
        raise NotImplementedError("the subclass gives the ledger")

    # -- what exists ---------------------------------------------------------------------------------------

    def test_an_unknown_asset_is_not_there(self, harness: LedgerHarness) -> None:
        assert harness.ledger.get("a") is None
        assert list(harness.ledger.rows()) == []
        assert harness.ledger.counts().seen == 0
        assert harness.ledger.counts().states == dict.fromkeys(AssetState, 0)

    @pytest.mark.parametrize("verdict", NEVER_STARTED)
    def test_a_new_asset_enters_with_its_verdict_and_every_fact(
        self, harness: LedgerHarness, verdict: AssetState
    ) -> None:
        harness.ledger.discover([seen(verdict=verdict, reason="a filter")])

        assert row(harness) == Row(
            asset_id="a",
            type="room-composite",
            state=verdict,
            expires_at=START + 15 * DAY,
            first_seen_at=harness.now,
            changed_at=harness.now,
            created_at=START - DAY,
            room_id="6501aa",
            session_id="6502bb",
            size_bytes=1000,
            reason="a filter",
        )

    def test_facts_that_the_api_does_not_give_stay_unknown(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([Seen("a", "chat", START, AssetState.DISCOVERED)])

        assert row(harness) == Row("a", "chat", AssetState.DISCOVERED, START, harness.now, harness.now)

    def test_a_size_of_nought_is_a_fact(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(size_bytes=0)])

        assert row(harness).size_bytes == 0

    def test_a_page_counts_only_what_is_new(self, harness: LedgerHarness) -> None:
        page = [seen(f"a{n}") for n in range(100)]

        first, again, more = (
            harness.ledger.discover(page),
            harness.ledger.discover(page),
            harness.ledger.discover([*page, seen("b"), seen("b")]),
        )

        assert (first, again, more) == (100, 0, 1)
        assert harness.ledger.counts().seen == 101
        check_balance(harness)

    def test_an_empty_page_is_nothing(self, harness: LedgerHarness) -> None:
        assert harness.ledger.discover([]) == 0

    @pytest.mark.parametrize("asset_id", ["a:b/../c", "ä ☃ \n", '["x","y"]', "a|b", "0", "x" * 500])
    def test_an_id_may_be_any_text(self, harness: LedgerHarness, asset_id: str) -> None:
        harness.ledger.discover([seen(asset_id), seen("other")])
        lease = take_lease(harness, asset_id)
        harness.ledger.add_stored(lease, "s3://b", "v1", [StoredObject("x", 1, 2)])

        assert row(harness, asset_id).state == AssetState.RUNNING
        assert harness.ledger.stored_objects(asset_id, "s3://b", "v1") == {"x": StoredObject("x", 1, 2)}
        assert harness.ledger.settle(lease, seen(asset_id), ARCHIVED).asset_id == asset_id
        assert {row.asset_id for row in harness.ledger.rows()} == {asset_id, "other"}

    @pytest.mark.parametrize("state", AssetState)
    def test_a_known_asset_gets_new_facts_in_any_state(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)
        before = row(harness)

        harness.ledger.discover([replace(seen(expires_in=3 * DAY, size_bytes=7), verdict=before.state)])

        assert (row(harness).expires_at, row(harness).size_bytes) == (START + 3 * DAY, 7)
        assert row(harness).state == state
        assert ids(list(harness.ledger.rows(expiring_before=START + 4 * DAY))) == ["a"]

    def test_a_missing_size_keeps_the_known_one(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(size_bytes=7)])

        harness.ledger.discover([seen(size_bytes=None)])

        assert row(harness).size_bytes == 7

    @pytest.mark.parametrize("state", AssetState)
    @pytest.mark.parametrize("verdict", NEVER_STARTED)
    def test_a_known_asset_is_judged_again(
        self, harness: LedgerHarness, state: AssetState, verdict: AssetState
    ) -> None:
        put(harness, state)
        moves = (
            state in JUDGED_STATES
            if verdict in (AssetState.DISCOVERED, AssetState.SOURCE_FAILED)
            else state in JUDGED_STATES or state in OPEN_STATES - {AssetState.RUNNING}
        )

        harness.advance(MINUTE / 2)
        new = harness.ledger.discover([seen(verdict=verdict, reason="judged again")])

        assert new == 0
        assert row(harness).state == (verdict if moves else state)
        if moves:
            assert row(harness).reason == (None if verdict == AssetState.DISCOVERED else "judged again")
        assert (row(harness).changed_at == harness.now) == (moves and verdict != state)
        check_balance(harness)

    @pytest.mark.parametrize("state", [AssetState.DISCOVERED, AssetState.QUEUED, AssetState.WAITING])
    def test_what_was_there_to_be_saved_is_tried_on_when_the_api_says_that_it_failed(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)
        before = row(harness)

        for _ in range(2):
            harness.ledger.discover([seen(verdict=AssetState.SOURCE_FAILED, reason="failed")])

        assert row(harness) == before
        harness.advance(2 * HOUR)
        assert ids(harness.ledger.take_due(10, HOUR)) == ["a"]

    def test_another_size_reopens_what_is_archived_once_for_each_size(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.ARCHIVED)
        looks = []

        for size in (1000, 7, 7, 1000, 7, None, 8, 1000, 8):
            harness.ledger.discover([seen(size_bytes=size)])
            if row(harness).state == AssetState.DISCOVERED:
                looks.append(size)
                reopened = row(harness)
                assert (reopened.stored_bytes, reopened.stored_objects) == (5_000_000_000, 4)
                harness.ledger.settle(take_lease(harness), seen(size_bytes=size), ARCHIVED)

        assert looks == [7, 8]
        assert row(harness).size_bytes == 8

    def test_a_size_that_never_stays_the_same_says_nothing_any_more(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.ARCHIVED)
        looks = 0

        for size in range(2000, 2050):
            harness.ledger.discover([seen(size_bytes=size)])
            if row(harness).state == AssetState.DISCOVERED:
                looks += 1
                harness.ledger.settle(take_lease(harness), seen(size_bytes=size), ARCHIVED)

        assert looks == MAX_SIZES - 1

    def test_a_first_known_size_is_not_a_changed_size(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(size_bytes=None)])
        harness.ledger.settle(take_lease(harness), seen(size_bytes=None), ARCHIVED)

        harness.ledger.discover([seen(size_bytes=7)])

        assert row(harness).state == AssetState.ARCHIVED

    def test_a_size_that_changed_while_it_was_copied_asks_for_a_look(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.discover([seen(size_bytes=7)])
        harness.ledger.settle(lease, seen(size_bytes=1000), ARCHIVED)

        harness.ledger.discover([seen(size_bytes=7)])

        assert row(harness).state == AssetState.DISCOVERED

    @pytest.mark.parametrize("verdict", JUDGED_STATES)
    def test_what_is_archived_stays_so_whatever_else_is_said_of_it(
        self, harness: LedgerHarness, verdict: AssetState
    ) -> None:
        put(harness, AssetState.ARCHIVED)

        harness.ledger.discover([seen(verdict=verdict, size_bytes=7)])

        assert row(harness).state == AssetState.ARCHIVED

    def test_a_judged_asset_that_is_reopened_is_due(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.SKIPPED)

        harness.ledger.discover([seen()])

        assert ids(harness.ledger.take_due(10, HOUR)) == ["a"]

    def test_what_is_judged_away_is_no_longer_due(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.WAITING)
        harness.advance(2 * HOUR)
        put(harness, AssetState.DISCOVERED, "b")

        harness.ledger.discover(
            [seen("a", verdict=AssetState.SKIPPED), seen("b", verdict=AssetState.EXTERNAL)]
        )

        assert harness.ledger.take_due(10, HOUR) == []
        assert harness.ledger.next_due_at() is None

    def test_a_manifest_enters_an_unknown_asset_archived(self, harness: LedgerHarness) -> None:
        changed = harness.ledger.record_archived(seen(), ARCHIVED)

        assert changed
        assert row(harness).state == AssetState.ARCHIVED
        assert (row(harness).stored_bytes, row(harness).stored_objects) == (5_000_000_000, 4)
        assert row(harness).warnings == ARCHIVED.warnings
        check_balance(harness)

    @pytest.mark.parametrize("state", AssetState)
    def test_a_manifest_archives_whatever_does_not_run(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)
        stays = state in REMOVED_STATES | {AssetState.RUNNING}
        moves = not stays and state is not AssetState.ARCHIVED

        first, again = (harness.ledger.record_archived(seen(), ARCHIVED) for _ in range(2))

        assert (first, again) == (moves, False)
        assert row(harness).state == (state if stays else AssetState.ARCHIVED)
        check_balance(harness)

    def test_what_was_archived_can_turn_out_damaged_and_its_reason_is_the_latest(
        self, harness: LedgerHarness
    ) -> None:
        put(harness, AssetState.ARCHIVED)

        first, again = (
            harness.ledger.record_archived(seen(), Settlement(AssetState.DAMAGED, reason=reason))
            for reason in ("a copy", "both copies")
        )

        assert (first, again) == (True, False)
        assert (row(harness).state, row(harness).reason) == (AssetState.DAMAGED, "both copies")
        assert ids(list(harness.ledger.rows([AssetState.DAMAGED]))) == ["a"]
        assert harness.ledger.warned(10) == []
        check_balance(harness)

    def test_rows_come_by_state_and_deadline(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen("late", expires_in=9 * DAY), seen("soon", expires_in=DAY)])
        harness.ledger.discover([seen("skipped", verdict=AssetState.SKIPPED, expires_in=HOUR)])

        assert ids(list(harness.ledger.rows())) == ["soon", "late", "skipped"]
        assert ids(list(harness.ledger.rows([AssetState.SKIPPED, AssetState.DISCOVERED]))) == [
            "skipped",
            "soon",
            "late",
        ]
        assert ids(list(harness.ledger.rows([AssetState.DISCOVERED], limit=1))) == ["soon"]
        assert ids(list(harness.ledger.rows(limit=0))) == []
        assert ids(list(harness.ledger.rows(expiring_before=START + DAY))) == ["skipped"]

    def test_rows_come_in_batches_whole_although_all_have_one_deadline(self, harness: LedgerHarness) -> None:
        all_ids = [f"a{n:05}" for n in range(1_234)]
        harness.ledger.discover([seen(asset_id) for asset_id in all_ids])

        assert ids(list(harness.ledger.rows())) == all_ids
        assert ids(list(harness.ledger.rows(limit=777))) == all_ids[:777]

    def test_rows_that_are_moved_while_they_are_read_hide_no_others(self, harness: LedgerHarness) -> None:
        all_ids = [f"a{n:05}" for n in range(1_234)]
        harness.ledger.discover([seen(asset_id, verdict=AssetState.SKIPPED) for asset_id in all_ids])

        read = []
        for found in harness.ledger.rows([AssetState.SKIPPED]):
            read.append(found.asset_id)
            harness.ledger.reopen(found.asset_id)

        assert read == all_ids

    def test_rows_whose_deadline_moves_while_they_are_read_come_once(self, harness: LedgerHarness) -> None:
        all_ids = [f"a{n:05}" for n in range(1_100)]
        harness.ledger.discover([seen(asset_id) for asset_id in all_ids])

        read = []
        for found in harness.ledger.rows([AssetState.DISCOVERED]):
            read.append(found.asset_id)
            sooner = replace(seen(found.asset_id), expires_at=found.expires_at - DAY)
            harness.ledger.discover([sooner])

        assert read == all_ids

    # -- what is due ---------------------------------------------------------------------------------------

    def test_the_most_urgent_are_taken_first(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(f"a{n}", expires_in=(7 - n) * DAY) for n in range(5)])

        taken = harness.ledger.take_due(3, HOUR)

        assert ids(taken) == ["a4", "a3", "a2"]
        assert {row.state for row in taken} == {AssetState.QUEUED}
        assert harness.ledger.counts().states[AssetState.QUEUED] == 3

    def test_no_more_than_the_window_is_queued_in_all(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(f"a{n}") for n in range(5)])

        assert len(harness.ledger.take_due(3, HOUR)) == 3
        assert harness.ledger.take_due(3, HOUR) == []
        assert len(harness.ledger.take_due(4, HOUR)) == 1
        assert harness.ledger.take_due(0, HOUR) == []

        take_lease(harness, "a0")

        assert len(harness.ledger.take_due(4, HOUR)) == 1

    def test_a_window_wider_than_a_batch_is_filled(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(f"a{n:05}") for n in range(1_300)])

        taken = harness.ledger.take_due(1_200, HOUR)

        assert ids(taken) == [f"a{n:05}" for n in range(1_200)]

    def test_a_wait_is_due_when_it_is_over(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.WAITING)
        assert row(harness).next_attempt_at == harness.now + HOUR

        harness.advance(HOUR - timedelta(microseconds=1))
        assert harness.ledger.take_due(10, HOUR) == []
        harness.advance(timedelta(microseconds=1))
        assert ids(harness.ledger.take_due(10, HOUR)) == ["a"]
        assert row(harness).next_attempt_at is None

    def test_a_wait_that_is_over_soon_may_be_taken_before_it_is(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.WAITING)

        assert harness.ledger.take_due(10, HOUR, ahead=HOUR - timedelta(microseconds=1)) == []
        assert harness.ledger.take_due(10, HOUR, ahead=-HOUR) == []
        assert ids(harness.ledger.take_due(10, HOUR, ahead=HOUR)) == ["a"]

    def test_waits_that_are_over_queue_by_deadline_with_the_others(self, harness: LedgerHarness) -> None:
        for asset_id, days in (("w-late", 9), ("w-soon", 1), ("w-middle", 5)):
            harness.ledger.discover([seen(asset_id, expires_in=days * DAY)])
            harness.ledger.settle(take_lease(harness, asset_id), seen(asset_id), waiting(HOUR))
        harness.ledger.discover([seen("d-late", expires_in=8 * DAY), seen("d-soon", expires_in=2 * DAY)])

        harness.advance(2 * HOUR)

        assert ids(harness.ledger.take_due(2, 3 * HOUR)) == ["w-soon", "d-soon"]
        assert ids(harness.ledger.take_due(4, 3 * HOUR)) == ["w-middle", "d-late"]
        assert ids(harness.ledger.take_due(9, 3 * HOUR)) == ["w-late"]

    def test_a_wait_without_a_time_is_due_at_once(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)

        harness.ledger.settle(take_lease(harness), seen(), Settlement(AssetState.WAITING))

        assert harness.ledger.next_due_at() == harness.now
        assert ids(harness.ledger.take_due(10, HOUR)) == ["a"]

    def test_a_queued_asset_whose_message_was_lost_is_due_again(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.QUEUED)

        harness.advance(10 * MINUTE)
        assert harness.ledger.take_due(1, 10 * MINUTE) == []

        harness.advance(SECOND)
        assert ids(harness.ledger.take_due(1, 10 * MINUTE)) == ["a"]
        assert harness.ledger.take_due(1, 10 * MINUTE) == []

    def test_what_is_queued_for_too_long_has_no_precedence_over_what_is_more_urgent(
        self, harness: LedgerHarness
    ) -> None:
        harness.ledger.discover([seen(f"queued{n}", expires_in=(5 + n) * DAY) for n in (2, 0, 1)])
        harness.ledger.take_due(10, HOUR)
        harness.advance(SECOND)
        harness.ledger.discover([seen("urgent", expires_in=HOUR), seen("middle", expires_in=5 * DAY + HOUR)])
        order = []
        for _ in range(5):
            order += ids(harness.ledger.take_due(100, timedelta(0), at_most=1))
            take_lease(harness, order[-1])

        assert order == ["urgent", "queued0", "middle", "queued1", "queued2"]

    def test_at_most_so_many_are_taken_the_most_urgent_of_all(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(f"a{n}", expires_in=(7 - n) * DAY) for n in range(5)])

        assert ids(harness.ledger.take_due(10, HOUR, at_most=2)) == ["a4", "a3"]
        assert ids(harness.ledger.take_due(3, HOUR, at_most=2)) == ["a2"]
        assert harness.ledger.take_due(10, HOUR, at_most=0) == []

    def test_an_asset_whose_worker_died_is_due_again(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.RUNNING)

        harness.advance(MINUTE - SECOND)
        assert harness.ledger.take_due(10, HOUR) == []

        harness.advance(SECOND)
        assert ids(harness.ledger.take_due(10, HOUR)) == ["a"]
        assert row(harness).attempts == 1

    @pytest.mark.parametrize("state", ENDS)
    def test_an_end_is_never_due(self, harness: LedgerHarness, state: AssetState) -> None:
        put(harness, state)

        harness.advance(20 * DAY)

        assert harness.ledger.take_due(10, HOUR) == []

    def test_a_due_asset_whose_deadline_changed_keeps_its_order(self, harness: LedgerHarness) -> None:
        for asset_id in ("a", "b", "c"):
            harness.ledger.discover([seen(asset_id, expires_in=3 * DAY)])
            harness.ledger.settle(take_lease(harness, asset_id), seen(asset_id), waiting(AT_ONCE))
        assert ids(harness.ledger.take_due(1, HOUR)) == ["a"]

        harness.ledger.discover([seen("b", expires_in=9 * DAY)])

        assert ids(harness.ledger.take_due(2, HOUR)) == ["c"]

    def test_the_latest_deadline_is_that_of_any_asset_in_whatever_state(self, harness: LedgerHarness) -> None:
        assert harness.ledger.latest_deadline() is None
        for number, state in enumerate((AssetState.ARCHIVED, AssetState.LOST, AssetState.DISCOVERED)):
            put(harness, state, f"asset-{number}")
        late = seen("late", expires_in=90 * DAY, verdict=AssetState.SKIPPED)
        harness.ledger.discover([late, seen("undated", expires_in=datetime(1970, 1, 1, tzinfo=UTC) - START)])

        assert harness.ledger.latest_deadline() == START + 90 * DAY

    def test_the_next_wait_to_end_is_known_until_it_is_queued(self, harness: LedgerHarness) -> None:
        assert harness.ledger.next_due_at() is None
        for asset_id, hours in (("a", 2), ("b", 1), ("c", 3)):
            put(harness, AssetState.DISCOVERED, asset_id)
            harness.ledger.settle(take_lease(harness, asset_id), seen(asset_id), waiting(hours * HOUR))

        assert harness.ledger.next_due_at() == START + HOUR
        harness.advance(2 * HOUR)
        harness.ledger.take_due(0, HOUR)
        assert harness.ledger.next_due_at() == START + HOUR
        harness.ledger.take_due(2, HOUR)
        assert harness.ledger.next_due_at() == START + 3 * HOUR

    def test_it_is_known_since_when_an_asset_is_queued(self, harness: LedgerHarness) -> None:
        assert harness.ledger.queued_since() is None
        harness.ledger.discover([seen("a"), seen("b", expires_in=DAY)])
        harness.ledger.take_due(1, HOUR)
        harness.advance(MINUTE)
        harness.ledger.take_due(2, HOUR)

        assert harness.ledger.queued_since() == START
        take_lease(harness, "b")
        assert harness.ledger.queued_since() == START + MINUTE

    def test_a_wait_can_be_ended(self, harness: LedgerHarness) -> None:
        for asset_id in ("a", "b"):
            put(harness, AssetState.DISCOVERED, asset_id)
            harness.ledger.settle(take_lease(harness, asset_id), seen(asset_id), waiting(3 * HOUR))
        harness.advance(MINUTE)

        assert harness.ledger.make_due(["b", "nobody", "b"], unless_within=MINUTE) == ["nobody"]

        assert harness.ledger.next_due_at() == harness.now
        assert ids(harness.ledger.take_due(2, HOUR)) == ["b"]
        row = harness.ledger.get("b")
        assert row is not None
        assert row.attempts == 1

    def test_a_wait_that_began_just_now_is_not_ended(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)
        harness.ledger.settle(take_lease(harness), seen(), waiting(3 * HOUR))
        harness.advance(MINUTE / 2)

        assert harness.ledger.make_due([seen().asset_id], unless_within=MINUTE) == []
        assert harness.ledger.take_due(2, HOUR) == []

    def test_a_wait_that_was_promoted_before_its_end_can_be_ended(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)
        harness.ledger.settle(take_lease(harness), seen(), waiting(3 * HOUR))
        harness.advance(MINUTE)
        harness.ledger.take_due(0, HOUR, ahead=4 * HOUR)

        harness.ledger.make_due([seen().asset_id], unless_within=MINUTE)

        assert harness.ledger.next_due_at() == harness.now
        assert len(harness.ledger.take_due(1, HOUR)) == 1

    @pytest.mark.parametrize("state", set(AssetState) - {AssetState.WAITING})
    def test_only_a_wait_can_be_ended(self, harness: LedgerHarness, state: AssetState) -> None:
        put(harness, state)
        before = harness.ledger.get(seen().asset_id)
        harness.advance(HOUR)

        assert harness.ledger.make_due([seen().asset_id], unless_within=MINUTE) == []
        assert harness.ledger.get(seen().asset_id) == before

    @pytest.mark.parametrize("state", AssetState)
    def test_an_operator_reopens_whatever_is_not_under_way(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)

        reopened = harness.ledger.reopen("a")

        assert reopened == row(harness)
        if state == AssetState.RUNNING:
            assert (row(harness).state, row(harness).attempts) == (AssetState.RUNNING, 1)
        elif state in REMOVED_STATES:
            assert row(harness).state == state
        else:
            assert row(harness) == Row(
                "a",
                "room-composite",
                AssetState.DISCOVERED,
                START + 15 * DAY,
                harness.now,
                harness.now,
                START - DAY,
                "6501aa",
                "6502bb",
                1000,
            )
            assert harness.ledger.reopen("a") == reopened
            assert ids(harness.ledger.take_due(10, HOUR)) == ["a"]
        check_balance(harness)

    @pytest.mark.parametrize("state", AssetState)
    @pytest.mark.parametrize("removed", sorted(REMOVED_STATES))
    def test_an_asset_in_any_state_can_be_removed_and_only_a_person_brings_it_back(
        self, harness: LedgerHarness, state: AssetState, removed: AssetState
    ) -> None:
        lease = put(harness, state)

        first, again = (
            harness.ledger.remove(seen(), Settlement(removed, reason=reason)) for reason in ("T-1", "T-2")
        )

        assert (first.state, again.state, again.reason) == (removed, removed, "T-2")
        assert again == row(harness)
        if lease is not None:
            with pytest.raises(LeaseLost):
                harness.ledger.renew(lease, MINUTE)
            with pytest.raises(LeaseLost):
                harness.ledger.settle(lease, seen(), ARCHIVED)
        assert harness.ledger.lease_ended("a", "w2", MINUTE) is None
        harness.advance(2 * HOUR)
        harness.ledger.discover([seen(size_bytes=2000)])
        harness.ledger.make_due(["a"], unless_within=AT_ONCE)
        assert harness.ledger.take_due(10, HOUR) == []
        assert harness.ledger.lease("a", "w2", MINUTE) is None
        assert not harness.ledger.record_archived(seen(), ARCHIVED)
        harness.ledger.reopen("a")
        assert row(harness).state == removed
        check_balance(harness)
        reopened = harness.ledger.reopen("a", un_erase=True)
        assert reopened is not None
        assert reopened.state == AssetState.DISCOVERED
        check_balance(harness)

    def test_an_unknown_asset_can_be_removed(self, harness: LedgerHarness) -> None:
        harness.ledger.remove(seen(), Settlement(AssetState.ERASED, reason="T-1"))

        assert (row(harness).state, row(harness).reason) == (AssetState.ERASED, "T-1")
        check_balance(harness)

    def test_a_worker_that_the_ledger_forgot_cannot_settle_what_was_erased_since(
        self, harness: LedgerHarness
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease is not None
        harness.flush()
        harness.ledger.remove(seen(), Settlement(AssetState.ERASED, reason="T-1"))

        with pytest.raises(LeaseLost):
            harness.ledger.settle(lease, seen(), ARCHIVED)

        assert row(harness).state == AssetState.ERASED

    def test_an_erasure_is_an_event_once_and_not_when_it_is_only_found_again(
        self, harness: LedgerHarness
    ) -> None:
        harness.ledger.keep_events(HOUR)
        harness.ledger.remove(seen("found"), Settlement(AssetState.ERASED, reason="T-1"))
        harness.ledger.discover([seen()])
        for state in (AssetState.ERASING, AssetState.ERASED, AssetState.ERASED):
            harness.ledger.remove(seen(), Settlement(state, reason="T-1"))

        events = [(each.row.asset_id, each.row.state) for each in harness.ledger.events(10)]
        assert events == [("a", AssetState.ERASED)]

    def test_an_operator_reopens_what_a_dead_worker_holds(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.RUNNING)
        harness.advance(MINUTE)

        reopened = harness.ledger.reopen("a")

        assert reopened
        assert (reopened.state, reopened.attempts) == (AssetState.DISCOVERED, 0)

    def test_an_unknown_asset_cannot_be_reopened(self, harness: LedgerHarness) -> None:
        assert harness.ledger.reopen("a") is None

    # -- what a person has seen ----------------------------------------------------------------------------

    @pytest.mark.parametrize("state", AssetState)
    def test_an_end_that_a_person_must_see_can_be_acknowledged(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)
        before = row(harness)

        found = harness.ledger.acknowledge("a", "ann", "100ms said sorry: \U0001f600")

        expected = Acknowledgement("ann", "100ms said sorry: \U0001f600", harness.now)
        is_end = state in ACKNOWLEDGED_STATES
        assert found == replace(before, acknowledged=expected if is_end else None)
        assert row(harness) == found
        assert [one.acknowledged for one in harness.ledger.rows([state])] == [found.acknowledged]
        assert {s: n for s, n in harness.ledger.counts().acknowledged.items() if n} == (
            {state: 1} if is_end else {}
        )
        check_balance(harness)

    def test_an_unknown_asset_cannot_be_acknowledged(self, harness: LedgerHarness) -> None:
        assert harness.ledger.acknowledge("a", "ann", "") is None

    def test_the_last_acknowledgement_counts_and_once(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.LOST)
        harness.ledger.acknowledge("a", "ann", "one")
        harness.advance(MINUTE)

        harness.ledger.acknowledge("a", "bob", "two")

        assert row(harness).acknowledged == Acknowledgement("bob", "two", harness.now)
        assert harness.ledger.counts().acknowledged[AssetState.LOST] == 1

    def test_an_acknowledgement_lasts_while_the_asset_stays_as_it_is(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.SOURCE_FAILED)
        harness.ledger.acknowledge("a", "ann", "")
        harness.advance(DAY)

        harness.ledger.discover([seen(verdict=AssetState.SOURCE_FAILED, reason="why", size_bytes=7)])

        assert row(harness).acknowledged is not None
        assert harness.ledger.counts().acknowledged[AssetState.SOURCE_FAILED] == 1

    @pytest.mark.parametrize("again", [False, True])
    def test_an_acknowledgement_ends_when_the_asset_is_reopened(
        self, harness: LedgerHarness, again: bool
    ) -> None:
        put(harness, AssetState.LOST)
        harness.ledger.acknowledge("a", "ann", "")

        harness.ledger.reopen("a")
        if again:
            harness.ledger.settle(take_lease(harness), seen(), Settlement(AssetState.LOST))

        assert row(harness).acknowledged is None
        assert not any(harness.ledger.counts().acknowledged.values())

    def test_an_acknowledgement_ends_with_the_state(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.LOST)
        harness.ledger.acknowledge("a", "ann", "")

        harness.ledger.record_archived(seen(), ARCHIVED)

        assert row(harness).acknowledged is None
        assert not any(harness.ledger.counts().acknowledged.values())

    # -- what people decided -------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", AssetState)
    def test_decisions_are_kept_whatever_the_state(self, harness: LedgerHarness, state: AssetState) -> None:
        put(harness, state)
        before = row(harness)
        decision = Decision("retried", "ann", 'two\nlines, "quoted" \U0001f600', harness.now)

        found = [harness.ledger.note_decision("a", decision) for _ in range(2)]

        assert found == [replace(before, history=(decision,))] * 2
        assert row(harness) == found[0]
        check_balance(harness)

    def test_the_latest_decisions_are_kept(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.LOST)
        made = []
        for number in range(MAX_DECISIONS + 3):
            harness.advance(MINUTE)
            made.append(Decision("retried", "ann", str(number), harness.now))
            harness.ledger.note_decision("a", made[-1])

        harness.ledger.reopen("a")

        assert row(harness).history == tuple(made[-MAX_DECISIONS:])

    def test_nothing_is_decided_about_an_unknown_asset(self, harness: LedgerHarness) -> None:
        assert harness.ledger.note_decision("a", Decision("retried", "ann", "", harness.now)) is None

    # -- one worker at a time ------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", sorted(OPEN_STATES - {AssetState.RUNNING}))
    def test_an_open_asset_is_leased_to_who_asks(self, harness: LedgerHarness, state: AssetState) -> None:
        put(harness, state)
        before = row(harness).attempts
        harness.advance(HOUR)

        lease = take_lease(harness, holder="w7")

        assert (lease.asset_id, lease.holder) == ("a", "w7")
        assert (row(harness).state, row(harness).attempts) == (AssetState.RUNNING, before + 1)
        assert row(harness).next_attempt_at is None
        check_balance(harness)

    @pytest.mark.parametrize("state", [AssetState.RUNNING, *ENDS])
    def test_a_held_or_ended_asset_is_not_leased(self, harness: LedgerHarness, state: AssetState) -> None:
        put(harness, state)

        assert harness.ledger.lease("a", "w2", MINUTE) is None
        assert row(harness).state == state

    def test_a_late_message_does_not_cut_a_wait_short(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.WAITING)
        harness.advance(HOUR - MINUTE)

        assert harness.ledger.lease("a", "w2", MINUTE) is None
        assert row(harness).state == AssetState.WAITING
        assert row(harness).attempts == 1

    def test_unsettled_leases_are_counted_until_one_is_settled(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.RUNNING)
        for _ in range(2):
            harness.advance(HOUR)
            harness.ledger.take_due(10, HOUR)
            lease = take_lease(harness)
        crashes = row(harness).crashes

        harness.ledger.settle(lease, seen("a"), waiting(AT_ONCE))
        take_lease(harness)

        assert crashes == 2
        assert row(harness).crashes == 0

    def test_a_crash_that_brought_the_copy_further_than_any_before_is_not_counted(
        self, harness: LedgerHarness
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.save_upload(lease, "s3://b", "large.mp4", UPLOAD)

        for number in range(1, 8):
            harness.ledger.add_part(lease, "s3://b", "large.mp4", number, (5, 6, "t"))
            lease = crash(harness)
        assert row(harness).crashes == 0

        # the parts of what is whole are forgotten, and that is no step back
        harness.ledger.forget_upload("a", "s3://b", "large.mp4")
        for number in range(7):
            harness.ledger.add_stored(lease, "s3://b", "v1", [StoredObject(f"{number}.ts", 10, 2)])
            lease = crash(harness)
        assert row(harness).crashes == 0

        crash(harness)
        assert row(harness).crashes == 1

    @pytest.mark.parametrize("without_progress", [1, 2, 4])
    def test_crashes_are_counted_in_a_row_and_not_in_sum(
        self, harness: LedgerHarness, without_progress: int
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease

        for number in range(6):
            harness.ledger.add_stored(lease, "s3://b", "v1", [StoredObject(f"{number}.ts", 10, 2)])
            lease = crash(harness)
            assert row(harness).crashes == 0, "this one brought it further"
            for count in range(1, without_progress + 1):
                lease = crash(harness)
                assert row(harness).crashes == count

    def test_a_copy_that_restarts_at_each_crash_counts_them_however_much_it_wrote(
        self, harness: LedgerHarness
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease

        for attempt in range(6):
            harness.ledger.save_upload(lease, "s3://b", "large.mp4", UPLOAD)
            for number in (1, 2, 3):
                harness.ledger.add_part(lease, "s3://b", "large.mp4", number, (5, 6, "t"))
            objects = [StoredObject(path, 10, 2) for path in ("a.ts", "b.ts")]
            harness.ledger.add_stored(lease, "s3://b", f"v{attempt}", objects)
            lease = crash(harness)

        assert row(harness).crashes == 5, "the first alone brought it further"

    def test_what_was_stored_at_a_crash_is_compared_until_the_asset_is_settled(
        self, harness: LedgerHarness
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.add_stored(lease, "s3://b", "v1", [StoredObject("a.ts", 10, 2)])
        crash(harness)
        lease = crash(harness)
        before = row(harness).crashes

        harness.ledger.settle(lease, seen("a"), waiting(AT_ONCE))
        take_lease(harness)
        crash(harness)
        first = row(harness).crashes
        crash(harness)

        assert (before, first, row(harness).crashes) == (1, 0, 1)

    def test_what_was_archived_with_a_warning_is_found_the_latest_first(self, harness: LedgerHarness) -> None:
        for asset_id in ("a", "b", "c"):
            harness.ledger.discover([seen(asset_id)])
            done = replace(ARCHIVED, warnings=() if asset_id == "b" else ("no thumbnail",))
            harness.ledger.settle(take_lease(harness, asset_id), seen(asset_id), done)
            harness.advance(MINUTE)

        assert ids(harness.ledger.warned(10)) == ["c", "a"]
        assert ids(harness.ledger.warned(1)) == ["c"]
        harness.ledger.reopen("c")
        assert ids(harness.ledger.warned(10)) == ["a"]

    def test_the_holder_itself_gets_no_second_lease(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.RUNNING)

        assert harness.ledger.lease("a", "w1", MINUTE) is None

    def test_an_unknown_asset_is_not_leased(self, harness: LedgerHarness) -> None:
        assert harness.ledger.lease("a", "w1", MINUTE) is None

    def test_an_attempt_begins_with_its_lease_its_row_and_the_facts_it_names(
        self, harness: LedgerHarness
    ) -> None:
        put(harness, AssetState.QUEUED)
        harness.ledger.remember("hold:s3://b", {"reason": "403"}, HOUR)
        harness.ledger.remember("hold:over", {"reason": "403"}, MINUTE / 4)
        harness.ledger.remember("sweep", {"pages": 1})
        harness.advance(MINUTE / 2)

        begun = harness.ledger.begin("a", "w1", HOUR, "hold:")

        assert begun.lease is not None
        assert (begun.lease.asset_id, begun.lease.holder) == ("a", "w1")
        assert begun.row == row(harness)
        assert (row(harness).state, row(harness).attempts) == (AssetState.RUNNING, 1)
        assert begun.facts == {"hold:s3://b": {"reason": "403"}}
        assert not begun.has_work
        harness.ledger.renew(begun.lease, HOUR)
        check_balance(harness)

    @pytest.mark.parametrize("state", AssetState)
    def test_an_attempt_begins_where_a_lease_would_be_given(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)

        begun = harness.ledger.begin("a", "w2", HOUR, "hold:")

        leased = state in OPEN_STATES - {AssetState.RUNNING, AssetState.WAITING}
        assert (begun.lease is not None) == leased
        assert begun.row == row(harness)
        check_balance(harness)

    def test_an_attempt_at_an_unknown_asset_finds_nothing(self, harness: LedgerHarness) -> None:
        begun = harness.ledger.begin("a", "w1", HOUR, "hold:")

        assert begun == AttemptStart(None, None, False, {})
        assert harness.ledger.counts().seen == 0

    @pytest.mark.parametrize("what", ["a stored object", "an upload"])
    def test_an_attempt_sees_whether_an_earlier_one_left_work(
        self, harness: LedgerHarness, what: str
    ) -> None:
        harness.ledger.discover([seen()])
        lease = take_lease(harness)
        if what == "an upload":
            harness.ledger.save_upload(lease, "d", "k", OpenUpload("t", 10, 5, None, {1: (5, 1, "tag")}))
        else:
            harness.ledger.add_stored(lease, "d", "v1", [StoredObject("x", 1, 2)])
        harness.advance(2 * MINUTE)

        begun = harness.ledger.begin("a", "w2", MINUTE, "hold:")
        assert begun.has_work
        assert begun.lease

        harness.ledger.settle(begun.lease, seen(), ARCHIVED)
        harness.ledger.reopen("a")
        assert not harness.ledger.begin("a", "w3", MINUTE, "hold:").has_work

    def test_an_expired_lease_passes_on_and_the_first_holder_gets_lease_lost(
        self, harness: LedgerHarness
    ) -> None:
        put(harness, AssetState.DISCOVERED)
        first = take_lease(harness, holder="w1")
        harness.advance(MINUTE)

        second = take_lease(harness, holder="w2")

        assert second.fence > first.fence
        for act in (
            lambda: harness.ledger.renew(first, HOUR),
            lambda: harness.ledger.settle(first, seen(), ARCHIVED),
            lambda: harness.ledger.add_stored(first, "d", "v", [StoredObject("x", 1, 1)]),
            lambda: harness.ledger.save_upload(first, "d", "k", OpenUpload("t", 1, 1, None)),
            lambda: harness.ledger.add_part(first, "d", "k", 1, (1, 1, "t")),
        ):
            with pytest.raises(LeaseLost, match="asset a"):
                act()
        assert row(harness).state == AssetState.RUNNING
        assert not harness.ledger.stored_objects("a", "d", "v")
        assert harness.ledger.load_upload("a", "d", "k") is None
        assert harness.ledger.settle(second, seen(), ARCHIVED).state == AssetState.ARCHIVED

    def test_a_renewed_lease_lives_on(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease

        for _ in range(3):
            harness.advance(MINUTE - SECOND)
            harness.ledger.renew(lease, MINUTE)

        assert harness.ledger.lease("a", "w2", MINUTE) is None
        assert harness.ledger.take_due(10, HOUR) == []
        assert row(harness).attempts == 1

    @pytest.mark.parametrize("dispatched", [False, True])
    def test_a_holder_that_returns_before_another_lease_may_continue(
        self, harness: LedgerHarness, dispatched: bool
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.advance(HOUR)
        harness.ledger.take_due(1 if dispatched else 0, HOUR)

        harness.ledger.renew(lease, MINUTE)

        assert row(harness).state == AssetState.RUNNING
        assert harness.ledger.lease("a", "w2", MINUTE) is None
        assert harness.ledger.take_due(10, HOUR) == []
        assert harness.ledger.settle(lease, seen(), ARCHIVED).attempts == 1
        check_balance(harness)

    def test_fences_grow_with_every_lease(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)

        fences = []
        for _ in range(5):
            lease = take_lease(harness)
            fences.append(lease.fence)
            harness.ledger.settle(lease, seen(), waiting(AT_ONCE))

        assert fences == sorted(set(fences))
        assert row(harness).attempts == 5

    @pytest.mark.parametrize("state", [AssetState.WAITING, *ENDS])
    def test_a_settled_lease_is_over(self, harness: LedgerHarness, state: AssetState) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        settlement = Settlement(state, reason="why", delay=AT_ONCE)

        settled = harness.ledger.settle(lease, seen(), settlement)

        assert settled == row(harness)
        assert (settled.state, settled.reason) == (state, "why")
        with pytest.raises(LeaseLost):
            harness.ledger.renew(lease, MINUTE)
        with pytest.raises(LeaseLost):
            harness.ledger.settle(lease, seen(), settlement)
        with pytest.raises(LeaseLost):
            harness.ledger.add_stored(lease, "d", "v", [])
        assert row(harness) == settled
        check_balance(harness)

    def test_a_lease_ends_when_its_asset_is_judged_away_after_its_worker_seemed_dead(
        self, harness: LedgerHarness
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.advance(HOUR)
        harness.ledger.take_due(1, HOUR)

        harness.ledger.discover([seen(verdict=AssetState.SKIPPED)])

        with pytest.raises(LeaseLost):
            harness.ledger.renew(lease, MINUTE)

    @pytest.mark.parametrize(
        ("delay", "left", "waits"),
        [
            (MINUTE, 9 * DAY, MINUTE),
            (9 * DAY, 9 * DAY, MAX_WAIT),
            (HOUR, HOUR, HOUR / 2),
            (MAX_WAIT, timedelta(seconds=9), timedelta(seconds=4.5)),
            (HOUR, -HOUR, HOUR),
            (9 * DAY, -DAY, MAX_WAIT),
            (-HOUR, DAY, AT_ONCE),
            (None, DAY, AT_ONCE),
        ],
    )
    def test_no_wait_runs_past_the_deadline_or_is_longer_than_a_day(
        self, harness: LedgerHarness, delay: timedelta | None, left: timedelta, waits: timedelta
    ) -> None:
        harness.ledger.discover([seen(expires_in=left)])
        lease = take_lease(harness)

        settled = harness.ledger.settle(lease, seen(), Settlement(AssetState.WAITING, delay=delay))

        assert settled.next_attempt_at == harness.now + waits
        assert harness.ledger.next_due_at() == harness.now + waits

    def test_it_is_known_since_when_an_asset_is_said_to_be_gone(self, harness: LedgerHarness) -> None:
        def attempt(settlement: Settlement) -> Row:
            harness.advance(HOUR)
            harness.ledger.take_due(10, HOUR)
            return harness.ledger.settle(take_lease(harness), seen(), settlement)

        gone, other = Settlement(AssetState.WAITING, gone=True), Settlement(AssetState.WAITING)
        nothing_tried = replace(other, counts_as_attempt=False)
        harness.ledger.discover([seen()])

        assert attempt(other).gone_since is None
        since = attempt(gone).gone_since
        assert since == harness.now
        assert attempt(gone).gone_since == since
        assert attempt(nothing_tried).gone_since == since
        assert attempt(other).gone_since is None
        assert attempt(gone).gone_since == harness.now
        since = attempt(replace(gone, state=AssetState.LOST)).gone_since
        assert since == harness.now - HOUR
        looked_at_again = harness.ledger.reopen("a", keep_stored=True)
        assert looked_at_again
        assert looked_at_again.gone_since == since
        reopened = harness.ledger.reopen("a")
        assert reopened
        assert reopened.gone_since is None

    def test_a_lease_may_be_raised_above_the_fence_of_a_manifest(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease

        higher = harness.ledger.outrank(lease, lease.fence + 10)

        assert higher == replace(lease, fence=lease.fence + 11)
        assert harness.ledger.outrank(higher, 5) == higher
        with pytest.raises(LeaseLost):
            harness.ledger.renew(lease, MINUTE)
        with pytest.raises(LeaseLost):
            harness.ledger.outrank(lease, 5)
        harness.ledger.renew(higher, MINUTE)
        harness.ledger.settle(higher, seen(), ARCHIVED)

    def test_the_next_lease_is_above_one_that_was_raised(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        higher = harness.ledger.outrank(lease, lease.fence + 10**12)

        assert crash(harness).fence > higher.fence

    def test_a_lease_that_a_flush_forgot_may_be_raised(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.flush()

        higher = harness.ledger.outrank(lease, lease.fence + 10)
        harness.ledger.renew(higher, MINUTE)
        harness.ledger.discover([seen()])
        assert harness.ledger.outrank(higher, 5) == higher

        settled = harness.ledger.settle(higher, seen(), ARCHIVED)
        assert (settled.state, settled.attempts) == (AssetState.ARCHIVED, 1)

    def test_its_clock_can_be_read(self, harness: LedgerHarness) -> None:
        before = harness.ledger.now()
        harness.advance(HOUR)

        assert before == START
        assert harness.ledger.now() == START + HOUR

    def test_a_settled_row_has_the_date_in_its_manifests_key(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease

        settled = harness.ledger.settle(lease, replace(seen(), created_at=START - 3 * DAY), ARCHIVED)

        assert settled.created_at == START - 3 * DAY
        assert row(harness).created_at == START - 3 * DAY

    def test_a_missing_date_keeps_the_known_one(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease

        settled = harness.ledger.settle(lease, replace(seen(), created_at=None), ARCHIVED)

        assert settled.created_at == START - DAY

    def test_a_row_that_a_manifest_archives_has_the_manifest_s_date(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)

        harness.ledger.record_archived(replace(seen(), created_at=START - 3 * DAY), ARCHIVED)

        assert row(harness).created_at == START - 3 * DAY

    @pytest.mark.parametrize("how", ["settled", "recorded"])
    def test_what_a_tombstone_did_not_tell_is_known_once_it_is_archived(
        self, harness: LedgerHarness, how: str
    ) -> None:
        unknown = replace(seen(), type=UNKNOWN_TYPE, room_id=None, session_id=None)
        harness.ledger.remove(unknown, Settlement(AssetState.ERASED, reason="GDPR-1"))
        harness.ledger.reopen(unknown.asset_id, un_erase=True)

        if how == "settled":
            lease = harness.ledger.lease(unknown.asset_id, "worker", MINUTE)
            assert lease
            harness.ledger.settle(lease, unknown, Settlement(AssetState.WAITING))
            assert row(harness).type == UNKNOWN_TYPE
            harness.advance(MINUTE)
            again = harness.ledger.lease(unknown.asset_id, "worker", MINUTE)
            assert again
            harness.ledger.settle(again, seen(), ARCHIVED)
        else:
            harness.ledger.record_archived(seen(), ARCHIVED)

        known = row(harness)
        assert (known.type, known.room_id, known.session_id) == (
            seen().type,
            seen().room_id,
            seen().session_id,
        )

    def test_what_was_archived_is_on_the_row(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.advance(SECOND)

        settled = harness.ledger.settle(lease, seen(), ARCHIVED)

        assert (settled.stored_bytes, settled.stored_objects) == (5_000_000_000, 4)
        assert (settled.seconds, settled.warnings) == (12.75, ("thumbnail 2: 403", "a second one"))
        assert (settled.changed_at, settled.first_seen_at) == (harness.now, harness.now - SECOND)
        assert (settled.next_attempt_at, settled.reason) == (None, None)

    def test_an_attempt_in_which_nothing_was_tried_does_not_count(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)

        for _ in range(3):
            held = replace(waiting(AT_ONCE), counts_as_attempt=False)
            settled = harness.ledger.settle(take_lease(harness), seen(), held)

        assert settled.attempts == 0

    def test_mismatches_count_in_a_row_only(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)

        counted = []
        for mismatch in (True, True, False, True):
            settlement = replace(waiting(AT_ONCE), mismatch=mismatch)
            counted.append(harness.ledger.settle(take_lease(harness), seen(), settlement).mismatches)

        assert counted == [1, 2, 0, 1]

    def test_only_mismatches_that_found_the_same_count_together(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.DISCOVERED)

        counted = []
        for fingerprint in ("a", "a", "b", "b", None, "b"):
            settlement = replace(waiting(AT_ONCE), mismatch=True, fingerprint=fingerprint)
            settled = harness.ledger.settle(take_lease(harness), seen(), settlement)
            counted.append((settled.mismatches, settled.fingerprint))

        assert counted == [(1, "a"), (2, "a"), (1, "b"), (2, "b"), (3, None), (1, "b")]

    def test_what_is_kept_with_doubts_stays_stored_when_it_is_looked_at_again(
        self, harness: LedgerHarness
    ) -> None:
        put(harness, AssetState.DISCOVERED)
        kept = Settlement(AssetState.QUARANTINED, "a doubt", stored_bytes=7, stored_objects=2)
        harness.ledger.settle(take_lease(harness), seen(), kept)

        reopened = harness.ledger.reopen("a", keep_stored=True)

        assert reopened
        assert (reopened.state, reopened.stored_bytes, reopened.stored_objects) == (
            AssetState.DISCOVERED,
            7,
            2,
        )
        assert ids(harness.ledger.take_due(10, HOUR)) == ["a"]

    # -- a ledger that was flushed -------------------------------------------------------------------------

    def test_after_a_flush_a_holder_continues_and_its_result_enters_the_asset(
        self, harness: LedgerHarness
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.flush()

        harness.ledger.renew(lease, MINUTE)
        harness.ledger.add_stored(lease, "d", "v", [StoredObject("x", 1, 2)])
        settled = harness.ledger.settle(lease, seen(), ARCHIVED)

        assert settled == row(harness)
        assert (settled.state, settled.attempts, settled.first_seen_at) == (
            AssetState.ARCHIVED,
            1,
            harness.now,
        )
        assert (settled.room_id, settled.size_bytes) == ("6501aa", 1000)
        assert not harness.ledger.stored_objects("a", "d", "v")
        assert harness.ledger.counts().seen == 1
        check_balance(harness)
        with pytest.raises(LeaseLost):
            harness.ledger.renew(lease, MINUTE)

    def test_after_a_flush_a_holder_may_settle_for_another_attempt(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.flush()

        settled = harness.ledger.settle(lease, seen(), replace(waiting(HOUR), counts_as_attempt=False))

        assert (settled.state, settled.attempts) == (AssetState.WAITING, 0)
        assert ids(harness.ledger.take_due(1, HOUR, ahead=HOUR)) == ["a"]

    def test_after_a_flush_and_a_sweep_a_renewal_keeps_others_out(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.flush()
        harness.ledger.discover([seen()])

        harness.ledger.renew(lease, MINUTE)

        assert row(harness).state == AssetState.RUNNING
        assert harness.ledger.lease("a", "w2", MINUTE) is None
        assert harness.ledger.settle(lease, seen(), ARCHIVED).attempts == 1
        check_balance(harness)

    def test_after_a_flush_and_a_sweep_a_settlement_counts(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.flush()
        harness.ledger.discover([seen()])

        assert harness.ledger.settle(lease, seen(), ARCHIVED).state == AssetState.ARCHIVED
        check_balance(harness)

    def test_after_a_flush_fences_go_on_growing(self, harness: LedgerHarness) -> None:
        """Else a holder from before it replaces the manifest of a later one."""
        put(harness, AssetState.DISCOVERED)
        before = take_lease(harness)
        for _ in range(20):
            harness.advance(timedelta(milliseconds=1))
            harness.flush()
            put(harness, AssetState.DISCOVERED)
            after = take_lease(harness)

            assert after.fence > before.fence
            before = after

    def test_after_a_flush_and_another_lease_the_first_holder_stops(self, harness: LedgerHarness) -> None:
        first = put(harness, AssetState.RUNNING)
        assert first
        harness.flush()
        harness.ledger.discover([seen()])
        harness.advance(timedelta(microseconds=1))
        second = take_lease(harness, holder="w1")

        with pytest.raises(LeaseLost):
            harness.ledger.renew(first, MINUTE)
        harness.ledger.renew(second, MINUTE)

    def test_after_a_flush_a_manifest_settles_it_for_the_holder(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.flush()
        harness.ledger.record_archived(seen(), ARCHIVED)

        with pytest.raises(LeaseLost):
            harness.ledger.settle(lease, seen(), waiting(AT_ONCE))
        assert row(harness).state == AssetState.ARCHIVED

    def test_after_a_flush_everything_else_starts_empty(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.WAITING)
        harness.ledger.remember("sweep", {"n": 1})
        token = harness.ledger.lock("sweep", HOUR)
        assert token
        harness.flush()

        assert harness.ledger.counts().seen == 0
        assert harness.ledger.take_due(10, HOUR, ahead=DAY) == []
        assert harness.ledger.next_due_at() is None
        assert harness.ledger.recall("sweep") is None
        assert harness.ledger.extend_lock("sweep", token, HOUR) is False
        harness.ledger.unlock("sweep", token)

    # -- what an unfinished copy has done ------------------------------------------------------------------

    def test_stored_objects_come_back_by_path_and_only_of_that_version(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        one = StoredObject("v/seg 1.ts", 10, 0xDEADBEEF, "video/mp2t", '"etag"')
        two = StoredObject("version", 20, 0)

        harness.ledger.add_stored(lease, "s3://b/p", "v1", [one])
        harness.ledger.add_stored(lease, "s3://b/p", "v1", [two])
        harness.ledger.add_stored(lease, "s3://b/p", "v1", [two])

        assert harness.ledger.stored_objects("a", "s3://b/p", "v1") == {one.path: one, two.path: two}
        assert harness.ledger.stored_objects("a", "s3://b/p", "v2") == {}
        assert harness.ledger.stored_objects("a", "s3://other", "v1") == {}
        assert harness.ledger.stored_objects("b", "s3://b/p", "v1") == {}

    def test_another_version_replaces_what_was_stored(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.add_stored(lease, "d", "v1", [StoredObject("x", 1, 1)])

        harness.ledger.add_stored(lease, "d", "v2", [StoredObject("y", 2, 2)])

        assert list(harness.ledger.stored_objects("a", "d", "v2")) == ["y"]
        assert harness.ledger.stored_objects("a", "d", "v1") == {}

    def test_ten_thousand_objects_are_stored_in_one_call(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        objects = [StoredObject(f"seg{n}.ts", n, n) for n in range(10_000)]

        harness.ledger.add_stored(lease, "d", "v", objects)

        assert harness.ledger.stored_objects("a", "d", "v") == {one.path: one for one in objects}

    def test_names_with_separators_in_them_do_not_meet(self, harness: LedgerHarness) -> None:
        for asset_id in ("a", 'a","b', "a:b"):
            harness.ledger.discover([seen(asset_id)])
            lease = take_lease(harness, asset_id)
            for key in ("k", 'b","k', "b:k"):
                harness.ledger.save_upload(lease, "d", key, OpenUpload(f"{asset_id} {key}", 1, 1, None))

        for asset_id in ("a", 'a","b', "a:b"):
            for key in ("k", 'b","k', "b:k"):
                upload = harness.ledger.load_upload(asset_id, "d", key)
                assert upload
                assert upload.token == f"{asset_id} {key}"

    def test_an_open_upload_comes_back_with_its_parts(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        upload = OpenUpload("token", 50 * 2**30, 64 * 2**20, '"etag"', {1: (5, 6, '"tag"')})

        harness.ledger.save_upload(lease, "d", "k", upload)
        harness.ledger.add_part(lease, "d", "k", 3, (7, 0xFFFFFFFF, "t3"))
        harness.ledger.add_part(lease, "d", "k", 3, (7, 0xFFFFFFFF, "t3"))

        parts = {1: (5, 6, '"tag"'), 3: (7, 0xFFFFFFFF, "t3")}
        assert harness.ledger.load_upload("a", "d", "k") == replace(upload, parts=parts)

    def test_an_upload_that_is_saved_again_starts_again(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.save_upload(lease, "d", "k", OpenUpload("one", 1, 1, None, {1: (1, 1, "t")}))

        harness.ledger.save_upload(lease, "d", "k", OpenUpload("two", 2, 2, "e"))

        assert harness.ledger.load_upload("a", "d", "k") == OpenUpload("two", 2, 2, "e")

    def test_an_upload_that_is_forgotten_takes_no_more_parts(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.save_upload(lease, "d", "k", OpenUpload("one", 1, 1, None))

        harness.ledger.forget_upload("a", "d", "k")
        harness.ledger.forget_upload("a", "d", "k")
        harness.ledger.add_part(lease, "d", "k", 1, (1, 1, "t"))

        assert harness.ledger.load_upload("a", "d", "k") is None

    @pytest.mark.parametrize("state", [AssetState.WAITING, *ENDS])
    def test_unfinished_work_is_kept_for_the_next_attempt_and_forgotten_at_the_end(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        stored = StoredObject("x", 1, 1)
        harness.ledger.add_stored(lease, "d", "v", [stored])
        harness.ledger.save_upload(lease, "d", "k", OpenUpload("t", 1, 1, None))
        harness.ledger.report(Progress("a", "chat", 1, None, 0, "x"))

        harness.ledger.settle(lease, seen(), Settlement(state))

        kept = state == AssetState.WAITING
        assert harness.ledger.stored_objects("a", "d", "v") == ({"x": stored} if kept else {})
        assert (harness.ledger.load_upload("a", "d", "k") is not None) == kept
        assert harness.ledger.progress() == []

    @pytest.mark.parametrize("judged", [True, False])
    def test_unfinished_work_is_forgotten_when_the_asset_ends_otherwise(
        self, harness: LedgerHarness, judged: bool
    ) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.save_upload(lease, "d", "k", OpenUpload("t", 1, 1, None))
        harness.ledger.settle(lease, seen(), waiting(AT_ONCE))

        if judged:
            harness.ledger.discover([seen(verdict=AssetState.SKIPPED)])
        else:
            harness.ledger.record_archived(seen(), ARCHIVED)

        assert harness.ledger.load_upload("a", "d", "k") is None

    def test_unfinished_work_lives_thirty_days_from_its_last_change(self, harness: LedgerHarness) -> None:
        lease = put(harness, AssetState.RUNNING)
        assert lease
        harness.ledger.add_stored(lease, "d", "v", [StoredObject("x", 1, 1)])
        harness.ledger.save_upload(lease, "d", "k", OpenUpload("t", 1, 1, None))

        harness.advance(20 * DAY)
        harness.ledger.add_part(lease, "d", "k", 1, (1, 1, "t"))
        harness.advance(11 * DAY)

        assert harness.ledger.stored_objects("a", "d", "v") == {}
        assert harness.ledger.load_upload("a", "d", "k") is not None
        harness.advance(20 * DAY)
        assert harness.ledger.load_upload("a", "d", "k") is None

    def test_progress_is_what_was_reported_last_for_two_minutes(self, harness: LedgerHarness) -> None:
        harness.ledger.report(Progress("a", "chat", 1, None, 0, "x"))
        last = Progress("a", "chat", 2, 10, 1, "ä y")
        harness.ledger.report(last)
        harness.advance(MINUTE)
        other = Progress("b", "stream", 5, 5, 0, "z")
        harness.ledger.report(other)

        assert sorted(harness.ledger.progress(), key=lambda one: one.asset_id) == [last, other]
        harness.advance(MINUTE)
        assert harness.ledger.progress() == [other]
        harness.advance(MINUTE)
        assert harness.ledger.progress() == []

    # -- what the whole tool remembers ---------------------------------------------------------------------

    def test_a_lock_has_one_holder_until_it_is_let_go(self, harness: LedgerHarness) -> None:
        token = harness.ledger.lock("sweep", MINUTE)

        assert token
        assert harness.ledger.lock("sweep", MINUTE) is None
        assert harness.ledger.lock("other", MINUTE)

        harness.ledger.unlock("sweep", "not the token")
        assert harness.ledger.lock("sweep", MINUTE) is None
        harness.ledger.unlock("sweep", token)
        assert harness.ledger.lock("sweep", MINUTE)

    def test_a_lock_ends_by_itself_unless_it_is_extended(self, harness: LedgerHarness) -> None:
        token = harness.ledger.lock("sweep", MINUTE)
        assert token

        harness.advance(MINUTE / 2)
        assert harness.ledger.extend_lock("sweep", token, MINUTE)
        assert not harness.ledger.extend_lock("sweep", "not the token", MINUTE)
        harness.advance(MINUTE - SECOND)
        assert harness.ledger.lock("sweep", MINUTE) is None
        harness.advance(SECOND)
        assert not harness.ledger.extend_lock("sweep", token, MINUTE)
        assert harness.ledger.lock("sweep", MINUTE)

    def test_a_fact_under_a_lock_is_kept_by_its_holder_alone(self, harness: LedgerHarness) -> None:
        ledger = harness.ledger
        first = ledger.lock("alerts", MINUTE)
        assert first
        assert ledger.remember_locked("book", {"by": 1}, lock="alerts", token=first)
        assert not ledger.remember_locked("book", {"by": 0}, lock="alerts", token="not the token")
        assert not ledger.remember_locked("book", {"by": 0}, lock="other", token=first)
        harness.advance(MINUTE)
        assert not ledger.remember_locked("book", {"by": 0}, lock="alerts", token=first)
        second = ledger.lock("alerts", MINUTE)
        assert second
        assert not ledger.remember_locked("book", {"by": 0}, lock="alerts", token=first)
        assert ledger.recall("book") == {"by": 1}

        assert ledger.remember_locked("book", {"by": 2}, lock="alerts", token=second)
        harness.advance(400 * DAY)
        assert ledger.recall("book") == {"by": 2}

    def test_facts_are_remembered_until_they_are_replaced_or_forgotten(self, harness: LedgerHarness) -> None:
        fact: Mapping[str, object] = {"at": "2026", "pages": [1, 2.5, None], "ok": True, "of": {"ä": "|"}}
        harness.ledger.remember("sweep", {"old": 1})
        harness.ledger.remember("sweep", fact)
        harness.advance(400 * DAY)

        assert harness.ledger.recall("sweep") == fact
        harness.ledger.forget("sweep")
        harness.ledger.forget("sweep")
        assert harness.ledger.recall("sweep") is None
        assert harness.ledger.recall("never") is None

    def test_a_fact_with_a_lifetime_ends(self, harness: LedgerHarness) -> None:
        harness.ledger.remember("hold", {"why": "403"}, MINUTE)

        harness.advance(MINUTE - SECOND)
        assert harness.ledger.recall("hold") == {"why": "403"}
        harness.advance(SECOND)
        assert harness.ledger.recall("hold") is None
        assert harness.ledger.recall_all("") == {}

    def test_facts_are_listed_by_the_start_of_their_name(self, harness: LedgerHarness) -> None:
        harness.ledger.remember("hold:s3://a", {"n": 1})
        harness.ledger.remember("hold:s3://b", {"n": 2}, MINUTE)
        harness.ledger.remember("holder", {"n": 3})

        assert harness.ledger.recall_all("hold:") == {"hold:s3://a": {"n": 1}, "hold:s3://b": {"n": 2}}
        harness.advance(MINUTE)
        assert harness.ledger.recall_all("hold:") == {"hold:s3://a": {"n": 1}}

    def test_a_secret_comes_back_until_its_lifetime_ends(self, harness: LedgerHarness) -> None:
        harness.ledger.remember_secret("thumbnail:a", "https://cdn/x?sig=ä", MINUTE)

        assert harness.ledger.recall_secret("thumbnail:a") == "https://cdn/x?sig=ä"
        assert harness.ledger.recall_secret("thumbnail:b") is None
        harness.advance(MINUTE)
        assert harness.ledger.recall_secret("thumbnail:a") is None

    def test_amounts_are_summed_by_state_and_by_the_hour_of_the_deadline(
        self, harness: LedgerHarness
    ) -> None:
        harness.ledger.discover([seen("a"), seen("b", size_bytes=500), seen("c", size_bytes=None)])
        harness.ledger.discover([seen("d", expires_in=DAY), seen("e", verdict=AssetState.SKIPPED)])
        first, last = START.replace(minute=0, second=0, microsecond=0) + DAY, START + 15 * DAY
        last = last.replace(minute=0, second=0, microsecond=0)

        found = harness.ledger.amounts()

        assert set(found) == set(AssetState)
        assert found[AssetState.DISCOVERED] == {last: Amount(3, 1500, unsized=1), first: Amount(1, 1000)}
        assert found[AssetState.SKIPPED] == {last: Amount(1, 1000)}
        assert found[AssetState.ARCHIVED] == {}
        assert set(harness.ledger.amounts([AssetState.WAITING])) == {AssetState.WAITING}

    def test_what_is_archived_amounts_to_what_was_stored(self, harness: LedgerHarness) -> None:
        attempt(harness, replace(ARCHIVED, stored_bytes=7777))

        [amount] = harness.ledger.amounts()[AssetState.ARCHIVED].values()

        assert amount == Amount(1, 7777)

    def test_bytes_are_summed_by_destination_and_what_it_holds(self, harness: LedgerHarness) -> None:
        one, two = "s3://one/a", "gs://two"
        held = {one: CopyState.WHOLE, two: CopyState.LACKING}
        attempt(harness, replace(ARCHIVED, stored_bytes=7, copies=held))
        harness.ledger.record_archived(seen("b"), replace(ARCHIVED, stored_bytes=30, copies=held))
        both = dict.fromkeys((one, two), CopyState.WHOLE)
        harness.ledger.record_archived(
            seen("c"), Settlement(AssetState.QUARANTINED, stored_bytes=500, copies=both)
        )
        harness.ledger.record_archived(seen("d"), replace(ARCHIVED, stored_bytes=90))

        assert harness.ledger.copy_bytes() == {
            one: {CopyState.WHOLE: 537},
            two: {CopyState.LACKING: 37, CopyState.WHOLE: 500},
        }

    def test_more_assets_than_one_step_reads_are_summed(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen(f"{number}") for number in range(1203)])

        assert sum(a.assets for a in harness.ledger.amounts()[AssetState.DISCOVERED].values()) == 1203

    def test_totals_count_what_attempts_did(self, harness: LedgerHarness) -> None:
        failed = Settlement(AssetState.WAITING, delay=AT_ONCE, copied_bytes=30, copied_objects=2)
        attempt(harness, failed)
        attempt(harness, replace(failed, counts_as_attempt=False, copied_bytes=0, copied_objects=0))
        attempt(harness, replace(ARCHIVED, copied_bytes=1000, copied_objects=1))

        assert harness.ledger.totals() == {
            "attempts:waiting": 1,
            "attempts_postponed": 1,
            "attempts:archived": 1,
            "copied_bytes": 1030,
            "copied_objects": 3,
        }

    def test_totals_of_other_things_are_added_by_name(self, harness: LedgerHarness) -> None:
        harness.ledger.add_totals({"api_calls": 2, "x": 1})
        harness.ledger.add_totals({"api_calls": 3})

        assert harness.ledger.totals() == {"api_calls": 5, "x": 1}

    def test_an_attempt_whose_lease_was_lost_adds_nothing_to_the_totals(self, harness: LedgerHarness) -> None:
        harness.ledger.discover([seen()])
        lost = take_lease(harness)
        crash(harness)

        with pytest.raises(LeaseLost):
            harness.ledger.settle(lost, seen(), replace(ARCHIVED, copied_bytes=5))

        assert harness.ledger.totals() == {}

    def test_no_event_is_kept_while_nobody_wants_them(self, harness: LedgerHarness) -> None:
        attempt(harness, ARCHIVED)

        assert harness.ledger.events(10) == []

    def test_an_event_holds_the_row_as_it_was_then(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(HOUR)
        archived = attempt(harness, ARCHIVED)
        harness.ledger.reopen("a")

        [event] = harness.ledger.events(10)

        assert event.row == archived

    @pytest.mark.parametrize("state", ENDS)
    def test_an_attempt_that_ends_in_an_event_state_is_an_event(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        harness.ledger.keep_events(HOUR)
        attempt(harness, Settlement(state))

        assert [event.row.state for event in harness.ledger.events(10)] == [state] * (state in EVENT_STATES)

    def test_an_attempt_that_waits_is_no_event(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(HOUR)
        attempt(harness, waiting(MINUTE))

        assert harness.ledger.events(10) == []

    def test_events_come_in_order_until_each_is_delivered(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(HOUR)
        for asset_id in "abc":
            harness.ledger.discover([seen(asset_id)])
            harness.ledger.settle(take_lease(harness, asset_id), seen(asset_id), ARCHIVED)
        first, second, third = harness.ledger.events(10)
        harness.ledger.delivered(second)
        harness.ledger.delivered(second)

        assert [event.row.asset_id for event in (first, second, third)] == ["a", "b", "c"]
        assert harness.ledger.events(10) == [first, third]
        assert harness.ledger.events(1) == [first]
        assert harness.ledger.events(0) == []
        assert first.number < second.number < third.number
        assert harness.ledger.outbox_size() == OutboxSize(waiting=2, dropped=0)

    def test_events_are_kept_for_as_long_as_somebody_wants_them(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(HOUR)
        harness.advance(2 * HOUR)
        attempt(harness, ARCHIVED)

        assert harness.ledger.events(10) == []

    def test_a_persons_decision_and_damage_are_events(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(HOUR)
        attempt(harness, Settlement(AssetState.QUARANTINED))
        harness.ledger.record_archived(seen(), ARCHIVED)
        harness.ledger.record_archived(seen(), ARCHIVED)
        harness.ledger.record_archived(seen("b"), Settlement(AssetState.DAMAGED))

        states = [event.row.state for event in harness.ledger.events(10)]

        assert states == [AssetState.QUARANTINED, AssetState.ARCHIVED, AssetState.DAMAGED]

    def test_what_is_only_found_again_in_a_manifest_is_no_event(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(HOUR)
        harness.ledger.discover([seen("a")])
        harness.ledger.record_archived(seen("a"), ARCHIVED)
        harness.ledger.record_archived(seen("b"), ARCHIVED)

        assert harness.ledger.events(10) == []

    def test_an_outcome_that_was_lost_and_is_found_in_the_manifest_is_an_event(
        self, harness: LedgerHarness
    ) -> None:
        harness.ledger.keep_events(HOUR)
        attempt(harness, Settlement(AssetState.WAITING, delay=HOUR))
        harness.ledger.record_archived(seen(), ARCHIVED)

        assert [event.row.state for event in harness.ledger.events(10)] == [AssetState.ARCHIVED]

    def test_an_asset_can_be_replayed_as_it_is_now(self, harness: LedgerHarness) -> None:
        archived = attempt(harness, ARCHIVED)
        harness.ledger.discover([seen("b")])

        assert harness.ledger.replay(["a", "b", "unknown"]) == 1
        assert harness.ledger.replay([]) == 0
        assert [event.row for event in harness.ledger.events(10)] == [archived]

    def test_an_attempt_whose_lease_was_lost_is_no_event(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(DAY)
        harness.ledger.discover([seen()])
        lost = take_lease(harness)
        crash(harness)

        with pytest.raises(LeaseLost):
            harness.ledger.settle(lost, seen(), ARCHIVED)

        assert harness.ledger.events(10) == []

    def test_more_events_than_are_kept_are_counted(self, harness: LedgerHarness) -> None:
        attempt(harness, ARCHIVED)
        assert harness.ledger.replay(["a"] * MAX_EVENTS) == MAX_EVENTS

        assert harness.ledger.replay(["a"]) == 0
        assert harness.ledger.outbox_size() == OutboxSize(MAX_EVENTS, dropped=1)
        harness.ledger.forget_dropped()
        assert harness.ledger.outbox_size() == OutboxSize(MAX_EVENTS, dropped=0)

    # -- what each destination holds -----------------------------------------------------------------------

    def test_an_attempt_says_what_each_destination_holds(self, harness: LedgerHarness) -> None:
        copies = {"s3://one/a": CopyState.WHOLE, "gs://two": CopyState.LACKING}

        settled = attempt(harness, replace(ARCHIVED, copies=copies))

        assert settled.copies == row(harness).copies == copies
        assert next(harness.ledger.rows([AssetState.ARCHIVED])).copies == copies
        assert harness.ledger.counts().copies == {
            "s3://one/a": {CopyState.WHOLE: 1},
            "gs://two": {CopyState.LACKING: 1},
        }

    def test_copies_stay_while_nothing_new_is_said_of_them(self, harness: LedgerHarness) -> None:
        attempt(harness, replace(ARCHIVED, copies={"one": CopyState.WHOLE, "two": CopyState.DAMAGED}))
        harness.advance(HOUR)
        harness.ledger.reopen("a", keep_stored=True)
        harness.advance(HOUR)
        harness.ledger.settle(take_lease(harness), seen(), waiting(AT_ONCE))

        assert row(harness).copies == {"one": CopyState.WHOLE, "two": CopyState.DAMAGED}
        assert not harness.ledger.counts().copies, "it is not stored for good, so it is not counted"
        harness.ledger.record_archived(seen(), ARCHIVED)
        assert harness.ledger.counts().copies["two"] == {CopyState.DAMAGED: 1}

    def test_copies_that_are_said_anew_replace_all_before(self, harness: LedgerHarness) -> None:
        attempt(harness, replace(ARCHIVED, copies={"one": CopyState.WHOLE, "two": CopyState.LACKING}))
        damaged = Settlement(AssetState.DAMAGED, copies={"one": CopyState.DAMAGED})

        harness.ledger.record_archived(seen(), damaged)
        assert row(harness).copies == {"one": CopyState.DAMAGED}
        harness.ledger.record_archived(seen(), replace(damaged, copies={"one": CopyState.WHOLE}))

        assert row(harness).copies == {"one": CopyState.WHOLE}
        assert not harness.ledger.counts().copies
        harness.ledger.record_archived(seen(), ARCHIVED)
        assert harness.ledger.counts().copies == {"one": {CopyState.WHOLE: 1}}

    def test_what_is_skipped_is_counted_at_no_destination(self, harness: LedgerHarness) -> None:
        attempt(harness, replace(ARCHIVED, copies={"one": CopyState.WHOLE}))
        harness.ledger.reopen("a")
        harness.ledger.discover([seen(verdict=AssetState.SKIPPED)])

        assert row(harness).copies == {}
        assert not harness.ledger.counts().copies

    def test_copies_are_noted_only_of_the_row_that_was_read(self, harness: LedgerHarness) -> None:
        found = attempt(harness, ARCHIVED)
        lacking = {"one": CopyState.WHOLE, "two": CopyState.LACKING}

        assert harness.ledger.note_copies(found, lacking)
        assert not harness.ledger.note_copies(found, {"one": CopyState.DAMAGED})
        assert row(harness).copies == lacking
        assert harness.ledger.note_copies(row(harness), {"one": CopyState.WHOLE})
        assert harness.ledger.note_copies(row(harness), {"one": CopyState.WHOLE})

        noted = row(harness)
        harness.advance(HOUR)
        harness.ledger.reopen("a")
        assert not harness.ledger.note_copies(noted, lacking)
        take_lease(harness)
        assert not harness.ledger.note_copies(row(harness), lacking)
        assert not harness.ledger.note_copies(replace(noted, asset_id="unknown"), lacking)
        assert row(harness).copies == {"one": CopyState.WHOLE}

    # -- the lease of an asset that is at an end -----------------------------------------------------------

    @pytest.mark.parametrize("state", sorted(set(ENDS) - REMOVED_STATES))
    def test_an_end_is_leased_to_one_holder_and_stays_as_it_is(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)
        before = row(harness)

        lease = harness.ledger.lease_ended("a", "w1", MINUTE)

        assert lease is not None
        assert harness.ledger.lease_ended("a", "w2", MINUTE) is None
        assert row(harness) == replace(before, leased_until=harness.now + MINUTE)
        assert harness.ledger.take_due(10, AT_ONCE) == []
        check_balance(harness)
        harness.advance(MINUTE)
        second = harness.ledger.lease_ended("a", "w2", MINUTE)
        assert second is not None
        assert second.fence > lease.fence
        with pytest.raises(LeaseLost):
            harness.ledger.renew(lease, MINUTE)
        with pytest.raises(LeaseLost):
            harness.ledger.release(lease)

    @pytest.mark.parametrize("state", sorted(OPEN_STATES))
    def test_what_is_open_is_leased_by_attempts_alone(
        self, harness: LedgerHarness, state: AssetState
    ) -> None:
        put(harness, state)

        assert harness.ledger.lease_ended("a", "w1", MINUTE) is None
        assert harness.ledger.lease_ended("unknown", "w1", MINUTE) is None

    def test_nothing_else_changes_a_leased_end(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.ARCHIVED)
        lease = harness.ledger.lease_ended("a", "w1", MINUTE)
        assert lease is not None
        leased = row(harness)

        harness.ledger.reopen("a")
        harness.ledger.discover([seen(size_bytes=2000)])
        assert not harness.ledger.record_archived(seen(), Settlement(AssetState.DAMAGED))
        assert not harness.ledger.note_copies(leased, {"one": CopyState.WHOLE})

        assert row(harness) == leased
        assert harness.ledger.lease("a", "w2", MINUTE) is None
        harness.ledger.release(lease)
        harness.ledger.discover([seen(size_bytes=2000)])
        assert row(harness).state == AssetState.DISCOVERED

    def test_a_lease_of_an_end_is_renewed_and_raised(self, harness: LedgerHarness) -> None:
        put(harness, AssetState.ARCHIVED)
        lease = harness.ledger.lease_ended("a", "w1", MINUTE)
        assert lease is not None
        harness.advance(MINUTE / 2)
        harness.ledger.renew(lease, MINUTE)

        assert row(harness).leased_until == harness.now + MINUTE
        assert row(harness).state == AssetState.ARCHIVED
        higher = harness.ledger.outrank(lease, lease.fence + 10**9)
        assert higher.fence > lease.fence + 10**9
        harness.ledger.save_upload(higher, "one", "key", UPLOAD)
        assert harness.ledger.load_upload("a", "one", "key") is not None
        harness.ledger.release(higher, keep_work=True)
        again = harness.ledger.lease_ended("a", "w2", MINUTE)
        assert again is not None
        assert harness.ledger.load_upload("a", "one", "key") is not None
        harness.ledger.release(again)
        assert harness.ledger.load_upload("a", "one", "key") is None

    def test_a_lease_that_ends_says_what_is_stored_now(self, harness: LedgerHarness) -> None:
        harness.ledger.keep_events(DAY)
        harness.ledger.discover([seen()])
        harness.ledger.record_archived(seen(), Settlement(AssetState.DAMAGED, reason="a copy is gone"))
        [damaged] = harness.ledger.events(10)
        harness.ledger.delivered(damaged)
        whole = {"one": CopyState.WHOLE, "two": CopyState.WHOLE}

        lease = harness.ledger.lease_ended("a", "w1", MINUTE)
        assert lease is not None
        released = harness.ledger.release(lease, whole, ARCHIVED)

        assert released == row(harness)
        assert (released.state, released.copies, released.leased_until) == (AssetState.ARCHIVED, whole, None)
        assert (released.reason, released.stored_bytes) == (None, ARCHIVED.stored_bytes)
        assert [event.row.state for event in harness.ledger.events(10)] == [AssetState.ARCHIVED]
        check_balance(harness)

        again = harness.ledger.lease_ended("a", "w1", MINUTE)
        assert again is not None
        assert harness.ledger.release(again, {"one": CopyState.DAMAGED}).copies == {"one": CopyState.DAMAGED}
        assert len(harness.ledger.events(10)) == 1

    def test_a_lease_of_an_end_outlives_a_flush_until_the_asset_is_entered_again(
        self, harness: LedgerHarness
    ) -> None:
        put(harness, AssetState.ARCHIVED)
        lease = harness.ledger.lease_ended("a", "w1", MINUTE)
        assert lease is not None
        harness.flush()

        harness.ledger.renew(lease, MINUTE)
        with pytest.raises(LeaseLost):
            harness.ledger.release(lease, {"one": CopyState.WHOLE})
        assert harness.ledger.get("a") is None
        harness.ledger.record_archived(seen(), ARCHIVED)
        with pytest.raises(LeaseLost):
            harness.ledger.renew(lease, MINUTE)

    def test_what_all_reserve_of_a_rate_is_earned_one_after_the_other(self, harness: LedgerHarness) -> None:
        reserve = harness.ledger.reserve

        assert reserve("bytes", 600, 10.0) == MINUTE
        assert reserve("bytes", 300, 2.5) == 3 * MINUTE
        assert reserve("requests", 600, 10.0) == MINUTE
        harness.advance(2 * MINUTE)
        assert reserve("bytes", 600, 10.0) == 2 * MINUTE

    def test_nothing_of_a_rate_is_saved_up(self, harness: LedgerHarness) -> None:
        harness.ledger.reserve("bytes", 600, 10.0)
        harness.advance(HOUR)

        assert harness.ledger.reserve("bytes", 600, 10.0) == MINUTE

    def test_a_rate_is_not_reserved_for_longer_than_an_hour(self, harness: LedgerHarness) -> None:
        assert harness.ledger.reserve("bytes", 1e15, 0.1) == HOUR
        assert harness.ledger.reserve("bytes", 600, 10.0) == HOUR

    def test_it_answers(self, harness: LedgerHarness) -> None:
        harness.ledger.ping()

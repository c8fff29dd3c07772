from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.upkeep.gaps import (
    ANY,
    LEFT_TO_REPLICATION,
    Gap,
    Replication,
    archived_at_quorum,
    judge_gap,
    limit,
)
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, CopyState
from tests.core.archived import enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock

WHOLE, LACKING, DAMAGED = CopyState.WHOLE, CopyState.LACKING, CopyState.DAMAGED

CASES = [
    # over, whole somewhere, expected, filling, doubted
    ("its copy was deleted, 100ms has it", (False, True, False, False, False), Gap.REOPEN),
    ("all of it was deleted, 100ms has it", (False, False, False, False, False), Gap.REOPEN),
    ("a destination was added, 100ms has it", (False, True, True, True, False), Gap.FILL),
    ("the destination was changed, 100ms has it", (False, False, True, True, False), Gap.FILL),
    ("added long ago, deleted since, 100ms has it", (False, True, True, False, False), Gap.REOPEN),
    ("quarantined, a copy was deleted, 100ms has it", (False, True, False, False, True), Gap.REOPEN),
    ("its copy was deleted, 100ms has deleted it", (True, True, False, False, False), Gap.DAMAGED),
    ("the same, while that destination is filled", (True, True, False, True, False), Gap.DAMAGED),
    ("older than the destination", (True, True, True, False, False), Gap.MISSING_COPY),
    (
        "older than the destination that replaced all others",
        (True, False, True, True, False),
        Gap.MISSING_COPY,
    ),
    ("quarantined, a copy was deleted", (True, True, False, False, True), Gap.MISSING_COPY),
    ("all of it was deleted, 100ms has deleted it", (True, False, False, False, False), Gap.VANISHED),
    ("the same, quarantined", (True, False, False, False, True), Gap.VANISHED),
]


@pytest.mark.parametrize(("case", "gap"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_a_missing_manifest_means(case: tuple[bool, bool, bool, bool, bool], gap: Gap) -> None:
    over, whole_somewhere, expected, filling, doubted = case

    found = judge_gap(
        over=over, whole_somewhere=whole_somewhere, expected=expected, filling=filling, doubted=doubted
    )

    assert found is gap


@pytest.mark.parametrize(
    ("over", "filling", "gap"),
    [(False, False, Gap.MISSING_COPY), (False, True, Gap.FILL), (True, False, Gap.MISSING_COPY)],
)
def test_what_was_archived_at_the_quorum_is_replicated(over: bool, filling: bool, gap: Gap) -> None:
    found = judge_gap(over=over, whole_somewhere=True, expected=True, filling=filling, at_quorum=True)

    assert found is gap


@pytest.mark.parametrize(
    ("known", "state", "later", "is_left"),
    [
        ({"one": WHOLE, "two": LACKING}, AssetState.ARCHIVED, timedelta(hours=1), True),
        ({"one": WHOLE, "two": LACKING}, AssetState.ARCHIVED, LEFT_TO_REPLICATION, False),
        ({"one": WHOLE, "two": LACKING}, AssetState.QUARANTINED, timedelta(hours=1), False),
        ({"one": WHOLE, "two": WHOLE}, AssetState.ARCHIVED, timedelta(hours=1), False),
        ({"one": DAMAGED, "two": LACKING}, AssetState.ARCHIVED, timedelta(hours=1), False),
        ({"one": DAMAGED, "two": LACKING, "removed": WHOLE}, AssetState.ARCHIVED, timedelta(hours=1), False),
        ({}, AssetState.ARCHIVED, timedelta(hours=1), False),
    ],
    ids=[
        "lately",
        "long ago",
        "quarantined",
        "deleted since",
        "damaged",
        "whole where nobody looks",
        "unknown",
    ],
)
def test_what_is_left_to_the_replication(
    known: Mapping[str, CopyState], state: AssetState, later: timedelta, is_left: bool
) -> None:
    ledger = MemoryLedger(Clock(NOW))
    enter(ledger, asset(), state)
    row = ledger.get(asset().id)
    assert row is not None

    assert archived_at_quorum(replace(row, copies=known), ["two"], ["one"], NOW + later) is is_left


DAYS = timedelta(days=1)


@pytest.mark.parametrize(
    ("later", "away", "goes_on", "is_left"),
    [
        (5 * DAYS, {}, False, False),
        (5 * DAYS, {"two": 4 * DAYS}, False, True),
        (5 * DAYS, {"two": 3 * DAYS}, False, False),
        (5 * DAYS, {ANY: 4 * DAYS}, False, True),
        (5 * DAYS, {"one": 5 * DAYS}, False, False),
        (5 * DAYS, {}, True, True),
        (14.2 * DAYS, {"two": 14 * DAYS}, True, False),
        (1 * DAYS, {}, False, True),
    ],
    ids=[
        "for days",
        "away a day ago",
        "back for two days",
        "some destination away",
        "another one away",
        "others are replicated",
        "100ms deletes it soon",
        "lately",
    ],
)
def test_what_is_left_to_the_replication_after_a_destination_was_away(
    later: timedelta, away: Mapping[str, timedelta], goes_on: bool, is_left: bool
) -> None:
    ledger = MemoryLedger(Clock(NOW))
    enter(ledger, asset(created_at=NOW.isoformat()))
    row = ledger.get(asset().id)
    assert row is not None
    assert row.expires_at == NOW + 15 * DAYS
    known = Replication({name: NOW + after for name, after in away.items()}, goes_on)
    row = replace(row, copies={"one": WHOLE, "two": LACKING})

    assert archived_at_quorum(row, ["two"], ["one"], NOW + later, known) is is_left


@pytest.mark.parametrize(("archived", "most"), [(0, 20), (20, 20), (1000, 20), (1050, 21), (100_000, 2000)])
def test_how_many_gaps_are_repaired_without_confirmation(archived: int, most: int) -> None:
    assert limit(archived) == most

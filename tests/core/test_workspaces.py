"""A second installation with credentials of another workspace leaves the first one's ledger alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.outcomes import Archived, NotOurs
from archiver.core.errors import LedgerOfAnotherWorkspace
from archiver.core.health import assess
from archiver.core.judging import Scope
from archiver.core.upkeep import status
from archiver.core.upkeep.sweep import Sweeper
from archiver.core.workspaces import REFUSED_FOR, adopt_ledger
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock, FakeApi
from tests.core.harness import ArchiverHarness, file

OURS = [asset(id=f"ours-{number}") for number in range(5)]
THEIRS = [asset(id=f"theirs-{number}") for number in range(5)]


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def ledger(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock)


def sweep(ledger: MemoryLedger, clock: Clock, workspace: str | None, assets: list[Asset]) -> None:
    Sweeper(
        api=FakeApi(assets),
        ledger=ledger,
        scope=Scope(RETENTION),
        clock=clock,
        rebuild=lambda: None,
        workspace=workspace,
    ).sweep()


def test_another_workspace_s_assets_are_not_entered(ledger: MemoryLedger, clock: Clock) -> None:
    sweep(ledger, clock, "production", OURS)

    with pytest.raises(LedgerOfAnotherWorkspace, match="ARCHIVER_REDIS_PREFIX, of its own"):
        sweep(ledger, clock, "staging", THEIRS)

    assert {row.asset_id for row in ledger.rows()} == {each.id for each in OURS}


def test_both_are_told_for_as_long_as_it_lasts(ledger: MemoryLedger, clock: Clock) -> None:
    sweep(ledger, clock, "production", OURS)
    with pytest.raises(LedgerOfAnotherWorkspace):
        sweep(ledger, clock, "staging", THEIRS)

    assert "ledger_of_another_workspace" in problems(ledger, clock)
    clock.advance(REFUSED_FOR)
    assert "ledger_of_another_workspace" not in problems(ledger, clock)


def test_a_replaced_access_key_is_recognised_by_the_assets(ledger: MemoryLedger, clock: Clock) -> None:
    sweep(ledger, clock, "old key", OURS)
    new = [*(asset(id=f"new-{number}") for number in range(2)), OURS[0]]

    sweep(ledger, clock, "new key", sorted(new, key=lambda each: each.id, reverse=True))

    assert ledger.counts().seen == 7


@pytest.mark.parametrize(
    ("workspace", "assets"),
    [(None, THEIRS), ("staging", [])],
    ids=["the credentials tell no workspace", "100ms lists nothing"],
)
def test_what_proves_nothing_is_not_refused_and_not_remembered(
    ledger: MemoryLedger, clock: Clock, workspace: str | None, assets: list[Asset]
) -> None:
    sweep(ledger, clock, "production", OURS)

    sweep(ledger, clock, workspace, assets)

    with pytest.raises(LedgerOfAnotherWorkspace):
        sweep(ledger, clock, "staging", [asset(id="unknown")])


def test_a_ledger_of_the_version_before_is_taken_by_the_first_who_sweeps(
    ledger: MemoryLedger, clock: Clock
) -> None:
    sweep(ledger, clock, None, OURS)
    sweep(ledger, clock, "production", OURS)

    with pytest.raises(LedgerOfAnotherWorkspace):
        sweep(ledger, clock, "staging", THEIRS)


def test_a_person_may_adopt_it(ledger: MemoryLedger, clock: Clock) -> None:
    sweep(ledger, clock, "old key", OURS)
    with pytest.raises(LedgerOfAnotherWorkspace):
        sweep(ledger, clock, "new key", THEIRS)

    adopt_ledger(ledger, "new key")
    sweep(ledger, clock, "new key", THEIRS)

    assert "ledger_of_another_workspace" not in problems(ledger, clock)


def test_a_worker_of_another_workspace_attempts_nothing() -> None:
    """100ms would tell it that every asset is gone."""
    harness = ArchiverHarness(lambda: file(b"v" * 100))
    adopt_ledger(harness.ledger, "production")

    outcome = worker_of(harness, "staging").archive(harness.asset_id, "w@host")

    row = harness.ledger.get(harness.asset_id)
    assert isinstance(outcome, NotOurs)
    assert row is None or (row.state, row.attempts) == (AssetState.DISCOVERED, 0)
    assert isinstance(worker_of(harness, "production").archive(harness.asset_id, "w@host"), Archived)


@pytest.mark.parametrize("workspace", [None, "production"])
def test_a_worker_archives_while_nothing_is_known_of_workspaces(workspace: str | None) -> None:
    harness = ArchiverHarness(lambda: file(b"v" * 100))

    assert isinstance(worker_of(harness, workspace).archive(harness.asset_id, "w@host"), Archived)


def worker_of(harness: ArchiverHarness, workspace: str | None) -> Archiver:
    worker = harness.another_archiver()
    worker._workspace = workspace
    return worker


def problems(ledger: MemoryLedger, clock: Clock) -> set[str]:
    day = timedelta(days=1)
    summary = status.summarize(ledger, clock(), at_risk_within=day, sweep_every=day)
    return {problem.id for problem in assess(summary).problems}

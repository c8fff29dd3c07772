"""A person stops copies for a while: nothing is lost by it, and it ends by itself."""

from __future__ import annotations

from datetime import timedelta

from archiver.core.attempt.outcomes import Archived, WillRetry
from archiver.core.deadlines import ALARM_LEVELS
from archiver.core.destinations import breaker
from archiver.core.health import assess
from archiver.core.upkeep.dispatch import Dispatcher
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.models import AssetState, Row
from tests.core.harness import ArchiverHarness, file

VIDEO = b"v" * 100
WHO = {"by": "ann@desk", "why": "moving the bucket"}


def paused(name: str) -> ArchiverHarness:
    harness = ArchiverHarness(lambda: file(VIDEO))
    breaker.pause(harness.ledger, name, now=harness.clock(), **WHO)
    return harness


def test_while_everything_is_paused_an_asset_waits_and_loses_no_attempt() -> None:
    harness = paused(breaker.EVERYTHING)

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert "paused by ann@desk: moving the bucket" in outcome.reason
    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    assert (row.state, row.attempts) == (AssetState.WAITING, 0)


def test_a_paused_destination_is_not_written_to() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    name = harness.stores[0].name
    breaker.pause(harness.ledger, name, now=harness.clock(), **WHO)

    assert isinstance(harness.archive(), WillRetry)
    assert list(harness.stores[0].list("")) == []


def test_it_ends_when_it_is_resumed() -> None:
    harness = paused(breaker.EVERYTHING)
    harness.archive()
    breaker.close(harness.ledger, breaker.EVERYTHING)
    harness.clock.advance(breaker.OPEN_FOR)

    assert isinstance(harness.archive(), Archived)


def test_it_ends_by_itself_after_a_day_and_leaves_nothing_behind() -> None:
    harness = paused(breaker.EVERYTHING)
    harness.archive()
    harness.clock.advance(breaker.LONGEST_PAUSE)

    assert breaker.not_closed(harness.ledger, harness.clock()) == {}
    assert isinstance(harness.archive(), Archived)


def test_nothing_is_dispatched_while_everything_is_paused() -> None:
    harness = paused(breaker.EVERYTHING)
    sent: list[Row] = []
    dispatcher = Dispatcher(
        ledger=harness.ledger,
        send=lambda row, _urgent: sent.append(row),
        clock=harness.clock,
        window=10,
        urgent_within=timedelta(days=3),
    )
    harness.ledger.reopen(harness.asset_id)

    assert dispatcher.dispatch() == 0
    breaker.close(harness.ledger, breaker.EVERYTHING)
    harness.archive()
    assert sent == []


def test_a_pause_is_shown_is_no_fault_and_silences_no_deadline() -> None:
    harness = paused(breaker.EVERYTHING)
    watcher = Watcher(
        ledger=harness.ledger,
        clock=harness.clock,
        at_risk_within=ALARM_LEVELS[-1],
        sweep_every=timedelta(hours=1),
    )
    harness.archive()
    harness.clock.advance(timedelta(hours=23))
    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    harness.clock.advance(row.expires_at - harness.clock() - timedelta(hours=1))
    breaker.pause(harness.ledger, breaker.EVERYTHING, now=harness.clock(), **WHO)

    health = assess(watcher.summary())

    assert "at_risk" in {problem.id for problem in health.problems}
    assert "paused" not in {problem.id for problem in health.problems}
    (said,) = [each.text for each in health.findings if "paused by ann@desk" in each.text]
    assert said.endswith("UTC, or `archiver resume`.")

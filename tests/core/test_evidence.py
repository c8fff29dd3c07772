"""An alert is resolved on evidence alone: what nobody looked at is unknown, never well."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from archiver.core.alerts import Alert
from archiver.core.destinations.breaker import OpenBreaker
from archiver.core.evidence import EVIDENCE, HOST_GONE_AFTER, is_over
from archiver.core.health import Summary
from archiver.core.health_rules import RULES, Severity
from archiver.ledger.models import AssetState, Counts
from tests.core.examples import NOW, row

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
DATED = ("sweep", "reconcile", "watch", "run_once", "scrub", "drill", "expiry", "store_clocks")
LOST_AT = NOW - 3 * HOUR
BEFORE, SINCE = LOST_AT - MINUTE, LOST_AT + MINUTE
SEEN_BY_ALL = {
    "ledger_out_of_balance",
    "no_sweep",
    "ledger_unreachable",
    "ledger_may_lose_rows",
    "ledger_not_persistent",
    "disk_nearly_full",
    "alert_channel_fails",
    "alerts_are_silent",
}
"""Rules that need nothing of what the ledger knew."""
KEPT = {
    "announced_not_listed": 15 * DAY,
    "found_damaged": 90 * DAY,
    "ledger_of_another_workspace": 6 * HOUR,
    "statement_missing": 3 * DAY + HOUR,
}
"""Rules of which nothing finds again what a lost ledger knew, or not before that time."""
EXPIRING = {"on_hold", "destination_unknown", "destination_refuses", "destination_silent", "machine_fault"}


def account(looked: datetime | None = None, *, at: datetime = NOW, **fields: Any) -> Summary:
    """One in which nothing is found. `looked`: when each of the looks began."""
    states = fields.pop("states", {})
    return Summary(
        at=at,
        counts=Counts(sum(states.values()), states),
        at_risk_within=3 * DAY,
        sweep_every=HOUR,
        looked=dict.fromkeys(DATED, looked) if looked else {},
        host="here",
        **fields,
    )


def gone(rule_id: str, since: datetime = LOST_AT, cause: str = "here") -> Alert:
    return Alert(rule_id, cause, RULES[rule_id].severity, "", 0, NOW - 3 * DAY, gone_since=since)


def test_each_rule_that_alerts_has_its_evidence() -> None:
    assert EVIDENCE.keys() == {rule.id for rule in RULES.values() if rule.severity is not Severity.INFO}


@pytest.mark.parametrize("rule_id", sorted(EVIDENCE))
class TestEachRule:
    def test_what_was_looked_at_and_is_absent_is_over(self, rule_id: str) -> None:
        assert is_over(gone(rule_id), account(SINCE), None)

    def test_what_a_lost_ledger_forgot_is_not_over(self, rule_id: str) -> None:
        """Flushed: no fact is left. Rolled back: those of earlier looks are."""
        flushed, rolled_back = (is_over(gone(rule_id), account(at), LOST_AT) for at in (None, BEFORE))

        assert (flushed, rolled_back) == ((True, True) if rule_id in SEEN_BY_ALL else (False, False))

    def test_after_a_loss_it_ends_once_the_looks_have_come_round(self, rule_id: str) -> None:
        after = LOST_AT + KEPT.get(rule_id, MINUTE)

        assert is_over(gone(rule_id), account(after, at=after), LOST_AT)
        if rule_id in KEPT:
            assert not is_over(gone(rule_id), account(after, at=after - MINUTE), LOST_AT)

    def test_a_record_that_expired_while_nobody_looked_is_not_over(self, rule_id: str) -> None:
        assert is_over(gone(rule_id), account(BEFORE), None) == (rule_id not in EXPIRING)


SWEEP, RECONCILE, WATCH = {"sweep": SINCE}, {"reconcile": SINCE}, {"watch": SINCE}
QUEUED = {AssetState.QUEUED: 1}
BREAKER = {"s3://b": OpenBreaker("403", NOW)}


@pytest.mark.parametrize(
    ("rule_id", "looked", "is_known"),
    [
        ("at_risk", SWEEP, True),
        ("lost", SWEEP, False),
        ("lost", RECONCILE, False),  # of what no sweep has entered
        ("lost", SWEEP | RECONCILE, True),
        ("source_failed", SWEEP, False),
        ("reconcile_is_late", SWEEP | WATCH, False),
        ("reconcile_is_late", RECONCILE, True),
        ("scrub_promise_slips", SWEEP | RECONCILE | WATCH, False),
        ("control_is_silent", SWEEP, False),
        ("control_is_silent", {"run_once": SINCE}, True),
        ("destination_unknown", SWEEP, False),
        ("destination_unknown", RECONCILE, True),
        ("destination_silent", RECONCILE, False),  # it may take no writes
        ("destination_silent", RECONCILE | WATCH, True),
        ("on_hold", SWEEP, False),
        ("on_hold", SWEEP | RECONCILE | {"run_once": SINCE}, True),
    ],
)
def test_which_look_is_evidence_after_a_loss(
    rule_id: str, looked: dict[str, datetime], is_known: bool
) -> None:
    assert is_over(gone(rule_id), replace(account(), looked=looked), LOST_AT) == is_known


@pytest.mark.parametrize(
    ("rule_id", "now", "is_known"),
    [
        ("needs_source_access", {"states": {AssetState.DISCOVERED: 1}}, False),  # not tried yet
        ("needs_source_access", {"states": QUEUED}, False),
        ("needs_source_access", {"open_breakers": BREAKER}, False),
        ("needs_source_access", {"waiting": (row(attempts=1),)}, False),
        ("needs_source_access", {"waiting": (row(attempts=2),)}, True),
        ("many_fail", {"states": QUEUED}, False),
        ("many_fail", {"states": {AssetState.RUNNING: 1}}, True),
        ("machine_fault", {"states": QUEUED}, False),
        ("workers_are_silent", {"states": QUEUED}, False),
        ("workers_are_silent", {"states": {**QUEUED, AssetState.RUNNING: 1}}, True),
        ("will_miss_deadline", {"states": {AssetState.WAITING: 1}}, False),  # and no forecast
        ("will_miss_deadline", {"states": {AssetState.ARCHIVED: 1}}, True),
        ("events_not_delivered", {"events_waiting": 1}, False),
        ("events_not_delivered", {"events_waiting": 0}, True),
    ],
)
@pytest.mark.parametrize("lost_at", [None, LOST_AT])
def test_what_must_be_so_now(
    rule_id: str, now: dict[str, Any], is_known: bool, lost_at: datetime | None
) -> None:
    assert is_over(gone(rule_id), account(SINCE, **now), lost_at) == is_known


def test_a_full_disk_is_known_to_its_own_machine_alone() -> None:
    elsewhere = gone("disk_nearly_full", since=NOW - HOST_GONE_AFTER + MINUTE, cause="there")

    assert is_over(gone("disk_nearly_full"), account(), None)
    assert not is_over(elsewhere, account(), None)
    assert is_over(elsewhere, account(at=NOW + MINUTE), None)  # replaced: it looks no more

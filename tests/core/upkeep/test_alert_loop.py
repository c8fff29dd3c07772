"""`archiver serve` is dead: nobody would be told, so `status` and the dead man's switch say so."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.alerts import BOOK_FACT, LOOKED_AT
from archiver.core.upkeep.alert_loop import alert_loop_findings
from archiver.core.upkeep.reports import RECONCILE_EXPECTED_FACT
from archiver.core.upkeep.status import RAN_ONCE_FACT, WATCH_FACT
from tests.core.examples import NOW

Facts = dict[str, dict[str, object]]


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat()


WATCHED: Facts = {WATCH_FACT: {"at": ago(1)}}
CASES: dict[str, tuple[Facts, bool]] = {
    "serve looks": ({**WATCHED, BOOK_FACT: {LOOKED_AT: ago(1)}}, False),
    "serve is being restarted": ({**WATCHED, BOOK_FACT: {LOOKED_AT: ago(9)}}, False),
    "serve is dead": ({**WATCHED, BOOK_FACT: {LOOKED_AT: ago(11)}}, True),
    "it never ran": ({**WATCHED, RECONCILE_EXPECTED_FACT: {"since": ago(11)}}, True),
    "all has just been started": ({**WATCHED, RECONCILE_EXPECTED_FACT: {"since": ago(2)}}, False),
    "a serve of an earlier version": (
        {**WATCHED, BOOK_FACT: {"revision": 3}, RECONCILE_EXPECTED_FACT: {"since": ago(60)}},
        False,
    ),
    "the control worker is dead too": ({WATCH_FACT: {"at": ago(60)}, BOOK_FACT: {LOOKED_AT: ago(60)}}, False),
    "by cron alone": ({RAN_ONCE_FACT: {"at": ago(15)}, BOOK_FACT: {LOOKED_AT: ago(15)}}, False),
    "the ledger's clock was set back": ({**WATCHED, BOOK_FACT: {LOOKED_AT: ago(-60)}}, False),
    "nothing ever ran": ({}, False),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_problem_that_nobody_looks_for_alerts(case: str) -> None:
    facts, is_problem = CASES[case]

    found = list(alert_loop_findings(facts, NOW))

    assert [each.id for each in found] == (["alerts_are_silent"] if is_problem else [])
    assert all("archiver serve" in each.text for each in found)

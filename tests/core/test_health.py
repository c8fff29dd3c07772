"""Health by tables of cases: the facts, and the rule that fires or the headline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from archiver.core.destinations.breaker import OpenBreaker
from archiver.core.destinations.failures import Kind
from archiver.core.health import ATTENTION_STATES, MANY, Failing, Summary, assess
from archiver.core.health_rules import RULES, Severity, finding
from archiver.ledger.models import AssetState, CopyState, Counts, Row
from tests.core.examples import NOW

MANUAL = Path(__file__).parents[2] / "docs/operations.md"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SWEPT: Mapping[str, object] = {"started_at": (NOW - MINUTE).isoformat(), "assets": 3, "new": 0}


def row(asset_id: str, state: AssetState = AssetState.WAITING) -> Row:
    return Row(asset_id, "chat", state, expires_at=NOW + DAY, first_seen_at=NOW, changed_at=NOW)


def counts(acknowledged: Mapping[AssetState, int] | None = None, **states: int) -> Counts:
    numbers = {AssetState(state): number for state, number in states.items()}
    return Counts(sum(numbers.values()), numbers, acknowledged or {})


WELL = Summary(
    at=NOW,
    counts=counts(archived=3),
    at_risk_within=3 * DAY,
    sweep_every=5 * MINUTE,
    last_sweep=SWEPT,
    watched_at=NOW - MINUTE,
)


def began(ago: timedelta) -> Mapping[str, object]:
    return {**SWEPT, "started_at": (NOW - ago).isoformat()}


@pytest.mark.parametrize(
    ("observed", "headline"),
    [
        ({}, "All 3 assets are safe."),
        ({"counts": counts(archived=1)}, "The only asset is safe."),
        ({"counts": counts()}, "100ms lists no asset."),
        (
            {"counts": counts(archived=97, skipped=3)},
            "All assets that are wanted are safe: 97 archived, 3 skipped by your filters.",
        ),
        (
            {"counts": counts(archived=1, external=2, rejected=1)},
            "All assets that are wanted are safe: 1 archived, 1 rejected, 2 in your own bucket already.",
        ),
        (
            {"counts": counts(skipped=3)},
            "All assets that are wanted are safe: 0 archived, 3 skipped by your filters.",
        ),
        (
            {"counts": counts(archived=1, waiting=1, running=1)},
            "1 of 3 known assets are archived; 2 not saved yet.",
        ),
        (
            {"counts": counts(archived=1, source_failed=1, acknowledged={AssetState.SOURCE_FAILED: 1})},
            "1 of 2 known assets are archived; 1 failed at 100ms.",
        ),
        # a single asset that fails and fails, with time left, is nothing to wake up for
        (
            {"counts": counts(waiting=1), "failing": (Failing("503", 1),)},
            "0 of 1 known assets are archived; 1 not saved yet.",
        ),
        # a sweep that runs is not late, however long ago the last one began
        ({"last_sweep": began(HOUR), "sweeping_since": NOW - HOUR}, "All 3 assets are safe."),
        ({"idle_since": NOW - MINUTE}, "All 3 assets are safe."),
        # cron: no beat ever ran here; or none runs any more, and cron took over
        ({"watched_at": None}, "All 3 assets are safe."),
        ({"watched_at": NOW - DAY, "ran_once_at": NOW - MINUTE}, "All 3 assets are safe."),
    ],
)
def test_well(observed: dict[str, Any], headline: str) -> None:
    health = assess(replace(WELL, **observed))

    assert health.headline == headline
    assert (health.healthy, health.exit_code, health.problems) == (True, 0, ())


@pytest.mark.parametrize(
    ("observed", "code", "words"),
    [
        ({"last_sweep": None}, "no_sweep", "No sweep has ended yet: what 100ms has is not known."),
        ({"last_sweep": {}}, "no_sweep", "No sweep has ended yet"),
        (
            {"last_sweep": None, "sweeping_since": NOW - MINUTE},
            "no_sweep",
            "No sweep has ended yet: what 100ms has is not known. One is running now: wait for it.",
        ),
        (
            {"last_sweep": None, "watched_at": None},
            "no_sweep",
            "Nothing has run here yet: start `archiver up`",
        ),
        ({"last_sweep": None, "watched_at": NOW}, "no_sweep", "if none ends, `archiver doctor` says why."),
        ({"last_sweep": began(16 * MINUTE)}, "sweep_is_late", "The last sweep began 16 min ago"),
        (
            {"last_sweep": began(DAY), "sweeping_since": NOW - 7 * HOUR},
            "sweep_is_late",
            "The last sweep began 24 h ago",
        ),
        ({"recorded": {"sweep": NOW + HOUR}}, "clock_is_wrong", "`sweep` is dated 60 min in the future"),
        ({"recorded": {"watch": NOW + DAY}}, "clock_is_wrong", "`watch` is dated 24 h in the future"),
        # beat is dead, or the control worker
        ({"watched_at": NOW - 6 * MINUTE}, "control_is_silent", "has done nothing for 6 min"),
        (
            {"watched_at": NOW - 6 * MINUTE, "ran_once_at": NOW - DAY},
            "control_is_silent",
            "The control worker has done nothing for 6 min: it is dead or stuck, or beat is.",
        ),
        (
            {"idle_since": NOW - 6 * MINUTE, "counts": counts(archived=1, queued=7)},
            "workers_are_silent",
            "7 assets queued, and nothing has been copied for 6 min",
        ),
        (
            {"open_breakers": {"s3://b": OpenBreaker("s3://b: AccessDenied", NOW - MINUTE)}},
            "on_hold",
            "Circuit breaker half-open since 11:59:00 UTC: s3://b: AccessDenied",
        ),
        (
            {"open_breakers": {"s3://b": OpenBreaker("s3://b: AccessDenied", NOW + MINUTE)}},
            "on_hold",
            "Circuit breaker open until 12:01:00 UTC: s3://b: AccessDenied",
        ),
        *(
            (
                {
                    "open_breakers": {
                        "s3://b": OpenBreaker(f"s3://b: {kind.value} (on h)", NOW + MINUTE, kind.code)
                    }
                },
                kind.code,
                f"s3://b: {kind.value} (on h)",
            )
            for kind in Kind
        ),
        (
            {"counts": counts(waiting=1500), "failing": (Failing("s3://b: timed out", 200, or_more=True),)},
            "many_fail",
            "200 or more assets keep failing for one reason: s3://b: timed out",
        ),
        ({"failing": (Failing("503", MANY),)}, "many_fail", "10 assets keep failing for one reason: 503"),
        (
            {"reported": (finding("machine_fault", "The machine of a fails: no memory"),)},
            "machine_fault",
            "The machine of a fails: no memory",
        ),
        ({"at_risk": (row("a"),)}, "at_risk", "1 asset is at risk: not saved, and less than 3 days are left"),
        ({"at_risk": (row("a"),) * 20, "at_risk_or_more": True}, "at_risk", "20 or more assets are at risk"),
        ({"counts": counts(archived=1, lost=2)}, "lost", "2 assets are lost: gone at 100ms"),
        ({"counts": counts(archived=1, damaged=1)}, "damaged", "1 asset is damaged: no longer whole"),
        ({"counts": counts(quarantined=1)}, "quarantined", "1 asset is stored with doubts: look"),
        (
            {"counts": counts(source_failed=1)},
            "source_failed",
            "1 asset failed at 100ms: final, there is nothing to save.",
        ),
        (
            {"counts": counts(needs_source_access=1)},
            "needs_source_access",
            "1 asset needs access: not saved, because our credentials cannot read",
        ),
        (
            {"counts": counts(lost=2, acknowledged={AssetState.LOST: 1})},
            "lost",
            "1 asset is lost",
        ),
        (
            {"counts": Counts(4, {AssetState.ARCHIVED: 3})},
            "ledger_out_of_balance",
            "4 assets were seen and 3 have a state.",
        ),
    ],
)
def test_not_well(observed: dict[str, Any], code: str, words: str) -> None:
    health = assess(replace(WELL, **observed))

    assert [problem.id for problem in health.problems] == [code]
    assert words in health.problems[0].text
    assert (health.healthy, health.exit_code) == (False, 1)
    assert health.headline.startswith("Needs attention: ")
    assert "safe" not in health.headline, "it may only be said when it is known"


@pytest.mark.parametrize(
    ("observed", "headline"),
    [
        ({"counts": counts(), "last_sweep": None}, "Needs attention: nothing is known yet."),
        ({"counts": counts(), "watched_at": NOW - HOUR}, "Needs attention: no asset seen yet."),
        ({"last_sweep": began(HOUR)}, "Needs attention: 3 of 3 known assets are archived."),
        (
            {"counts": counts(archived=1, source_failed=2)},
            "Needs attention: 1 of 3 known assets are archived; 2 failed at 100ms.",
        ),
        (
            {"counts": counts(archived=1, waiting=2, lost=1)},
            "Needs attention: 1 of 4 known assets are archived; 2 not saved yet, 1 lost.",
        ),
        (
            {"counts": Counts(4, {AssetState.ARCHIVED: 3})},
            "Needs attention: the account does not balance: what it says cannot be relied on.",
        ),
    ],
)
def test_the_headline_of_what_is_not_well(observed: dict[str, Any], headline: str) -> None:
    assert assess(replace(WELL, **observed)).headline == headline


def test_what_is_worth_knowing_is_no_problem() -> None:
    health = assess(replace(WELL, reported=(finding("scrubbed", "one: 3 copies."),)))

    assert (health.headline, health.exit_code) == ("All 3 assets are safe.", 0)
    assert health.notes == ("one: 3 copies.",)


WHOLE, LACKING, DAMAGED = CopyState.WHOLE, CopyState.LACKING, CopyState.DAMAGED


@pytest.mark.parametrize(
    ("case", "copies", "removed", "causes"),
    [
        ("nothing is known of the copies", {}, (), []),
        ("both hold all", {"one": {WHOLE: 3}, "two": {WHOLE: 3}}, (), []),
        ("one lacks some", {"one": {WHOLE: 3}, "two": {WHOLE: 1, LACKING: 2}}, (), [("two", 2)]),
        ("one has some damaged", {"one": {WHOLE: 3}, "two": {WHOLE: 2, DAMAGED: 1}}, (), [("two", 1)]),
        ("each lacks one", {"one": {LACKING: 1}, "two": {LACKING: 1}}, (), [("one", 1), ("two", 1)]),
        ("what was removed may lack it", {"one": {WHOLE: 3}, "two": {LACKING: 3}}, ("two",), []),
        ("all is replaced", {"one": {WHOLE: 3}, "two": {LACKING: 3}}, ("one",), [("two", 3)]),
    ],
)
def test_it_is_healthy_only_when_every_destination_holds_what_is_archived(
    case: str,
    copies: dict[str, dict[CopyState, int]],
    removed: tuple[str, ...],
    causes: list[tuple[str, int]],
) -> None:
    summary = replace(
        WELL, counts=replace(WELL.counts, copies=copies), removed_destinations=frozenset(removed)
    )

    health = assess(summary)

    assert [(each.id, each.cause, each.level) for each in health.problems] == [
        ("copies_missing", cause, number) for cause, number in causes
    ], case
    assert health.exit_code == (1 if causes else 0)
    assert ("safe" in health.headline) is not bool(causes)


def test_a_replication_that_fails_says_why() -> None:
    counts_ = replace(WELL.counts, copies={"two": {LACKING: 2}})
    failed = {"failed": 2, "reason": "two: AccessDenied: 403"}

    [problem] = assess(replace(WELL, counts=counts_, replicated=failed)).problems

    assert "failed for 2: two: AccessDenied: 403" in problem.text


def test_what_a_destination_refused_and_is_not_tried_yet_is_told() -> None:
    counts_ = replace(WELL.counts, copies={"two": {LACKING: 2}})
    waiting = {"failed": 0, "waiting": 2, "reason": "two: AccessDenied: 403"}

    [problem] = assess(replace(WELL, counts=counts_, replicated=waiting)).problems

    assert "2 that could not be copied are tried again within a day: two: AccessDenied: 403" in problem.text


def test_every_rule_that_fires_is_reported() -> None:
    everything = replace(
        WELL,
        counts=counts(lost=1, waiting=1),
        at_risk=(row("a"),),
        last_sweep=began(HOUR),
        watched_at=NOW - HOUR,
        open_breakers={"s3://b": OpenBreaker("403", NOW + MINUTE)},
    )

    codes = [problem.id for problem in assess(everything).problems]

    assert codes == ["at_risk", "lost", "sweep_is_late", "control_is_silent", "on_hold"]


def test_acknowledged_ends_are_noted_and_no_problem() -> None:
    reviewed = replace(WELL, counts=counts(archived=1, lost=2, acknowledged={AssetState.LOST: 2}))

    health = assess(reviewed)

    assert health.healthy
    assert health.headline == "1 of 3 known assets are archived; 2 lost."
    assert health.notes == ("Acknowledged, and not counted as problems: 2 lost.",)


def test_every_problem_has_an_action_and_a_row_in_the_manual() -> None:
    rows = [line.split("|")[1] for line in MANUAL.read_text().splitlines() if line.startswith("|")]

    for rule in RULES.values():
        if rule.severity is Severity.INFO:
            continue
        assert rule.action, rule.id
        named = {f"`{rule.id}`", f"`{rule.id.replace('_', ' ')}`", f"`{rule.id.replace('_', ' ')}: "}
        assert any(name in row for row in rows for name in named), f"{rule.id} has no row in {MANUAL.name}"


def test_every_end_that_needs_a_person_and_every_trouble_of_a_destination_has_a_rule() -> None:
    assert {*(state.value for state in ATTENTION_STATES), *(kind.code for kind in Kind)} <= set(RULES)


def test_a_problem_alone_makes_the_account_unhealthy() -> None:
    for rule in RULES.values():
        health = assess(replace(WELL, reported=(finding(rule.id, "why"),)))

        assert [each.rule for each in health.findings] == [rule]
        assert health.exit_code == (0 if rule.severity is Severity.INFO else 1)

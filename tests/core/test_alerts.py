"""Who is told what: once per cause and level, again when it gets worse, and of the end when it has ended."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.core.alerts import (
    FAILING_AFTER,
    GROWTH_AFTER,
    MOST_ALERTS,
    RESOLVED_AFTER,
    RETRY_AFTER,
    AlertBook,
    Channel,
)
from archiver.core.health import Summary, alert_findings
from archiver.core.health_rules import RULES, Finding, Severity, finding
from archiver.core.upkeep import status
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Counts, Row, Seen
from tests.core.examples import NOW
from tests.core.fakes import Clock

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PAGER = Channel("pagerduty 1", Severity.CRITICAL)
CHAT = Channel("slack 2", Severity.WARNING)
LOST = finding("lost", "1 asset is lost.", level=1)
HELD = finding("on_hold", "s3://b: 503", cause="s3://b")


class Office:
    """A book, a clock, and people at two channels; what each of them was told, one line a message."""

    def __init__(self, *channels: Channel) -> None:
        self.book = AlertBook()
        self.clock = Clock(NOW)
        self.channels = channels or (PAGER, CHAT)
        self.told: dict[str, list[str]] = {channel.name: [] for channel in self.channels}
        self.down: set[str] = set()

    def look(self, *findings: Finding, after: timedelta = MINUTE) -> None:
        self.clock.advance(after)
        self.book = self.book.observe(findings, self.clock(), lambda _: True)
        self.deliver()

    def deliver(self) -> None:
        for channel in self.channels:
            message = self.book.message(channel, self.clock())
            if message is None:
                continue
            if channel.name in self.down:
                self.book = self.book.failed(channel, "connection refused", self.clock())
                continue
            firing = [
                " ".join(filter(None, (alert.rule_id, alert.cause, str(alert.level))))
                for alert in message.firing
            ]
            ended = [f"resolved {alert.rule_id} {alert.cause}".strip() for alert in message.resolved]
            self.told[channel.name].append("; ".join([*firing, *ended]))
            self.book = self.book.delivered(channel, message, self.clock())

    def restart(self) -> None:
        self.book = AlertBook.from_fact(json.loads(json.dumps(self.book.as_fact())))


@pytest.fixture
def office() -> Office:
    return Office()


def lost(number: int) -> Finding:
    return finding("lost", f"{number} are lost.", level=number)


def test_a_cause_is_told_once_to_each_channel_that_wants_its_severity(office: Office) -> None:
    for _ in range(100):
        office.look(LOST, HELD)

    assert office.told == {PAGER.name: ["lost 1"], CHAT.name: ["lost 1; on_hold s3://b 0"]}


def test_what_is_only_worth_knowing_is_no_alert(office: Office) -> None:
    office.look(finding("forecast", "done in 9 h"))

    assert office.told == {PAGER.name: [], CHAT.name: []}


def test_two_destinations_are_two_causes(office: Office) -> None:
    office.look(HELD)
    office.look(HELD, finding("on_hold", "gs://c: 503", cause="gs://c"))

    assert office.told[CHAT.name] == ["on_hold s3://b 0", "on_hold gs://c 0"]


def test_nothing_is_told_twice_after_a_restart(office: Office) -> None:
    office.look(LOST, HELD)
    office.restart()
    office.look(LOST, HELD)

    assert office.told[CHAT.name] == ["lost 1; on_hold s3://b 0"]


def test_the_first_sweep_has_its_time(office: Office) -> None:
    first = finding("no_sweep", "No sweep has ended yet.")
    office.look(first)
    office.look(first, after=RULES["no_sweep"].alert_after - MINUTE)
    assert office.told[CHAT.name] == []
    office.look(first)

    assert office.told[CHAT.name] == ["no_sweep 0"]


class TestGettingWorse:
    def test_twice_as_many_are_told_at_once(self, office: Office) -> None:
        office.look(lost(2))
        office.look(lost(3))
        office.look(lost(4))

        assert office.told[PAGER.name] == ["lost 2", "lost 4"]

    def test_one_more_is_told_within_hours(self, office: Office) -> None:
        office.look(lost(2))
        office.look(lost(3))
        office.look(lost(3), after=GROWTH_AFTER)
        office.look(lost(3), after=GROWTH_AFTER)

        assert office.told[PAGER.name] == ["lost 2", "lost 3"]

    def test_an_outage_of_ten_thousand_assets_is_some_messages(self, office: Office) -> None:
        for number in range(1, 10_001):
            office.look(lost(number), after=timedelta(seconds=1))

        assert len(office.told[PAGER.name]) == 14

    def test_a_new_one_after_old_ones_were_acknowledged_is_told(self, office: Office) -> None:
        office.look(lost(8))
        office.look(lost(1))
        office.look(lost(2))

        assert office.told[PAGER.name] == ["lost 8", "lost 2"]


class TestResolved:
    def test_it_is_told_once_to_those_who_were_told_that_it_fires(self, office: Office) -> None:
        office.look(HELD)
        for _ in range(30):
            office.look()

        assert office.told == {PAGER.name: [], CHAT.name: ["on_hold s3://b 0", "resolved on_hold s3://b"]}
        assert office.book.alerts == {}

    def test_a_fault_that_comes_and_goes_is_one_fault(self, office: Office) -> None:
        for _ in range(20):
            office.look(HELD)
            office.look(after=RESOLVED_AFTER - 2 * MINUTE)

        assert office.told[CHAT.name] == ["on_hold s3://b 0"]

    def test_a_second_outage_is_told_again(self, office: Office) -> None:
        office.look(HELD)
        office.look()
        office.look(after=RESOLVED_AFTER)
        office.look(HELD)

        assert office.told[CHAT.name] == ["on_hold s3://b 0", "resolved on_hold s3://b", "on_hold s3://b 0"]

    def test_a_look_that_could_not_see_resolves_nothing(self, office: Office) -> None:
        office.look(HELD)
        for _ in range(30):
            office.clock.advance(MINUTE)
            office.book = office.book.add(
                finding("ledger_unreachable", "Redis is unreachable."), office.clock()
            )
            office.deliver()

        assert office.told[CHAT.name] == ["on_hold s3://b 0", "ledger_unreachable 0"]

    def test_it_came_back_before_everybody_knew_that_it_had_gone(self, office: Office) -> None:
        office.look(HELD)
        office.down.add(CHAT.name)
        office.look()
        office.look(after=RESOLVED_AFTER)
        office.down.clear()
        office.look(HELD)

        assert office.told[CHAT.name] == ["on_hold s3://b 0"]


class TestChannels:
    def test_one_that_fails_is_retried_with_pauses_and_told_once(self, office: Office) -> None:
        office.down.add(PAGER.name)
        office.look(LOST)
        office.look(LOST, after=timedelta(seconds=1))
        assert office.book.deliveries[PAGER.name].failures == 1
        office.look(LOST, after=RETRY_AFTER[0])
        assert office.book.deliveries[PAGER.name].failures == 2
        office.down.clear()
        office.look(LOST, after=RETRY_AFTER[1])

        assert office.told == {PAGER.name: ["lost 1"], CHAT.name: ["lost 1"]}
        assert office.book.deliveries == {}

    def test_one_that_goes_on_failing_is_known(self, office: Office) -> None:
        office.down.add(PAGER.name)
        for _ in range(FAILING_AFTER):
            assert not office.book.failing_channels
            office.look(LOST, after=HOUR)

        assert office.book.failing_channels[PAGER.name].reason == "connection refused"

    def test_what_got_worse_while_it_failed_is_one_message(self, office: Office) -> None:
        office.down.add(PAGER.name)
        office.look(lost(1))
        office.look(lost(2))
        office.down.clear()
        office.look(lost(4), after=HOUR)

        assert office.told[PAGER.name] == ["lost 4"]

    def test_one_that_is_no_longer_configured_is_waited_for_no_more(self, office: Office) -> None:
        office.look(HELD)
        office.look()
        office.down.add(CHAT.name)
        office.look(after=RESOLVED_AFTER)
        assert office.book.alerts

        assert office.book.only([PAGER]).alerts == {}
        assert office.book.only([PAGER]).deliveries == {}

    def test_a_new_one_is_told_what_fires(self, office: Office) -> None:
        office.look(LOST)
        mail = Channel("mail 3", Severity.CRITICAL)

        message = office.book.message(mail, office.clock())

        assert message is not None
        assert [alert.rule_id for alert in message.firing] == ["lost"]


class TestTheBook:
    def test_more_causes_than_it_keeps_are_one_disaster(self, office: Office) -> None:
        office.look(*(finding("machine_fault", "no disk", cause=f"w{number}") for number in range(1000)))

        assert len(office.book.alerts) == MOST_ALERTS

    def test_two_processes_join_what_they_know(self) -> None:
        first, second = Office(), Office()
        first.look(LOST)
        second.look(LOST, HELD)
        first.book = first.book.merge(second.book)
        first.look(LOST, HELD)

        assert first.told == {PAGER.name: ["lost 1"], CHAT.name: ["lost 1"]}

    @pytest.mark.parametrize("mine_is_joined", [True, False])
    def test_what_both_have_told_counts_from_the_later_time(self, mine_is_joined: bool) -> None:
        """Such as by one that the ledger did not answer: else a level that rises is told again too early."""
        first, second = Office(), Office()
        first.look(lost(5))
        second.look(lost(5), after=GROWTH_AFTER / 2)
        books = [first.book, second.book]
        first.book = books[mine_is_joined].merge(books[not mine_is_joined])

        first.look(lost(6), after=GROWTH_AFTER)
        too_early = list(first.told[PAGER.name])
        first.look(lost(6), after=GROWTH_AFTER / 2)

        assert too_early == ["lost 5"]
        assert first.told[PAGER.name] == ["lost 5", "lost 6"]

    @pytest.mark.parametrize(
        "fact",
        [
            {},
            {"alerts": 3},
            {"alerts": [3, {}, {"rule": "lost"}]},
            {"deliveries": [1]},
            {"deliveries": {"a": 1}},
            {"digest_at": 7},
        ],
    )
    def test_a_fact_of_another_shape_is_an_empty_book(self, fact: dict[str, object]) -> None:
        assert AlertBook.from_fact(fact) == AlertBook()

    def test_an_alert_of_a_rule_that_is_gone_is_dropped(self, office: Office) -> None:
        office.look(LOST)
        fact = office.book.as_fact()
        text = json.dumps(fact).replace('"lost"', '"a_rule_of_an_older_version"')

        assert AlertBook.from_fact(json.loads(text)).alerts == {}

    @given(st.lists(st.tuples(st.sets(st.sampled_from(sorted(RULES))), st.integers(1, 700)), max_size=30))
    def test_whatever_happens_the_same_level_of_a_cause_is_told_once_until_it_is_resolved(
        self, looks: list[tuple[set[str], int]]
    ) -> None:
        office = Office(Channel("all", Severity.INFO))
        for rules, minutes in looks:
            office.look(*(finding(rule, "x", level=1) for rule in sorted(rules)), after=minutes * MINUTE)
            office.restart()

        state: dict[str, str] = {}
        for word in "; ".join(office.told["all"]).split("; ") if office.told["all"] else []:
            rule = word.removeprefix("resolved ").removesuffix(" 1").strip()
            now = "resolved" if word.startswith("resolved ") else "firing"
            assert state.get(rule, "resolved") != now, office.told
            state[rule] = now


class TestDigest:
    @pytest.mark.parametrize(
        ("last", "hour", "due"),
        [
            (None, 11, False),
            (None, 13, False),
            (-1, 11, False),
            (-25, 11, True),
            (-3, 10, True),
            (-24, 13, False),
        ],
    )
    def test_it_is_due_once_a_day(self, last: int | None, hour: int, due: bool) -> None:
        """NOW is 12:00."""
        book = AlertBook(digest_at=None if last is None else NOW + last * HOUR)

        assert book.digest_is_due(NOW, hour) is due


class TestAtRisk:
    def test_each_level_is_a_cause_with_the_most_urgent_asset_named(self) -> None:
        rows = tuple(_row(name, left) for name, left in (("a", HOUR), ("b", 2 * DAY), ("c", 2 * DAY)))
        summary = Summary(
            at=NOW,
            counts=Counts(3, {AssetState.WAITING: 3}),
            at_risk_within=7 * DAY,
            sweep_every=HOUR,
            last_sweep={"started_at": NOW.isoformat()},
            at_risk=rows,
            crossings={1: 4, 3: 9},
        )

        found = {each.cause: each for each in alert_findings(summary) if each.id == "at_risk"}

        assert {cause: each.level for cause, each in found.items()} == {"1 d": 4, "3 d": 9}
        assert "1 asset not saved, with less than 1 day left. The most urgent is a" in found["1 d"].text
        assert "2 assets not saved" in found["3 d"].text

    def test_an_asset_that_comes_under_a_level_raises_it_although_another_one_left(self) -> None:
        clock = Clock(NOW)
        ledger = MemoryLedger(clock)
        watcher = Watcher(ledger=ledger, clock=clock, at_risk_within=7 * DAY, sweep_every=HOUR)
        ledger.discover([Seen("a", "chat", NOW + HOUR, AssetState.DISCOVERED)])
        watcher.watch()
        watcher.watch()
        ledger.discover([Seen("a", "chat", NOW + HOUR, AssetState.SKIPPED)])
        ledger.discover([Seen("b", "chat", NOW + HOUR, AssetState.DISCOVERED)])
        watcher.watch()

        assert ledger.recall(status.CROSSINGS_FACT) == {"1": 2}
        [found] = [each for each in alert_findings(watcher.summary()) if each.id == "at_risk"]
        assert found.level == 2


def _row(asset_id: str, left: timedelta) -> Row:
    return replace(
        Row(asset_id, "chat", AssetState.WAITING, NOW + left, NOW, NOW), reason="the source answered 503"
    )


def test_a_channel_is_not_silenced_by_a_clock_that_was_ahead() -> None:
    """A process that began while the ledger was down had no other clock than its machine's."""
    book = AlertBook().failed(CHAT, "503", NOW + 300 * DAY).observe([LOST], NOW, lambda _: True)

    assert book.message(CHAT, NOW) is not None

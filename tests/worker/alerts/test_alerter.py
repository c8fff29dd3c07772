"""The loop that tells people: once, whatever restarts, and also when the ledger is unreachable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import pytest

from archiver.core.alerts import BOOK_FACT, FAILING_AFTER, RESOLVED_AFTER, AlertBook, Channel
from archiver.core.destinations import breaker, failures
from archiver.core.destinations.registry import Registered, Registry
from archiver.core.health import Summary
from archiver.core.health_rules import Severity
from archiver.core.upkeep import status
from archiver.core.upkeep.reports import BEGAN, RECONCILE_FACT
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen, Settlement
from tests.core.examples import NOW
from tests.core.fakes import Clock
from worker.alerts.alerter import AWAY_AFTER, LOCK_TTL, Alerter, resolve
from worker.alerts.channels import DeliveryFailed, OpenChannel

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Inbox:
    """What one channel was told: title and body."""

    def __init__(self, name: str, lowest: Severity = Severity.WARNING) -> None:
        self.channel = Channel(name, lowest)
        self.titles: list[str] = []
        self.bodies: list[str] = []
        self.down = False

    def send(self, title: str, body: str, _severity: Severity) -> None:
        if self.down:
            raise DeliveryFailed("the service answered 500")
        self.titles.append(title)
        self.bodies.append(body)


class Installation:
    """A ledger whose account is well, and its clock. `away`: the ledger does not answer."""

    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.away = False
        installation = self

        class Ledger(MemoryLedger):
            def lock(self, name: str, duration: timedelta) -> str | None:
                if installation.away:
                    raise LedgerUnavailable("redis://h: connection refused")
                return super().lock(name, duration)

        self.ledger = Ledger(self.clock)
        self.works()

    def works(self) -> None:
        """What runs well leaves behind."""
        now = self.clock().isoformat()
        self.ledger.remember("sweep", {"started_at": now, "ended_at": now})
        self.ledger.remember(status.WATCH_FACT, {"at": now})

    def summary(self) -> Summary:
        return status.summarize(self.ledger, self.clock(), at_risk_within=3 * DAY, sweep_every=HOUR)

    def loses(self, asset_id: str) -> None:
        seen = Seen(asset_id, "chat", self.clock() + 10 * DAY, AssetState.DISCOVERED)
        self.ledger.discover([seen])
        lease = self.ledger.lease(asset_id, "w", HOUR)
        assert lease is not None
        self.ledger.settle(lease, seen, Settlement(AssetState.LOST, reason="404"))


Look = Callable[..., None]


@pytest.fixture
def installation() -> Installation:
    return Installation()


def alerter(installation: Installation, *inboxes: Inbox, digest_hour: int = -1) -> Alerter:
    began = installation.clock()

    def steady() -> float:
        return (installation.clock() - began).total_seconds()

    return Alerter(
        ledger=installation.ledger,
        summarize=installation.summary,
        channels=[OpenChannel(inbox.channel, inbox.send) for inbox in inboxes],
        digest_hour=digest_hour,
        steady=steady,
        elapsed=steady,
    )


def look(installation: Installation, *alerters: Alerter, times: int = 1, working: bool = True) -> None:
    """Every minute."""
    for _ in range(times):
        installation.clock.advance(MINUTE)
        if working:
            installation.works()
        for each in alerters:
            each.look()


def test_all_is_well_and_nobody_is_told(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    look(installation, alerter(installation, inbox), times=60)

    assert inbox.titles == []


def test_a_loss_is_told_with_what_to_do(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    installation.loses("a1")
    look(installation, telling, times=60)

    assert inbox.titles == ["archiver: critical: lost"]
    [body] = inbox.bodies
    assert "1 asset is lost" in body
    assert "What to do: Ask 100ms support at once." in body


def test_dead_control_worker_is_told_and_so_is_its_return(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    look(installation, telling, times=10, working=False)
    look(installation, telling, times=15)

    assert inbox.titles == [
        "archiver: critical: control is silent",
        "archiver: resolved: control is silent",
    ]


def test_a_ledger_that_is_away_is_told_from_memory_and_resolves_nothing(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    installation.loses("a1")
    look(installation, telling)
    installation.away = True
    look(installation, telling, times=60)
    installation.away = False
    look(installation, telling, times=15)

    assert inbox.titles == [
        "archiver: critical: lost",
        "archiver: critical: ledger unreachable",
        "archiver: resolved: ledger unreachable",
    ]


def test_a_ledger_that_is_away_for_a_moment_is_not_told(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    look(installation, telling)
    installation.away = True
    look(installation, telling, times=AWAY_AFTER // MINUTE)
    installation.away = False
    look(installation, telling, times=15)

    assert inbox.titles == []


def test_a_ledger_that_never_answered_is_told(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    installation.away = True
    look(installation, alerter(installation, inbox), times=5)

    assert inbox.titles == ["archiver: critical: ledger unreachable"]


def test_two_processes_and_a_restart_tell_nothing_twice(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    installation.loses("a1")
    look(installation, alerter(installation, inbox), alerter(installation, inbox), times=5)
    look(installation, alerter(installation, inbox), times=5)

    assert inbox.titles == ["archiver: critical: lost"]


def test_what_another_process_has_resolved_is_told_when_it_comes_back(installation: Installation) -> None:
    """The first process remembers that it told; the book in the ledger says that this is over."""
    inbox = Inbox("slack 1")
    first, second = alerter(installation, inbox), alerter(installation, inbox)
    installation.loses("a1")
    look(installation, first, second)
    installation.ledger.acknowledge("a1", "ann", "asked")
    look(installation, second, times=15)
    installation.loses("a2")
    look(installation, first, second, times=15)

    assert inbox.titles == [
        "archiver: critical: lost",
        "archiver: resolved: lost",
        "archiver: critical: lost",
    ]


def test_what_is_over_is_told_once_by_two_processes(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    first, second = alerter(installation, inbox), alerter(installation, inbox)
    installation.loses("a1")
    look(installation, first, second)
    installation.ledger.acknowledge("a1", "ann", "asked")
    look(installation, first, second, times=40)

    assert inbox.titles == ["archiver: critical: lost", "archiver: resolved: lost"]


def test_a_second_process_waits_while_the_first_one_is_slow_to_send(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    second = alerter(installation, inbox)
    send = inbox.send

    def slowly(title: str, body: str, _severity: Severity) -> None:
        installation.clock.advance(timedelta(seconds=40))
        second.look()
        send(title, body, _severity)

    inbox.send = slowly  # type: ignore[method-assign]
    installation.loses("a1")
    look(installation, alerter(installation, inbox), second, times=2)

    assert inbox.titles == ["archiver: critical: lost"]


def test_a_process_that_was_paused_does_not_replace_the_book_of_another(installation: Installation) -> None:
    """While the first one sends, the second tells that it is over: when it comes back, that is news."""
    inbox, other = Inbox("slack 1"), Inbox("slack 1")
    second = alerter(installation, other)
    send = inbox.send

    def paused(title: str, body: str, _severity: Severity) -> None:
        send(title, body, _severity)
        if other.titles:
            return
        installation.clock.advance(LOCK_TTL)
        look(installation, second)
        installation.ledger.acknowledge("a1", "ann", "asked")
        look(installation, second, times=15)

    inbox.send = paused  # type: ignore[method-assign]
    installation.loses("a1")
    first = alerter(installation, inbox)
    look(installation, first)
    installation.loses("a2")
    look(installation, first, times=2)

    assert other.titles == ["archiver: critical: lost", "archiver: resolved: lost"]
    assert inbox.titles == ["archiver: critical: lost", "archiver: critical: lost"]


def test_a_lock_that_ended_while_nobody_else_looked_costs_no_second_message(
    installation: Installation,
) -> None:
    inbox = Inbox("slack 1")
    send = inbox.send

    def slowly(title: str, body: str, _severity: Severity) -> None:
        send(title, body, _severity)
        installation.clock.advance(LOCK_TTL)

    inbox.send = slowly  # type: ignore[method-assign]
    installation.loses("a1")
    look(installation, alerter(installation, inbox), times=5)

    assert inbox.titles == ["archiver: critical: lost"]


def test_a_process_that_was_paused_before_it_sent_sends_nothing(installation: Installation) -> None:
    """Meanwhile the lock has ended, and another process has sent it."""
    inbox = Inbox("slack 1")
    first, second = alerter(installation, inbox), alerter(installation, inbox)
    recall = installation.ledger.recall

    def paused(name: str) -> Mapping[str, object] | None:
        fact = recall(name)
        if name == BOOK_FACT:
            installation.ledger.recall = recall  # type: ignore[method-assign]
            installation.clock.advance(LOCK_TTL)
            look(installation, second)
        return fact

    installation.loses("a1")
    installation.ledger.recall = paused  # type: ignore[method-assign]
    look(installation, first)
    look(installation, first, second, times=5)

    assert inbox.titles == ["archiver: critical: lost"]


@pytest.mark.parametrize("other_looks", [1, 2])
@pytest.mark.parametrize("lost_with", ["flush", "rollback"])
def test_what_one_process_sent_before_the_ledger_lost_it_is_not_sent_again(
    installation: Installation, lost_with: str, other_looks: int
) -> None:
    """Another one that did not know of it keeps a book first, of any revision."""
    inbox = Inbox("slack 1")
    first, second = alerter(installation, inbox), alerter(installation, inbox)
    look(installation, first, second)
    before = installation.ledger.recall(BOOK_FACT)
    assert before is not None
    installation.loses("a1")
    look(installation, first)
    if lost_with == "flush":
        installation.ledger.clear()
        look(installation, second, times=other_looks)
        installation.loses("a1")
    else:
        installation.ledger.remember(BOOK_FACT, before)
        inbox.down = True
        look(installation, second, times=other_looks)
        inbox.down = False
    look(installation, first, times=5)
    installation.clock.advance(HOUR)
    look(installation, second, first, times=5)

    assert inbox.titles == ["archiver: critical: lost"]


def test_a_book_of_an_earlier_version_is_taken_by_its_revision(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    installation.loses("a1")
    look(installation, telling)
    book = dict(installation.ledger.recall(BOOK_FACT) or {})
    del book["writes"]
    installation.ledger.remember(BOOK_FACT, {**book, "revision": 7, "alerts": []})
    installation.ledger.acknowledge("a1", "ann", "asked")
    look(installation, telling, times=20)

    assert inbox.titles == ["archiver: critical: lost"]


def test_a_flushed_ledger_makes_a_running_process_tell_nothing_twice(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    installation.loses("a1")
    look(installation, telling)
    installation.ledger.clear()
    installation.loses("a1")
    look(installation, telling, times=5)

    assert inbox.titles == ["archiver: critical: lost"]


def test_a_channel_that_fails_is_told_through_the_others_and_in_status(installation: Installation) -> None:
    chat, mail = Inbox("slack 1"), Inbox("mailto 2")
    telling = alerter(installation, chat, mail)
    mail.down = True
    installation.loses("a1")
    look(installation, telling, times=5 * FAILING_AFTER)

    assert chat.titles == ["archiver: critical: lost", "archiver: warning: alert channel fails"]
    assert any("Alerts do not reach mailto 2" in each.text for each in installation.summary().reported)
    mail.down = False
    look(installation, telling, times=60)
    assert mail.titles[0] == "archiver: critical: lost, alert channel fails"
    assert not AlertBook.from_fact(installation.ledger.recall(BOOK_FACT)).failing_channels


def test_a_destination_that_is_away_is_one_alert_with_its_name(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    for _ in range(30):
        breaker.trip(installation.ledger, "s3://bucket", "s3://bucket: 503", installation.clock())
        look(installation, telling)

    assert inbox.titles == ["archiver: warning: on hold"]
    assert "s3://bucket" in inbox.bodies[0]


class TestDigest:
    def test_it_comes_once_a_day_to_those_who_get_warnings(self, installation: Installation) -> None:
        chat, pager = Inbox("slack 1"), Inbox("pagerduty 2", Severity.CRITICAL)
        telling = alerter(installation, chat, pager, digest_hour=8)
        for _ in range(3 * 24):
            installation.clock.advance(HOUR - MINUTE)
            look(installation, telling)

        assert chat.titles == [f"archiver: daily digest, 2026-03-0{day}" for day in (2, 3, 4)], (
            "not on the first day, when nothing is known yet"
        )
        assert pager.titles == []
        assert "No asset seen yet" in chat.bodies[0] or "100ms lists no asset" in chat.bodies[0]

    def test_it_tells_what_fires_in_words(self, installation: Installation) -> None:
        inbox = Inbox("slack 1")
        telling = alerter(installation, inbox, digest_hour=8)
        look(installation, telling)
        installation.clock.advance(DAY - MINUTE)
        breaker.trip(installation.ledger, "s3://bucket", "s3://bucket: 503", installation.clock())
        look(installation, telling)

        (digest,) = [
            body for title, body in zip(inbox.titles, inbox.bodies, strict=True) if "digest" in title
        ]
        (line,) = [each for each in digest.splitlines() if each.startswith("WARNING on_hold, since 2026-03-")]
        assert "s3://bucket: 503" in line

    def test_none_is_sent_where_none_is_wanted(self, installation: Installation) -> None:
        inbox = Inbox("slack 1")
        look(installation, alerter(installation, inbox, digest_hour=-1), times=3)

        assert inbox.titles == []


def test_the_loop_survives_whatever_a_look_meets(installation: Installation) -> None:
    looks: list[int] = []
    stopped = threading.Event()

    def summarize() -> Summary:
        looks.append(1)
        stopped.set()
        raise RuntimeError("an error in a rule")

    telling = Alerter(ledger=installation.ledger, summarize=summarize, channels=[], digest_hour=-1)
    telling.run(stopped)

    assert looks == [1]


def test_a_resolved_note_waits_until_nobody_can_be_mistaken(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    look(installation, telling, times=10, working=False)
    look(installation, telling, times=RESOLVED_AFTER // MINUTE)

    assert inbox.titles == ["archiver: critical: control is silent"]


@pytest.mark.parametrize("lost_with", ["flush", "rollback"])
def test_what_a_lost_ledger_forgot_is_not_resolved_before_it_is_known_again(
    installation: Installation, lost_with: str
) -> None:
    inbox = Inbox("slack 1")
    first, second = alerter(installation, inbox), alerter(installation, inbox)
    look(installation, first, second)
    before = installation.ledger.recall_all("")
    installation.loses("a1")
    look(installation, first, second)
    installation.ledger.clear()
    if lost_with == "rollback":
        for name, fact in before.items():
            installation.ledger.remember(name, fact)
    look(installation, first, second, times=60)  # sweeps and watches go on
    assert inbox.titles == ["archiver: critical: lost"]
    assert [alert.rule_id for alert in first.firing()] == ["lost"]

    restarted = alerter(installation, inbox)
    reconciles(installation)
    look(installation, restarted, times=5)

    assert inbox.titles == ["archiver: critical: lost", "archiver: resolved: lost"]


def test_a_reconcile_that_began_before_the_loss_is_no_evidence(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    installation.loses("a1")
    look(installation, telling)
    began = installation.clock()
    installation.clock.advance(MINUTE)
    installation.ledger.clear()
    reconciles(installation, began=began)
    look(installation, telling, times=60)

    assert inbox.titles == ["archiver: critical: lost"]


def test_a_ledger_clock_that_was_set_back_makes_no_evidence_and_does_not_keep_it_out(
    installation: Installation,
) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    installation.loses("a1")
    look(installation, telling)
    installation.ledger.clear()
    look(installation, telling, times=5)
    reconciles(installation)
    installation.clock.advance(-10 * DAY)
    look(installation, telling, times=30)
    assert inbox.titles == ["archiver: critical: lost", "archiver: critical: clock is wrong"]

    reconciles(installation)
    look(installation, telling, times=30)
    assert inbox.titles[2:] == ["archiver: resolved: lost", "archiver: resolved: clock is wrong"]


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_destination_that_nobody_looks_at_is_not_resolved(
    installation: Installation, is_removed: bool
) -> None:
    """Its record expires. A reconcile that ends has read every destination that is configured."""
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    ledger, now = installation.ledger, installation.clock()
    failures.record(ledger, "s3://b", "host", failures.Kind.UNKNOWN, "no marker", now, 5 * MINUTE)
    look(installation, telling, times=120)
    assert inbox.titles == ["archiver: critical: destination unknown"]

    if is_removed:
        Registry(ledger, None).remember("s3://b", Registered(id="1", removed=True))
    reconciles(installation)
    look(installation, telling)
    assert inbox.titles[1:] == ["archiver: resolved: destination unknown"]


def reconciles(installation: Installation, began: datetime | None = None) -> None:
    now = installation.clock()
    times = {BEGAN: (began or now).isoformat(), "at": now.isoformat()}
    installation.ledger.remember(RECONCILE_FACT, times)


def test_what_a_person_resolves_is_told_by_a_running_process(installation: Installation) -> None:
    inbox = Inbox("slack 1")
    telling = alerter(installation, inbox)
    installation.loses("a1")
    look(installation, telling)
    installation.ledger.clear()
    look(installation, telling, times=30)
    resolve(installation.ledger, "lost", None)
    look(installation, telling, times=2)

    assert inbox.titles == ["archiver: critical: lost", "archiver: resolved: lost"]

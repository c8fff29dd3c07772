from __future__ import annotations

from datetime import timedelta
from itertools import permutations

import pytest

from archiver.core.attempt.outcomes import Archived, NotOurs, WillRetry
from archiver.core.destinations import breaker, failures
from archiver.core.destinations.breaker import OPEN_FOR, OpenBreaker
from archiver.core.destinations.failures import Kind
from archiver.core.health import Summary, find
from archiver.core.judging import Scope, judge
from archiver.hms.errors import HmsUnauthorized
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import Counts
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec, Upload
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.core.harness import ArchiverHarness, file
from tests.transfer.stores import Wrapped

MINUTE = timedelta(minutes=1)
REFUSED, ANSWERED = "refused", "answered"


def test_a_breaker_is_open_until_its_time_and_names_its_reason() -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    breaker.trip(ledger, "s3://bucket", "403 AccessDenied", NOW)

    assert breaker.opened(ledger, NOW) == {"s3://bucket": OpenBreaker("403 AccessDenied", NOW + OPEN_FOR)}
    clock.advance(OPEN_FOR)
    assert breaker.opened(ledger, clock()) == {}


def test_the_last_refusal_counts() -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    breaker.trip(ledger, "s3://bucket", "first", NOW)
    clock.advance(MINUTE)
    breaker.trip(ledger, "s3://bucket", "second", clock())

    assert breaker.opened(ledger, clock()) == {"s3://bucket": OpenBreaker("second", NOW + MINUTE + OPEN_FOR)}


def test_closing_one_breaker_leaves_the_others_open() -> None:
    ledger = MemoryLedger(Clock(NOW))
    for name in ("s3://bucket", breaker.API):
        breaker.trip(ledger, name, "refused", NOW)

    breaker.close(ledger, "s3://bucket")
    breaker.close(ledger, "never open")

    assert set(breaker.opened(ledger, NOW)) == {breaker.API}


KINDS = (Kind.SILENT, Kind.REFUSES, Kind.UNKNOWN)


@pytest.mark.parametrize("kinds", list(permutations(KINDS)))
def test_the_worst_failure_of_a_destination_is_shown_whichever_machine_met_it(
    kinds: tuple[Kind, ...],
) -> None:
    ledger = MemoryLedger(Clock(NOW))
    for number, kind in enumerate(kinds):
        for at in (NOW + number * MINUTE, NOW + number * MINUTE + failures.FAULT_AFTER):
            failures.record(ledger, "disk", f"m{number}", kind, kind, at, timedelta(hours=1))

    assert [each.code for each in breaker.opened(ledger, NOW).values()] == ["destination_unknown"]


def test_of_failures_of_one_kind_the_longest_is_shown() -> None:
    ledger = MemoryLedger(Clock(NOW))
    for number in (1, 0, 2):
        at = NOW + number * MINUTE
        failures.record(ledger, "disk", f"m{number}", Kind.UNKNOWN, "no marker", at, timedelta(hours=1))

    assert breaker.opened(ledger, NOW)["disk"].reason == "no marker (on m0)"


def test_the_record_of_another_version_opens_nothing() -> None:
    ledger = MemoryLedger(Clock(NOW))
    ledger.remember("hold:s3://bucket", {"until": "soon"})

    assert breaker.opened(ledger, NOW) == {}


# -- one machine, or all ---------------------------------------------------------------------------------------
def stopped(ledger: MemoryLedger, clock: Clock) -> set[str]:
    """The machines for which the breaker of the API is open, of a, b and one that was never heard of."""
    opened = breaker.opened(ledger, clock())
    return {place for place in ("a", "b", "new") if breaker.API in breaker.opened_on(opened, place)}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], set()),
        # one machine's matter, however often
        ([("a", REFUSED, 0)], {"a"}),
        ([("a", REFUSED, 0), ("a", REFUSED, 1), ("a", REFUSED, 2)], {"a"}),
        # everybody's
        ([("a", REFUSED, 0), ("b", REFUSED, 1)], {"a", "b", "new"}),
        # two at different times have nothing to do with one another
        ([("a", REFUSED, 0), ("b", REFUSED, 6)], {"b"}),
        # others are answered
        ([("a", REFUSED, 0), ("c", ANSWERED, 1), ("b", REFUSED, 2)], {"a", "b"}),
        ([("a", REFUSED, 0), ("b", REFUSED, 1), ("c", ANSWERED, 2)], {"a", "b"}),
        # that was before anybody was refused: it says nothing
        ([("c", ANSWERED, 0), ("a", REFUSED, 1), ("b", REFUSED, 2)], {"a", "b", "new"}),
        # it is over by itself
        ([("a", REFUSED, 0), ("b", REFUSED, 1), ("", "nothing", 7)], set()),
    ],
)
def test_a_refusal_opens_the_breaker_of_one_machine_and_a_second_ones_that_of_all(
    events: list[tuple[str, str, int]], expected: set[str]
) -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)

    for place, event, minute in events:
        clock.now = NOW + minute * MINUTE
        if event == REFUSED:
            breaker.trip_on(ledger, breaker.API, place, "401", clock())
        elif event == ANSWERED:
            breaker.note_success(ledger, breaker.opened(ledger, clock()), breaker.API)

    assert stopped(ledger, clock) == expected


def test_people_see_which_machine_is_refused() -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)

    breaker.trip_on(ledger, breaker.API, "host-3", "401", clock())

    assert {name: each.reason for name, each in breaker.opened(ledger, clock()).items()} == {
        "the 100ms API (on host-3)": "401"
    }


def test_a_success_without_an_open_breaker_writes_nothing() -> None:
    ledger = MemoryLedger(Clock(NOW))

    breaker.note_success(ledger, {}, breaker.API)
    breaker.note_success(ledger, {"s3://bucket": OpenBreaker("full", NOW)}, breaker.API)

    assert ledger.recall_all("") == {}


@pytest.mark.parametrize(
    ("holder", "place"), [("archive@host-1", "host-1"), ("host-1", "host-1"), ("a@b@host", "host")]
)
def test_the_machine_of_a_worker_is_in_its_name(holder: str, place: str) -> None:
    assert breaker.machine_of(holder) == place


def test_a_machine_that_the_api_refuses_stops_no_other() -> None:
    assets = [asset(id=f"{number:024}", size=None) for number in range(12)]
    harness = ArchiverHarness(lambda: file(b"video" * 40), assets=assets)
    harness.ledger.discover([judge(each, Scope(RETENTION)) for each in assets])
    describe, refused = harness.api.asset, True

    def maybe_refuse(asset_id: str) -> Asset:
        harness.api.fail_on_page = (0, HmsUnauthorized("401")) if refused else None
        if refused:
            raise HmsUnauthorized("401")
        return describe(asset_id)

    harness.api.asset = maybe_refuse  # type: ignore[method-assign]
    outcomes: dict[bool, list[object]] = {True: [], False: []}
    for number, each in enumerate(assets):
        refused = number % 2 == 0
        worker = "archive@wrong-password" if refused else f"archive@host-{number % 4}"
        outcomes[refused].append(harness.archiver.archive(each.id, worker))

    assert all(isinstance(outcome, WillRetry) and not outcome.costs_attempt for outcome in outcomes[True])
    assert all(isinstance(outcome, Archived) for outcome in outcomes[False])
    assert not any(isinstance(outcome, NotOurs) for outcome in outcomes[False])


def test_each_machine_respects_its_own_breakers_and_those_of_all() -> None:
    one, shared = OpenBreaker("403", NOW), OpenBreaker("full", NOW)
    opened = {"s3://a (on x)": one, "s3://b (on y)": one, "s3://c": shared, "s3://a": shared}

    assert breaker.opened_on(opened, "x") == {"s3://a": one, "s3://c": shared}
    assert breaker.opened_on(opened, "y") == {"s3://a": shared, "s3://b": one, "s3://c": shared}
    assert breaker.opened_on(opened, "z") == {"s3://a": shared, "s3://c": shared}


class Refusing(Wrapped):
    """A destination that refuses while `refuses` is true, as for a machine whose credentials or clock are wrong."""

    refuses = False

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self._maybe_refuse()
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> Upload:
        self._maybe_refuse()
        return super().begin(spec)

    def _maybe_refuse(self) -> None:
        if self.refuses:
            raise AccessDenied("403 RequestTimeTooSkewed")


def test_a_machine_that_a_destination_refuses_stops_no_other() -> None:
    assets = [asset(id=f"{number:024}", size=None) for number in range(12)]
    store = Refusing(MemoryBackend("one"))
    harness = ArchiverHarness(lambda: file(b"video" * 40), assets=assets, stores=[store])
    harness.ledger.discover([judge(each, Scope(RETENTION)) for each in assets])
    outcomes: dict[bool, list[object]] = {True: [], False: []}

    for number, each in enumerate(assets):
        store.refuses = number % 2 == 0
        worker = "archive@wrong-clock" if store.refuses else f"archive@host-{number % 4}"
        outcomes[store.refuses].append(harness.archiver.archive(each.id, worker))

    assert all(isinstance(outcome, WillRetry) and not outcome.costs_attempt for outcome in outcomes[True])
    assert all(isinstance(outcome, Archived) for outcome in outcomes[False])
    assert set(breaker.opened(harness.ledger, harness.clock())) == {"memory://one (on wrong-clock)"}


def test_a_half_open_breaker_is_told_for_an_hour_or_until_it_is_closed() -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    for name in ("s3://tried", "s3://not-tried"):
        breaker.trip(ledger, name, "403 AccessDenied", NOW)
    clock.advance(2 * OPEN_FOR)
    assert breaker.opened(ledger, clock()) == {}

    breaker.close(ledger, "s3://tried")
    assert set(breaker.not_closed(ledger, clock())) == {"s3://not-tried"}
    clock.advance(breaker.HALF_OPEN_FOR)
    assert breaker.not_closed(ledger, clock()) == {}


def test_a_success_closes_the_half_open_breaker_of_its_machine() -> None:
    first, second = assets = [asset(id=f"{number:024}", size=None) for number in range(2)]
    store = Refusing(MemoryBackend("one"))
    harness = ArchiverHarness(lambda: file(b"video" * 40), assets=assets, stores=[store])
    harness.ledger.discover([judge(each, Scope(RETENTION)) for each in assets])
    store.refuses = True
    harness.archiver.archive(first.id, "archive@a")
    harness.clock.advance(OPEN_FOR)
    assert set(breaker.not_closed(harness.ledger, harness.clock())) == {"memory://one (on a)"}

    store.refuses = False
    harness.archiver.archive(second.id, "archive@a")

    assert breaker.not_closed(harness.ledger, harness.clock()) == {}


def test_a_success_of_another_machine_leaves_a_breaker_half_open() -> None:
    ledger = MemoryLedger(Clock(NOW))
    breaker.trip_on(ledger, "s3://bucket", "a", "403", NOW)

    half_open = breaker.half_open(ledger.recall_all(""), NOW + OPEN_FOR)
    breaker.close_half_open(ledger, half_open, "s3://bucket", "b")

    assert set(breaker.not_closed(ledger, NOW + OPEN_FOR)) == {"s3://bucket (on a)"}


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_breaker_does_not_hide_that_it_is_another_destination(is_paused: bool) -> None:
    ledger = MemoryLedger(Clock(NOW))
    failures.record(ledger, "disk", "host-1", Kind.UNKNOWN, "no marker", NOW, timedelta(minutes=30))
    if is_paused:
        breaker.pause(ledger, "disk", by="ann", why="", now=NOW)
    else:
        breaker.trip(ledger, "disk", "403", NOW)
    opened = breaker.opened(ledger, NOW)
    found = find(Summary(NOW, Counts(0, {}), MINUTE, MINUTE, open_breakers=opened))

    assert {"disk"} == breaker.opened_on(opened, "host-1").keys()
    assert {(each.id, each.cause, each.text) for each in found if each.id == "destination_unknown"} == {
        ("destination_unknown", "disk", "disk: no marker (on host-1)")
    }
    assert ("paused" if is_paused else "on_hold") in {each.id for each in found}


def test_what_is_known_of_a_removed_destination_is_forgotten_on_every_machine() -> None:
    ledger = MemoryLedger(Clock(NOW))
    for name in ("s3://b", "s3://b-2"):
        breaker.trip_on(ledger, name, "host-1", "403", NOW)
        breaker.trip_on(ledger, name, "host-2", "403", NOW)
        breaker.pause(ledger, name, by="ann", why="", now=NOW)
        for host in ("host-1", "host-2"):
            failures.record(ledger, name, host, Kind.UNKNOWN, "no marker", NOW, timedelta(minutes=30))
    for _ in range(2):
        breaker.forget(ledger, "s3://b")

    assert {breaker.destination_of(name) for name in breaker.opened(ledger, NOW)} == {"s3://b-2"}
    assert {each.name for each in failures.recorded(ledger)} == {"s3://b-2"}


def test_everything_that_is_recorded_of_a_destination_ends_by_itself() -> None:
    """Also where the machine that recorded it is no more, and nobody notices that the destination was removed."""
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    breaker.trip_on(ledger, "s3://b", "host-1", "403", NOW)
    breaker.trip(ledger, "s3://c", "403", NOW)
    breaker.pause(ledger, "s3://d", by="ann", why="", now=NOW)
    failures.record(ledger, "s3://e", "host-1", Kind.UNKNOWN, "no marker", NOW, timedelta(minutes=30))
    assert len(breaker.opened(ledger, NOW)) == 4

    clock.advance(breaker.LONGEST_PAUSE)
    assert ledger.recall_all("") == {}

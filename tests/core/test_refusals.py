from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.attempt.decisions import HOLD
from archiver.core.attempt.outcomes import Archived, NotOurs, WillRetry
from archiver.core.destinations import holds
from archiver.core.destinations.refusals import note_answer, note_refusal, place_of, respected
from archiver.core.judging import Scope, judge
from archiver.hms.errors import HmsRefused
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec, Upload
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.bench import Bench, file
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.transfer.stores import Wrapped

MINUTE = timedelta(minutes=1)
REFUSED, ANSWERED = "refused", "answered"


def stopped(ledger: MemoryLedger, clock: Clock) -> set[str]:
    """The machines that leave the API alone, of a, b and one that was never heard of."""
    on_hold = holds.current(ledger, clock())
    return {place for place in ("a", "b", "new") if holds.API in respected(on_hold, place)}


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
def test_what_refuses_one_machine_is_left_alone_there_and_what_refuses_all_everywhere(
    events: list[tuple[str, str, int]], expected: set[str]
) -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)

    for place, event, minute in events:
        clock.now = NOW + minute * MINUTE
        if event == REFUSED:
            note_refusal(ledger, holds.API, place, "401", clock(), HOLD)
        elif event == ANSWERED:
            note_answer(ledger, holds.current(ledger, clock()), holds.API, HOLD)

    assert stopped(ledger, clock) == expected


def test_people_see_which_machine_is_refused() -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)

    note_refusal(ledger, holds.API, "host-3", "401", clock(), HOLD)

    assert {name: hold.reason for name, hold in holds.current(ledger, clock()).items()} == {
        "the 100ms API (on host-3)": "401"
    }


def test_what_refuses_nobody_costs_no_record() -> None:
    ledger = MemoryLedger(Clock(NOW))

    note_answer(ledger, {}, holds.API, HOLD)
    note_answer(ledger, {"s3://bucket": holds.Hold("full", NOW)}, holds.API, HOLD)

    assert ledger.recall_all("") == {}


@pytest.mark.parametrize(
    ("holder", "place"), [("archive@host-1", "host-1"), ("host-1", "host-1"), ("a@b@host", "host")]
)
def test_the_machine_of_a_worker_is_in_its_name(holder: str, place: str) -> None:
    assert place_of(holder) == place


def test_a_machine_that_the_api_refuses_stops_no_other() -> None:
    assets = [asset(id=f"{number:024}", size=None) for number in range(12)]
    bench = Bench(lambda: file(b"video" * 40), assets=assets)
    bench.ledger.discover([judge(each, Scope(RETENTION)) for each in assets])
    describe, refused = bench.api.asset, True

    def maybe_refuse(asset_id: str) -> Asset:
        bench.api.fail_on_page = (0, HmsRefused("401")) if refused else None
        if refused:
            raise HmsRefused("401")
        return describe(asset_id)

    bench.api.asset = maybe_refuse  # type: ignore[method-assign]
    outcomes: dict[bool, list[object]] = {True: [], False: []}
    for number, each in enumerate(assets):
        refused = number % 2 == 0
        worker = "archive@wrong-password" if refused else f"archive@host-{number % 4}"
        outcomes[refused].append(bench.archiver.archive(each.id, worker))

    assert all(isinstance(outcome, WillRetry) and not outcome.costs_attempt for outcome in outcomes[True])
    assert all(isinstance(outcome, Archived) for outcome in outcomes[False])
    assert not any(isinstance(outcome, NotOurs) for outcome in outcomes[False])


def test_each_machine_respects_its_own_refusals_and_those_of_all() -> None:
    hold, shared = holds.Hold("403", NOW), holds.Hold("full", NOW)
    on_hold = {"s3://a (on x)": hold, "s3://b (on y)": hold, "s3://c": shared, "s3://a": shared}

    assert respected(on_hold, "x") == {"s3://a": hold, "s3://c": shared}
    assert respected(on_hold, "y") == {"s3://a": shared, "s3://b": hold, "s3://c": shared}
    assert respected(on_hold, "z") == {"s3://a": shared, "s3://c": shared}


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
    bench = Bench(lambda: file(b"video" * 40), assets=assets, stores=[store])
    bench.ledger.discover([judge(each, Scope(RETENTION)) for each in assets])
    outcomes: dict[bool, list[object]] = {True: [], False: []}

    for number, each in enumerate(assets):
        store.refuses = number % 2 == 0
        worker = "archive@wrong-clock" if store.refuses else f"archive@host-{number % 4}"
        outcomes[store.refuses].append(bench.archiver.archive(each.id, worker))

    assert all(isinstance(outcome, WillRetry) and not outcome.costs_attempt for outcome in outcomes[True])
    assert all(isinstance(outcome, Archived) for outcome in outcomes[False])
    assert set(holds.current(bench.ledger, bench.clock())) == {"memory://one (on wrong-clock)"}

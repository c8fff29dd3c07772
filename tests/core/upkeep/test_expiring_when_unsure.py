"""Nothing expires while a clock may be wrong, and a ledger that was lost or rolled back permits nothing by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from archiver.core.records import keys
from archiver.core.upkeep.expiring import FACT, ExpiryResult, findings
from archiver.core.upkeep.reports import RECONCILE_FACT
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.terms import Terms
from archiver.ledger.models import AssetState
from archiver.transfer.checksums import crc32c
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied, TransientStorageError
from tests.core.examples import NOW, asset
from tests.core.upkeep.reconcile_harness import DatedBackend
from tests.core.upkeep.test_expiring import DAY, Harness

MANY = [asset(id=f"asset-{number:03}") for number in range(300)]  # three a day
HOUR = timedelta(hours=1)


class Silent(DatedBackend):
    """Takes no record of what expires, or does not show it."""

    shows = takes = True

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key == keys.EXPIRY_RECORD and not self.takes:
            raise AccessDenied("403")
        return super().put(spec, data, crc32c)

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        if key == keys.EXPIRY_RECORD and not self.shows:
            raise TransientStorageError("503")
        return super().stat(key)


class TakesOne(DatedBackend):
    """Takes one record of what expires, and refuses to replace it."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key == keys.EXPIRY_RECORD and spec.key in self.store.objects:
            raise AccessDenied("403")
        return super().put(spec, data, crc32c)


@dataclass(frozen=True)
class Case:
    """How far each clock is ahead of the true time, 40 days after a term of 30 days began. `api`: None, it does not
    tell the time; `swept`: how long ago the ledger's clock was compared with it. `stores`: None, they do not tell."""

    name: str
    held: str
    ledger: timedelta = timedelta(0)
    api: timedelta | None = timedelta(0)
    stores: tuple[timedelta | None, timedelta | None] = (timedelta(0), timedelta(0))
    swept: timedelta = HOUR
    day: float = 40.0

    def __str__(self) -> str:
        return self.name


ZERO, TINY = timedelta(0), timedelta(minutes=2)
CASES = [
    Case("all agree", ""),
    Case("all agree, within minutes", "", TINY, -TINY, (ZERO, -TINY)),
    Case("the API does not tell the time", "", api=None),
    Case("the stores do not tell the time", "", stores=(None, None)),
    Case(
        "nobody tells the time",
        "neither 100ms nor a destination tells the time",
        api=None,
        stores=(None, None),
    ),
    Case("ledger hours ahead, since the sweep", "differs from that of memory://one, memory://two", 3 * HOUR),
    Case("ledger days ahead, since the sweep", "no sweep has compared", 40 * DAY, day=5),
    Case("ledger days ahead, and swept", "differs from 100ms's by", 40 * DAY, swept=ZERO, day=5),
    Case(
        "ledger days ahead, the API untold",
        "differs from that of memory://one",
        40 * DAY,
        None,
        swept=ZERO,
        day=5,
    ),
    Case("ledger hours behind, since the sweep", "the last sweep is dated in the future", -3 * HOUR),
    Case("ledger behind, and swept", "differs from 100ms's by", -3 * HOUR, swept=ZERO),
    Case("the API is ahead", "differs from 100ms's by", api=3 * HOUR),
    Case("one store is ahead", "differs from that of memory://two", stores=(ZERO, 3 * HOUR)),
    Case("one store is behind", "differs from that of memory://one", stores=(-3 * HOUR, ZERO)),
    Case("one store is ahead, one untold", "differs from that of memory://two", stores=(None, 3 * HOUR)),
    Case("not swept for long", "no sweep has compared", swept=2 * DAY),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_expires_while_the_clocks_disagree(case: Case) -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    true = NOW + case.day * DAY
    harness.clock.now = true - case.swept + (case.ledger if not case.swept else ZERO)
    api_behind = None if case.api is None else (case.ledger if not case.swept else ZERO) - case.api
    harness.swept(None if api_behind is None else api_behind.total_seconds())
    harness.clock.now = true + case.ledger
    for store, ahead in zip(harness.stores, case.stores, strict=True):
        store.store.clock = _ahead(true, ahead)

    result = harness.run()

    assert case.held in result.held
    assert bool(result.held) is bool(case.held)
    assert harness.state(asset()) is (AssetState.ARCHIVED if case.held else AssetState.EXPIRED)
    assert [each.id for each in findings(harness.ledger.recall(FACT)) if each.is_problem] == (
        ["expiry_held"] if case.held else []
    )


def _ahead(true: datetime, by: timedelta | None) -> Callable[[], Any]:
    return lambda: None if by is None else true + by


def test_an_expiry_that_is_dated_in_the_future_holds_the_next() -> None:
    harness = Harness(Terms(30), *MANY)
    harness.run(confirmed=True)
    assert harness.at(NOW + 60 * DAY).run().expired == 3

    assert "the last expiry is dated in the future" in harness.at(NOW + 50 * DAY).run().held
    assert harness.at(NOW + 61 * DAY).run().expired == 2
    assert list(findings(harness.ledger.recall(FACT))) != []
    assert "expiry_held" not in [each.id for each in findings(harness.ledger.recall(FACT))]


def test_what_is_gone_is_not_called_expired_while_the_clock_is_wrong() -> None:
    """It was deleted by mistake, and 100ms still has it."""
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.clock.now = NOW + 40 * DAY
    harness.swept(ahead=(39 * DAY).total_seconds())
    for store in harness.stores:
        store.store.objects.clear()

    harness.reconcile()

    assert harness.state(asset()) is AssetState.DISCOVERED


def rolled_back(harness: Harness) -> None:
    harness.roll_back()


def flushed(harness: Harness) -> None:
    harness.ledger.clear()


@pytest.mark.parametrize("forget", [rolled_back, flushed])
def test_a_ledger_that_forgot_todays_share_allows_no_second_one(forget: Callable[[Harness], None]) -> None:
    harness = Harness(Terms(30), *MANY)
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    harness.snapshot()
    assert harness.run().expired == 3
    forget(harness)
    harness.swept()
    harness.reconcile()

    again = harness.run()
    tomorrow = harness.at(NOW + 41 * DAY).run()

    assert (again.expired, tomorrow.expired) == (0, 2)
    assert harness.states()[AssetState.EXPIRED] == 5


def test_of_records_of_the_same_run_the_one_that_has_begun_more_counts() -> None:
    harness = Harness(Terms(30), *MANY)
    store = TakesOne("x", harness.clock)
    store._name, store.store = harness.one.name, harness.one.store
    harness.stores[0] = store
    assert harness.at(NOW + 40 * DAY).run(confirmed=True).expired == 3
    harness.ledger.clear()
    harness.swept()
    harness.reconcile()

    assert harness.run().expired == 0


def test_what_a_person_accepted_outlives_the_ledger() -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.ledger.clear()
    harness.at(NOW + 40 * DAY)

    assert harness.run().held == "the ledger was not compared with the destinations yet"
    harness.reconcile()
    assert harness.run().withheld == ()


def test_a_longer_term_that_the_ledger_forgot_is_not_shortened_by_itself() -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.snapshot()
    harness.terms = Terms(365)
    harness.at(NOW + DAY).run()
    harness.roll_back()
    harness.terms = Terms(30)

    assert harness.at(NOW + 40 * DAY).run().withheld == ("all others: 30 days instead of 365 days",)


def test_an_empty_ledger_accepts_nothing_before_it_was_compared() -> None:
    """An installation of the version before, which has recorded nothing at the destinations."""
    harness = Harness(Terms(30), asset())
    harness.ledger.clear()
    harness.swept()

    assert harness.run().held
    assert Terms.from_fact((harness.ledger.recall(FACT) or {}).get("terms")) == Terms()
    harness.reconcile()
    assert harness.run().withheld


def test_a_new_installation_accepts_its_first_term_by_itself() -> None:
    harness = Harness(Terms(30))

    assert harness.run() == ExpiryResult()
    assert harness.one.stat(keys.EXPIRY_RECORD) is not None


def test_where_everything_is_kept_for_ever_nothing_is_recorded() -> None:
    harness = Harness(Terms(), asset())
    harness.ledger.forget(RECONCILE_FACT)
    harness.ledger.forget(SWEEP_FACT)

    assert harness.run() == ExpiryResult()
    assert harness.one.stat(keys.EXPIRY_RECORD) is None


@pytest.mark.parametrize("data", [b"{}", b"nonsense", b'{"schema": "archiver.expiry/1", "at": 1}'])
def test_a_record_that_cannot_be_understood_is_replaced(data: bytes) -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    for store in harness.stores:
        store.put(ObjectSpec(keys.EXPIRY_RECORD, "application/json", len(data)), data, crc32c(data))

    assert harness.at(NOW + 40 * DAY).run().expired == 1


@pytest.mark.parametrize(
    ("shows", "takes", "held"),
    [
        (False, True, "what was accepted before cannot be read: 503"),
        (True, False, "no destination takes the record of it"),
    ],
)
def test_what_cannot_be_read_or_recorded_holds_the_expiry(shows: bool, takes: bool, held: str) -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    for n, there in enumerate(harness.stores):
        store = Silent("x", harness.clock)
        store._name, store.store, store.shows, store.takes = there.name, there.store, shows, takes
        harness.stores[n] = store

    assert harness.run().held == held
    assert harness.state(asset()) is AssetState.ARCHIVED

"""The catalogues are renewed each night, where a month changed, within a limit of time."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import patch

import pytest

from archiver.core.attempt import urgency
from archiver.core.records.commit import mark_damaged
from archiver.core.records.removal import forget_rows
from archiver.core.upkeep import cataloguing
from archiver.core.upkeep.catalogue import write_catalogue
from archiver.core.upkeep.cataloguing import FACT, LONGEST_RUN, Cataloguer, catalogue_findings
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.base import ObjectInfo, object_key
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock

DAY = timedelta(days=1)
MARCH, FEBRUARY = object_key("catalogue/2026-03.csv.gz"), object_key("catalogue/2026-02.csv.gz")


class Night:
    """Two destinations, a ledger and both clocks."""

    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]
        self.seconds = 0.0

    def cataloguer(self, *, wanted: bool = True) -> Cataloguer:
        return Cataloguer(
            ledger=self.ledger,
            destinations=self.stores,
            clock=self.clock,
            wanted=wanted,
            elapsed=lambda: self.seconds,
        )

    def next(self) -> int:
        self.clock.now += DAY
        return self.cataloguer().write_due()

    def notes(self) -> list[str]:
        return [each.text for each in catalogue_findings(self.ledger.recall(FACT), self.clock.now)]


@pytest.fixture
def night() -> Night:
    night = Night()
    for day, asset_id in (("2026-02-27", "old"), ("2026-03-01", "new")):
        archive_at(night.stores, asset(id=asset_id, created_at=f"{day}T10:00:00Z"))
    return night


def ids(store: MemoryBackend, key: object = MARCH) -> list[str]:
    packed = store.read(object_key(str(key)), 0, 10**9)
    return [row["asset_id"] for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))]


def test_every_month_is_written_at_every_destination_and_once_a_day_at_most(night: Night) -> None:
    assert night.cataloguer().write_due() == 4
    assert [(ids(store), ids(store, FEBRUARY)) for store in night.stores] == [(["new"], ["old"])] * 2

    archive_at(night.stores, asset(id="newer", created_at="2026-03-02T10:00:00Z"))
    assert night.cataloguer().write_due() == 0, "on the same day"
    assert night.next() == 2
    assert ids(night.stores[1]) == ["new", "newer"]


def test_only_a_month_that_changed_is_read_again(night: Night) -> None:
    night.cataloguer().write_due()
    marked = archive_at(night.stores, asset(id="marked", created_at="2026-02-28T10:00:00Z"))
    night.next()

    with patch.object(cataloguing, "write_catalogue", wraps=write_catalogue) as read:
        assert night.next() == 0
        read.assert_not_called()
        mark_damaged(night.stores[0], marked, ["rot"])
        assert night.next() == 1
        assert [call.args[1] for call in read.mock_calls] == ["2026-02"]


def test_a_table_that_somebody_deleted_is_made_again(night: Night) -> None:
    night.cataloguer().write_due()
    night.stores[0].delete(FEBRUARY)

    assert night.next() == 1
    assert ids(night.stores[0], FEBRUARY) == ["old"]


def test_a_lost_ledger_costs_another_look_and_writes_nothing(night: Night) -> None:
    night.cataloguer().write_due()
    night.ledger = MemoryLedger(night.clock)

    assert night.next() == 0


def test_newest_months_come_first_and_what_an_hour_is_not_enough_for_follows(night: Night) -> None:
    def slow(*arguments: object) -> object:
        night.seconds += LONGEST_RUN.total_seconds()
        return write_catalogue(*arguments)  # type: ignore[arg-type]

    with patch.object(cataloguing, "write_catalogue", slow):
        assert night.cataloguer().write_due() == 1
    assert [MARCH in _keys(store) for store in night.stores] == [True, False]
    assert FEBRUARY not in _keys(night.stores[0])

    assert night.cataloguer().write_due() == 3, "it was not done, so not too soon"


def test_an_asset_at_risk_that_waits_for_a_slot_comes_first(night: Night) -> None:
    urgency.publish(night.ledger, ["urgent"], NOW)

    assert night.cataloguer().write_due() == 0
    night.clock.now += timedelta(minutes=2)
    assert night.cataloguer().write_due() == 4


def test_two_at_once_are_one(night: Night) -> None:
    second: list[int] = []

    def meanwhile(*arguments: object) -> object:
        second.append(night.cataloguer().write_due())
        return write_catalogue(*arguments)  # type: ignore[arg-type]

    with patch.object(cataloguing, "write_catalogue", meanwhile):
        assert night.cataloguer().write_due() == 4
    assert second == [0] * 4


def test_one_killed_half_way_is_finished_by_the_next(night: Night) -> None:
    with (
        patch.object(night.stores[1], "put", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        night.cataloguer().write_due()

    assert night.cataloguer().write_due() == 2
    assert ids(night.stores[1]) == ["new"]


def test_a_destination_that_fails_keeps_no_other_from_it_and_is_told_after_days(night: Night) -> None:
    night.stores[0].list = _unreachable  # type: ignore[method-assign, assignment]

    assert night.cataloguer().write_due() == 2
    assert night.notes() == []
    for _ in range(4):
        night.next()
    assert night.notes() == [
        "The tables in catalogue/ at memory://one have not been renewed since 2026-03-01: one: unreachable."
    ]
    del night.stores[0].list
    assert night.next() == 2
    assert night.notes() == []


def test_a_destination_that_is_removed_is_told_of_no_longer(night: Night) -> None:
    night.cataloguer().write_due()
    night.stores.pop()
    for _ in range(4):
        night.next()

    assert night.notes() == []


def test_one_that_is_not_wanted_writes_nothing_and_is_not_late(night: Night) -> None:
    night.cataloguer().write_due()
    night.stores[0].delete(MARCH)

    night.clock.now += 9 * DAY
    assert night.cataloguer(wanted=False).write_due() == 0
    assert night.notes() == []


def test_what_is_erased_while_a_table_is_written_leaves_no_row_in_it(night: Night) -> None:
    store = night.stores[0]
    manifest = archive_at(night.stores, asset(id="erased", created_at="2026-03-03T10:00:00Z"))
    put = store.put

    def erased_meanwhile(*arguments: object) -> object:
        if manifest in _keys(store, "manifests/"):
            store.delete(object_key(manifest))
            forget_rows(store, [object_key(manifest)])  # as the eraser does, before the table is there
        return put(*arguments)  # type: ignore[arg-type]

    with patch.object(store, "put", erased_meanwhile):
        write_catalogue(store, "2026-03")

    assert ids(store) == ["new"]


def _keys(store: MemoryBackend, prefix: str = "catalogue/") -> list[str]:
    return [info.key for info in store.list(prefix)]


def _unreachable(_prefix: str = "") -> Iterator[ObjectInfo]:
    raise TransientStorageError("one: unreachable")
    yield

"""After a lost ledger, events come again that the destinations do not record as delivered, and no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from archiver.core.judging import Scope, judge
from archiver.core.records import delivery_records, end_records, keys
from archiver.core.records.delivery_records import DeliveryRecord
from archiver.core.upkeep import undelivered
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.undelivered import FACT, MARGIN, WANTED_FOR
from archiver.hms.models import Asset
from archiver.ledger.memory import state as memory_state
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Settlement
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, manifest_of, put
from tests.core.examples import asset
from tests.core.fakes import Clock

RETENTION = timedelta(days=15)
DAY = timedelta(days=1)


class Setting:
    """Real time: stores date what they hold."""

    def __init__(self) -> None:
        self.clock = Clock(datetime.now(UTC))
        self.ledger = MemoryLedger(self.clock)
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]
        self.ledger.keep_events(DAY)

    def reconcile(self, *, wanted: bool = True, eraser: Eraser | None = None) -> None:
        reconciler = Reconciler(
            ledger=self.ledger,
            destinations=self.stores,
            scope=Scope(RETENTION),
            clock=self.clock,
            events_wanted=wanted,
            eraser=eraser,
        )
        assert reconciler.reconcile() is not None

    def archive(self, asset_id: str, state: AssetState = AssetState.ARCHIVED) -> None:
        one = self.asset(asset_id)
        seen = judge(one, Scope(RETENTION))
        self.ledger.discover([seen])
        lease = self.ledger.lease(asset_id, "w", DAY)
        assert lease is not None
        match state:
            case AssetState.ARCHIVED | AssetState.QUARANTINED:
                self.store(one, self.clock(), doubts=("short",) if state == AssetState.QUARANTINED else ())
            case _:
                end_records.write(self.stores, seen, state, "gone", self.clock())
        self.ledger.settle(lease, seen, Settlement(state, reason="gone"))

    def asset(self, asset_id: str) -> Asset:
        return asset(id=asset_id, created_at=(self.clock() - DAY).isoformat())

    def store(self, one: Asset, at: datetime, doubts: tuple[str, ...] = ()) -> None:
        key = archive_at(self.stores, one, doubts=doubts)
        manifest = manifest_of(one, doubts=doubts).model_copy(update={"archived_at": at})
        for store in self.stores:
            put(store, key, manifest.to_bytes())

    def deliver(self) -> list[str]:
        events = self.ledger.events(1_000_000)
        for event in events:
            self.ledger.delivered(event)
        return sorted(f"{event.row.asset_id}.{event.row.state}" for event in events)

    def lose_ledger(self) -> None:
        self.ledger.clear()

    def record(self) -> DeliveryRecord:
        record = delivery_records.read_newest(self.stores)
        assert record is not None
        return record


@pytest.fixture
def setting() -> Setting:
    made = Setting()
    made.reconcile()
    return made


def test_events_of_a_lost_ledger_come_again(setting: Setting) -> None:
    for asset_id in ("a1", "a2"):
        setting.archive(asset_id)
    setting.archive("q1", AssetState.QUARANTINED)
    setting.archive("l1", AssetState.LOST)
    setting.lose_ledger()

    setting.reconcile()

    assert setting.deliver() == ["a1.archived", "a2.archived", "l1.lost", "q1.quarantined"]
    setting.reconcile()
    assert setting.deliver() == []


def test_what_waits_when_it_is_recorded_comes_again_however_old_and_the_rest_does_not(
    setting: Setting,
) -> None:
    setting.archive("a1")
    assert setting.deliver() == ["a1.archived"]
    setting.archive("a2")
    setting.clock.advance(3 * MARGIN)
    setting.reconcile()
    setting.lose_ledger()
    setting.ledger.keep_events(DAY)

    setting.reconcile()

    assert setting.record().waiting == (("a2", "archived"),)
    assert setting.deliver() == ["a2.archived"]


def test_nothing_is_sent_of_what_was_archived_before_events_were_wanted(setting: Setting) -> None:
    setting.store(setting.asset("old"), setting.clock() - timedelta(days=3))
    setting.archive("new")
    setting.lose_ledger()
    setting.reconcile()

    assert setting.ledger.get("old") is not None
    assert setting.deliver() == ["new.archived"]


def test_where_events_were_never_wanted_nothing_is_sent_or_written() -> None:
    setting = Setting()
    setting.reconcile(wanted=False)
    setting.archive("a1")
    setting.deliver()
    setting.lose_ledger()
    setting.reconcile(wanted=False)

    assert setting.deliver() == []
    assert not [info for store in setting.stores for info in store.list(keys.EVENTS)]


def test_events_wanted_later_are_recorded_with_the_next_sweep() -> None:
    setting = Setting()
    setting.reconcile(wanted=False)
    setting.store(setting.asset("before"), setting.clock())
    setting.clock.advance(timedelta(seconds=1))
    reconciler = Reconciler(
        ledger=setting.ledger,
        destinations=setting.stores,
        scope=Scope(RETENTION),
        clock=setting.clock,
        events_wanted=True,
    )
    reconciler.check_destinations()

    assert setting.record().until == setting.record().since == setting.clock()


def test_an_asset_that_enters_itself_after_the_flush_is_sent_too(setting: Setting) -> None:
    setting.lose_ledger()  # and with it that anybody wants events
    setting.archive("a1")
    assert setting.deliver() == []
    setting.reconcile()

    assert setting.deliver() == ["a1.archived"]


def test_a_reconcile_that_is_killed_sends_the_same_events_again(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        setting.archive(f"a{number}")
    setting.lose_ledger()
    remember = setting.ledger.remember

    def killed(name: str, *rest: object) -> None:
        if name == FACT:
            raise KeyboardInterrupt
        remember(name, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(setting.ledger, "remember", killed)
        with pytest.raises(KeyboardInterrupt):
            setting.reconcile()
    first = {(event.row.asset_id, event.row.changed_at) for event in setting.ledger.events(100)}
    setting.reconcile()

    events = setting.ledger.events(100)
    assert {(event.row.asset_id, event.row.changed_at) for event in events} == first
    assert len(first) == 5


def test_a_ledger_that_is_lost_while_it_is_compared_records_nothing(setting: Setting) -> None:
    setting.archive("a1")
    before = setting.record()
    setting.clock.advance(3 * MARGIN)
    looked = undelivered.Undelivered(
        ledger=setting.ledger, destinations=setting.stores, clock=setting.clock, wanted=True
    )
    assert looked.look() is None
    setting.lose_ledger()
    looked.record()

    assert setting.record() == before
    setting.reconcile()
    assert setting.deliver() == ["a1.archived"]


def test_events_that_were_dropped_are_not_taken_as_delivered(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_state, "MAX_EVENTS", 1)
    for number in range(3):
        setting.archive(f"a{number}")
    monkeypatch.undo()
    setting.deliver()
    setting.clock.advance(3 * MARGIN)
    setting.reconcile()
    setting.lose_ledger()
    setting.reconcile()

    assert {"a1.archived", "a2.archived"} <= set(setting.deliver())


def test_more_than_can_be_named_come_again_by_their_time(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undelivered, "MAX_WAITING", 2)
    setting.archive("a0")
    setting.deliver()
    for number in range(1, 6):
        setting.archive(f"a{number}")
    setting.clock.advance(3 * MARGIN)
    setting.reconcile()
    setting.lose_ledger()
    setting.reconcile()

    assert {f"a{number}.archived" for number in range(1, 6)} <= set(setting.deliver())


def test_a_record_nobody_renewed_for_long_sends_nothing(setting: Setting) -> None:
    setting.archive("a1")
    setting.lose_ledger()
    setting.clock.advance(WANTED_FOR + DAY)
    setting.reconcile()

    assert setting.deliver() == []


def test_a_record_that_rots_is_replaced_by_the_one_before(setting: Setting) -> None:
    setting.archive("a1")
    setting.clock.advance(DAY)
    setting.reconcile()
    for store in setting.stores:
        newest = max(info.key for info in store.list(keys.EVENTS))
        put(store, newest, b"\x1f\x8bnot whole")
    setting.lose_ledger()
    setting.reconcile()

    assert setting.deliver() == ["a1.archived"]


def test_few_records_are_kept(setting: Setting) -> None:
    for _ in range(6):
        setting.clock.advance(DAY)
        setting.reconcile()

    kept = [info.key for info in setting.stores[0].list(keys.EVENTS)]
    assert len(kept) == delivery_records.KEPT
    assert all(keys.is_delivery_record(key) for key in kept)


def test_a_destination_that_takes_no_record_stops_nothing(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_there = MemoryBackend.put

    def refusing(store: MemoryBackend, spec: object, *rest: object) -> object:
        if store.name == "one" and str(getattr(spec, "key", "")).startswith(keys.EVENTS):
            raise AccessDenied("no")
        return put_there(store, spec, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryBackend, "put", refusing)
    setting.archive("a1")
    setting.clock.advance(DAY)
    setting.reconcile()
    setting.lose_ledger()
    setting.reconcile()

    assert setting.deliver() == ["a1.archived"]


def test_what_was_erased_before_the_ledger_was_lost_is_told_too(setting: Setting) -> None:
    setting.archive("a1")
    setting.deliver()
    eraser = Eraser(ledger=setting.ledger, destinations=setting.stores, clock=setting.clock)
    (removal,) = eraser.erase(["a1"], ticket="T-1")
    assert removal.is_done
    setting.lose_ledger()
    setting.reconcile(eraser=eraser)

    assert setting.deliver() == ["a1.erased"]

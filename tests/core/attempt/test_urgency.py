"""An urgent asset for which no slot is free gets the slot of one that is not urgent, and nobody starves of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from archiver.core.attempt import heartbeat, urgency
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.outcomes import Archived, WillRetry
from archiver.core.judging import Scope, judge
from archiver.core.upkeep.dispatch import URGENT_BEYOND, Dispatcher
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Lease, Settlement
from archiver.transfer.base import SourceInfo
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.core.harness import PART_BYTES, ArchiverHarness, BytesSource, Tree

LEASE = timedelta(hours=2)


class Harness:
    """Slots that are all busy with what is leased."""

    def __init__(self, window: int = 100) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.sent: list[str] = []
        self.leases: dict[str, Lease] = {}
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            send=lambda row, _: self.sent.append(row.asset_id),
            clock=self.clock,
            window=window,
            urgent_within=timedelta(days=3),
        )

    def discover(self, asset_id: str, left: timedelta) -> None:
        created = (NOW - RETENTION + left).isoformat()
        self.ledger.discover([judge(asset(id=asset_id, created_at=created), Scope(RETENTION))])

    def run(self, asset_id: str) -> Lease:
        lease = self.ledger.lease(asset_id, "worker", LEASE)
        assert lease is not None
        self.leases[asset_id] = lease
        return lease

    def dispatch(self, times: int = 1) -> None:
        for _ in range(times):
            self.dispatcher.dispatch()
            self.clock.advance(timedelta(seconds=15))

    def preempted_by(self, asset_id: str) -> str | None:
        return urgency.preempted_by(self.ledger, asset_id)


def busy(*asset_ids: str) -> Harness:
    harness = Harness()
    for asset_id in asset_ids:
        harness.discover(asset_id, timedelta(days=12))
        harness.run(asset_id)
    return harness


def test_one_copy_is_preempted_for_an_urgent_asset_that_waits() -> None:
    harness = busy("one", "two")
    harness.discover("urgent", timedelta(hours=1))
    harness.dispatch(4)

    assert [harness.preempted_by("one"), harness.preempted_by("two")] == ["urgent", None]


def test_two_urgent_assets_get_two_slots() -> None:
    harness = busy("one", "two", "three")
    for asset_id in ("urgent-1", "urgent-2"):
        harness.discover(asset_id, timedelta(hours=1))
    harness.dispatch(4)

    assert [harness.preempted_by(each) for each in ("one", "two", "three")] == ["urgent-1", "urgent-2", None]


@pytest.mark.parametrize("dispatches", [0, 1, 2])
def test_a_free_slot_gets_time_to_lease_it_first(dispatches: int) -> None:
    harness = busy("one")
    harness.discover("urgent", timedelta(hours=1))
    harness.dispatch(dispatches)

    assert harness.preempted_by("one") is None


def test_what_is_not_urgent_waits_for_a_slot() -> None:
    harness = busy("one")
    harness.discover("another", timedelta(days=10))
    harness.dispatch(10)

    assert harness.preempted_by("one") is None


def test_an_urgent_copy_goes_on() -> None:
    harness = Harness()
    harness.discover("one", timedelta(days=2))
    harness.run("one")
    harness.discover("urgent", timedelta(hours=1))
    harness.dispatch(10)

    assert harness.preempted_by("one") is None


def test_once_the_urgent_asset_is_leased_no_other_copy_is_preempted() -> None:
    harness = busy("one")
    harness.discover("urgent", timedelta(hours=1))
    harness.dispatch(4)
    harness.run("urgent")
    harness.clock.advance(timedelta(minutes=1))

    assert harness.preempted_by("one") is None


def test_no_asset_is_preempted_for_ever() -> None:
    harness = busy("one")
    times = 0
    for number in range(20):
        harness.discover(f"urgent-{number}", timedelta(hours=1))
        harness.dispatch(4)
        times += harness.preempted_by("one") is not None
        harness.run(f"urgent-{number}")

    assert times == urgency.MOST_PREEMPTIONS


def test_a_full_window_of_what_is_not_urgent_keeps_no_urgent_asset_waiting() -> None:
    harness = Harness(window=3)
    for number in range(5):
        harness.discover(f"calm-{number}", timedelta(days=12))
    harness.dispatch()
    harness.discover("urgent", timedelta(hours=1))
    waited = judge(
        asset(id="retry", created_at=(NOW - RETENTION + timedelta(hours=2)).isoformat()), Scope(RETENTION)
    )
    harness.ledger.discover([waited])
    harness.ledger.settle(
        harness.run("retry"), waited, Settlement(AssetState.WAITING, delay=timedelta(seconds=5))
    )
    harness.dispatch(3)

    assert set(harness.sent) >= {"urgent", "retry"}
    assert len(harness.sent) <= 3 + URGENT_BEYOND


def test_a_fact_that_another_version_wrote_is_no_reason_to_stop() -> None:
    harness = busy("one")
    harness.ledger.remember("urgent_waiting", {"what": "is this"})

    assert harness.preempted_by("one") is None


def test_a_copy_that_is_preempted_is_resumed_and_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was stored before is read again."""
    hurry(monkeypatch)
    digest = '"' + "0" * 32 + '"'
    files = {f"{number}.ts": BytesSource(b"G" * 9, etag=digest) for number in range(40)}

    def contents() -> Tree:
        return Tree(dict(files))

    harness = ArchiverHarness(contents, time_is_up=TimeoutError)
    wait_for_the_heartbeat(harness, list(files.values())[5:], monkeypatch)
    first = harness.archive()
    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    before = {path: source.reads for path, source in files.items()}
    harness.archive()

    assert isinstance(first, WillRetry)
    assert "urgent-one is urgent" in first.reason
    assert row.state is AssetState.WAITING
    assert row.attempts == 0
    assert (done := harness.ledger.get(harness.asset_id)) is not None
    assert done.state is AssetState.ARCHIVED
    again = [path for path, source in files.items() if source.reads > before[path] + 1]
    assert again == [], "each was asked once whether it is still the same"


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK", timedelta(milliseconds=2))
    monkeypatch.setattr(heartbeat, "LOOK_EVERY", timedelta(0))
    monkeypatch.setattr(urgency, "URGENT_AFTER", timedelta(0))


def file_with(source: BytesSource) -> Tree:
    return Tree({"a.mp4": source}, form="file")


class Beats:
    """Of the attempts at a harness: the first one learns that an urgent asset waits."""

    def __init__(self, harness: ArchiverHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        self._harness = harness
        self._beating: list[Heartbeat] = []
        enter = Heartbeat.__enter__

        def entered(beating: Heartbeat) -> Heartbeat:
            self._beating.append(beating)
            return enter(beating)

        monkeypatch.setattr(Heartbeat, "__enter__", entered)

    def wait_for_it(self) -> None:
        if len(self._beating) == 1:
            urgency.publish(self._harness.ledger, ["urgent-one"], NOW - timedelta(days=99))
            assert self._beating[0]._yields.wait(10)


def wait_for_the_heartbeat(
    harness: ArchiverHarness, sources: Sequence[BytesSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of `sources` arrives once the heartbeat has seen that an urgent asset waits."""
    beats = Beats(harness, monkeypatch)

    def waits(source: BytesSource) -> None:
        opens: Callable[[int], object] = source.open

        def opened(first_bytes: int) -> object:
            beats.wait_for_it()
            return opens(first_bytes)

        source.open = opened  # type: ignore[method-assign,assignment]

    for source in sources:
        waits(source)


def test_a_complete_copy_is_committed_instead_of_preempted(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    harness = ArchiverHarness(lambda: file_with(only), time_is_up=TimeoutError)
    only = BytesSource(b"m" * 20)
    wait_for_the_heartbeat(harness, [only], monkeypatch)

    assert isinstance(harness.archive(), Archived)


def test_a_large_file_is_preempted_at_a_parts_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    data = bytes(range(256)) * 10  # 40 parts, two at once
    source = BytesSource(data)
    harness = ArchiverHarness(lambda: file_with(source), time_is_up=TimeoutError)
    read: list[int] = []
    reads = source.read_range

    def counted(start: int, into: memoryview, info: SourceInfo) -> None:
        if start >= 10 * PART_BYTES and not read_before:
            seen.wait_for_it()
        read.append(start // PART_BYTES)
        reads(start, into, info)

    source.read_range = counted  # type: ignore[method-assign]
    seen = Beats(harness, monkeypatch)
    read_before: list[int] = []
    first = harness.archive()
    read_before, read[:] = list(read), []
    second = harness.archive()

    assert isinstance(first, WillRetry)
    assert "urgent-one is urgent" in first.reason
    assert isinstance(second, Archived)
    assert 10 in read_before
    assert len(read_before) < 20
    assert set(read).isdisjoint(read_before), "what was read is stored, and is not read again"

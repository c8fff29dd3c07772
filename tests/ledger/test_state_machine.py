"""Any sequence of calls, passing time and flushes: the ledger in Redis answers as the plain one in memory does, step by
step, and the account balances after each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from archiver.ledger.base import Ledger
from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import (
    JUDGED_STATES,
    OPEN_STATES,
    REMOVED_STATES,
    AssetState,
    Lease,
    OpenUpload,
    Progress,
    Row,
    Seen,
    Settlement,
    StoredObject,
)
from tests.contracts.ledger_contract import START, seen
from tests.ledger.harnesses import MemoryHarness, RedisHarness

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

asset_ids = st.sampled_from(["a", "b", "c", "d", "e"])
minutes = st.integers(0, 8).map(lambda n: n * MINUTE)
verdicts = st.sampled_from([AssetState.DISCOVERED, AssetState.DISCOVERED, *sorted(JUDGED_STATES)])
states = st.sampled_from(sorted(AssetState))
assets = st.builds(
    seen,
    asset_ids,
    expires_in=minutes,
    verdict=verdicts,
    size_bytes=st.sampled_from([None, 0, 5]),
    reason=st.sampled_from([None, "a filter"]),
)
settlements = st.builds(
    Settlement,
    st.sampled_from([AssetState.WAITING] * 6 + sorted(set(AssetState) - OPEN_STATES)),
    reason=st.sampled_from([None, "503"]),
    delay=st.none() | minutes,
    gone=st.booleans(),
    counts_as_attempt=st.booleans(),
    mismatch=st.booleans(),
    fingerprint=st.sampled_from([None, "one", "other"]),
    stored_bytes=st.sampled_from([0, 10**12]),
    stored_objects=st.sampled_from([0, 3]),
    seconds=st.sampled_from([0.0, 0.1]),
    warnings=st.sampled_from([(), ("one", "two")]),
)
names = st.sampled_from(["sweep", "hold:a", "hold:b"])
versions = st.sampled_from(["v1", "v2"])

Outcome = object


class LedgersAgree(RuleBasedStateMachine):
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryHarness()
        self.redis = RedisHarness(self.url)
        self.redis.flush()
        self.leases: list[tuple[Lease, Lease]] = []
        self.tokens: list[tuple[str, str, str]] = []

    def teardown(self) -> None:
        self.redis.close()

    def both(self, act: Callable[[Ledger], Outcome]) -> Outcome:
        expected, found = act(self.memory.ledger), act(self.redis.ledger)
        assert found == expected
        return found

    def under_a_lease(self, data: st.DataObject, act: Callable[[Ledger, Lease], Outcome]) -> None:
        if not self.leases:
            return
        in_memory, in_redis = data.draw(st.sampled_from(self.leases))
        expected = _outcome(lambda: act(self.memory.ledger, in_memory))
        found = _outcome(lambda: act(self.redis.ledger, in_redis))
        assert found == expected

    @rule(page=st.lists(assets, max_size=4))
    def discover(self, page: list[Seen]) -> None:
        self.both(lambda ledger: ledger.discover(page))

    @rule(asset=assets, settlement=settlements, damage=st.none() | st.sampled_from(["here", "there"]))
    def record_archived(self, asset: Seen, settlement: Settlement, damage: str | None) -> None:
        state = AssetState.DAMAGED if damage else AssetState.ARCHIVED
        proved = Settlement(state, reason=damage, stored_bytes=settlement.stored_bytes)
        self.both(lambda ledger: ledger.record_archived(asset, proved))

    @rule(
        wanted=st.none() | st.lists(states, unique=True),
        before=st.none() | minutes,
        limit=st.none() | st.integers(0, 3),
    )
    def rows(self, wanted: list[AssetState] | None, before: timedelta | None, limit: int | None) -> None:
        until = None if before is None else START + before
        self.both(lambda ledger: list(ledger.rows(wanted, expiring_before=until, limit=limit)))

    @rule(limit=st.integers(0, 3))
    def warned(self, limit: int) -> None:
        self.both(lambda ledger: ledger.warned(limit))

    @rule(ahead=minutes, window=st.integers(0, 4), requeue_after=minutes)
    def take_due(self, ahead: timedelta, window: int, requeue_after: timedelta) -> None:
        self.both(lambda ledger: ledger.take_due(window, requeue_after, ahead))

    @rule(asset_id=asset_ids, keep_stored=st.booleans(), un_erase=st.booleans())
    def reopen(self, asset_id: str, keep_stored: bool, un_erase: bool) -> None:
        self.both(lambda ledger: ledger.reopen(asset_id, keep_stored=keep_stored, un_erase=un_erase))

    @rule(asset=assets, state=st.sampled_from(sorted(REMOVED_STATES)), reason=st.sampled_from(["T-1", "T-2"]))
    def remove(self, asset: Seen, state: AssetState, reason: str) -> None:
        self.both(lambda ledger: ledger.remove(asset, Settlement(state, reason=reason)))

    @rule(asset_id=asset_ids, holder=st.sampled_from(["w1", "w2"]), duration=minutes)
    def lease(self, asset_id: str, holder: str, duration: timedelta) -> None:
        in_memory = self.memory.ledger.lease(asset_id, holder, duration)
        in_redis = self.redis.ledger.lease(asset_id, holder, duration)
        assert (in_memory is None) == (in_redis is None)
        if in_memory and in_redis:
            self.leases.append((in_memory, in_redis))

    @rule(data=st.data(), duration=minutes)
    def renew(self, data: st.DataObject, duration: timedelta) -> None:
        self.under_a_lease(data, lambda ledger, lease: ledger.renew(lease, duration))

    @rule(data=st.data(), settlement=settlements)
    def settle(self, data: st.DataObject, settlement: Settlement) -> None:
        self.under_a_lease(data, lambda ledger, lease: ledger.settle(lease, seen(lease.asset_id), settlement))

    @rule(data=st.data(), version=versions, paths=st.lists(st.sampled_from(["x", "y"])))
    def add_stored(self, data: st.DataObject, version: str, paths: list[str]) -> None:
        objects = [StoredObject(path, 1, 2) for path in paths]
        self.under_a_lease(data, lambda ledger, lease: ledger.add_stored(lease, "d", version, objects))

    @rule(data=st.data(), part=st.integers(1, 3))
    def add_part(self, data: st.DataObject, part: int) -> None:
        self.under_a_lease(data, lambda ledger, lease: ledger.add_part(lease, "d", "k", part, (1, 2, "t")))

    @rule(data=st.data())
    def save_upload(self, data: st.DataObject) -> None:
        upload = OpenUpload("token", 10, 5, None)
        self.under_a_lease(data, lambda ledger, lease: ledger.save_upload(lease, "d", "k", upload))

    @rule(asset_id=asset_ids, version=versions)
    def unfinished_work(self, asset_id: str, version: str) -> None:
        self.both(lambda ledger: ledger.stored_objects(asset_id, "d", version))
        self.both(lambda ledger: ledger.load_upload(asset_id, "d", "k"))

    @rule(asset_id=asset_ids)
    def forget_upload(self, asset_id: str) -> None:
        self.both(lambda ledger: ledger.forget_upload(asset_id, "d", "k"))

    @rule(asset_id=asset_ids, done=st.integers(0, 3))
    def report(self, asset_id: str, done: int) -> None:
        self.both(lambda ledger: ledger.report(Progress(asset_id, "chat", done, None, 0, "x")))

    @rule(name=names, duration=minutes.filter(bool))
    def lock(self, name: str, duration: timedelta) -> None:
        in_memory = self.memory.ledger.lock(name, duration)
        in_redis = self.redis.ledger.lock(name, duration)
        assert (in_memory is None) == (in_redis is None)
        if in_memory and in_redis:
            self.tokens.append((name, in_memory, in_redis))

    @rule(data=st.data(), extend=st.booleans())
    def use_a_token(self, data: st.DataObject, extend: bool) -> None:
        if not self.tokens:
            return
        name, in_memory, in_redis = data.draw(st.sampled_from(self.tokens))
        if extend:
            assert self.redis.ledger.extend_lock(name, in_redis, MINUTE) == self.memory.ledger.extend_lock(
                name, in_memory, MINUTE
            )
        else:
            self.memory.ledger.unlock(name, in_memory)
            self.redis.ledger.unlock(name, in_redis)

    @rule(data=st.data(), name=names, value=st.integers(0, 2))
    def remember_locked(self, data: st.DataObject, name: str, value: int) -> None:
        if not self.tokens:
            return
        lock, in_memory, in_redis = data.draw(st.sampled_from(self.tokens))
        fact = {"n": value}
        assert self.redis.ledger.remember_locked(
            name, fact, lock=lock, token=in_redis
        ) == self.memory.ledger.remember_locked(name, fact, lock=lock, token=in_memory)

    @rule(name=names, value=st.integers(0, 2), lifetime=st.none() | minutes)
    def remember(self, name: str, value: int, lifetime: timedelta | None) -> None:
        self.both(lambda ledger: ledger.remember(name, {"n": value}, lifetime))

    @rule(name=names)
    def forget(self, name: str) -> None:
        self.both(lambda ledger: ledger.forget(name))

    @rule(duration=minutes)
    def time_passes(self, duration: timedelta) -> None:
        self.memory.advance(duration)
        self.redis.advance(duration)

    @rule(really=st.integers(0, 9))
    def flush(self, really: int) -> None:
        if really == 0:
            for harness in (self.memory, self.redis):
                harness.flush()
                harness.advance(timedelta(microseconds=1))  # no two leases are given in one

    @invariant()
    def the_account_balances(self) -> None:
        counts = self.redis.ledger.counts()
        assert counts.balanced
        assert counts == self.memory.ledger.counts()

    @invariant()
    def every_row_is_the_same(self) -> None:
        self.both(lambda ledger: list(ledger.rows()))
        self.both(lambda ledger: ledger.next_due_at())
        self.both(lambda ledger: ledger.recall_all(""))
        self.both(lambda ledger: sorted(ledger.progress(), key=lambda one: one.asset_id))

    @invariant()
    def every_index_holds_what_its_state_says(self) -> None:
        rows = {row.asset_id: row for row in self.redis.ledger.rows()}
        ready = self.index("ready")
        for state in (AssetState.WAITING, AssetState.RUNNING):
            timed = self.index(f"time:{state}")
            assert timed.keys() | {one for one in ready if rows[one].state == state} == _in(rows, state)
            assert not timed.keys() & ready.keys()
        assert self.index("time:queued").keys() == _in(rows, AssetState.QUEUED)
        assert self.index("time:ready").keys() == ready.keys() & _in(rows, AssetState.WAITING)
        assert ready == {one: (rows[one].expires_at - EPOCH) / timedelta(microseconds=1) for one in ready}

    def index(self, name: str) -> dict[str, float]:
        found: Any = self.redis.side.zrange(f"archiver:{name}", 0, -1, withscores=True)
        return dict(found)


def _in(rows: dict[str, Row], state: str) -> set[str]:
    return {asset_id for asset_id, row in rows.items() if row.state == state}


def _outcome(act: Callable[[], Outcome]) -> Outcome:
    try:
        return act()
    except LeaseLost:
        return LeaseLost


@pytest.fixture
def machine(redis_url: str) -> type[LedgersAgree]:
    LedgersAgree.url = redis_url
    return LedgersAgree


def test_the_ledger_in_redis_does_what_the_one_in_memory_does(machine: type[LedgersAgree]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=35,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

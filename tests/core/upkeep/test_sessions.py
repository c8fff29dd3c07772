"""Who was in a session is kept beside its recordings, found from there, and forgotten with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from archiver.core.judging import as_known
from archiver.core.records import keys, session_records, tombstones
from archiver.core.records.session_records import SessionRecords, of_user
from archiver.core.records.tombstones import Tombstone
from archiver.core.upkeep import sessions
from archiver.core.upkeep.sessions import LONGEST, SessionKeeper
from archiver.hms.errors import HmsError, HmsNotFound, HmsUnavailable
from archiver.hms.sessions import Peer, Session
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Settlement
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import enter, put
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock


class Api:
    def __init__(self) -> None:
        self.sessions: dict[str, Session | HmsError] = {}
        self.rooms: dict[str, str | HmsError | None] = {}
        self.asked: list[str] = []

    def session(self, session_id: str) -> Session:
        self.asked.append(session_id)
        found = self.sessions.get(session_id, HmsNotFound("404"))
        if isinstance(found, HmsError):
            raise found
        return found

    def room_name(self, room_id: str) -> str | None:
        self.asked.append(room_id)
        found = self.rooms.get(room_id, HmsNotFound("404"))
        if isinstance(found, HmsError):
            raise found
        return found


class Setting:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]
        self.api = Api()

    def keep(self, *, wanted: bool = True) -> int:
        keeper = SessionKeeper(
            api=self.api, ledger=self.ledger, destinations=self.stores, clock=self.clock, wanted=wanted
        )
        return keeper.keep()

    def session(self, session_id: str, *users: str, active: bool = False, room: str = "r1") -> None:
        peers = tuple(Peer(id=f"{session_id}-{user}", name=user.title(), user_id=user) for user in users)
        self.api.sessions[session_id] = Session(
            id=session_id, room_id=room, created_at=self.clock(), active=active, peers=peers
        )
        self.api.rooms.setdefault(room, "Daily")

    def archive(self, asset_id: str, session_id: str, state: AssetState = AssetState.ARCHIVED) -> None:
        self.clock.advance(timedelta(seconds=1))
        enter(self.ledger, asset(id=asset_id, session_id=session_id), state)
        self.ledger.add_totals({f"attempts:{state}": 1})

    def kept(self, store: int = 0) -> dict[str, tuple[str, ...]]:
        return {each.session_id: each.assets for each in session_records.each(self.stores[store])}


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_a_session_is_kept_at_every_destination_with_room_and_peers(setting: Setting) -> None:
    setting.session("s1", "u1", "u2")
    setting.archive("a1", "s1")
    setting.archive("a2", "s1", AssetState.QUARANTINED)

    assert setting.keep() == 1
    for store in setting.stores:
        record = session_records.read(store, "s1")
        assert record is not None
        assert (record.room_id, record.room_name, record.assets) == ("r1", "Daily", ("a1", "a2"))
        assert [(peer.name, peer.user_id) for peer in record.peers or ()] == [("U1", "u1"), ("U2", "u2")]
        assert store.stat(keys.session_key("s1")) is not None


def test_where_personal_data_must_not_be_kept_nothing_is_asked_or_written(setting: Setting) -> None:
    setting.session("s1", "u1")
    setting.archive("a1", "s1")

    assert setting.keep(wanted=False) == 0
    assert (setting.kept(), setting.api.asked) == ({}, [])


def test_what_is_not_archived_has_no_session_kept(setting: Setting) -> None:
    setting.session("s1", "u1")
    setting.archive("a1", "s1", AssetState.LOST)

    setting.keep()
    assert setting.kept() == {}


def test_each_session_is_asked_for_once_and_its_later_assets_are_added(setting: Setting) -> None:
    setting.session("s1", "u1")
    setting.archive("a1", "s1")
    setting.keep()
    setting.keep()
    setting.archive("a2", "s1")
    setting.keep()

    assert setting.api.asked == ["s1", "r1"]
    assert setting.kept() == setting.kept(1) == {"s1": ("a1", "a2")}


def test_a_lost_ledger_asks_100ms_for_nothing_that_is_kept(setting: Setting) -> None:
    setting.session("s1", "u1")
    setting.archive("a1", "s1")
    setting.keep()
    setting.ledger.clear()
    setting.archive("a1", "s1")
    setting.api.sessions.clear()
    setting.keep()

    assert setting.kept() == {"s1": ("a1",)}
    assert len(setting.api.asked) == 2


def test_a_destination_that_was_added_gets_the_sessions_too(setting: Setting) -> None:
    setting.session("s1", "u1")
    setting.archive("a1", "s1")
    setting.keep()
    setting.stores.append(MemoryBackend("three"))
    setting.archive("a2", "s1")
    setting.keep()

    assert setting.kept(2) == {"s1": ("a1", "a2")}


def test_a_session_that_goes_on_is_kept_when_it_has_ended_and_holds_up_no_other(setting: Setting) -> None:
    setting.session("s1", "u1", active=True)
    setting.session("s2", "u2")
    setting.archive("a1", "s1")
    setting.archive("a2", "s2")
    setting.keep()
    assert setting.kept() == {"s2": ("a2",)}

    setting.clock.advance(LONGEST)
    setting.keep()
    assert set(setting.kept()) == {"s1", "s2"}


@pytest.mark.parametrize("error", [HmsUnavailable("away"), HmsNotFound("404")])
def test_an_answer_that_fails_is_asked_again_unless_100ms_does_not_know_it(
    setting: Setting, error: HmsError
) -> None:
    setting.session("s1", "u1")
    known, setting.api.sessions["s1"] = setting.api.sessions["s1"], error
    setting.archive("a1", "s1")
    setting.keep()
    setting.api.sessions["s1"] = known
    setting.keep()

    assert (setting.kept() == {"s1": ("a1",)}) is isinstance(error, HmsUnavailable)


def test_a_room_that_is_unknown_leaves_out_its_name_alone(setting: Setting) -> None:
    setting.session("s1", "u1")
    setting.api.rooms["r1"] = HmsNotFound("404")
    setting.archive("a1", "s1")
    setting.keep()

    record = session_records.read(setting.stores[0], "s1")
    assert record is not None
    assert (record.room_name, len(record.peers or ())) == (None, 1)


def test_a_destination_that_is_away_is_written_by_the_next_run(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.session("s1", "u1")
    setting.archive("a1", "s1")

    def away(*_: object) -> None:
        raise TransientStorageError("away")

    with monkeypatch.context() as patched:
        patched.setattr(setting.stores[1], "put", away)
        setting.keep()
    setting.keep()

    assert setting.kept(1) == {"s1": ("a1",)}


def test_a_run_is_bounded_and_the_next_ones_continue(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 3)
    for number in range(10):
        setting.session(f"s{number}", "u1")
        for part in range(2):
            setting.archive(f"a{number}-{part}", f"s{number}")
    runs = [setting.keep() for _ in range(8)]

    assert max(runs) == 3
    assert len(setting.kept()) == 10
    assert setting.keep() == 0
    assert setting.api.asked.count("s9") == 1


def test_the_sessions_of_a_user_are_found_from_any_destination_alone(setting: Setting) -> None:
    for number, users in enumerate([("u1", "u2"), ("u2",), ("u1",)]):
        setting.session(f"s{number}", *users)
        setting.archive(f"a{number}", f"s{number}")
    setting.keep()
    setting.stores[0].delete(keys.session_key("s2"))
    put(setting.stores[0], "sessions/rot/session.json", b"{")

    found = of_user(setting.stores, "u1")

    assert set(found) == {"s0", "s2"}
    assert [peer.user_id for peer in found["s0"].others_than("u1")] == ["u2"]
    assert found["s2"].others_than("u1") == ()
    assert found["s0"].peer_ids("u1") == {"s0-u1"}
    assert not found["s0"].without("u1").was_there("u1")


def test_a_session_is_forgotten_with_its_last_asset(setting: Setting) -> None:
    setting.session("s1", "u1")
    setting.archive("a1", "s1")
    setting.archive("a2", "s1")
    setting.keep()
    store, records = setting.stores[0], SessionRecords()

    records.forget(store, "s1", ["a1", "elsewhere"])
    assert setting.kept() == {"s1": ("a2",)}
    records.forget(store, "s1", ["a2"])
    records.forget(store, "s1", ["a2"])
    assert list(store.list(keys.SESSIONS)) == []


def test_a_record_nobody_can_read_is_forgotten_too(setting: Setting) -> None:
    put(setting.stores[0], keys.session_key("s1"), b"not json")

    SessionRecords().forget(setting.stores[0], "s1", ["a1"])

    assert list(setting.stores[0].list(keys.SESSIONS)) == []


@pytest.mark.parametrize("gone", [False, True])
def test_two_who_erase_of_one_session_at_once_leave_nothing_of_either(gone: bool) -> None:
    others = ["a2", "a3"] if gone else ["a2"]

    class Overtaken(MemoryBackend):
        """Somebody else erases `others` just after the record was read, or just before."""

        overtaken = False

        def read(self, key: ObjectKey, *args: Any, **kwargs: Any) -> bytes:
            data = b"" if gone else super().read(key, *args, **kwargs)
            if not self.overtaken:
                self.overtaken = True
                SessionRecords().forget(self, "s1", ["a1", *others] if gone else others)
            return super().read(key, *args, **kwargs) if gone else data

    store = Overtaken("one")
    made = session_records.new_record(Session(id="s1"), None, ["a1", "a2", "a3"], NOW, "r1")
    session_records.write(store, made)

    SessionRecords().forget(store, "s1", ["a1"])

    left = session_records.read(store, "s1")
    assert (left.assets if left else ()) == (() if gone else ("a3",))


class Interrupted(MemoryBackend):
    """Something else happens at a step, once: just before the record is written, or just after."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def put(self, spec: ObjectSpec, *args: Any, **kwargs: Any) -> ObjectInfo:
        if not keys.is_session(spec.key):
            return super().put(spec, *args, **kwargs)
        before, self.before = self.before, None
        if before is not None:
            before()
        info = super().put(spec, *args, **kwargs)
        after, self.after = self.after, None
        if after is not None:
            after()
        return info


def erase(setting: Setting, *asset_ids: str) -> None:
    """What the eraser does of it, in its order."""
    for store in setting.stores:
        for asset_id in asset_ids:
            tombstones.write(store, Tombstone(asset_id, AssetState.ERASED, "GDPR-1", NOW))
    for store in setting.stores:
        SessionRecords().forget(store, "s1", asset_ids)


@pytest.fixture
def interrupted(setting: Setting) -> Interrupted:
    store = Interrupted("one")
    setting.stores[0] = store
    setting.session("s1", "u1")
    return store


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("erased", [("a1",), ("a1", "a2")], ids=["one", "last"])
def test_what_is_erased_while_a_session_is_kept_does_not_return(
    setting: Setting, interrupted: Interrupted, step: str, known: bool, erased: tuple[str, ...]
) -> None:
    setting.archive("a1", "s1")
    if known:
        setting.keep()
    setting.archive("a2", "s1")
    setattr(interrupted, step, lambda: erase(setting, *erased))

    setting.keep()

    left = {} if "a2" in erased else {"s1": ("a2",)}
    assert setting.kept() == setting.kept(1) == left
    assert interrupted.before is interrupted.after is None


def test_a_session_whose_assets_were_all_erased_is_never_written(
    setting: Setting, interrupted: Interrupted
) -> None:
    setting.archive("a1", "s1")
    erase(setting, "a1")
    interrupted.before = lambda: pytest.fail("personal data of an erased session was written")

    setting.keep()

    assert setting.kept() == setting.kept(1) == {}


def test_two_keepers_at_once_keep_the_assets_that_either_knows(
    setting: Setting, interrupted: Interrupted
) -> None:
    setting.archive("a1", "s1")

    def other() -> None:
        setting.archive("a2", "s1")
        setting.keep()

    interrupted.before = other
    setting.keep()

    assert setting.kept() == setting.kept(1) == {"s1": ("a1", "a2")}


def test_a_keeper_killed_after_its_write_has_the_next_run_look_for_what_was_erased(
    setting: Setting, interrupted: Interrupted
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    setting.archive("a1", "s1")
    interrupted.before, interrupted.after = lambda: erase(setting, "a1"), killed
    with pytest.raises(KeyboardInterrupt):
        setting.keep()
    assert setting.kept() == {"s1": ("a1",)}
    row = setting.ledger.get("a1")
    assert row is not None
    setting.ledger.remove(as_known(row), Settlement(AssetState.ERASED, reason="GDPR-1"))

    setting.stores[0], whole = MemoryBackend("away"), setting.stores[0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(setting.stores[0], "stat", _away)
        setting.keep()
    setting.stores[0] = whole
    setting.keep()

    assert setting.kept() == setting.kept(1) == {}
    assert setting.keep() == 0


def _away(*_: object) -> None:
    raise TransientStorageError("away")

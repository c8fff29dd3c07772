"""What is of one user alone, and what others share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from archiver.core.records import session_records
from archiver.core.records.session_records import SessionRecord
from archiver.core.upkeep.user_recordings import recordings_of
from archiver.hms.sessions import Peer
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock


class Setting:
    def __init__(self) -> None:
        self.ledger = MemoryLedger(Clock(NOW))
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]

    def session(self, session_id: str, peers: Sequence[Peer] | None) -> None:
        kept = None if peers is None else tuple(peers)
        record = SessionRecord(session_id, "r1", None, None, kept, (), NOW)
        session_records.write(self.stores[0], record)

    def archive(self, asset_id: str, session_id: str, kind: str = "room-composite", **metadata: str) -> None:
        one = asset(id=asset_id, session_id=session_id, type=kind, metadata=metadata)
        enter(self.ledger, one)
        archive_at(self.stores[1:], one)

    def found(self, user_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = recordings_of(self.ledger, self.stores, user_id)
        return tuple(sorted(found.own)), tuple(sorted(found.shared))


@pytest.fixture
def setting() -> Setting:
    return Setting()


ADA, ADA_AGAIN = Peer(id="p1", user_id="ada"), Peer(id="p3", user_id="ada")
GRACE, UNNAMED = Peer(id="p2", user_id="grace"), Peer(id="p4")


def test_a_session_of_the_user_alone_is_the_users_own(setting: Setting) -> None:
    setting.session("s1", [ADA, ADA_AGAIN])
    setting.archive("a1", "s1")
    setting.archive("a2", "s1", "chat")

    assert setting.found("ada") == (("a1", "a2"), ())
    assert setting.found("grace") == ((), ())


@pytest.mark.parametrize("other", [GRACE, UNNAMED])
def test_with_another_user_or_somebody_unnamed_it_is_shared_but_for_own_tracks(
    setting: Setting, other: Peer
) -> None:
    setting.session("s1", [ADA, other, ADA_AGAIN])
    setting.archive("a1", "s1")
    setting.archive("mine", "s1", "track", peer_id="p3")
    setting.archive("named", "s1", "stream", user_id="ada")
    setting.archive("theirs", "s1", "track", peer_id="p2")
    setting.archive("silent", "s1", "track")

    assert setting.found("ada") == (("mine", "named"), ("a1", "silent", "theirs"))


def test_sessions_of_others_and_without_peers_are_left_out(setting: Setting) -> None:
    setting.session("s1", [ADA])
    setting.session("s2", None)
    for number, session in enumerate(("s1", "s2", "s3")):
        setting.archive(f"a{number}", session)

    assert setting.found("ada") == (("a0",), ())

"""What is of one user alone, and what others share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.records import session_records, tombstones
from archiver.core.records.session_records import SessionRecord
from archiver.core.records.tombstones import Tombstone
from archiver.core.upkeep.user_recordings import recordings_of
from archiver.hms.sessions import Peer
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectInfo, ObjectSpec
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock


class Setting:
    """`ledger_knows`: False for a ledger that was lost after everything was archived."""

    def __init__(self, *, ledger_knows: bool) -> None:
        self.ledger_knows = ledger_knows
        self.ledger = MemoryLedger(Clock(NOW))
        self.stores = [MemoryBackend("one"), MemoryBackend("two")]

    def session(self, session_id: str, peers: Sequence[Peer] | None) -> None:
        kept = None if peers is None else tuple(peers)
        record = SessionRecord(session_id, "r1", None, None, kept, (), NOW)
        session_records.write(self.stores[0], record)

    def archive(self, asset_id: str, session_id: str, kind: str = "room-composite", **metadata: str) -> None:
        one = asset(id=asset_id, session_id=session_id, type=kind, metadata=metadata)
        if self.ledger_knows:
            enter(self.ledger, one)
        archive_at(self.stores[1:], one)
        record = session_records.read(self.stores[0], session_id)
        if record is not None:
            session_records.write(self.stores[0], replace(record, assets=(*record.assets, asset_id)))

    def found(self, user_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = recordings_of(self.ledger, self.stores, user_id, retention=timedelta(days=15))
        own, shared = (tuple(sorted(row.asset_id for row in rows)) for rows in (found.own, found.shared))
        return own, shared


@pytest.fixture(params=[True, False], ids=["by the ledger", "by the destinations alone"])
def setting(request: pytest.FixtureRequest) -> Setting:
    return Setting(ledger_knows=request.param)


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


def test_what_the_session_does_not_name_is_found_by_its_folder() -> None:
    setting = Setting(ledger_knows=False)
    setting.session("s1", [ADA])
    setting.archive("a1", "s1")
    setting.session("s1", [ADA])
    put(setting.stores[1], "recordings/r1/s1/room-composite/a1/movie.mp4", b"m")

    assert setting.found("ada") == (("a1",), ())


def test_what_was_erased_is_not_found_and_a_manifest_that_nobody_understands_is() -> None:
    setting = Setting(ledger_knows=False)
    setting.session("s1", [ADA])
    for each in ("a1", "a2", "a3"):
        setting.archive(each, "s1")
    tombstones.write(setting.stores[0], Tombstone("a1", AssetState.ERASED, "T-1", NOW, NOW))
    key = next(info.key for info in setting.stores[1].list("manifests/") if "a2" in info.key)
    setting.stores[1].put(ObjectSpec(key, "application/json", 1), b"{", crc32c(b"{"))

    assert setting.found("ada") == (("a2", "a3"), ())


def test_a_destination_that_cannot_be_listed_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(ledger_knows=False)
    setting.session("s1", [ADA])
    setting.archive("a1", "s1")

    def refuses(prefix: str) -> Iterator[ObjectInfo]:
        if prefix.startswith("manifests/"):
            raise TransientStorageError("away")
        return iter(())

    monkeypatch.setattr(setting.stores[1], "list", refuses)

    with pytest.raises(TransientStorageError):
        setting.found("ada")

"""`archiver verify` compares the account with the buckets, and does not end at what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from archiver.core.records import keys
from archiver.core.records.check_records import Check, Records, write_records
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen, Settlement
from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.errors import AccessDenied, ObjectCold, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock
from worker.verify import EVERYTHING, Checked, Tally, stored_by, verify
from worker.views.verify import checked_view, tally_view

IDS = ("a", "b", "c")


class Setup:
    def __init__(self) -> None:
        self.ledger = MemoryLedger(Clock(NOW))
        self.one, self.two = MemoryBackend("one"), MemoryBackend("two")
        self.keys = {}
        for name in IDS:
            each = asset(id=name)
            self.keys[name] = archive_at([self.one, self.two], each)
            enter(self.ledger, each)

    def verify(self, *asset_ids: str, quick: bool = False) -> dict[tuple[str, str], Checked]:
        found: list[int] = []
        checks = list(
            verify(
                [self.one, self.two],
                asset_ids,
                quick=quick,
                stored=stored_by(self.ledger),
                found=found.append,
            )
        )
        assert found == [len(checks)]
        return {(checked.asset_id, checked.destination[-3:]): checked for checked in checks}

    def wipe(self, store: MemoryBackend, name: str) -> None:
        for info in list(store.list()):
            if f"/{name}/" in info.key or f"/{name}." in info.key:
                store.delete(info.key)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def not_ok(checks: dict[tuple[str, str], Checked]) -> set[tuple[str, str]]:
    return {which for which, checked in checks.items() if not checked.ok}


def refuse_reading(
    store: MemoryBackend, part_of_key: str, error: StorageError, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store.read

    def refusing(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        if part_of_key in key:
            raise error
        return read(key, start, length_bytes)

    monkeypatch.setattr(store, "read", refusing)


def told(checks: dict[tuple[str, str], Checked], setup: Setup, *named: str, stored: bool = True) -> str:
    tally = Tally()
    for checked in checks.values():
        tally.add(checked)
    console = Console(file=StringIO(), width=200)
    known = stored_by(setup.ledger) if stored else None
    console.print(
        tally_view(
            tally,
            named=named,
            quick=False,
            stored=known,
            ledger_trouble=None if stored else "nothing listens there",
        )
    )
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_wholly_gone_at_one_destination_or_at_both_is_named(setup: Setup, quick: bool) -> None:
    setup.wipe(setup.two, "a")
    setup.wipe(setup.one, "b")
    setup.wipe(setup.two, "b")

    checks = setup.verify(quick=quick)

    assert not_ok(checks) == {("a", "two"), ("b", "one"), ("b", "two")}
    assert checks["a", "two"].problems == ("no manifest: the ledger calls it archived",)
    assert len(checks) == 6
    assert "3 copies that it calls archived have no manifest" in told(checks, setup)


def test_an_emptied_destination_is_not_well(setup: Setup) -> None:
    for info in list(setup.two.list()):
        setup.two.delete(info.key)

    assert not_ok(setup.verify()) == {(name, "two") for name in IDS}


def test_a_named_asset_is_compared_alone(setup: Setup) -> None:
    setup.wipe(setup.two, "a")
    setup.wipe(setup.two, "b")

    checks = setup.verify("b")

    assert set(checks) == {("b", "one"), ("b", "two")}
    assert not_ok(checks) == {("b", "two")}
    assert "3" not in told(setup.verify("c"), setup, "c").split("Compared")[1]
    assert "Only the named assets were checked" in told(setup.verify("c"), setup, "c")


@pytest.mark.parametrize(
    ("state", "stored_objects", "expected"),
    [
        (AssetState.ARCHIVED, 2, True),
        (AssetState.ARCHIVED, 0, True),
        (AssetState.QUARANTINED, 2, True),
        (AssetState.QUARANTINED, 0, False),  # as 0.1 left them
        (AssetState.WAITING, 0, False),
        (AssetState.LOST, 0, False),
        (AssetState.SKIPPED, 0, False),
    ],
)
def test_the_states_that_say_that_something_is_stored(
    state: AssetState, stored_objects: int, expected: bool
) -> None:
    ledger = MemoryLedger(Clock(NOW))
    seen = Seen("x", "room-composite", NOW, AssetState.DISCOVERED, created_at=NOW)
    ledger.discover([seen])
    lease = ledger.lease("x", "w", timedelta(minutes=1))
    assert lease is not None
    ledger.settle(lease, seen, Settlement(state, stored_objects=stored_objects))

    assert stored_by(ledger) == ({"x": keys.manifest_key("x", NOW)} if expected else {})


def test_a_manifest_that_the_list_does_not_show_yet_is_not_missing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = setup.one.list

    def lagging(prefix: str = "") -> Iterator[ObjectInfo]:
        return (info for info in listing(prefix) if info.key != setup.keys["a"])

    monkeypatch.setattr(setup.one, "list", lagging)

    assert not_ok(setup.verify()) == set()


def test_an_asset_with_an_id_too_long_for_a_key_is_found() -> None:
    ledger, store = MemoryLedger(Clock(NOW)), MemoryBackend("one")
    long = asset(id="x" * 100)
    archive_at([store], long)
    enter(ledger, long)

    checks = list(verify([store], [], quick=True, stored=stored_by(ledger)))

    assert [(checked.asset_id, checked.ok) for checked in checks] == [(long.id, True)]


@pytest.mark.parametrize(
    "error", [AccessDenied("read: 403"), TransientStorageError("read: cut"), StorageError("read: odd")]
)
@pytest.mark.parametrize("part", ["manifests/2026/03/01/b", "recordings/b/movie"])
def test_what_cannot_be_read_is_unknown_and_stops_nothing_else(
    setup: Setup, error: StorageError, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_reading(setup.one, part, error, monkeypatch)

    checks = setup.verify()

    assert not_ok(checks) == {("b", "one")}
    assert checks["b", "one"].problems == ()
    assert str(error) in str(checks["b", "one"].unchecked)
    result = told(checks, setup)
    assert "5 of 5 copies are whole" in result
    assert "Not checked: 1 copy. It is unknown what is whole there." in result


def test_a_manifest_that_cannot_be_understood_stops_nothing_else(setup: Setup) -> None:
    put(setup.one, setup.keys["b"], b"{rubbish")

    assert not_ok(setup.verify()) == {("b", "one")}


def test_a_destination_that_is_away_is_unknown_and_stops_no_other(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_prefix: str = "") -> Iterator[ObjectInfo]:
        raise TransientStorageError("503")

    monkeypatch.setattr(setup.one, "list", away)

    checks = setup.verify()

    assert not_ok(checks) == {(EVERYTHING, "one")}
    assert "its manifests cannot be listed: 503" in str(checks[EVERYTHING, "one"].unchecked)
    assert set(checks) - not_ok(checks) == {(name, "two") for name in IDS}
    assert "Not checked: everything at 1 destination." in told(checks, setup)
    assert "at each destination that could be checked" in told(checks, setup)
    assert not_ok(setup.verify("b")) == {("b", "one")}

    monkeypatch.setattr(setup.two, "list", away)
    assert "Not compared with the ledger: nothing could be checked." in told(setup.verify(), setup)


def test_a_cold_copy_is_told_with_its_last_read_and_is_no_fault(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_reading(setup.one, "recordings/b/movie", ObjectCold("403 InvalidObjectState"), monkeypatch)

    checks = setup.verify()

    assert not_ok(checks) == set()
    assert (checks["b", "one"].cold, checks["b", "one"].last_read) == (True, None)
    assert "1 of them are in a cold storage class" in told(checks, setup)
    assert "1 of them were never read back" in told(checks, setup)

    key = setup.keys["b"]
    read_at = datetime(2026, 2, 3, tzinfo=UTC)
    records = Records(listed_at=read_at)
    records.checks.put(key, Check(0, 0, int(read_at.timestamp()), 0, 9, 0))
    write_records(setup.one, records, read_at)
    checks = setup.verify()

    assert checks["b", "one"].last_read == read_at
    assert "last read on 2026-02-03 or later" in told(checks, setup)

    setup.one.delete(ObjectKey("recordings/b/asset.json"))
    assert setup.verify()["b", "one"].problems == ("asset.json: missing",)


def test_in_the_end_it_says_what_was_checked_and_what_was_not(setup: Setup) -> None:
    checks = setup.verify()

    assert "6 of 6 copies are whole, checked by reading 612 B back." in told(checks, setup)
    assert "each of the 3 assets that it calls archived has a manifest at each destination" in told(
        checks, setup
    )
    alone = told(checks, setup, stored=False)
    assert "Not compared with the ledger: nothing listens there" in alone
    assert "Assets that are missing altogether were not looked for." in alone


def test_what_others_wrote_does_nothing_to_the_terminal(setup: Setup) -> None:
    console = Console(file=StringIO(), width=200)

    console.print(
        checked_view(Checked("a\x1b[2J", "s3://b", problems=("\x1b]0;x\x07[red]",), unchecked="\r"))
    )

    assert isinstance(console.file, StringIO)
    assert not set(console.file.getvalue()) & {"\x1b", "\x07", "\r"}

"""Archived as soon as so many destinations hold it whole; what each of them holds is in the ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from archiver.core.judging import Scope, judge
from archiver.ledger.models import AssetState, CopyState, Row
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at
from tests.core.examples import RETENTION
from tests.core.harness import ArchiverHarness, file

VIDEO = b"video" * 40
WHOLE, LACKING, DAMAGED = CopyState.WHOLE, CopyState.LACKING, CopyState.DAMAGED


class Failing(MemoryBackend):
    """Takes no objects while `error` is set."""

    error: StorageError | None = None
    is_silent = False

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        if self.is_silent:
            raise TransientStorageError("503")
        return super().stat(key)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.error is not None:
            raise self.error
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec):  # type: ignore[no-untyped-def]
        if self.error is not None:
            raise self.error
        return super().begin(spec)


class Harness:
    def __init__(self, failing: int, quorum: int | None, error: StorageError) -> None:
        self.stores = [Failing(name) for name in ("one", "two", "three")]
        for store in self.stores[3 - failing :]:
            store.error = error
        self.base = ArchiverHarness(lambda: file(VIDEO), stores=self.stores)
        self.base.archiver.deps = replace(
            self.base.archiver.deps, rules=replace(self.base.archiver.deps.rules, quorum=quorum)
        )
        self.base.ledger.discover([judge(each, Scope(RETENTION)) for each in self.base.api.assets])

    def archive(self) -> Row:
        self.base.archive()
        row = self.base.ledger.get(self.base.asset_id)
        assert row is not None
        return row


@pytest.mark.parametrize(
    ("failing", "quorum", "state", "at_last"),
    [
        (0, None, AssetState.ARCHIVED, WHOLE),
        (0, 2, AssetState.ARCHIVED, WHOLE),
        (1, None, AssetState.WAITING, None),
        (1, 3, AssetState.WAITING, None),
        (1, 2, AssetState.ARCHIVED, LACKING),
        (1, 1, AssetState.ARCHIVED, LACKING),
        (2, 2, AssetState.WAITING, None),
        (2, 1, AssetState.ARCHIVED, LACKING),
        (3, 1, AssetState.WAITING, None),
    ],
)
@pytest.mark.parametrize(
    "error", [TransientStorageError("503"), AccessDenied("403")], ids=["silent", "refuses"]
)
def test_an_asset_is_archived_at_the_quorum(
    failing: int, quorum: int | None, state: AssetState, at_last: CopyState | None, error: StorageError
) -> None:
    row = Harness(failing, quorum, error).archive()

    assert row.state is state
    assert row.copies.get("memory://three") is at_last
    if state is AssetState.ARCHIVED:
        assert list(row.copies.values()).count(WHOLE) == 3 - failing
        assert row.stored_bytes == len(VIDEO)


def test_a_copy_that_is_missing_at_the_quorum_opens_the_circuit_breaker_of_its_destination() -> None:
    harness = Harness(1, 2, AccessDenied("403"))

    harness.archive()

    assert any("memory://three" in name for name in harness.base.ledger.recall_all(""))


def test_what_was_archived_before_says_while_it_waits_where_it_is() -> None:
    harness = Harness(0, None, TransientStorageError("503"))
    archived = harness.archive()
    harness.stores[2].error = TransientStorageError("503")
    for key in list(harness.stores[2].store.objects):
        del harness.stores[2].store.objects[key]
    harness.base.ledger.reopen(archived.asset_id, keep_stored=True)

    row = harness.archive()

    assert row.state is AssetState.WAITING
    assert row.copies == {"memory://one": WHOLE, "memory://two": WHOLE, "memory://three": LACKING}


@pytest.mark.parametrize("silent", [False, True])
def test_a_copy_that_is_not_what_was_archived_does_not_count_as_whole(silent: bool) -> None:
    """It has doubts, or what the ledger says of it is from before the asset was due again."""
    harness = Harness(1, 2, TransientStorageError("503"))
    made = harness.base.api.assets[0]
    if not silent:
        harness.stores[2].error, error = None, harness.stores[2].error
        archive_at(harness.stores[2:], made, {"movie.mp4": b"half"}, ("a segment is missing",))
        harness.stores[2].error = error
    row = harness.base.ledger.get(made.id)
    assert row is not None
    harness.base.ledger.note_copies(row, {store.name: WHOLE for store in harness.stores})
    if silent:
        harness.stores[2].is_silent = True

    row = harness.archive()

    assert row.state is AssetState.ARCHIVED
    assert row.copies == {"memory://one": WHOLE, "memory://two": WHOLE, "memory://three": DAMAGED}

"""What was found damaged at a write-once destination counts in no attempt, however it was opened, while its bytes are
wrong: the store's own checksum, and its manifest, call it whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest

from archiver.core.errors import ReviewRefused
from archiver.core.judging import as_known, judge
from archiver.core.records import end_records, keys
from archiver.core.records.commit import committed, mark_damaged
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.retrying import copy_again, retry
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, CopyState, Row, Settlement
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, Upload
from storage_backends.equal import UploadOfEqual, equal_or_raise
from storage_backends.errors import AccessDenied, StorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import flip_a_bit
from tests.core.examples import RETENTION
from tests.core.harness import PART_BYTES, ArchiverHarness, BytesSource, Tree

SMALL, LARGE = b"s" * (PART_BYTES // 2), b"l" * (PART_BYTES * 5 + 3)


class WriteOnce(MemoryBackend):
    """As the backends do where the service refuses to replace. `locked`: whether manifests cannot be replaced either.
    `read`: the keys of media that were read."""

    def __init__(self) -> None:
        super().__init__("worm")
        self.locked = False
        self.media_read: set[str] = set()

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self._refuses(spec.key):
            return equal_or_raise(_refusal(spec.key), self, spec.key, len(data), crc32c)
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> Upload:  # type: ignore[override]
        if self._refuses(spec.key):
            return UploadOfEqual.instead(self, spec, _refusal(spec.key))
        upload: Upload = super().begin(spec)
        return upload

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        if key.startswith("recordings/"):
            self.media_read.add(key)
        return super().read(key, start, length_bytes, if_match=if_match)

    def delete(self, key: ObjectKey) -> None:
        raise _refusal(key)

    def _refuses(self, key: ObjectKey) -> bool:
        return key in self.store.objects and (self.locked or key.startswith("recordings/"))


def _refusal(key: ObjectKey) -> AccessDenied:
    return AccessDenied(f"storing {key}: 403 retentionPolicyNotMet")


class Damaged:
    """An archived asset that was found damaged since, at the only destination."""

    def __init__(
        self, *, marked: bool, rotten: bool, flushed: bool, recorded: AssetState = AssetState.DAMAGED
    ) -> None:
        self.store = WriteOnce()
        self.harness = ArchiverHarness(tree, stores=[self.store])
        self.harness.archive()
        self.key = keys.manifest_key(self.harness.asset_id, self.harness.api.assets[0].created_at)
        self.folder = self.manifest.folder
        restore = flip_a_bit(self.store, self.key)
        if marked:
            mark_damaged(self.store, self.key, ["it differs"])
        self.store.locked = not marked
        found = Settlement(
            AssetState.DAMAGED, reason="it differs", copies={"memory://worm": CopyState.DAMAGED}
        )
        self.harness.ledger.record_archived(as_known(self.row), found)
        end_records.write([self.store], as_known(self.row), recorded, "it differs", self.harness.clock())
        if flushed:
            self._flush()
        if not rotten:
            restore()

    @property
    def manifest(self) -> Manifest:
        found = read_manifest(self.store, self.key)
        assert found is not None
        return found

    @property
    def row(self) -> Row:
        found = self.harness.ledger.get(self.harness.asset_id)
        assert found is not None
        return found

    def _flush(self) -> None:
        """As a reconcile that could not read the copy enters it."""
        ledger = MemoryLedger(self.harness.clock)
        deps = self.harness.archiver.deps
        self.harness.ledger = ledger
        self.harness.archiver = self.harness.another_archiver(ledger=ledger)
        seen = judge(self.harness.api.assets[0], deps.rules.scope)
        ledger.record_archived(seen, Settlement(AssetState.DAMAGED, reason="it differs"))


def tree() -> Tree:
    return Tree(
        {"movie.mp4": BytesSource(LARGE), "seg.ts": BytesSource(SMALL), "master.m3u8": b"#EXTM3U\nseg.ts\n"}
    )


def retried(case: Damaged) -> None:
    with suppress(StorageError):  # which the command says
        retry(
            case.harness.ledger,
            [case.store],
            case.harness.asset_id,
            by="ann",
            why="because",
            now=case.harness.clock(),
        )


def copied_again(case: Damaged) -> None:
    """As `archive --again`, which goes on where a manifest cannot be marked."""
    with suppress(ReviewRefused):
        copy_again(case.harness.ledger, [case.store], case.row, case.harness.clock())
    case.harness.ledger.reopen(case.harness.asset_id)


def un_erased(case: Damaged) -> None:
    """Of an erasure that the store refused."""
    case.harness.ledger.remove(as_known(case.row), Settlement(AssetState.ERASING, reason="ticket 7"))
    case.harness.ledger.reopen(case.harness.asset_id, un_erase=True)


def reopened(case: Damaged) -> None:
    case.harness.ledger.reopen(case.harness.asset_id)


@dataclass(frozen=True)
class Case:
    name: str
    opened: Callable[[Damaged], None]
    marked: bool
    flushed: bool

    def __str__(self) -> str:
        how = "its manifest is marked" if self.marked else "it cannot be marked"
        return f"{self.name}, {how}{', after a flush' if self.flushed else ''}"


CASES = [
    Case(name, opened, marked, flushed)
    for name, opened in {
        "retry": retried,
        "archive --again": copied_again,
        "un-erased": un_erased,
        "reopened": reopened,
    }.items()
    for marked in (True, False)
    for flushed in (True, False)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_has_rotted_is_stored_beside_what_cannot_be_replaced_or_stays_damaged(case: Case) -> None:
    it = Damaged(marked=case.marked, rotten=True, flushed=case.flushed)

    case.opened(it)
    it.harness.archive_until_settled(attempts=3)

    if case.marked:
        assert it.row.state is AssetState.ARCHIVED
        assert it.manifest.folder != it.folder
        assert verify_contents(it.store, it.manifest).ok
    else:
        assert it.row.state is AssetState.DAMAGED
        assert it.row.copies.get("memory://worm") is not CopyState.WHOLE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_right_after_all_is_archived_as_it_is_once_it_was_read(case: Case) -> None:
    it = Damaged(marked=case.marked, rotten=False, flushed=case.flushed)
    it.store.media_read.clear()

    case.opened(it)
    it.harness.archive_until_settled(attempts=3)

    assert it.row.state is AssetState.ARCHIVED
    assert it.manifest.folder == it.folder
    assert {f"{it.folder}/movie.mp4", f"{it.folder}/seg.ts"} <= it.store.media_read


def test_what_was_rejected_when_it_was_damaged_is_read_back_too() -> None:
    it = Damaged(marked=False, rotten=True, flushed=True, recorded=AssetState.REJECTED)

    reopened(it)
    it.harness.archive_until_settled(attempts=3)

    assert it.row.state is AssetState.DAMAGED


def test_what_an_attempt_resumes_of_a_damaged_asset_is_read_back_too() -> None:
    """The refused objects counted as stored when the attempt before was interrupted."""
    it = Damaged(marked=True, rotten=True, flushed=False)
    reopened(it)
    it.store.locked = True  # nothing can be committed
    it.harness.archive()
    it.store.locked = False

    it.harness.archive_until_settled(attempts=3)

    assert it.row.state is AssetState.ARCHIVED
    assert verify_contents(it.store, it.manifest).ok


def test_another_destination_gets_its_copy_beside_one_that_stays_damaged() -> None:
    it = Damaged(marked=False, rotten=True, flushed=False)
    other = MemoryBackend("other")
    it.harness.archiver = it.harness.another_archiver(destinations=[it.store, other])
    reopened(it)

    it.harness.archive()

    assert it.row.state is AssetState.DAMAGED
    assert it.row.copies == {"memory://worm": CopyState.DAMAGED, "memory://other": CopyState.WHOLE}
    assert committed(other, it.key) is not None


def test_what_100ms_has_deleted_meanwhile_stays_damaged_and_is_neither_archived_nor_lost() -> None:
    it = Damaged(marked=False, rotten=True, flushed=False)
    reopened(it)
    (made,) = it.harness.api.assets
    it.harness.api.assets.clear()
    it.harness.clock.advance(RETENTION + timedelta(days=1))

    it.harness.archive_until_settled(asset_id=made.id)

    row = it.harness.ledger.get(made.id)
    assert row is not None
    assert row.state is AssetState.DAMAGED
    assert "its manifest cannot be replaced at memory://worm" in (row.reason or "")


def test_an_asset_that_is_archived_for_the_first_time_is_not_read_back() -> None:
    store = WriteOnce()
    harness = ArchiverHarness(tree, stores=[store])

    harness.archive()

    assert store.media_read == set()

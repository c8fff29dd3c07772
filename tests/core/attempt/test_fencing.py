"""Who may write a manifest, and what is left when two workers copied the same asset (docs/decisions/0008)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from archiver.core.attempt.outcomes import AlreadyArchived, Archived, Kept, NotOurs
from archiver.core.attempt.settling import LONGEST_SECONDS, settle
from archiver.core.errors import Outranked
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.records.commit import accept, clear_damage, commit, extend, mark_damaged
from archiver.core.records.manifest import NO_FENCE, Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.reconcile import Reconciler
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Lease, Row, Seen, Settlement
from archiver.transfer.errors import SourceGone
from storage_backends.base import (
    Buffer,
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
    StorageBackend,
    Upload,
    object_key,
)
from storage_backends.errors import AccessDenied, ObjectChanged, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, manifest_of, put
from tests.core.attempt.stale_workers import Audit, Pauser, Unconditional, Worker, never
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.core.harness import ArchiverHarness, BytesSource, Tree, file
from tests.transfer.stores import NoChecksumStore, Wrapped

KEY = keys.manifest_key(asset().id, asset().created_at)
VIDEO = bytes(range(256)) * 3
SMALL = b"m" * 50
OTHER = b"n" * 50


def manifest_at(store: StorageBackend) -> Manifest:
    manifest = read_manifest(store, KEY)
    assert manifest
    return manifest


def fenced(fence: int | None, **changes: Any) -> Manifest:
    return manifest_of(asset()).model_copy(update={"fence": fence, **changes})


def stored_with(*stores: StorageBackend, fence: int | None, **changes: Any) -> Manifest:
    """Its objects, and a manifest that lists them."""
    archive_at(stores, asset())
    manifest = fenced(fence, **changes)
    for store in stores:
        put(store, KEY, manifest.to_bytes())
    return manifest


# -- compare and swap ------------------------------------------------------------------------------------------
ANOTHER = {"warnings": ("another",), "version": "v2", "folder": f"recordings/{asset().id}/!v2"}


def another(fence: int | None, *stores: StorageBackend) -> Manifest:
    """A manifest of other objects of the same asset, which are stored."""
    manifest = fenced(fence, **ANOTHER)
    for store in stores:
        put(store, f"{manifest.folder}/movie.mp4", b"m" * 100)
        put(store, f"{manifest.folder}/asset.json", b"{}")
    return manifest


@pytest.mark.parametrize(
    ("there", "ours", "replaced"),
    [(5, 6, True), (None, 6, True), (None, None, True), (6, 6, True), (7, 6, False), (6, None, False)],
)
@pytest.mark.parametrize("kind", [MemoryBackend, NoChecksumStore, Unconditional])
def test_a_manifest_is_never_replaced_by_one_of_a_lower_token(
    kind: Callable[[Any], StorageBackend], there: int | None, ours: int | None, replaced: bool
) -> None:
    store = kind("one") if kind is MemoryBackend else kind(MemoryBackend("one"))
    before = stored_with(store, fence=there)
    manifest = another(ours, store)

    if replaced:
        commit(store, KEY, manifest)
    else:
        with pytest.raises(Outranked):
            commit(store, KEY, manifest)

    assert manifest_at(store) == (manifest if replaced else before)


def test_an_equal_manifest_of_a_higher_token_counts_as_the_commit() -> None:
    store = MemoryBackend("one")
    before = stored_with(store, fence=9)

    commit(store, KEY, fenced(6, warnings=("ours",)))

    assert manifest_at(store) == before


def test_an_equal_manifest_from_before_the_attempt_stays_and_any_other_gets_the_new_token() -> None:
    store = MemoryBackend("one")
    before = stored_with(store, fence=5)

    commit(store, KEY, fenced(6, warnings=("ours",)), known=before)
    assert manifest_at(store) == before

    commit(store, KEY, fenced(6, warnings=("ours",)), known=None)
    assert manifest_at(store).rank == 6


class WriteOnce(Wrapped):
    """Objects are under a retention policy."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.inner.stat(spec.key) is not None:
            raise AccessDenied("retention")
        return super().put(spec, data, crc32c)


def test_where_nothing_may_be_overwritten_an_equal_manifest_counts_as_the_commit() -> None:
    store = MemoryBackend("one")
    before = stored_with(store, fence=5)

    commit(WriteOnce(store), KEY, fenced(6, warnings=("ours",)))
    with pytest.raises(AccessDenied):
        commit(WriteOnce(store), KEY, another(6, store))

    assert manifest_at(store) == before


class BetweenReadAndWrite(Wrapped):
    """Somebody else writes just before our write of a manifest."""

    def __init__(self, inner: StorageBackend, theirs: Manifest, times: int = 1) -> None:
        super().__init__(inner)
        self.theirs, self.left = theirs, times

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if spec.key == KEY and self.left:
            self.left -= 1
            put(self.inner, KEY, self.theirs.to_bytes())
        return super().put(spec, data, crc32c)


def test_a_newer_manifest_that_appears_at_the_last_moment_stays() -> None:
    store = MemoryBackend("one")
    stored_with(store, fence=5)
    theirs = another(7, store)

    with pytest.raises(Outranked):
        commit(
            BetweenReadAndWrite(store, theirs),
            KEY,
            fenced(6, version="v3", folder=f"recordings/{asset().id}/!v3"),
        )

    assert manifest_at(store) == theirs


def test_an_older_manifest_that_appears_at_the_last_moment_is_replaced() -> None:
    store = MemoryBackend("one")
    ours = stored_with(store, fence=6)
    store.delete(KEY)

    commit(BetweenReadAndWrite(store, another(5, store)), KEY, ours)

    assert manifest_at(store) == ours


CHANGES: dict[str, Callable[[StorageBackend, Manifest], object]] = {
    "mark_damaged": lambda store, read: mark_damaged(store, KEY, ["CRC32C"], of=read),
    "clear_damage": lambda store, read: clear_damage(store, KEY, read),
    "extend": lambda store, read: extend(store, KEY, read, read.model_copy(update={"warnings": ("full",)})),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ["before", "at the write"])
def test_a_manifest_replaced_since_it_was_read_is_not_changed(change: str, moment: str) -> None:
    store = MemoryBackend("one")
    read = stored_with(store, fence=5)
    theirs = another(7, store)
    seen: StorageBackend = BetweenReadAndWrite(store, theirs)
    if moment == "before":
        put(store, KEY, theirs.to_bytes())
        seen = store

    assert not CHANGES[change](seen, read)

    assert manifest_at(store) == theirs


def test_a_decision_on_a_manifest_replaced_meanwhile_changes_nothing() -> None:
    store = MemoryBackend("one")
    archive_at([store], asset(), doubts=("no ENDLIST",))
    theirs = another(7, store)

    accepted = accept(BetweenReadAndWrite(store, theirs), KEY, by="ada", why="seen", at=NOW)

    assert accepted is None
    assert manifest_at(store) == theirs


@pytest.mark.parametrize("change", ["mark_damaged", "clear_damage", "extend"])
def test_a_change_of_a_manifest_keeps_its_token(change: str) -> None:
    store = MemoryBackend("one")
    damage = ("CRC32C",) if change == "clear_damage" else None
    read = stored_with(store, fence=5, damage=damage)

    assert CHANGES[change](store, read)

    assert manifest_at(store).rank == 5
    assert bool(manifest_at(store).damage) is (change == "mark_damaged")


def test_a_manifest_replaced_again_and_again_is_a_transient_fault() -> None:
    store = MemoryBackend("one")
    read = stored_with(store, fence=5)

    class Busy(Wrapped):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            raise ObjectChanged("somebody else")

    with pytest.raises(TransientStorageError):
        mark_damaged(Busy(store), KEY, ["CRC32C"], of=read)


# -- tokens ----------------------------------------------------------------------------------------------------
def test_a_manifest_has_the_token_of_its_lease() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))

    harness.archive()

    first = manifest_at(harness.stores[0]).rank
    assert first > NO_FENCE
    mark_damaged(harness.stores[0], KEY, ["CRC32C"])
    harness.ledger.reopen(harness.asset_id)
    harness.archive()
    assert manifest_at(harness.stores[0]).rank > first


def test_after_a_flush_an_attempt_takes_a_token_above_that_of_the_manifest_it_finds() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    high = 2**60  # tokens are microseconds since 1970, below 2**52 for decades
    stored_with(harness.stores[0], fence=high, damage=("CRC32C",))

    outcome = harness.archive()

    assert isinstance(outcome, Archived)
    assert manifest_at(harness.stores[0]).rank == high + 1
    assert harness.ledger.get(harness.asset_id).state is AssetState.ARCHIVED  # type: ignore[union-attr]


def test_a_manifest_of_a_higher_token_that_appears_during_the_copy_makes_the_asset_due_at_once() -> None:
    store = MemoryBackend("one")
    theirs = another(2**60, store)

    class Appears(Wrapped):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            if spec.key == KEY:
                put(self.inner, KEY, theirs.to_bytes())
            return super().put(spec, data, crc32c)

    harness = ArchiverHarness(lambda: file(VIDEO), stores=[Appears(store)])

    assert isinstance(harness.archive(), NotOurs)
    row = harness.ledger.get(harness.asset_id)
    assert row
    assert (row.state, row.attempts) == (AssetState.WAITING, 0)
    assert isinstance(harness.archive(), AlreadyArchived)
    assert manifest_at(store) == theirs


# -- two workers -----------------------------------------------------------------------------------------------
def one_file(body: bytes) -> Callable[[], Tree]:
    return lambda: Tree({"a.mp4": BytesSource(body, etag=f'"{body[:1].hex()}"')}, version=body[:1].hex())


@pytest.mark.parametrize("kind", [MemoryBackend, NoChecksumStore])
@pytest.mark.parametrize("moment", ["put recordings", "put manifests", "settle"])
@pytest.mark.parametrize("body", [SMALL, OTHER], ids=["the same bytes", "other bytes"])
def test_a_worker_paused_for_longer_than_its_lease_does_not_damage_the_newer_commit(
    kind: Callable[[Any], StorageBackend], moment: str, body: bytes
) -> None:
    store = kind("one") if kind is MemoryBackend else kind(MemoryBackend("one"))
    harness, audits = ArchiverHarness(one_file(SMALL), stores=[store]), [Audit()]
    stale = Worker(harness, audits, "stale", one_file(SMALL), Pauser(moment, 1, after=False))
    stale.start()
    harness.clock.advance(timedelta(minutes=5))
    newer = Worker(harness, audits, "newer", one_file(body), never())
    newer.start()
    newer.finish()
    newest = manifest_at(store)

    stale.finish()

    assert isinstance(stale.outcome, NotOurs)
    assert audits[0].wrong == []
    row = harness.ledger.get(harness.asset_id)
    assert row
    overwritten = moment == "put recordings" and body == OTHER
    if overwritten:
        assert manifest_at(store).damage, "its object is the stale worker's now, and everybody can see it"
        assert row.state is AssetState.DISCOVERED
        assert isinstance(harness.archive(), Archived)
    else:
        assert manifest_at(store) == newest
        assert row.state is AssetState.ARCHIVED
    assert verify_contents(store, manifest_at(store)).ok


def test_without_compare_and_swap_an_asset_whose_newer_manifest_may_be_replaced_is_reopened() -> None:
    store = Unconditional(MemoryBackend("one"))
    harness, audits = ArchiverHarness(one_file(SMALL), stores=[store]), [Audit()]
    stale = Worker(harness, audits, "stale", one_file(SMALL), Pauser("put manifests", 1, after=False))
    stale.start()
    harness.clock.advance(timedelta(minutes=5))
    harness.archive()

    stale.finish()

    row = harness.ledger.get(harness.asset_id)
    assert row
    assert row.state is AssetState.DISCOVERED
    assert isinstance(harness.archive(), AlreadyArchived)


def test_a_failed_attempt_marks_the_manifests_it_overwrote_as_damaged() -> None:
    """A stale worker's manifest appeared while it copied another version, and then its source went away."""
    store, folder = (
        MemoryBackend("one"),
        "recordings/room-1/session-1/room-composite/6400c0d3e1b2a3c4d5e6f708",
    )
    theirs = manifest_of(asset(), {"a.ts": SMALL, "b.ts": SMALL}).model_copy(
        update={"folder": folder, "fence": 1}
    )

    class Appears(Wrapped):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            if spec.key.endswith("a.ts"):
                put(self.inner, f"{folder}/a.ts", SMALL)
                put(self.inner, f"{folder}/b.ts", SMALL)
                put(self.inner, KEY, theirs.to_bytes())
            return super().put(spec, data, crc32c)

    gone = BytesSource(b"", [SourceGone("404")] * 9)
    harness = ArchiverHarness(
        lambda: Tree({"a.ts": BytesSource(OTHER), "b.ts": gone}), stores=[Appears(store)]
    )

    harness.archive()

    assert manifest_at(store).damage
    row = harness.ledger.get(harness.asset_id)
    assert row
    assert row.state is AssetState.WAITING


# -- what is stored is there, before and after -----------------------------------------------------------------
class Vanishes(Wrapped):
    """`path` is deleted when `moment` comes: a lifecycle rule, a person, an unmounted disk."""

    def __init__(self, inner: StorageBackend, path: str, moment: str) -> None:
        super().__init__(inner)
        self.path, self.moment = path, moment

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        is_manifest = spec.key.startswith("manifests/")
        if self.moment == "before the commit" and is_manifest:
            self._delete()
        info = super().put(spec, data, crc32c)
        last = KEY if self.moment == "after the commit" else "m.m3u8"
        if self.moment in ("after the commit", "while it is copied") and spec.key.endswith(last):
            self._delete()
        return info

    def _delete(self) -> None:
        self.moment = "never again"
        for info in tuple(self.inner.list()):
            if info.key.endswith(self.path):
                self.inner.delete(info.key)


MOMENTS = ["while it is copied", "before the commit", "after the commit"]


@pytest.mark.parametrize("count", [2, 9], ids=["a few requests", "a list"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_object_that_vanished_before_the_commit_is_never_archived(moment: str, count: int) -> None:
    inner = MemoryBackend("one")
    store = Vanishes(inner, "0.ts", moment)
    files: dict[str, BytesSource | bytes] = {f"{n}.ts": BytesSource(SMALL) for n in range(count)}
    harness = ArchiverHarness(lambda: Tree({**files, "m.m3u8": b"#EXTM3U"}), stores=[store])

    outcome = harness.archive()

    row = harness.ledger.get(harness.asset_id)
    assert row
    assert not isinstance(outcome, Archived)
    assert row.state is AssetState.WAITING
    assert "0.ts: missing" in (row.reason or "")
    manifest = read_manifest(inner, KEY)
    assert manifest is None or manifest.damage, "no manifest proves what is not there"
    assert isinstance(harness.archive_until_settled(), Archived)
    assert verify_contents(inner, manifest_at(inner)).ok


def test_objects_missing_from_a_stale_list_are_checked_one_by_one() -> None:
    class Lags(Wrapped):
        def list(self, prefix: str = "") -> Any:
            return (info for info in self.inner.list(prefix) if not info.key.endswith("0.ts"))

    files: dict[str, BytesSource | bytes] = {f"{n}.ts": BytesSource(SMALL) for n in range(9)}
    harness = ArchiverHarness(lambda: Tree(files), stores=[Lags(MemoryBackend("one"))])

    assert isinstance(harness.archive(), Archived)


class Counting(MemoryBackend):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: list[str] = []

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self.asked.append("put")
        return super().put(spec, data, crc32c)

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self.asked.append("stat")
        return super().stat(key)

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        self.asked.append("read")
        return super().read(key, start, length_bytes, if_match=if_match)

    def list(self, prefix: str = "") -> Any:
        self.asked.append("list")
        return super().list(prefix)


def test_a_small_asset_costs_eight_requests() -> None:
    store = Counting("one")
    harness = ArchiverHarness(lambda: file(SMALL), stores=[store])

    harness.archive()

    # was it erased? · is there a manifest? · the object · was it erased? · the manifest · the manifest read back ·
    # was it erased meanwhile? · is the object there?
    assert store.asked == ["stat", "stat", "put", "stat", "put", "read", "stat", "stat"]


# -- a ledger that is unreachable -------------------------------------------------------------------------------------
class Away(MemoryLedger):
    """Away for `left` more calls."""

    left = 0
    refused = 0

    def _maybe(self) -> None:
        if self.left > 0:
            self.left -= 1
            self.refused += 1
            raise LedgerUnavailable("connection refused")

    def renew(self, lease: Lease, duration: timedelta) -> None:
        self._maybe()
        super().renew(lease, duration)

    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        self._maybe()
        return super().settle(lease, seen, settlement)


class Leaves(Wrapped):
    """When its first upload begins, `leave` is called."""

    leave: Callable[[], None] | None = None

    def begin(self, spec: ObjectSpec) -> Upload:
        if self.leave is not None:
            self.leave()
            self.leave = None
        return super().begin(spec)


def away_during_the_copy(calls: int) -> tuple[ArchiverHarness, Away, BytesSource]:
    """From the middle of the copy on, for so many calls."""
    source, store = BytesSource(VIDEO), Leaves(MemoryBackend("one"))
    harness = ArchiverHarness(lambda: Tree({"a.mp4": source}), stores=[store], new_ledger=Away)
    ledger = harness.ledger
    assert isinstance(ledger, Away)
    store.leave = lambda: setattr(ledger, "left", calls)
    return harness, ledger, source


def test_a_ledger_that_is_away_when_the_copy_ends_costs_nothing() -> None:
    harness, ledger, _ = away_during_the_copy(6)

    outcome = harness.archive()

    assert isinstance(outcome, Archived)
    assert ledger.refused == 6
    row = harness.ledger.get(harness.asset_id)
    assert row
    assert (row.state, row.crashes) == (AssetState.ARCHIVED, 0)


def test_a_ledger_that_stays_away_costs_the_next_attempt_no_byte_of_the_source() -> None:
    harness, ledger, source = away_during_the_copy(10**6)

    with pytest.raises(LedgerUnavailable):
        harness.archive()

    assert ledger.refused == 26 + 1, "the lease is confirmed once, and settling ends"
    assert harness.paused == [1, 2, 4, *[5] * 22]
    manifest = manifest_at(harness.stores[0])
    ledger.left, reads = 0, source.reads
    harness.clock.advance(timedelta(minutes=5))
    assert isinstance(harness.archive(), AlreadyArchived)
    assert source.reads == reads
    assert manifest_at(harness.stores[0]) == manifest


def test_a_ledger_whose_calls_take_long_to_fail_is_retried_less_often() -> None:
    ledger = Away(Clock(NOW))
    ledger.left = 10**6
    paused: list[float] = []
    seconds = iter(range(0, 10**6, LONGEST_SECONDS // 3))

    with pytest.raises(LedgerUnavailable):
        settle(
            ledger,
            Lease(asset().id, 1, "test"),
            judge(asset(), Scope(RETENTION), NOW),
            Settlement(AssetState.ARCHIVED),
            pause=paused.append,
            give_up=lambda: False,
            clock=lambda: float(next(seconds)),
        )

    assert paused == [1, 2]


def test_a_stopping_worker_does_not_wait_for_the_ledger() -> None:
    harness, _, _ = away_during_the_copy(10**6)

    def stop(_: float) -> None:
        harness.stopping = True

    harness.archiver._pause = stop
    with pytest.raises(LedgerUnavailable):
        harness.archive()

    assert manifest_at(harness.stores[0]).trusted


def test_a_newer_attempt_that_committed_while_the_ledger_was_away_from_us_keeps_its_manifest() -> None:
    harness, ledger, _ = away_during_the_copy(10**6)
    theirs = another(2**60, harness.stores[0])

    class Appears(Wrapped):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            if spec.key == KEY:
                put(self.inner, KEY, theirs.to_bytes())
            return super().put(spec, data, crc32c)

    harness.archiver.deps = replace(harness.archiver.deps, destinations=[Appears(harness.stores[0])])

    assert isinstance(harness.archive(), NotOurs)
    assert ledger.refused
    assert manifest_at(harness.stores[0]) == theirs


# -- the version before ----------------------------------------------------------------------------------------
def test_a_manifest_of_the_previous_version_is_accepted_and_never_rewritten() -> None:
    harness = ArchiverHarness(lambda: file(SMALL))
    store = harness.stores[0]
    archive_at([store], asset())
    before = store.read(KEY)
    assert b'"fence"' not in before

    outcome = harness.archive()
    Reconciler(
        ledger=harness.ledger,
        destinations=harness.stores,
        scope=harness.archiver.deps.rules.scope,
        clock=harness.clock,
    ).reconcile()

    assert isinstance(outcome, AlreadyArchived)
    assert store.read(KEY) == before
    assert store.stat(object_key(f"recordings/{asset().id}/asset.json")), "and its record stays"


def test_a_record_of_the_previous_version_stays_verified() -> None:
    store = MemoryBackend("one")
    archive_at([store], asset())
    store.delete(object_key(f"recordings/{asset().id}/asset.json"))

    assert verify_contents(store, manifest_at(store)).problems == ("asset.json: missing",)


def test_what_the_previous_version_stored_with_doubts_is_not_rewritten() -> None:
    broken: Callable[[], Tree] = lambda: Tree(  # noqa: E731
        {"a.ts": BytesSource(SMALL), "b.ts": BytesSource(b"", [SourceGone("404")] * 99)}
    )
    harness = ArchiverHarness(broken)
    assert isinstance(harness.archive_until_settled(), Kept)
    store = harness.stores[0]
    kept = json.loads(store.read(KEY))
    del kept["fence"]
    record = {"path": "asset.json", "size": 2, "crc32c": "297bd0aa", "content_type": "application/json"}
    kept["objects"].append(record)
    kept["fingerprint"] = "of the version before, with the record in it"
    put(store, f"{kept['folder']}/asset.json", b"{}")
    before = json.dumps(kept).encode()
    put(store, KEY, before)
    harness.ledger.reopen(harness.asset_id, keep_stored=True)

    outcome = harness.archive_until_settled()

    assert isinstance(outcome, Kept)
    assert store.read(KEY) == before


def test_the_previous_version_reads_our_manifests() -> None:
    """Its model had no token, and ignored what it did not know, as ours does."""
    ours = json.loads(fenced(5).to_bytes())
    theirs = json.loads(fenced(None).to_bytes())
    assert set(ours) - set(theirs) == {"fence"}
    assert Manifest.model_config.get("extra", "ignore") == "ignore"
    assert Manifest.model_validate({**ours, "something": "new"}) == fenced(5)


def test_a_file_of_the_source_never_gets_the_name_of_the_record() -> None:
    harness = ArchiverHarness(lambda: Tree({keys.safe_path("asset.json"): BytesSource(SMALL)}))

    harness.archive()

    assert [item.path for item in manifest_at(harness.stores[0]).objects] == ["!61sset.json"]

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.attempt import heartbeat
from archiver.core.attempt.decisions import LOST_AFTER, MAX_CRASHES
from archiver.core.attempt.leasing import take_lease
from archiver.core.attempt.outcomes import AlreadyArchived, Archived, Ended, NotOurs, WillRetry
from archiver.core.contents.base import Item, Notes
from archiver.core.destinations import breaker
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.records.commit import commit, mark_damaged
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.reconcile import Reconciler
from archiver.hms.errors import HmsUnauthorized, HmsUnavailable
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Lease, StoredObject
from archiver.transfer.checksums import crc32c
from archiver.transfer.errors import (
    ErrorPage,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    SourceUntrusted,
)
from storage_backends.base import (
    Buffer,
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
    StorageBackend,
    Upload,
    object_key,
)
from storage_backends.errors import AccessDenied, DestinationFull, StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.harness import ArchiverHarness, BytesSource, Tree, file
from tests.transfer.stores import FaultyStore, NoChecksumStore, Wrapped

VIDEO = bytes(range(256)) * 3  # 12 parts


class WritesSeen(MemoryBackend):
    """Remembers the names of what is written in one request."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.written: list[str] = []

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self.written.append(spec.key.rsplit("/", 1)[-1])
        return super().put(spec, data, crc32c)


def manifest_of(harness: ArchiverHarness, store: StorageBackend | None = None) -> Manifest | None:
    described = harness.api.assets[0]
    return read_manifest(store or harness.stores[0], keys.manifest_key(described.id, described.created_at))


def stored_keys(store: StorageBackend) -> set[str]:
    return {str(info.key) for info in store.list()}


def state_of(harness: ArchiverHarness) -> AssetState | None:
    row = harness.ledger.get(harness.asset_id)
    return row.state if row else None


# -- the good end --------------------------------------------------------------------------------------------
def test_an_archived_asset_is_complete_and_has_a_manifest_that_verifies() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))

    outcome = harness.archive()

    manifest = manifest_of(harness)
    assert isinstance(outcome, Archived)
    assert manifest is not None
    assert {item.path for item in manifest.objects} == {"Rec-room-1.mp4"}
    assert manifest.asset["id"] == harness.asset_id, "the description of 100ms is in the manifest alone"
    assert verify_contents(harness.stores[0], manifest).ok
    assert outcome.stored_bytes == manifest.total_size
    assert state_of(harness) is AssetState.ARCHIVED


def test_the_ledger_s_totals_count_what_was_copied_and_not_what_was_kept() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.archive()
    once = dict(harness.ledger.totals())
    harness.ledger.reopen(harness.asset_id)
    harness.archive()

    assert once == {"attempts:archived": 1, "copied_bytes": len(VIDEO), "copied_objects": 1}
    assert harness.ledger.totals() == {**once, "attempts:archived": 2}


def test_archiving_again_copies_nothing() -> None:
    source = BytesSource(VIDEO)
    harness = ArchiverHarness(lambda: Tree({"a.mp4": source}))
    harness.archive()
    reads = source.reads
    harness.ledger.reopen(harness.asset_id)

    outcome = harness.archive()

    assert isinstance(outcome, AlreadyArchived)
    assert source.reads == reads


def test_a_settled_asset_is_not_touched() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.archive()

    assert isinstance(harness.archive(), NotOurs)


def test_an_asset_leased_to_another_worker_is_not_touched() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.archive()
    harness.ledger.reopen(harness.asset_id)
    assert harness.ledger.lease(harness.asset_id, "another", timedelta(minutes=2))

    assert isinstance(harness.archive(), NotOurs)


def test_playlists_are_written_after_all_media_and_the_manifest_last() -> None:
    order: list[str] = []

    class Watched(MemoryBackend):
        def put(self, spec, data, crc32c):  # type: ignore[no-untyped-def]
            order.append(spec.key.rsplit("/", 1)[-1])
            return super().put(spec, data, crc32c)

    segments = {f"s{number}.ts": BytesSource(b"G" * 10) for number in range(20)}
    harness = ArchiverHarness(lambda: Tree({**segments, "master.m3u8": b"#EXTM3U"}), stores=[Watched("one")])

    harness.archive()

    assert set(order[:20]) == set(segments)
    assert order[20] == "master.m3u8"
    assert order[-1] == f"{harness.asset_id}.json"


def test_a_signed_url_in_the_asset_never_reaches_the_bucket() -> None:
    signed = "https://storage.example/thumb.png?X-Amz-Signature=CANARY"
    harness = ArchiverHarness(
        lambda: Tree({"a.mp4": BytesSource(VIDEO)}, notes=Notes(warnings=[f"{signed} could not be fetched"])),
        assets=[asset(size=None, thumbnails=[signed], metadata={"deep": [{"url": signed}]})],
    )

    harness.archive()

    everything = b"".join(harness.stores[0].read(object_key(key)) for key in stored_keys(harness.stores[0]))
    assert b"CANARY" not in everything
    assert b"https://storage.example/thumb.png" in everything


def test_an_unavailable_optional_object_is_a_warning_in_manifest_and_ledger() -> None:
    missing = BytesSource(b"", [SourceGone("thumb is gone")] * 9)
    harness = ArchiverHarness(
        lambda: Tree(
            {"a.mp4": BytesSource(VIDEO), "thumbnails/1.png": missing},
            optional=frozenset({"thumbnails/1.png"}),
        )
    )

    outcome = harness.archive()

    manifest, row = manifest_of(harness), harness.ledger.get(harness.asset_id)
    assert isinstance(outcome, Archived)
    assert manifest is not None
    assert row is not None
    assert "thumb is gone" in manifest.warnings[0]
    assert row.warnings == manifest.warnings


# -- what the API says ---------------------------------------------------------------------------------------
def test_an_asset_of_unknown_status_is_not_archived_but_retried() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO), assets=[asset(status="processing")])

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert manifest_of(harness) is None


def test_a_source_whose_certificate_does_not_verify_costs_no_attempt_and_is_shown() -> None:
    def untrusted() -> Tree:
        raise SourceUntrusted(
            "asking for https://cdn.example/a.mp4: certificate has expired", "https://cdn.example"
        )

    harness = ArchiverHarness(untrusted)

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert not outcome.costs_attempt
    (hold,) = breaker.opened(harness.ledger, harness.clock()).items()
    assert hold[0] == "https://cdn.example"
    assert "certificate has expired" in hold[1].reason


def test_an_api_that_refuses_opens_its_breaker_and_costs_no_attempts() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.archive()
    harness.ledger.reopen(harness.asset_id)
    found, calls = harness.api.asset, itertools.count()

    def refuse(asset_id: str) -> object:
        next(calls)
        raise HmsUnauthorized("401")

    harness.api.asset = refuse  # type: ignore[assignment, method-assign]
    harness.api.fail_on_page = (0, HmsUnauthorized("401"))
    first, second = harness.archive(), None
    harness.clock.advance(timedelta(minutes=1))
    harness.ledger.reopen(harness.asset_id)
    second = harness.archive()

    assert isinstance(first, WillRetry)
    assert isinstance(second, WillRetry)
    assert "circuit breaker" in second.reason
    assert next(calls) == 1
    harness.api.asset = found  # type: ignore[method-assign]
    assert isinstance(harness.archive_until_settled(), AlreadyArchived)


def test_an_asset_that_the_api_refuses_alone_opens_no_breaker() -> None:
    refused, other = asset(size=None), asset(id="other", size=None)
    harness = ArchiverHarness(lambda: file(VIDEO), assets=[refused, other])
    harness.ledger.discover([judge(each, Scope(RETENTION)) for each in harness.api.assets])
    described = harness.api.asset

    def refuse_one(asset_id: str) -> Asset:
        if asset_id == refused.id:
            raise HmsUnauthorized("403")
        return described(asset_id)

    harness.api.asset = refuse_one  # type: ignore[method-assign]
    first = harness.archive()

    assert isinstance(first, WillRetry)
    assert first.costs_attempt
    assert isinstance(harness.archiver.archive(other.id, "test"), Archived)


# -- lost, or not --------------------------------------------------------------------------------------------
def gone(harness: ArchiverHarness) -> None:
    """The asset has left the API, and its time is over."""
    harness.ledger.reopen(harness.asset_id)
    harness.api.assets = []
    harness.clock.advance(RETENTION)


def test_an_asset_verified_everywhere_is_not_lost_when_the_api_forgets_it() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[MemoryBackend("one"), MemoryBackend("two")])
    harness.archive()
    asset_id = harness.asset_id
    gone(harness)

    assert isinstance(harness.archive_until_settled(asset_id=asset_id), AlreadyArchived)


def test_an_asset_is_not_lost_while_a_destination_that_may_have_it_does_not_answer() -> None:
    store = FaultyStore(MemoryBackend("one"), {})
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store])
    harness.archive()
    asset_id = harness.asset_id
    gone(harness)
    begun = harness.clock()
    while harness.clock() - begun < LOST_AFTER:  # once more, and it would be lost
        harness.archive_until_settled(attempts=1, asset_id=asset_id)
    store.faults["read"] = deque(["before", "before"])

    outcome = harness.archive(asset_id)

    assert isinstance(outcome, WillRetry)
    assert "gone at the source" in outcome.reason
    harness.clock.advance(timedelta(hours=1))
    assert isinstance(harness.archive_until_settled(asset_id=asset_id), AlreadyArchived)


def test_an_asset_verified_at_one_destination_only_is_lost_with_the_name_of_the_other() -> None:
    two = MemoryBackend("two")
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[MemoryBackend("one"), two])
    harness.archive()
    two.delete(keys.manifest_key(harness.asset_id, harness.api.assets[0].created_at))
    asset_id = harness.asset_id
    gone(harness)

    outcome = harness.archive_until_settled(asset_id=asset_id)

    assert isinstance(outcome, Ended)
    assert "whole at another destination, but not at memory://two" in outcome.reason


def test_an_undated_asset_is_not_lost_at_the_first_404() -> None:
    source = BytesSource(VIDEO, [SourceGone("404")] * 9)
    harness = ArchiverHarness(lambda: Tree({"a.mp4": source}), assets=[asset(size=None, created_at=None)])

    assert isinstance(harness.archive(), WillRetry)
    assert isinstance(harness.archive_until_settled(), Archived)


def test_an_asset_that_got_its_date_late_stays_archived_when_ledger_and_bucket_are_compared() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    undated = replace(judge(harness.api.assets[0], Scope(RETENTION)), created_at=None)
    harness.ledger.discover([undated])
    harness.archive()

    found = Reconciler(
        ledger=harness.ledger, destinations=harness.stores, scope=Scope(RETENTION), clock=harness.clock
    ).reconcile()

    assert found
    assert found.reopened == 0
    assert state_of(harness) is AssetState.ARCHIVED


def test_a_destination_that_does_not_answer_is_not_overwritten() -> None:
    silent = FaultyStore(MemoryBackend("one"), {})
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[silent, MemoryBackend("two")])
    harness.archive()
    harness.stores[1].delete(keys.manifest_key(harness.asset_id, harness.api.assets[0].created_at))
    harness.ledger.reopen(harness.asset_id)
    silent.faults["read"] = deque(["before"])
    puts = silent.calls["put"]

    first = harness.archive()

    assert isinstance(first, WillRetry)
    assert manifest_of(harness, harness.stores[1]) is not None
    assert silent.calls["put"] == puts
    assert isinstance(harness.archive_until_settled(), AlreadyArchived)


def test_a_worker_whose_clock_is_ahead_delays_no_asset_for_days() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    breaker.trip(harness.ledger, breaker.API, "401", NOW + timedelta(days=3))

    assert isinstance(harness.archive(), Archived), "no breaker is open for so long"


def test_a_manifest_of_other_bytes_is_replaced_though_every_size_in_it_holds() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.archive()
    described = harness.api.assets[0]
    key = keys.manifest_key(described.id, described.created_at)
    right = manifest_of(harness)
    assert right
    old = right.model_copy(
        update={"objects": tuple(replace(item, crc32c="00000000") for item in right.objects)}
    )
    data = old.to_bytes()
    harness.stores[0].put(ObjectSpec(key, "application/json", len(data)), data, crc32c(data))

    commit(NoChecksumStore(harness.stores[0]), key, right)

    assert manifest_of(harness) == right


# -- faults of the source ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fault", [SourceUnavailable("503"), SourceForbidden("403"), SourceMismatch("HTML"), SourceGone("404")]
)
def test_a_transient_fault_of_the_source_ends_archived(fault: Exception) -> None:
    source = BytesSource(VIDEO, [fault])
    harness = ArchiverHarness(lambda: Tree({"a.mp4": source, "b.mp4": BytesSource(b"whole")}))

    outcome = harness.archive_until_settled()

    assert isinstance(outcome, Archived)
    manifest = manifest_of(harness)
    assert manifest is not None
    assert verify_contents(harness.stores[0], manifest).ok


@pytest.mark.parametrize(
    "fault",
    [SourceMismatch("cut short"), ErrorPage("HTML with a 200"), SourceNotAllowed("a private address")],
)
def test_what_never_arrives_complete_waits_at_risk_and_is_lost_in_the_end(fault: Exception) -> None:
    harness = ArchiverHarness(lambda: Tree({"a.mp4": BytesSource(VIDEO, [fault] * 99)}))

    while harness.clock() < NOW + RETENTION:
        outcome = harness.archive_until_settled(attempts=1)
        assert isinstance(outcome, WillRetry), "without stored bytes nothing is quarantined"
        assert outcome.delay <= timedelta(days=1), "it is tried at least once a day"
    outcome = harness.archive_until_settled(attempts=99)

    assert isinstance(outcome, Ended)
    assert state_of(harness) is AssetState.LOST
    assert harness.clock() > NOW + RETENTION - timedelta(days=1)
    assert manifest_of(harness) is None
    record = json.loads(
        harness.stores[0].read(keys.end_record_key(harness.asset_id, harness.api.assets[0].created_at))
    )
    assert record["state"] == "lost"
    assert str(fault) in record["reason"]


def test_a_tree_with_a_segment_missing_for_good_is_stored_but_never_archived() -> None:
    def tree() -> Tree:
        gone = BytesSource(b"", [SourceGone("segment 7: 404")] * 99)
        whole = {f"s{number}.ts": BytesSource(b"G" * 10) for number in range(7)}
        return Tree({**whole, "s7.ts": gone, "stream.m3u8": b"#EXTM3U"})

    harness = ArchiverHarness(tree)

    harness.archive_until_settled()

    assert state_of(harness) is AssetState.QUARANTINED
    names = {key.rsplit("/", 1)[-1] for key in stored_keys(harness.stores[0])}
    assert {f"s{number}.ts" for number in range(7)} | {"stream.m3u8"} <= names
    manifest = manifest_of(harness)
    assert manifest
    assert (manifest.trusted, manifest.missing) == (False, ("s7.ts",))
    assert manifest.doubts == ("s7.ts: it is missing at the source (404 or 410)",)


def test_a_second_attempt_fetches_only_what_the_first_did_not_store() -> None:
    whole = {f"s{number}.ts": BytesSource(b"G" * 10) for number in range(8)}
    flaky = BytesSource(b"G" * 10, [SourceUnavailable("503")] * 5)  # more than the engine retries
    store = WritesSeen("one")
    harness = ArchiverHarness(lambda: Tree({**whole, "s9.ts": flaky}), stores=[store])
    first = harness.archive()
    assert isinstance(first, WillRetry)
    store.written.clear()

    outcome = harness.archive_until_settled()

    assert isinstance(outcome, Archived)
    assert [name for name in store.written if name.endswith(".ts")] == ["s9.ts"]


def test_what_the_source_replaced_since_an_earlier_attempt_is_copied_again() -> None:
    """Two versions of a tree under the same names must not be mixed."""
    old = {f"s{number}.ts": BytesSource(b"G" * 10, etag='"old"') for number in range(3)}
    new = {f"s{number}.ts": BytesSource(b"H" * 10, etag='"new"') for number in range(4)}
    late = BytesSource(b"", [SourceGone("404")] * 99)
    trees = iter([{**old, "s3.ts": late}, new])
    harness = ArchiverHarness(lambda: Tree(next(trees)))
    assert isinstance(harness.archive(), WillRetry)

    outcome = harness.archive_until_settled()

    assert isinstance(outcome, Archived)
    manifest = manifest_of(harness)
    assert manifest
    assert {item.source_etag for item in manifest.objects if item.path.endswith(".ts")} == {'"new"'}
    assert harness.stores[0].read(manifest.key_of(manifest.objects[0]), 0, 10) == b"H" * 10


def test_another_version_of_the_source_is_copied_again() -> None:
    versions = iter(["v1", "v2", "v2"])
    first = BytesSource(b"G" * 10)
    flaky = BytesSource(b"G" * 10, [SourceUnavailable("503")] * 5)
    harness = ArchiverHarness(lambda: Tree({"s1.ts": first, "s2.ts": flaky}, version=next(versions)))
    harness.archive()

    harness.archive_until_settled()

    assert first.reads == 2


def test_what_is_gone_past_the_deadline_is_lost_and_has_an_end_record() -> None:
    harness = ArchiverHarness(lambda: Tree({"a.mp4": BytesSource(b"", [SourceGone("404")] * 99)}))
    harness.clock.now = NOW + timedelta(days=20)

    harness.archive_until_settled()

    assert state_of(harness) is AssetState.LOST
    assert harness.stores[0].stat(keys.end_record_key(harness.asset_id, harness.api.assets[0].created_at))


# -- faults of the destination: every step meets each of them, then a retry; the end is the same ---------------
STEPS = ["put", "begin", "put_part", "complete", "read"]
FAULTS = ["before", "half", "lost", "twice", "slow"]


@pytest.mark.parametrize(("step", "fault"), list(itertools.product(STEPS, FAULTS)))
def test_every_step_survives_every_fault(step: str, fault: str) -> None:
    store = FaultyStore(MemoryBackend("one"), {step: [fault] * 8})
    harness = ArchiverHarness(
        lambda: Tree({"big.mp4": BytesSource(VIDEO), "small.mp4": BytesSource(b"x")}), stores=[store]
    )

    harness.archive_until_settled()

    manifest = manifest_of(harness)
    assert state_of(harness) is AssetState.ARCHIVED
    assert manifest is not None
    assert verify_contents(store.inner, manifest).ok
    assert {item.path for item in manifest.objects} == {"big.mp4", "small.mp4"}


def test_a_destination_that_refuses_opens_its_breaker_and_the_others_get_their_copy() -> None:
    class Refusing(Wrapped):
        def act(self, method, action):  # type: ignore[no-untyped-def]
            super().act(method, lambda: None)
            raise AccessDenied("403 AccessDenied")

    refusing, good = Refusing(MemoryBackend("refusing")), MemoryBackend("good")
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[refusing, good])

    first = harness.archive()
    calls = refusing.calls.total()
    harness.ledger.reopen(harness.asset_id)
    second = harness.archive()

    assert isinstance(first, WillRetry)
    assert "memory://refusing" in first.reason
    assert manifest_of(harness, good) is not None
    assert isinstance(second, WillRetry)
    assert refusing.calls.total() == calls
    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    assert row.state is AssetState.WAITING


class DeniesOne(Wrapped):
    """As a bucket whose policy denies the keys of one asset; `probe`: what becomes of objects elsewhere."""

    def __init__(self, inner: StorageBackend, asset_id: str, probe: StorageError | None = None) -> None:
        super().__init__(inner)
        self._asset_id = asset_id
        self._probe = probe

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self._asset_id in spec.key:
            raise AccessDenied(f"put {spec.key}: 403 AccessDenied")
        if self._probe:
            raise self._probe
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> Upload:
        if self._asset_id in spec.key:
            raise AccessDenied(f"begin {spec.key}: 403 AccessDenied")
        return super().begin(spec)


def test_an_asset_that_a_destination_refuses_alone_waits_alone_and_is_never_given_up() -> None:
    denied, other = asset(id="denied", size=None), asset(id="other", size=None)
    store = DeniesOne(MemoryBackend("one"), "denied")
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store], assets=[denied, other])
    harness.ledger.discover([judge(each, Scope(RETENTION)) for each in (denied, other)])

    first = harness.archive("denied")

    assert isinstance(first, WillRetry)
    assert first.costs_attempt
    assert "only this asset waits" in first.reason
    assert breaker.opened(harness.ledger, harness.clock()) == {}
    assert isinstance(harness.archive("other"), Archived)
    assert not [key for key in stored_keys(store) if key.startswith("doctor/")]
    outcome = harness.archive_until_settled(asset_id="denied", attempts=20)
    assert isinstance(outcome, WillRetry), "a person may fix it at any time"


def test_a_refusal_that_a_probe_cannot_explain_opens_no_breaker_and_costs_no_attempt() -> None:
    store = DeniesOne(MemoryBackend("one"), "denied", probe=TransientStorageError("put: 503"))
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store], assets=[asset(id="denied", size=None)])

    outcome = harness.archive("denied")

    assert isinstance(outcome, WillRetry)
    assert not outcome.costs_attempt
    assert breaker.opened(harness.ledger, harness.clock()) == {}


class HasRoomFor(Wrapped):
    """A disk with so many bytes left; an upload takes its room when it begins."""

    def __init__(self, inner: StorageBackend, free_bytes: int) -> None:
        super().__init__(inner)
        self._free_bytes = free_bytes

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self._check(spec.key, len(data))
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> Upload:
        self._check(spec.key, spec.size_bytes or 0)
        return super().begin(spec)

    def _check(self, key: str, size_bytes: int) -> None:
        if size_bytes > self._free_bytes or "large" in key:
            raise DestinationFull(f"storing {key}: no space left on device")


def test_one_object_too_large_for_the_disk_delays_no_other_asset() -> None:
    large, small = asset(id="large", size=None), asset(id="small", size=None)
    store = HasRoomFor(MemoryBackend("disk"), free_bytes=64 * 2**20)
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store], assets=[large, small])
    harness.ledger.discover([judge(each, Scope(RETENTION)) for each in (large, small)])

    first = harness.archive("large")

    assert isinstance(first, WillRetry)
    assert "only this asset waits" in first.reason
    assert breaker.opened(harness.ledger, harness.clock()) == {}
    assert isinstance(harness.archive("small"), Archived)
    outcome = harness.archive_until_settled(asset_id="large", attempts=20)
    assert isinstance(outcome, WillRetry), "a person may make room at any time"


def test_a_full_disk_opens_its_breaker_though_a_very_small_object_would_still_fit() -> None:
    store = HasRoomFor(MemoryBackend("disk"), free_bytes=2**20)
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store], assets=[asset(id="large", size=None)])

    harness.archive("large")

    assert set(breaker.opened(harness.ledger, harness.clock())) == {"memory://disk (on test)"}


def test_a_destination_that_recovers_gets_what_it_missed_and_the_others_nothing() -> None:
    late = FaultyStore(MemoryBackend("late"), {"begin": ["before"] * 6})
    good = Wrapped(MemoryBackend("good"))
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[late, good])

    harness.archive()
    sent = good.calls["put"] + good.calls["put_part"]
    harness.archive_until_settled()

    assert state_of(harness) is AssetState.ARCHIVED
    manifest = manifest_of(harness, late)
    assert manifest is not None
    assert verify_contents(late.inner, manifest).ok
    assert good.calls["put"] + good.calls["put_part"] == sent


def test_a_manifest_that_the_bucket_contradicts_is_replaced_by_a_new_copy() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.archive()
    manifest = manifest_of(harness)
    assert manifest is not None
    video = manifest.key_of(next(item for item in manifest.objects if item.path.endswith(".mp4")))
    harness.stores[0].delete(video)
    harness.ledger.reopen(harness.asset_id)

    outcome = harness.archive()

    assert isinstance(outcome, Archived)
    assert harness.stores[0].stat(video) is not None


class SilentStore(NoChecksumStore):
    """Nothing but reading tells what it holds."""

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        info = super().stat(key)
        return replace(info, crc32c=None) if info else None


def damaged_copy() -> tuple[ArchiverHarness, ObjectKey]:
    """Archived, then changed in a way that no list shows, and the manifest marked as damaged; the file's key."""
    store = SilentStore(MemoryBackend("one"))
    harness = ArchiverHarness(lambda: file(VIDEO), stores=[store])
    harness.archive()
    manifest = manifest_of(harness)
    assert manifest is not None
    video = manifest.key_of(next(item for item in manifest.objects if item.path.endswith(".mp4")))
    flipped = b"x" * len(VIDEO)
    store.put(ObjectSpec(video, "video/mp4", len(flipped)), flipped, crc32c(flipped))
    mark_damaged(store, keys.manifest_key(harness.asset_id, harness.api.assets[0].created_at), ["CRC32C"])
    harness.ledger.reopen(harness.asset_id)
    return harness, video


def test_a_damaged_copy_is_replaced_and_its_new_manifest_has_no_damage() -> None:
    harness, video = damaged_copy()

    outcome = harness.archive()

    manifest = manifest_of(harness)
    assert isinstance(outcome, Archived)
    assert harness.stores[0].read(video) == VIDEO
    assert manifest is not None
    assert manifest.damage is None


def test_a_damaged_copy_stays_when_the_source_is_gone_before_there_is_another() -> None:
    harness, video = damaged_copy()
    asset_id, described = harness.asset_id, harness.api.assets[0]
    gone(harness)

    outcome = harness.archive_until_settled(asset_id=asset_id)

    assert isinstance(outcome, Ended)
    assert outcome.state is AssetState.LOST
    assert "archiver verify" in outcome.reason
    assert harness.stores[0].stat(video) is not None
    assert read_manifest(harness.stores[0], keys.manifest_key(asset_id, described.created_at)) is not None


def test_a_copy_wrongly_marked_as_damaged_is_not_called_lost_when_its_source_is_gone() -> None:
    harness, video = damaged_copy()
    asset_id = harness.asset_id
    harness.stores[0].put(ObjectSpec(video, "video/mp4", len(VIDEO)), VIDEO, crc32c(VIDEO))
    gone(harness)

    assert isinstance(harness.archive_until_settled(asset_id=asset_id), AlreadyArchived)


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"not json", b'{"schema":"other"}', b"\xff\xfe"])
def test_an_invalid_manifest_is_replaced(rubbish: bytes) -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    described = harness.api.assets[0]
    key = keys.manifest_key(described.id, described.created_at)
    harness.stores[0].put(ObjectSpec(key, "application/json"), rubbish, crc32c(rubbish))

    outcome = harness.archive()

    assert isinstance(outcome, Archived)
    assert manifest_of(harness) is not None


# -- faults of ours ------------------------------------------------------------------------------------------
def test_a_worker_that_lost_its_lease_commits_nothing() -> None:
    harness: ArchiverHarness

    class Slow(BytesSource):
        def open(self, first_bytes: int):  # type: ignore[no-untyped-def]
            harness.clock.advance(timedelta(minutes=5))  # long enough for the lease to end
            assert harness.ledger.lease(harness.asset_id, "another", timedelta(minutes=2))
            return super().open(first_bytes)

    harness = ArchiverHarness(lambda: Tree({"a.mp4": Slow(b"x")}))

    outcome = harness.archive()

    assert isinstance(outcome, NotOurs)
    assert manifest_of(harness) is None
    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    assert row.state is AssetState.RUNNING  # the other one's


def test_the_lease_is_kept_while_a_destination_is_slow_to_say_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "TICK", timedelta(milliseconds=5))
    renewed = threading.Event()

    class SlowToSay(MemoryBackend):
        def stat(self, key: ObjectKey) -> ObjectInfo | None:
            for _ in range(3):
                harness.clock.advance(timedelta(minutes=1))  # three are more than a lease
                renewed.clear()
                assert renewed.wait(10)
            assert harness.ledger.lease(harness.asset_id, "another", timedelta(minutes=2)) is None
            return super().stat(key)

    class Told(MemoryLedger):
        def renew(self, lease: Lease, duration: timedelta) -> None:
            super().renew(lease, duration)
            renewed.set()

    harness = ArchiverHarness(
        lambda: file(VIDEO), stores=[SlowToSay("one")], lease_renew=timedelta(0), new_ledger=Told
    )

    assert isinstance(harness.archive(), Archived)


def test_an_asset_during_which_workers_keep_dying_is_retried_rarely() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    take_lease(harness.archiver.deps, harness.asset_id, "first", lambda: False)
    for number in range(MAX_CRASHES):
        harness.clock.advance(timedelta(minutes=3))  # the lease ends: nobody settled it
        assert harness.ledger.take_due(10, timedelta(minutes=15))
        if number < MAX_CRASHES - 1:
            assert harness.ledger.lease(harness.asset_id, f"worker {number}", timedelta(minutes=2))

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert timedelta(hours=1) <= outcome.delay <= timedelta(days=1)
    harness.clock.now += outcome.delay
    assert isinstance(harness.archive(), Archived)


def test_workers_that_die_after_progress_do_not_delay_the_asset() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    attempt = take_lease(harness.archiver.deps, harness.asset_id, "first", lambda: False)
    lease = attempt.heartbeat.lease if attempt else None
    for number in range(2 * MAX_CRASHES):
        assert lease
        path = f"{number}.ts"
        harness.ledger.add_stored(lease, harness.stores[0].name, "another", [StoredObject(path, 1, 2)])
        harness.clock.advance(timedelta(minutes=3))
        assert harness.ledger.take_due(10, timedelta(minutes=15))
        lease = harness.ledger.lease(harness.asset_id, f"worker {number}", timedelta(minutes=2))
    harness.clock.advance(timedelta(minutes=3))

    assert isinstance(harness.archive(), Archived)


def test_an_interrupted_attempt_makes_the_asset_due_at_once_and_costs_nothing() -> None:
    class Interrupted(BytesSource):
        pass

    def contents() -> Tree:
        raise SystemExit(0)

    harness = ArchiverHarness(contents)

    with pytest.raises(SystemExit):
        harness.archive()

    row = harness.ledger.get(harness.asset_id)
    assert row is not None
    assert row.state is AssetState.WAITING
    assert row.next_attempt_at is not None
    assert row.next_attempt_at <= harness.clock()
    assert row.attempts == 0


def test_a_worker_told_to_stop_ends_without_a_commit_and_the_asset_is_due_again() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.stopping = True

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert not outcome.costs_attempt
    harness.stopping = False
    assert isinstance(harness.archive_until_settled(), Archived)


def test_an_attempt_past_its_time_limit_is_resumed_at_once_and_costs_nothing() -> None:
    class TimeIsUp(Exception):
        pass

    first = BytesSource(VIDEO)
    interruptions = [TimeIsUp() for _ in range(5)]

    class Long(Tree):
        def items(self) -> Iterator[Item]:
            media, last = super().items()
            yield media
            if interruptions:
                raise interruptions.pop()
            yield last

    harness = ArchiverHarness(lambda: Long({"a.mp4": first, "b.m3u8": b"#EXTM3U"}), time_is_up=TimeIsUp)

    for _ in range(5):
        outcome = harness.archive()

        row = harness.ledger.get(harness.asset_id)
        assert isinstance(outcome, WillRetry)
        assert outcome.delay <= timedelta(0)
        assert row is not None
        assert (row.attempts, row.mismatches) == (0, 0)
    assert isinstance(harness.archive(), Archived)


def test_a_ledger_flushed_in_the_middle_costs_nothing() -> None:
    harness: ArchiverHarness

    class Flushing(BytesSource):
        def open(self, first_bytes: int):  # type: ignore[no-untyped-def]
            harness.ledger.clear()
            return super().open(first_bytes)

    source = Flushing(VIDEO)
    harness = ArchiverHarness(lambda: Tree({"a.mp4": source}))

    outcome = harness.archive()

    assert isinstance(outcome, Archived)
    assert state_of(harness) is AssetState.ARCHIVED


def test_an_unknown_asset_is_not_ours() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))

    assert isinstance(harness.archiver.archive("nobody", "test"), NotOurs)


def test_a_transient_fault_of_the_api_is_retried() -> None:
    harness = ArchiverHarness(lambda: file(VIDEO))
    harness.archive()
    harness.ledger.reopen(harness.asset_id)
    found = harness.api.asset
    answers = iter([HmsUnavailable("503")])

    def flaky(asset_id: str) -> object:
        for error in answers:
            raise error
        return found(asset_id)

    harness.api.asset = flaky  # type: ignore[assignment, method-assign]

    assert isinstance(harness.archive(), WillRetry)
    assert isinstance(harness.archive_until_settled(), AlreadyArchived)


def test_a_destination_that_asks_for_time_gets_it() -> None:
    """Longer than the engine waits for: the asset waits in the ledger."""

    class Busy(MemoryBackend):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            raise TransientStorageError("503", status=503, retry_after=timedelta(minutes=20))

    harness = ArchiverHarness(lambda: file(VIDEO), stores=[MemoryBackend("one"), Busy("two")])

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert outcome.delay == timedelta(minutes=20)

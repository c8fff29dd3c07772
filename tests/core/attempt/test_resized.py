"""An archived asset whose size the API changes afterwards: once per size its source is looked at."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

import pytest

from archiver.core.attempt.outcomes import AlreadyArchived, Archived, WillRetry
from archiver.core.contents.base import Doubt
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.reconcile import Reconciler
from archiver.hms.errors import HmsUnavailable
from archiver.ledger.models import AssetState
from archiver.transfer.errors import SourceGone, SourceUnavailable
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.harness import ArchiverHarness, BytesSource, Tree

VIDEO = b"video" * 100
LONGER = VIDEO + b"and more"


@dataclass
class OneFile(Tree):
    """Contents of one file whose source tells its length and ETag."""

    source_bytes: int | None = None

    @classmethod
    def of(cls, data: bytes, *, exact: bool = True) -> Self:
        source = BytesSource(data, etag=f'"{hash(data)}"')
        return cls({"a.mp4": source}, str(hash(data)), "file", version_is_exact=exact, source_bytes=len(data))


class Harness:
    """An asset that was archived with the API's word that it has `len(VIDEO)` bytes."""

    def __init__(self, at_first: Tree | None = None) -> None:
        self.now_at_source: Tree = at_first or OneFile.of(VIDEO)
        self.opened = 0
        self.failures: list[Exception] = []
        self.archiver = ArchiverHarness(
            self._open,
            assets=[asset(size=len(VIDEO))],
            stores=[MemoryBackend("one"), MemoryBackend("two")],
        )
        self.sweep(len(VIDEO))
        assert isinstance(self.archiver.archive(), Archived)
        self.opened = 0

    def _open(self) -> Tree:
        self.opened += 1
        if self.failures:
            raise self.failures.pop()
        return self.now_at_source

    def sweep(self, size: int) -> AssetState:
        self.archiver.api.assets = [asset(size=size)]
        self.archiver.ledger.discover([judge(self.archiver.api.assets[0], Scope(RETENTION), NOW)])
        row = self.archiver.ledger.get(self.archiver.asset_id)
        assert row
        return row.state

    def manifests(self) -> Iterator[Manifest]:
        key = keys.manifest_key(self.archiver.asset_id, self.archiver.api.assets[0].created_at)
        for store in self.archiver.stores:
            manifest = read_manifest(store, key)
            assert manifest is not None
            assert verify_contents(store, manifest).ok
            yield manifest

    def stored(self) -> set[int]:
        return {manifest.total_size for manifest in self.manifests()}


@pytest.mark.parametrize(
    ("at_source", "outcome", "stored", "warned"),
    [
        (OneFile.of(VIDEO), AlreadyArchived, len(VIDEO), False),
        (OneFile.of(LONGER), Archived, len(LONGER), False),
        (OneFile.of(VIDEO[::-1]), Archived, len(VIDEO), False),
        # without an ETag an equal length is all that can be known
        (OneFile.of(VIDEO[::-1], exact=False), AlreadyArchived, len(VIDEO), False),
        (OneFile.of(LONGER, exact=False), Archived, len(LONGER), False),
        # shorter content never replaces a whole copy
        (OneFile.of(VIDEO[:-1]), AlreadyArchived, len(VIDEO), True),
        (OneFile.of(b""), AlreadyArchived, len(VIDEO), True),
        # nor does what nothing is known of
        (Tree({"a.m3u8": b"#EXTM3U"}, version="other"), AlreadyArchived, len(VIDEO), True),
    ],
)
def test_another_size_is_compared_with_the_source_once(
    at_source: Tree, outcome: type, stored: int, warned: bool
) -> None:
    harness = Harness()
    harness.now_at_source = at_source

    assert harness.sweep(7) is AssetState.DISCOVERED
    done = harness.archiver.archive()

    assert isinstance(done, outcome)
    assert isinstance(done, Archived | AlreadyArchived)
    assert any("changed its size" in warning for warning in done.warnings) is warned
    assert harness.stored() == {stored}
    looks = harness.opened
    for size in (7, len(VIDEO), 7):
        assert harness.sweep(size) is AssetState.ARCHIVED
    assert harness.opened == looks


def test_a_comparison_with_the_buckets_before_the_look_does_not_end_it() -> None:
    harness = Harness()
    harness.now_at_source = OneFile.of(LONGER)
    reconciler = Reconciler(
        ledger=harness.archiver.ledger,
        destinations=harness.archiver.stores,
        scope=Scope(RETENTION),
        clock=harness.archiver.clock,
    )

    harness.sweep(7)
    reconciler.reconcile()
    row = harness.archiver.ledger.get(harness.archiver.asset_id)
    assert row
    assert row.state is AssetState.DISCOVERED
    harness.archiver.archive()

    assert harness.stored() == {len(LONGER)}
    reconciler.reconcile()
    assert harness.sweep(7) is AssetState.ARCHIVED


def test_a_copy_with_doubts_replaces_no_archived_one() -> None:
    harness = Harness()
    harness.now_at_source = OneFile.of(LONGER)
    harness.now_at_source.notes.doubts.append(Doubt("it looks odd"))

    harness.sweep(7)

    assert isinstance(harness.archiver.archive(), AlreadyArchived)
    assert harness.stored() == {len(VIDEO)}


def test_an_unavailable_source_is_retried_and_the_asset_is_not_at_risk_meanwhile() -> None:
    harness = Harness()
    harness.now_at_source = OneFile.of(LONGER)
    harness.failures = [SourceUnavailable("503"), HmsUnavailable("503")]
    harness.sweep(7)

    first = harness.archiver.archive()

    assert isinstance(first, WillRetry)
    assert first.stored_objects == 1
    assert isinstance(harness.archiver.archive_until_settled(attempts=5), Archived)
    assert harness.stored() == {len(LONGER)}


def test_a_source_that_is_gone_changes_nothing() -> None:
    harness = Harness()
    harness.now_at_source = Tree({"a.mp4": BytesSource(b"", [SourceGone("404")] * 9)}, version="other")
    harness.archiver.clock.advance(RETENTION + timedelta(days=1))

    harness.sweep(7)

    assert isinstance(harness.archiver.archive(), AlreadyArchived)
    assert harness.stored() == {len(VIDEO)}


class Complete(OneFile):
    """With a thumbnail that was busy at first."""

    def only_missing(self, stored: Collection[str]) -> Tree:
        return Tree({"t.png": BytesSource(b"png")}) if "t.png" not in stored else Tree({})


def test_late_additions_reach_an_asset_of_another_size_too() -> None:
    busy = BytesSource(b"", [SourceUnavailable("503")] * 99)
    at_first = OneFile.of(VIDEO)
    harness = Harness(
        replace(at_first, files={**at_first.files, "t.png": busy}, optional=frozenset({"t.png"}))
    )
    harness.now_at_source = Complete.of(VIDEO)

    harness.sweep(7)
    outcome = harness.archiver.archive()

    assert isinstance(outcome, AlreadyArchived)
    assert [{item.path for item in manifest.objects} for manifest in harness.manifests()] == [
        {"a.mp4", "t.png"}
    ] * 2

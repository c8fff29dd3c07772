"""A tree whose source changes while it is copied: its files are of one version when it is called archived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from archiver.core.attempt.changed_meanwhile import CHANGED, LOOK_AFTER
from archiver.core.attempt.outcomes import Archived, Kept, WillRetry
from archiver.core.contents.base import Item
from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.hms.errors import HmsNotFound, HmsUnauthorized, HmsUnavailable
from archiver.transfer.errors import SourceForbidden, SourceGone, SourceUnavailable
from tests.core.examples import RETENTION, asset
from tests.core.harness import ArchiverHarness, BytesSource, Tree

DAY = timedelta(days=1)
LONG, SHORT = LOOK_AFTER, LOOK_AFTER - timedelta(seconds=1)


@dataclass
class Source:
    """What each walk of the tree finds, the last one from then on: the number of a version, or a failure. The first
    walk of an attempt, which copies, takes `takes`."""

    finds: list[int | Exception]
    takes: timedelta
    walks: int = 0
    harness: ArchiverHarness = field(init=False)

    def __post_init__(self) -> None:
        self.harness = ArchiverHarness(self._open)

    def _open(self) -> Tree:
        found = self.finds[min(self.walks, len(self.finds) - 1)]
        self.walks += 1
        if isinstance(found, Exception):
            raise found
        files = {
            f"s{number}.ts": BytesSource(f"{found}{number}".encode(), etag=f'"{found}{number}"')
            for number in (0, 1)
        }
        return _Walked(files | {"m.m3u8": f"#EXTM3U\n#{found}".encode()}, found=found, source=self)

    @property
    def manifest(self) -> Manifest | None:
        return read_manifest(
            self.harness.stores[0], keys.manifest_key(self.harness.asset_id, asset().created_at)
        )


@dataclass
class _Walked(Tree):
    found: int = 0
    source: Source | None = None

    def items(self) -> Iterator[Item]:
        assert self.source is not None
        items = super().items()
        yield next(items)
        self.source.harness.clock.advance(self.source.takes)
        yield from items
        self.notes.facts["playlists_sha256"] = str(self.found)


@pytest.mark.parametrize(
    ("finds", "takes", "archived", "walks"),
    [
        ([1, 1], LONG, True, 2),
        ([1, 2], SHORT, True, 1),
        ([1, 2, 2], LONG, False, 3),
        ([1, 2, 3], LONG, True, 3),
        ([1, SourceUnavailable("503")], LONG, False, 2),
        ([1, HmsUnavailable("503")], LONG, False, 2),
        ([1, 2, SourceUnavailable("503")], LONG, False, 3),
        ([1, SourceGone("404")], LONG, True, 2),
        ([1, SourceForbidden("403")], LONG, True, 2),
        ([1, HmsNotFound("404")], LONG, True, 2),
        ([1, HmsUnauthorized("401")], LONG, True, 2),
    ],
    ids=[
        "unchanged",
        "changed during a short copy",
        "changed during a long copy",
        "different at each read",
        "its source does not answer",
        "its URL is not signed now",
        "its source does not answer the second time",
        "gone since",
        "refused since",
        "gone from the API since",
        "the API refuses",
    ],
)
def test_a_tree_is_compared_again_before_a_long_copy_of_it_is_committed(
    finds: list[int | Exception], takes: timedelta, archived: bool, walks: int
) -> None:
    source = Source(finds, takes)

    outcome = source.harness.archive()

    assert isinstance(outcome, Archived if archived else WillRetry)
    assert (source.manifest is not None) is archived
    assert source.walks == walks


def test_the_next_attempt_archives_the_version_that_the_source_has_since() -> None:
    source = Source([1, 2], LONG)

    first, second = (source.harness.archive_until_settled(attempts=1) for _ in range(2))

    assert isinstance(first, WillRetry)
    assert CHANGED in first.reason
    assert isinstance(second, Archived)
    store, manifest = source.harness.stores[0], source.manifest
    assert manifest is not None
    assert {store.read(manifest.key_of(item)) for item in manifest.objects} == {
        b"20",
        b"21",
        b"#EXTM3U\n#2",
    }


def test_a_source_that_does_not_answer_near_the_deadline_costs_no_whole_copy() -> None:
    source = Source([1, SourceUnavailable("503")], LONG)
    source.harness.clock.advance(RETENTION - 2 * DAY)

    assert isinstance(source.harness.archive(), Archived)


def test_what_changes_during_every_copy_is_kept_with_doubts_near_the_deadline() -> None:
    finds: list[int | Exception] = [each for n in range(200) for each in (2 * n, 2 * n + 1, 2 * n + 1)]
    source = Source(finds, LONG)

    outcome = source.harness.archive_until_settled(attempts=200)

    assert isinstance(outcome, Kept)
    assert CHANGED in outcome.reason

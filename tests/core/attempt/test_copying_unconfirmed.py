"""What the engine does not confirm: copied once more, then in doubt; and never recorded before, nor counted twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import TracebackType
from typing import Self

import pytest

from archiver.core.attempt import unconfirmed
from archiver.core.attempt.outcomes import Archived, Kept, WillRetry
from archiver.core.attempt.stored_journal import JOURNAL_EVERY
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Lease, StoredObject
from archiver.transfer.base import Chunks, CopyRequest, CopyResult, Engine, Source
from archiver.transfer.errors import SourceGone, SourceUnavailable
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, StorageBackend
from storage_backends.memory import MemoryBackend
from tests.core.fakes import Clock
from tests.core.harness import ArchiverHarness, BytesSource, Tree

ROOM = 8  # copies that the harness's engine has under way
MIXED = "another one when it is read again"
Names = Callable[[int, Mapping[str, int]], Sequence[str]]
"""The n-th time it is asked: which of those copied so far, with how often, are not confirmed."""


@dataclass
class Unsure:
    """An engine that does not confirm what `names` says."""

    engine: Engine
    names: Names
    asked: list[dict[str, int]]
    fresh: list[str]
    _copied: dict[str, int] = field(default_factory=dict)
    _keys: dict[str, ObjectKey] = field(default_factory=dict)

    def submit(
        self, source: Source, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        name = request.key.rsplit("/", 1)[-1]
        self._keys[name] = request.key
        self._copied[name] = self._copied.get(name, 0) + 1
        if request.fresh:
            self.fresh.append(name)
        return self.engine.submit(source, request, stores)

    def submit_chunks(
        self, chunks: Chunks, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        return self.engine.submit_chunks(chunks, request, stores)

    def confirm_soon(self) -> Future[Mapping[ObjectKey, str]]:
        future: Future[Mapping[ObjectKey, str]] = Future()
        future.set_result(self.confirm())
        return future

    def confirm(self) -> Mapping[ObjectKey, str]:
        self.asked.append(dict(self._copied))
        return {self._keys[name]: MIXED for name in self.names(len(self.asked), self._copied)}

    def __enter__(self) -> Self:
        self.engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.engine.__exit__(kind, error, trace)


class Recording(MemoryLedger):
    """`added`: the objects that it was told are stored."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.added: list[StoredObject] = []

    def add_stored(
        self, lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]
    ) -> None:
        self.added += objects
        super().add_stored(lease, destination, version, objects)


class UnsureHarness(ArchiverHarness):
    """`asked`: how often each file had been copied, whenever the engine was asked."""

    def __init__(
        self, contents: Callable[[], Tree], names: Names, stores: Sequence[StorageBackend] = ()
    ) -> None:
        super().__init__(contents, stores=stores, new_ledger=Recording)
        self.asked: list[dict[str, int]] = []
        self.fresh: list[str] = []
        make = self.archiver.deps.engine

        def unsure(*given: object) -> Engine:
            return Unsure(make(*given), names, self.asked, self.fresh)  # type: ignore[arg-type]

        self.archiver.deps = replace(self.archiver.deps, engine=unsure)

    @property
    def recorded(self) -> set[str]:
        assert isinstance(self.ledger, Recording)
        return {one.path for one in self.ledger.added}


def tree(segments: int = 4, more: Mapping[str, BytesSource] | None = None) -> Tree:
    whole = {f"s{number}.ts": BytesSource(b"G" * (10 + number)) for number in range(segments)}
    return Tree({**whole, **(more or {}), "m.m3u8": b"#EXTM3U\n"})


def once_each(*names: str) -> Names:
    return lambda _, copied: [name for name in names if copied.get(name) == 1]


def always(*names: str) -> Names:
    return lambda _, copied: [name for name in names if name in copied]


def test_what_is_named_is_copied_once_more_over_connections_of_its_own() -> None:
    harness = UnsureHarness(tree, once_each("s1.ts", "s3.ts"))

    outcome = harness.archive()

    assert isinstance(outcome, Archived)
    assert outcome.stored_objects == 5, "four segments and the playlist: nothing counts twice"
    assert harness.fresh == ["s1.ts", "s3.ts"]
    assert harness.asked == [dict.fromkeys(("s0.ts", "s1.ts", "s2.ts", "s3.ts"), 1), {
        "s0.ts": 1, "s1.ts": 2, "s2.ts": 1, "s3.ts": 2
    }]  # fmt: skip


def test_what_is_named_twice_is_a_doubt_and_kept_with_it_after_three_attempts() -> None:
    harness = UnsureHarness(tree, always("s1.ts"))

    outcomes = [harness.archive_until_settled(attempts=1) for _ in range(3)]

    assert [type(outcome) for outcome in outcomes] == [WillRetry, WillRetry, Kept]
    row = harness.ledger.get(harness.asset_id)
    assert row
    assert row.state is AssetState.QUARANTINED
    assert f"s1.ts: what arrived may be another file's: {MIXED}" in (row.reason or "")


def test_what_is_in_doubt_is_not_recorded() -> None:
    harness = UnsureHarness(tree, always("s1.ts"))

    harness.archive()

    assert harness.recorded == {"s0.ts", "s2.ts", "s3.ts"}


def test_nothing_is_recorded_before_it_is_confirmed() -> None:
    recorded: list[set[str]] = []

    def look(_: int, __: Mapping[str, int]) -> Sequence[str]:
        recorded.append(harness.recorded)
        return []

    harness = UnsureHarness(tree, look)

    harness.archive()

    assert recorded == [set()]
    assert harness.recorded == {"s0.ts", "s1.ts", "s2.ts", "s3.ts"}


def test_a_copy_that_ends_early_records_what_is_confirmed() -> None:
    store = MemoryBackend("one")
    harness = UnsureHarness(
        lambda: tree(
            more={f"t{number}.ts": BytesSource(b"", [SourceUnavailable("503")] * 99) for number in range(60)}
        ),
        once_each("s1.ts"),
        stores=[store],
    )

    assert isinstance(harness.archive(), WillRetry)

    assert harness.recorded == {"s0.ts", "s2.ts", "s3.ts"}


def test_a_second_copy_that_fails_leaves_its_file_missing() -> None:
    gone = BytesSource(b"G" * 20)
    harness = UnsureHarness(lambda: tree(more={"bad.ts": gone}), once_each("bad.ts"))
    reads = gone.open

    def first_only(first_bytes: int) -> object:
        if gone.reads:
            raise SourceGone("404")
        return reads(first_bytes)

    gone.open = first_only  # type: ignore[method-assign,assignment]

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert "bad.ts: it is missing at the source" in outcome.reason
    assert "bad.ts" not in harness.recorded


def test_what_is_optional_is_confirmed_as_well() -> None:
    harness = UnsureHarness(
        lambda: Tree({"s0.ts": BytesSource(b"G"), "1.png": BytesSource(b"P")}, optional=frozenset({"1.png"})),
        always("1.png"),
    )

    outcome = harness.archive()

    assert harness.fresh == ["1.png"]
    assert not isinstance(outcome, Archived)


@pytest.mark.parametrize("files", [20, 500])
def test_a_confirmation_is_asked_for_a_bounded_number_of_times(
    files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unconfirmed, "CONFIRM_EVERY", 100)
    harness = UnsureHarness(lambda: tree(files), lambda _, __: [])

    assert isinstance(harness.archive(), Archived)

    assert 1 <= len(harness.asked) <= files // 100 + 1


def test_what_is_named_while_it_is_under_way_is_copied_again_when_it_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unconfirmed, "CONFIRM_EVERY", 1)
    harness = UnsureHarness(lambda: tree(40), lambda time, copied: list(copied) if time == 1 else [])

    assert isinstance(harness.archive(), Archived)

    assert set(harness.fresh) == set(harness.asked[0])
    assert len(harness.fresh) == len(set(harness.fresh))


def digest(number: int) -> str:
    return f'"{number:032x}"'


def digests(segments: int = 4) -> Tree:
    """Of a source whose ETags are digests, as S3's are."""
    return Tree(
        {
            **{
                f"s{number:03}.ts": BytesSource(b"G" * (10 + number), etag=digest(number))
                for number in range(segments)
            },
            "m.m3u8": b"#EXTM3U\n",
        }
    )


def test_what_has_a_digest_for_an_etag_is_recorded_before_it_is_confirmed() -> None:
    recorded: list[set[str]] = []

    def look(_: int, __: Mapping[str, int]) -> Sequence[str]:
        recorded.append(harness.recorded)
        return []

    harness = UnsureHarness(lambda: digests(180), look)

    assert isinstance(harness.archive(), Archived)
    assert 180 - len(recorded[0]) < JOURNAL_EVERY, (
        "a worker that is killed here copied these in vain, no more"
    )


@pytest.mark.parametrize("killed_after", [60, 120, 179])
def test_a_small_tree_whose_worker_is_killed_is_not_sent_again(killed_after: int) -> None:
    class Killed(BaseException):
        pass

    class Counting(MemoryBackend):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            sent.append(str(spec.key))
            return super().put(spec, data, crc32c)

    class Dead(Recording):
        """Takes nothing more once its worker is killed."""

        def add_stored(self, *given: object) -> None:
            if not killed:
                super().add_stored(*given)  # type: ignore[arg-type]

    def contents() -> Tree:
        tree = digests(180)
        if len(lives) < 2:
            last = tree.files[f"s{killed_after:03}.ts"]
            assert isinstance(last, BytesSource)

            def kill(_: int) -> object:
                killed.append(True)
                raise Killed

            last.open = kill  # type: ignore[method-assign,assignment]
        return tree

    sent, lives, killed = list[str](), list[int](), list[bool]()
    harness = ArchiverHarness(contents, stores=[Counting("one")], new_ledger=Dead)
    for _ in range(2):
        with pytest.raises(Killed):
            harness.archive()
        killed.clear()
        lives.append(len(sent))
        harness.clock.advance(timedelta(minutes=3))

    assert isinstance(harness.archive(), Archived)
    in_vain = len([key for key in sent if key.endswith(".ts")]) - 180
    assert in_vain <= 2 * (JOURNAL_EVERY + ROOM)


def test_what_was_recorded_early_is_taken_back_before_it_is_copied_again() -> None:
    harness = UnsureHarness(digests, once_each("s001.ts"))
    records: list[Mapping[str, StoredObject]] = []
    add = harness.ledger.add_stored

    def adding(lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]) -> None:
        add(lease, destination, version, objects)
        records.append(dict(harness.ledger.stored_objects(harness.asset_id, destination, version)))

    harness.ledger.add_stored = adding  # type: ignore[method-assign]
    harness.archive()

    sizes = [each["s001.ts"].size_bytes for each in records if "s001.ts" in each]
    assert sizes == [-1, 11], "void while the second copy is on its way, then as that was confirmed"

"""What arrives with doubts: when it is kept, what the manifest says of it, and how a later look replaces it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest

from archiver.core.attempt.outcomes import Archived, Kept, WillRetry
from archiver.core.contents.base import Doubt, Item, Notes
from archiver.core.destinations import breaker
from archiver.core.records import keys
from archiver.core.records.commit import committed, kept
from archiver.core.records.manifest import DOUBTED, Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.watch import reopen_ended
from archiver.ledger.models import AssetState, Row
from archiver.transfer.base import SourceInfo
from archiver.transfer.errors import (
    ErrorPage,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    UnexpectedContent,
)
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec, StorageBackend, Upload
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.harness import ArchiverHarness, BytesSource, Tree

VIDEO = bytes(range(256)) * 3
DAY = timedelta(days=1)


def row_of(harness: ArchiverHarness) -> Row:
    row = harness.ledger.get(harness.asset_id)
    assert row
    return row


def key_of(harness: ArchiverHarness) -> str:
    described = harness.api.assets[0]
    return keys.manifest_key(described.id, described.created_at)


def manifest_of(harness: ArchiverHarness, store: StorageBackend | None = None) -> Manifest:
    manifest = read_manifest(
        store or harness.stores[0], keys.manifest_key(harness.asset_id, asset().created_at)
    )
    assert manifest
    return manifest


def attempts(harness: ArchiverHarness, number: int) -> list[object]:
    """That many attempts, each when the ledger says."""
    return [harness.archive_until_settled(attempts=1) for _ in range(number)]


def look_again(harness: ArchiverHarness) -> object:
    """Do what the watch does a day later."""
    harness.clock.advance(DAY + timedelta(hours=1))
    assert reopen_ended(harness.ledger, harness.clock()) == 1
    return harness.archive_until_settled()


def leaf(fault: SourceError, etag: str = '"v1"') -> BytesSource:
    return BytesSource(b"odd", [fault] * 9999, etag=etag)


def tree(bad: BytesSource) -> Tree:
    """One whole segment, one that is not, and the master."""
    return Tree({"s0.ts": BytesSource(VIDEO), "bad.ts": bad, "master.m3u8": b"#EXTM3U\n"})


BAD_LEAVES = [
    ("a segment that is gone", SourceGone("404"), "it is missing at the source (404 or 410)"),
    (
        "one that is refused while others are not",
        SourceForbidden("403"),
        "the source refuses it (401 or 403)",
    ),
    ("one that is answered with a login page", ErrorPage("HTML"), "the source answers with an error page"),
    ("one at an address that may not be read", SourceNotAllowed("10.0.0.1"), "its address is refused by"),
    ("one that is a picture", UnexpectedContent("bad.ts: got an image"), "bad.ts: got an image"),
]


@pytest.mark.parametrize(
    ("fault", "words"), [case[1:] for case in BAD_LEAVES], ids=[case[0] for case in BAD_LEAVES]
)
def test_one_bad_leaf_never_costs_the_rest(fault: SourceError, words: str) -> None:
    harness = ArchiverHarness(lambda: tree(leaf(fault)))

    outcomes = attempts(harness, 3)

    assert [type(outcome) for outcome in outcomes] == [WillRetry, WillRetry, Kept]
    row = row_of(harness)
    assert (row.state, row.stored_objects) == (AssetState.QUARANTINED, 2), "a segment and the master"
    assert words in (row.reason or "")
    manifest = manifest_of(harness)
    assert manifest.schema_version == DOUBTED
    assert manifest.doubts is not None
    assert [doubt.startswith("bad.ts: ") for doubt in manifest.doubts] == [True]
    assert manifest.missing == ("bad.ts",)
    assert verify_contents(harness.stores[0], manifest).ok
    assert committed(harness.stores[0], keys.manifest_key(harness.asset_id, asset().created_at)) is None


UNREADY = [
    ("a segment that the source does not give now", SourceUnavailable("503")),
    ("one whose bytes never add up", SourceMismatch("cut short")),
]


@pytest.mark.parametrize("fault", [case[1] for case in UNREADY], ids=[case[0] for case in UNREADY])
def test_what_the_source_may_still_complete_is_kept_only_near_the_deadline(fault: SourceError) -> None:
    harness = ArchiverHarness(lambda: tree(leaf(fault)))

    while row_of_or_none(harness) is None or row_of(harness).state is AssetState.WAITING:
        harness.archive_until_settled(attempts=1)

    assert row_of(harness).state is AssetState.QUARANTINED
    assert RETENTION - 4 * DAY < harness.clock() - NOW < RETENTION - DAY, "from three days before it on"


def row_of_or_none(harness: ArchiverHarness) -> Row | None:
    return harness.ledger.get(harness.asset_id)


def test_contents_that_may_still_be_completed_wait_for_the_deadline_with_daily_attempts() -> None:
    doubt = Doubt("it has no EXT-X-ENDLIST", "s.m3u8", unready=True)
    harness = ArchiverHarness(lambda: Tree({"s0.ts": BytesSource(VIDEO)}, notes=Notes(doubts=[doubt])))
    looks = 0

    while row_of_or_none(harness) is None or row_of(harness).state is AssetState.WAITING:
        before = harness.clock()
        harness.archive_until_settled(attempts=1)
        looks += 1
        assert harness.clock() - before <= DAY + timedelta(minutes=6)

    assert row_of(harness).state is AssetState.QUARANTINED
    assert looks < 40, "no storm"
    assert harness.clock() - NOW > RETENTION - 4 * DAY


def test_attempts_that_find_something_else_each_time_do_not_count_together() -> None:
    faults = iter([SourceGone("404"), SourceForbidden("403"), SourceGone("404"), SourceGone("404")])
    harness = ArchiverHarness(lambda: tree(leaf(next(faults))))

    outcomes = attempts(harness, 4)

    assert [type(outcome) for outcome in outcomes] == [WillRetry] * 4
    assert row_of(harness).mismatches == 2


def test_contents_that_change_at_every_attempt_are_stored_near_the_deadline() -> None:
    number = iter(range(10_000))
    harness = ArchiverHarness(lambda: tree(leaf(UnexpectedContent(f"another word {next(number)}"))))

    while row_of_or_none(harness) is None or row_of(harness).state is AssetState.WAITING:
        harness.archive_until_settled(attempts=1)

    assert row_of(harness).state is AssetState.QUARANTINED
    assert harness.clock() < NOW + RETENTION


class Checked(Tree):
    """One file with a check."""

    def __init__(
        self, source: BytesSource, check: Callable[[bytes, SourceInfo | None], None], size: int = 0
    ) -> None:
        super().__init__({"Rec.mp4": source}, form="file", version_is_exact=True)
        self._check = check
        self._size = size

    def items(self):  # type: ignore[no-untyped-def]
        for item in super().items():
            item.check = self._check
            item.api_size_bytes = self._size or None
            yield item


def never_right(_start: bytes, _info: SourceInfo | None) -> None:
    raise UnexpectedContent("Rec.mp4: expected an MP4 file, got text")


def always_right(_start: bytes, _info: SourceInfo | None) -> None:
    return


def test_a_single_file_that_is_something_else_is_stored_as_the_source_has_it() -> None:
    source = BytesSource(VIDEO)
    harness = ArchiverHarness(lambda: Checked(source, never_right))

    outcomes = attempts(harness, 3)

    assert [type(outcome) for outcome in outcomes] == [WillRetry, WillRetry, Kept]
    manifest = manifest_of(harness)
    assert [item.doubt for item in manifest.objects if item.path == "Rec.mp4"] == [
        "Rec.mp4: expected an MP4 file, got text"
    ]
    assert manifest.missing is None
    assert harness.stores[0].read(f"{manifest.folder}/Rec.mp4", 0, 9999) == VIDEO  # type: ignore[arg-type]


def test_the_same_bytes_are_not_read_again_just_to_find_the_same() -> None:
    source = BytesSource(VIDEO)
    harness = ArchiverHarness(lambda: Checked(source, never_right))
    attempts(harness, 1)
    reads = source.reads

    attempts(harness, 1)

    assert source.reads == reads, "opening told that it is the same version"


def test_another_size_than_the_apis_without_a_structure_to_check_is_a_doubt() -> None:
    harness = ArchiverHarness(lambda: Checked(BytesSource(VIDEO), always_right, size=len(VIDEO) + 1))

    outcomes = attempts(harness, 3)

    assert [type(outcome) for outcome in outcomes] == [WillRetry, WillRetry, Kept]
    assert "the API says 769" in (row_of(harness).reason or "")


def test_an_asset_whose_doubt_is_gone_later_is_archived_without_reading_it_again() -> None:
    source = BytesSource(VIDEO)
    reported = [len(VIDEO) + 1]
    harness = ArchiverHarness(lambda: Checked(source, always_right, size=reported[0]))
    attempts(harness, 3)
    assert row_of(harness).state is AssetState.QUARANTINED
    reported[0] = len(VIDEO)
    reads = source.reads

    outcome = look_again(harness)

    assert isinstance(outcome, Archived)
    assert manifest_of(harness).trusted
    assert source.reads == reads + 1, "one small request: is it still the same?"


def test_a_doubtful_object_stays_doubtful_at_later_attempts() -> None:
    harness = ArchiverHarness(lambda: Checked(BytesSource(VIDEO), never_right))
    attempts(harness, 3)

    outcome = look_again(harness)

    assert isinstance(outcome, Kept)
    assert row_of(harness).state is AssetState.QUARANTINED


def test_a_missing_leaf_that_appears_is_added_and_the_asset_archived() -> None:
    bad = [leaf(SourceGone("404"))]
    harness = ArchiverHarness(lambda: tree(bad[0]))
    attempts(harness, 3)
    before = manifest_of(harness)
    bad[0] = BytesSource(b"G" * 10)

    outcome = look_again(harness)

    assert isinstance(outcome, Archived)
    manifest = manifest_of(harness)
    assert manifest.trusted
    assert manifest.folder == before.folder, "nothing that was listed changed"
    assert {item.path for item in manifest.objects} == {"s0.ts", "bad.ts", "master.m3u8"}


def test_other_content_than_a_manifest_lists_goes_to_a_new_folder() -> None:
    bad, video = [leaf(SourceGone("404"))], [BytesSource(VIDEO)]
    harness = ArchiverHarness(
        lambda: Tree({"s0.ts": video[0], "bad.ts": bad[0], "master.m3u8": b"#EXTM3U\n"}, version="v1")
    )
    attempts(harness, 3)
    before = manifest_of(harness)
    bad[0], video[0] = BytesSource(b"G" * 10, etag='"v2"'), BytesSource(VIDEO[::-1], etag='"v2"')

    outcome = look_again(harness)

    assert isinstance(outcome, Archived)
    manifest = manifest_of(harness)
    assert manifest.folder == f"{before.folder}/!v2"
    assert verify_contents(harness.stores[0], manifest).ok
    assert verify_contents(harness.stores[0], before).ok, "what was kept before is untouched"


def test_a_replacement_interrupted_half_way_destroys_nothing() -> None:
    bad, video = [leaf(SourceGone("404"))], [BytesSource(VIDEO)]
    harness = ArchiverHarness(lambda: Tree({"s0.ts": video[0], "bad.ts": bad[0], "t.m3u8": b"#EXTM3U\n"}))
    attempts(harness, 3)
    before = manifest_of(harness)
    bad[0], video[0] = leaf(SourceUnavailable("503")), BytesSource(VIDEO[::-1], etag='"v2"')

    look_again(harness)

    assert manifest_of(harness) == before
    assert verify_contents(harness.stores[0], before).ok
    assert row_of(harness).stored_objects == len(before.objects), "and it is not at risk"


@pytest.mark.parametrize("fault", [SourceUnavailable("503"), SourceGone("404"), SourceForbidden("403")])
def test_a_quarantined_asset_stays_so_when_its_source_is_gone(fault: SourceError) -> None:
    gone: list[SourceError] = []
    harness = ArchiverHarness(
        lambda: Tree(
            {
                "s0.ts": BytesSource(VIDEO, list(gone) * 9),
                "bad.ts": leaf(SourceGone("404")),
                "master.m3u8": b"#EXTM3U\n",
            }
        )
    )
    attempts(harness, 3)
    gone.append(fault)

    look_again(harness)

    assert row_of(harness).state is AssetState.QUARANTINED
    harness.clock.now = NOW + 3 * RETENTION
    harness.ledger.reopen(harness.asset_id)
    harness.archive_until_settled()
    assert row_of(harness).state is AssetState.QUARANTINED, "never lost: it is stored"


def test_a_rebuilt_ledger_finds_quarantined_assets() -> None:
    harness = ArchiverHarness(lambda: tree(leaf(SourceGone("404"))))
    attempts(harness, 3)
    harness.ledger.clear()

    outcome = harness.archive()

    assert isinstance(outcome, Kept), "at once, for it found what the manifest says"


def test_nothing_is_stored_of_an_asset_without_media() -> None:
    harness = ArchiverHarness(lambda: Tree({"s0.ts": leaf(SourceGone("404")), "master.m3u8": b"#EXTM3U\n"}))

    outcomes = attempts(harness, 5)

    assert all(isinstance(outcome, WillRetry) for outcome in outcomes)
    assert read_manifest(harness.stores[0], keys.manifest_key(harness.asset_id, asset().created_at)) is None


@pytest.mark.parametrize("fault", [SourceMismatch("short"), SourceUnavailable("503")])
def test_a_destination_that_refuses_opens_its_breaker_though_the_source_failed_too(
    fault: SourceError,
) -> None:
    class Refusing(MemoryBackend):
        def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            raise AccessDenied("403")

    stores = [MemoryBackend("good"), Refusing("refusing")]
    harness = ArchiverHarness(lambda: tree(leaf(fault)), stores=stores)

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert "bad.ts" in outcome.reason, "the asset's own matter is told as before"
    assert set(breaker.opened(harness.ledger, harness.clock())) == {"memory://refusing (on test)"}


class RefusingParts(MemoryBackend):
    """Refuses every write; `refused` is set once it has refused an object of several parts."""

    def __init__(self, refused: threading.Event) -> None:
        super().__init__("refusing")
        self._refused = refused

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        raise AccessDenied("403")

    def begin(self, spec: ObjectSpec) -> Upload:  # type: ignore[override]
        self._refused.set()
        raise AccessDenied("403")


@pytest.mark.parametrize(
    "fault", [SourceMismatch("short"), SourceUnavailable("503"), SourceGone("404"), UnexpectedContent("cut")]
)
@pytest.mark.parametrize("names", [("good", "refusing"), ("refusing",)])
def test_a_destination_that_refuses_parts_opens_its_breaker_though_the_only_file_failed_too(
    names: tuple[str, ...], fault: SourceError
) -> None:
    class Failing(BytesSource):
        def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
            if start >= len(VIDEO) // 2:
                assert refused.wait(20)
                raise type(fault)(*fault.args)
            super().read_range(start, into, info)

    refused = threading.Event()
    stores = [RefusingParts(refused) if name == "refusing" else MemoryBackend(name) for name in names]
    harness = ArchiverHarness(lambda: Tree({"Rec.mp4": Failing(VIDEO)}, form="file"), stores=stores)

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert set(breaker.opened(harness.ledger, harness.clock())) == {"memory://refusing (on test)"}


@pytest.mark.parametrize("fault", [SourceMismatch("cut short"), SourceUnavailable("503")])
def test_a_destination_that_refuses_parts_opens_its_breaker_though_a_member_of_a_file_failed_too(
    fault: SourceError,
) -> None:
    class Member:
        def __iter__(self) -> Iterator[bytes | memoryview]:
            yield VIDEO
            assert refused.wait(20)
            raise fault

        def skip(self) -> None:
            return

    class Members(Tree):
        def items(self) -> Iterator[Item]:
            yield Item("s0.ts", "video/mp4", chunks=Member())

    refused = threading.Event()
    stores = [MemoryBackend("good"), RefusingParts(refused)]
    harness = ArchiverHarness(lambda: Members({}, form="file"), stores=stores)

    outcome = harness.archive()

    assert isinstance(outcome, WillRetry)
    assert set(breaker.opened(harness.ledger, harness.clock())) == {"memory://refusing (on test)"}


def test_both_destinations_keep_it() -> None:
    stores: Sequence[StorageBackend] = [MemoryBackend("one"), MemoryBackend("two")]
    harness = ArchiverHarness(lambda: tree(leaf(SourceGone("404"))), stores=stores)

    attempts(harness, 3)

    key = keys.manifest_key(harness.asset_id, asset().created_at)
    assert all(kept(store, key) is not None for store in stores)


def test_a_busy_optional_object_does_not_delay_the_rest() -> None:
    thumbnail = leaf(SourceUnavailable("503"))
    harness = ArchiverHarness(
        lambda: Tree({"s0.ts": BytesSource(VIDEO), "t.png": thumbnail}, optional=frozenset({"t.png"}))
    )

    assert isinstance(harness.archive(), Archived)
    assert "t.png could not be fetched yet and is tried again" in row_of(harness).warnings[0]


def test_invalid_responses_to_a_few_requests_cost_no_attempt() -> None:
    """At every attempt other ones of many objects get one; an attempt without any may never come."""
    strange = [SourceGone("404"), ErrorPage("HTML"), SourceForbidden("403"), SourceMismatch("cut short")]
    files = {
        f"s{number}.ts": BytesSource(VIDEO, [strange[number % 4]] if number % 5 == 0 else [])
        for number in range(100)
    }
    harness = ArchiverHarness(lambda: Tree(files))

    assert isinstance(harness.archive(), Archived)


def test_an_optional_object_that_is_gone_is_a_warning_at_once() -> None:
    harness = ArchiverHarness(
        lambda: Tree(
            {"s0.ts": BytesSource(VIDEO), "t.png": leaf(SourceGone("404"))}, optional=frozenset({"t.png"})
        )
    )

    assert isinstance(harness.archive(), Archived)


def test_two_files_of_one_path_are_a_doubt() -> None:
    class Twice(Tree):
        def items(self):  # type: ignore[no-untyped-def]
            yield from super().items()
            yield Item("s0.ts", "video/mp2t", source=BytesSource(b"another"))

    harness = ArchiverHarness(lambda: Twice({"s0.ts": BytesSource(VIDEO)}))

    attempts(harness, 3)

    assert row_of(harness).state is AssetState.QUARANTINED
    assert "two files" in (row_of(harness).reason or "")

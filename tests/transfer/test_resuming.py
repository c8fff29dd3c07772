"""A worker dies after any part; the next one sends only what is missing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.transfer import storing
from archiver.transfer.base import CHECKED_BYTES, CopyRequest, CopyResult, SavedUpload, SourceInfo
from archiver.transfer.checksums import crc32c
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import ErrorPage, Preempted, SourceChanged, SourceUnavailable, TransferError
from archiver.transfer.memory import MemoryBudget
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend, Upload
from storage_backends.errors import TransientStorageError, UploadGone
from storage_backends.filesystem import FilesystemBackend
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import HURRIED, KEY, Journal, client, request, some_bytes, source
from tests.transfer.origin import Origin, Reply, Request, other_etag, status
from tests.transfer.stores import NoChecksumStore, OrderedStore, Wrapped, open_uploads, stored_in

PART = 1000
CONTENT = some_bytes(8500)
PARTS = 9


class NoChecksumStats(MemoryBackend):
    """A store in memory that keeps no checksum: what is there has to be read back."""

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        info = super().stat(key)
        return replace(info, crc32c=None) if info is not None else None


class WorkerDied(BaseException):
    pass


def copy(
    origin: Origin,
    stores: list[StorageBackend],
    journal: Journal,
    ask: CopyRequest | None = None,
    die_after: int | None = None,
    on_bytes: list[int] | None = None,
    part_bytes: int = PART,
) -> CopyResult:
    """One worker's attempt. With `die_after` it ends when so many parts are in the journal: nothing more is done,
    nothing tidied up, as after a SIGKILL."""
    seen: list[Part] = []

    def alive() -> None:
        if die_after is not None and len(seen) >= die_after:
            raise WorkerDied

    def part_noted(part: Part) -> None:
        seen.append(part)
        alive()

    journal.on_part = part_noted
    http = client()
    try:
        with TransferEngine(
            MemoryBudget(64 * 1024 * 1024),
            part_bytes=part_bytes,
            connections=1,
            uploads=1,
            journal=journal,
            policy=HURRIED,
            should_stop=alive,
            on_bytes=lambda _, count: on_bytes.append(count) if on_bytes is not None else None,
        ) as engine:
            return engine.submit(source(http, origin), ask or request(), stores).result(timeout=20)
    finally:
        http.close()


def lacking(journal: Journal, store: StorageBackend) -> list[int]:
    """The parts that the dead worker left to do; which of the first it did depends on its threads."""
    held = journal.saved[store.name, KEY].parts
    return [number for number in range(1, PARTS + 1) if number not in held]


@pytest.mark.parametrize("kind", [Wrapped, OrderedStore])
@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("done", range(1, PARTS + 1))
def test_only_the_missing_parts_are_read_and_sent(done: int, size_known: bool, kind: type[Wrapped]) -> None:
    store, journal = kind(MemoryBackend("store")), Journal()
    ask = request(size_bytes=len(CONTENT) if size_known else None)
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, ask, die_after=done)
        missing = lacking(journal, store)
        origin.end_connections()
        origin.requests.clear()
        store.sent_parts.clear()

        result = copy(origin, [store], journal, ask)

        assert stored_in(store) == {KEY: CONTENT}
        assert result.stored[store.name].crc32c == result.crc32c
        assert len(missing) == PARTS - done
        assert sorted(store.sent_parts) == missing
        first, *ranges = origin.ranges_asked
        assert first == (
            (0, CHECKED_BYTES - 1) if size_known else (0, PART - 1)
        )  # to see that the file is the same
        assert sorted(start // PART + 1 for start, _ in ranges) == [n for n in missing if n > 1 or size_known]
    assert journal.saved == {}
    assert open_uploads(store) == 0


def test_the_first_bytes_are_looked_at_again_though_their_part_is_stored() -> None:
    def refuse(first: bytes, info: SourceInfo | None) -> None:
        assert info is not None
        assert CONTENT.startswith(first)
        raise ErrorPage("not a video after all")

    store, journal = MemoryBackend("store"), Journal()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, die_after=3)

        with pytest.raises(ErrorPage, match="after all"):
            copy(origin, [store], journal, request(check=refuse))

    assert stored_in(store) == {}
    assert open_uploads(store) == 0


def test_a_journal_with_a_gap_is_trusted_up_to_it_where_parts_have_an_order() -> None:
    store, journal = OrderedStore(MemoryBackend("store")), Journal()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, die_after=4)
        saved = journal.saved[store.name, KEY]
        known = {number: part for number, part in saved.parts.items() if number != 2}
        journal.saved[store.name, KEY] = replace(saved, parts=known)
        store.sent_parts.clear()

        copy(origin, [store], journal)

    assert store.sent_parts == list(range(2, PARTS + 1))
    assert stored_in(store) == {KEY: CONTENT}


def test_what_was_stored_before_counts_as_progress() -> None:
    store, journal, counted = MemoryBackend("store"), Journal(), list[int]()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, die_after=4)

        copy(origin, [store], journal, on_bytes=counted)

    assert counted[0] == 4 * PART
    assert sum(counted) == len(CONTENT)


def test_a_part_is_read_when_one_store_lacks_it_and_sent_to_that_one_alone() -> None:
    ahead, behind = Wrapped(MemoryBackend("ahead")), Wrapped(MemoryBackend("behind"))
    journal = Journal()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [ahead], journal, die_after=6)
        with pytest.raises(WorkerDied):
            copy(origin, [behind], journal, die_after=2)
        missing = {store: lacking(journal, store) for store in (ahead, behind)}
        for store in (ahead, behind):
            store.sent_parts.clear()

        copy(origin, [ahead, behind], journal)

    assert {store: sorted(store.sent_parts) for store in missing} == missing
    assert [len(numbers) for numbers in missing.values()] == [PARTS - 6, PARTS - 2]
    assert stored_in(ahead) == stored_in(behind) == {KEY: CONTENT}


def test_another_etag_begins_again() -> None:
    store, journal = Wrapped(MemoryBackend("store")), Journal()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, die_after=3)
        store.sent_parts.clear()
        other = some_bytes(len(CONTENT), seed=8)
        origin.files["/file"], origin.etag = other, '"v2"'

        copy(origin, [store], journal)

    assert stored_in(store) == {KEY: other}
    assert sorted(store.sent_parts) == list(range(1, PARTS + 1))
    assert open_uploads(store) == 0


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("part_bytes", [500, 1500, 20_000])
def test_another_part_size_goes_on_in_the_old_one(part_bytes: int, size_known: bool) -> None:
    store, journal = Wrapped(MemoryBackend("store")), Journal()
    ask = request(size_bytes=len(CONTENT) if size_known else None)
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, ask, die_after=3)
        store.sent_parts.clear()
        missing = lacking(journal, store)

        copy(origin, [store], journal, ask, part_bytes=part_bytes)

    assert stored_in(store) == {KEY: CONTENT}
    if part_bytes < len(CONTENT):  # else it is one request, which is simpler
        assert len(missing) == PARTS - 3
        assert sorted(store.sent_parts) == missing
        assert open_uploads(store) == 0


def test_an_upload_the_store_has_forgotten_begins_again() -> None:
    inner = MemoryBackend("store")
    store, journal = Wrapped(inner), Journal()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, die_after=3)
        inner.store.uploads.clear()

        copy(origin, [store], journal)

    assert stored_in(store) == {KEY: CONTENT}


class ForgetsTokens(Wrapped):
    """A store whose uploads, once they are completed, are unknown in every way."""

    def resume(self, spec: ObjectSpec, token: str) -> Upload:
        raise UploadGone("no such upload")


def completed_unheard(store: StorageBackend, journal: Journal, known: int) -> None:
    """An attempt completed its upload and died; its journal had noted the first `known` parts."""
    spec = ObjectSpec(KEY, "video/mp4", len(CONTENT), PART)
    upload = store.begin(spec)
    pieces = [CONTENT[start : start + PART] for start in range(0, len(CONTENT), PART)]
    parts = [upload.put_part(number, piece, crc32c(piece)) for number, piece in enumerate(pieces, start=1)]
    upload.complete(parts, crc32c(CONTENT))
    saved = {part.number: part for part in parts[:known]}
    journal.saved[store.name, KEY] = SavedUpload(upload.token, len(CONTENT), PART, '"v1"', saved)


@pytest.mark.parametrize("keeps_checksums", [True, False])
@pytest.mark.parametrize("known", [0, 1, PARTS - 1, PARTS])
@pytest.mark.parametrize("kind", [Wrapped, OrderedStore, ForgetsTokens])
def test_an_upload_that_was_completed_is_recognised_and_nothing_is_sent_again(
    kind: type[Wrapped], known: int, keeps_checksums: bool
) -> None:
    inner = MemoryBackend if keeps_checksums else NoChecksumStats
    store, journal = kind(inner("store")), Journal()
    completed_unheard(store, journal, known)
    store.calls.clear()
    store.sent_parts.clear()
    with Origin({"/file": CONTENT}) as origin:
        result = copy(origin, [store], journal, request(size_bytes=len(CONTENT)))
        read = sum(last - first + 1 for first, last in origin.ranges_asked)

    assert result.failed == {}
    assert result.stored[store.name].crc32c == result.crc32c
    assert stored_in(store) == {KEY: CONTENT}
    assert store.sent_parts == []
    assert store.calls["begin"] == 0
    assert read <= max(0, len(CONTENT) - known * PART) + CHECKED_BYTES
    assert journal.saved == {}


@pytest.mark.parametrize("known", [1, PARTS])
@pytest.mark.parametrize("kind", [Wrapped, OrderedStore, ForgetsTokens])
def test_another_object_of_the_same_size_is_not_taken_for_it(kind: type[Wrapped], known: int) -> None:
    store, journal = kind(MemoryBackend("store")), Journal()
    completed_unheard(store, journal, known)
    other = some_bytes(len(CONTENT), seed=9)
    store.put(ObjectSpec(KEY, "video/mp4", len(other)), other, crc32c(other))
    with Origin({"/file": CONTENT}) as origin:
        for _ in range(2):
            result = copy(origin, [store], journal)
            if not result.failed:
                break

    assert result.stored.keys() == {store.name}
    assert stored_in(store) == {KEY: CONTENT}


@pytest.mark.parametrize("known", [0, 1, PARTS])
def test_the_directory_recognises_what_it_completed(known: int, tmp_path: Path) -> None:
    store, journal = FilesystemBackend(tmp_path / "d"), Journal()
    completed_unheard(store, journal, known)
    counted = Wrapped(store)
    with Origin({"/file": CONTENT}) as origin:
        result = copy(origin, [counted], journal)

    assert result.failed == {}
    assert counted.sent_parts == []
    assert store.read(KEY) == CONTENT


def test_a_store_that_does_not_answer_leaves_the_journal_to_the_next_attempt() -> None:
    class Silent(ForgetsTokens):
        away = True

        def stat(self, key: ObjectKey) -> ObjectInfo | None:
            if self.away:
                raise TransientStorageError("503")
            return super().stat(key)

    store, journal = Silent(MemoryBackend("store")), Journal()
    completed_unheard(store, journal, 3)
    store.sent_parts.clear()
    with Origin({"/file": CONTENT}) as origin:
        first = copy(origin, [store], journal)
        store.away = False
        second = copy(origin, [store], journal)

    assert isinstance(first.failed[store.name], TransientStorageError)
    assert second.failed == {}
    assert store.sent_parts == []


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_a_source_that_cannot_be_known_again_is_not_resumed(etag: str | None) -> None:
    store, journal = MemoryBackend("store"), Journal()
    with Origin({"/file": CONTENT}, etag=etag) as origin:
        result = copy(origin, [store], journal)

    assert result.stored.keys() == {store.name}
    assert journal.saved == {}


def test_a_source_that_is_away_leaves_the_upload_for_the_next_attempt() -> None:
    store, journal = Wrapped(MemoryBackend("store")), Journal()
    begun = threading.Event()

    def goes_away(request: Request, reply: Reply) -> Reply:
        begun.wait(10)
        return status(503)(request, reply)

    with Origin({"/file": CONTENT}) as origin:
        origin.script([lambda _, reply: reply] * 4)
        origin.always = goes_away
        journal.on_part = lambda _: begun.set()
        with pytest.raises(SourceUnavailable):
            copy(origin, [store], journal)
        held = len(journal.saved[store.name, KEY].parts)
        origin.always = lambda _, reply: reply
        store.sent_parts.clear()

        copy(origin, [store], journal)

    assert held >= 1
    assert len(store.sent_parts) == PARTS - held
    assert stored_in(store) == {KEY: CONTENT}


def test_a_source_that_changed_leaves_nothing_behind() -> None:
    store, journal = MemoryBackend("store"), Journal()
    with Origin({"/file": CONTENT}) as origin:
        origin.script([lambda _, reply: reply] * 4 + [other_etag])
        with pytest.raises(SourceChanged):
            copy(origin, [store], journal)

    assert open_uploads(store) == 0
    assert journal.saved == {}


def test_stores_that_hold_different_bytes_for_a_part_are_both_sent_all_of_it() -> None:
    one, two = Wrapped(MemoryBackend("one")), Wrapped(MemoryBackend("two"))
    journal = Journal()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [one], journal, die_after=3)
        origin.files["/file"] = some_bytes(len(CONTENT), seed=8)  # under the same ETag
        with pytest.raises(WorkerDied):
            copy(origin, [two], journal, die_after=3)

        result = copy(origin, [one, two], journal)

        assert result.failed == {}
        assert stored_in(one) == stored_in(two) == {KEY: origin.files["/file"]}


def test_a_held_part_that_is_not_what_the_checksum_expected_says_is_never_completed() -> None:
    store, journal = MemoryBackend("store"), Journal()
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(WorkerDied):
            copy(origin, [store], journal, die_after=3)
        origin.files["/file"] = some_bytes(len(CONTENT), seed=8)  # under the same ETag

        with pytest.raises(TransferError, match="CRC32C"):
            copy(origin, [store], journal, request(crc32c=12345))

    assert stored_in(store) == {}
    assert open_uploads(store) == 0


@pytest.mark.parametrize("ranges", [True, False], ids=["by ranges", "straight through"])
@pytest.mark.parametrize("kind", [Wrapped, OrderedStore])
@pytest.mark.parametrize("after", [1, 3])
def test_a_copy_that_makes_room_ends_at_a_parts_end_and_resumes_there(
    kind: type[Wrapped], after: int, ranges: bool
) -> None:
    store, journal, http = kind(MemoryBackend("store")), Journal(), client()
    with Origin({"/file": CONTENT}, ranges=ranges) as origin:
        with TransferEngine(
            MemoryBudget(2**20),
            part_bytes=PART,
            connections=1,
            uploads=1,
            journal=journal,
            policy=HURRIED,
            on_bytes=lambda _, count: read.append(count),
            should_yield=lambda: len(read) >= after,
        ) as engine:
            read: list[int] = []
            with pytest.raises(Preempted):
                engine.submit(source(http, origin), request(), [store]).result(timeout=20)
        held = journal.saved[store.name, KEY].parts
        assert sorted(held) == list(range(1, len(read) + 1)), "what was read is stored, and nothing else"
        assert after <= len(held) < PARTS
        assert open_uploads(store) == 1
        store.sent_parts.clear()

        copy(origin, [store], journal)

    http.close()
    assert sorted(store.sent_parts) == list(range(len(held) + 1, PARTS + 1))
    assert stored_in(store) == {KEY: CONTENT}


class Unsummed(NoChecksumStore):
    """Tells no checksum at all."""

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        info = super().stat(key)
        return replace(info, crc32c=None) if info is not None else None


def copy_that_yields(
    origin: Origin, stores: list[StorageBackend], journal: Journal, first: Wrapped, after: int
) -> CopyResult:
    """An attempt that is to make room once `first` was read `after` times."""
    http = client()
    try:
        with TransferEngine(
            MemoryBudget(2**20),
            part_bytes=PART,
            connections=2,
            uploads=2,
            journal=journal,
            policy=HURRIED,
            should_yield=lambda: first.calls["read"] >= after,
        ) as engine:
            return engine.submit(source(http, origin), request(), stores).result(timeout=20)
    finally:
        http.close()


@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize("with_another", [False, True], ids=["one store", "and one that keeps checksums"])
def test_what_is_being_read_back_makes_room_and_is_not_sent_again(
    after: int, with_another: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "_READ_BACK_BYTES", PART)
    plain, journal = Unsummed(MemoryBackend("plain")), Journal()
    other = Wrapped(MemoryBackend("summed"))
    stores: list[StorageBackend] = [plain, other] if with_another else [plain]
    with Origin({"/file": CONTENT}) as origin:
        with pytest.raises(Preempted):
            copy_that_yields(origin, stores, journal, plain, after)
        assert plain.calls["read"] == after, "it ends at the next read"
        assert stored_in(plain) == {KEY: CONTENT}
        plain.calls.clear()
        for sent in (plain.sent_parts, other.sent_parts):
            sent.clear()
        origin.end_connections()
        origin.requests.clear()

        result = copy(origin, stores, journal)

        assert origin.ranges_asked == [(0, PART - 1)], "to see that the file is the same"
    assert (plain.sent_parts, other.sent_parts) == ([], [])
    assert plain.calls["read"] == PARTS, "each byte is read back once"
    assert result.failed == {}
    assert result.stored.keys() == {store.name for store in stores}
    assert journal.saved == {}
    assert all(stored_in(store) == {KEY: CONTENT} for store in stores)


def test_what_nobody_could_resume_is_read_back_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_READ_BACK_BYTES", PART)
    store, journal = Unsummed(MemoryBackend("plain")), Journal()
    with Origin({"/file": CONTENT}, etag=None) as origin:
        result = copy_that_yields(origin, [store], journal, store, 1)

    assert result.failed == {}
    assert store.calls["read"] == PARTS

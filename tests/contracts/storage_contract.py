"""The contract of `storage_backends.base`: a suite that every backend runs unchanged, against a real server.

Subclass `StorageContract`, give it a class-scoped fixture `destination`, and name in `cannot` what this store (or this
test server) is known not to do, with the reason: those tests must then fail. Nothing else may be overridden
(tests/storage_backends/test_every_backend_runs_the_contract.py sees to it). How to run it over a backend of your own:
docs/storage-backends.md.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, cast

import pytest

from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend, Upload, object_key
from storage_backends.conditional import replace_if
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumRejected,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    UploadGone,
)
from storage_backends.optional import CopiesObjects
from storage_backends.registry import open_destination
from tests.contracts.interrupted_upload import content, read_journal

ROOT = Path(__file__).parents[2]


class SideDoor(Protocol):
    """The same store, seen without our code. Keys are relative to the destination, as in a backend."""

    def stored_keys(self) -> set[str]: ...

    def read(self, key: str) -> bytes: ...

    def write(self, key: str, data: bytes) -> None: ...


@dataclass(frozen=True)
class Destination:
    url: str
    side: SideDoor
    env: Mapping[str, str] = field(default_factory=dict)  # credentials, for this process and its children
    missing_url: str | None = None  # a bucket, or a directory's parent, that does not exist
    refused: Callable[[], contextlib.AbstractContextManager[StorageBackend]] | None = None  # may not write
    sibling_url: str | None = None  # the same store, whose prefix begins like this one's


AWKWARD_KEYS = {
    "spaces": "a b/ c .mp4",
    "plus, ampersand, equals": "a+b&c=d.mp4",
    "percent": "100%/%2e%2e/%41.mp4",
    "question mark and hash": "what?/#1.mp4",
    "quotes": 'it\'s "so".mp4',
    "unicode": "sélection/日本語/🎬.mp4",
    "dots": "..a/b../...",
    "leading dot": ".hidden/.file",
    "colon, semicolon, at": "2026-01-01T00:00:00Z;@x.mp4",
    "brackets, star, pipe, angle": "[a]{b}(c)*|<d>~^`.mp4",
    "long segment": "s" * 255,
    "long key": "/".join(["k" * 99] * 8),
    "deep": "/".join("abcdefghijklmnop"),
}


class StorageContract:
    cannot: ClassVar[Mapping[str, str]] = {}
    """Test (or `test[parameter]`) → why this store cannot do it. A strict expected failure, but for "sometimes ..."."""

    # -- fixtures

    @pytest.fixture(autouse=True)
    def _cannot_here(self, request: pytest.FixtureRequest) -> None:
        name = request.node.name
        reason = self.cannot.get(name) or self.cannot.get(name.partition("[")[0])
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=not reason.startswith("sometimes")))

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def environment(cls, destination: Destination) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in destination.env.items():
                patch.setenv(name, value)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, destination: Destination, environment: None) -> Iterator[StorageBackend]:
        with contextlib.closing(open_destination(destination.url)) as backend:
            yield backend

    @pytest.fixture(scope="class")
    @classmethod
    def nowhere(cls, destination: Destination, environment: None) -> Iterator[StorageBackend | None]:
        """A destination whose bucket does not exist; None where a missing one is created."""
        if destination.missing_url is None:
            yield None
            return
        with contextlib.closing(open_destination(destination.missing_url)) as backend:
            yield backend

    @pytest.fixture
    def reopen(self, destination: Destination) -> Iterator[Callable[[], StorageBackend]]:
        """Open the destination again, as another worker would."""
        with contextlib.ExitStack() as stack:
            yield lambda: stack.enter_context(contextlib.closing(open_destination(destination.url)))

    @pytest.fixture
    def own(self) -> str:
        """A prefix of keys that no other test uses."""
        return f"test-{uuid.uuid4().hex[:12]}/"

    @pytest.fixture
    def key(self, own: str) -> ObjectKey:
        return object_key(f"{own}folder/object.mp4")

    # -- whole objects

    def test_what_is_put_is_there_byte_for_byte(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = bytes(range(256)) * 5

        put(store, key, data)

        assert store.read(key) == data
        assert destination.side.read(key) == data

    def test_an_object_is_described(self, store: StorageBackend, key: ObjectKey) -> None:
        stored = put(store, key, b"hello", content_type="video/mp4", metadata={"room": "r1"})

        seen = store.stat(key)

        assert seen is not None
        assert (seen.key, seen.size_bytes) == (key, 5) == (stored.key, stored.size_bytes)
        assert seen.content_type in ("video/mp4", None)
        assert seen.crc32c in (crc32c_of(b"hello"), None)
        assert seen.updated_at is not None
        assert seen.updated_at.tzinfo is not None

    def test_what_is_put_is_proved_by_the_store(self, store: StorageBackend, key: ObjectKey) -> None:
        stored = put(store, key, b"hello")

        assert stored.crc32c == crc32c_of(b"hello")

    def test_put_replaces_what_was_there(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        put(store, key, b"first, and longer")

        put(store, key, b"second")

        assert destination.side.read(key) == b"second"

    def test_putting_twice_ends_in_the_same_object(
        self, store: StorageBackend, key: ObjectKey, own: str
    ) -> None:
        put(store, key, b"the same")
        put(store, key, b"the same")

        assert store.read(key) == b"the same"
        assert [info.key for info in store.list(own)] == [key]

    def test_an_empty_object_can_be_put_and_read(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        stored = put(store, key, b"")

        assert stored.size_bytes == 0
        assert store.read(key) == b""
        assert store.read(key, 0, 10) == b""
        assert destination.side.read(key) == b""

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer_can_be_put(
        self, store: StorageBackend, key: ObjectKey, kind: Callable[[bytes], bytes]
    ) -> None:
        put(store, key, kind(b"some bytes"))

        assert store.read(key) == b"some bytes"

    def test_a_piece_of_a_buffer_can_be_put(self, store: StorageBackend, key: ObjectKey) -> None:
        piece = memoryview(bytearray(b"xxthe piecexx"))[2:-2]

        put(store, key, piece)

        assert store.read(key) == b"the piece"

    def test_bytes_that_do_not_match_their_checksum_are_rejected_and_not_stored(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        with pytest.raises(ChecksumRejected):
            store.put(ObjectSpec(key, "video/mp4"), b"other bytes", crc32c_of(b"the bytes"))

        assert store.stat(key) is None
        assert key not in destination.side.stored_keys()

    @pytest.mark.parametrize("name", AWKWARD_KEYS)
    def test_every_allowed_key_names_its_own_object(
        self, store: StorageBackend, destination: Destination, own: str, name: str
    ) -> None:
        key = object_key(own + AWKWARD_KEYS[name])

        put(store, key, name.encode())

        assert store.read(key) == name.encode()
        assert [info.key for info in store.list(own)] == [key]
        assert destination.side.read(key) == name.encode()
        store.delete(key)
        assert store.stat(key) is None

    def test_many_objects_can_be_put_at_once(self, store: StorageBackend, own: str) -> None:
        keys = [object_key(f"{own}{n % 3}/{n}") for n in range(24)]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: put(store, key, key.encode()), keys))

        assert {info.key: info.size_bytes for info in store.list(own)} == {key: len(key) for key in keys}
        assert all(store.read(key) == key.encode() for key in keys[:4])

    # -- conditional creates

    def test_put_if_absent_stores_at_a_free_key(self, store: StorageBackend, key: ObjectKey) -> None:
        put(store, key, b"new", if_absent=True)

        assert store.read(key) == b"new"

    def test_put_if_absent_refuses_a_taken_key_and_leaves_it(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        destination.side.write(key, b"theirs")

        with pytest.raises(ObjectExists):
            put(store, key, b"ours", if_absent=True)

        assert destination.side.read(key) == b"theirs"

    def test_of_several_puts_if_absent_at_once_exactly_one_wins(
        self, store: StorageBackend, key: ObjectKey
    ) -> None:
        start = threading.Barrier(6)

        def attempt(key: ObjectKey, number: int) -> bool:
            start.wait(timeout=10)
            try:
                put(store, key, b"writer %d" % number, if_absent=True)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            for contested in [
                object_key(f"{key}-{n}") for n in range(6)
            ]:  # connections are open after the first
                won = list(pool.map(partial(attempt, contested), range(6)))

                assert won.count(True) == 1
                assert store.read(contested) == b"writer %d" % won.index(True)

    # -- conditional replaces

    def test_put_if_match_replaces_what_is_expected(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        put(store, key, b"first")

        put(store, key, b"second", if_match=etag_of(store, key))
        put(store, key, b"third", if_match=etag_of(store, key))

        assert destination.side.read(key) == b"third"

    def test_put_if_match_leaves_another_object(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        put(store, key, b"first")
        expected = etag_of(store, key)
        destination.side.write(key, b"theirs")

        with pytest.raises(ObjectChanged):
            put(store, key, b"ours", if_match=expected)

        assert destination.side.read(key) == b"theirs"

    def test_put_if_match_makes_nothing_where_nothing_is(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        put(store, key, b"first")
        expected = etag_of(store, key)
        store.delete(key)

        with pytest.raises(ObjectChanged):
            put(store, key, b"ours", if_match=expected)

        assert key not in destination.side.stored_keys()

    def test_what_put_answers_is_what_if_match_expects(self, store: StorageBackend, key: ObjectKey) -> None:
        first = put(store, key, b"first")
        second = put(store, key, b"second", if_match=first.etag)
        put(store, key, b"third", if_match=second.etag)

        assert store.read(key) == b"third"
        assert second.etag != first.etag

    def test_replace_if_writes_over_what_is_expected_and_nothing_else(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        def write(data: bytes, expected: ObjectInfo | None) -> None:
            spec = ObjectSpec(key, "application/json", len(data))
            replace_if(store, spec, data, crc32c_of(data), expected)

        write(b"first", None)
        first = store.stat(key)
        write(b"second", first)
        write(b"second", first)  # as after an answer that was lost
        for expected in (None, first):
            with pytest.raises(ObjectChanged):
                write(b"third", expected)

        assert destination.side.read(key) == b"second"

    # -- stat, read, list, delete

    def test_a_missing_key_is_described_by_none(self, store: StorageBackend, key: ObjectKey) -> None:
        assert store.stat(key) is None

    @pytest.mark.parametrize("span", [(0, None), (0, 10), (5, 0), (5, 5)])
    def test_reading_a_missing_key_says_so(
        self, store: StorageBackend, key: ObjectKey, span: tuple[int, int | None]
    ) -> None:
        with pytest.raises(ObjectMissing):
            store.read(key, *span)

    @pytest.mark.parametrize(
        ("start", "length"),
        [(0, 1), (0, 10), (3, 4), (9, 1), (8, 100), (10, 1), (500, 5), (4, None), (10, None), (3, 0)],
    )
    def test_any_span_of_an_object_can_be_read(
        self, store: StorageBackend, destination: Destination, key: ObjectKey, start: int, length: int | None
    ) -> None:
        data = b"0123456789"
        destination.side.write(key, data)

        read = store.read(key, start, length)

        assert read == (data[start:] if length is None else data[start : start + length])

    @pytest.mark.parametrize("span", [(0, None), (0, 4), (3, 4), (8, 100), (500, 5), (3, 0)])
    def test_a_read_if_match_gives_the_object_that_is_expected(
        self, store: StorageBackend, key: ObjectKey, span: tuple[int, int | None]
    ) -> None:
        put(store, key, b"0123456789")

        read = store.read(key, *span, if_match=etag_of(store, key))

        assert read == store.read(key, *span)

    @pytest.mark.parametrize("other", [b"9876543210", b"short", b"longer than it was before"])
    @pytest.mark.parametrize("span", [(0, None), (0, 4), (3, 4), (8, 100), (500, 5), (3, 0)])
    def test_a_read_if_match_of_another_object_says_so(
        self,
        store: StorageBackend,
        destination: Destination,
        key: ObjectKey,
        span: tuple[int, int | None],
        other: bytes,
    ) -> None:
        put(store, key, b"0123456789")
        expected = etag_of(store, key)
        destination.side.write(key, other)

        with pytest.raises(ObjectChanged):
            store.read(key, *span, if_match=expected)

    @pytest.mark.parametrize("span", [(0, None), (0, 10), (5, 0), (5, 5)])
    def test_a_read_if_match_of_a_missing_key_says_so(
        self, store: StorageBackend, key: ObjectKey, span: tuple[int, int | None]
    ) -> None:
        put(store, key, b"0123456789")
        expected = etag_of(store, key)
        store.delete(key)

        with pytest.raises(ObjectMissing):
            store.read(key, *span, if_match=expected)

    def test_a_deleted_object_is_gone_and_deleting_twice_is_no_error(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        put(store, key, b"x")

        store.delete(key)
        store.delete(key)

        assert store.stat(key) is None
        assert key not in destination.side.stored_keys()

    def test_a_list_holds_every_object_under_the_prefix_and_no_other(
        self, store: StorageBackend, destination: Destination, own: str
    ) -> None:
        inside = [f"{own}a/1", f"{own}a/2", f"{own}a/b/3", f"{own}ab", f"{own}a.b/4"]
        outside = [f"{own}b/1", f"{own}A/1"]
        for key in inside + outside:
            destination.side.write(key, b"abc")

        listed = {info.key: info.size_bytes for info in store.list(f"{own}a")}

        assert listed == dict.fromkeys(inside, 3)
        assert {info.key for info in store.list(f"{own}a/")} == {f"{own}a/1", f"{own}a/2", f"{own}a/b/3"}
        assert list(store.list(f"{own}nothing")) == []

    @pytest.mark.parametrize("prefix", ["../", "..", "/", "a/../../", "//"])
    def test_a_list_never_looks_outside_the_destination(
        self, store: StorageBackend, key: ObjectKey, prefix: str
    ) -> None:
        put(store, key, b"x")

        assert list(store.list(prefix)) == []

    def test_destinations_whose_prefixes_begin_alike_do_not_see_each_other(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        assert destination.sibling_url is not None, "a destination of its own"
        with contextlib.closing(open_destination(destination.sibling_url)) as sibling:
            put(sibling, key, b"theirs")

            assert store.stat(key) is None
            assert key not in {info.key for info in store.list()}
            assert sibling.read(key) == b"theirs"

    # -- uploads in parts

    def test_parts_become_one_object(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=3)
        upload = store.begin(upload_spec(store, key, data))

        info = upload.complete(put_parts(upload, data), crc32c_of(data))

        assert (info.key, info.size_bytes) == (key, len(data))
        assert destination.side.read(key) == data
        seen = store.stat(key)
        assert seen is not None
        assert seen.size_bytes == len(data)
        assert seen.content_type in ("video/mp4", None)
        assert seen.crc32c in (crc32c_of(data), None)

    def test_an_upload_is_proved_by_the_store(self, store: StorageBackend, key: ObjectKey) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))

        info = upload.complete(put_parts(upload, data), crc32c_of(data))

        assert info.crc32c == crc32c_of(data)

    def test_an_upload_of_one_part(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = b"less than a part"
        upload = store.begin(upload_spec(store, key, data))

        upload.complete(put_parts(upload, data), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_an_upload_whose_last_part_is_full(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = content(2 * part_bytes(store))
        upload = store.begin(upload_spec(store, key, data))

        upload.complete(put_parts(upload, data), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_an_upload_whose_size_was_not_known(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(ObjectSpec(key, "video/mp4", None, part_bytes(store)))

        upload.complete(put_parts(upload, data), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_an_upload_is_invisible_until_it_is_complete(
        self, store: StorageBackend, destination: Destination, key: ObjectKey, own: str
    ) -> None:
        data = sample(store, parts=2)

        upload = store.begin(upload_spec(store, key, data))
        put_parts(upload, data)

        assert store.stat(key) is None
        assert list(store.list(own)) == []
        with pytest.raises(ObjectMissing):
            store.read(key)
        assert key not in destination.side.stored_keys()
        upload.abort()

    def test_an_upload_replaces_what_was_there_only_at_its_end(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        destination.side.write(key, b"before")
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))

        parts = put_parts(upload, data)
        assert destination.side.read(key) == b"before"
        upload.complete(parts, crc32c_of(data))

        assert destination.side.read(key) == data

    def test_the_store_tells_which_parts_it_holds_or_that_it_cannot(
        self, store: StorageBackend, key: ObjectKey
    ) -> None:
        data = sample(store, parts=3)
        upload = store.begin(upload_spec(store, key, data))

        parts = put_parts(upload, data)
        reported = upload.parts()

        assert reported is None or {n: (p.size_bytes, p.crc32c) for n, p in reported.items()} == {
            p.number: (p.size_bytes, p.crc32c) for p in parts
        }
        upload.abort()

    def test_parts_can_be_sent_at_once_in_any_order(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        assert store.limits.parallel_parts
        data = sample(store, parts=4)
        size = part_bytes(store)
        upload = store.begin(upload_spec(store, key, data))

        def send(number: int) -> Part:
            piece = data[(number - 1) * size : number * size]
            return upload.put_part(number, piece, crc32c_of(piece))

        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(send, [5, 2, 4, 3, 1]))
        upload.complete(sorted(parts, key=lambda part: part.number), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_a_part_may_be_sent_twice(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        first = data[: part_bytes(store)]

        upload.put_part(1, first, crc32c_of(first))
        upload.complete(put_parts(upload, data), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_of_a_part_sent_twice_the_last_counts(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        other = b"\0" * part_bytes(store)

        upload.put_part(1, other, crc32c_of(other))
        upload.complete(put_parts(upload, data), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_a_buffer_may_be_used_again_once_its_part_is_sent(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        size = part_bytes(store)
        upload = store.begin(upload_spec(store, key, data))
        buffer, parts = bytearray(size), []

        for number, start in enumerate(range(0, len(data), size), start=1):
            piece = data[start : start + size]
            buffer[: len(piece)] = piece
            parts.append(upload.put_part(number, memoryview(buffer)[: len(piece)], crc32c_of(piece)))
            buffer[:] = b"\xff" * size
        upload.complete(parts, crc32c_of(data))

        assert destination.side.read(key) == data

    def test_a_part_that_does_not_match_its_checksum_is_rejected_and_can_be_sent_again(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        first = data[: part_bytes(store)]

        with pytest.raises(ChecksumRejected):
            upload.put_part(1, first, crc32c_of(first) ^ 1)
        upload.complete(put_parts(upload, data), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_an_object_that_does_not_match_its_checksum_never_appears(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        parts = put_parts(upload, data)

        with pytest.raises(ChecksumRejected):
            upload.complete(parts, crc32c_of(data) ^ 1)

        assert store.stat(key) is None
        assert key not in destination.side.stored_keys()
        upload.abort()

    def test_an_upload_cannot_be_completed_with_a_part_that_was_never_sent(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        size = part_bytes(store)
        sent = upload.put_part(1, data[:size], crc32c_of(data[:size]))
        invented = Part(2, len(data) - size, crc32c_of(data[size:]), sent.tag)

        with pytest.raises((UploadGone, ChecksumRejected)):
            upload.complete([sent, invented], crc32c_of(data))

        assert key not in destination.side.stored_keys()
        upload.abort()

    def test_parts_that_another_version_noted_otherwise_are_refused_by_name_or_not_needed(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        """Any other exception than a StorageError would end every attempt alike, and keep the upload for the next."""
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        strange = [replace(part, tag="~?") for part in put_parts(upload, data)]

        with suppress(UploadGone, ChecksumRejected):
            upload.complete(strange, crc32c_of(data))

        stored = destination.side.read(key) if key in destination.side.stored_keys() else None
        assert stored in (None, data)
        upload.abort()

    # -- repeated, late, or by another worker

    def test_completing_twice_ends_in_the_same_object(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        parts = put_parts(upload, data)

        first = upload.complete(parts, crc32c_of(data))
        second = upload.complete(parts, crc32c_of(data))

        assert (first.size_bytes, first.etag) == (second.size_bytes, second.etag)
        assert destination.side.read(key) == data

    def test_another_worker_completes_again_what_was_complete_already(
        self,
        store: StorageBackend,
        destination: Destination,
        key: ObjectKey,
        reopen: Callable[[], StorageBackend],
    ) -> None:
        data = sample(store, parts=2)
        spec = upload_spec(store, key, data)
        upload = store.begin(spec)
        parts = put_parts(upload, data)
        upload.complete(parts, crc32c_of(data))

        info = reopen().resume(spec, upload.token).complete(parts, crc32c_of(data))

        assert info.size_bytes == len(data)
        assert destination.side.read(key) == data

    def test_another_worker_resumes_what_one_that_was_killed_left(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=7)
        spec = upload_spec(store, key, data)

        journal = killed_after_three_parts(destination, spec)
        upload = store.resume(spec, journal.token)
        reported = upload.parts()
        held = dict(reported) if reported is not None else dict(journal.parts)
        for part in pieces(upload, data):
            if part.number not in held:
                held[part.number] = upload.put_part(part.number, part.data, part.crc32c)
        info = upload.complete([held[number] for number in sorted(held)], crc32c_of(data))

        assert sorted(journal.parts) == [1, 2, 3]
        assert reported is None or sorted(reported) == [1, 2, 3]
        assert info.size_bytes == len(data)
        assert destination.side.read(key) == data

    def test_an_aborted_upload_leaves_nothing_and_can_be_aborted_again(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        put_parts(upload, data)

        upload.abort()
        upload.abort()

        assert store.stat(key) is None
        assert key not in destination.side.stored_keys()

    def test_an_aborted_upload_takes_no_more_parts(self, store: StorageBackend, key: ObjectKey) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        put_parts(upload, data[: part_bytes(store)])

        upload.abort()

        with pytest.raises(UploadGone):
            put_parts(upload, data)

    def test_an_aborted_upload_cannot_be_completed(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        parts = put_parts(upload, data)

        upload.abort()

        with pytest.raises(UploadGone):
            upload.complete(parts, crc32c_of(data))
        assert key not in destination.side.stored_keys()

    def test_another_worker_cannot_go_on_with_an_aborted_upload(
        self, store: StorageBackend, key: ObjectKey, reopen: Callable[[], StorageBackend]
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data))
        upload.abort()

        with pytest.raises(UploadGone):
            put_parts(reopen().resume(upload.spec, upload.token), data)

    def test_aborting_a_completed_upload_leaves_the_object(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=1)
        upload = store.begin(upload_spec(store, key, data))
        upload.complete(put_parts(upload, data), crc32c_of(data))

        upload.abort()

        assert destination.side.read(key) == data

    @pytest.mark.parametrize("token", ["", "nonsense", "../../etc", "0" * 32, "0" * 32 + ".full.nonsense"])
    def test_a_token_that_names_no_upload_is_refused(
        self, store: StorageBackend, key: ObjectKey, token: str
    ) -> None:
        spec = ObjectSpec(key, "video/mp4", 10, part_bytes(store))

        with pytest.raises(UploadGone):
            store.resume(spec, token)

    def test_an_upload_if_absent_does_not_replace_what_appeared_meanwhile(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data, if_absent=True))
        parts = put_parts(upload, data)
        destination.side.write(key, b"theirs")

        with pytest.raises(ObjectExists):
            upload.complete(parts, crc32c_of(data))

        assert destination.side.read(key) == b"theirs"
        upload.abort()

    def test_an_upload_if_absent_can_be_completed_twice(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=2)
        upload = store.begin(upload_spec(store, key, data, if_absent=True))
        parts = put_parts(upload, data)

        upload.complete(parts, crc32c_of(data))
        upload.complete(parts, crc32c_of(data))

        assert destination.side.read(key) == data

    def test_a_token_is_a_secret(self, store: StorageBackend, key: ObjectKey) -> None:
        upload = store.begin(ObjectSpec(key, "video/mp4", 10, part_bytes(store)))

        assert upload.token not in repr(upload)
        upload.abort()

    # -- stale uploads

    def test_stale_uploads_end(self, store: StorageBackend, key: ObjectKey) -> None:
        upload = store.begin(ObjectSpec(key, "video/mp4", 10, part_bytes(store)))

        ended = abort_stale_uploads(store, timedelta(0))

        if removes_stale_uploads(store) is True and ended == 0:
            return  # the store ends them by itself
        assert ended >= 1
        with pytest.raises(UploadGone):
            upload.put_part(1, b"0123456789", crc32c_of(b"0123456789"))

    def test_young_uploads_are_left_alone(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        data = sample(store, parts=1)
        upload = store.begin(upload_spec(store, key, data))

        abort_stale_uploads(store, timedelta(hours=1))
        upload.complete(put_parts(upload, data), crc32c_of(data))

        assert destination.side.read(key) == data

    def test_the_store_says_whether_it_removes_stale_uploads_itself(self, store: StorageBackend) -> None:
        assert removes_stale_uploads(store) in (True, False, None)

    # -- copies within the store

    def test_the_store_copies_an_object_with_a_description_of_its_own(
        self, store: StorageBackend, destination: Destination, key: ObjectKey
    ) -> None:
        if (copier := copies_objects(store)) is None:
            return
        data, copy = b"moov" * 1000, object_key(f"{key}.copy")
        put(store, key, data, content_type="video/mp4", metadata={"old": "1"})
        put(store, copy, b"what was there before")

        spec = ObjectSpec(copy, "video/webm", len(data), metadata={"new": "2"})
        info = copier.copy_from(copier.place(), key, spec, crc32c_of(data))

        assert destination.side.read(copy) == destination.side.read(key) == data
        assert (info.key, info.size_bytes, info.content_type) == (copy, len(data), "video/webm")
        assert info.crc32c in (None, crc32c_of(data))
        assert copier.copy_from(copier.place(), key, spec, crc32c_of(data)).size_bytes == len(data)

    def test_a_copy_of_what_is_not_there_is_named_as_such(
        self, store: StorageBackend, key: ObjectKey
    ) -> None:
        if (copier := copies_objects(store)) is None:
            return
        with pytest.raises(ObjectMissing):
            copier.copy_from(copier.place(), object_key(f"{key}.not"), ObjectSpec(key, "video/mp4", 1), 0)

        assert store.stat(key) is None

    # -- errors

    @pytest.mark.parametrize("operation", ["put", "begin", "stat", "read", "list", "delete"])
    def test_a_missing_bucket_is_named_as_such(
        self, nowhere: StorageBackend | None, key: ObjectKey, operation: str
    ) -> None:
        assert nowhere is not None
        doing: dict[str, Callable[[], object]] = {
            "put": lambda: put(nowhere, key, b"x"),
            "begin": lambda: nowhere.begin(ObjectSpec(key, "video/mp4", 10, part_bytes(nowhere))),
            "stat": lambda: nowhere.stat(key),
            "read": lambda: nowhere.read(key),
            "list": lambda: list(nowhere.list()),
            "delete": lambda: nowhere.delete(key),
        }

        with pytest.raises(BucketMissing):
            doing[operation]()

    @pytest.mark.parametrize("operation", ["put", "begin"])
    def test_a_refusal_to_write_is_named_as_such(
        self, destination: Destination, environment: None, key: ObjectKey, operation: str
    ) -> None:
        assert destination.refused is not None, "it refuses nobody"
        with destination.refused() as store:
            doing: dict[str, Callable[[], object]] = {
                "put": lambda: put(store, key, b"x"),
                "begin": lambda: store.begin(ObjectSpec(key, "video/mp4", 10, part_bytes(store))),
            }

            with pytest.raises(AccessDenied):
                doing[operation]()

    # -- names

    def test_the_name_holds_no_query_and_no_credential(
        self, store: StorageBackend, destination: Destination
    ) -> None:
        assert "?" not in store.name
        assert "@" not in store.name
        assert not any(value in store.name for name, value in destination.env.items() if "KEY" in name)

    def test_closing_twice_is_no_error(
        self, destination: Destination, environment: None, key: ObjectKey
    ) -> None:
        store = open_destination(destination.url)
        store.stat(key)

        store.close()
        store.close()


# -- helpers; free functions, so that they cannot be overridden either


def put(
    store: StorageBackend,
    key: ObjectKey,
    data: bytes | bytearray | memoryview,
    *,
    content_type: str = "application/octet-stream",
    metadata: Mapping[str, str] | None = None,
    if_absent: bool = False,
    if_match: str | None = None,
) -> ObjectInfo:
    spec = ObjectSpec(
        key, content_type, len(data), metadata=metadata or {}, if_absent=if_absent, if_match=if_match
    )
    return store.put(spec, data, crc32c_of(data))


def copies_objects(store: StorageBackend) -> CopiesObjects | None:
    """The store as one that copies by itself; None where it does not offer that (storage_backends/optional.py)."""
    return cast("CopiesObjects", store) if getattr(store, "copy_from", None) else None


def abort_stale_uploads(store: StorageBackend, older_than: timedelta) -> int:
    """0 where the backend does not offer it (storage_backends/optional.py)."""
    abort: Callable[[timedelta], int] | None = getattr(store, "abort_stale_uploads", None)
    return 0 if abort is None else abort(older_than)


def removes_stale_uploads(store: StorageBackend) -> bool | None:
    ask: Callable[[], bool | None] | None = getattr(store, "removes_stale_uploads", None)
    return None if ask is None else ask()


def etag_of(store: StorageBackend, key: ObjectKey) -> str:
    info = store.stat(key)
    assert info is not None
    assert info.etag is not None
    return info.etag


def part_bytes(store: StorageBackend) -> int:
    """Return the smallest part size that the store accepts, at least 4 KiB, so that the suite is fast."""
    limits = store.limits
    least = max(limits.min_part_bytes, 4096)
    return -(-least // limits.part_multiple_bytes) * limits.part_multiple_bytes


def sample(store: StorageBackend, parts: int) -> bytes:
    """`parts` full parts and a short last one."""
    return content(parts * part_bytes(store) + 777)


def upload_spec(store: StorageBackend, key: ObjectKey, data: bytes, *, if_absent: bool = False) -> ObjectSpec:
    return ObjectSpec(key, "video/mp4", len(data), part_bytes(store), {"room": "r1"}, if_absent)


@dataclass(frozen=True)
class Piece:
    number: int
    data: bytes
    crc32c: int


def pieces(upload: Upload, data: bytes) -> Iterator[Piece]:
    size = upload.spec.part_bytes
    for number, start in enumerate(range(0, len(data), size), start=1):
        piece = data[start : start + size]
        yield Piece(number, piece, crc32c_of(piece))


def put_parts(upload: Upload, data: bytes) -> list[Part]:
    return [upload.put_part(piece.number, piece.data, piece.crc32c) for piece in pieces(upload, data)]


@dataclass(frozen=True)
class Journal:
    token: str
    parts: Mapping[int, Part]


def killed_after_three_parts(destination: Destination, spec: ObjectSpec) -> Journal:
    """Return the journal of a worker that began `spec`, sent three parts, and got a SIGKILL."""
    arguments = [destination.url, spec.key, str(spec.size_bytes), str(spec.part_bytes)]
    path = os.pathsep.join([str(ROOT), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contracts.interrupted_upload", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **destination.env, "PYTHONPATH": path},
        text=True,
    ) as worker:
        try:
            assert worker.stdout is not None
            token, parts = read_journal(worker.stdout)
        finally:
            worker.kill()
    assert worker.returncode == -9, "it was to be killed in the middle"
    return Journal(token, parts)

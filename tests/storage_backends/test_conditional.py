"""Conditional writes on stores that support conditions, ignore them, refuse them, or get them wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from storage_backends.base import (
    Buffer,
    Limits,
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
    StorageBackend,
    object_key,
)
from storage_backends.conditional import Conditions, replace_if
from storage_backends.crc32c import crc32c_of
from storage_backends.equal import found_equal
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    ObjectChanged,
    ObjectExists,
    StorageError,
    TransientStorageError,
)
from storage_backends.filesystem import FilesystemBackend
from storage_backends.memory import MemoryBackend
from tests.transfer.stores import NoChecksumStore, Wrapped

KEY = object_key("manifests/2026/01/01/a.json")


class Unconditional(Wrapped):
    """A third-party backend written before there were conditions: it ignores both."""

    @property
    def limits(self) -> Limits:
        return replace(self.inner.limits, conditional_create=False, conditional_replace=False)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        return super().put(replace(spec, if_absent=False, if_match=None), data, crc32c)


class Nameless(Unconditional):
    """The same, without etags."""

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        info = super().stat(key)
        return info and replace(info, etag=None)


class WriteOnce(Wrapped):
    """Retention, WORM, or no right to delete: an object can be made and never replaced."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        if self.stat(spec.key) is not None:
            raise AccessDenied(f"storing {spec.key}: 403 retentionPolicyNotMet")
        return super().put(spec, data, crc32c)


class LosesAnswers(Wrapped):
    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        super().put(spec, data, crc32c)
        raise TransientStorageError("the connection was reset")


def memory() -> StorageBackend:
    return MemoryBackend("tests")


STORES: list[Callable[[], StorageBackend]] = [
    memory,
    lambda: NoChecksumStore(memory()),
    lambda: Unconditional(memory()),
    lambda: Nameless(memory()),
]


def write(store: StorageBackend, data: bytes, expected: ObjectInfo | None) -> ObjectInfo:
    return replace_if(store, ObjectSpec(KEY, "application/json", len(data)), data, crc32c_of(data), expected)


@pytest.fixture(params=STORES, ids=["memory", "without checksums", "without conditions", "without etags"])
def store(request: pytest.FixtureRequest) -> StorageBackend:
    made: StorageBackend = request.param()
    return made


# -- replace_if


def test_what_is_expected_is_replaced(store: StorageBackend) -> None:
    write(store, b"first", None)

    write(store, b"second", store.stat(KEY))

    assert store.read(KEY) == b"second"


@pytest.mark.parametrize("there", [None, b"theirs"])
def test_what_is_not_expected_is_left(store: StorageBackend, there: bytes | None) -> None:
    write(store, b"first", None)
    expected = store.stat(KEY)
    store.delete(KEY)
    if there is not None:
        write(store, there, None)

    with pytest.raises(ObjectChanged):
        write(store, b"ours", expected)

    assert (None if store.stat(KEY) is None else store.read(KEY)) == there


def test_nothing_is_expected_and_something_is_there(store: StorageBackend) -> None:
    write(store, b"theirs", None)

    with pytest.raises(ObjectChanged):
        write(store, b"ours", None)

    assert store.read(KEY) == b"theirs"


def test_the_same_content_is_success_whoever_wrote_it(store: StorageBackend) -> None:
    write(store, b"first", None)
    expected = store.stat(KEY)
    write(store, b"ours", expected)

    assert write(store, b"ours", expected).size_bytes == 4
    assert write(store, b"ours", None).size_bytes == 4


def test_an_answer_that_was_lost_is_made_good_by_writing_again(store: StorageBackend) -> None:
    write(store, b"first", None)
    expected = store.stat(KEY)
    with pytest.raises(TransientStorageError):
        write(LosesAnswers(store), b"ours", expected)

    assert write(store, b"ours", expected).size_bytes == 4


def test_where_nothing_may_be_replaced_the_same_content_is_success(store: StorageBackend) -> None:
    write(store, b"first", None)
    worm = WriteOnce(store)

    assert write(worm, b"first", store.stat(KEY)).size_bytes == 5
    with pytest.raises(AccessDenied):
        write(worm, b"other", store.stat(KEY))


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_of_several_who_expect_the_same_exactly_one_wins(kind: str, tmp_path: Path) -> None:
    store: StorageBackend = memory() if kind == "memory" else FilesystemBackend(tmp_path / "archive")
    start = threading.Barrier(6)

    def attempt(expected: ObjectInfo | None, data: bytes) -> bool:
        start.wait(timeout=10)
        for _ in range(1000):
            with suppress(TransientStorageError):  # another one is writing
                try:
                    write(store, data, expected)
                except ObjectChanged:
                    return False
                return True
        raise AssertionError("it never had its turn")

    with ThreadPoolExecutor(6) as pool:
        for round_ in range(20):
            data = [b"%d by %d" % (round_, number) for number in range(6)]
            expected = store.stat(KEY)
            won = list(pool.map(lambda mine, e=expected: attempt(e, mine), data))

            assert won.count(True) == 1
            assert store.read(KEY) == data[won.index(True)]


# -- found_equal


@pytest.mark.parametrize(
    ("data", "equal"), [(b"hello", True), (b"hellO", False), (b"hello!", False), (b"", False)]
)
def test_equal_is_size_and_content(store: StorageBackend, data: bytes, equal: bool) -> None:
    write(store, b"hello", None)

    assert (found_equal(store, KEY, len(data), crc32c_of(data)) is not None) is equal


def test_nothing_is_equal_to_what_is_not_there(store: StorageBackend) -> None:
    assert found_equal(store, KEY, 0, 0) is None


# -- Conditions


class Server:
    """One key. `knows`: how it treats a condition: honours, ignores or inverts it, or raises `refuses` for any."""

    def __init__(self, knows: str, refuses: StorageError | None = None) -> None:
        self.knows, self.refuses = knows, refuses
        self.etag: str | None = "one"
        self.requests: list[object] = []
        self.conditions = Conditions()

    def look(self) -> str | None:
        self.requests.append("look")
        return self.etag

    def create(self) -> None:
        self.conditions.create(lambda: self.look() is not None, self._create, "storing")

    def _create(self, condition: bool) -> None:
        self._send(condition, ObjectExists("412"), holds=self.etag is None)

    def replace(self, expected: str) -> None:
        self.conditions.replace(expected, self.look, self._replace, "never", "replacing")

    def _replace(self, condition: str | None) -> None:
        self._send(condition or False, ObjectChanged("412"), holds=self.etag == condition)

    def _send(self, condition: object, lost: StorageError, *, holds: bool) -> None:
        self.requests.append(condition)
        if condition and self.refuses is not None:
            raise self.refuses
        if condition and ((self.knows == "honours" and not holds) or self.knows == "always 412"):
            raise lost
        self.etag = "two"


REFUSALS = {
    "400 InvalidArgument": StorageError("400 InvalidArgument"),
    "405": StorageError("405 MethodNotAllowed"),
    "411": StorageError("411 MissingContentLength"),
    "501": StorageError("501 NotImplemented"),
    "403": AccessDenied("403 by a firewall that does not like the header"),
}
WITHOUT = ["ignores", "always 412", *REFUSALS]


def server(knows: str) -> Server:
    return Server(knows, REFUSALS.get(knows))


@pytest.mark.parametrize("knows", ["honours", *WITHOUT])
def test_an_expected_object_is_replaced_on_every_store(knows: str) -> None:
    there = server(knows)

    there.replace("one")

    assert there.etag == "two"
    assert there.conditions.replaces is (knows == "honours")


@pytest.mark.parametrize("knows", ["honours", *WITHOUT])
def test_another_object_is_not_replaced_on_any_store(knows: str) -> None:
    there = server(knows)
    there.replace("one")

    with pytest.raises(ObjectChanged):
        there.replace("one")
    with pytest.raises(ObjectChanged):
        server(knows).replace("another")


@pytest.mark.parametrize("knows", ["honours", *WITHOUT])
def test_an_absent_object_is_created_on_every_store(knows: str) -> None:
    there = server(knows)
    there.etag = None

    there.create()
    with pytest.raises(ObjectExists):
        there.create()

    assert there.etag == "two"


def test_a_store_that_was_seen_to_compare_is_not_checked_first() -> None:
    there = server("honours")
    there.replace("one")
    assert there.requests == ["look", "never", "one"]

    there.replace("two")

    assert there.requests == ["look", "never", "one", "two"]


def test_a_store_that_ignored_a_wrong_condition_is_never_relied_on() -> None:
    there = server("ignores")
    there.replace("one")
    assert there.requests == ["look", "never"], "what it took was the write itself"

    there.replace("two")

    assert there.requests == ["look", "never", "look", False]


def test_a_store_that_refuses_conditions_is_sent_one_once() -> None:
    there = server("501")
    there.etag = None

    there.create()
    there.etag = None
    there.create()

    assert there.requests == ["look", True, False, "look", False]


def test_a_trusted_store_that_refuses_conditions_later_is_looked_at_before_it_is_written() -> None:
    there = server("honours")
    there.replace("one")
    there.refuses = REFUSALS["501"]

    with pytest.raises(ObjectChanged):
        there.replace("another")
    assert there.requests[-1] == "look"


@pytest.mark.parametrize("error", [TransientStorageError("503"), ChecksumRejected("400 BadDigest")])
def test_a_fault_teaches_nothing_about_conditions(error: StorageError) -> None:
    there = Server("honours", error)

    with pytest.raises(type(error)):
        there.replace("one")
    there.refuses = None
    there.replace("one")

    assert there.conditions.replaces


def test_a_refusal_that_is_not_about_the_condition_stays_one() -> None:
    class Denied(Server):
        def _send(self, condition: object, lost: StorageError, *, holds: bool) -> None:
            raise AccessDenied("403")

    there = Denied("honours")
    with pytest.raises(AccessDenied):
        there.replace("one")

    assert not there.conditions.replaces

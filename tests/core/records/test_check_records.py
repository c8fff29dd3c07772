"""The record of the checks, as it lies in the bucket."""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.core.records.check_records import (
    KEPT,
    TOLERANCE,
    Check,
    Checks,
    Mark,
    Records,
    read_records,
    tag_of,
    write_records,
)
from archiver.core.records.keys import CHECKS
from storage_backends.base import ObjectInfo, ObjectKey, object_key
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.archived import put
from tests.core.examples import NOW

AT = int(NOW.timestamp())
KEY = object_key("manifests/2026/03/01/6400c0d3e1b2a3c4d5e6f708.json")
OTHER = object_key("manifests/undated/another.json")
CHECK = Check(
    tag=0xDEADBEEF, checked_at=AT, read_at=AT - 5, read_by=AT + 9, size_bytes=2**40, marks=Mark.COLD
)


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend("one")


def records(**checks: Check) -> Records:
    found = Checks()
    for name, check in checks.items():
        found.put(KEY if name == "key" else OTHER, check)
    return Records(checks=found)


def stored(store: MemoryBackend) -> list[ObjectKey]:
    return sorted(info.key for info in store.list(CHECKS))


def test_check_records_are_read_as_written(store: MemoryBackend) -> None:
    new = Check(tag=1, checked_at=AT)
    write_records(store, Records(records(key=CHECK, other=new).checks, allowance_bytes=-7), NOW)

    read = read_records(store, NOW + timedelta(days=1))

    assert dict(read.checks.items()) == {KEY: CHECK, OTHER: new}
    assert (read.listed_at, read.allowance_bytes) == (NOW, -7)


def test_the_object_is_found_by_its_day_and_is_plain_lines(store: MemoryBackend) -> None:
    key = write_records(store, records(key=CHECK), NOW)

    assert key.startswith("checks/2026/03/01-120000-")
    head, line, end = gzip.decompress(store.read(key)).splitlines()
    assert b'"archiver.checks/1"' in head
    assert line.startswith(b'["2026/03/01/6400c0d3e1b2a3c4d5e6f708.json",')
    assert end == b'{"copies":1}'


def test_without_any_record_nothing_is_known(store: MemoryBackend) -> None:
    read = read_records(store, NOW)

    assert read.listed_at is None
    assert len(read.checks) == 0


def test_only_a_few_objects_are_kept(store: MemoryBackend) -> None:
    days = [write_records(store, records(key=CHECK), NOW + timedelta(days=day)) for day in range(40)]

    assert stored(store) == days[-KEPT:]


def test_other_objects_in_the_folder_are_never_deleted(store: MemoryBackend) -> None:
    others = [f"{CHECKS}2026/03/01-notes.jsonl.gz", f"{CHECKS}2026/asset/movie.mp4", f"{CHECKS}x"]
    for other in others:
        put(store, other, b"not ours")

    for day in range(10):
        write_records(store, records(key=CHECK), NOW + timedelta(days=day))

    assert set(others) < set(stored(store))


def test_the_newest_are_read_where_nothing_may_be_deleted(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_key: ObjectKey) -> None:
        raise AccessDenied("delete: 403")

    monkeypatch.setattr(store, "delete", refused)
    for day in range(10):
        write_records(store, records(key=replace(CHECK, checked_at=AT + day)), NOW + timedelta(days=day))
    reads: set[ObjectKey] = set()
    read = store.read

    def seen(key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        reads.add(key)
        return read(key, start, length_bytes)

    monkeypatch.setattr(store, "read", seen)

    found = read_records(store, NOW + timedelta(days=10)).checks.get(KEY)

    assert found is not None
    assert found.checked_at == AT + 9
    assert reads == {stored(store)[-1]}


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    return data[:30] + bytes([data[30] ^ 1]) + data[31:]


def _lines(*lines: bytes) -> bytes:
    return gzip.compress(b"\n".join(lines))


HEAD = b'{"schema":"archiver.checks/1","listed_at":1,"allowance":null}'
BROKEN = {
    "cut": _cut,
    "a flipped bit": _flipped,
    "empty": lambda _: b"",
    "no gzip": lambda _: b"hello",
    "another schema": lambda _: _lines(
        b'{"schema":"archiver.checks/9","listed_at":1,"allowance":null}', b'{"copies":0}'
    ),
    "no head": lambda _: _lines(b"[]"),
    "no end": lambda _: _lines(HEAD),
    "a line is missing": lambda _: _lines(HEAD, b'{"copies":3}'),
    "a number too large": lambda _: _lines(HEAD, b'["a.json",1,99999999999,0,0,0,0]', b'{"copies":1}'),
    "a text for a number": lambda _: _lines(HEAD, b'["a.json",1,"x",0,0,0,0]', b'{"copies":1}'),
    "too few fields": lambda _: _lines(HEAD, b'["a.json",1]', b'{"copies":1}'),
    "a key that is none": lambda _: _lines(HEAD, b'["../a.json",1,1,0,0,0,0]', b'{"copies":1}'),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_record_that_is_not_whole_is_ignored_and_the_one_before_it_is_used(
    store: MemoryBackend, broken: object
) -> None:
    assert callable(broken)
    write_records(store, records(key=CHECK), NOW)
    newest = write_records(store, records(key=replace(CHECK, checked_at=AT + 50)), NOW + timedelta(hours=1))
    put(store, newest, broken(store.read(newest)))

    read = read_records(store, NOW + timedelta(days=1))

    assert dict(read.checks.items()) == {KEY: CHECK}


def test_a_check_dated_in_the_future_is_ignored(store: MemoryBackend) -> None:
    ahead = AT + int((2 * TOLERANCE).total_seconds())
    write_records(store, records(key=replace(CHECK, checked_at=ahead), other=CHECK), NOW)

    assert dict(read_records(store, NOW).checks.items()) == {OTHER: CHECK}


def test_records_of_a_clock_that_was_ahead_are_ignored_and_deleted(store: MemoryBackend) -> None:
    for day in range(KEPT):
        write_records(store, records(other=CHECK), NOW + timedelta(days=365 + day))

    today = write_records(store, records(key=CHECK), NOW)

    assert stored(store) == [today]
    assert dict(read_records(store, NOW).checks.items()) == {KEY: CHECK}


def test_a_manifest_that_was_replaced_has_another_tag() -> None:
    info = ObjectInfo(KEY, 100, etag="inode 7", updated_at=NOW)

    assert tag_of(info) == tag_of(replace(info, etag="inode 8")), "mounted again"
    later, longer = replace(info, updated_at=NOW + timedelta(milliseconds=1)), replace(info, size_bytes=99)
    assert len({tag_of(info), tag_of(later), tag_of(longer)}) == 3


def test_without_a_time_the_etag_identifies_a_manifest() -> None:
    info = ObjectInfo(KEY, 100, etag="one")

    assert tag_of(info) != tag_of(replace(info, etag="two"))


def test_a_record_larger_than_one_read_is_read_whole(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.core.records.check_records._READ_BYTES", 100)
    many = Checks()
    for number in range(3000):
        many.put(object_key(f"manifests/undated/{number * 7919:x}.json"), replace(CHECK, tag=number))
    write_records(store, Records(many), NOW)

    assert dict(read_records(store, NOW).checks.items()) == dict(many.items())

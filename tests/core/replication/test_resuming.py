"""A large object whose replication was killed is resumed after the parts that are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from archiver.core.records.verify import verify_contents
from archiver.core.replication.repairer import Result
from archiver.hms.models import Asset
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectSpec, StorageBackend
from storage_backends.filesystem.backend import FilesystemBackend
from storage_backends.registry import open_destination
from tests.core.replication.harness import WHOLE, ReplicationHarness, Store
from tests.servers import S3Server, ministack_server, moto_server  # noqa: F401 # fixtures

MIB = 2**20
PART = 5 * MIB
BODY = b"".join(bytes([n]) * MIB for n in range(23))  # four parts of 5 MiB, and one of 3
FILES = {"movie.mp4": BODY}


class Killed(BaseException):
    """The process is gone: nothing is cleaned up."""


class Counted:
    """Counts what is read of large objects, and sent in parts. Killed after `allowed` parts."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, source: StorageBackend, target: StorageBackend
    ) -> None:
        self.read_bytes = self.sent_bytes = 0
        self.allowed = 10**6
        self._run = 0
        read, begin, resume = source.read, target.begin, target.resume

        def counting_read(key: str, *arguments: Any, **options: Any) -> bytes:
            run = self._run
            data = read(cast(Any, key), *arguments, **options)
            if key.endswith(".mp4") and run == self._run:  # else a thread of the killed run is still at it
                self.read_bytes += len(data)
            return data

        monkeypatch.setattr(source, "read", counting_read)
        monkeypatch.setattr(target, "begin", lambda spec: self._counting(begin(spec)))
        monkeypatch.setattr(target, "resume", lambda spec, token: self._counting(resume(spec, token)))

    def _counting(self, upload: Any) -> Any:
        counts = self

        class Counting:
            def __getattr__(self, name: str) -> Any:
                if name == "send_part":
                    raise AttributeError(name)
                return getattr(upload, name)

            def put_part(self, number: int, data: Any, crc32c: int) -> Any:
                if not counts.allowed:
                    raise Killed
                counts.allowed -= 1
                counts.sent_bytes += len(data)
                return upload.put_part(number, data, crc32c)

            def abort(self) -> None:
                if counts.allowed:
                    upload.abort()

        return Counting()

    def again(self) -> None:
        self._run += 1
        self.read_bytes = self.sent_bytes = 0
        self.allowed = 10**6


Ways = Callable[[str], StorageBackend]


@pytest.fixture
def opened(
    tmp_path: Path,
    ministack_server: S3Server,  # noqa: F811
    moto_server: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Ways]:
    for name, value in ministack_server.env.items():
        monkeypatch.setenv(name, value)
    servers = {"one server": ministack_server, "another server": moto_server}
    with ExitStack() as stack:

        def open_it(kind: str) -> StorageBackend:
            if kind == "a directory":
                (tmp_path / "archive").mkdir()
                store: Any = FilesystemBackend(tmp_path / "archive")
            else:
                server = servers[kind]
                store = open_destination(server.url(server.new_bucket(), "pre/fix"))
            stack.enter_context(closing(store))
            return cast(StorageBackend, store)

        yield open_it


def killed(
    monkeypatch: pytest.MonkeyPatch, source: StorageBackend, target: StorageBackend, parts: int = 2
) -> tuple[ReplicationHarness, Asset, Counted]:
    """After so many parts, and its lease is over."""
    harness = ReplicationHarness(*cast(Any, [source, target]))
    harness.part_bytes = harness.repairer._read_bytes = PART
    made = harness.archive(files=FILES)
    counted = Counted(monkeypatch, source, target)
    counted.allowed = parts
    with pytest.raises(Killed):
        harness.repair(made)
    assert counted.sent_bytes == parts * PART
    harness.clock.advance(timedelta(minutes=3))
    counted.again()
    return harness, made, counted


def is_whole(harness: ReplicationHarness, store: StorageBackend, made: Asset) -> bool:
    manifest = harness.manifest(cast(Any, store), made)
    assert manifest is not None
    (item,) = manifest.objects
    return verify_contents(store, manifest).ok and store.read(manifest.key_of(item)) == BODY


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a directory", "another server"),
        ("another server", "a directory"),
        ("one server", "another server"),
    ],
)
def test_only_what_is_not_stored_is_read_and_sent(
    opened: Ways, monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    one, two = opened(source), opened(target)
    harness, made, counted = killed(monkeypatch, one, two)

    assert harness.repair(made).result is Result.COPIED

    assert counted.sent_bytes == len(BODY) - 2 * PART
    assert counted.read_bytes <= len(BODY) - 2 * PART + 64 * 1024  # its first bytes are looked at again
    assert harness.copies(made) == [WHOLE, WHOLE]
    assert is_whole(harness, two, made)


def test_a_source_object_that_was_replaced_is_read_whole(
    opened: Ways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same bytes, but nobody can know that without reading them."""
    one, two = opened("a directory"), opened("another server")
    harness, made, counted = killed(monkeypatch, one, two)
    (movie,) = (tmp_path / "archive").rglob("movie.mp4")
    copy = movie.with_name("copy")
    copy.write_bytes(BODY)
    copy.replace(movie)

    assert harness.repair(made).result is Result.COPIED

    assert counted.sent_bytes == len(BODY)
    assert is_whole(harness, two, made)


def test_a_kept_part_that_rotted_is_not_kept(
    opened: Ways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The target says that it holds the part as it was sent."""
    one, two = opened("another server"), opened("a directory")
    harness, made, counted = killed(monkeypatch, one, two)
    (data,) = (path for path in (tmp_path / "archive").rglob("data") if path.is_file())
    with data.open("r+b") as file:
        file.seek(7)
        file.write(b"!")

    assert harness.repair(made).result is Result.COPIED

    assert counted.sent_bytes == len(BODY) - 2 * PART + len(BODY)
    assert harness.copies(made) == [WHOLE, WHOLE]
    assert is_whole(harness, two, made)


def test_a_kept_part_of_other_bytes_is_not_kept(opened: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target says which bytes it holds: they are not those of the manifest."""
    one, two = opened("one server"), opened("another server")
    resume = two.resume
    harness, made, counted = killed(monkeypatch, one, two)
    other = b"!" * PART
    manifest = harness.manifest(cast(Any, one), made)
    assert manifest is not None
    key = manifest.key_of(manifest.objects[0])
    saved = harness.ledger.load_upload(made.id, two.name, key)
    assert saved is not None
    spec = ObjectSpec(key, "video/mp4", len(BODY), PART, media=True)
    resume(spec, saved.token).put_part(1, other, crc32c(other))

    assert harness.repair(made).result is Result.COPIED

    assert counted.sent_bytes >= len(BODY)
    assert harness.copies(made) == [WHOLE, WHOLE]
    assert is_whole(harness, two, made)
    assert harness.ledger.load_upload(made.id, two.name, key) is None


def test_a_damaged_source_is_found_after_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the kept parts, and nothing is committed."""
    one, two = Store("one"), Store("two")
    harness, made, _ = killed(monkeypatch, one, two)
    (key,) = (key for key in one.store.objects if key.endswith(".mp4"))
    whole = one.store.objects[key]
    one.store.objects[key] = replace(whole, data=whole.data[:-1] + b"!")

    assert harness.repair(made).result is not Result.COPIED

    assert harness.manifest(two, made) is None

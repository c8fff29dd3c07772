from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from typing import ClassVar, cast

import pytest

from storage_backends import memory, registry
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import StorageError
from storage_backends.memory import MemoryBackend, Store, StoredObject
from storage_backends.registry import open_destination
from storage_backends.unconditional import with_conditional_reads
from tests.contracts.storage_contract import Destination, StorageContract


class MemorySideDoor:
    def __init__(self, store: Store, prefix: str) -> None:
        self.store, self.prefix = store, prefix

    def stored_keys(self) -> set[str]:
        return {key.removeprefix(self.prefix) for key in self.store.objects if key.startswith(self.prefix)}

    def read(self, key: str) -> bytes:
        return self.store.objects[self.prefix + key].data

    def write(self, key: str, data: bytes) -> None:
        info = ObjectInfo(object_key(key), len(data), crc32c_of(data), "theirs", None, datetime.now(UTC))
        self.store.objects[self.prefix + key] = StoredObject(data, info, {}, "theirs")


CANNOT = {
    "test_another_worker_resumes_what_one_that_was_killed_left": "it lives in one process",
    "test_a_missing_bucket_is_named_as_such": "it is made when it is opened",
    "test_a_refusal_to_write_is_named_as_such": "it refuses nobody",
}


class TestMemory(StorageContract):
    cannot: ClassVar = CANNOT

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls) -> Destination:
        name = f"test-{uuid.uuid4().hex}"
        backend = open_destination(f"memory://{name}/pre/fix")
        assert isinstance(backend, MemoryBackend)
        return Destination(
            f"memory://{name}/pre/fix",
            MemorySideDoor(backend.store, "pre/fix/"),
            sibling_url=f"memory://{name}/pre/fixed",
        )


class OlderBackend:
    """A backend as packages of others were written for release 0.1: only what the contract had then, and errors that
    are a message alone."""

    def __init__(self, backend: MemoryBackend) -> None:
        self.name, self.limits = backend.name, backend.limits
        self.put, self.begin, self.resume = backend.put, backend.begin, backend.resume
        self.stat, self.list, self.delete = backend.stat, backend.list, backend.delete
        self.abort_stale_uploads, self.close = backend.abort_stale_uploads, backend.close
        self._read = backend.read

    def read(self, key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        try:
            return self._read(key, start, length_bytes)
        except StorageError as error:
            raise type(error)(str(error)) from None

    def removes_stale_uploads(self) -> bool | None:
        return None


def open_older(url: DestinationUrl) -> StorageBackend:
    return cast("StorageBackend", OlderBackend(memory.open_backend(replace(url, scheme="memory"))))


class TestOlderBackend(StorageContract):
    cannot: ClassVar = CANNOT

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls) -> Iterator[Destination]:
        name = f"test-{uuid.uuid4().hex}"
        backend = open_destination(f"memory://{name}/pre/fix")
        assert isinstance(backend, MemoryBackend)
        offer = EntryPoint("older", f"{__name__}:open_older", registry.GROUP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, __name__, sys.modules[__name__])
            patch.setattr(registry, "entry_points", lambda **_: [offer])
            yield Destination(
                f"older://{name}/pre/fix",
                MemorySideDoor(backend.store, "pre/fix/"),
                sibling_url=f"older://{name}/pre/fixed",
            )


def test_a_backend_that_reads_conditionally_is_used_as_it_is() -> None:
    backend = MemoryBackend("m")

    assert with_conditional_reads(backend) is backend


def test_an_older_backend_keeps_what_else_it_can_do() -> None:
    older = cast("StorageBackend", OlderBackend(MemoryBackend("m")))

    adapted = with_conditional_reads(older)

    assert adapted is not older
    assert adapted.name == older.name
    assert hasattr(adapted, "removes_stale_uploads")
    assert not hasattr(adapted, "send")


def test_a_read_without_a_condition_costs_an_older_backend_no_stat(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend("m")
    key = object_key("k")
    backend.put(ObjectSpec(key, "a/b"), b"x", crc32c_of(b"x"))
    older = OlderBackend(backend)
    monkeypatch.setattr(older, "stat", lambda _: pytest.fail("it was asked"))

    assert with_conditional_reads(cast("StorageBackend", older)).read(key) == b"x"

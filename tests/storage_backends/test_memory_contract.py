from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from storage_backends.base import ObjectInfo, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.memory import MemoryBackend, Store, StoredObject
from storage_backends.registry import open_destination
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


class TestMemory(StorageContract):
    cannot: ClassVar = {
        "test_another_worker_resumes_what_one_that_was_killed_left": "it lives in one process",
        "test_a_missing_bucket_is_named_as_such": "it is made when it is opened",
        "test_a_refusal_to_write_is_named_as_such": "it refuses nobody",
    }

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

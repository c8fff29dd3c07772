"""The fields of StorageError: on errors of ours, and on those of backends that know none of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from storage_backends import errors
from storage_backends.base import ObjectSpec, Part, StorageBackend, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import StorageError, TransientStorageError
from storage_backends.filesystem import FilesystemBackend
from storage_backends.memory import MemoryBackend
from storage_backends.operation import Operation

KEY = object_key("recordings/one.mp4")
DATA = b"hello"
CRC = crc32c_of(DATA)
SPEC = ObjectSpec(KEY, "video/mp4", len(DATA), part_bytes=len(DATA))

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StorageError)]

FAILING: dict[str, Callable[[StorageBackend], object]] = {
    "put": lambda store: store.put(SPEC, DATA, CRC ^ 1),
    "resume": lambda store: store.resume(SPEC, "0" * 32),
    "read": lambda store: store.read(KEY),
    "put_part": lambda store: store.begin(SPEC).put_part(1, DATA, CRC ^ 1),
    "complete": lambda store: store.begin(SPEC).complete([Part(1, len(DATA), CRC, f"{CRC:08x}")], CRC),
}


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StorageBackend:
    return MemoryBackend("m") if request.param == "memory" else FilesystemBackend(tmp_path / "archive")


@pytest.mark.parametrize("operation", FAILING)
def test_an_error_names_its_store_key_and_operation(store: StorageBackend, operation: str) -> None:
    with pytest.raises(StorageError) as caught:
        FAILING[operation](store)

    error = caught.value
    assert (error.store, error.key) == (store.name, KEY)
    assert error.operation == ("parts" if operation == "resume" else operation)


def test_errors_of_the_disk_name_their_store_key_and_operation(tmp_path: Path) -> None:
    store = FilesystemBackend(tmp_path / "no parent" / "archive")

    with pytest.raises(errors.BucketMissing) as caught:
        store.stat(KEY)

    assert (caught.value.store, caught.value.key, caught.value.operation) == (store.name, KEY, "stat")


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_alone_is_an_error_whose_fields_are_unknown(kind: type[StorageError]) -> None:
    error = kind("text")

    assert str(error) == "text"
    assert (error.store, error.key, error.operation, error.status, error.retry_after) == (None,) * 5


def test_a_foreign_class_that_knows_no_fields_has_them_all_the_same() -> None:
    class Foreign(StorageError):
        def __init__(self, text: str) -> None:
            Exception.__init__(self, text)

    error = Foreign("text")

    assert (error.store, error.retry_after) == (None, None)
    with pytest.raises(Foreign), Operation("put", "foreign://x", "k", "storing"):
        raise error
    assert (error.store, error.key, error.operation) == ("foreign://x", "k", "put")


def test_the_innermost_operation_is_the_one_that_failed() -> None:
    outer, inner = Operation("put", "s3://b", "k", "storing"), Operation("list", "s3://b", None, "listing")

    with pytest.raises(StorageError) as caught, outer, inner:
        raise StorageError("text")

    assert (caught.value.operation, caught.value.key) == ("list", "k")


def test_a_foreign_exception_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), Operation("put", "s3://b", "k", "storing"):
        _ = 1 / 0


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_fields_are_copied_and_pickled(again: Callable[[StorageError], StorageError]) -> None:
    error = TransientStorageError("busy", store="s3://b", status=503, retry_after=timedelta(seconds=7))

    other = again(error)

    assert (str(other), other.store, other.status, other.retry_after) == (
        "busy",
        "s3://b",
        503,
        timedelta(seconds=7),
    )

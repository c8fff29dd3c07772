"""Copies within a storage account keep what proves their checksum, and wait for a service that takes its time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobClient

from storage_backends.azure.backend import AzureBackend
from storage_backends.azure.settings import settings_of
from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.destination_url import parse_destination
from storage_backends.errors import TransientStorageError
from tests.servers import AzuriteServer

KEY, DATA = object_key("recordings/movie.mp4"), b"moov" * 1000
SPEC = ObjectSpec(KEY, "video/mp4", len(DATA), media=True)


class Stop(BaseException):
    pass


@pytest.fixture
def stores(
    azurite_server: AzuriteServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[AzureBackend, AzureBackend, list[float]]]:
    for name, value in azurite_server.env.items():
        monkeypatch.setenv(name, value)
    slept: list[float] = []
    urls = [azurite_server.url(azurite_server.new_bucket(), prefix) for prefix in ("one", "two")]
    one, two = (AzureBackend(settings_of(parse_destination(url)), sleep=slept.append) for url in urls)
    with contextlib.closing(one), contextlib.closing(two):
        yield one, two, slept


def test_a_copy_is_known_by_its_checksum_without_being_read(
    stores: tuple[AzureBackend, AzureBackend, list[float]],
) -> None:
    one, two, _ = stores
    blocks = object_key("recordings/blocks.mp4")
    one.put(SPEC, DATA, crc32c_of(DATA))
    upload = one.begin(ObjectSpec(blocks, "video/mp4", part_bytes=2000))
    parts = [
        upload.put_part(n + 1, DATA[at : at + 2000], crc32c_of(DATA[at : at + 2000]))
        for n, at in enumerate((0, 2000))
    ]
    upload.complete(parts, crc32c_of(DATA))

    small = two.copy_from(one.place(), KEY, SPEC, crc32c_of(DATA))
    large = two.copy_from(one.place(), blocks, SPEC, crc32c_of(DATA))

    assert one.place().store == two.place().store
    assert (small.crc32c, large.crc32c) == (crc32c_of(DATA), crc32c_of(DATA))
    assert two.read(KEY) == DATA


@pytest.mark.parametrize(("status", "error"), [("pending", None), ("failed", "ended the copy as failed")])
def test_a_copy_that_takes_its_time_is_waited_for(
    stores: tuple[AzureBackend, AzureBackend, list[float]],
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    error: str | None,
) -> None:
    one, two, slept = stores
    one.put(SPEC, DATA, crc32c_of(DATA))
    begin = BlobClient.start_copy_from_url

    def begun(*arguments: Any, **options: Any) -> Any:
        return {**begin(*arguments, **options), "copy_status": status}

    monkeypatch.setattr(BlobClient, "start_copy_from_url", begun)

    if error is None:
        assert two.copy_from(one.place(), KEY, SPEC, crc32c_of(DATA)).size_bytes == len(DATA)
        assert slept == [2.0]
    else:
        with pytest.raises(TransientStorageError, match=error):
            two.copy_from(one.place(), KEY, SPEC, crc32c_of(DATA))


def test_a_run_that_is_stopped_ends_the_copy(
    stores: tuple[AzureBackend, AzureBackend, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = stores
    one.put(SPEC, DATA, crc32c_of(DATA))
    ended: list[str] = []
    monkeypatch.setattr(
        BlobClient, "start_copy_from_url", lambda *_a, **_o: {"copy_status": "pending", "copy_id": "id"}
    )
    monkeypatch.setattr(BlobClient, "abort_copy", lambda _self, copy_id, **_o: ended.append(copy_id))
    calls = iter([None])

    def between() -> None:
        if next(calls, Stop) is Stop:
            raise Stop

    with pytest.raises(Stop):
        two.copy_from(one.place(), KEY, SPEC, crc32c_of(DATA), between=between)

    assert ended == ["id"]

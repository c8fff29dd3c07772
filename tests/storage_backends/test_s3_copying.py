"""Copies of large objects within S3, part by part, against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import cast

import pytest

from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.registry import open_destination
from storage_backends.s3 import copying
from storage_backends.s3.backend import S3Backend
from tests.contracts.storage_contract import put
from tests.servers import S3Server

MIB = 2**20
DATA = b"0123456789abcdef" * (11 * MIB // 16 + 1)
KEY, COPY = object_key("a.mp4"), object_key("b.mp4")
SPEC = ObjectSpec(COPY, "video/mp4", len(DATA))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "COPY_ONCE_BYTES", MIB)
    monkeypatch.setattr(copying, "PART_BYTES", 5 * MIB)


@pytest.fixture(params=["ministack_server", "moto_server"])
def stores(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[S3Backend, S3Backend]]:
    """Two buckets of one server."""
    server: S3Server = request.getfixturevalue(request.param)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    opened = [cast(S3Backend, open_destination(server.url(server.new_bucket(), name))) for name in ("a", "b")]
    with closing(opened[0]), closing(opened[1]):
        yield opened[0], opened[1]


def test_a_large_object_is_copied_part_by_part_from_another_bucket(
    stores: tuple[S3Backend, S3Backend],
) -> None:
    one, two = stores
    put(one, KEY, DATA)
    parts: list[None] = []

    info = two.copy_from(one.place(), KEY, SPEC, crc32c_of(DATA), between=lambda: parts.append(None))

    assert (info.size_bytes, info.content_type) == (len(DATA), "video/mp4")
    assert two.read(COPY) == DATA
    assert parts


def test_nothing_is_left_of_a_copy_that_is_ended_in_between(stores: tuple[S3Backend, S3Backend]) -> None:
    one, two = stores
    put(one, KEY, DATA)
    calls = iter([None, KeyboardInterrupt()])

    def end() -> None:
        if error := next(calls):
            raise error

    with pytest.raises(KeyboardInterrupt):
        two.copy_from(one.place(), KEY, SPEC, crc32c_of(DATA), between=end)

    assert two.stat(COPY) is None
    client = two._bucket.client
    assert not client.list_multipart_uploads(Bucket=two._bucket.bucket).get("Uploads")


def test_only_places_of_one_server_are_the_same_store(
    ministack_server: S3Server, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ministack_server.env.items():
        monkeypatch.setenv(name, value)
    urls = [
        ministack_server.url("one"),
        ministack_server.url("two"),
        moto_server.url("one"),
        "s3://one?region=eu-west-1",
        "s3://two?region=us-east-1",
    ]

    places = [cast(S3Backend, open_destination(url)).place().store for url in urls]

    assert places[0] == places[1] != places[2]
    assert places[3] == places[4] == "s3 AWS"

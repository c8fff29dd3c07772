"""Between two real S3 servers, and within one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, cast

import pytest

from archiver.core.records import keys
from archiver.core.records.verify import verify_contents
from archiver.core.replication.repairer import Result
from storage_backends.base import StorageBackend
from storage_backends.registry import open_destination
from tests.core.replication.harness import WHOLE, ReplicationHarness
from tests.servers import S3Server, ministack_server, moto_server  # noqa: F401 # fixtures

MIB = 2**20
FILES = {"movie.mp4": bytes(range(256)) * (13 * MIB // 256), "a b.ts": b"s" * 30, "index.m3u8": b"#EXTM3U\n"}


@pytest.fixture(params=["another server", "the same server"])
def stores(
    request: pytest.FixtureRequest,
    ministack_server: S3Server,  # noqa: F811
    moto_server: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[list[StorageBackend]]:
    for name, value in ministack_server.env.items():
        monkeypatch.setenv(name, value)
    second = moto_server if request.param == "another server" else ministack_server
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(open_destination(server.url(server.new_bucket(), "pre/fix"))))
            for server in (ministack_server, second)
        ]


def test_every_byte_arrives(stores: list[StorageBackend]) -> None:
    harness = ReplicationHarness(*cast(Any, stores))
    harness.part_bytes = harness.repairer._read_bytes = 5 * MIB
    made = harness.archive(files=FILES)

    repaired = harness.repair(made)

    assert repaired.result is Result.COPIED, repaired.reason
    manifest = harness.manifest(cast(Any, stores[1]), made)
    assert manifest is not None
    assert verify_contents(stores[1], manifest).ok
    assert stores[1].read(keys.manifest_key(made.id, made.created_at))
    assert harness.copies(made) == [WHOLE, WHOLE]

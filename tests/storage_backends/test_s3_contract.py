"""The contract on several S3 servers. What each gets wrong is in `cannot`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import pytest

from storage_backends.base import StorageBackend
from storage_backends.registry import open_destination
from tests.contracts.storage_contract import Destination, StorageContract
from tests.servers import S3Server
from tests.storage_backends.side_doors import S3SideDoor

REFUSES_NOBODY = {"test_a_refusal_to_write_is_named_as_such": "the test server takes any credentials"}
RCLONE = {
    "test_an_upload_is_proved_by_the_store": "its ETag of an upload is no digest of the parts'",
    "test_of_a_part_sent_twice_the_last_counts": "it streams parts on and answers 501",
    "test_of_several_puts_if_absent_at_once_exactly_one_wins": "the server ignores If-None-Match",
}


@contextlib.contextmanager
def destination_on(server: S3Server) -> Iterator[Destination]:
    bucket = server.new_bucket()
    with contextlib.closing(server.client()) as client:
        yield Destination(
            server.url(bucket, "pre/fix"),
            S3SideDoor(client, bucket, "pre/fix/"),
            env=server.env,
            missing_url=server.url("no-such-bucket", "prefix"),
            refused=lambda: refusing(server, bucket),
            sibling_url=server.url(bucket, "pre/fixed"),
        )


@contextlib.contextmanager
def refusing(server: S3Server, bucket: str) -> Iterator[StorageBackend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "notakeythatisknown")
        with contextlib.closing(open_destination(server.url(bucket))) as backend:
            yield backend


class TestMinistack(StorageContract):
    cannot: ClassVar = REFUSES_NOBODY

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, ministack_server: S3Server) -> Iterator[Destination]:
        with destination_on(ministack_server) as destination:
            yield destination


class TestMoto(StorageContract):
    cannot: ClassVar = REFUSES_NOBODY | {
        "test_an_aborted_upload_takes_no_more_parts": "it answers 500",
        "test_an_aborted_upload_cannot_be_completed": "it answers 500",
        "test_stale_uploads_end": "it answers 500",
        "test_young_uploads_are_left_alone": "it says that every upload began in 2010",
        "test_of_several_puts_if_absent_at_once_exactly_one_wins": "sometimes two win: it looks, and then stores",
    }

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, moto_server: S3Server) -> Iterator[Destination]:
        with destination_on(moto_server) as destination:
            yield destination


class TestRclone(StorageContract):
    cannot: ClassVar = RCLONE

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, rclone_server: S3Server) -> Iterator[Destination]:
        with destination_on(rclone_server) as destination:
            yield destination


class TestRcloneBehindTls(StorageContract):
    cannot: ClassVar = RCLONE

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, rclone_tls_server: S3Server) -> Iterator[Destination]:
        with destination_on(rclone_tls_server) as destination:
            yield destination

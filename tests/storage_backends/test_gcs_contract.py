"""The contract over GCS: on fake-gcs-server, and on a server of our own that follows Google's documentation where that
one does not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import pytest

from storage_backends.base import StorageBackend
from storage_backends.gcs import GcsBackend
from tests.contracts.storage_contract import Destination, StorageContract
from tests.gcs_by_the_book import Service, gcs_by_the_book
from tests.servers import GcsServer
from tests.storage_backends.side_doors import GcsSideDoor

SEQUENTIAL = {
    "test_parts_can_be_sent_at_once_in_any_order": "a session is sequential",
    "test_of_a_part_sent_twice_the_last_counts": "a session keeps what came first; the checksum tells at the end",
}


class TestGcs(StorageContract):
    cannot: ClassVar = SEQUENTIAL | {
        "test_a_part_may_be_sent_twice": "fake-gcs-server appends it again",
        "test_another_worker_cannot_go_on_with_an_aborted_upload": "fake-gcs-server goes on with a deleted session",
        "test_an_upload_if_absent_does_not_replace_what_appeared_meanwhile": (
            "fake-gcs-server ignores conditions on sessions"
        ),
        "test_a_refusal_to_write_is_named_as_such": "fake-gcs-server takes everybody",
        "test_a_read_if_match_of_another_object_says_so": (
            "sometimes fake-gcs-server ignores conditions on reads: where bytes come, not where there are none"
        ),
    }

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, gcs_server: GcsServer) -> Destination:
        bucket = gcs_server.new_bucket()
        return Destination(
            gcs_server.url(bucket, "pre/fix"),
            GcsSideDoor(gcs_server.endpoint_url, bucket, "pre/fix/"),
            env=gcs_server.env,
            missing_url=gcs_server.url("no-such-bucket", "prefix"),
            sibling_url=gcs_server.url(bucket, "pre/fixed"),
        )


class BookSideDoor:
    def __init__(self, service: Service, prefix: str) -> None:
        self.service, self.prefix = service, prefix

    def stored_keys(self) -> set[str]:
        names = list(self.service.objects["bucket"])
        return {name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)}

    def read(self, key: str) -> bytes:
        return self.service.objects["bucket"][self.prefix + key][1]

    def write(self, key: str, data: bytes) -> None:
        self.service.create("bucket", {"name": self.prefix + key}, data)


class TestGcsByTheBook(StorageContract):
    cannot: ClassVar = SEQUENTIAL

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls) -> Iterator[Destination]:
        with gcs_by_the_book() as service:
            service.objects["bucket"] = {}
            yield Destination(
                "gs://bucket/pre/fix",
                BookSideDoor(service, "pre/fix/"),
                env={"STORAGE_EMULATOR_HOST": f"http://{service.authority}"},
                missing_url="gs://no-such-bucket/prefix",
                sibling_url="gs://bucket/pre/fixed",
                refused=lambda: refusing(service),
            )


@contextlib.contextmanager
def refusing(service: Service) -> Iterator[StorageBackend]:
    service.refuse_everybody = True
    try:
        with contextlib.closing(GcsBackend("bucket")) as backend:
            yield backend
    finally:
        service.refuse_everybody = False

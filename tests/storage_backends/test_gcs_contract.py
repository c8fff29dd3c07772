from __future__ import annotations

from typing import ClassVar

import pytest

from tests.contracts.storage_contract import Destination, StorageContract
from tests.servers import GcsServer
from tests.storage_backends.side_doors import GcsSideDoor


class TestGcs(StorageContract):
    cannot: ClassVar = {
        "test_parts_can_be_sent_at_once_in_any_order": "a session is sequential",
        "test_of_a_part_sent_twice_the_last_counts": "a session keeps what came first; its checksum tells at the end",
        "test_a_part_may_be_sent_twice": "fake-gcs-server appends it again",
        "test_another_worker_cannot_go_on_with_an_aborted_upload": "fake-gcs-server goes on with a deleted session",
        "test_an_upload_if_absent_does_not_replace_what_appeared_meanwhile": (
            "fake-gcs-server ignores conditions on sessions"
        ),
        "test_a_refusal_to_write_is_named_as_such": "fake-gcs-server takes everybody",
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

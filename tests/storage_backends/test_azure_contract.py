"""The contract over Azure Blob Storage, on Microsoft's emulator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import pytest

from storage_backends.base import StorageBackend
from storage_backends.registry import open_destination
from tests.contracts.storage_contract import Destination, StorageContract
from tests.servers import AzuriteServer
from tests.storage_backends.side_doors import AzureSideDoor


class TestAzure(StorageContract):
    cannot: ClassVar = {
        "test_another_worker_cannot_go_on_with_an_aborted_upload": (
            "Azure has no uploads to abort, only blocks, which it discards after a week"
        ),
    }

    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, azurite_server: AzuriteServer) -> Iterator[Destination]:
        container = azurite_server.new_bucket()
        with azurite_server.client() as client:
            yield Destination(
                azurite_server.url(container, "pre/fix"),
                AzureSideDoor(client.get_container_client(container), "pre/fix/"),
                env=azurite_server.env,
                missing_url=azurite_server.url("no-such-container", "prefix"),
                sibling_url=azurite_server.url(container, "pre/fixed"),
                refused=lambda: reading_only(azurite_server, container),
            )


@contextlib.contextmanager
def reading_only(server: AzuriteServer, container: str) -> Iterator[StorageBackend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_STORAGE_SAS_TOKEN", server.sas(container, read=True))
        with contextlib.closing(open_destination(server.url(container))) as store:
            yield store
